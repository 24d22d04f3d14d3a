"""A network and its draws as a program of `torch.export`, which runs where PyTorch is."""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.nn import Module
from torch.utils._pytree import tree_map

from mcbn.deployment.drawn_network import (
    Answer,
    DrawnNetwork,
    Members,
    categorical_answer,
    gaussian_answer,
)
from mcbn.deployment.onnx import reason
from mcbn.network.inputs import Inputs, count
from mcbn.network.isolation import own_warnings, random_streams
from mcbn.predictive.gaussian import Gaussian
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.engines import HALF_ROUNDING, ROUNDING
from mcbn.samplers.ensemble import DeepEnsemble

Exportable = MCBatchNorm | DeepEnsemble | Deterministic
# Examples that a network is traced with: more than one, which tracing takes for a constant.
TRACED = 2


def models_of(sampler: Exportable) -> tuple[Module, ...]:
    """The networks of a sampler."""
    return tuple(sampler.models) if isinstance(sampler, DeepEnsemble) else (sampler.model,)


def cycled(example: Inputs, number: int) -> Inputs:
    """So many examples: the first ones, again and again if need be."""
    rows = torch.arange(number) % count(example)
    found: Inputs = tree_map(lambda v: v[rows] if isinstance(v, Tensor) else v, example)
    return found


def traced_program(
    sampler: Exportable,
    family: Any,
    tried: Inputs,
    expected: Mapping[str, Tensor],
    chunk: int | None,
) -> ExportedProgram:
    """The network and its draws traced, in the fastest form that answers as it should.

    Args:
        sampler: on networks in eval mode.
        family: the likelihood.
        tried: inputs, more than two examples.
        expected: outputs for those, by name.
        chunk: how many draws go through the network together; all of them if None.

    Raises:
        ValueError: no form can be traced, or answers as it should; gives the last reason.
    """
    summary: Callable[[Tensor], dict[str, Tensor]] = categorical_answer
    if isinstance(family, Gaussian):
        summary = partial(gaussian_answer, family.precision)
    refusals: list[Exception] = []
    for network in _networks(sampler, chunk):
        try:
            program = _traced(Answer(network, summary), cycled(tried, TRACED))
            first, second = (_answers(program, tried, seed) for seed in (0, 1))
            if any(not first[name].equal(second[name]) for name in expected):
                raise ValueError("a step that draws at random even in eval mode")
            require_same(first, expected, least_type(program))
            return program
        except Exception as error:  # a network may refuse tracing in any way
            refusals.append(error)
    raise ValueError(
        f"expected a network to trace with torch.export, got {reason(refusals[-1])}; take out what "
        "depends on values or is random, and batch norm that does not call "
        "torch.nn.functional.batch_norm"
    ) from refusals[-1]


def _networks(sampler: Exportable, chunk: int | None) -> Iterator[Module]:
    if not isinstance(sampler, MCBatchNorm):
        yield Members(models_of(sampler), output=sampler.output)
        return
    for shared in (True, False):
        yield DrawnNetwork(
            sampler.model,
            sampler._statistics(),
            output=sampler.output,
            shared=shared,
            chunk=chunk,
        )


def _traced(answer: Module, example: Inputs) -> ExportedProgram:
    batch = Dim("batch", min=1)
    axes = tree_map(lambda value: {0: batch} if isinstance(value, Tensor) else None, example)
    # The answer's own mode: those of the networks in it are held by the caller.
    answer.training = False
    with torch.no_grad(), own_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        program = torch.export.export(answer, (example,), dynamic_shapes=(axes,))
    for node in program.graph.nodes:
        # Paths and lines of the user's code are nobody else's.
        for name in ("stack_trace", "from_node", "nn_module_stack"):
            node.meta.pop(name, None)
    program._example_inputs = None
    return program


def pt2_bytes(program: ExportedProgram, header: Mapping[str, Any]) -> bytes:
    """The program as the content of a .pt2 file, with the header as its file mcbn.json."""
    content = io.BytesIO()
    with own_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        files = {"mcbn.json": json.dumps(header, sort_keys=True)}
        torch.export.save(program, content, extra_files=files)
    return content.getvalue()


def pt2_answers(content: bytes, inputs: Inputs) -> dict[str, Tensor]:
    """What the program in a .pt2 file answers, by name."""
    return _answers(torch.export.load(io.BytesIO(content)), inputs)


def _answers(program: ExportedProgram, inputs: Inputs, seed: int = 0) -> dict[str, Tensor]:
    with torch.no_grad(), random_streams(seed, "export"):
        found: dict[str, Tensor] = program.module()(inputs)
    return found


def require_same(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], dtype: torch.dtype
) -> None:
    """Check the first output, which any difference in the network shows in.

    Raises:
        ValueError: it differs by more than rounding.
    """
    name = next(iter(expected))
    limit = ROUNDING.get(dtype, HALF_ROUNDING) * float(expected[name].abs().max())
    gap = largest(found[name], expected[name])
    if not gap <= limit:
        raise ValueError(
            f"expected {name} as mcbn.predict gives them, got {gap:.3g} of difference once "
            "exported; predict where mcbn is"
        )


def largest(found: Tensor, expected: Tensor) -> float:
    """The largest difference; infinite between different shapes."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found.detach().double() - expected).abs().max())


def least_type(program: ExportedProgram) -> torch.dtype:
    """The least precise floating type of the network's tensors."""
    types = {t.dtype for t in program.state_dict.values() if t.is_floating_point()}
    return min(types, key=lambda dtype: dtype.itemsize, default=torch.float32)


def stored_bytes(program: ExportedProgram) -> tuple[int, int]:
    """Bytes of the bank's statistics, and of everything else; tensors that are tied count once."""
    found = {tensor.data_ptr(): (name, tensor) for name, tensor in program.state_dict.items()}
    bank = sum(t.nbytes for name, t in found.values() if name.startswith("network.bank_"))
    return bank, sum(t.nbytes for _, t in found.values()) - bank
