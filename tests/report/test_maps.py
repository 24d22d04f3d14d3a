"""Uncertainty maps: right pixels, on the page and as files."""

import base64
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

import mcbn
from mcbn.predictive.predictions import Predictions
from mcbn.report.maps import RIGHT, VOID, WRONG, class_colors, heat, uncertainty_maps, write_maps
from mcbn.report.report import Report

IGNORED = 255


def segmented(count=6, *, draws=4, size=(5, 7), classes=("sky", "road", "car")):
    """Predictions whose first example is the least certain, and the last the most."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(count, 3, *size, generator=generator, dtype=torch.float64)
    sharp = torch.linspace(0.2, 6, count, dtype=torch.float64)[:, None, None, None]
    noise = torch.randn(draws, *base.shape, generator=generator, dtype=torch.float64)
    targets = base.argmax(1)
    targets[:, 0] = IGNORED
    targets[:, 1] = (targets[:, 1] + 1) % 3
    predictive = mcbn.Categorical().summarize(sharp * base + noise / (1 + sharp))
    return Predictions("M", predictive, targets, "streets", classes, ignore_index=IGNORED)


def pixels_of(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_every_pixel_shows_what_it_says(tmp_path):
    given = segmented()
    assert write_maps(tmp_path / "maps", given) == 6 * 5
    palette, predictive = class_colors(3), given.predictive
    for index in range(6):
        read = {
            name: np.asarray(Image.open(tmp_path / "maps" / f"{index:05d}-{name}.png"))
            for name in ("truth", "prediction", "error", "entropy")
        }
        truth, guess = given.targets[index].numpy(), predictive.prediction[index].numpy()
        for row, column in np.ndindex(*truth.shape):
            label = truth[row, column]
            right = RIGHT if label == guess[row, column] else WRONG
            expected = VOID if label == IGNORED else tuple(palette[label])
            assert tuple(read["truth"][row, column]) == expected
            assert tuple(read["prediction"][row, column]) == tuple(palette[guess[row, column]])
            assert tuple(read["error"][row, column]) == (VOID if label == IGNORED else right)
        brightest = heat(predictive.entropy[index].numpy(), math.log(3))
        np.testing.assert_array_equal(read["entropy"], brightest)


def test_the_least_and_most_certain_examples_are_shown():
    given = segmented()
    maps = uncertainty_maps(given, torch.ones(6, 3, 5, 7), count=2)
    assert [(row.index, row.title) for row in maps.rows[:2]] == [
        (0, "Least certain"), (1, "Least certain")
    ]  # fmt: skip
    assert {row.index for row in maps.rows[2:]} == {4, 5}
    names = ["Input", "Truth", "Prediction", "Entropy", "Mutual information", "Error"]
    assert list(maps.rows[0].pictures) == names
    assert pixels_of(maps.rows[0].pictures["Truth"]).shape == (5, 7, 3)
    assert list(maps.colors) == ["sky", "road", "car"]


def test_what_is_not_labelled_does_not_choose_the_examples():
    given = segmented()
    given.targets[0] = IGNORED
    assert uncertainty_maps(given, count=1).rows[0].index == 1


def test_a_single_draw_has_no_mutual_information():
    maps = uncertainty_maps(segmented(draws=1), count=1)
    assert list(maps.rows[0].pictures) == ["Truth", "Prediction", "Entropy", "Error"]


def test_large_maps_are_made_smaller_on_the_page_without_mixing_classes():
    given = segmented(2, size=(300, 480))
    truth = pixels_of(uncertainty_maps(given, count=1).rows[0].pictures["Truth"])
    assert truth.shape == (150, 240, 3)
    colors = {tuple(color) for color in class_colors(3)} | {VOID}
    assert {tuple(color) for color in truth.reshape(-1, 3)} <= colors


def test_the_report_has_maps_and_scores_of_classes():
    given = segmented()
    report = Report.from_predictions([given], resamples=10)
    text, numbers = report.to_html(), report.to_dict()
    assert text.count("<img") == 6 * 5
    assert numbers["maps"]["examples"][0] == 0
    scores = mcbn.class_scores(
        given.predictive, given.targets, ignore_index=IGNORED, classes=given.classes, resamples=10
    )
    assert numbers["classes"]["M"] == scores.to_dict()
    assert "6 whole examples or groups" in text
    evaluation = mcbn.evaluate(given.predictive, given.targets, ignore_index=IGNORED, resamples=10)
    found = numbers["comparison"]["methods"]["M"]
    assert found["scores"] == evaluation.to_dict()["scores"]
    assert found["clusters"] == 6


def test_predictions_without_positions_have_no_maps():
    plain = Predictions("M", mcbn.Categorical().summarize(torch.zeros(1, 4, 3)), None, "four")
    with pytest.raises(ValueError, match="without positions; leave the maps out"):
        uncertainty_maps(plain)


def test_many_classes_have_a_colour_each():
    for count in (2, 20, 35, 150):
        assert len({tuple(color) for color in class_colors(count)}) == count
