"""Exported programs as ONNX: one file that holds each weight once, with reproducible bytes."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mcbn.io.extras import optional
from mcbn.io.plain import to_json

EXTRA = "onnx"
# Largest tensor, in numbers, that is computed at export. Shapes are; one of the size of weights or
# draws would be stored twice, and is computed by the runtime when it loads the file.
MAX_FOLDED_SIZE = 16
# Bytes that one protocol buffer may hold, minus space for the graph itself.
MAX_BYTES = 2**31 - 2**24
SILENT = 4  # of the log of ONNX Runtime: fatal errors only
MAX_MESSAGE_LENGTH = 250  # characters of another library's error that are reported


def require_onnx() -> None:
    """Check that the packages that write and run ONNX are installed.

    Raises:
        ImportError: a package is missing.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        optional(package, extra=EXTRA)


def require_onnx_inputs(inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> None:
    """Check that ONNX Runtime can be given such inputs.

    Raises:
        ValueError: their type is not one of NumPy, or an input is named like an output.
    """
    for name, tensor in inputs.items():
        if tensor.dtype == torch.bfloat16 or tensor.is_complex():
            raise ValueError(
                f"expected inputs of a type that ONNX Runtime takes, got {tensor.dtype} for "
                f"{name!r}; write a .pt2 file, or give a network that takes float32"
            )
        if name in outputs:
            raise ValueError(
                f"expected inputs with other names than the outputs {tuple(outputs)}, got "
                f"{name!r}; rename it, or write a .pt2 file"
            )


def onnx_bytes(
    program: ExportedProgram,
    names: Sequence[str],
    outputs: Sequence[str],
    header: Mapping[str, Any],
) -> bytes:
    """Return the program as the content of an .onnx file.

    Args:
        program: of `torch.export`.
        names: of the inputs.
        outputs: names of the outputs.
        header: stored as JSON under the key "mcbn" of the metadata.

    Raises:
        ValueError: it is too large for one file, or has a step that ONNX does not support.
    """
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > MAX_BYTES:
        raise ValueError(
            f"expected less than 2 GB of weights and draws for one .onnx file, got {size:,} bytes; "
            "write a .pt2, or give fewer draws with bank.first or bank.thin"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of its own code
            exported: Any = torch.onnx.export(
                program,
                input_names=names,
                output_names=outputs,
                external_data=False,
                optimize=False,
                verbose=False,
            )
            optional("onnxscript.optimizer", extra=EXTRA).optimize_ir(
                exported.model, input_size_limit=MAX_FOLDED_SIZE, output_size_limit=MAX_FOLDED_SIZE
            )
            model = exported.model_proto
    except Exception as error:  # the exporter raises errors of many types
        raise ValueError(
            f"expected a network whose steps ONNX supports, got {reason(error)}; write a .pt2 file"
        ) from error
    _clear(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = "mcbn", to_json(header, sort_keys=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def onnx_outputs(
    content: bytes, batches: Sequence[Mapping[str, Tensor]]
) -> list[dict[str, Tensor]]:
    """Run the content of an .onnx file with ONNX Runtime; returns its outputs by name.

    Args:
        content: of the file.
        batches: inputs by name, one mapping for each pass.

    Raises:
        ValueError: ONNX Runtime does not run the file.
    """
    runtime = optional("onnxruntime", extra=EXTRA)
    options = runtime.SessionOptions()
    options.log_severity_level = SILENT  # errors are raised as well
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        answers = [
            session.run(names, {name: value.numpy() for name, value in inputs.items()})
            for inputs in batches
        ]
    except Exception as error:  # the runtime raises errors of many types
        raise ValueError(
            f"expected a network that ONNX Runtime runs, got {reason(error)}; write a .pt2 file"
        ) from error
    return [dict(zip(names, map(torch.from_numpy, rows), strict=True)) for rows in answers]


def reason(error: BaseException) -> str:
    """Return the type and the first lines of the error at the root of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join([f"{type(error).__name__}:", *lines[:2]])[:MAX_MESSAGE_LENGTH]


def _clear(model: Any) -> None:
    """Remove references to the user's code, and name the axis of examples."""
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
