"""Scores and symmetries of the super-resolution experiment, against independent computations."""

import importlib
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scores(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("experiments.uses.super_resolution_scores")


@pytest.fixture
def model(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("experiments.uses.super_resolution_model")


@pytest.fixture
def maps():
    """Three maps that hang together, one with ties."""
    generator = torch.Generator().manual_seed(0)
    base, first, second = torch.randn(3, 20, 20, generator=generator, dtype=torch.float64)
    return (base + first).exp(), (base + second).exp(), (2 * base).round()


def ranked_residuals(values, given):
    """What is left of the ranks after a line through those of another map, ties in pairs."""
    rows = []
    for each in (values, given):
        flat = each.flatten().numpy()
        # The mean rank of a value: how many are below, and half of those equal to it.
        rows.append((flat[:, None] > flat).sum(1) + 0.5 * ((flat[:, None] == flat).sum(1) + 1))
    design = np.stack([np.ones(len(rows[1])), rows[1]], axis=1)
    return rows[0] - design @ np.linalg.lstsq(design, rows[0], rcond=None)[0]


def test_rank_correlation_is_that_of_scipy(scores, maps):
    one, other, tied = maps
    for pair in ((one, other), (one, tied)):
        expected = spearmanr(*(each.flatten().numpy() for each in pair)).statistic
        assert scores.rank_correlation(*pair) == pytest.approx(expected, abs=1e-12)


def test_partial_rank_correlation_is_that_of_regression_residuals(scores, maps):
    one, other, tied = maps
    residuals = [ranked_residuals(each, tied) for each in (one, other)]
    expected = np.corrcoef(*residuals)[0, 1]
    found = scores.partial_rank_correlation(one, other, tied)
    assert found == pytest.approx(expected, abs=1e-10)
    assert abs(found - scores.rank_correlation(one, other)) > 0.05


def test_sparsification_area_is_the_mean_gap_to_the_best_order(scores, maps):
    spread, error, _ = maps
    kept = {}
    for name, by in (("spread", spread), ("best", error)):
        order = by.flatten().numpy().argsort()
        sorted_errors = error.flatten().numpy()[order]
        kept[name] = [sorted_errors[:k].mean() for k in range(1, len(order) + 1)]
    expected = np.mean(np.subtract(kept["spread"], kept["best"])) / float(error.mean())
    assert scores.sparsification_area(spread, error) == pytest.approx(expected, rel=1e-10)
    assert scores.sparsification_area(error, error) == pytest.approx(0, abs=1e-12)
    constant = scores.sparsification_area(torch.ones_like(error), error)
    best = np.mean(kept["best"]) / float(error.mean())
    assert constant == pytest.approx(1 - best, rel=1e-10)


@pytest.mark.parametrize(("factor", "floor"), [(4.0, 0.25), (0.01, 1.0)])
def test_scale_and_floor_are_found_again(scores, factor, floor):
    """Errors drawn with this variance; four standard errors by the Fisher information."""
    generator = torch.Generator().manual_seed(2)
    spread = torch.rand(4, 100, 100, generator=generator, dtype=torch.float64) * 2
    variance = factor * spread.square() + floor
    target = variance.sqrt() * torch.randn(4, 100, 100, generator=generator, dtype=torch.float64)
    prediction = scores.Map(torch.zeros_like(target), spread)
    found = scores.fit_scale_and_floor(prediction, target)
    slopes = torch.stack([spread.square(), torch.ones_like(spread)]).flatten(1) / variance.flatten()
    errors = (slopes @ slopes.T / 2).inverse().diagonal().sqrt().tolist()
    assert abs(found.factor - factor) < 4 * errors[0]
    assert abs(found.floor - floor) < 4 * errors[1]
    share = scores.coverage(prediction, target, found)
    assert share == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / target.numel()))
    lower = scores.log_score(prediction, target, scores.Scaled(found.factor * 2, found.floor))
    assert scores.log_score(prediction, target, found) > lower


def test_one_scale_has_the_closed_form(scores):
    """The mean squared error in units of the variance."""
    generator = torch.Generator().manual_seed(3)
    spread = torch.rand(2, 30, 30, generator=generator, dtype=torch.float64)
    target = torch.randn(2, 30, 30, generator=generator, dtype=torch.float64)
    prediction = scores.Map(torch.zeros_like(target), spread)
    found = scores.fit_scale(prediction, target, quantisation=0.1)
    expected = float((target.square() / (spread.square() + 0.1)).mean())
    assert found.factor == pytest.approx(expected, rel=1e-5)
    assert found.floor == pytest.approx(0.1 * expected, rel=1e-5)


def test_the_eight_symmetries_differ_and_are_undone(model):
    patch = torch.arange(16.0).view(1, 4, 4)
    turned = [model.turned(patch, *symmetry) for symmetry in model.SYMMETRIES]
    assert len({tuple(each.flatten().tolist()) for each in turned}) == 8
    for each, symmetry in zip(turned, model.SYMMETRIES, strict=True):
        assert torch.equal(model.turned_back(each, symmetry), patch)


def test_bicubic_upsampling_goes_with_every_symmetry(model):
    """So augmentation has no spread without the network: within a few roundings of float64."""
    patch = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    plain = model.upsampled(patch[None])[0]
    for symmetry in model.SYMMETRIES:
        outputs = model.upsampled(model.turned(patch, *symmetry)[None])[0]
        difference = model.turned_back(outputs, symmetry) - plain
        assert float(difference.abs().max()) < 1e-14


def test_the_gradient_of_a_plane_is_its_slope(model):
    """Away from the edges, where upsampling has no neighbours; in units per small pixel, halved."""
    rows, columns = torch.meshgrid(*2 * [torch.arange(12.0).double()], indexing="ij")
    magnitude = model.gradient_magnitude((3 * rows + 4 * columns)[None, None])
    inner = magnitude[0, 0, 6:-6, 6:-6]
    torch.testing.assert_close(inner, torch.full_like(inner, 2.5), rtol=0, atol=1e-12)


def test_crops_take_every_image_in_turn(model):
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 6, 6)
    crops = model.crops(images, 7, 4, seed=0)
    assert crops.shape == (7, 1, 4, 4)
    assert [float(each.mean()) for each in crops] == [0, 1, 2, 0, 1, 2, 0]
    assert all(one != other for one, other in pairwise(crops.mean((1, 2, 3)).tolist()))
