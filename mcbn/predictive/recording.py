"""Predicting for a file: the draws are written away or dropped, and what is kept of them stays."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive
from mcbn.predictive.moments import Moments
from mcbn.predictive.predict import Sampler, joined, predict_batches
from mcbn.predictive.predictions import Predictive


def record(
    sampler: Sampler,
    inputs: Tensor,
    likelihood: Categorical | Gaussian,
    *,
    batch_size: int = 256,
    keep_draws: bool = False,
    add: Callable[[Tensor], None] | None = None,
) -> Predictive:
    """The predictive of all inputs, in memory that does not grow with the draws unless kept.

    Args:
        sampler: what makes the draws.
        inputs: one row an example.
        likelihood: of the targets.
        batch_size: examples in a pass.
        keep_draws: keep every draw: logits of classes, the mixture of a regression. Without it a
            regression keeps its moments.
        add: takes the raw outputs of each batch, axes (draws, batch, ...); see `draws_file`.

    Raises:
        ValueError: there are no inputs.
    """
    parts = predict_batches(
        sampler, inputs, likelihood, batch_size=batch_size,
        keep_draws=keep_draws or add is not None,
    )  # fmt: skip
    found: Predictive | None = joined(_kept(parts, len(inputs), keep_draws, add), len(inputs))
    if found is None:
        raise ValueError("expected at least one example to predict, got none; check the data")
    return found


def disagreement(predictive: Predictive) -> str:
    """How much the draws differ, in words."""
    if isinstance(predictive, CategoricalPredictive):
        return f"mean mutual information {float(predictive.mutual_information.mean()):.4g} nats"
    variance = predictive.epistemic_variance
    if variance is None:
        return "epistemic sd not known"
    return f"mean epistemic sd {float(variance.sqrt().mean()):.4g}"


def _kept(
    parts: Iterator[Any], examples: int, keep_draws: bool, add: Callable[[Tensor], None] | None
) -> Iterator[Any]:
    bar = tqdm(total=examples, desc="predict", unit="example", delay=0.5, leave=False, disable=None)
    with bar:
        for part in parts:
            bar.update(len(part))
            if add is not None:
                add(_outputs(part))
            if keep_draws:
                yield part
            elif isinstance(part, GaussianPredictive):
                yield Moments.from_predictive(part)
            else:
                yield replace(part, draws=None)


def _outputs(part: CategoricalPredictive | GaussianPredictive) -> Tensor:
    """What the network said: logits, means, or means and log-variances along axis 1."""
    if isinstance(part, GaussianPredictive):
        constant = part.variances.ndim == 0
        return part.means if constant else torch.cat([part.means, part.variances.log()], dim=2)
    if part.draws is None:
        raise ValueError("expected predictives with their draws, got none; keep the draws")
    return part.draws
