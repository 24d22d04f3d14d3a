"""Export of a network and its draws as one file, which predicts with uncertainty without mcbn."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.export import ExportedProgram
from torch.nn import Module

from mcbn.deployment.formats import Format, require_format
from mcbn.deployment.inputs import input_names, plain_inputs
from mcbn.deployment.onnx import onnx_bytes, onnx_outputs, require_onnx, require_onnx_inputs
from mcbn.deployment.program import (
    Exportable,
    models_of,
    networks,
    pt2_bytes,
    pt2_outputs,
    quiet,
    single_draw,
    stored_bytes,
    traced_program,
)
from mcbn.deployment.trials import (
    Trial,
    lowest_precision,
    max_difference,
    require_draws,
    require_outputs,
    settled,
    trials,
)
from mcbn.io.atomic import write_whole
from mcbn.io.display import Display, Displayed
from mcbn.network.conduct import network_conduct
from mcbn.network.inputs import Inputs, device_of, tensors, to_network
from mcbn.network.isolation import eval_mode, own_warnings, random_streams, restored
from mcbn.predictive.bernoulli import Bernoulli
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.gaussian import Gaussian
from mcbn.predictive.likelihood import Likelihood, as_likelihood
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.sampler import Sampler

OUTPUTS = {
    Categorical: ("probabilities", "entropy", "mutual_information"),
    Bernoulli: ("probabilities", "entropy", "mutual_information"),
    Gaussian: ("mean", "variance", "epistemic_variance"),
}


@dataclass(frozen=True, repr=False)
class Artifact(Displayed):
    """An exported file: a network and its fixed draws.

    Attributes:
        path: of the file.
        draws: T.
        inputs: names of the inputs.
        outputs: names of the outputs.
        size: bytes of the file.
        weights: bytes of the network's parameters and buffers in it.
        bank: bytes of the draws' statistics in it.
        differences: largest difference of each output from that of `predict`, in the trials.
    """

    path: Path
    draws: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    size: int
    weights: int
    bank: int
    differences: Mapping[str, float]

    def display(self) -> Display:
        """The file, and how far its outputs are from those of `predict`."""
        heading = (
            f"{self.path}: T = {self.draws}, {self.size:,} bytes, inputs {', '.join(self.inputs)}"
        )
        return Display(heading, ("output", "largest difference"), [
            (name, f"{self.differences[name]:.2g}" if name in self.differences else "-")
            for name in self.outputs
        ])  # fmt: skip


def export(
    sampler: Sampler,
    example: Inputs,
    path: str | os.PathLike[str],
    *,
    likelihood: Literal["categorical", "bernoulli"] | Likelihood[Any] = "categorical",
    format: Format | None = None,
    chunk: int | None = None,
) -> Artifact:
    """Write a network with its fixed draws as one file, whose outputs are those of `predict`.

    For classes the outputs are `probabilities`, `entropy` and `mutual_information`, in nats; for
    several labels an example the same of each label; for real targets `mean`, `variance` and
    `epistemic_variance`. The file takes any number of examples; the other axes have the sizes of
    the example. Before it is written, every draw and every output is compared with those of
    `predict`, on the example and on others made from it. See docs/deployment.md.

    Args:
        sampler: `MCBatchNorm`, `DeepEnsemble` or `Deterministic`, on the CPU.
        example: inputs of one or more examples; their values are not stored.
        path: of the file; .pt2 is a program of `torch.export`, .onnx a network in ONNX.
        likelihood: "categorical" for classes, "bernoulli" for several labels an example,
            `Gaussian(...)` for real targets.
        format: "pt2" or "onnx"; by default that of the name of the file.
        chunk: draws that go through the network together, all of them if None. It bounds the memory
            of a call, and large images are often faster in chunks; see docs/deployment.md.

    Raises:
        ValueError: the format is unknown; the sampler is of another kind or not on the CPU, or the
            likelihood is; the network cannot be traced, draws at random, or has other outputs once
            it is exported.
        ImportError: a package of `mcbn[onnx]` is missing.
    """
    target, family = Path(path), _likelihood(likelihood)
    kind = require_format(target, format)
    if kind == "onnx":
        require_onnx()
    sampler = _exportable(sampler, chunk)
    models = models_of(sampler)
    inputs = to_network(models[0], plain_inputs(example))
    names, outputs = input_names(models[0], inputs), OUTPUTS[type(family)]
    if kind == "onnx":
        require_onnx_inputs(dict(zip(names, tensors(inputs), strict=True)), outputs)
    with random_streams(0, "export"), ExitStack() as stack:
        # In the same order in all threads, so that no two wait for each other.
        for model in sorted(models, key=id):
            stack.enter_context(eval_mode(model))
            stack.enter_context(restored(model, parameters=True))
        plain = single_draw(sampler)
        family = settled(family, plain, inputs)
        tried = trials(sampler, family, inputs, outputs)
        for model in models:
            network_conduct(model, inputs)  # refuses what normalises by the batch at hand
        stack.enter_context(quiet())
        file = _File(kind, sampler, family, chunk, names)
        program, content, answers = file.made(tried, plain)
    write_whole(target, content)
    differences = {
        name: max(max_difference(each[name], trial.expected[name]) for each, trial in answers)
        for name in outputs
    }
    bank, weights = stored_bytes(program)
    return Artifact(target, len(sampler), names, outputs, len(content), weights, bank, differences)


# A program, the content of its file, and the answers of the file to each trial.
Made = tuple[ExportedProgram, bytes, list[tuple[dict[str, Tensor], Trial]]]


@dataclass(frozen=True, eq=False)
class _File:
    """What is to be written.

    Attributes:
        kind: "pt2" or "onnx".
        sampler: on networks in eval mode.
        likelihood: of the outputs.
        chunk: draws that go through the network together.
        inputs: names of the inputs.
    """

    kind: str
    sampler: Exportable
    likelihood: Any
    chunk: int | None
    inputs: tuple[str, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return OUTPUTS[type(self.likelihood)]

    def made(self, tried: Sequence[Trial], plain: Module) -> Made:
        """The program, the content of the file and its answers, as fast a form as is right.

        Args:
            tried: what the file has to answer.
            plain: the network with a single draw.

        Raises:
            ValueError: no form is; gives the reason of the plainest.
        """
        exportable = False
        dtype = lowest_precision(models_of(self.sampler))
        refusal: Exception | None = None
        for network in networks(self.sampler, self.chunk):
            try:
                for trial in tried:
                    require_draws(network, trial, dtype)
            except Exception as error:  # whatever the network says to draws in its batch
                refusal = error
                continue
            try:
                made = self._tried(network, tried)
                for actual, trial in made[-1]:
                    require_outputs(actual, trial, dtype)
            except ValueError as error:
                refusal = error
            else:
                return made
            if not exportable:
                # A network that cannot be exported at all is refused now, and by its own reason.
                self._tried(plain, tried[:1])
                exportable = True
        raise refusal or ValueError("expected a sampler with draws, got none; add draws")

    def _tried(self, network: Module, tried: Sequence[Trial]) -> Made:
        """The network as a file, and the answers of the file for the inputs of the trials."""
        program = traced_program(network, self.likelihood, tried[0].inputs)
        header = _header(self.sampler, self.outputs)
        if self.kind == "pt2":
            content = pt2_bytes(program, header)
            answers = pt2_outputs(content, [trial.inputs for trial in tried])
        else:
            with own_warnings():  # the exporter changes the filters
                content = onnx_bytes(program, self.inputs, self.outputs, header)
            named = [dict(zip(self.inputs, tensors(each.inputs), strict=True)) for each in tried]
            answers = onnx_outputs(content, named)
        return program, content, list(zip(answers, tried, strict=True))


def _likelihood(given: Any) -> Any:
    family = as_likelihood(given)
    if type(family) not in OUTPUTS:
        raise ValueError(
            f"expected the likelihood 'categorical', 'bernoulli' or mcbn.Gaussian(...), got "
            f"{type(family).__name__}, whose predictive distribution a file cannot compute; use "
            "mcbn.predict"
        )
    return family


def _exportable(sampler: Sampler, chunk: int | None) -> Exportable:
    if not isinstance(sampler, Exportable):
        raise ValueError(
            "expected MCBatchNorm, DeepEnsemble or Deterministic, whose draws are fixed, got "
            f"{type(sampler).__name__}; export MCBatchNorm, or use mcbn.predict"
        )
    for model in models_of(sampler):
        if (device := device_of(model)).type != "cpu":
            raise ValueError(
                f"expected a network on the CPU, got one on {device}; move it with model.cpu(), "
                "so that the file holds no device"
            )
    if chunk is not None and chunk < 1:
        raise ValueError(f"expected a chunk of at least 1 draw, got {chunk}; leave it out for all")
    return sampler


def _header(sampler: Exportable, outputs: tuple[str, ...]) -> dict[str, Any]:
    """The metadata of the file."""
    return {
        "sampler": type(sampler).__name__,
        "model": type(models_of(sampler)[0]).__name__,
        "draws": len(sampler),
        "batch_size": sampler.bank.size if isinstance(sampler, MCBatchNorm) else None,
        "outputs": list(outputs),
    }
