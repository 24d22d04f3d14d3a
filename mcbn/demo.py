"""The demo: real data to a report, every step of the pipeline in order."""

import platform
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.collection import collect
from mcbn.comparison import compare
from mcbn.consistency import InconsistentBankWarning
from mcbn.convergence import Convergence, convergence
from mcbn.data import Task, digits, mnist
from mcbn.minibatches import minibatches
from mcbn.networks import convnet
from mcbn.predictive import Sampler, predict
from mcbn.report import Report
from mcbn.samplers import DeepEnsemble, Deterministic, MCBatchNorm, MCDropout
from mcbn.study import Study, study_batch_sizes, train_networks

# Fewer draws than this have no curve against their number.
FEWEST_DRAWS = 8


@dataclass(frozen=True)
class Settings:
    """How much the demo does.

    Attributes:
        training_batch_sizes: networks are trained at each; the middle one is looked at closely.
        batch_sizes: inference batch sizes M of MCBN.
        seeds: repetitions behind the error bands of the batch-size curves.
        members: networks in the deep ensemble.
        epochs: of training.
        width: channels of the network.
        draws: T of MCBN and MC Dropout in the close look.
        study_draws: T of both in the batch-size curves.
        resamples: bootstrap resamples behind each interval.
        train_size: training examples used; all if None.
        test_size: test examples used, evenly spaced; all if None.
        outside_size: examples of each out-of-distribution set used, evenly spaced; all if None.
    """

    training_batch_sizes: tuple[int, ...] = (32, 64, 256)
    batch_sizes: tuple[int, ...] = (4, 16, 64, 256, 512)
    seeds: tuple[int, ...] = (0, 1, 2)
    members: int = 3
    epochs: int = 15
    width: int = 16
    draws: int = 64
    study_draws: int = 32
    resamples: int = 400
    train_size: int | None = None
    test_size: int | None = None
    outside_size: int | None = None


SETTINGS: Mapping[str, Settings] = {
    "digits": Settings(),
    "mnist": Settings(
        training_batch_sizes=(32, 128),
        batch_sizes=(8, 32, 128, 512),
        seeds=(0, 1),
        epochs=3,
        draws=32,
        study_draws=16,
        resamples=200,
        train_size=5_000,
        test_size=1_000,
        outside_size=500,
    ),
}


def run_demo(
    directory: str | Path,
    *,
    data: str = "digits",
    root: str | Path | None = None,
    settings: Settings | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Train networks on real data, wrap them, compare, study batch sizes, write the report.

    Args:
        directory: where the report and the bank go.
        data: "digits" (bundled with scikit-learn) or "mnist" (from the data root).
        root: the data root; else the environment's MCBN_DATA, else ./data.
        settings: how much to do; made for the data set if not given.
        say: takes each line of progress.

    Returns:
        The path of report.html.

    Raises:
        ValueError: another data set.
    """
    if data not in SETTINGS:
        raise ValueError(f"expected data of {sorted(SETTINGS)}, got {data!r}; choose one")
    settings = settings or SETTINGS[data]
    task = digits() if data == "digits" else mnist(root, train_size=settings.train_size)
    task = _thinned(task, settings)
    say(f"Data: {task.description}")
    builder = partial(convnet, 1, len(task.classes), width=settings.width)
    count = len(settings.training_batch_sizes) * len(settings.seeds) * settings.members
    say(
        f"Training {count} small networks on {len(task.train)} examples, at batch sizes "
        f"{_listed(settings.training_batch_sizes)} ..."
    )
    networks = train_networks(
        task,
        builder,
        batch_sizes=settings.training_batch_sizes,
        seeds=settings.seeds,
        members=settings.members,
        epochs=settings.epochs,
    )
    size = settings.training_batch_sizes[len(settings.training_batch_sizes) // 2]
    members = networks[size, settings.seeds[0]]
    say(f"Wrapping the network trained at batch size {size}: {settings.draws} draws, M = {size}")
    samplers, notes = _wrapped(members, task, size, settings, Path(directory))
    comparison = compare(
        samplers,
        task.test.inputs,
        task.test.targets,
        outside=task.outside,
        classes=task.classes,
        resamples=settings.resamples,
    )
    for name, entry in comparison.entries.items():
        scores = entry.evaluation
        say(f"  {name:<14} accuracy {scores['accuracy']}   NLL {scores['nll']}")
    say(f"Studying MCBN at inference batch sizes {_listed(settings.batch_sizes)} ...")
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", InconsistentBankWarning)
        study = study_batch_sizes(
            task, networks, batch_sizes=settings.batch_sizes, draws=settings.study_draws
        )
    if raised:
        notes.append(
            f"{len(raised)} banks of the batch-size study disagreed with the running statistics "
            f"of their network. The first: {raised[0].message}"
        )
    _say_mutual_information(study, size, say)
    report = Report(
        title=f"mcbn demo: {task.name}",
        comparison=comparison,
        study=study,
        convergence={
            name: _convergence(sampler, task)
            for name, sampler in samplers.items()
            if len(sampler) >= FEWEST_DRAWS
        },
        provenance=_provenance(task, members[0], size, settings, data),
        notes=tuple(notes),
    )
    page = report.write(directory)
    say(f"Report: {page}")
    return page


def _thinned(task: Task, settings: Settings) -> Task:
    """Fewer test and outside examples, evenly spaced since some files are sorted by class."""
    test = _spaced(len(task.test), settings.test_size)
    outside = {
        name: values[_spaced(len(values), settings.outside_size)]
        for name, values in task.outside.items()
    }
    return replace(task, test=task.test.rows(test), outside=outside)


def _spaced(count: int, wanted: int | None) -> Tensor:
    return torch.linspace(0, count - 1, min(wanted or count, count)).round().long()


def _convergence(sampler: Sampler, task: Task) -> Convergence:
    draws = predict(sampler, task.test.inputs, keep_draws=True).draws
    return convergence(draws if draws is not None else torch.empty(0), task.test.targets)


def _wrapped(
    members: list[Module], task: Task, size: int, settings: Settings, directory: Path
) -> tuple[dict[str, Sampler], list[str]]:
    """The methods compared, the plain network first; and what was noticed on the way."""
    model = members[0]
    batches = minibatches(task.train.dataset(), batch_size=size, draws=settings.draws)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        bank = collect(model, batches)
    bank.save(directory / "bank.safetensors")
    samplers: dict[str, Sampler] = {
        "Deterministic": Deterministic(model),
        "MCBN": MCBatchNorm(model, bank),
        "MC Dropout": MCDropout(model, draws=settings.draws),
        "Deep ensemble": DeepEnsemble(members),
    }
    return samplers, [str(each.message) for each in raised]


def _say_mutual_information(study: Study, size: int, say: Callable[[str], None]) -> None:
    say(f"  mean mutual information of MCBN (trained at {size}), in nats:")
    for batch_size in study.batch_sizes:
        point = study.point(
            "mutual_information", "MCBN", training_batch_size=size, batch_size=batch_size
        )
        say(f"    M = {batch_size:<4d} {point.mean:.5f}")


def _provenance(
    task: Task,
    model: Module,
    size: int,
    settings: Settings,
    data: str,
) -> dict[str, str]:
    packages = ("mcbn", "torch", "numpy", "scipy", "scikit-learn", "matplotlib")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "Data": task.description,
        "Training examples": str(len(task.train)),
        "Outside sets": ", ".join(f"{k} ({len(v)})" for k, v in task.outside.items()),
        "Network": f"small convolutional network, batch norm and dropout, {parameters} parameters",
        "Training": f"batch size {size}, {settings.epochs} epochs",
        "Mini-batches of MCBN": f"M = {size}, without replacement, from the training examples",
        "Batch-size study": (
            f"training at {_listed(settings.training_batch_sizes)}, inference at "
            f"{_listed(settings.batch_sizes)}, T = {settings.study_draws}, "
            f"{len(settings.seeds)} seeds"
        ),
        "Versions": ", ".join(f"{name} {version(name)}" for name in packages)
        + f", Python {sys.version.split()[0]}, {platform.machine()}",
        "Repeat": f"mcbn demo --data {data}",
    }


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in sizes)
