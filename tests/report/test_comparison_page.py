import functools
import json
import math
import re
from dataclasses import replace

import pytest
import torch
from reports import ParsedPage, comparison, looked_up, report, study

import mcbn
from mcbn.evaluation.compare import entry
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence, curve_error, monte_carlo_error
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.evaluation.finite_draws import draw_error
from mcbn.predictive.categorical import Categorical
from mcbn.report.comparison_content import ComparisonContent
from mcbn.report.report import Report
from mcbn.study.decay import decay


def small():
    """The smallest report: one method, and scores without intervals."""
    return Report.from_comparison(comparison(ood=False, names=("Plain",), resamples=0))


@functools.cache
def html():
    return report().to_html()


@functools.cache
def small_html():
    return small().to_html()


def test_numbers_of_the_page_are_those_of_the_json():
    numbers, cells = report().to_dict(), ParsedPage(html()).cells
    assert len(cells) > 60
    for key, same_key in cells.items():
        for cell in same_key:
            assert float(cell["data-value"]) == looked_up(numbers, key), key


def test_json_is_the_dict_without_nan(tmp_path):
    path = small().write(tmp_path / "new")
    assert path == tmp_path / "new" / "report.html"
    assert path.read_text(encoding="utf-8") == small_html()
    text = path.with_suffix(".json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == small().to_dict()


def test_equal_input_gives_an_equal_page():
    assert small().to_html() == small_html()


def test_the_title_has_a_default_and_may_be_given():
    assert mcbn.Report.from_comparison(comparison()).to_dict()["title"] == "Calibration report"
    titled = mcbn.Report.from_comparison(comparison(), title="Mine")
    assert titled.to_dict()["title"] == "Mine"


def test_sections_without_data_are_missing():
    ids = ParsedPage(small_html()).ids
    assert {"summary", "checks", "setup", "scores", "reliability", "selective", "glossary"} <= set(
        ids
    )
    assert not {"outside", "batch-size", "draws"} & set(ids)
    assert {"outside", "batch-size", "draws", "cost"} <= set(ParsedPage(html()).ids)
    assert not re.search(r"\bnan\b", small_html(), flags=re.IGNORECASE)


def test_page_loads_nothing_and_repeats_no_id():
    parsed = ParsedPage(html())
    assert len(parsed.ids) == len(set(parsed.ids)) > 10
    links = [
        attrs.get("src") or attrs.get("href") or attrs.get("xlink:href")
        for _, attrs in parsed.tags
    ]  # fmt: skip
    for link in filter(None, links):
        assert link.startswith(("#", "data:")) or link == "report.json"
    assert "@import" not in html()
    assert {use[1:] for use in links if use and use.startswith("#")} <= set(parsed.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", html())) <= set(parsed.ids)


def test_names_are_escaped_everywhere():
    bad = '<script>alert(1)</script>"$x_"'
    plain = comparison(examples=60, names=("Plain", "MCBN"))
    entries = {
        f"{name} {bad} \u65b9": entry(
            ScoredRows(old.predictive, plain.targets), outside={bad: old.outside["noise"]},
            resamples=5, progress=False,
        )
        for name, old in plain.entries.items()
    }  # fmt: skip
    hostile = Comparison(entries, plain.targets, (bad, "b", "c", "d"))
    curve = Convergence((1, 2), (0.5, 0.4), (0.1, math.nan))
    text = Report.from_comparison(
        hostile, title=bad, convergence={next(iter(entries)): curve}, provenance={bad: bad},
        notes=[bad],
    ).to_html()  # fmt: skip
    assert text.count("<script>") == 1
    assert "<script>alert" not in text
    tags = ParsedPage(text).tags
    assert [tag for tag, _ in tags].count("script") == 1
    labels = [attrs["aria-label"] for tag, attrs in tags if tag == "svg" and "role" in attrs]
    assert sum(f"{bad} \u65b9" in label for label in labels) > 3


def test_best_is_marked_in_the_better_direction():
    methods = comparison().to_dict()["methods"]
    cells = ParsedPage(html()).cells
    for name, pick in (("accuracy", max), ("nll", min), ("aurc", min), ("auroc_of_errors", max)):
        best = pick(entry_numbers["scores"][name]["value"] for entry_numbers in methods.values())
        for method, entry_numbers in methods.items():
            marked = cells[f"comparison.methods.{method}.scores.{name}"][0]["class"] == "best"
            assert marked == (entry_numbers["scores"][name]["value"] == best), (name, method)


def test_differences_are_marked_only_beyond_zero():
    numbers, cells = report().to_dict()["comparison"], ParsedPage(html()).cells
    marks = set()
    for method, scores in numbers["differences"].items():
        for name in ("accuracy", "nll", "brier", "aurc"):
            score, better = scores[name], numbers["methods"][method]["scores"][name]["better"]
            is_significant = score["low"] > 0 or score["high"] < 0
            word = "better" if (score["value"] > 0) == (better == "higher") else "worse"
            mark = cells[f"comparison.differences.{method}.{name}"][0]["class"]
            assert mark == (word if is_significant else "")
            marks.add(mark)
    assert "" in marks
    assert len(marks) > 1


def claim(topic, **changes):
    page = Report(ComparisonContent(changes.pop("comparison", comparison()), **changes))
    return next(claim for claim in page.verdict if claim.topic == topic)


@pytest.mark.parametrize(
    ("scale", "mark", "words"),
    [
        (3.0, "bad", "Plain is over-confident, by"),
        (0.4, "bad", "Plain is under-confident, by"),
        (1.0, "good", "Plain is neither significantly over- nor under-confident"),
    ],
)
def test_verdict_on_calibration(scale, mark, words):
    judged = claim(
        "Calibration",
        comparison=comparison(scale=scale, examples=4000, resamples=2, names=("Plain",)),
    )
    assert words in judged.sentence
    assert judged.mark == mark


def test_few_examples_are_not_called_good():
    judged = claim("Calibration", comparison=comparison(examples=60))
    assert judged.mark == "uncertain"
    assert "is neither significantly over-" in judged.sentence


@pytest.mark.parametrize(
    ("power", "mark", "words"),
    [(-1.0, "bad", "roughly as 1/M"), (0.0, "good", "Most of it remains")],
)
def test_verdict_on_batch_size(power, mark, words):
    judged = claim("Batch size", study=study(power=power))
    assert words in judged.sentence
    assert judged.mark == mark
    factor = decay(study(power=power)).factor
    assert factor == pytest.approx(16**-power)


def test_one_network_is_uncertain():
    assert claim("Batch size", study=study(seeds=(0,), training=(8,))).mark == "uncertain"


def test_one_seed_is_uncertain_however_many_batch_sizes():
    fit = decay(study(seeds=(0,)))
    assert math.isnan(fit.low)
    assert fit.networks == 2
    assert claim("Batch size", study=study(seeds=(0,))).mark == "uncertain"


def with_draws(**logs):
    """The comparison with other log-probabilities of the targets by each draw."""
    whole = comparison()
    entries = {
        name: replace(entry, target_logs=logs.get(name)) for name, entry in whole.entries.items()
    }
    return replace(whole, entries=entries)


@pytest.mark.parametrize(("spread", "mark"), [(1e-4, "good"), (10.0, "bad")])
def test_verdict_on_draws_by_curves(spread, mark):
    """Where the draws themselves are not known."""
    curve = Convergence((1, 2, 4, 8), (1.0,) * 4, (spread, spread, spread, math.nan))
    assert claim("Draws", comparison=with_draws(), convergence={"MCBN": curve}).mark == mark


@pytest.mark.parametrize(("noise", "mark"), [(1e-4, "good"), (3.0, "bad")])
def test_verdict_on_draws(noise, mark):
    """Of the difference from the baseline, whose half-width the draws are held to."""
    generator = torch.Generator().manual_seed(0)
    count = len(comparison().targets)
    draws = -1 + noise * torch.randn(6, count, generator=generator).double()
    compared = with_draws(Plain=torch.full((1, count), -1.0).double(), MCBN=draws)
    judged = claim("Draws", comparison=compared)
    assert judged.mark == mark
    error = draw_error(draws)
    assert f"NLL of MCBN minus that of Plain has a bias of {error.bias:.2g} nats" in judged.sentence
    difference = compared.differences()["MCBN"]["nll"]
    half_width = (difference.high - difference.low) / 2
    numbers = Report.from_comparison(compared).to_dict()["draws"]
    assert numbers == {
        "MCBN": {"draws": 6, "bias": pytest.approx(error.bias),
                 "error": pytest.approx(error.error), "half_width": pytest.approx(half_width),
                 "paired": True},
    }  # fmt: skip
    if mark == "bad":
        needed = error.draws_for(half_width / 4)
        assert f"the draws are not enough; about {needed} would be." in judged.sentence


def against(plain, other):
    """Two methods of one draw, by their logits, of 400 examples."""
    logits = torch.randn(400, 4, generator=torch.Generator().manual_seed(0)).double()
    noise = torch.randn(400, 4, generator=torch.Generator().manual_seed(1)).double()
    with torch.random.fork_rng():
        torch.manual_seed(2)
        targets = torch.multinomial((2 * logits).softmax(1), 1)[:, 0]
    entries = {
        name: entry(ScoredRows.of(Categorical(outputs="logits").summarize([make(logits, noise)]),
                                  targets), outside={}, resamples=200)
        for name, make in {"Plain": plain, "Other": other}.items()
    }  # fmt: skip
    return Comparison(entries, targets, ())


def sharp(logits, _):
    return 8 * logits


def right(logits, _):
    return 2 * logits


def blurred(logits, noise):
    return 2 * logits + 3 * noise


def test_verdict_says_where_a_temperature_would_do():
    judged = claim("Temperature", comparison=against(sharp, right))
    assert judged.mark == "uncertain"
    assert judged.sentence.endswith("a temperature for Plain may do as well, in one pass.")
    better = claim("Temperature", comparison=against(blurred, right))
    assert better.mark == "good"
    assert better.sentence.endswith("more is gained than a temperature would give.")
    same = Report.from_comparison(against(right, right)).verdict
    assert all(each.topic != "Temperature" for each in same)


def test_errors_are_judged_by_risk_not_by_how_well_each_method_knows_its_own():
    """Three in ten are answered at random, with little confidence: these errors are found well."""
    chance = torch.rand(400, generator=torch.Generator().manual_seed(3)) < 0.3

    def spoiled(logits, noise):
        return torch.where(chance[:, None], 0.2 * noise, 2 * logits)

    compared = against(right, spoiled)
    evaluations = compared.evaluations
    assert evaluations["Other"]["aurc"].value > evaluations["Plain"]["aurc"].value
    judged = claim("Errors", comparison=compared)
    assert judged.sentence.startswith("Plain ")
    better = claim("Errors", comparison=against(blurred, right))
    assert better.sentence.startswith("Other ")
    assert "significantly less than Plain: the paired difference is " in better.sentence


def test_classes_that_are_stated_too_high_and_too_low_are_not_called_calibrated():
    """Right on average: .925 of one class and .63 of the other, both stated at .778."""
    first, generator = torch.arange(2000) % 2, torch.Generator().manual_seed(2)
    true = torch.rand(2000, generator=generator) < torch.where(first == 0, 0.925, 0.63)
    logits = torch.zeros(2000, 2).double()
    logits[torch.arange(2000), first] = math.log(0.778 / 0.222)
    rows = ScoredRows.of(
        Categorical(outputs="logits").summarize([logits]), torch.where(true, first, 1 - first)
    )
    made = entry(rows, outside={}, resamples=200)
    judged = claim("Calibration", comparison=Comparison({"Plain": made}, rows.targets, ()))
    assert judged.mark == "bad"
    assert "calibrated on average but not in every class" in judged.sentence
    assert "the calibration error of single classes is" in judged.sentence


def test_scores_that_one_method_alone_has_are_dashes_of_the_others():
    kept = Categorical(outputs="logits").summarize(torch.zeros(2, 400, 4), keep_draws=True)
    compared = against(blurred, right)
    targets = compared.targets
    entries = {"Plain": compared.entries["Plain"],
               "Drawn": entry(ScoredRows.of(kept, targets), outside={}, resamples=200)}  # fmt: skip
    page = ParsedPage(Report.from_comparison(Comparison(entries, targets, ())).to_html())
    assert "comparison.methods.Drawn.scores.nll_extrapolated" in page.cells
    assert "comparison.methods.Plain.scores.nll" in page.cells


def test_the_method_is_judged_whose_draws_matter_most():
    generator, count = torch.Generator().manual_seed(0), len(comparison().targets)
    still, noisy = (
        -1 + noise * torch.randn(6, count, generator=generator).double() for noise in (1e-3, 3.0)
    )
    plain = torch.full((1, count), -1.0).double()
    for names in (("MCBN", "Dropout"), ("Dropout", "MCBN")):
        logs = dict(zip(names, (still, noisy), strict=True))
        judged = claim("Draws", comparison=with_draws(Plain=plain, **logs))
        assert f"the NLL of {names[1]} minus that of Plain" in judged.sentence


def test_draws_that_are_not_known_are_not_judged():
    assert not ComparisonContent(with_draws()).draws
    assert all(each.topic != "Draws" for each in Report.from_comparison(with_draws()).verdict)


def test_the_error_of_a_curve_is_that_of_its_last_halving():
    curve = Convergence((1, 2, 4, 8), (2.0, 1.6, 1.4, 1.3), (0.4, 0.2, 0.1, math.nan))
    error = curve_error(curve, 16)
    assert error.bias == pytest.approx(0.05)
    assert error.error == monte_carlo_error(curve, 16)


def test_monte_carlo_error_follows_the_root_law():
    curve = Convergence((1, 2, 4), (1.0,) * 3, (0.4, 0.4 / 2**0.5, math.nan))
    assert monte_carlo_error(curve, 16) == pytest.approx(0.1)
    assert math.isnan(monte_carlo_error(Convergence((1,), (1.0,), (math.nan,)), 1))


def test_verdict_says_what_is_not_significantly_different():
    same = next(iter(comparison().entries.values()))
    twins = Comparison({"A": same, "B": same}, comparison().targets, ())
    best = claim("Best method", comparison=twins)
    assert best.mark == "uncertain"
    assert "is not significantly different" in best.sentence
    assert "by entropy the best method, " in claim("Out of distribution").sentence
    assert " By mutual information " in claim("Out of distribution").sentence
    detection = claim("Out of distribution", comparison=twins)
    assert detection.mark == "bad"
    assert "does not detect it significantly better than guessing" in detection.sentence


def test_without_intervals_everything_is_uncertain():
    page = Report.from_comparison(comparison(resamples=0))
    marks = {claim.topic: claim.mark for claim in page.verdict}
    assert marks["Best method"] == marks["Errors"] == marks["Out of distribution"] == "uncertain"


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch, undrawn):
    small().write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"report.html", "report.json"}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        small().write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
