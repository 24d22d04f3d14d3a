"""Outputs of every draw of every method, kept in half precision: comparing takes no pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor

import mcbn
from experiments.comparisons.baselines_cases import SEED, Case
from mcbn.io.atomic import write_whole
from mcbn.io.progress import progress_bar

BATCH = 250  # examples per pass
SIZES = (8, 32, 128)  # M
COMBINED = (128,)  # of MCBN with augmentation

# Outputs by picture set, of one method.
Draws = Mapping[str, Float[Tensor, "draws batch classes"]]


@dataclass(frozen=True)
class Scale:
    """How many draws are kept.

    Attributes:
        many: of clean examples.
        few: of the others, as many as methods are compared with.
        folder: where they are kept.
    """

    many: int
    few: int
    folder: Path


def methods(case: Case, scale: Scale) -> dict[str, Callable[[], Any]]:
    """What makes the sampler of each method; with augmentation, all see the same crops."""
    network = case.network

    def noisy(size: int) -> mcbn.MCBatchNorm:
        batches = mcbn.minibatches(case.training, batch_size=size, draws=scale.many, seed=SEED)
        bank = mcbn.collect(network, batches, limit=None, progress=False)
        return mcbn.MCBatchNorm(network, bank, precision="auto")

    def augmented(sampler: Any) -> mcbn.Augmented:
        return mcbn.Augmented(
            sampler, case.transform, draws=scale.many, seed=SEED, precision="auto"
        )

    made: dict[str, Callable[[], Any]] = {
        "plain": lambda: mcbn.Deterministic(network),
        "TTA": lambda: augmented(network),
        "dropout": lambda: mcbn.MCDropout(
            network, insert=case.dropout, draws=scale.many, seed=SEED, precision="auto"
        ),
        "Laplace": lambda: mcbn.LastLayerLaplace.fit(
            network, case.known.inputs, case.known.targets, draws=scale.many, seed=SEED,
            progress=False,
        ),
    }  # fmt: skip
    for size in SIZES:
        made[f"MCBN, M = {size}"] = lambda size=size: noisy(size)
    for size in COMBINED:
        made[f"MCBN, M = {size}, with TTA"] = lambda size=size: augmented(noisy(size))
    if case.members:
        made["ensemble"] = lambda: mcbn.DeepEnsemble(list(case.members))
    return made


def draws_of(name: str, case: Case, scale: Scale) -> dict[str, Draws]:
    """The draws of every method on every picture set, made where they are not kept yet."""
    found = {}
    made = methods(case, scale)
    for method in progress_bar(made, label=f"draws of {name}", unit="method", total=len(made)):
        slug = f"{name}-{method}".replace(",", "").replace(" ", "-").replace("=", "")
        path = scale.folder / f"{slug}.safetensors"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, save(drawn(made[method](), case, scale)))
        found[method] = {key: value.float() for key, value in load_file(path).items()}
    return found


@torch.no_grad()
def drawn(sampler: Any, case: Case, scale: Scale) -> dict[str, Tensor]:
    """Outputs of the first draws, in half precision."""
    outputs = {}
    for name, inputs in case.pictures():
        count = min(len(sampler), scale.many if name == "clean" else scale.few)
        batches = [
            torch.stack(list(islice(sampler.passes(batch), count))) for batch in inputs.split(BATCH)
        ]
        outputs[name] = torch.cat(batches, 1).half()
    return outputs
