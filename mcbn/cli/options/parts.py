"""Options that several verbs have: their network, and how their examples are read."""

import os
from dataclasses import dataclass, field
from typing import Literal

from mcbn.cli.options.metadata import MODEL, NAMES, TRANSFORM, WEIGHTS, WHOLE
from mcbn.cli.values import names_of
from mcbn.io.suffixes import has_columns


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
    workers: int = field(default=0, metadata=WHOLE)

    def check_for(self, path: str) -> None:
        """Check that how data are read fits the form in which they are given.

        Args:
            path: of the data.

        Raises:
            ValueError: the options are of pictures, or of a table, and the data are not.
        """
        pictures = os.path.isdir(path)
        if self.transform is not None and not pictures:
            raise ValueError(
                f"expected --transform with a folder of pictures only, got {path}; leave it out, "
                "and preprocess the data"
            )
        if self.group is not None and not pictures:
            raise ValueError(
                f"expected --group with a folder of pictures only, got {path}; leave it out: "
                "arrays and columns of texts or whole numbers are kept as groups"
            )
        if names_of(self.target) and not has_columns(path):
            raise ValueError(
                f"expected --target with a table (.csv, .tsv or .parquet) only, got {path}; leave "
                "it out, since other data say which their targets are"
            )
