"""A network and its draws as a program of `torch.export`, which needs PyTorch alone."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.nn import Module

from mcbn.deployment.modules import (
    EnsembleModule,
    MCBatchNormModule,
    SummaryModule,
    Way,
    bernoulli_summary,
    categorical_summary,
    gaussian_summary,
)
from mcbn.deployment.onnx import reason
from mcbn.deployment.trials import cycled
from mcbn.io.plain import to_json
from mcbn.network.inputs import Inputs
from mcbn.network.isolation import own_warnings, random_streams
from mcbn.predictive.bernoulli import Bernoulli
from mcbn.predictive.gaussian import Gaussian
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.ensemble import DeepEnsemble
from mcbn.samplers.outputs import map_tensors

Exportable = MCBatchNorm | DeepEnsemble | Deterministic
# Examples that a network is traced with: tracing would take the number 1 for a constant.
TRACING_EXAMPLES = 2
# Packages that log errors which they raise as well.
LOGGING = ("torch", "onnxscript", "onnx_ir")
# What PyTorch says of a network that cannot be traced, and what to do about it.
REMEDIES = {
    "data-dependent": "remove steps that depend on values, such as `if x.sum() > 0`",
    "(batch)!": "remove steps that fix the number of examples, such as len(x), for which "
    "x.shape[0] may stand, and chunks or loops over examples",
}


def models_of(sampler: Exportable) -> tuple[Module, ...]:
    """The networks that a sampler runs."""
    return tuple(sampler.models) if isinstance(sampler, DeepEnsemble) else (sampler.model,)


def networks(sampler: Exportable, chunk: int | None) -> Iterator[Module]:
    """Yield modules that return all draws, the fastest in use first; the last takes any network."""
    if not isinstance(sampler, MCBatchNorm):
        yield EnsembleModule(models_of(sampler), output=sampler.output)
        return
    for way in get_args(Way):
        yield _drawn(sampler, sampler._statistics(), way, chunk)


def single_draw(sampler: Exportable) -> Module:
    """Return a module with one draw, as plain as the network itself."""
    if not isinstance(sampler, MCBatchNorm):
        return EnsembleModule(models_of(sampler)[:1], output=sampler.output)
    first = {name: rows[:1] for name, rows in sampler._statistics().items()}
    return _drawn(sampler, first, "unrolled", None)


def _drawn(
    sampler: MCBatchNorm, statistics: Mapping[str, Tensor], way: Way, chunk: int | None
) -> Module:
    return MCBatchNormModule(sampler.model, statistics, output=sampler.output, way=way, chunk=chunk)


def traced_program(network: Module, likelihood: Any, inputs: Inputs) -> ExportedProgram:
    """Trace a network with the summary of its draws.

    Args:
        network: returns all draws, (batch, draws, ...); in eval mode.
        likelihood: `Gaussian`, or `Categorical` or `Bernoulli` that says what the outputs are.
        inputs: examples of any number; their values are not stored.

    Raises:
        ValueError: it cannot be traced; gives the reason.
    """
    if isinstance(likelihood, Gaussian):
        summary = partial(gaussian_summary, likelihood.precision)
    else:
        of_outputs = bernoulli_summary if isinstance(likelihood, Bernoulli) else categorical_summary
        summary = partial(of_outputs, likelihood.outputs == "probabilities")
    try:
        return _traced(SummaryModule(network, summary), cycled(inputs, TRACING_EXAMPLES))
    except Exception as error:  # a network may refuse tracing in any way
        cause = reason(error)
        remedies = [remedy for words, remedy in REMEDIES.items() if words in cause]
        raise ValueError(
            f"expected a network that torch.export can trace, got {cause}; "
            f"{' and '.join(remedies) or 'remove that step'}, or use mcbn.predict"
        ) from error


def _traced(module: Module, example: Inputs) -> ExportedProgram:
    batch = Dim("batch", min=1)
    axes = map_tensors(lambda _: {0: batch}, example)
    # Its own mode alone: the caller holds the networks in it in eval mode.
    module.training = False
    # PyTorch warns of its own code, and prints the graph as far as it came.
    with torch.no_grad(), own_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (example,), dynamic_shapes=(axes,))
        if any("vmap" in str(node.target) for node in program.graph.nodes):
            program = program.run_decompositions({})  # else vmap itself would be in the file
    for node in program.graph.nodes:
        # The file must not hold paths and lines of the user's code.
        for name in ("stack_trace", "from_node", "nn_module_stack"):
            node.meta.pop(name, None)
    program.example_inputs = None
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch and the ONNX exporter from logging the forms that are tried and dropped."""
    loggers = [
        each
        for name, each in logging.root.manager.loggerDict.items()
        if name.split(".")[0] in LOGGING and isinstance(each, logging.Logger) and not each.disabled
    ]
    try:
        for each in loggers:
            each.disabled = True
        yield
    finally:
        for each in loggers:
            each.disabled = False


def pt2_bytes(program: ExportedProgram, header: Mapping[str, Any]) -> bytes:
    """Return the program as the content of a .pt2 file, with the header in its entry mcbn.json."""
    content = io.BytesIO()
    with own_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of its own code
        files = {"mcbn.json": to_json(header, sort_keys=True)}
        torch.export.save(program, content, extra_files=files)
    return content.getvalue()


def pt2_outputs(content: bytes, batches: Sequence[Inputs]) -> list[dict[str, Tensor]]:
    """Run the program in a .pt2 file on several batches; returns its outputs by name."""
    program = torch.export.load(io.BytesIO(content)).module()
    with torch.no_grad(), random_streams(0, "export"):
        return [program(inputs) for inputs in batches]


def stored_bytes(program: ExportedProgram) -> tuple[int, int]:
    """Return the bytes of the bank's statistics and of all else; tied tensors count once."""
    tensors = {tensor.data_ptr(): (name, tensor) for name, tensor in program.state_dict.items()}
    bank = sum(t.nbytes for name, t in tensors.values() if name.startswith("network.bank_"))
    return bank, sum(t.nbytes for _, t in tensors.values()) - bank
