"""Options of the verbs of the command line.

They are apart from the code of the verbs so that help, which is made of them, does not wait for
torch. The docstring of each class is the help of its verb: what it does, an example, the options.
This is the one place where an option is declared; `mcbn.cli.declarations` says what metadata mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Metadata = Mapping[str, Any]

# A text may hold several names with commas between them.
NAMES: Metadata = {"commas": True}
# Files to read, and what they are.
MODEL: Metadata = {"role": "model", "noun": "builds the network"}
TASK: Metadata = {"role": "model", "noun": "returns the task"}
FIT: Metadata = {"role": "model", "noun": "trains the network"}
TRANSFORM: Metadata = {"role": "model", "noun": "makes a tensor of a picture"}
DATA: Metadata = {"role": "data", "noun": "a data file"}
SWEPT: Metadata = {"role": "data", "noun": "a task"}
PICTURES: Metadata = {"role": "input", "noun": "a data file"}
WEIGHTS: Metadata = {"role": "input", "noun": "a checkpoint"}
BANK: Metadata = {"role": "input", "noun": "a bank"}
PREDICTIONS: Metadata = {"role": "input", "noun": "a file of predictions", "named": True}
DECLARATION: Metadata = {"role": "input", "noun": "a study"}
STUDY: Metadata = {"role": "study"}
# Files to write: one, the pages of a report in a folder, or those of the demo in its own.
OUTPUT: Metadata = {"role": "output"}
REPORT: Metadata = {"role": "report"}
DEMO: Metadata = {"role": "demo"}
RESUMED: Metadata = {"role": "resumed"}
# Another option without which, or without whose value, this one has no effect.
ONLY_MNIST: Metadata = {"only": ("data", "mnist")}
ONLY_MCBN: Metadata = {"only": ("method", "mcbn")}
ONLY_DROPOUT: Metadata = {"only": ("method", "dropout")}
ONLY_DRAWS_OUT: Metadata = {"only": ("draws_out", None)}
ONLY_AUTO: Metadata = {"only": ("precision", "auto")}
ONLY_GAUSSIAN: Metadata = {"only": ("likelihood", "gaussian")}
# All options that the verb does not declare.
OTHERS: Metadata = {"others": True}


@dataclass(frozen=True)
class GeneralOptions:
    """Options of every verb.

    Attributes:
        quiet: print no notes and no progress, only errors and what a program reads.
        traceback: print where an error was raised.
    """

    quiet: bool = False
    traceback: bool = False


@dataclass(frozen=True)
class FileOptions:
    """Options of every verb whose options can be written to a file.

    Attributes:
        config: YAML file of these options; those of the command line replace them.
        print_config: print these options as such a file, and exit.
    """

    config: str | None = field(
        default=None, metadata={"role": "input", "noun": "a file of options"}
    )
    print_config: bool = False


@dataclass(frozen=True)
class ForceOptions:
    """Options of every verb that writes files.

    Attributes:
        force: replace files that are there already.
    """

    force: bool = False


@dataclass(frozen=True)
class DemoOptions:
    """Train networks on real data, compare the methods, study batch sizes, and write a report.

    Example: mcbn demo --out demo

    Attributes:
        out: folder of report.html, report.json and the bank.
        data: digits (bundled with scikit-learn) or mnist (from the data root).
        root: data root; by default the environment variable MCBN_DATA, else ./data.
    """

    out: str = field(default="demo", metadata=DEMO)
    data: Literal["digits", "mnist"] = "digits"
    root: str | None = field(default=None, metadata=ONLY_MNIST)


@dataclass(frozen=True)
class DoctorOptions:
    """Report what MCBN finds in a network and what is wrong; exit 1 if MCBN cannot be applied.

    Example: mcbn doctor --model nets.py:build --weights w.pt --data train.npz

    Attributes:
        model: torchvision:NAME, timm:NAME, or file.py:function or module:function that builds the
            network; its code is run.
        weights: checkpoint of the network, .pt or .safetensors; without it one of torchvision or
            timm has its published weights.
        key: entry of the checkpoint that holds the weights, if several fit.
        prefix: what the names in the checkpoint have before those of the network, if several fit.
        data: examples, of which 64 are drawn at random: a .npz or .safetensors file with "inputs",
            a .npy file of inputs, a table of numbers (.csv, .tsv or .parquet), a folder of pictures
            with a subfolder per class or without any, or file.py:function that returns a Dataset, a
            DataLoader, a Task or (inputs, targets).
        target: column of a table that is no input but a target, or several as 'col1,col2'.
        transform: file.py:function that makes a tensor of each picture of a folder, or returns
            what does; by default that of the published weights of --model.
        part: train, validation or test part of a Task, or of a folder of pictures with such
            subfolders.
        batch_size: batch size M to estimate the noise for.
        json: print JSON instead of text.
    """

    model: str = field(metadata=MODEL)
    weights: str | None = field(default=None, metadata=WEIGHTS)
    key: str | None = None
    prefix: str | None = None
    data: str | None = field(default=None, metadata=DATA)
    target: list[str] | str | None = field(default=None, metadata=NAMES)
    transform: str | None = field(default=None, metadata=TRANSFORM)
    part: Literal["train", "validation", "test"] = "train"
    batch_size: int = 32
    json: bool = False

    def check(self) -> None:
        """Check that the options are compatible with each other."""
        _require_checkpoint(self.weights, self.key, self.prefix)


@dataclass(frozen=True)
class CollectOptions:
    """Collect a bank of batch-norm statistics from training data.

    Example: mcbn collect --model nets.py:build --weights w.pt --data train.npz --out bank.st

    Attributes:
        model: torchvision:NAME, timm:NAME, or file.py:function or module:function that builds the
            network; its code is run.
        data: training examples, preprocessed as in training: a .npz or .safetensors file with
            "inputs", a .npy file of inputs, a table of numbers (.csv, .tsv or .parquet), a folder
            of pictures with a subfolder per class or without any, or file.py:function that returns
            a Dataset, a DataLoader, a Task or (inputs, targets).
        out: file of the bank.
        weights: checkpoint of the network, .pt or .safetensors; without it one of torchvision or
            timm has its published weights.
        key: entry of the checkpoint that holds the weights, if several fit.
        prefix: what the names in the checkpoint have before those of the network, if several fit.
        target: column of a table that is no input but a target, or several as 'col1,col2'.
        transform: file.py:function that makes a tensor of each picture of a folder, or returns
            what does; give that of training, random crops
            included; by default that of the published weights of --model.
        part: train, validation or test part of a Task, or of a folder of pictures with such
            subfolders.
        batch_size: M, examples per mini-batch.
        draws: T, number of mini-batches.
        seed: seed of the mini-batches.
        json: print JSON instead of text.
    """

    model: str = field(metadata=MODEL)
    data: str = field(metadata=DATA)
    out: str = field(metadata=OUTPUT)
    weights: str | None = field(default=None, metadata=WEIGHTS)
    key: str | None = None
    prefix: str | None = None
    target: list[str] | str | None = field(default=None, metadata=NAMES)
    transform: str | None = field(default=None, metadata=TRANSFORM)
    part: Literal["train", "validation", "test"] = "train"
    batch_size: int = 32
    draws: int = 64
    seed: int = 0
    json: bool = False

    def check(self) -> None:
        """Check that the options are compatible with each other."""
        _require_checkpoint(self.weights, self.key, self.prefix)


@dataclass(frozen=True)
class PredictOptions:
    """Predict class probabilities or real values, with their uncertainty.

    Example: mcbn predict --model nets.py:build --weights w.pt --bank bank.st --data test.npz
    --out mcbn.csv

    Attributes:
        model: torchvision:NAME, timm:NAME, or file.py:function or module:function that builds the
            network; its code is run.
        data: examples, with their targets if they are known: a .npz or .safetensors file with
            "inputs", a .npy file of inputs, a table of numbers (.csv, .tsv or .parquet), a folder
            of pictures with a subfolder per class or without any, or file.py:function that returns
            a Dataset, a DataLoader, a Task or (inputs, targets). Other arrays of a .npz file with
            one text or whole number per example are kept as groups, which can be scored apart.
        out: file of the predictions: .csv, .parquet or .npz, else safetensors.
        weights: checkpoint of the network, .pt or .safetensors; without it one of torchvision or
            timm has its published weights.
        key: entry of the checkpoint that holds the weights, if several fit.
        prefix: what the names in the checkpoint have before those of the network, if several fit.
        target: column of a table that is no input but a target, or several as 'col1,col2'.
        transform: file.py:function that makes a tensor of each picture of a folder, or returns
            what does; by default that of the published weights of --model.
        part: train, validation or test part of a Task, or of a folder of pictures with such
            subfolders.
        method: mcbn (needs a bank), dropout or deterministic.
        bank: file written by mcbn collect.
        draws: T of dropout; MCBN uses every draw of its bank.
        seed: seed of the dropout masks.
        batch_size: examples per pass.
        likelihood: categorical for classes, gaussian for real values.
        precision: tau of gaussian, the inverse of the noise variance, or auto to fit it on
            --held-out; without it the network returns means and as many values of their noise.
        held_out: examples with targets that the network was not trained on, to fit tau on, in any
            form of --data; never the test examples. The part of a Task is its validation part.
        noise: what the network returns beside the means without --precision: log-variance,
            variance or sd.
        keep_draws: keep every draw in --out (safetensors only); by default a regression keeps
            only its moments.
        draws_out: file of the raw outputs of every draw, written batch by batch.
        draws_type: type of the numbers in --draws-out, float32 or float16.
        json: print JSON instead of text.
    """

    model: str = field(metadata=MODEL)
    data: str = field(metadata=DATA)
    out: str = field(metadata=OUTPUT)
    weights: str | None = field(default=None, metadata=WEIGHTS)
    key: str | None = None
    prefix: str | None = None
    target: list[str] | str | None = field(default=None, metadata=NAMES)
    transform: str | None = field(default=None, metadata=TRANSFORM)
    part: Literal["train", "validation", "test"] = "test"
    method: Literal["mcbn", "dropout", "deterministic"] = "mcbn"
    bank: str | None = field(default=None, metadata={**BANK, **ONLY_MCBN})
    draws: int = field(default=64, metadata=ONLY_DROPOUT)
    seed: int = field(default=0, metadata=ONLY_DROPOUT)
    batch_size: int = 256
    likelihood: Literal["categorical", "gaussian"] = "categorical"
    precision: float | str | None = field(default=None, metadata={"words": ("auto",)})
    held_out: str | None = field(default=None, metadata={**DATA, **ONLY_AUTO})
    noise: Literal["log-variance", "variance", "sd"] = field(
        default="log-variance", metadata=ONLY_GAUSSIAN
    )
    keep_draws: bool = False
    draws_out: str | None = field(default=None, metadata=OUTPUT)
    draws_type: Literal["float32", "float16"] = field(default="float32", metadata=ONLY_DRAWS_OUT)
    json: bool = False

    def check(self) -> None:
        """Check that the options are compatible with each other."""
        _require_checkpoint(self.weights, self.key, self.prefix)
        if self.method == "mcbn" and self.bank is None:
            raise ValueError(
                "expected a bank for the method mcbn, got none; give --bank a file that mcbn "
                "collect wrote, or another --method"
            )
        self._require_noise()

    def _require_noise(self) -> None:
        """Check that the options of real targets are compatible with each other."""
        real = self.likelihood == "gaussian"
        if self.precision is not None and not real:
            raise ValueError(
                f"expected --precision with --likelihood gaussian only, got {self.precision} for "
                "classes; leave it out"
            )
        if isinstance(self.precision, float) and self.precision <= 0:
            raise ValueError(
                f"expected a positive precision tau, got {self.precision:g}; give --precision auto "
                "to fit it on --held-out examples"
            )
        if self.precision == "auto" and self.held_out is None:
            raise ValueError(
                "expected --held-out with --precision auto, got none; give examples with targets "
                "that the network was not trained on, other than those to predict"
            )
        if self.precision is not None and self.noise != "log-variance":
            raise ValueError(
                f"expected --noise {self.noise} of a network that returns its own noise, got "
                f"--precision {self.precision} as well; leave one of them out"
            )


@dataclass(frozen=True)
class ExportOptions:
    """Write a network and its bank as one file that predicts without mcbn.

    Example: mcbn export --model nets.py:build --weights w.pt --bank bank.st --data example.npz
    --out net.onnx

    Attributes:
        model: torchvision:NAME, timm:NAME, or file.py:function or module:function that builds the
            network; its code is run.
        data: examples, of which only the shape of one counts: a .npz or .safetensors file with
            "inputs", a .npy file of inputs, a table of numbers (.csv, .tsv or .parquet), a folder
            of pictures with a subfolder per class or without any, or file.py:function that returns
            a Dataset, a DataLoader, a Task or (inputs, targets).
        bank: file written by mcbn collect.
        out: file to write, .onnx or .pt2.
        weights: checkpoint of the network, .pt or .safetensors; without it one of torchvision or
            timm has its published weights.
        key: entry of the checkpoint that holds the weights, if several fit.
        prefix: what the names in the checkpoint have before those of the network, if several fit.
        target: column of a table that is no input but a target, or several as 'col1,col2'.
        transform: file.py:function that makes a tensor of each picture of a folder, or returns
            what does; by default that of the published weights of --model.
        part: train, validation or test part of a Task, or of a folder of pictures with such
            subfolders.
        precision: tau of a regression network; without it the outputs are logits of classes.
        chunk: draws that go through the network together, to limit memory; by default all.
        json: print JSON instead of text.
    """

    model: str = field(metadata=MODEL)
    data: str = field(metadata=DATA)
    bank: str = field(metadata=BANK)
    out: str = field(metadata=OUTPUT)
    weights: str | None = field(default=None, metadata=WEIGHTS)
    key: str | None = None
    prefix: str | None = None
    target: list[str] | str | None = field(default=None, metadata=NAMES)
    transform: str | None = field(default=None, metadata=TRANSFORM)
    part: Literal["train", "validation", "test"] = "test"
    precision: float | None = None
    chunk: int | None = None
    json: bool = False

    def check(self) -> None:
        """Check that the options are compatible with each other."""
        _require_checkpoint(self.weights, self.key, self.prefix)


@dataclass(frozen=True)
class EvaluateOptions:
    """Score predictions against their targets, with bootstrap intervals.

    Example: mcbn evaluate mcbn.st --out scores.json

    Attributes:
        predictions: file written by mcbn predict, or by another tool as .csv, .parquet or .npz;
            NAME=FILE names the method.
        out: JSON file of the scores, which are printed in any case.
        resamples: bootstrap resamples behind each interval.
        by: column of groups, each of which is scored apart; may be given several times.
        target: column of the targets; by default "target", "label" or "y".
        probabilities: columns of the class probabilities, as 'col1,col2'; by default those that
            begin with "p_".
        json: print JSON instead of text.
    """

    predictions: str = field(metadata=PREDICTIONS)
    out: str | None = field(default=None, metadata=OUTPUT)
    resamples: int = 1000
    by: list[str] | str | None = field(default=None, metadata=NAMES)
    target: str | None = None
    probabilities: list[str] | str | None = field(default=None, metadata=NAMES)
    json: bool = False


@dataclass(frozen=True)
class ReportOptions:
    """Write a calibration report of one or more methods on the same examples.

    Example: mcbn report plain.st mcbn.st --out report

    Attributes:
        predictions: files written by mcbn predict, or by other tools as .csv, .parquet or .npz;
            the first is the baseline, and NAME=FILE names a method.
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

    predictions: list[str] | str = field(metadata=PREDICTIONS)
    out: str = field(default="report", metadata=REPORT)
    outside: list[str] | str | None = field(default=None, metadata=PREDICTIONS)
    title: str = "Calibration report"
    resamples: int = 1000
    by: list[str] | str | None = field(default=None, metadata=NAMES)
    images: str | None = field(default=None, metadata=PICTURES)
    held_out: list[str] | str | None = field(default=None, metadata=PREDICTIONS)
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

    study: str = field(metadata=STUDY)
    out: str | None = field(default=None, metadata=REPORT)


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
    jobs: int | None = None
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
        model: torchvision:NAME, timm:NAME, or file.py:function or module:function that builds the
            network; its code is run.
        task: file.py:function or module:function that returns an mcbn.Task, or a folder of pictures
            with a subfolder per class, in folders train, validation and test or in one.
        out: folder of the results and the report; the same command resumes there.
        weights: checkpoint of the network, .pt or .safetensors; without it one of torchvision or
            timm has its published weights.
        key: entry of the checkpoint that holds the weights, if several fit.
        prefix: what the names in the checkpoint have before those of the network, if several fit.
        transform: file.py:function that makes a tensor of each picture of a folder, or returns what
            does; by default that of the published weights of --model.
        train_transform: the same for mini-batches of training pictures, random crops included; by
            default --transform.
        batch_sizes: M, with commas between.
        draws: T, number of mini-batches at each M.
        trained_at: the batch size of the training; by default the middle one of --batch-sizes.
        test_size: test examples used; all by default.
        seed: seed of the mini-batches.
        json: print JSON instead of text.
    """

    model: str = field(metadata=MODEL)
    task: str = field(metadata=SWEPT)
    out: str = field(metadata=RESUMED)
    weights: str | None = field(default=None, metadata=WEIGHTS)
    key: str | None = None
    prefix: str | None = None
    transform: str | None = field(default=None, metadata=TRANSFORM)
    train_transform: str | None = field(default=None, metadata=TRANSFORM)
    batch_sizes: list[str] = field(
        default_factory=lambda: ["8", "16", "32", "64", "128"], metadata=NAMES
    )
    draws: int = 64
    trained_at: int | None = None
    test_size: int | None = None
    seed: int = 0
    json: bool = False

    def check(self) -> None:
        """Check that the options are compatible with each other."""
        _require_checkpoint(self.weights, self.key, self.prefix)


@dataclass(frozen=True)
class CompletionOptions:
    """Print the script that completes verbs, options and their values in a shell.

    Example: mcbn completion bash >> ~/.bashrc

    Attributes:
        shell: bash, zsh or fish; the script of fish belongs into
            ~/.config/fish/completions/mcbn.fish.
    """

    shell: Literal["bash", "zsh", "fish"]


def _require_checkpoint(weights: str | None, key: str | None, prefix: str | None) -> None:
    """Check that there is a checkpoint where a part of one is chosen."""
    if weights is None and (key is not None or prefix is not None):
        raise ValueError(
            "expected --key and --prefix with --weights only, got no checkpoint; give one, or "
            "leave them out"
        )
