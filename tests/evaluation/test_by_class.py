"""Scores of each class: those of scikit-learn, with intervals over whole images."""

import math

import pytest
import torch
from sklearn import metrics

import mcbn
from mcbn.evaluation import bootstrap

VOID = 255


def images(count=30, size=5, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, size, size, generator=generator, dtype=torch.float64)
    noise = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    targets = (logits + 0.7 * noise).argmax(1)
    targets[torch.rand(targets.shape, generator=generator) < 0.2] = VOID
    return mcbn.Categorical(outputs="probabilities").summarize(logits.softmax(1)[None]), targets


def expected(predictive, targets, classes=range(4)):
    """The scores by scikit-learn."""
    known = targets != VOID
    pair = targets[known].numpy(), predictive.prediction[known].numpy()
    measures = {"recall": metrics.recall_score, "precision": metrics.precision_score,
                "iou": metrics.jaccard_score}  # fmt: skip
    return {
        name: measure(*pair, labels=[*classes], average=None, zero_division=0)
        for name, measure in measures.items()
    }


def test_the_scores_are_those_of_scikit_learn():
    predictive, targets = images()
    found = mcbn.class_scores(predictive, targets, ignore_index=VOID, resamples=0)
    for name, values in expected(predictive, targets).items():
        assert [each[name].value for each in found.by_class.values()] == pytest.approx(
            values.tolist(), rel=1e-12
        )
        assert found.mean[name].value == pytest.approx(values.mean(), rel=1e-12)
    assert list(found.by_class) == list(found.support) == ["0", "1", "2", "3"]
    assert [*found.support.values()] == [int((targets == k).sum()) for k in range(4)]


def test_classes_that_do_not_occur_have_no_score_and_do_not_count():
    predictive, targets = images()
    targets = targets.where((targets != 2), 0)
    found = mcbn.class_scores(
        predictive, targets, ignore_index=VOID, classes=("sky", "road", "car", "sign"), resamples=20
    )
    assert math.isnan(found.by_class["car"]["recall"].value)
    assert math.isnan(found.by_class["car"]["recall"].low)
    assert found.by_class["car"]["iou"].value == 0  # predicted, though never there
    others = [found.by_class[name]["recall"].value for name in ("sky", "road", "sign")]
    assert found.mean["recall"].value == pytest.approx(sum(others) / 3)


@pytest.mark.parametrize("group", [None, [k // 3 for k in range(30)]])
def test_replicates_are_the_scores_of_drawn_images(group):
    predictive, targets = images()
    found = mcbn.class_scores(predictive, targets, ignore_index=VOID, group=group, resamples=8)
    units = 30 if group is None else 10
    drawn = bootstrap.replicates(
        [{"row": torch.arange(units)}], lambda chosen: {"row": chosen["row"].double()},
        resamples=8, seed=0, progress=False,
    )["row"].long()  # fmt: skip
    for number, units_drawn in enumerate(drawn):
        rows = units_drawn
        if group is not None:
            rows = torch.cat([3 * unit + torch.arange(3) for unit in units_drawn])
        chosen = mcbn.Categorical(outputs="probabilities").summarize(
            predictive.probabilities[rows][None]
        )
        again = expected(chosen, targets[rows])
        for name, values in again.items():
            for k, value in enumerate(values):
                replicate = float(found.by_class[str(k)][name].replicates[number])
                assert replicate == pytest.approx(value, rel=1e-12)
            mean = float(found.mean[name].replicates[number])
            assert mean == pytest.approx(values.mean(), rel=1e-12)


def test_names_of_another_number_are_refused():
    predictive, targets = images()
    with pytest.raises(ValueError, match="expected the names of 4 classes, got 1"):
        mcbn.class_scores(predictive, targets, ignore_index=VOID, classes=("sky",))
