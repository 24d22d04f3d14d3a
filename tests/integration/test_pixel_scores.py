"""Calibration errors of the street scenes from sums over images are those of mcbn.evaluate."""

import importlib
from pathlib import Path

import pytest
import torch

import mcbn

IMAGES, SIDE = 12, 9


@pytest.fixture
def pixels(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    return importlib.import_module("experiments.reproductions.pixels")


@pytest.fixture
def scenes(pixels):
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES, pixels.COUNT, SIDE, SIDE)
    logits = torch.randn((2, *shape), generator=generator) * 2
    labels = torch.randint(pixels.COUNT, (IMAGES, SIDE, SIDE), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = pixels.IGNORED
    return logits, labels


def predicted(logits):
    return mcbn.Categorical(outputs="logits").summarize(logits)


def columns_of(pixels, scenes):
    logits, labels = scenes
    distance = torch.ones(labels.shape[1:], dtype=torch.long)
    rows = [
        pixels.image_row(predicted(logits[:, index : index + 1]), labels[index], distance)
        for index in range(IMAGES)
    ]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def test_intervals_of_sums_over_images_are_those_of_the_pixels(pixels, scenes):
    logits, labels = scenes
    columns = columns_of(pixels, scenes)
    found = pixels.calibration_replicates(columns, resamples=40, seed=3)
    whole = mcbn.evaluate(
        predicted(logits), labels, ignore_index=pixels.IGNORED,
        resamples=40, seed=3, progress=False,
    )  # fmt: skip
    assert pixels.measure(columns)["ECE"] == pytest.approx(whole["ece"].value)
    torch.testing.assert_close(found["ECE"], whole["ece"].replicates)


def test_the_classwise_error_is_the_mean_of_those_of_the_classes(pixels, scenes):
    measured = pixels.measure(columns_of(pixels, scenes))
    of_classes = [value for name, value in measured.items() if name.startswith("ECE of ")]
    assert len(of_classes) == pixels.COUNT
    assert measured["class-wise ECE"] == pytest.approx(sum(of_classes) / pixels.COUNT)
