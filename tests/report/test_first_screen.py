"""The first screen: it says what the checks show and no more, and its numbers are the report's."""

import math
import re
from dataclasses import replace

import pytest
import regression_reports
import reports
import torch
from equal_methods import compared, equal_methods
from reports import ParsedPage, looked_up
from synthetic_studies import classification_plan, classification_scores, made_study

from mcbn.checks.calibration_states import CalibrationState
from mcbn.checks.catalogue import CODES, Checked
from mcbn.checks.check import CheckResult
from mcbn.checks.claim import Claim
from mcbn.checks.differences import rival_difference
from mcbn.evaluation.compare import entry
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.evaluation.real_outputs import evaluation_of
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.gaussian import Moments
from mcbn.report import headlines
from mcbn.report.comparison_content import ComparisonContent
from mcbn.report.comparison_first import comparison_first
from mcbn.report.real_content import RealContent
from mcbn.report.real_first import real_first
from mcbn.report.report import Report
from mcbn.study.plan import DataAxes, InferenceAxes, TrainingAxes

STATES = ("calibrated", "over-confident", "under-confident", "biased", "uneven", "uncertain")
NLLS = {"plain": 0.5, "a": 0.3, "b": 0.4}


def checked(**marks):
    """What checks say that were given their marks, by the last digit of their code."""
    results = []
    for code, mark in marks.items():
        claim = Claim("", mark, "", code=f"MCBN00{code[-1]}")
        results.append(CheckResult(CODES[claim.code], (claim,)))
    return Checked(tuple(results))


def states(**names):
    return {name: CalibrationState(state, 0.051, 0.04, 0.06) for name, state in names.items()}


def headline(made, **marks):
    found = checked(**marks)
    values = {name: NLLS[name] for name in made}
    better = [name for name in made if name == "a" and marks.get("c3") == "good"]
    pick = headlines.picked(values, better, found, lowest=True)
    return headlines.method_headline(
        "plain", pick, made, found, count="200 test examples", by_gap=True
    )


@pytest.mark.parametrize("mark", ["good", "uncertain", "bad"])
def test_a_method_is_recommended_only_where_it_is_shown_to_be_better(mark):
    made = states(plain="over-confident", a="calibrated", b="calibrated")
    text = headline(made, c3=mark)
    assert ("Use a" in text) == (mark == "good")
    assert ("No method is shown to be better" in text) == (mark == "uncertain")
    assert ("No method improves on it" in text) == (mark == "bad")


def test_nothing_is_said_of_methods_where_their_check_is_ignored():
    made = states(plain="over-confident", a="calibrated")
    assert headline(made) == "plain is over-confident by 5.1 points."
    assert headline(states(plain="calibrated"), c3="good").startswith("plain is calibrated, as far")


@pytest.mark.parametrize("state", STATES)
def test_the_state_of_the_baseline_and_of_the_method_to_use_are_said(state):
    words = {"calibrated": "is calibrated", "over-confident": "over-confident",
             "under-confident": "under-confident", "biased": "biased",
             "uneven": "everywhere", "uncertain": "too few to say"}[state]  # fmt: skip
    assert words in headline(states(plain=state))
    text = headline(states(plain="calibrated", a=state), c3="good")
    said = text.partition("predicts better")[2]
    assert (words in said) or (state == "uncertain" and said == ".")


def test_the_pick_is_the_best_by_the_score_that_decides():
    both = ["b", "a"]
    assert headlines.picked(NLLS, both, checked(c3="good"), lowest=True) == "a"
    assert headlines.picked(NLLS, both, checked(c3="good"), lowest=False) == "b"
    assert headlines.picked(NLLS, ["b"], checked(c3="uncertain"), lowest=True) == "b"
    assert headlines.picked(NLLS, [], checked(c3="good"), lowest=True) == "plain"
    assert headlines.picked(NLLS, both, checked(), lowest=True) == "plain"


def test_a_method_that_is_shown_to_be_better_is_not_denied_for_one_that_is_better_by_chance():
    """The best NLL is uncertain, a smaller gain is sure: the headline is of that."""
    logits, targets = equal_methods(0, methods=1, examples=400)
    told = 2.0 * torch.nn.functional.one_hot(targets, 2).double() - 1
    # Right and sure of it but for one answer in fifty, which costs 20 nats.
    right = torch.arange(400)[:, None] % 50 > 0
    lucky = torch.where(right, 3 * told, -10 * told)
    made = compared(torch.stack([2.5 * logits[0], logits[0], lucky]), targets, resamples=400)
    nlls = [each["nll"].value for each in made.evaluations.values()]
    assert nlls[2] < nlls[1] < nlls[0]
    screen = comparison_first(ComparisonContent(made))
    assert "Use m1: it predicts better" in screen.headline
    assert screen.lede.startswith("The NLL of m1 is lower by")
    assert "m2 is not shown to be worse than m1" in screen.lede
    (claim,) = [each for each in screen.claims if each.code == headlines.BEST]
    assert claim.mark == "uncertain"


def test_the_same_is_so_of_real_values():
    wide, sure = (regression_reports.predictions(name, w) for name, w in (("m0", 1.6), ("m1", 1.0)))
    # Near the truth but for one value in a hundred, which costs 160 nats.
    off = 5.4 * (torch.arange(600) % 100 == 0)
    near = Moments(wide.targets + off, torch.full((600,), 0.09).double(), None, 0)
    lucky = replace(wide, method="m2", predictive=near)
    made = {"m0": wide, "m1": sure, "m2": lucky}
    scores = {name: evaluation_of(each, resamples=400) for name, each in made.items()}
    plls = [each["pll"].value for each in scores.values()]
    assert plls[0] < plls[1] < plls[2]
    screen = real_first(RealContent(made, scores))
    assert "Use m1: it predicts better" in screen.headline
    assert "The PLL of m1 is higher by" in screen.lede
    assert screen.lede.startswith("m2 has the highest PLL")


@pytest.mark.parametrize("make", [reports.report, regression_reports.report])
def test_numbers_of_the_first_screen_are_those_of_the_json(make):
    numbers, page = make().to_dict(), make().to_html()
    top = page.partition('<section id="checks">')[0]
    cells = ParsedPage(top).cells
    assert len(cells) >= 6
    for key, same_key in cells.items():
        path = key
        for name in numbers["calibration"]:  # names may have dots in them
            path = path.replace(name, name.replace(".", "\0"))
        value = numbers
        for part in path.split("."):
            value = value[part.replace("\0", ".")]
        value = value["value"] if isinstance(value, dict) else value
        for cell in same_key:
            assert float(cell["data-value"]) == value, key
    assert not re.search(r"\bnan\b", re.sub(r"<svg.*?</svg>", "", top, flags=re.DOTALL))


def test_differences_hold_for_all_methods_at_once():
    compared, numbers = reports.comparison(), reports.report().to_dict()["simultaneous"]
    assert set(numbers) == {"MCBN", "Dropout"}
    for name, score in numbers.items():
        expected = rival_difference(name, "nll", compared)
        assert (score["value"], score["low"], score["high"]) == (
            expected.value, expected.low, expected.high,
        )  # fmt: skip


def test_the_error_rate_without_the_least_certain_tenth_is_counted():
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(1, 50, 3, generator=generator)
    targets = torch.randint(3, (50,), generator=generator)
    scored = entry(ScoredRows(Categorical().summarize(logits), targets), outside={},
                   resamples=5, progress=False)  # fmt: skip
    tile = Report.from_comparison(Comparison({"m": scored}, targets, ()))._first.tiles[2]
    confidence, answers = logits[0].softmax(-1).max(-1)
    certain = confidence.argsort(descending=True)[:45]
    wrong = (answers[certain] != targets[certain]).double().mean()
    assert tile.value == f"{100 * wrong:.1f}%"
    assert f"{100 * (answers != targets).double().mean():.1f}%" in tile.note


def test_ignored_checks_are_said_nowhere_but_by_their_code():
    full = reports.report()
    code = next(claim.code for claim in full.verdict if claim.mark == "bad")
    less = Report(replace(full.content, ignore=(code,)))
    assert code not in {claim.code for claim in less.verdict}
    assert code not in {each["code"] for each in less.to_dict()["checks"]}
    text = less.to_html()
    assert f"Ignored: {code}." in text
    assert text.count(code) == 1
    with pytest.raises(ValueError, match="expected codes of checks"):
        Report.from_comparison(reports.comparison(), ignore=["MCBN999"])


def shifted(amount):
    """Scores of a study in which MCBN is better by an amount at every M."""
    return lambda cell: (
        classification_scores(cell)
        | {"nll": 0.5 + 0.001 * cell.network.seed - amount * (cell.method == "MCBN")}
    )


def small(**axes):
    return classification_plan(
        methods=("Deterministic", "MCBN"), training=TrainingAxes(batch_sizes=(32,)),
        inference=InferenceAxes(batch_sizes=(8, 64), draws=(8,)), **axes,
    )  # fmt: skip


@pytest.mark.parametrize(("amount", "is_better"), [(0.1, True), (0.0, False), (-0.1, False)])
def test_the_headline_of_a_study_claims_what_its_tests_show(amount, is_better):
    def scores(cell):
        # The wobble makes paired differences vary, so that there is something to test.
        wobble = 0.002 * math.sin(7 * cell.network.seed + (cell.batch_size or 0))
        made = shifted(amount)(cell)
        return made | {"nll": made["nll"] + wobble * (cell.method == "MCBN")}

    text = Report.from_study(made_study(small(seeds=(0, 1, 2, 3, 4, 5)), scores)).headline
    assert text.startswith("MCBN, ") == is_better
    assert ("no method is shown" in text) != is_better


def test_a_study_that_has_begun_and_one_of_parts_have_headlines():
    begun = made_study(small(), classification_scores, missing=lambda cell: True)
    assert Report.from_study(begun).headline == "No cell is finished yet."
    parts = made_study(small(data=DataAxes(names=("digits", "mnist"))), shifted(0.0))
    assert "In none of 2 parts" in Report.from_study(parts).headline


def test_the_table_of_a_study_is_of_the_best_means():
    report = Report.from_study(made_study(small(seeds=(0, 1)), classification_scores))
    numbers, parsed = report.to_dict(), ParsedPage(report.to_html())
    top = ParsedPage(report.to_html().partition('<section id="checks">')[0])
    for key, (cell, *_) in top.cells.items():
        assert float(cell["data-value"]) == looked_up(numbers, key)
        means = numbers["parts"][0]["means"]
        mine = means[int(key.split(".")[3])]
        rivals = [each["scores"]["nll"]["mean"] for each in means
                  if each["method"] == mine["method"]]  # fmt: skip
        assert looked_up(numbers, key) == min(rivals)
    assert len(top.cells) == 2 < len(parsed.cells)


def test_methods_that_are_not_shown_to_be_worse_are_named():
    """Of three equal methods two are as good as the third, and one that is clearly worse is not."""
    generator = torch.Generator().manual_seed(7)
    truth = 3 * torch.randn(1, 400, 4, generator=generator)
    targets = torch.multinomial(truth[0].softmax(1), 1, generator=generator)[:, 0]
    made = {"plain": 3 * truth, "a": truth, "b": truth + 0.01, "worse": 2.5 * truth}
    evaluations = {
        name: entry(
            ScoredRows(Categorical().summarize(logits), targets), outside={}, resamples=200,
            progress=False,
        ).evaluation
        for name, logits in made.items()
    }  # fmt: skip
    assert headlines.as_good(evaluations, "a", "nll") == ["b"]


@pytest.mark.parametrize("runs", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_equal_methods_are_rarely_left_out(runs):
    """Of sets of three equal methods, at most 5% and three standard errors lack one."""
    lacking, said = 0, ""
    for seed in range(runs):
        generator = torch.Generator().manual_seed(seed)
        truth = 3 * torch.randn(1, 200, 4, generator=generator)
        targets = torch.multinomial(truth[0].softmax(1), 1, generator=generator)[:, 0]
        logits = {"plain": 3 * truth} | {
            name: truth + 0.1 * torch.randn(truth.shape, generator=generator) for name in "abc"
        }
        entries = {
            name: entry(ScoredRows(Categorical().summarize(each), targets), outside={},
                        resamples=200, progress=False)
            for name, each in logits.items()
        }  # fmt: skip
        evaluations = {name: each.evaluation for name, each in entries.items()}
        best = min("abc", key=lambda name: evaluations[name]["nll"].value)
        found = headlines.as_good(evaluations, best, "nll")
        lacking += len(found) < 2
        if len(found) == 2 and not said:
            report = Report.from_comparison(Comparison(entries, targets, ()))
            said = f"{found[0]} and {found[1]} are not shown to be worse than {best}."
            assert f"Use {best}" in report.headline
            assert said in report.to_dict()["summary"]
    assert said
    assert lacking <= runs * 0.05 + 3 * (runs * 0.05 * 0.95) ** 0.5


def test_what_a_temperature_would_give_is_said_of_the_method_to_use():
    """Of the other method, which gains more beside a temperature, it would be otherwise."""
    generator = torch.Generator().manual_seed(3)
    truth = 2 * torch.randn(1, 2000, 4, generator=generator)
    targets = torch.multinomial(truth[0].softmax(1), 1, generator=generator)[:, 0]
    noise = torch.randn(truth.shape, generator=generator)
    # The first is the baseline at a right temperature; the second knows more, and is too sure.
    logits = {"plain": 3 * (truth + noise), "cooled": 0.6 * (truth + noise), "knows": 3.5 * truth}
    entries = {
        name: entry(ScoredRows(Categorical().summarize(each), targets), outside={}, resamples=200,
                    progress=False)
        for name, each in logits.items()
    }  # fmt: skip
    compared = Comparison(entries, targets, ())
    report = Report.from_comparison(compared)
    temperature = headlines.said_by(report.content.checked, "MCBN004")
    assert temperature.mark == "good"
    assert "knows" in temperature.sentence
    assert "Use cooled" in report.headline
    assert "A temperature for plain may do as well." in report.to_dict()["summary"]
