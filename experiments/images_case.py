"""The published CIFAR-10 network and images, the banks and passes made so far, and how to score."""

import tarfile
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import Record
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset, default_collate

import mcbn
from mcbn import CategoricalPredictive as Predictive
from mcbn import bootstrap, calibration, detection, scores
from mcbn.catalogue import BETTER
from mcbn.data import CropAndFlip, Labelled, cifar10_images, data_root, normalise_cifar10, read_idx
from mcbn.evaluation import MIRRORED, NONE
from mcbn.files import read_tensors, write_tensors
from mcbn.networks import load_resnet20

SEED = 0  # of mini-batches, posteriors and resamples
LEVEL = 0.95  # of intervals
BORDER = 4  # pixels by which the crops of training move
RIGHT = "black border"  # random crop and flip as in training
WRONG = ("unaugmented", "flipped", "mean border", "mirrored border")
SCORES = ("accuracy", "nll", "ece", "ece_debiased")
DOUBTS = ("entropy", "mutual_information", "maximum probability")


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        images: of the lossless test set.
        draws: T of the bank at each inference batch size M.
        few: T of variants, and of images from elsewhere.
        shifted: test images that are also taken as JPEG.
        outside: images of each set from elsewhere.
        resamples: bootstrap resamples of the images.
    """

    images: int
    draws: dict[int, int]
    few: int
    shifted: int
    outside: int
    resamples: int


@dataclass(frozen=True)
class Case:
    """The network and the images; banks and passes are kept, so that a run can be resumed.

    Attributes:
        record: that they are kept beside.
        scale: how much is measured.
        network: the published ResNet20.
        train: training images as bytes.
        inputs: test images, normalised.
        targets: their classes.
    """

    record: Record
    scale: Scale
    network: nn.Module
    train: Labelled
    inputs: Tensor
    targets: Tensor

    def bank(self, size: int, source: str = RIGHT) -> mcbn.Bank:
        """The bank at M = `size` of images that went through `source`, see `prepared`."""
        path = self._path(f"{source} {size}")
        if not path.is_file():
            right = source == RIGHT
            batches = mcbn.minibatches(
                CropAndFlip(self.train) if right else TensorDataset(self.train.inputs),
                batch_size=size,
                draws=self.scale.draws[size] if right else 2 * self.scale.few,
                seed=SEED,
                collate=default_collate if right else partial(prepared, source=source),
            )
            with warnings.catch_warnings():
                # Some mini-batches are meant to disagree; the excess is in the result.
                warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
                mcbn.collect(self.network, batches).save(path)
        return mcbn.Bank.load(path)

    def passes(self, name: str, bank: mcbn.Bank, inputs: Tensor | None = None) -> Tensor:
        """Logits of every draw of the bank, for the test images where no others are given."""
        path = self._path(f"passes {name}")
        if not path.is_file():
            sampler = mcbn.MCBatchNorm(self.network, bank)
            chosen = self.inputs if inputs is None else inputs
            found = mcbn.predict(sampler, chosen, keep_draws=True)
            write_tensors(path, {"draws": found.draws}, kind="passes", header={})
        return read_tensors(path, kind="passes")[0]["draws"]

    def scored(self, found: Predictive, *, resamples: int | None = None) -> mcbn.Evaluation:
        """The scores that are told, of the first test images, as many as were predicted.

        The rest of what `mcbn.evaluate` finds would cost fifty times as long to resample.
        """
        targets = self.targets[: len(found)]
        columns = {
            "nll": scores.negative_log_likelihood(found.log_probabilities, targets),
            "correct": scores.correct(found.probabilities, targets),
            "confidence": found.confidence,
        }
        resamples = self.scale.resamples if resamples is None else resamples
        resampled = bootstrap.replicates(
            [columns], told, resamples=resamples, seed=SEED, progress=False
        )
        return mcbn.Evaluation(
            {
                name: score_of(name, value, resampled.get(name, NONE))
                for name, value in told(columns).items()
            },
            examples=len(targets),
            draw_count=found.draw_count,
            level=LEVEL,
            seed=SEED,
        )

    def forget(self) -> None:
        """Remove what was kept."""
        for path in self._path("").parent.glob(f"{self.record.name}-*.safetensors"):
            path.unlink()

    def _path(self, name: str) -> Path:
        folder = self.record.folder / "parts"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.record.name}-{name.replace(' ', '-')}.safetensors"


def load(record: Record, scale: Scale) -> Case:
    """The published network and the first lossless test images."""
    train, test = cifar10_images()
    network = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    test = test.rows(torch.arange(scale.images))
    return Case(record, scale, network, train, normalise_cifar10(test.inputs), test.targets)


def prepared(examples: list[tuple[Tensor]], *, source: str) -> Tensor:
    """A mini-batch of images that were not prepared as in training, in one of these ways.

    "unaugmented" as they are, "flipped" at random, or flipped and cropped with a border of the
    mean colour ("mean border") or of the image's own mirror image ("mirrored border").
    """
    images = normalise_cifar10(torch.stack([image for (image,) in examples]))
    if source == "unaugmented":
        return images
    flip, top, left = (
        torch.randint(n, (len(images),)) for n in (2, 2 * BORDER + 1, 2 * BORDER + 1)
    )
    images = torch.where(flip.bool()[:, None, None, None], images.flip(3), images)
    if source == "flipped":
        return images
    # Zero after the normalisation is the mean colour.
    mode = "constant" if source == "mean border" else "reflect"
    padded = functional.pad(images, (BORDER,) * 4, mode=mode)
    return torch.stack([image[:, y : y + 32, x : x + 32]
                        for image, y, x in zip(padded, top, left, strict=True)])  # fmt: skip


def elsewhere(case: Case) -> dict[str, Tensor]:
    """The first test images after JPEG, and grey letters and clothes enlarged to 32x32."""
    root, scale = data_root(), case.scale
    with tarfile.open(root / "cifar10" / "test_jpeg.tar.xz") as archive:
        found = [np.array(Image.open(archive.extractfile(f"{i:05d}.jpg")).convert("RGB"))
                 for i in range(scale.shifted)]  # fmt: skip
    sets = {"JPEG": torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)}
    for name, folder in (("notMNIST", "notmnist"), ("Fashion-MNIST", "fashion_mnist")):
        grey = read_idx(root / folder / "t10k-images-idx3-ubyte.gz")[: scale.outside, None].float()
        larger = functional.interpolate(grey, (32, 32), mode="bilinear")
        sets[name] = larger.round().to(torch.uint8).expand(-1, 3, -1, -1)
    return {name: normalise_cifar10(images) for name, images in sets.items()}


def averaged(draws: Tensor) -> Predictive:
    """The predictive of some draws of logits."""
    return mcbn.Categorical().summarise(draws.unbind(0))


def told(columns: bootstrap.Columns) -> dict[str, float]:
    """The scores that are told."""
    confidence, correct = columns["confidence"], columns["correct"]
    return {
        "accuracy": float(correct.double().mean()),
        "nll": float(columns["nll"].mean()),
        "ece": calibration.expected_calibration_error(confidence, correct),
        "ece_debiased": calibration.debiased_calibration_error(confidence, correct),
    }


def score_of(name: str, value: float, resampled: Tensor) -> mcbn.Score:
    """A score with its interval, as `mcbn.evaluate` forms it."""
    if name in MIRRORED:
        ends = [max(end, 0.0) for end in bootstrap.mirrored_interval(value, resampled, LEVEL)]
    else:
        ends = bootstrap.percentile_interval(resampled, LEVEL)
    return mcbn.Score(value, *ends, BETTER[name], resampled)


def row(found: mcbn.Evaluation) -> dict[str, list[float]]:
    """The scores that are told, each with its interval."""
    return {name: interval(found[name]) for name in SCORES}


def interval(score: mcbn.Score) -> list[float]:
    """Value and interval."""
    return [score.value, score.low, score.high]


def gap(one: mcbn.Evaluation, other: mcbn.Evaluation, name: str = "nll") -> list[float]:
    """Paired difference of a score with its interval."""
    return interval(one.minus(other)[name])


def mean_interval(case: Case, values: Tensor) -> list[float]:
    """Mean over images with its bootstrap interval."""
    found = bootstrap.replicates(
        [{"values": values}], lambda rows: {"mean": float(rows["values"].mean())},
        resamples=case.scale.resamples, seed=SEED, progress=False,
    )  # fmt: skip
    return [float(values.mean()), *bootstrap.percentile_interval(found["mean"], LEVEL)]


def first(found: Predictive, count: int) -> Predictive:
    """The predictive of the first images alone."""
    names = ("log_probabilities", "expected_entropy", "variance", "variation_ratio")
    return replace(found, **{name: getattr(found, name)[:count] for name in names})


def against_plain(
    case: Case, pairs: dict[str, tuple[Predictive, Predictive]]
) -> dict[str, dict[str, Any]]:
    """AUROC of each uncertainty of each method, and less the plain network's by its entropy.

    Pairs are predictives of images from inside and from outside; the plain network's come first.
    """
    rows: dict[str, dict[str, Any]] = {}
    base = None
    for name, (inside, outside) in pairs.items():
        rows[name] = {}
        for doubt in DOUBTS:
            value, resampled = auroc(case, inside, outside, doubt)
            base = base or (value, resampled)
            if name == "plain" and doubt == "mutual_information":
                continue  # a single draw has none
            ends = bootstrap.percentile_interval(resampled, LEVEL)
            gaps = bootstrap.percentile_interval(resampled - base[1], LEVEL)
            rows[name][doubt] = [value, *ends]
            rows[name][f"{doubt}, minus plain entropy"] = [value - base[0], *gaps]
    return rows


def auroc(case: Case, inside: Predictive, outside: Predictive, doubt: str) -> tuple[float, Tensor]:
    """AUROC and its bootstrap replicates, the same images resampled for every method."""
    resamples = case.scale.resamples
    if doubt != "maximum probability":
        found = mcbn.out_of_distribution(
            inside, outside, uncertainty=doubt, resamples=resamples, seed=SEED
        )["auroc_out_of_distribution"]
        return found.value, found.replicates

    def measure(rows: bootstrap.Columns) -> dict[str, float]:
        found = detection.out_of_distribution(rows["inside"], rows["outside"])
        return {"auroc": found.auroc}

    # Surprise, not one minus confidence, which is rounded to 0 where the network is sure.
    groups = [{"inside": -inside.log_probabilities.amax(1)},
              {"outside": -outside.log_probabilities.amax(1)}]  # fmt: skip
    found = bootstrap.replicates(groups, measure, resamples=resamples, seed=SEED, progress=False)
    return measure({**groups[0], **groups[1]})["auroc"], found["auroc"]
