"""Files of predictions as people have them, from their text or arrays."""

import numpy as np

from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import read_predictions


def read(folder, content, name="net.csv", **options) -> Predictions:
    """Predictions from text, bytes, or arrays by name."""
    path = folder / name
    if isinstance(content, dict):
        np.savez(path, **content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_predictions(path, **options)


def probabilities(predictions, digits=9):
    """Rows of probabilities, rounded."""
    return np.round(predictions.predictive.probabilities.numpy(), digits).tolist()
