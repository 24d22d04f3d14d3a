"""Options that several verbs have: their network, and how their examples are read."""

from dataclasses import dataclass, field
from typing import Literal

from mcbn.cli.options.metadata import MODEL, NAMES, TRANSFORM, WEIGHTS


@dataclass(frozen=True)
class NetworkOptions:
    """The network of a verb.

    Attributes:
        model: torchvision:NAME, timm:NAME, or file.py:function or module:function that builds the
            network; its code is run.
        weights: checkpoint of the network, .pt or .safetensors; without it one of torchvision or
            timm has its published weights.
        key: entry of the checkpoint that holds the weights, if several fit.
        prefix: what the names in the checkpoint have before those of the network, if several fit.
    """

    model: str = field(metadata=MODEL)
    weights: str | None = field(default=None, metadata=WEIGHTS)
    key: str | None = None
    prefix: str | None = None

    def check(self) -> None:
        """Check that there is a checkpoint where a part of one is chosen.

        Raises:
            ValueError: there is none.
        """
        if self.weights is None and (self.key is not None or self.prefix is not None):
            raise ValueError(
                "expected --key and --prefix with --weights only, got no checkpoint; give one, or "
                "leave them out"
            )


@dataclass(frozen=True)
class ReadingOptions:
    """How the examples of a verb are read.

    Attributes:
        target: column of a table that is no input but a target, or several as 'col1,col2'.
        transform: file.py:function that makes a tensor of each picture of a folder, or returns
            what does; for mini-batches that of training, random crops included. By default that of
            the published weights of --model.
        part: train, validation or test part of a Task, or of a folder of pictures with such
            subfolders; by default train, and test to predict, to
            export and to look for drift.
        group: regular expression in the names of the pictures of a folder, such as '^[^_]+' of
            those of a patient: they are never on both sides of a split, and are kept as the column
            "group". Its first parentheses, or else all of it, is what pictures share.
        workers: processes that read pictures, or the examples of a data set.
    """

    target: list[str] | str | None = field(default=None, metadata=NAMES)
    transform: str | None = field(default=None, metadata=TRANSFORM)
    part: Literal["train", "validation", "test"] | None = None
    group: str | None = None
    workers: int = 0

    def check(self) -> None:
        """Check that there is a number of processes.

        Raises:
            ValueError: it is negative.
        """
        if self.workers < 0:
            raise ValueError(
                f"expected --workers of at least 0, got {self.workers}; leave it out to read in "
                "the process of the command"
            )
