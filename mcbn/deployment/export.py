"""Export of a network and its draws as one file, which predicts with uncertainty without mcbn."""

import inspect
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor
from torch.export import ExportedProgram

from mcbn.deployment.onnx import onnx_bytes, onnx_outputs, require_onnx
from mcbn.deployment.program import (
    Exportable,
    cycled,
    lowest_precision,
    max_difference,
    models_of,
    pt2_bytes,
    pt2_outputs,
    require_same,
    stored_bytes,
    traced_program,
)
from mcbn.io.atomic import write_whole
from mcbn.network.inputs import Inputs, count, device_of, require_finite, tensors
from mcbn.network.isolation import eval_mode, own_warnings, random_streams
from mcbn.predictive.gaussian import Gaussian
from mcbn.predictive.likelihood import Likelihood, as_likelihood
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.sampler import Sampler

Format = Literal["pt2", "onnx"]
OUTPUTS = {
    False: ("probabilities", "entropy", "mutual_information"),
    True: ("mean", "variance", "epistemic_variance"),
}
# Examples that the finished file is tested on: not as many as it is traced with, to detect a trace
# that is right for one number of examples only.
TEST_EXAMPLES = 3


@dataclass(frozen=True)
class Artifact:
    """An exported file: a network and its fixed draws.

    Attributes:
        path: of the file.
        draws: T.
        inputs: names of the inputs.
        outputs: names of the outputs.
        size: bytes of the file.
        weights: bytes of the network's parameters and buffers in it.
        bank: bytes of the draws' statistics in it.
        differences: largest difference of each output from that of `predict`, on the example.
    """

    path: Path
    draws: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    size: int
    weights: int
    bank: int
    differences: Mapping[str, float]


def export(
    sampler: Sampler,
    example: Inputs,
    path: str | os.PathLike[str],
    *,
    likelihood: Literal["categorical"] | Likelihood[Any] = "categorical",
    format: Format | None = None,
    chunk: int | None = None,
) -> Artifact:
    """Write a network with its fixed draws as one file, whose outputs are those of `predict`.

    For classes the outputs are `probabilities`, `entropy` and `mutual_information`, in nats; for
    real targets `mean`, `variance` and `epistemic_variance`. The file takes any number of examples;
    the other axes have the sizes of the example. It is tested on the example before it is written.
    See docs/deployment.md.

    Args:
        sampler: `MCBatchNorm`, `DeepEnsemble` or `Deterministic`, on the CPU.
        example: inputs of one or more examples; their values are not stored.
        path: of the file; .pt2 is a program of `torch.export`, .onnx a network in ONNX.
        likelihood: "categorical" for logits, `Gaussian(...)` for real targets.
        format: "pt2" or "onnx"; by default that of the name of the file.
        chunk: draws that go through the network together, all of them if None. It bounds the memory
            of a call, and large images are often faster in chunks; see docs/deployment.md.

    Raises:
        ValueError: the format is unknown, the sampler is of another kind or not on the CPU, the
            network cannot be traced, draws at random, or has other outputs once it is exported.
        ImportError: a package of `mcbn[onnx]` is missing.
    """
    target, family = Path(path), as_likelihood(likelihood)
    kind = _format(target, format)
    sampler = _exportable(sampler, chunk)
    _require_examples(example)
    outputs = OUTPUTS[isinstance(family, Gaussian)]
    inputs, names = cycled(example, TEST_EXAMPLES), _input_names(sampler, example)
    with random_streams(0, "export"), ExitStack() as stack:
        predicted = family.summarize(sampler.passes(inputs))
        expected = {name: getattr(predicted, name) for name in outputs}
        # In the same order in all threads, so that no two wait for each other.
        for model in sorted(models_of(sampler), key=id):
            stack.enter_context(eval_mode(model))
        program = traced_program(sampler, family, inputs, expected, chunk)
    content, actual = _tried_content(kind, program, names, inputs, _header(sampler, outputs))
    require_same(actual, expected, lowest_precision(program))
    write_whole(target, content)
    differences = {name: max_difference(actual[name], expected[name]) for name in outputs}
    bank, weights = stored_bytes(program)
    return Artifact(target, len(sampler), names, outputs, len(content), weights, bank, differences)


def _tried_content(
    kind: str,
    program: ExportedProgram,
    names: tuple[str, ...],
    inputs: Inputs,
    header: dict[str, Any],
) -> tuple[bytes, dict[str, Tensor]]:
    """The content of the file, and its outputs for the inputs."""
    if kind == "pt2":
        content = pt2_bytes(program, header)
        return content, pt2_outputs(content, inputs)
    with own_warnings():  # the exporter changes the filters
        content = onnx_bytes(program, names, header["outputs"], header)
    return content, onnx_outputs(content, dict(zip(names, tensors(inputs), strict=True)))


def _format(path: Path, given: Format | None) -> str:
    chosen = path.suffix.removeprefix(".").lower() if given is None else given
    if chosen not in get_args(Format):
        raise ValueError(
            f"expected a file .pt2 or .onnx, got {given or path.name!r}; name it so, or give "
            'format="pt2" or format="onnx"'
        )
    if chosen == "onnx":
        require_onnx()
    return chosen


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


def _require_examples(example: Inputs) -> None:
    if next(tensors(example), None) is None:
        raise ValueError(
            f"expected a tensor, a tuple or a dict of tensors as example, got "
            f"{type(example).__name__}; give what the network is called with"
        )
    require_finite(example, "the example")
    sizes = {tuple(tensor.shape[:1]) for tensor in tensors(example)}
    if len(sizes) > 1 or count(example) < 1:
        raise ValueError(
            "expected examples along the first axis of every tensor, as many in each and at least "
            f"one, got {[tuple(tensor.shape) for tensor in tensors(example)]}; give a batch"
        )


def _input_names(sampler: Exportable, example: Inputs) -> tuple[str, ...]:
    """One name per tensor: "inputs", those of the network's parameters, or the keys of a dict."""
    if isinstance(example, Tensor):
        return ("inputs",)
    if isinstance(example, Mapping):
        keys = list(example)
        values = list(example.values())
    else:
        keys = list(inspect.signature(models_of(sampler)[0].forward).parameters)[: len(example)]
        values = list(example)
    if len(keys) != len(values) or not all(isinstance(value, Tensor) for value in values):
        raise ValueError(
            "expected a tensor, a tuple or a dict of tensors, one for each parameter of the "
            f"network, got {[type(value).__name__ for value in values]} for {keys}; wrap the "
            "network in a module that takes tensors alone"
        )
    return tuple(keys)


def _header(sampler: Exportable, outputs: tuple[str, ...]) -> dict[str, Any]:
    """The metadata of the file."""
    return {
        "sampler": type(sampler).__name__,
        "model": type(models_of(sampler)[0]).__name__,
        "draws": len(sampler),
        "batch_size": sampler.bank.size if isinstance(sampler, MCBatchNorm) else None,
        "outputs": list(outputs),
    }
