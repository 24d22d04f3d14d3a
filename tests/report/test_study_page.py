import functools
import json
import math
import re
from dataclasses import replace
from html import escape

import numpy as np
import pytest
from reports import ParsedPage, looked_up
from synthetic_studies import (
    classification_plan,
    classification_scores,
    classification_study,
    made_study,
    regression_scores,
    regression_study,
    spread_of,
)

from mcbn.checks.spread import FLAT_SLOPE
from mcbn.drawing.figures import Curve
from mcbn.report import page as page_module
from mcbn.report.report import Report
from mcbn.report.study_panels import limits_of, shades
from mcbn.report.study_sections import MAX_FIGURES
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes

METHODS = ("Deterministic", "MCBN", "MC Dropout", "Deep ensemble")
MINUS = "\N{MINUS SIGN}"
BAD = '<script>alert(1)</script>"$x_"'


@functools.cache
def full():
    """The page on a study of every method, at many batch sizes."""
    return Report.from_study(classification_study())


def small(**changes):
    """A plan of few methods and sizes, so that its page is quick to draw."""
    given = {
        "methods": METHODS,
        "training": TrainingAxes(batch_sizes=(32,)),
        "inference": InferenceAxes(batch_sizes=(8, 64)),
        "scores": ("nll", "epistemic_sd"),
        "data": DataAxes(outside=("rotated",)),
        "seeds": (0, 1, 2),
    }
    return classification_plan(**given | changes)


@functools.cache
def drawn():
    """The page on the small study, with its figures."""
    return Report.from_study(made_study(small(), classification_scores)).to_html()


def claims(study, topic):
    numbers = Report.from_study(study).to_dict()
    return [claim for claim in numbers["verdict"] if claim["topic"] == topic]


def test_numbers_of_the_page_are_those_of_the_json(undrawn):
    numbers, cells = full().to_dict(), ParsedPage(full().to_html()).cells
    assert len(cells) > 1000
    kinds = {key.split(".")[2] for key in cells}
    assert kinds == {"means", "slopes", "contrasts", "costs", "figures"}
    for key, same_key in cells.items():
        for cell in same_key:
            value = looked_up(numbers, key)
            assert value is None or float(cell["data-value"]) == value, key


def test_json_has_no_nan_and_both_files_are_written(tmp_path, undrawn):
    report = Report.from_study(made_study(small(seeds=(0,)), classification_scores))
    path = report.write(tmp_path / "new")
    assert path == tmp_path / "new" / "report.html"
    assert path.read_text(encoding="utf-8") == report.to_html()
    text = path.with_suffix(".json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == json.loads(json.dumps(report.to_dict()))


def test_equal_studies_give_equal_pages():
    assert Report.from_study(made_study(small(), classification_scores)).to_html() == drawn()


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch, undrawn):
    Report.from_study(made_study(small(), classification_scores)).write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_, **__):
        raise ValueError("no figure")

    monkeypatch.setattr(page_module, "page_html", fail)
    with pytest.raises(ValueError, match="no figure"):
        Report.from_study(made_study(small(seeds=(0,)), classification_scores)).write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_page_loads_nothing_and_repeats_no_id():
    parsed = ParsedPage(drawn())
    assert len(parsed.ids) == len(set(parsed.ids)) > 10
    links = [
        attrs.get("src") or attrs.get("href") or attrs.get("xlink:href")
        for _, attrs in parsed.tags
    ]  # fmt: skip
    for link in filter(None, links):
        assert link.startswith(("#", "data:")) or link == "report.json"
    assert "@import" not in drawn()
    assert {use[1:] for use in links if use and use.startswith("#")} <= set(parsed.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", drawn())) <= set(parsed.ids)
    assert "default-src 'none'" in drawn()
    assert not re.search(r"\bnan\b", re.sub(r"<svg.*?</svg>", "", drawn(), flags=re.DOTALL))


def test_sections_are_those_that_the_study_has(undrawn):
    every = {"summary", "checks", "setup", "scores", "slopes", "outside", "tests", "heat", "cost"}
    assert every <= set(ParsedPage(full().to_html()).ids)
    plain = Report.from_study(made_study(small(data=DataAxes()), classification_scores)).to_html()
    assert every - set(ParsedPage(plain).ids) == {"outside"}
    assert "N" not in ParsedPage(plain).ids


def test_every_shown_score_is_drawn_for_every_training_size():
    figures = full().to_dict()["parts"][0]["figures"]
    titles = [group["title"] for group in figures["scores"]]
    assert titles == ["NLL", "Accuracy", "Brier", "ECE, debiased", "Smooth ECE", "AUROC of errors",
                      "AURC"]  # fmt: skip
    assert [group["title"] for group in figures["slopes"]] == ["Epistemic sd", "Mutual information"]
    study = full().content.study
    for group in (*figures["scores"], *figures["slopes"]):
        assert len(group["panels"]) == 3
    nll = figures["scores"][0]["panels"][1]
    assert nll["title"] == "Trained at batch size 64"
    for method in study.methods:
        sizes = study.batch_sizes if len(nll[method]["x"]) > 1 else (None,)
        for index, size in enumerate(sizes):
            point = study.point("nll", method, training_batch_size=64, batch_size=size)
            shown = (nll[method]["y"][index], nll[method]["low"][index])
            assert shown == (point.mean, point.low)


@pytest.mark.parametrize("measure", ["entropy", "mutual_information"])
def test_auroc_of_all_methods_is_by_one_score(measure):
    """A single draw has no mutual information, and is not shown there."""
    figures = full().to_dict()["parts"][0]["figures"]
    title = f"AUROC of rotated against the test examples by {measure.replace('_', ' ')}"
    (group,) = [g for g in figures["outside"] if g["title"] == title]
    study, panel = full().content.study, group["panels"][0]
    assert ("Deterministic" in panel) == (measure == "entropy")
    for method in {"Deterministic", "Deep ensemble"} & set(panel):
        point = study.point(f"auroc_rotated_by_{measure}", method, training_batch_size=32)
        assert panel[method]["y"] == [point.mean]


def test_heat_map_has_the_means_and_the_strongest_colour_is_best():
    panel = full().to_dict()["parts"][0]["figures"]["heat"][0]["panels"][0]
    assert panel["training"] == [32, 64, 256]
    assert panel["inference"] == [4, 16, 64, 256]
    point = full().content.study.point("nll", "MCBN", training_batch_size=64, batch_size=16)
    assert panel["mean"][1][1] == point.mean
    values = np.array([[0.5, 0.3], [math.nan, 0.4]])
    tints = shades(values, "nll")
    assert tints[0].tolist() == [0.0, 1.0]
    assert math.isnan(tints[1, 0])
    assert shades(values, "pll")[0].tolist() == [1.0, 0.0]


def test_axes_show_the_means_however_wide_the_bands():
    means = Curve("a", (1.0, 2.0), (0.4, 0.6), (-9.0, -9.0), (9.0, 9.0), 0)
    assert limits_of([means], log=False) == pytest.approx((0.2, 0.8))
    narrow = replace(means, low=(0.38, 0.58), high=(0.42, 0.62))
    assert limits_of([narrow], log=False) == pytest.approx((0.32, 0.68))
    one = replace(means, y=(0.5, 0.5), low=(0.4, 0.4), high=(0.6, 0.6))
    assert limits_of([one], log=False) == pytest.approx((0.4, 0.6))
    assert limits_of([replace(means, y=(1e-9, 1.0))], log=True)[0] > 1e-6


def test_axes_end_a_little_beyond_the_range_of_a_score():
    wide = Curve("a", (1.0, 2.0), (0.5, 0.98), (-9.0, -9.0), (9.0, 9.0), 0)
    # From 0.02, 0.48 below the least, to 1, with 3% of that span above it.
    for score in ("accuracy", "auroc_rotated", "coverage_90"):
        assert limits_of([wide], log=False, score=score) == pytest.approx((0.02, 1 + 0.03 * 0.98))
    low = replace(wide, y=(0.1, 0.3))
    assert limits_of([low], log=False, score="ece") == pytest.approx((-0.03 * 0.5, 0.5))
    assert limits_of([low], log=False, score="pll") == pytest.approx((-0.1, 0.5))


def test_titles_and_errors_are_escaped(undrawn):
    plan = small(title=BAD, seeds=(0, 1))
    study = made_study(plan, classification_scores, failed=lambda cell: cell.batch_size == 8)
    failures = dict.fromkeys(study.failures, BAD)
    text = Report.from_study(replace(study, failures=failures)).to_html()
    assert text.count("<script>") == 1
    assert "<script>alert" not in text
    assert [tag for tag, _ in ParsedPage(text).tags].count("script") == 1
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize(
    ("failed", "missing", "mark", "words"),
    [
        (False, False, "good", "All 15 cells are finished."),
        (True, False, "bad", "12 of 15 cells are finished; 3 failed"),
        (False, True, "uncertain", "14 of 15 cells are finished; 1 is missing"),
    ],
)
def test_failed_and_missing_cells_are_named_first(failed, missing, mark, words, undrawn):
    study = made_study(
        small(), classification_scores,
        failed=lambda cell: failed and cell.batch_size == 8,
        missing=lambda cell: missing and cell.method == "MC Dropout" and cell.network.seed == 2,
    )  # fmt: skip
    first = Report.from_study(study).to_dict()["verdict"][0]
    assert first["mark"] == mark
    assert first["sentence"].startswith(words)
    text = Report.from_study(study).to_html()
    assert words.replace("<", "&lt;") in text
    assert ("RuntimeError: the loss is &lt;nan&gt;" in text) == failed


def test_study_without_a_finished_cell_says_so(undrawn):
    study = made_study(small(), classification_scores, missing=lambda cell: True)
    text = Report.from_study(study).to_html()
    assert "0 of 15 cells are finished" in text
    assert {"summary", "setup", "glossary"} <= set(ParsedPage(text).ids)


def test_missing_cells_leave_gaps_and_do_not_stop_the_page():
    study = made_study(
        small(methods=("Deterministic", "MCBN", "Stochastic BN")), classification_scores,
        missing=lambda cell: cell.method == "MCBN" and cell.batch_size == 8,
    )  # fmt: skip
    part = Report.from_study(study).to_dict()["parts"][0]
    panel = part["figures"]["scores"][0]["panels"][0]
    assert [y is None for y in panel["MCBN"]["y"]] == [True, False]
    assert [y is None for y in panel["Stochastic BN"]["y"]] == [False, False]
    assert {slope["method"] for slope in part["slopes"]} == {"Stochastic BN"}
    assert part["figures"]["heat"][0]["panels"][0]["mean"][0][0] is None


def test_single_seed_has_no_bands_no_tests_and_says_so(undrawn):
    study = made_study(small(seeds=(0,)), classification_scores)
    numbers = Report.from_study(study).to_dict()
    (claim,) = claims(study, "Replicates")
    assert "no tests" in claim["sentence"]
    part = numbers["parts"][0]
    assert {test["adjusted"] for tests in part["contrasts"].values() for test in tests} == {None}
    assert {mean["scores"]["nll"]["low"] for mean in part["means"]} == {None}
    marks = {claim["topic"]: claim["mark"] for claim in numbers["verdict"]}
    assert {marks.pop(topic) for topic in ("Cells", "Replicates")} == {"good", "bad"}
    assert set(marks.values()) == {"uncertain"}
    assert "no test" in Report.from_study(study).to_html()


def power(value):
    return lambda cell: (
        classification_scores(cell) | {"epistemic_sd": spread_of(cell, power=value, sd=0.01)}
    )


@pytest.mark.parametrize(
    ("value", "mark", "words"),
    [
        (-0.5, "bad", f"is not significantly different from the power {MINUS}1/2"),
        (-0.7, "bad", f"steeper than the power {MINUS}1/2"),
        (-0.35, "bad", f"slower than the power {MINUS}1/2"),
        (0.0, "good", "Most of it remains"),
    ],
)
def test_verdict_on_the_slope(value, mark, words):
    (claim,) = claims(made_study(small(), power(value)), "Epistemic spread")
    assert claim["mark"] == mark
    assert words in claim["sentence"]
    assert FLAT_SLOPE < 0


def test_slope_that_could_be_flat_or_steep_is_left_open():
    def scores(cell):
        slope = (-0.05, -0.25, -0.45)[cell.network.seed]
        return classification_scores(cell) | {"epistemic_sd": (cell.batch_size or 1) ** slope}

    (claim,) = claims(made_study(small(), scores), "Epistemic spread")
    assert claim["mark"] == "uncertain"
    assert "Little of it" not in claim["sentence"]
    assert "remains" not in claim["sentence"]


def test_verdict_corrects_the_slope_for_drawing_without_replacement():
    def scores(cell):
        made = classification_scores(cell)
        drawn = cell.bank_batch_size or 0
        factor = math.sqrt((128 - drawn) / 127)
        return made | {"epistemic_sd": spread_of(cell, sd=0.01) * factor}

    study = made_study(small(data=DataAxes(train_sizes=(128,))), scores)
    (claim,) = claims(study, "Epistemic spread")
    assert f"scales as M to the power {MINUS}0.6" in claim["sentence"]
    assert f"drawing without replacement it is {MINUS}0.50" in claim["sentence"]
    assert f"is not significantly different from the power {MINUS}1/2" in claim["sentence"]


def shifted(amount):
    """NLL of MCBN at M = 64 is lower by an amount than the other methods'."""

    def scores(cell):
        made = classification_scores(cell)
        nll = 0.4 + 0.1 * cell.network.seed + 0.001 * (made["nll"] - 0.4)
        return made | {"nll": nll - amount * (cell.batch_size == 64)}

    return scores


@pytest.mark.parametrize(
    ("amount", "mark", "words"),
    [
        (0.2, "good", "is that of MCBN, M = 64, trained at 32. The difference from Deterministic"),
        (-0.2, "bad", "is that of Deterministic, trained at 32. No other method"),
    ],
)
def test_verdict_on_the_best_method(amount, mark, words):
    plan = small(methods=("Deterministic", "MCBN"), inference=InferenceAxes(batch_sizes=(64,)))
    (claim,) = claims(made_study(plan, shifted(amount)), "Best method")
    assert claim["mark"] == mark
    assert words in claim["sentence"]
    assert (", significant after correction for 1 primary test " in claim["sentence"]) == (
        mark == "good"
    )


def test_a_lead_that_is_not_significant_is_not_called_good():
    def scores(cell):
        nll = {"MCBN": (0.1, 0.5, 0.2)}.get(cell.method, (0.3, 0.3, 0.3))[cell.network.seed]
        return classification_scores(cell) | {"nll": nll}

    plan = small(methods=("Deterministic", "MCBN"), inference=InferenceAxes(batch_sizes=(64,)))
    (claim,) = claims(made_study(plan, scores), "Best method")
    assert claim["mark"] == "uncertain"
    assert "not significant after" in claim["sentence"]


@pytest.mark.parametrize(
    ("auroc", "mark", "words"),
    [(0.95, "good", "detects it well"), (0.7, "uncertain", "only partly"),
     (0.5, "bad", "does not detect it significantly")],
)  # fmt: skip
def test_verdict_on_out_of_distribution_sets(auroc, mark, words):
    def scores(cell):
        wobble = 0.01 * (cell.network.seed - 1)
        return classification_scores(cell) | {
            "auroc_rotated_by_mutual_information": auroc + wobble - (cell.batch_size == 64) * 0.1
        }

    (claim,) = claims(made_study(small(), scores), "Out of distribution")
    assert claim["mark"] == mark
    assert words in claim["sentence"]
    assert "best with M = 8" in claim["sentence"]
    assert "with M = 64 there" in claim["sentence"]


def test_real_targets_are_judged_by_their_log_density(undrawn):
    page = Report.from_study(regression_study())
    numbers, text = page.to_dict(), page.to_html()
    assert [part["name"] for part in numbers["parts"]] == ["bostonHousing", "yacht"]
    for part in numbers["parts"]:
        said = [c for c in numbers["verdict"] if c["part"] == part["name"]]
        claim = next(c for c in said if c["topic"] == "Best method")
        assert "PLL" in claim["sentence"]
        tops = [mean["scores"]["pll"]["mean"] for mean in part["means"]]
        best = part["means"][tops.index(max(tops))]
        assert f"that of {best['method']}, M = {best['batch_size']}," in claim["sentence"]
        assert list(part["contrasts"]) == ["pll", "rmse", "crps", "pit_error"]
        heat = [panel["title"] for panel in part["figures"]["heat"][0]["panels"]]
        assert heat == ["PLL of MCBN", "Epistemic sd of MCBN"]
    ids = ParsedPage(text).ids
    assert len(ids) == len(set(ids))
    assert "outside" not in ids
    assert "All parts" in text


def test_classes_and_real_targets_in_one_study():
    plan = Plan(
        data=DataAxes(names=("digits", "yacht")), network=NetworkAxes(names=("mlp",)),
        training=TrainingAxes(batch_sizes=(32,)), inference=InferenceAxes(batch_sizes=(8, 64)),
        methods=("Deterministic", "MCBN"),
    )  # fmt: skip
    study = made_study(
        plan,
        lambda cell: (
            regression_scores(cell) if cell.network.data == "yacht" else classification_scores(cell)
        ),
    )
    digits, yacht = Report.from_study(study).to_dict()["parts"]
    assert "nll" in digits["contrasts"]
    assert "pll" not in digits["contrasts"]
    assert "pll" in yacht["contrasts"]
    assert "nll" not in yacht["means"][0]["scores"]


def test_spread_that_does_not_contract_with_more_examples_is_shown(undrawn):
    def scores(cell):
        made, size = classification_scores(cell), cell.network.train_size
        spread = 0.3 * (cell.batch_size or size) ** -0.5 * (1 + 0.01 * cell.network.seed)
        return made | {"epistemic_sd": spread}

    plan = small(data=DataAxes(train_sizes=(100, 400, 1600)))
    page = Report.from_study(made_study(plan, scores))
    numbers = page.to_dict()
    slopes = {(t["method"], t["batch_size"]): t["estimate"]["mean"] for t in numbers["trends"]}
    assert slopes["MCBN", 8] == pytest.approx(0, abs=1e-9)
    assert slopes["MCBN", 64] == pytest.approx(0, abs=1e-9)
    assert slopes["Deep ensemble", None] == pytest.approx(-0.5)
    (claim,) = [claim for claim in numbers["verdict"] if claim["topic"] == "More data"]
    assert claim["mark"] == "bad"
    assert "does not contract" in claim["sentence"]
    panel = numbers["figures"]["N"][1]["panels"][0]
    assert panel["MCBN, M = 8"]["x"] == [100.0, 400.0, 1600.0]
    assert "N" in ParsedPage(page.to_html()).ids


def test_draws_are_swept_and_methods_without_a_choice_are_horizontal():
    plan = small(inference=InferenceAxes(batch_sizes=(8, 64), draws=(4, 16)), seeds=(0, 1))
    numbers = Report.from_study(made_study(plan, classification_scores)).to_dict()
    assert [part["name"] for part in numbers["parts"]] == ["T = 4", "T = 16"]
    panel = numbers["figures"]["T"][0]["panels"][0]
    assert panel["Deterministic"]["y"][0] == panel["Deterministic"]["y"][1]
    assert panel["MCBN, M = 8"]["y"][0] != panel["MCBN, M = 8"]["y"][1]


def test_methods_without_batch_sizes_have_tables_and_no_curves(undrawn):
    study = made_study(small(methods=("Deterministic", "MC Dropout")), classification_scores)
    text = Report.from_study(study).to_html()
    assert {"scores", "tests", "cost"} <= set(ParsedPage(text).ids)
    assert not {"slopes", "heat"} & set(ParsedPage(text).ids)


def test_cost_is_relative_to_the_plain_network(undrawn):
    costs = {(c["method"], c["batch_size"]): c for c in full().to_dict()["parts"][0]["costs"]}
    assert costs["MCBN", 64]["collect"] == pytest.approx(0.64)
    assert costs["MCBN", 64]["predict"] == pytest.approx(3.2)
    assert costs["MCBN", 64]["ratio"] == pytest.approx(32)
    assert costs["Deterministic", None]["ratio"] == 1
    assert "Predicting 1,000 examples" in full().to_html()  # 400 test examples, 3.2 s
    assert ">8 s<" in full().to_html()


def test_a_page_holds_a_bounded_number_of_figures_and_its_json_all(undrawn):
    plan = classification_plan(
        seeds=(0, 1), inference=InferenceAxes(batch_sizes=(4, 16), draws=(4, 8, 16, 32))
    )  # fmt: skip
    study = made_study(plan, classification_scores)
    report = Report.from_study(study)
    text, numbers = report.to_html(), report.to_dict()
    counts = [
        sum(len(group["panels"]) for groups in part["figures"].values() for group in groups)
        for part in numbers["parts"]
    ]
    assert len(counts) == 4
    assert len(set(counts)) == 1
    below = text.partition('<section id="checks">')[2]
    drawn_figures = below.count("<figure data-file=") - len(numbers["figures"].get("T", ()))
    assert counts[0] < drawn_figures <= MAX_FIGURES + 6 < sum(counts)
    assert "more figures than a page can hold" in text
    whole = Report.from_study(made_study(small(), classification_scores)).to_html()
    assert "more figures than a page can hold" not in whole
    first = next(part.claims[0].sentence for part in report.content.parts[-1:])
    assert escape(first) in text  # what is said of a part is said of the last as well
