"""`export`: the file answers as PyTorch does, for rows that the exporter never saw."""

import tempfile
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor
from zoo.found import left_as_found
from zoo.guest import AbsentError, Guest, WrongError, states

import mcbn

TRACED = 4  # examples that the file is traced with


def by_export(form: str, guest: Guest) -> None:
    network, stranger = guest.fresh(), guest.stranger
    if stranger.whole:
        raise AbsentError("the file takes an example per row")
    sampler = mcbn.MCBatchNorm(network, guest.bank, output=stranger.output)
    likelihood: Any = mcbn.Gaussian(1.0) if stranger.gaussian else "categorical"
    inputs = guest.inputs(TRACED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"network.{form}")
        with left_as_found(network, inputs):
            mcbn.export(sampler, inputs, path, likelihood=likelihood)
        found = _run(path, guest.inputs())
    for name, right in _summaries(guest).items():
        gap, scale = float((found[name] - right).abs().max()), float(right.abs().max())
        if not gap <= 10 * stranger.tolerance * scale + 1e-6:
            raise WrongError(f"{name} off by {gap:.2g} of {scale:.2g}")


def _run(path: Path, inputs: Any) -> dict[str, Tensor]:
    """What the file answers, by a runtime that knows nothing of this package."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(inputs)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    values = inputs.values() if isinstance(inputs, dict) else inputs
    values = [inputs] if isinstance(inputs, Tensor) else list(values)
    names = [each.name for each in session.get_inputs()]
    given = {name: value.detach().numpy() for name, value in zip(names, values, strict=True)}
    outputs = [each.name for each in session.get_outputs()]
    return dict(zip(outputs, map(torch.as_tensor, session.run(outputs, given)), strict=True))


def _summaries(guest: Guest) -> dict[str, Tensor]:
    answers = guest.answers(guest.inputs(), states(guest.bank)).double()
    if guest.stranger.gaussian:
        return {"mean": answers.mean(0), "epistemic_variance": answers.var(0, correction=0)}
    draws = answers.softmax(2)
    mean = draws.mean(0)
    entropy = -mean.xlogy(mean).sum(1)
    return {
        "probabilities": mean,
        "entropy": entropy,
        "mutual_information": entropy + draws.xlogy(draws).sum(2).mean(0),
    }
