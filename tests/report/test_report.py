import functools
import json
import math
import re

import pytest
from reports import Page, comparison, looked_up, report, study

from mcbn.evaluation.compare import Comparison, entry
from mcbn.evaluation.convergence import Convergence
from mcbn.report import report as report_module
from mcbn.report.report import Report


def small():
    """The least there can be: one method, and scores without intervals."""
    return Report("Bare", comparison(far=False, names=("Plain",), resamples=0))


@functools.cache
def page():
    return report().to_html()


def test_numbers_of_the_page_are_those_of_the_json():
    numbers, cells = report().to_dict(), Page(page()).cells
    assert len(cells) > 60
    for key, found in cells.items():
        for cell in found:
            assert float(cell["data-value"]) == looked_up(numbers, key), key


def test_json_is_the_dict_without_nan(tmp_path):
    found = small()
    path = found.write(tmp_path / "new")
    assert path == tmp_path / "new" / "report.html"
    assert path.read_text(encoding="utf-8") == found.to_html()
    text = path.with_suffix(".json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == found.to_dict()


def test_equal_input_gives_an_equal_page():
    assert report().to_html() == page()


def test_sections_without_data_are_missing():
    found = small().to_html()
    ids = Page(found).ids
    assert {"verdict", "provenance", "scores", "reliability", "selective", "glossary"} <= set(ids)
    assert not {"outside", "study", "convergence"} & set(ids)
    assert {"outside", "study", "convergence", "cost"} <= set(Page(page()).ids)
    assert not re.search(r"\bnan\b", found, flags=re.IGNORECASE)


def test_page_asks_for_nothing_and_repeats_no_id():
    found = Page(page())
    assert len(found.ids) == len(set(found.ids)) > 100
    links = [
        attrs.get("src") or attrs.get("href") or attrs.get("xlink:href") for _, attrs in found.tags
    ]
    for link in filter(None, links):
        assert link.startswith(("#", "data:")) or link == "report.json"
    assert "@import" not in page()
    assert {use[1:] for use in links if use and use.startswith("#")} <= set(found.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", page())) <= set(found.ids)


def test_names_are_escaped_everywhere():
    bad = '<script>alert(1)</script>"$x_"'
    found = comparison()
    entries = {
        f"{name} {bad} \u65b9": entry(
            old.predictive, found.targets, outside={bad: old.outside["noise"]}, resamples=5,
            progress=False,
        )
        for name, old in found.entries.items()
    }  # fmt: skip
    hostile = Comparison(entries, found.targets, (bad, "b", "c", "d"))
    curve = Convergence((1, 2), (0.5, 0.4), (0.1, math.nan))
    text = Report(
        bad, hostile, convergence={next(iter(entries)): curve}, provenance={bad: bad}, notes=(bad,)
    ).to_html()
    assert text.count("<script>") == 1
    assert "<script>alert" not in text
    assert [tag for tag, _ in Page(text).tags].count("script") == 1
    assert f"{bad} \u65b9" in next(
        attrs["aria-label"] for tag, attrs in Page(text).tags if tag == "svg" and "role" in attrs
    )


def test_best_is_marked_in_the_better_direction():
    methods = comparison().to_dict()["methods"]
    cells = Page(page()).cells
    for name, pick in (("accuracy", max), ("nll", min), ("aurc", min), ("auroc_of_errors", max)):
        best = pick(found["scores"][name]["value"] for found in methods.values())
        for method, found in methods.items():
            marked = cells[f"comparison.methods.{method}.scores.{name}"][0]["class"] == "best"
            assert marked == (found["scores"][name]["value"] == best), (name, method)


def test_differences_are_marked_only_beyond_zero():
    numbers, cells = report().to_dict()["comparison"], Page(page()).cells
    marks = set()
    for method, scores in numbers["differences"].items():
        for name in ("accuracy", "nll", "brier", "aurc"):
            found, better = scores[name], numbers["methods"][method]["scores"][name]["better"]
            sure = found["low"] > 0 or found["high"] < 0
            word = "better" if (found["value"] > 0) == (better == "higher") else "worse"
            mark = cells[f"comparison.differences.{method}.{name}"][0]["class"]
            assert mark == (word if sure else "")
            marks.add(mark)
    assert "" in marks
    assert len(marks) > 1


def claim(topic, **changes):
    found = Report("t", changes.pop("comparison", comparison()), **changes)
    return next(claim for claim in found.verdict if claim.topic == topic)


@pytest.mark.parametrize(
    ("scale", "mark", "words"),
    [
        (3.0, "bad", "Plain is over-confident, by"),
        (0.4, "bad", "Plain is under-confident, by"),
        (1.0, "good", "cannot be told apart from one that is neither"),
    ],
)
def test_verdict_on_calibration(scale, mark, words):
    found = claim(
        "Calibration",
        comparison=comparison(scale=scale, examples=4000, resamples=2, names=("Plain",)),
    )
    assert words in found.sentence
    assert found.mark == mark


def test_few_examples_do_not_earn_praise():
    found = claim("Calibration", comparison=comparison(examples=60))
    assert found.mark == "uncertain"
    assert "cannot be told apart" in found.sentence


@pytest.mark.parametrize(
    ("power", "mark", "words"),
    [(-1.0, "bad", "roughly as 1/M"), (0.0, "good", "Most of it is kept")],
)
def test_verdict_on_batch_size(power, mark, words):
    found = claim("Batch size", study=study(power=power))
    assert words in found.sentence
    assert found.mark == mark
    factor = report_module.decay(study(power=power)).factor
    assert factor == pytest.approx(16**-power)


def test_one_network_is_no_proof():
    assert claim("Batch size", study=study(seeds=(0,), training=(8,))).mark == "uncertain"


def test_one_seed_is_no_proof_however_many_batch_sizes():
    found = report_module.decay(study(seeds=(0,)))
    assert math.isnan(found.low)
    assert found.networks == 2
    assert claim("Batch size", study=study(seeds=(0,))).mark == "uncertain"


@pytest.mark.parametrize(("spread", "mark"), [(1e-4, "good"), (10.0, "bad")])
def test_verdict_on_draws(spread, mark):
    curve = Convergence((1, 2, 4, 8), (1.0,) * 4, (spread, spread, spread, math.nan))
    assert claim("Draws", convergence={"MCBN": curve}).mark == mark


def test_monte_carlo_error_follows_the_root_law():
    curve = Convergence((1, 2, 4), (1.0,) * 3, (0.4, 0.4 / 2**0.5, math.nan))
    assert report_module.monte_carlo_error(curve, 16) == pytest.approx(0.1)
    assert math.isnan(report_module.monte_carlo_error(Convergence((1,), (1.0,), (math.nan,)), 1))


def test_verdict_on_methods_and_outside_says_what_cannot_be_told_apart():
    found = comparison()
    same = next(iter(found.entries.values()))
    twins = Comparison({"A": same, "B": same}, found.targets, ())
    best = claim("Best method", comparison=twins)
    assert best.mark == "uncertain"
    assert "cannot be told apart" in best.sentence
    assert claim("Outside").mark == "good"
    outside = claim("Outside", comparison=twins)
    assert outside.mark == "bad"
    assert "cannot be shown to tell it apart" in outside.sentence


def test_without_intervals_nothing_is_praised_or_blamed():
    found = Report("t", comparison(resamples=0), study=None)
    marks = {c.topic: c.mark for c in found.verdict}
    assert marks["Best method"] == marks["Errors"] == marks["Outside"] == "uncertain"


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    small().write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"report.html", "report.json"}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        small().write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
