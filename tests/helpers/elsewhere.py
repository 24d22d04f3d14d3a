"""What the workers of a cluster run in the tests: sent to them or imported there."""

import os
import signal

import numpy as np
import torch

import mcbn

VICTIM = 3_000  # the row at which a worker is killed


def made(index):
    """Rows of a table by their numbers: inputs and labels."""
    index = np.asarray(index)
    x = np.sin(index[:, None] * np.arange(1.0, 5.0)).astype(np.float32)
    return {"id": index, "x": x, "label": (index * 7) % 3}


def made_by_id(batch):
    return made(batch["id"])


class Mortal(mcbn.Predictor):
    """A predictor whose process is killed once, in the middle of its work.

    Its number is written to the file `place`, which says that it has happened.
    """

    def __call__(self, batch, *, place):
        if VICTIM in batch["id"] and not place.exists():
            place.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        own = {"process": np.full(len(batch["id"]), os.getpid())}
        return super().__call__(batch) | own


def scored(batch):
    """The scores of a block, under the name of its first row."""
    name = f"rows from {next(iter(batch['id']))}"
    probabilities = torch.from_numpy(np.stack(batch["probabilities"]))
    predictive = mcbn.Categorical("probabilities").summarize([probabilities])
    return mcbn.ShardScores.of(
        [(predictive, torch.from_numpy(np.array(batch["label"])))], shard=name
    )


def in_a_column(batch):
    return {"scores": [scored(batch)]}
