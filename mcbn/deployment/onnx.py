"""Exported programs as ONNX: one file, each weight in it once, the same bytes every time."""

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mcbn.io.extras import optional

EXTRA = "onnx"
# Numbers in the largest tensor that is worked out beforehand: shapes are, while what has the size
# of weights or draws would be filed twice. A runtime does the rest when it loads the file.
FOLDED = 16
# What one protocol buffer may hold, less room for the graph itself.
LARGEST = 2**31 - 2**24
LENGTH = 250  # characters of another library's error that are told


def require_onnx() -> None:
    """Check that what writes and runs ONNX is installed.

    Raises:
        ImportError: a package is missing.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        optional(package, extra=EXTRA)


def onnx_bytes(
    program: ExportedProgram,
    names: Sequence[str],
    outputs: Sequence[str],
    header: Mapping[str, Any],
) -> bytes:
    """The program as the content of an .onnx file.

    Args:
        program: of `torch.export`.
        names: of the inputs.
        outputs: names of the outputs.
        header: filed as JSON under the key "mcbn" of the metadata.

    Raises:
        ValueError: it is too large for one file, or holds a step that ONNX has not.
    """
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > LARGEST:
        raise ValueError(
            f"expected less than 2 GB of weights and draws for one .onnx file, got {size:,} bytes; "
            "write a .pt2, or give fewer draws with bank.first or bank.thin"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch about itself
            made: Any = torch.onnx.export(
                program,
                input_names=names,
                output_names=outputs,
                external_data=False,
                optimize=False,
                verbose=False,
            )
            optional("onnxscript.optimizer", extra=EXTRA).optimize_ir(
                made.model, input_size_limit=FOLDED, output_size_limit=FOLDED
            )
            model = made.model_proto
    except Exception as error:  # the exporter's own, of many kinds
        raise ValueError(
            f"expected a network that ONNX has the steps for, got {reason(error)}; write a .pt2"
        ) from error
    _clear(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = "mcbn", json.dumps(header, sort_keys=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def onnx_answers(content: bytes, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What ONNX Runtime answers, by name.

    Raises:
        ValueError: it does not run the file.
    """
    runtime = optional("onnxruntime", extra=EXTRA)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        given = {name: value.detach().numpy() for name, value in inputs.items()}
        names = [output.name for output in session.get_outputs()]
        found = session.run(names, given)
    except Exception as error:  # the runtime's own, of many kinds
        raise ValueError(
            f"expected a network that ONNX Runtime runs, got {reason(error)}; write a .pt2"
        ) from error
    return {name: torch.from_numpy(row) for name, row in zip(names, found, strict=True)}


def reason(error: BaseException) -> str:
    """The kind and the first words of the error that others come from."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join([f"{type(error).__name__}:", *lines[:2]])[:LENGTH]


def _clear(model: Any) -> None:
    """Drop where in the user's code each step comes from, and name the axis of examples."""
    del model.graph.value_info[:], model.metadata_props[:]
    for values in (
        model.graph.node,
        model.graph.initializer,
        model.graph.input,
        model.graph.output,
    ):
        for value in values:
            value.doc_string = ""
            del value.metadata_props[:]
    del model.graph.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        for index, axis in enumerate(axes):
            if axis.dim_param:
                axis.dim_param = "batch" if index == 0 else axis.dim_param
