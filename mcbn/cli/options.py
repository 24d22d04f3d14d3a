"""Options of the verbs of the command line.

They are apart from the code of the verbs so that help, which is made of them, does not wait for
torch. The docstring of each class is the help of its verb: what it does, an example, the options.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# Metadata of options: names, of which a text may hold several with commas between them; where files
# are written, and what is in those of mcbn; and another option without which, or without whose
# value, this one has no effect.
NAMES: Mapping[str, Any] = {"commas": True}
FOLDER: Mapping[str, Any] = {"folder": True}
SCORES: Mapping[str, Any] = {"mark": '"scores": {'}
ONLY_MNIST: Mapping[str, Any] = {"only": ("data", "mnist")}
ONLY_MCBN: Mapping[str, Any] = {"only": ("method", "mcbn")}
ONLY_DROPOUT: Mapping[str, Any] = {"only": ("method", "dropout")}
ONLY_DRAWS_OUT: Mapping[str, Any] = {"only": ("draws_out", None)}


@dataclass(frozen=True)
class DemoOptions:
    """Train networks on real data, compare the methods, study batch sizes, and write a report.

    Example: mcbn demo --out demo

    Attributes:
        out: folder of report.html, report.json and the bank.
        data: digits (bundled with scikit-learn) or mnist (from the data root).
        root: data root; by default the environment variable MCBN_DATA, else ./data.
    """

    out: str = field(default="demo", metadata=FOLDER)
    data: Literal["digits", "mnist"] = "digits"
    root: str | None = field(default=None, metadata=ONLY_MNIST)


@dataclass(frozen=True)
class DoctorOptions:
    """Report what MCBN finds in a network and what is wrong; exit 1 if MCBN cannot be applied.

    Example: mcbn doctor --model nets.py:build --weights w.pt --data train.npz

    Attributes:
        model: module:function or file.py:function that builds the network; its code is run.
        weights: checkpoint of the network, .pt or .safetensors.
        data: .npz or .safetensors file with "inputs", of which 64 are drawn at random.
        batch_size: batch size M to estimate the noise for.
        json: print JSON instead of a table.
    """

    model: str
    weights: str | None = None
    data: str | None = None
    batch_size: int = 32
    json: bool = False


@dataclass(frozen=True)
class CollectOptions:
    """Collect a bank of batch-norm statistics from training data.

    Example: mcbn collect --model nets.py:build --weights w.pt --data train.npz --out bank.st

    Attributes:
        model: module:function or file.py:function that builds the network; its code is run.
        data: .npz or .safetensors file with "inputs", preprocessed as in training.
        out: file of the bank.
        weights: checkpoint of the network, .pt or .safetensors.
        batch_size: M, examples per mini-batch.
        draws: T, number of mini-batches.
        seed: seed of the mini-batches.
    """

    model: str
    data: str
    out: str
    weights: str | None = None
    batch_size: int = 32
    draws: int = 64
    seed: int = 0


@dataclass(frozen=True)
class PredictOptions:
    """Predict class probabilities or real values, with their uncertainty.

    Example: mcbn predict --model nets.py:build --weights w.pt --bank bank.st --data test.npz
    --out mcbn.csv

    Attributes:
        model: module:function or file.py:function that builds the network; its code is run.
        data: .npz or .safetensors file with "inputs" and, if known, "targets"; other arrays with
            one text or whole number per example are kept as groups, which can be scored apart.
        out: file of the predictions: .csv, .parquet or .npz, else safetensors.
        weights: checkpoint of the network, .pt or .safetensors.
        method: mcbn (needs a bank), dropout or deterministic.
        bank: file written by mcbn collect.
        draws: T of dropout; MCBN uses every draw of its bank.
        seed: seed of the dropout masks.
        batch_size: examples per pass.
        likelihood: categorical for classes, gaussian for real values.
        precision: tau of gaussian, the inverse of the noise variance; without it the network
            returns means and as many log-variances.
        keep_draws: keep every draw in --out (safetensors only); by default a regression keeps
            only its moments.
        draws_out: file of the raw outputs of every draw, written batch by batch.
        draws_type: type of the numbers in --draws-out, float32 or float16.
    """

    model: str
    data: str
    out: str
    weights: str | None = None
    method: Literal["mcbn", "dropout", "deterministic"] = "mcbn"
    bank: str | None = field(default=None, metadata=ONLY_MCBN)
    draws: int = field(default=64, metadata=ONLY_DROPOUT)
    seed: int = field(default=0, metadata=ONLY_DROPOUT)
    batch_size: int = 256
    likelihood: Literal["categorical", "gaussian"] = "categorical"
    precision: float | None = None
    keep_draws: bool = False
    draws_out: str | None = None
    draws_type: Literal["float32", "float16"] = field(default="float32", metadata=ONLY_DRAWS_OUT)


@dataclass(frozen=True)
class ExportOptions:
    """Write a network and its bank as one file that predicts without mcbn.

    Example: mcbn export --model nets.py:build --weights w.pt --bank bank.st --data example.npz
    --out net.onnx

    Attributes:
        model: module:function or file.py:function that builds the network; its code is run.
        data: .npz or .safetensors file with "inputs", of which only the shape of an example counts.
        bank: file written by mcbn collect.
        out: file to write, .onnx or .pt2.
        weights: checkpoint of the network, .pt or .safetensors.
        precision: tau of a regression network; without it the outputs are logits of classes.
        chunk: draws that go through the network together, to limit memory; by default all.
    """

    model: str
    data: str
    bank: str
    out: str
    weights: str | None = None
    precision: float | None = None
    chunk: int | None = None


@dataclass(frozen=True)
class EvaluateOptions:
    """Score predictions against their targets, with bootstrap intervals.

    Example: mcbn evaluate mcbn.st --out scores.json

    Attributes:
        predictions: file written by mcbn predict, or by another tool as .csv, .parquet or .npz.
        out: JSON file of the scores, which are printed in any case.
        resamples: bootstrap resamples behind each interval.
        by: column of groups, each of which is scored apart; may be given several times.
        target: column of the targets; by default "target", "label" or "y".
        probabilities: columns of the class probabilities, as 'col1,col2'; by default those that
            begin with "p_".
    """

    predictions: str
    out: str | None = field(default=None, metadata=SCORES)
    resamples: int = 1000
    by: list[str] | str | None = field(default=None, metadata=NAMES)
    target: str | None = None
    probabilities: list[str] | str | None = field(default=None, metadata=NAMES)


@dataclass(frozen=True)
class ReportOptions:
    """Write a calibration report of one or more methods on the same examples.

    Example: mcbn report plain.st mcbn.st --out report

    Attributes:
        predictions: files written by mcbn predict, or by other tools as .csv, .parquet or .npz;
            the first is the baseline.
        out: folder of report.html and report.json.
        outside: predictions of out-of-distribution inputs by the same methods; may be given several
            times.
        title: title of the page.
        resamples: bootstrap resamples behind each interval.
        by: column of groups in the first file, each of which is scored apart; may be given several
            times.
        images: .npz or .safetensors file whose "inputs" are the pictures that were predicted.
        held_out: predictions of held-out examples by the same methods, for conformal sets and
            intervals and for recalibration; never the test examples; may be given several times.
        recalibrate: show every method before and after recalibration by temperature,
            temperature-per-draw (of kept draws), vector or isotonic for classes, variance for
            real values.
        target: column of the targets; by default "target", "label" or "y".
        probabilities: columns of the class probabilities, as 'col1,col2'; by default those that
            begin with "p_".
    """

    predictions: list[str] | str
    out: str = field(default="report", metadata=FOLDER)
    outside: list[str] | str | None = None
    title: str = "Calibration report"
    resamples: int = 1000
    by: list[str] | str | None = field(default=None, metadata=NAMES)
    images: str | None = None
    held_out: list[str] | str | None = None
    recalibrate: (
        Literal["temperature", "temperature-per-draw", "vector", "isotonic", "variance"] | None
    ) = None
    target: str | None = None
    probabilities: list[str] | str | None = field(default=None, metadata=NAMES)


@dataclass(frozen=True)
class StudyReportOptions:
    """Write the report of a study, also while the study runs.

    Example: mcbn report digits

    Attributes:
        study: folder of the study.
        out: folder of report.html and report.json; by default that of the study.
    """

    study: str
    out: str | None = field(default=None, metadata=FOLDER)


@dataclass(frozen=True)
class StudyStatusOptions:
    """Show how many cells of a study are finished, failed and running.

    Example: mcbn study status digits

    Attributes:
        study: folder of the study.
    """

    study: str


@dataclass(frozen=True)
class StudyTableOptions:
    """Print the results of a study, one row per cell, also while the study runs.

    Example: mcbn study table digits --format md

    Attributes:
        study: folder of the study.
        format: csv or parquet with every score in full, or md with rounded scores to read.
        out: file to write instead of printing; required for parquet.
        cost: add the wall times of each cell, which differ between runs.
    """

    study: str
    format: Literal["csv", "parquet", "md"] = "csv"
    out: str | None = None
    cost: bool = False
