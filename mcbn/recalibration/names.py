"""Names of the methods of recalibration, known without any of them."""

from typing import Literal

Recalibration = Literal[
    "temperature", "temperature-per-draw", "temperature-of-average", "temperature-per-label",
    "vector", "platt", "isotonic", "variance",
]  # fmt: skip
