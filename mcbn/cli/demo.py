"""The demo: every step from real data to a report."""

import platform
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch.nn import Module

from mcbn.bank.collect import collect
from mcbn.bank.minibatches import minibatches
from mcbn.evaluation.compare import compare
from mcbn.evaluation.convergence import Convergence, convergence
from mcbn.predictive.predict import predict
from mcbn.report.report import Report
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.dropout import MCDropout
from mcbn.samplers.ensemble import DeepEnsemble
from mcbn.samplers.sampler import Sampler
from mcbn.study.cell_task import load_task
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes
from mcbn.study.results import Study
from mcbn.study.run import run_study
from mcbn.study.store import Store
from mcbn.study.worker import load_trained
from mcbn.tasks.datasets import Task
from mcbn.tasks.names import OUTSIDE

# A convergence curve needs at least so many draws.
MIN_DRAWS = 8


@dataclass(frozen=True)
class DemoSettings:
    """The size of the demo.

    Attributes:
        training_batch_sizes: mini-batch sizes of training; methods are compared at the middle one.
        batch_sizes: inference batch sizes M of MCBN.
        seeds: repetitions behind the error bands of the batch-size curves.
        members: networks of the deep ensemble.
        epochs: epochs of training.
        width: channels of the network.
        draws: T of MCBN and MC Dropout in the comparison.
        study_draws: T of both in the batch-size curves.
        resamples: bootstrap resamples behind each interval.
        train_size: training examples used; all if None.
        test_size: test examples used, evenly spaced; all if None.
        outside_size: examples used of each out-of-distribution set, evenly spaced; all if None.
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


SETTINGS: Mapping[str, DemoSettings] = {
    "digits": DemoSettings(),
    "mnist": DemoSettings(
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
    settings: DemoSettings | None = None,
    repeat: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Train networks on real data, compare the methods, study batch sizes, and write a report.

    Args:
        directory: folder of the report and the bank.
        data: "digits" (bundled with scikit-learn) or "mnist" (from the data root: the environment
            variable MCBN_DATA, else ./data).
        settings: size of the demo; by default that of the data set.
        repeat: the command that runs this demo again, for the report.
        say: function that takes each line of progress.

    Returns:
        The path of report.html.

    Raises:
        ValueError: the data set is unknown.
    """
    if data not in SETTINGS:
        raise ValueError(f"expected data of {sorted(SETTINGS)}, got {data!r}; choose one")
    settings = settings or SETTINGS[data]
    plan = _plan(data, settings)
    task = load_task(plan.cells()[0])
    _say_plan(plan, task, settings, say)
    study = run_study(plan, Path(directory) / "study")
    size = settings.training_batch_sizes[len(settings.training_batch_sizes) // 2]
    members = _members(plan, size, task, Path(directory) / "study")
    say(f"Collecting a bank of the network trained at {size}: {settings.draws} draws, M = {size}")
    samplers, notes = _samplers(members, task, size, settings, Path(directory))
    comparison = compare(
        samplers, task.test.inputs, task.test.targets, outside=task.outside, classes=task.classes,
        resamples=settings.resamples,
    )  # fmt: skip
    for name, entry in comparison.entries.items():
        scores = entry.evaluation
        say(f"  {name:<14} accuracy {scores['accuracy']}   NLL {scores['nll']}")
    _say_mutual_information(study, size, say)
    report = Report.from_comparison(
        comparison,
        title=f"mcbn demo: {task.name}",
        study=study,
        convergence={
            name: _convergence(sampler, task)
            for name, sampler in samplers.items()
            if len(sampler) >= MIN_DRAWS
        },
        provenance=_provenance(task, members[0], size, settings, repeat),
        notes=notes,
    )
    page = report.write(directory)
    say(f"Report: {page}")
    return page


def _plan(data: str, settings: DemoSettings) -> Plan:
    return Plan(
        title=f"mcbn demo: {data}",
        data=DataAxes(
            names=(data,),
            train_sizes=(settings.train_size,),
            test_size=settings.test_size,
            outside=OUTSIDE[data],
            outside_size=settings.outside_size,
        ),
        network=NetworkAxes(names=("convnet",), width=settings.width),
        training=TrainingAxes(settings.training_batch_sizes, epochs=settings.epochs),
        inference=InferenceAxes(
            settings.batch_sizes, draws=(settings.study_draws,), members=settings.members
        ),
        seeds=settings.seeds,
    )


def _members(plan: Plan, size: int, task: Task, folder: Path) -> list[Module]:
    """The networks of the ensemble of the first seed, trained at batch size `size`."""
    chosen = next(
        cell.networks
        for cell in plan.cells()
        if cell.method == "Deep ensemble" and cell.network.batch_size == size
    )
    return [load_trained(Store(folder), network, task) for network in chosen]


def _convergence(sampler: Sampler, task: Task) -> Convergence:
    draws = predict(sampler, task.test.inputs, keep_draws=True).draws
    return convergence(draws if draws is not None else torch.empty(0), task.test.targets)


def _samplers(
    members: list[Module], task: Task, size: int, settings: DemoSettings, directory: Path
) -> tuple[dict[str, Sampler], list[str]]:
    """The samplers to compare, the plain network first; and the warnings of making them."""
    model = members[0]
    batches = minibatches(task.train.dataset(), batch_size=size, draws=settings.draws)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bank = collect(model, batches)
    bank.save(directory / "bank.safetensors")
    samplers: dict[str, Sampler] = {
        "Deterministic": Deterministic(model),
        "MCBN": MCBatchNorm(model, bank),
        "MC Dropout": MCDropout(model, draws=settings.draws),
        "Deep ensemble": DeepEnsemble(members),
    }
    return samplers, [str(warning.message) for warning in caught]


def _say_plan(plan: Plan, task: Task, settings: DemoSettings, say: Callable[[str], None]) -> None:
    networks = {network for cell in plan.cells() for network in cell.networks}
    say(f"Data: {task.description}")
    say(
        f"Training {len(networks)} small networks on {len(task.train)} examples, at batch sizes "
        f"{_listed(settings.training_batch_sizes)}, and scoring each method, MCBN at inference "
        f"batch sizes {_listed(settings.batch_sizes)} ..."
    )


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
    settings: DemoSettings,
    repeat: str,
) -> dict[str, str]:
    packages = ("mcbn", "torch", "numpy", "scipy", "scikit-learn", "matplotlib")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "Data": task.description,
        "Training examples": str(len(task.train)),
        "Out-of-distribution sets": ", ".join(
            f"{name} ({len(inputs)})" for name, inputs in task.outside.items()
        ),
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
        **({"Repeat": repeat} if repeat else {}),
    }


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in sizes)
