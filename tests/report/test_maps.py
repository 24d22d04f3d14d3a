"""Uncertainty maps: right pixels, on the page and as files."""

import base64
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

import mcbn
from mcbn.drawing.heat import heat
from mcbn.predictive.predictions import Predictions
from mcbn.report.class_maps import RIGHT, VOID, WRONG, class_colors
from mcbn.report.maps import uncertainty_maps, write_maps
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


def real_pixels(count=6, draws=4, size=(5, 7), axis=True):
    """Predictions of a value of every pixel whose first example is the least certain."""
    generator = torch.Generator().manual_seed(1)
    shape = (count, 1, *size) if axis else (count, *size)
    base = torch.randn(shape, generator=generator, dtype=torch.float64)
    spread = torch.linspace(2, 0.1, count, dtype=torch.float64).reshape(
        -1, *(1,) * (len(shape) - 1)
    )
    means = base + spread * torch.randn(draws, *shape, generator=generator, dtype=torch.float64)
    predictive = mcbn.Gaussian(4.0).summarize(means)
    return Predictions("M", predictive, base + 0.3, "depth", units=("m",))


@pytest.mark.parametrize("axis", [True, False])
def test_maps_of_real_values_show_what_they_say(tmp_path, axis):
    given = real_pixels(axis=axis)
    assert write_maps(tmp_path / "maps", given) == 6 * 5
    predictive, shape = given.predictive, (6, 5, 7)
    truth, mean = given.targets.reshape(shape), predictive.mean.reshape(shape)
    low, high = float(truth.min()), float(truth.max())
    tops = uncertainty_maps(given).tops
    error = (mean - truth).abs()
    parts = {
        "truth": heat(truth[2].numpy(), high, low=low),
        "prediction": heat(mean[2].numpy(), high, low=low),
        "standard-deviation": heat(
            predictive.variance.sqrt().reshape(shape)[2].numpy(), tops["Standard deviation"]
        ),
        "epistemic-sd": heat(
            predictive.epistemic_variance.sqrt().reshape(shape)[2].numpy(), tops["Epistemic sd"]
        ),
        "error": heat(error[2].numpy(), tops["Error"]),
    }
    for name, expected in parts.items():
        read = np.asarray(Image.open(tmp_path / "maps" / f"00002-{name}.png"))
        np.testing.assert_array_equal(read, expected)
    assert tops["Error"] == max(float(one.flatten().quantile(0.99)) for one in error)


def test_a_report_of_real_values_shows_the_least_and_most_certain_pictures():
    given = real_pixels()
    maps = uncertainty_maps(given, torch.rand(6, 1, 5, 7, generator=torch.Generator()))
    assert [row.index for row in maps.rows] == [0, 1, 2, 3, 4, 5]
    assert list(maps.rows[0].pictures)[:2] == ["Input", "Truth"]
    text = mcbn.Report.from_predictions([given], resamples=5).to_html()
    assert 'id="maps"' in text
    assert " m on" in text
    single = uncertainty_maps(real_pixels(draws=1))
    assert list(single.tops) == ["Standard deviation", "Error"]


def test_several_values_of_a_pixel_have_no_maps():
    means = torch.zeros(3, 2, 4, 5, 6, dtype=torch.float64)
    predictive = mcbn.Gaussian(1.0).summarize(means)
    with pytest.raises(ValueError, match="leave the maps out"):
        uncertainty_maps(Predictions("M", predictive, means[0], "depth"))


def test_maps_of_one_label_are_those_of_two_classes():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 4, 1, 5, 6, generator=generator, dtype=torch.float64)
    targets = (torch.randn(4, 1, 5, 6, generator=generator) > 0).long()
    targets[0, 0, 0, 0] = 7
    one = Predictions("M", mcbn.Bernoulli("logits").summarize(logits), targets, "scans",
                      ("lesion",), ignore_index=7)  # fmt: skip
    states = torch.cat([torch.zeros_like(logits), logits], dim=2)
    two = Predictions("M", mcbn.Categorical("logits").summarize(states), targets[:, 0], "scans",
                      ("not lesion", "lesion"), ignore_index=7)  # fmt: skip
    first, second = uncertainty_maps(one), uncertainty_maps(two)
    assert [row.index for row in first.rows] == [row.index for row in second.rows]
    assert list(first.colors) == ["not lesion", "lesion"]
    assert first.rows[0].pictures["Truth"] == second.rows[0].pictures["Truth"]
    assert first.rows[0].pictures["Error"] == second.rows[0].pictures["Error"]
