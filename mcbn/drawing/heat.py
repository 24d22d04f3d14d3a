"""Values of pixels as colours."""

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8

HEAT = "magma"

Pixels = UInt8[np.ndarray, "height width 3"]


def heat(values: Float[np.ndarray, "height width"], top: float, *, low: float = 0.0) -> Pixels:
    """Values from `low` to `top` as colours from dark to bright."""
    shares = np.clip((values - low) / (top - low), 0, 1) if top > low else np.zeros_like(values)
    colors: np.ndarray = (255 * matplotlib.colormaps[HEAT](shares)[..., :3]).round().astype("u1")
    return colors
