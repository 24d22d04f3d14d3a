"""What the outputs of a classifier are, known by their values: logits or probabilities."""

from typing import Literal

from torch import Tensor

Kind = Literal["logits", "probabilities", "between 0 and 1"]

# Rounding of a sum of probabilities over thousands of classes, and in half precision.
SUM_TO_ONE = 1e-3
# Fewer logits than this may all lie between 0 and 1 by chance.
MIN_VALUES = 16


def output_kind(outputs: Tensor) -> Kind:
    """What outputs with classes along the second axis look like.

    Probabilities are at least 0 and sum to 1 over the classes, as those of a softmax. Values
    between 0 and 1 that do not, as those of a sigmoid, are told where there are enough of them.
    """
    if not outputs.is_floating_point() or outputs.ndim < 2 or outputs.numel() == 0:
        return "logits"
    outputs = outputs.detach()
    low, high = (float(end) for end in outputs.aminmax())
    if not (low >= 0 and high <= 1 + SUM_TO_ONE) or low == high:
        return "logits"
    if bool(((outputs == 0) | (outputs == 1)).all()):
        return "logits"
    if outputs.shape[1] > 1 and float((outputs.double().sum(1) - 1).abs().max()) <= SUM_TO_ONE:
        return "probabilities"
    return "between 0 and 1" if outputs.numel() >= MIN_VALUES else "logits"
