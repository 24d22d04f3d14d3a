"""Positions that are not labelled: in files of every form, and never scored."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import mcbn
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import read_predictions, write_predictions

EXACT = {"rtol": 0, "atol": 0}


def segmented(void=3, classes=()):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((5, 12, 3, 4, 6), generator=generator)
    targets = logits[0].argmax(1)
    targets[torch.rand(targets.shape, generator=generator) < 0.3] = void
    predictive = mcbn.Categorical().summarize(logits)
    return Predictions("M", predictive, targets, "streets", classes, ignore_index=void)


def scores(given):
    evaluation = mcbn.evaluate(
        given.scored, given.targets, ignore_index=given.ignore_index, resamples=5
    )
    return [each.value for each in evaluation.values()]


@pytest.mark.parametrize("suffix", [".st", ".npz"])
@pytest.mark.parametrize("classes", [(), ("sky", "road", "car")])
@pytest.mark.parametrize("void", [3, 255, -1])
def test_they_are_read_back(suffix, classes, void, tmp_path):
    saved = segmented(void, classes)
    write_predictions(tmp_path / f"m{suffix}", saved)
    loaded = read_predictions(tmp_path / f"m{suffix}")
    assert (loaded.ignore_index, loaded.classes) == (void, classes)
    assert_close(loaded.targets, saved.targets, **EXACT)
    assert scores(loaded) == pytest.approx(scores(saved), rel=1e-12)
    assert loaded.columns == {}


@pytest.mark.parametrize("void", [3, 255])
def test_the_index_may_be_said_where_a_file_does_not(void, tmp_path):
    saved = segmented(void)
    np.savez(tmp_path / "m.npz", probabilities=saved.predictive.probabilities.numpy(),
             target=saved.targets.numpy())  # fmt: skip
    with pytest.raises(ValueError, match=r"label|class"):
        read_predictions(tmp_path / "m.npz")
    loaded = read_predictions(tmp_path / "m.npz", ignore_index=void)
    assert_close(loaded.targets, saved.targets, **EXACT)
    assert loaded.ignore_index == void


def test_a_file_with_other_labels_beside_them_is_refused(tmp_path):
    saved = segmented(3)
    saved.targets[0, 0, 0] = 7
    saved.save(tmp_path / "m.st")
    with pytest.raises(ValueError, match="expected labels from 0 to 2, got 7"):
        read_predictions(tmp_path / "m.st")
