"""Options of the verbs for studies, and for the sweep of a trained network."""

import os
from dataclasses import dataclass, field
from typing import Literal

from mcbn.checks.codes import require_codes
from mcbn.cli.options.metadata import (
    DECLARATION,
    FIGURES,
    FIT,
    MODEL,
    NAMES,
    OTHERS,
    OUTPUT,
    POSITIVE,
    REPORT,
    RESUMED,
    STUDY,
    SWEPT,
    TASK,
    TRANSFORM,
    WHOLE,
)
from mcbn.cli.options.parts import NetworkOptions
from mcbn.cli.values import names_of
from mcbn.report.figure_formats import figure_formats


@dataclass(frozen=True)
class StudyReportOptions:
    """Write the report of a study, also while the study runs.

    Example: mcbn report digits

    Attributes:
        study: folder of the study.
        out: folder of report.html and report.json; by default that of the study.
        figures: formats of files of each figure, in the folder figures beside the page: pdf, svg or
            png, or several as 'pdf,png'.
        pdf: also print the page as report.pdf, by Chromium, Chrome or Edge.
        ignore: codes of checks that are left out, as 'MCBN004,MCBN007'; may be given several times.
        json: print JSON instead of text.
    """

    study: str = field(metadata=STUDY)
    out: str | None = field(default=None, metadata=REPORT)
    figures: list[str] | str | None = field(default=None, metadata=FIGURES)
    pdf: bool = False
    ignore: list[str] | str | None = field(default=None, metadata=NAMES)
    json: bool = False

    def check(self) -> None:
        """Check that there are such figures and checks."""
        figure_formats(names_of(self.figures))
        require_codes(names_of(self.ignore))


@dataclass(frozen=True)
class StudyCheckOptions:
    """Check a study, also while it runs, and exit with 1 if there is an issue.

    Example: mcbn check digits --ignore MCBN016

    Attributes:
        study: folder of the study.
        ignore: codes of checks that are left out, as 'MCBN004,MCBN007'; may be given several times.
        strict: exit with 1 if there is a tip as well.
        json: print JSON instead of text.
    """

    study: str = field(metadata=STUDY)
    ignore: list[str] | str | None = field(default=None, metadata=NAMES)
    strict: bool = False
    json: bool = False

    def check(self) -> None:
        """Check that there are such checks."""
        require_codes(names_of(self.ignore))


@dataclass(frozen=True)
class StudyStatusOptions:
    """Show how many cells of a study are finished, failed and running.

    Example: mcbn study status digits

    Attributes:
        study: folder of the study.
        json: print JSON instead of text.
    """

    study: str = field(metadata=STUDY)
    json: bool = False


@dataclass(frozen=True)
class StudyTableOptions:
    """Print the results of a study, one row per cell, also while the study runs.

    Example: mcbn study table digits --format md

    Attributes:
        study: folder of the study.
        format: csv or parquet with every score in full, or md with rounded scores to read.
        out: file to write instead of printing; required for parquet.
        cost: add the wall times of each cell, which differ between runs.
        json: print JSON instead of text.
    """

    study: str = field(metadata=STUDY)
    format: Literal["csv", "parquet", "md"] = "csv"
    out: str | None = field(default=None, metadata=OUTPUT)
    cost: bool = False
    json: bool = False


@dataclass(frozen=True)
class StudyRunOptions:
    """Train and score every cell of a study, in processes of this machine or on a cluster.

    Finished networks and cells are kept in the folder: however a run ends, the same command resumes
    it. Every key of the file can be given as an option as well, as in --training.epochs 5 or
    --seeds '[0, 1]'.

    Example: mcbn study run experiments/studies/digits.yaml --out digits --jobs 2

    Attributes:
        study: YAML file of the study.
        out: folder of the results; runs may share it.
        jobs: cells to run at once on this machine; by default as many as fill the cores.
        executor: processes, ray, ray://host:port, ray:auto or dask://host:port.
        shard: run only the i-th of n shares of the cells, as in an array of batch jobs, written
            i/n.
        retry: run failed networks and cells again.
        task: file.py:function or module:function that returns an mcbn.Task of your own data,
            instead of data.names; its code is run.
        model: file.py:function or module:function that builds the networks, instead of
            network.names; its code is run.
        fit: file.py:function or module:function that trains one, called as fit(model, task,
            batch_size=..., seed=...), instead of the built-in training; its code is run.
        print_config: print the resulting file of the study, and exit.
        keys: keys of the study, which replace those of the file.
        json: print JSON instead of text.
    """

    study: str = field(metadata=DECLARATION)
    out: str = field(metadata=RESUMED)
    jobs: int | None = field(default=None, metadata=POSITIVE)
    executor: str = "processes"
    shard: str | None = None
    retry: bool = False
    task: str | None = field(default=None, metadata=TASK)
    model: str | None = field(default=None, metadata=MODEL)
    fit: str | None = field(default=None, metadata=FIT)
    print_config: bool = False
    keys: list[str] = field(default_factory=list, metadata=OTHERS)
    json: bool = False


@dataclass(frozen=True)
class SweepOptions:
    """Compare a trained network's uncertainty over batch sizes, recommend one, and write a report.

    Nothing is trained. Finished results are kept in the folder: the same command resumes.

    Example: mcbn sweep --model nets.py:build --weights w.pt --task mine.py:task --out sweep

    Attributes:
        network: the network.
        task: file.py:function or module:function that returns an mcbn.Task, or a folder of pictures
            with a subfolder per class, in folders train, validation and test or in one.
        out: folder of the results and the report; the same command resumes there.
        transform: file.py:function that makes a tensor of each picture of a folder, or returns what
            does; by default that of the published weights of --model.
        train_transform: the same for mini-batches of training pictures, random crops included; by
            default --transform.
        group: regular expression in the names of the pictures of a folder, such as '^[^_]+' of
            those of a patient, who are then in one part only. Its first parentheses, or else all
            of it, is what pictures share.
        batch_sizes: M, with commas between.
        draws: T, number of mini-batches at each M.
        trained_at: the batch size of the training; by default the middle one of --batch-sizes.
        outputs: what the network returns for classes or labels: logits, or the probabilities of a
            softmax or a sigmoid; by default logits, or probabilities where they are seen to be.
        test_size: test examples used; all by default.
        seed: seed of the mini-batches.
        workers: processes that read the pictures of a folder.
        figures: formats of files of each figure, in the folder figures beside the page: pdf, svg or
            png, or several as 'pdf,png'.
        json: print JSON instead of text.
    """

    network: NetworkOptions
    task: str = field(metadata=SWEPT)
    out: str = field(metadata=RESUMED)
    transform: str | None = field(default=None, metadata=TRANSFORM)
    train_transform: str | None = field(default=None, metadata=TRANSFORM)
    group: str | None = None
    batch_sizes: list[str] = field(
        default_factory=lambda: ["8", "16", "32", "64", "128"], metadata=NAMES
    )
    draws: int = field(default=64, metadata=POSITIVE)
    trained_at: int | None = field(default=None, metadata=POSITIVE)
    outputs: Literal["logits", "probabilities"] | None = None
    test_size: int | None = field(default=None, metadata=POSITIVE)
    seed: int = field(default=0, metadata=WHOLE)
    workers: int = field(default=0, metadata=WHOLE)
    figures: list[str] | str | None = field(default=None, metadata=FIGURES)
    json: bool = False

    @property
    def sizes(self) -> list[int]:
        """The batch sizes as numbers.

        Raises:
            ValueError: one is not a whole number from 2.
        """
        texts = self.batch_sizes
        sizes = [int(text) for text in texts if text.isdigit() and int(text) > 1]
        if len(sizes) < len(texts):
            raise ValueError(
                f"expected whole numbers from 2 for --batch-sizes, got {','.join(texts)}; give "
                "such as 8,16,32"
            )
        return sizes

    def check(self) -> None:
        """Check that there are such figures and sizes, and a folder if pictures are read.

        Raises:
            ValueError: there are not.
        """
        figure_formats(names_of(self.figures))
        _ = self.sizes
        if (self.transform or self.train_transform or self.group) and not os.path.isdir(self.task):
            raise ValueError(
                "expected --transform and --group with a folder of pictures only, got "
                f"{self.task}; leave them out, and transform and split in the task"
            )
