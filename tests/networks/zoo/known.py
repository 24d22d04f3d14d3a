"""What is not right yet, by network: entries, or families of entries that all fail."""

KNOWN: dict[str, str] = {
    "norm.train() in forward": "export pt2, export onnx",
    "self.train() in forward": "export pt2, export onnx",
    "norm.training = True in forward": "export onnx",
    "a queue of earlier batches": "export pt2, export onnx",
    "filter response norm with a running square": "export pt2",
    "EvoNorm-B0 beside batch norm": "export pt2",
    "a layer used through its tensors": "export pt2",
    "counts its calls": "export pt2, export onnx",
    "counts its calls in a buffer": "export pt2, export onnx",
    "answers differently at every call": "export pt2, export onnx",
    "keeps its hidden values": "export pt2, export onnx",
    "keeps a list of what it saw": "export pt2, export onnx",
    "a running average that goes on in eval mode": "export pt2, export onnx",
    "keeps its answer to the last inputs": "export pt2, export onnx",
    "statistics by other names": "export pt2",
    "float64 inputs of a float32 network": "export pt2",
}  # fmt: skip
