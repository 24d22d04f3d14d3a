"""Predict for a file: batch by batch, with the draws handed on or dropped as they are made."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mcbn.io.progress import progress_bar
from mcbn.io.tensors import rows_file
from mcbn.network.inputs import Select
from mcbn.network.loaders import Data
from mcbn.predictive.bernoulli import Bernoulli, BernoulliPredictive
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive, Moments
from mcbn.predictive.predict import predict_batches
from mcbn.predictive.predictions import KIND, Predictions
from mcbn.predictive.stored import StoredPredictive
from mcbn.samplers.sampler import Sampler


def parts_for_file(
    sampler: Sampler,
    data: Data,
    likelihood: Categorical | Bernoulli | Gaussian,
    *,
    batch_size: int = 256,
    select: Select | None = None,
    keep_draws: bool = False,
    add: Callable[[Tensor], None] | None = None,
) -> Iterator[StoredPredictive]:
    """Yield the predictions of one batch after another as a file is to hold them.

    Draws take memory only if they are kept.

    Args:
        sampler: what makes the draws.
        data: inputs with one row per example, or a loader of map-style data in a fixed order.
        likelihood: of the targets.
        batch_size: examples per pass.
        select: picks the network's inputs out of a batch where the default rule does not apply.
        keep_draws: keep every draw: the logits of classes or labels, or the mixture of a
            regression, of which only the moments are kept otherwise.
        add: takes the raw outputs of each batch, axes (draws, batch, ...); see `draws_file`.
    """
    parts = predict_batches(
        sampler, data, likelihood, batch_size=batch_size, select=select,
        keep_draws=keep_draws or add is not None,
    )  # fmt: skip
    own_noise = isinstance(likelihood, Gaussian) and likelihood.precision is None
    add_part = None if add is None else lambda part: add(_outputs(part, own_noise=own_noise))
    return _stored(parts, _count(data), keep_draws, add_part)


def _count(data: Data) -> int:
    source: Any = data.dataset if isinstance(data, DataLoader) else data
    return len(source)


@dataclass
class Recorded:
    """What was predicted for a file, in short.

    Attributes:
        examples: how many so far.
        draw_count: T.
        spread: sum over the examples of the mean mutual information, or of the mean epistemic
            standard deviation of real values; None where it is not known.
        of_real_values: whether it is the latter.
    """

    examples: int = 0
    draw_count: int = 0
    spread: float | None = 0.0
    of_real_values: bool = False

    def add(self, part: StoredPredictive) -> None:
        """Add some predictions."""
        self.examples, self.draw_count = self.examples + len(part), part.draw_count
        if isinstance(part, (CategoricalPredictive, BernoulliPredictive)):
            mean: Tensor | None = part.mutual_information.mean()
        else:
            self.of_real_values, variance = True, part.epistemic_variance
            mean = None if variance is None else variance.sqrt().mean()
        known = mean is not None and self.spread is not None
        self.spread = self.spread + len(part) * float(mean) if known else None  # type: ignore[operator,arg-type]

    @property
    def disagreement(self) -> str:
        """How much the draws differ, as a phrase for people."""
        if self.draw_count == 1:
            return "a single draw, which tells nothing of the epistemic uncertainty"
        if self.spread is None:
            return "epistemic sd not known"
        mean = f"{self.spread / self.examples:.4g}"
        if self.of_real_values:
            return f"mean epistemic sd {mean}"
        return f"mean mutual information {mean} nats"


def write_parts(
    path: str | os.PathLike[str],
    about: Predictions,
    parts: Iterable[tuple[StoredPredictive, Tensor | None]],
    examples: int,
) -> None:
    """Write a file of predictions part by part; memory holds one part.

    Args:
        path: of the file, as `Predictions.save` writes it.
        about: what the file says of them: its predictions are the first part, its columns and
            index are of all examples.
        parts: predictions and targets, the first part among them.
        examples: how many there are in all.

    Raises:
        ValueError: another number of them.
    """
    header, tensors = about.contents()
    shared = {
        name: values
        for name, values in tensors.items()
        if name == "index" or name.startswith("columns.")
    }
    done = 0
    with rows_file(path, examples=examples, kind=KIND, header=header) as add:
        for predictive, targets in parts:
            _, own = replace(about, predictive=predictive, targets=targets, columns={},
                             index=None).contents()  # fmt: skip
            stop = done + len(predictive)
            add({**own, **{name: values[done:stop] for name, values in shared.items()}})
            done = stop


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
