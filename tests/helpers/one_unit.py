"""A network of one batch-norm unit, whose best batch size has a closed form."""

import torch
from torch import nn

import mcbn


def standard_normals(count):
    """Normal quantiles of mean 0 and biased variance 1, exactly."""
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    quantiles = torch.special.ndtri(levels)
    return quantiles / quantiles.square().mean().sqrt()


def one_unit(*, gamma, sigma, draws, size):
    """A batch-norm unit and a bank made by hand: means of variance sigma^2 / size, no other noise.

    The expected batch variance of a real unit is too low by a factor 1 - 1/M. Here sigma^2 is the
    layer's epsilon and the variance is negligible, so that the formula holds without that term.
    """
    model = nn.BatchNorm1d(1, eps=sigma**2).double().eval()
    with torch.no_grad():
        model.weight.fill_(gamma)
        model.bias.fill_(0.3)
    means = 0.4 + sigma * size**-0.5 * standard_normals(draws)[:, None]
    statistics = {"running_mean": means, "running_var": torch.full_like(means, 1e-9)}
    trained = {name: rows.mean(0) for name, rows in statistics.items()}
    return model, mcbn.Bank(statistics, trained, batch_size=size)


def drawn_targets(*, gamma, size, precision, count, seed):
    """Targets drawn from the predictive distribution of a unit at batch size `size`."""
    noise = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.3 + (gamma**2 / size + 1 / precision) ** 0.5 * noise[:, None]


def by_log_score(targets, *, gamma=1.0, precision=50.0, draws=8, **options):
    """The batch size chosen by log score for a unit whose other noise is too small."""
    model, bank = one_unit(gamma=gamma, sigma=1.0, draws=draws, size=2000)
    x = torch.full_like(targets, 0.4)
    return mcbn.choose_batch_size(
        model, bank, x, targets, likelihood=mcbn.Gaussian(precision=precision),
        bounds=(2, 400), **options,
    )  # fmt: skip
