"""Extremes in single precision: 20 standard deviations, logits of 10,000, five million pixels."""

import json
import math
import resource
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from torch.testing import assert_close

import mcbn
from mcbn.evaluation import scores
from mcbn.evaluation.reliability import Reliability
from mcbn.predictive import mixture

mp = mpmath.mp.clone()
mp.dps = 40


@pytest.mark.parametrize("far", [8.0, 20.0, 37.0, 1e4])
@pytest.mark.parametrize("sign", [-1, 1])
def test_densities_and_crps_many_deviations_away_are_exact(far, sign):
    """Input in float32 loses nothing: relative 1e-12 against 40 digits."""
    means = torch.tensor([[0.0], [0.25]])
    values = sign * torch.tensor([far])
    y = mp.mpf(sign * far)
    total = sum(mp.npdf(y, mp.mpf(m), 1) for m in (0, 0.25)) / 2
    assert float(mixture.log_density(means, 1.0, values)) == pytest.approx(
        float(mp.log(total)), rel=1e-12
    )
    pair = mp.sqrt(2 / mp.pi)
    spread = (2 * mp.sqrt(2) * pair + 2 * _distance(mp.mpf(0.25), mp.sqrt(2))) / 8
    exact = (_distance(y, 1) + _distance(y - 0.25, 1)) / 2 - spread
    assert float(mixture.crps(means, 1.0, values)) == pytest.approx(float(exact), rel=1e-12)
    below = (mp.ncdf(y) + mp.ncdf(y - 0.25)) / 2
    assert float(mixture.cdf(means, 1.0, values)) == pytest.approx(
        float(below), rel=1e-12, abs=5e-324
    )


def _distance(d, s):
    z = d / s
    return s * mp.sqrt(2 / mp.pi) * mp.exp(-z * z / 2) + d * mp.erf(z / mp.sqrt(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_logits_of_any_size_have_exact_scores(size, dtype):
    """Two draws that contradict each other: every score against 40 digits, none infinite or NaN."""
    draws = torch.tensor([[[size, 0.0, -size]], [[-size, 0.0, size / 2]]], dtype=dtype)
    p = []
    for row in draws[:, 0].double().tolist():
        weights = [mp.exp(mp.mpf(value)) for value in row]
        p.append([weight / mp.fsum(weights) for weight in weights])
    mean = [(a + b) / 2 for a, b in zip(*p, strict=True)]
    predictive = mcbn.Categorical().summarize(draws)
    exact = torch.tensor([[float(mp.log(each)) for each in mean]], dtype=torch.float64)
    assert_close(predictive.log_probabilities, exact, rtol=1e-12, atol=1e-12)
    entropy = -mp.fsum(each * mp.log(each) for each in mean)
    expected = -mp.fsum(each * mp.log(each) for row in p for each in row) / 2
    assert float(predictive.mutual_information) == pytest.approx(
        float(entropy - expected), rel=1e-12
    )
    for label in range(3):
        nll = scores.negative_log_likelihood(predictive.log_probabilities, torch.tensor([label]))
        assert float(nll) == pytest.approx(float(-mp.log(mean[label])), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_evaluations_of_large_logits_are_finite(size):
    generator = torch.Generator().manual_seed(0)
    logits = size * torch.randn(3, 200, 4, generator=generator)
    targets = torch.randint(4, (200,), generator=generator)
    evaluation = mcbn.evaluate(mcbn.Categorical().summarize(logits), targets, resamples=10)
    for name, score in evaluation.items():
        assert math.isfinite(score.value), name
        assert math.isfinite(score.low), name


def test_targets_of_large_units_keep_their_digits():
    """Around 10,000 with a deviation of 0.01: the scores are the same as around 0."""
    generator = torch.Generator().manual_seed(1)
    errors = 0.01 * torch.randn(300, generator=generator, dtype=torch.float64)
    near, far = (
        mcbn.evaluate(mcbn.Gaussian(precision=1e4).summarize([torch.zeros(300) + place]),
                      errors + place, resamples=0)
        for place in (0.0, 1e4)
    )  # fmt: skip
    for name, score in near.items():
        assert far[name].value == pytest.approx(score.value, rel=1e-8), name


def pixels(side):
    """Two draws of two classes, and labels, of an image of `side` times 500 pixels."""
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(1, 2, side, 500, generator=generator) for _ in range(2)]
    return draws, torch.randint(2, (1, side, 500), generator=generator)


def scored(side):
    """Scores of all pixels, and by how many bytes the peak of memory rose."""
    draws, targets = pixels(side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    evaluation = mcbn.evaluate(mcbn.Categorical().summarize(draws), targets, resamples=0)
    rise = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return [evaluation[name].value for name in ("nll", "brier", "accuracy", "ece")], rise


def in_numpy(side):
    """Means over all pixels by numpy's sums in long double."""
    draws, targets = pixels(side)
    odds = [np.exp((draw[:, 1] - draw[:, 0]).numpy().astype(np.longdouble)) for draw in draws]
    first, targets = np.mean([1 / (1 + each) for each in odds], 0), targets.numpy()
    happened = np.where(targets == 0, first, 1 - first)
    sure, right = np.maximum(first, 1 - first), happened >= 0.5
    cells = np.ceil(sure * 15).astype(int) - 1
    gaps = np.bincount(cells.ravel(), (right - sure).astype(float).ravel())
    return (float(-np.log(happened).mean()), float(2 * np.square(1 - happened).mean()),
            float(right.mean()), float(np.abs(gaps).sum() / right.size))  # fmt: skip


def test_many_pixels_are_added_right():
    """50,000 pixels: relative 1e-9, well under 1e-6."""
    assert scored(100)[0] == pytest.approx(in_numpy(100), rel=1e-9)


@pytest.mark.slow
def test_five_million_pixels_are_added_right_and_in_bounded_memory():
    """In another process, to measure its peak of memory: 700 bytes per pixel and 200 MiB."""
    script = "import json, test_extremes; print(json.dumps(test_extremes.scored(10_000)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, text=True,
                          capture_output=True, cwd=Path(__file__).parent)  # fmt: skip
    values, rise = json.loads(done.stdout)
    assert values == pytest.approx(in_numpy(10_000), rel=1e-9)
    assert rise < 700 * 5_000_000 + 200 * 2**20


@pytest.mark.parametrize("count", [200_000, pytest.param(5_000_000, marks=pytest.mark.slow)])
def test_a_mean_of_many_single_precision_values_has_no_drift(count):
    """One tenth is not a number of float32; its running sum in float32 would be off by 1%."""
    values = torch.full((count,), 0.1)
    exact = float(values[0].double())
    zeros = torch.zeros(count)
    assert float(scores.squared_error(values, zeros).mean()) == pytest.approx(exact**2, rel=1e-9)
    bins = Reliability.from_predictions(values, torch.zeros(count, dtype=torch.bool))
    assert bins.expected_error == pytest.approx(exact, rel=1e-12)
    assert float(mixture.ensemble_crps(values[None], zeros).mean()) == pytest.approx(
        exact, rel=1e-9
    )
