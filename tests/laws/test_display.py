"""How results show themselves: in few lines, escaped, and as frames of the same numbers."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic_studies import classification_plan, classification_scores, made_study

import mcbn
from mcbn.evaluation.compare import Comparison, entry
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.io.display import Display, Displayed
from mcbn.predictive.gaussian import Moments
from mcbn.predictive.predictions import Predictions

HOSTILE = '<script>alert("1")</script>'


def logits(draws=5, count=40, classes=3, seed=0, positions=()):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(draws, count, classes, *positions, generator=generator)


PREDICTIVE = mcbn.Categorical().summarize(logits())
TARGETS = logits(1, seed=1)[0].argmax(1)
MIXTURE = mcbn.Gaussian((4.0, 1.0)).summarize(logits(classes=2))
REALS = logits(1, classes=2, seed=2)[0].double()
COMPARISON = Comparison(
    {
        name: entry(
            ScoredRows(mcbn.Categorical().summarize(logits(draws)), TARGETS), outside={},
            resamples=20, progress=False,
        )
        for name, draws in (("plain", 1), (HOSTILE, 5))
    },
    TARGETS, ("a", "b", "c"),
)  # fmt: skip
RESULTS = {
    "predictive": PREDICTIVE,
    "dense predictive": mcbn.Categorical().summarize(logits(positions=(4, 5))),
    "predictive of labels": mcbn.Bernoulli().summarize(logits()),
    "mixture": MIXTURE,
    "moments": Moments.from_predictive(MIXTURE),
    "predictions": Predictions(HOSTILE, PREDICTIVE, TARGETS, "data"),
    "evaluation": mcbn.evaluate(PREDICTIVE, TARGETS, resamples=20),
    "comparison": COMPARISON,
    "entry": COMPARISON.entries["plain"],
    "class scores": mcbn.class_scores(PREDICTIVE, TARGETS, classes=("a", HOSTILE, "c")),
    "study": made_study(classification_plan(), classification_scores),
    "study that failed": made_study(
        classification_plan(), classification_scores, failed=lambda cell: cell.batch_size == 16
    ),
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_a_result_shows_itself_in_ten_lines_and_as_a_table(result):
    lines = repr(result).splitlines()
    assert 1 <= len(lines) <= 10
    assert max(map(len, lines)) < 160
    assert repr(result) == str(result)
    text = result._repr_html_()
    assert "<script" not in text
    assert text.count("<tr>") == text.count("</tr>")
    assert len(text) < 20_000


def test_every_displayed_class_of_the_package_is_tried():
    kinds = {type(result) for result in RESULTS.values()}
    found, waiting = set(), [Displayed]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found |= set() if kind.__subclasses__() else {kind}
    assert found == kinds


def test_long_tables_are_cut_in_text_and_in_html():
    rows = [(str(k), "1") for k in range(100)]
    display = Display("heading", ("a", "b"), rows)
    assert len(display.to_text().splitlines()) == 10
    assert display.to_text().endswith("... and 93 more")
    assert display.to_html().count("<tr>") == 41
    assert "... and 60 more" in display.to_html()


def test_columns_are_aligned():
    text = Display("h", ("name", "value"), [("a", "1.5"), ("long name", "10")]).to_text()
    assert text.splitlines()[1:] == [
        "  name       value",
        "  a            1.5",
        "  long name     10",
    ]


def test_a_score_is_a_number_with_an_interval():
    score = RESULTS["evaluation"]["nll"]
    assert float(score) == score.value
    assert f"{score:.2f}" == f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
    assert f"{score}" == str(score)
    assert repr(score) == f"Score({score})"
    plain = mcbn.evaluate(PREDICTIVE, TARGETS, resamples=0)["nll"]
    assert f"{plain:.3f}" == f"{plain.value:.3f}"


def test_frames_of_scores_hold_the_scores():
    evaluation = RESULTS["evaluation"]
    frame = evaluation.to_dataframe()
    assert list(frame.index) == list(evaluation)
    for name, score in evaluation.items():
        row = frame.loc[name]
        assert (row.value, row.low, row.high) == (score.value, score.low, score.high)
    wide = COMPARISON.to_dataframe().set_index(["method", "score"])
    gap = COMPARISON.differences()[HOSTILE]["brier"]
    row = wide.loc[(HOSTILE, "brier")]
    assert (row.difference, row.difference_low, row.difference_high) == (
        gap.value, gap.low, gap.high
    )  # fmt: skip
    assert math.isnan(wide.loc[("plain", "brier")].difference)
    classes = RESULTS["class scores"].to_dataframe()
    recall = classes[(classes["class"] == "c") & (classes.score == "recall")]
    assert recall.value.item() == RESULTS["class scores"].by_class["c"]["recall"].value


def test_frames_of_predictions_have_a_row_per_example():
    frame = PREDICTIVE.to_dataframe(("a", "b", "c"))
    np.testing.assert_array_equal(frame["p_b"], PREDICTIVE.probabilities[:, 1])
    np.testing.assert_array_equal(frame.mutual_information, PREDICTIVE.mutual_information)
    assert list(frame.prediction) == ["abc"[k] for k in PREDICTIVE.prediction.tolist()]
    assert list(PREDICTIVE.to_dataframe().prediction) == PREDICTIVE.prediction.tolist()
    reals = MIXTURE.to_dataframe(("x", "y"))
    np.testing.assert_array_equal(reals["sd_y"], MIXTURE.variance[:, 1].sqrt())
    assert list(reals) == ["mean_x", "mean_y", "sd_x", "sd_y", "epistemic_sd_x",
                           "epistemic_sd_y", "aleatoric_sd_x", "aleatoric_sd_y"]  # fmt: skip
    with pytest.raises(ValueError, match="expected one prediction per example for a data frame"):
        RESULTS["dense predictive"].to_dataframe()


def test_frames_of_predictions_have_targets_and_columns():
    columns, index = {"site": np.array(list("ab") * 20)}, np.array([f"i{k}" for k in range(40)])
    given = Predictions("M", PREDICTIVE, TARGETS, "d", ("a", "b", "c"), columns, index)
    frame = given.to_dataframe()
    assert list(frame.index) == index.tolist()
    assert list(frame.target) == ["abc"[k] for k in TARGETS.tolist()]
    assert list(frame.site) == list("ab") * 20
    moments = Moments.from_predictive(MIXTURE)
    reals = Predictions("M", moments, REALS, "d", outputs=("x", "y")).to_dataframe()
    np.testing.assert_array_equal(reals["target_y"], REALS[:, 1])
    assert isinstance(reals, pd.DataFrame)
