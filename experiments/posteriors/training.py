"""Training of many small networks at once, each to the mode of its posterior."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.posteriors.layout import Layout, outputs
from mcbn.tasks.datasets import LabeledData


@dataclass(frozen=True)
class Fit:
    """How networks are trained.

    Attributes:
        batch_size: M of training.
        steps: number of steps.
        seed: of the initial weights, the mini-batches and the dropout masks.
        dropout: rate after every hidden layer.
        learning_rate: the largest, reached after a tenth of the steps.
    """

    batch_size: int
    steps: int
    seed: int
    dropout: float = 0.0
    learning_rate: float = 0.03


def trained(
    layout: Layout, data: LabeledData, noise: float, networks: int, fit: Fit
) -> Float[Tensor, "networks weights"]:
    """Minimise the negative log posterior, estimated by mini-batches, of each network by Adam.

    Each network starts from the prior, and has mini-batches of its own, of examples drawn without
    replacement. Scales of 1 and shifts of 0 are no start here: of a single input, all units of the
    first layer would be the same.
    """
    generator = torch.Generator().manual_seed(fit.seed)
    vectors = torch.randn(networks, len(layout), generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([vectors], lr=fit.learning_rate)
    count = len(data)
    for step in range(fit.steps):
        share = step / fit.steps
        rate = min(share / 0.1, (1 + math.cos(math.pi * share)) / 2)
        optimizer.param_groups[0]["lr"] = fit.learning_rate * max(rate, 1e-3)
        chosen = torch.rand(networks, count, generator=generator).argsort(1)[:, : fit.batch_size]
        masks = None
        if fit.dropout:
            keep = 1 - fit.dropout
            size = (networks, fit.batch_size)
            masks = [
                (torch.rand(*size, units, generator=generator) < keep) / keep
                for units in layout.hidden
            ]
        found = outputs(layout, vectors, data.inputs[chosen], masks=masks)
        errors = (found - data.targets[chosen]).square().sum(1) / (2 * noise**2)
        loss = (count / fit.batch_size * errors + vectors.square().sum(1) / 2).sum() / count
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return vectors.detach()
