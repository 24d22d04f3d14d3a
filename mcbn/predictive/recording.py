"""Predict for a file: batch by batch, with the draws handed on or dropped as they are made."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mcbn.io.progress import progress_bar
from mcbn.network.inputs import Select
from mcbn.network.loaders import Data
from mcbn.predictive.bernoulli import Bernoulli, BernoulliPredictive
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive, Moments
from mcbn.predictive.joining import join_predictives
from mcbn.predictive.predict import predict_batches, require_some
from mcbn.predictive.stored import StoredPredictive
from mcbn.samplers.sampler import Sampler


def predict_for_file(
    sampler: Sampler,
    data: Data,
    likelihood: Categorical | Bernoulli | Gaussian,
    *,
    batch_size: int = 256,
    select: Select | None = None,
    keep_draws: bool = False,
    add: Callable[[Tensor], None] | None = None,
) -> StoredPredictive:
    """Predict all inputs as a file is to hold them; draws take memory only if they are kept.

    Args:
        sampler: what makes the draws.
        data: inputs with one row per example, or a loader of map-style data in a fixed order.
        likelihood: of the targets.
        batch_size: examples per pass.
        select: picks the network's inputs out of a batch where the default rule does not apply.
        keep_draws: keep every draw: the logits of classes or labels, or the mixture of a
            regression, of which only the moments are kept otherwise.
        add: takes the raw outputs of each batch, axes (draws, batch, ...); see `draws_file`.

    Raises:
        ValueError: there are no inputs.
    """
    parts = predict_batches(
        sampler, data, likelihood, batch_size=batch_size, select=select,
        keep_draws=keep_draws or add is not None,
    )  # fmt: skip
    source: Any = data.dataset if isinstance(data, DataLoader) else data
    own_noise = isinstance(likelihood, Gaussian) and likelihood.precision is None
    add_part = None if add is None else lambda part: add(_outputs(part, own_noise=own_noise))
    stored = _stored(parts, len(source), keep_draws, add_part)
    whole: StoredPredictive = require_some(join_predictives(stored, len(source)))
    return whole


def disagreement(predictive: StoredPredictive) -> str:
    """How much the draws differ, as a phrase for people."""
    if predictive.draw_count == 1:
        return "a single draw, which tells nothing of the epistemic uncertainty"
    if isinstance(predictive, (CategoricalPredictive, BernoulliPredictive)):
        return f"mean mutual information {float(predictive.mutual_information.mean()):.4g} nats"
    variance = predictive.epistemic_variance
    if variance is None:
        return "epistemic sd not known"
    return f"mean epistemic sd {float(variance.sqrt().mean()):.4g}"


def _stored(
    parts: Iterator[Any], examples: int, keep_draws: bool, add_part: Callable[[Any], None] | None
) -> Iterator[Any]:
    with progress_bar(label="predict", unit="example", total=examples) as bar:
        for part in parts:
            bar.update(len(part))
            if add_part is not None:
                add_part(part)
            if keep_draws:
                yield part
            elif isinstance(part, GaussianPredictive):
                yield Moments.from_predictive(part)
            else:
                yield replace(part, draws=None)


def _outputs(
    part: CategoricalPredictive | BernoulliPredictive | GaussianPredictive, *, own_noise: bool
) -> Tensor:
    """The network's outputs: logits, means, or means and log-variances along axis 1."""
    if isinstance(part, GaussianPredictive):
        return torch.cat([part.means, part.variances.log()], dim=2) if own_noise else part.means
    if part.draws is None:
        raise ValueError("expected predictives with their draws, got none; keep the draws")
    return part.draws
