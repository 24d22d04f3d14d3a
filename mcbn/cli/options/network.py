"""Options of the verbs that run a network."""

import math
from dataclasses import dataclass, field
from typing import Literal

from mcbn.cli.options.metadata import (
    BANK,
    DATA,
    DEMO,
    EXAMPLES,
    ONLY_AUTO,
    ONLY_DRAWS_OUT,
    ONLY_DROPOUT,
    ONLY_GAUSSIAN,
    ONLY_MCBN,
    ONLY_ROOT,
    OUTPUT,
    POSITIVE,
    PRECISIONS,
    UNITS,
    WHOLE,
)
from mcbn.cli.options.parts import NetworkOptions, ReadingOptions
from mcbn.cli.values import REAL, names_of
from mcbn.deployment.formats import require_format
from mcbn.io.suffixes import is_table


@dataclass(frozen=True)
class DemoOptions:
    """Train networks on real data, compare the methods, study batch sizes, and write a report.

    Example: mcbn demo --out demo

    Attributes:
        out: folder of report.html, report.json and the bank.
        data: digits (bundled with scikit-learn), mnist or cifar10 (from the data root); for cifar10
            the published ResNet20 is loaded from there, and nothing is trained.
        root: data root; by default the environment variable MCBN_DATA, else ./data.
    """

    out: str = field(default="demo", metadata=DEMO)
    data: Literal["digits", "mnist", "cifar10"] = "digits"
    root: str | None = field(default=None, metadata=ONLY_ROOT)


@dataclass(frozen=True)
class DoctorOptions:
    """Report what MCBN finds in a network and what is wrong; exit 1 if MCBN cannot be applied.

    Example: mcbn doctor --model nets.py:build --weights w.pt --data train.npz

    Attributes:
        network: the network.
        data: examples, of which 64 are drawn at random.
        reading: how the data are read.
        batch_size: batch size M to estimate the noise for.
        json: print JSON instead of text.
    """

    network: NetworkOptions
    data: str | None = field(default=None, metadata=EXAMPLES)
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    batch_size: int = field(default=32, metadata=POSITIVE)
    json: bool = False

    def check(self) -> None:
        """Check that the options fit the data, if there are any."""
        if self.data is not None:
            self.reading.check_for(self.data)


@dataclass(frozen=True)
class CollectOptions:
    """Collect a bank of batch-norm statistics from training data.

    Example: mcbn collect --model nets.py:build --weights w.pt --data train.npz --out bank.st

    Attributes:
        network: the network.
        data: training examples, preprocessed as in training.
        out: file of the bank.
        reading: how the data are read.
        batch_size: M, examples per mini-batch.
        draws: T, number of mini-batches.
        seed: seed of the mini-batches.
        json: print JSON instead of text.
    """

    network: NetworkOptions
    data: str = field(metadata=EXAMPLES)
    out: str = field(metadata=OUTPUT)
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    batch_size: int = field(default=32, metadata=POSITIVE)
    draws: int = field(default=64, metadata=POSITIVE)
    seed: int = field(default=0, metadata=WHOLE)
    json: bool = False

    def check(self) -> None:
        """Check that the options fit the data."""
        self.reading.check_for(self.data)


@dataclass(frozen=True)
class PredictOptions:
    """Predict class probabilities or real values, with their uncertainty.

    Example: mcbn predict --model nets.py:build --weights w.pt --bank bank.st --data test.npz
    --out mcbn.csv

    Attributes:
        network: the network.
        data: examples, with their targets if they are known (other arrays of a .npz file, with
            one text or whole number per example, are kept as groups, which can be scored apart).
        out: file of the predictions: .csv, .parquet or .npz, else safetensors.
        reading: how the data are read.
        method: mcbn (needs a bank), dropout or deterministic.
        bank: file written by mcbn collect.
        draws: T of dropout; MCBN uses every draw of its bank.
        seed: seed of the dropout masks.
        batch_size: examples per pass.
        likelihood: categorical for classes, bernoulli for several labels an example (or one that
            is there or not), gaussian for real values.
        outputs: what the network returns for classes or labels: logits, or the probabilities of a
            softmax or a sigmoid; by default logits, or probabilities where they are seen to be.
        precision: tau of gaussian, the inverse of the noise variance, or auto to fit it on
            --held-out, output by output; without it the network returns means and as many values
            of their noise.
        held_out: examples with targets that the network was not trained on, to fit tau on, in any
            form of --data; never the test examples. The part of a Task is its validation part.
        noise: what the network returns beside the means without --precision: log-variance,
            variance or sd.
        ignore_index: target of positions or labels of which the truth is not known; by default
            that of a Task.
        units: of the real targets, such as MPa; of several targets as 'MPa,kg'.
        keep_draws: keep every draw in --out (safetensors only); by default a regression keeps
            only its moments.
        draws_out: file of the raw outputs of every draw, written batch by batch.
        draws_type: type of the numbers in --draws-out, float32 or float16.
        json: print JSON instead of text.
    """

    network: NetworkOptions
    data: str = field(metadata=EXAMPLES)
    out: str = field(metadata=OUTPUT)
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    method: Literal["mcbn", "dropout", "deterministic"] = "mcbn"
    bank: str | None = field(default=None, metadata={**BANK, **ONLY_MCBN})
    draws: int = field(default=64, metadata={**POSITIVE, **ONLY_DROPOUT})
    seed: int = field(default=0, metadata={**WHOLE, **ONLY_DROPOUT})
    batch_size: int = field(default=256, metadata=POSITIVE)
    likelihood: Literal["categorical", "bernoulli", "gaussian"] = "categorical"
    outputs: Literal["logits", "probabilities"] | None = None
    precision: float | str | None = field(default=None, metadata={"words": ("auto",)})
    held_out: str | None = field(default=None, metadata={**DATA, **ONLY_AUTO})
    noise: Literal["log-variance", "variance", "sd"] = field(
        default="log-variance", metadata=ONLY_GAUSSIAN
    )
    ignore_index: int | None = None
    units: list[str] | str | None = field(default=None, metadata={**UNITS, **ONLY_GAUSSIAN})
    keep_draws: bool = False
    draws_out: str | None = field(default=None, metadata=OUTPUT)
    draws_type: Literal["float32", "float16"] = field(default="float32", metadata=ONLY_DRAWS_OUT)
    json: bool = False

    def check(self) -> None:
        """Check that the options are compatible with each other."""
        if self.keep_draws and is_table(self.out):
            raise ValueError(
                f"expected a safetensors file in --out with --keep-draws, got {self.out}; name it "
                ".st, or write the draws to another file with --draws-out"
            )
        self.reading.check_for(self.data)
        if self.method == "mcbn" and self.bank is None:
            raise ValueError(
                "expected a bank for the method mcbn, got none; give --bank a file that mcbn "
                "collect wrote, or another --method"
            )
        self._require_noise()

    def _require_noise(self) -> None:
        """Check that the options of real targets are compatible with each other."""
        real = self.likelihood == "gaussian"
        if real and self.outputs is not None:
            raise ValueError(
                f"expected --outputs for classes or labels only, got {self.outputs} with "
                "--likelihood gaussian; leave it out"
            )
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
class DriftOptions:
    """Test whether data are drawn from what a bank was drawn from; exit 1 if there is drift.

    Example: mcbn drift --model nets.py:build --weights w.pt --bank bank.st --data today.npz

    Attributes:
        network: the network.
        data: new examples, preprocessed as those of the bank; they are cut into mini-batches at
            random.
        bank: file written by mcbn collect, of examples that are preprocessed as in production,
            without random crops and the like; better of held-out ones.
        reading: how the data are read.
        batch_size: examples per mini-batch; by default M of the bank, from which others are
            rescaled.
        alpha: level of the test, which is the chance of a false alarm.
        seed: seed of the cut.
        json: print JSON instead of text.
    """

    network: NetworkOptions
    data: str = field(metadata=EXAMPLES)
    bank: str = field(metadata=BANK)
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    batch_size: int | None = field(default=None, metadata=POSITIVE)
    alpha: float = 0.05
    seed: int = field(default=0, metadata=WHOLE)
    json: bool = False

    def check(self) -> None:
        """Check that the level is one, and that the options fit the data.

        Raises:
            ValueError: they do not.
        """
        self.reading.check_for(self.data)
        if not 0 < self.alpha < 1:
            raise ValueError(
                f"expected --alpha strictly between 0 and 1, got {self.alpha:g}; give the chance "
                "of a false alarm, such as 0.05"
            )


@dataclass(frozen=True)
class ExportOptions:
    """Write a network and its bank as one file that predicts without mcbn.

    Example: mcbn export --model nets.py:build --weights w.pt --bank bank.st --data example.npz
    --out net.onnx

    Attributes:
        network: the network.
        data: examples, of which only the shape of one counts.
        bank: file written by mcbn collect.
        out: file to write, .onnx or .pt2.
        reading: how the data are read.
        likelihood: categorical for classes, bernoulli for several labels an example, or gaussian
            for real targets; by default gaussian with --precision, else categorical.
        outputs: what the network returns, logits or probabilities; by default logits, or
            probabilities where they sum to 1 over classes.
        precision: tau of a regression network, or one of each output, as '4,25'; without it a
            network of gaussian returns log-variances beside its means.
        chunk: draws that go through the network together, to limit memory; by default all.
        json: print JSON instead of text.
    """

    network: NetworkOptions
    data: str = field(metadata=EXAMPLES)
    bank: str = field(metadata=BANK)
    out: str = field(metadata=OUTPUT)
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    likelihood: Literal["categorical", "bernoulli", "gaussian"] | None = None
    outputs: Literal["logits", "probabilities"] | None = None
    precision: list[str] | str | None = field(default=None, metadata=PRECISIONS)
    chunk: int | None = field(default=None, metadata=POSITIVE)
    json: bool = False

    def check(self) -> None:
        """Check that the options are compatible with each other, and that there is such a file."""
        self.reading.check_for(self.data)
        require_format(self.out)
        for text in names_of(self.precision):
            _require_precision(text)
        real = self.likelihood == "gaussian" or (self.likelihood is None and self.precision)
        if self.precision is not None and not real:
            raise ValueError(
                f"expected --precision with --likelihood gaussian only, got it for "
                f"{self.likelihood}; leave it out"
            )
        if self.outputs is not None and real:
            raise ValueError(
                f"expected --outputs for classes or labels only, got {self.outputs} with real "
                "targets; leave it out"
            )


def _require_precision(text: str) -> None:
    """Check that a text is a precision tau, which is a positive number."""
    if not (REAL.fullmatch(text) and 0 < float(text) < math.inf):
        raise ValueError(
            f"expected a positive number for --precision, got {text!r}; give one, or one of each "
            "output as '4,25'"
        )
