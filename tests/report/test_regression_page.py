"""The page on regression: its numbers are those of the JSON, and its verdict follows them."""

import functools
import json
import re

import numpy as np
import pytest
import torch
from regression_reports import HOSTILE, predictions, report
from reports import ParsedPage, looked_up
from scipy import stats

import mcbn
from mcbn.cli import report as verbs
from mcbn.cli.options.predictions import ReportOptions
from mcbn.evaluation import glossary
from mcbn.predictive.gaussian import Moments
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import write_predictions
from mcbn.report.panels import Transforms, pit_group, quantile_group
from mcbn.report.report import Report


@functools.cache
def html():
    return report().to_html()


def test_numbers_of_the_page_are_those_of_the_json():
    text = html()
    numbers, cells = report().to_dict(), ParsedPage(text).cells
    keys = [key for key in cells if key.startswith("comparison.")]
    assert len(keys) > 15
    for key in keys:
        # Names of methods have dots in them.
        kind, path = key.removeprefix("comparison.").split(".", 1)
        name = next(name for name in report().content.evaluations if path.startswith(name))
        part = numbers["comparison"][kind][name]
        for cell in cells[key]:
            assert float(cell["data-value"]) == looked_up(part, path.removeprefix(f"{name}."))
    assert json.dumps(numbers, allow_nan=False)
    assert [tag for tag, _ in ParsedPage(text).tags].count("script") == 1
    assert "<script>alert" not in text
    assert len(ParsedPage(text).ids) == len(set(ParsedPage(text).ids))
    assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)
    assert "Epistemic part of the variance" in text


def test_equal_input_gives_an_equal_page():
    again = report.__wrapped__()
    assert again.to_html() == html()


def test_coverage_and_width_are_never_called_best_or_better():
    cells = ParsedPage(html()).cells
    for key, same_key in cells.items():
        if key.endswith(("coverage_90", "width_90")):
            assert all(cell["class"] == "" for cell in same_key), key


@pytest.mark.parametrize(
    ("width", "mark", "words"),
    [(1.0, "good", "as intended"), (0.5, "bad", "over-confident"),
     (2.0, "bad", "under-confident")],
)  # fmt: skip
def test_verdict_tells_right_from_wrong_forecasts(width, mark, words):
    """The calibrated one is called good in 95% of seeds, the others hardly ever."""
    claim = report((width,)).verdict[0]
    assert claim.mark == mark
    assert words in claim.sentence


def test_verdict_on_methods():
    worse, better = report().verdict[1], report((0.5, 1.0)).verdict[1]
    assert (worse.mark, better.mark) == ("bad", "good")
    assert f"{HOSTILE} 1.0 has the highest PLL" in better.sentence


def test_without_intervals_and_draws_nothing_is_judged_or_invented(undrawn):
    plain = report((1.0,), resamples=0, known=False)
    assert plain.verdict[0].mark == "uncertain"
    text = plain.to_html()
    assert "not known" in text
    assert "Epistemic part" not in text
    assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)
    name = next(iter(plain.content.evaluations))
    assert plain.to_dict()["comparison"]["methods"][name]["epistemic_share"] is None


def test_bands_are_those_of_the_binomial():
    values = np.random.default_rng(0).random(200)
    numbers = pit_group({"a": Transforms.of_values(values)}, level=0.9).panels[0].numbers
    assert sum(numbers["height"]) == pytest.approx(20)
    ends = stats.binom(200, 1 / 20).ppf([0.05, 0.95]) / 10
    assert [numbers["band_low"], numbers["band_high"]] == pytest.approx(ends.tolist())
    quantiles = quantile_group({"a": Transforms.of_values(values)}, level=0.9).panels[0].numbers
    assert quantiles["share"][9] == (values <= 0.5).mean()
    assert quantiles["band_high"][9] == stats.binom(200, 0.5).ppf(0.95) / 200


def test_the_verb_reports_regression(tmp_path):
    paths = []
    for name, width in (("one", 1.0), ("two", 0.5)):
        paths.append(str(tmp_path / f"{name}.csv"))
        write_predictions(paths[-1], predictions(name, width))
    verbs.report(ReportOptions(paths, str(tmp_path / "r"), by="site", resamples=5))
    numbers = json.loads((tmp_path / "r" / "report.json").read_text())
    assert list(numbers["comparison"]["methods"]) == ["one", "two"]
    assert numbers["comparison"]["methods"]["one"]["epistemic_share"] == pytest.approx(0.25)
    assert numbers["comparison"]["methods"]["one"]["draws"] == 8
    assert set(numbers["groups"]["site"]["two"]) == {"a", "b"}
    with pytest.raises(ValueError, match="no --outside, and no --images"):
        verbs.report(ReportOptions(paths, str(tmp_path / "r"), outside=paths))


def test_classes_and_reals_are_not_mixed(tmp_path):
    draws = torch.randn(3, 600, 2, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(600, dtype=torch.int64)
    classes = Predictions("c", mcbn.Categorical().summarize(draws), targets, "d")
    write_predictions(tmp_path / "c.st", classes)
    write_predictions(tmp_path / "r.csv", predictions("r", 1.0))
    for order in (("c.st", "r.csv"), ("r.csv", "c.st")):
        with pytest.raises(ValueError, match="same kind"):
            verbs.report(
                ReportOptions([str(tmp_path / name) for name in order], str(tmp_path / "x"))
            )


def test_the_scores_of_outputs_are_those_of_the_json():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn((300, 2), generator=generator).double()
    noise = torch.randn((300, 2), generator=generator).double()
    moments = Moments(mean, torch.ones_like(mean), None, 0)
    given = [
        Predictions(name, moments, mean + noise, "d", outputs=("a", HOSTILE), units=("m", HOSTILE))
        for name in ("one", "two")
    ]
    written = Report.from_predictions(given, resamples=20)
    text = written.to_html()
    assert "<script>alert" not in text
    assert "only scores without a unit are shown here" in text
    together = {key.rpartition(".")[2] for key in ParsedPage(text).cells if "comparison." in key}
    assert {"pll", "coverage_90", "pit_error"} == together & set(glossary.REGRESSION_HEADLINE)
    cells = {key: each for key, each in ParsedPage(text).cells.items() if "outputs." in key}
    assert len(cells) == 2 * 2 * 6
    numbers = written.to_dict()["outputs"]
    for key, same in cells.items():
        _, method, output, _, score = key.split(".")
        value = numbers[method][output]["scores"][score]["value"]
        assert [float(cell["data-value"]) for cell in same] == [value]
    alone = mcbn.evaluate(
        mcbn.GaussianPredictive(mean[None, :, 1], torch.ones(1, 300, dtype=torch.float64)),
        given[0].targets[:, 1], resamples=20,
    )  # fmt: skip
    assert numbers["one"][HOSTILE]["scores"]["crps"]["value"] == alone["crps"].value
