"""Report: one name for the pages of comparisons, predictions and studies."""

import re
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure
from regression_reports import predictions as regression_predictions
from reports import comparison
from synthetic_studies import classification_study

import mcbn
from mcbn.predictive.predictions import Predictions
from mcbn.report.comparison_content import ComparisonContent
from mcbn.report.panels import subgroup_group
from mcbn.report.real_content import RealContent

pytestmark = pytest.mark.usefixtures("undrawn")


def predictions(name="MCBN", *, method=None, examples=300):
    """Predictions of classes by a method of the synthetic comparison."""
    compared = comparison(examples=examples)
    classes = compared.classes
    return Predictions(method or name, compared.entries[name].predictive, compared.targets, "d",
                       classes)  # fmt: skip


def far(name="MCBN", method=None):
    """Out-of-distribution predictions by a method of the synthetic comparison."""
    return Predictions(method or name, comparison().entries[name].outside["noise"], None, "noise")


def test_predictions_of_classes_give_the_scores_of_their_comparison():
    both = [predictions("Plain"), predictions("MCBN")]
    report = mcbn.Report.from_predictions(
        both, title="T", outside=[far("Plain"), far("MCBN")], resamples=20
    )
    numbers, expected = report.to_dict(), comparison().to_dict()
    assert numbers["title"] == "T"
    assert numbers["comparison"]["baseline"] == "Plain"
    for name in ("Plain", "MCBN"):
        method = numbers["comparison"]["methods"][name]
        assert method["scores"] == expected["methods"][name]["scores"]
        assert method["outside"] == expected["methods"][name]["outside"]


def test_predictions_have_groups_pictures_and_conformal_sets():
    report = mcbn.Report.from_predictions(
        [predictions()],
        groups={"site": ["a", "b", "b"] * 100},
        images=torch.rand(300, 1, 4, 4, generator=torch.Generator().manual_seed(0)),
        held_out=[predictions(examples=200)],
        resamples=5,
    )
    numbers, text = report.to_dict(), report.to_html()
    assert {name: group["size"] for name, group in numbers["groups"]["site"]["MCBN"].items()} == {
        "a": 100, "b": 200
    }  # fmt: skip
    assert len(numbers["pictures"]["Least certain"]) == 8
    assert set(numbers["sets"]["MCBN"]) == {"as predicted", "conformal"}
    for words in ("<h2>Groups", "Least certain", "Prediction sets"):
        assert words in text


def test_predictions_of_real_values_have_a_page_of_their_own():
    both = [regression_predictions("narrow", 0.5), regression_predictions("right", 1.0)]
    report = mcbn.Report.from_predictions(both, groups={"site": list("ab") * 300}, resamples=5)
    assert isinstance(report.content, RealContent)
    numbers = report.to_dict()
    assert numbers["title"] == "Calibration report"
    assert list(numbers["comparison"]["methods"]) == ["narrow", "right"]
    assert set(numbers["groups"]["site"]["right"]) == {"a", "b"}


def test_pictures_are_chosen_by_a_method_whose_draws_are_known():
    images = torch.zeros(300, 1, 2, 2)
    both = [predictions("Plain"), predictions("MCBN")]
    page = mcbn.Report.from_predictions(both, images=images, resamples=0).content
    assert isinstance(page, ComparisonContent)
    assert page.pictured == "MCBN"
    alone = mcbn.Report.from_predictions(both[:1], images=images, resamples=0).content
    assert isinstance(alone, ComparisonContent)
    assert alone.pictured == "Plain"


def other_targets():
    changed = predictions("Plain")
    return replace(changed, targets=changed.targets.flip(0))


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {}, "by different methods"),
        ([predictions(), predictions()], {}, "by different methods"),
        ([predictions(), other_targets()], {}, "of the same examples"),
        ([predictions(), regression_predictions("r", 1.0)], {}, "of the same examples"),
        ([replace(predictions(), targets=None)], {}, "expected targets"),
        ([predictions(), predictions("Plain")], {"outside": [far(method="who")]}, "'who'"),
        ([regression_predictions("r", 1.0)], {"outside": [far()]}, "leave them out"),
        ([regression_predictions("r", 1.0)], {"uncertainties": ("energy",)}, "no scores of uncer"),
        ([predictions()], {"uncertainties": ("nothing",)}, "or columns of every file"),
        ([predictions()], {"uncertainties": ("entropy", "entropy")}, "each once"),
        ([regression_predictions("r", 1.0)], {"images": torch.zeros(600, 1, 2, 2)}, "leave them"),
        ([predictions()], {"outside": [regression_predictions("r", 1.0)]}, "those of regression"),
    ],
)
def test_predictions_that_do_not_go_together_are_refused(given, options, message):
    with pytest.raises(ValueError, match=message):
        mcbn.Report.from_predictions(given, resamples=0, **options)


def test_out_of_distribution_predictions_of_a_single_method_may_have_any_name():
    report = mcbn.Report.from_predictions([predictions()], outside=[far(method="who")], resamples=0)
    assert "noise" in report.to_dict()["comparison"]["methods"]["MCBN"]["outside"]


def test_a_study_has_the_title_of_its_plan(tmp_path):
    study = classification_study(seeds=(0,))
    report = mcbn.Report.from_study(study)
    assert report.to_dict()["title"] == study.plan.title
    assert report.write(tmp_path).read_text(encoding="utf-8") == report.to_html()


def test_axes_of_percentages_say_so_once():
    groups = {"site": list("ab") * 300}
    given = [regression_predictions("right", 1.0)]
    page = mcbn.Report.from_predictions(given, groups=groups, resamples=0).content
    panels = {panel.title: panel for panel in subgroup_group("site", page.groups["site"]).panels}
    labels = {}
    for title in ("RMSE", "Coverage at 90%"):
        figure = Figure()
        panels[title].on_figure(figure)
        labels[title] = figure.axes[0].get_xlabel()
    assert labels == {"RMSE": "RMSE", "Coverage at 90%": "Coverage at 90% (%)"}


def test_a_score_without_an_interval_is_written_without_brackets():
    given = [predictions()]
    bare, full = (
        mcbn.Report.from_predictions(given, resamples=resamples).content.comparison
        for resamples in (0, 5)
    )
    assert "[" not in str(bare.entries["MCBN"].evaluation["nll"])
    assert re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", str(full.entries["MCBN"].evaluation["nll"]))
