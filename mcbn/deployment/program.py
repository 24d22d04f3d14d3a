"""A network and its draws as a program of `torch.export`, which needs PyTorch alone."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.nn import Module

from mcbn.deployment.modules import (
    EnsembleModule,
    MCBatchNormModule,
    SummaryModule,
    categorical_summary,
    gaussian_summary,
)
from mcbn.deployment.onnx import reason
from mcbn.io.plain import to_json
from mcbn.network.inputs import Inputs, count
from mcbn.network.isolation import own_warnings, random_streams
from mcbn.predictive.gaussian import Gaussian
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.engines import HALF_ROUNDING, ROUNDING
from mcbn.samplers.ensemble import DeepEnsemble
from mcbn.samplers.outputs import map_tensors

Exportable = MCBatchNorm | DeepEnsemble | Deterministic
# Examples that a network is traced with: tracing would take the number 1 for a constant.
TRACING_EXAMPLES = 2


def models_of(sampler: Exportable) -> tuple[Module, ...]:
    """The networks that a sampler runs."""
    return tuple(sampler.models) if isinstance(sampler, DeepEnsemble) else (sampler.model,)


def cycled(example: Inputs, number: int) -> Inputs:
    """Return `number` examples: the first ones, repeated where there are fewer."""
    rows = torch.arange(number) % count(example)
    examples: Inputs = map_tensors(lambda tensor: tensor[rows], example)
    return examples


def traced_program(
    sampler: Exportable,
    likelihood: Any,
    inputs: Inputs,
    expected: Mapping[str, Tensor],
    chunk: int | None,
) -> ExportedProgram:
    """Trace the network and its draws, in the fastest form that has the expected outputs.

    Args:
        sampler: on networks in eval mode.
        likelihood: "Gaussian" or of classes.
        inputs: to test the program on, more than two examples.
        expected: outputs for those, by name.
        chunk: how many draws go through the network together; all of them if None.

    Raises:
        ValueError: no form can be traced and has the expected outputs; gives the last reason.
    """
    summary: Callable[[Tensor], dict[str, Tensor]] = categorical_summary
    if isinstance(likelihood, Gaussian):
        summary = partial(gaussian_summary, likelihood.precision)
    refusals: list[Exception] = []
    for network in _networks(sampler, chunk):
        try:
            program = _traced(SummaryModule(network, summary), cycled(inputs, TRACING_EXAMPLES))
            first, second = (_outputs(program, inputs, seed) for seed in (0, 1))
            if any(not first[name].equal(second[name]) for name in expected):
                raise ValueError("a step that draws at random even in eval mode")
            require_same(first, expected, lowest_precision(program))
            return program
        except Exception as error:  # a network may refuse tracing in any way
            refusals.append(error)
    raise ValueError(
        f"expected a network that torch.export can trace, got {reason(refusals[-1])}; remove steps "
        "that depend on values or are random, and batch norm that does not call "
        "torch.nn.functional.batch_norm"
    ) from refusals[-1]


def _networks(sampler: Exportable, chunk: int | None) -> Iterator[Module]:
    if not isinstance(sampler, MCBatchNorm):
        yield EnsembleModule(models_of(sampler), output=sampler.output)
        return
    for shared in (True, False):
        yield MCBatchNormModule(
            sampler.model,
            sampler._statistics(),
            output=sampler.output,
            shared=shared,
            chunk=chunk,
        )


def _traced(module: Module, example: Inputs) -> ExportedProgram:
    batch = Dim("batch", min=1)
    axes = map_tensors(lambda _: {0: batch}, example)
    # Its own mode alone: the caller holds the networks in it in eval mode.
    module.training = False
    with torch.no_grad(), own_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of its own code
        program = torch.export.export(module, (example,), dynamic_shapes=(axes,))
    for node in program.graph.nodes:
        # The file must not hold paths and lines of the user's code.
        for name in ("stack_trace", "from_node", "nn_module_stack"):
            node.meta.pop(name, None)
    program.example_inputs = None
    return program


def pt2_bytes(program: ExportedProgram, header: Mapping[str, Any]) -> bytes:
    """Return the program as the content of a .pt2 file, with the header in its entry mcbn.json."""
    content = io.BytesIO()
    with own_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of its own code
        files = {"mcbn.json": to_json(header, sort_keys=True)}
        torch.export.save(program, content, extra_files=files)
    return content.getvalue()


def pt2_outputs(content: bytes, inputs: Inputs) -> dict[str, Tensor]:
    """Run the program in a .pt2 file; returns its outputs by name."""
    return _outputs(torch.export.load(io.BytesIO(content)), inputs)


def _outputs(program: ExportedProgram, inputs: Inputs, seed: int = 0) -> dict[str, Tensor]:
    with torch.no_grad(), random_streams(seed, "export"):
        outputs: dict[str, Tensor] = program.module()(inputs)
    return outputs


def require_same(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], dtype: torch.dtype
) -> None:
    """Check the first output, in which any difference of the network shows.

    Raises:
        ValueError: it differs by more than rounding.
    """
    name = next(iter(expected))
    limit = ROUNDING.get(dtype, HALF_ROUNDING) * float(expected[name].abs().max())
    difference = max_difference(actual[name], expected[name])
    if not difference <= limit:
        raise ValueError(
            f"expected the exported {name} to equal those of mcbn.predict, got a difference of "
            f"{difference:.3g}; use mcbn.predict for this network"
        )


def max_difference(actual: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference; infinite between different shapes."""
    if actual.shape != expected.shape:
        return float("inf")
    return float((actual.detach().double() - expected).abs().max())


def lowest_precision(program: ExportedProgram) -> torch.dtype:
    """Return the least precise floating type of the network's tensors."""
    types = {t.dtype for t in program.state_dict.values() if t.is_floating_point()}
    return min(types, key=lambda dtype: dtype.itemsize, default=torch.float32)


def stored_bytes(program: ExportedProgram) -> tuple[int, int]:
    """Return the bytes of the bank's statistics and of all else; tied tensors count once."""
    tensors = {tensor.data_ptr(): (name, tensor) for name, tensor in program.state_dict.items()}
    bank = sum(t.nbytes for name, t in tensors.values() if name.startswith("network.bank_"))
    return bank, sum(t.nbytes for _, t in tensors.values()) - bank
