"""The demo: every step from real data to a report."""

import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from torch.nn import Module

from mcbn.cli.demo_methods import Methods, methods_of, with_labels
from mcbn.cli.demo_settings import DIGITS, DIGITS_TASK, SETTINGS, DemoSettings
from mcbn.evaluation.compare import compare
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence, convergence_of_targets
from mcbn.report.report import Report
from mcbn.study.cell_task import load_task
from mcbn.study.plan import Plan
from mcbn.study.results import Study
from mcbn.study.run import run_study
from mcbn.study.store import Store
from mcbn.study.worker import load_trained
from mcbn.tasks.task import Task

__all__ = ["SETTINGS", "DemoSettings", "run_demo"]

# A convergence curve needs at least so many draws.
MIN_DRAWS = 8


def run_demo(
    directory: str | Path,
    *,
    data: str = DIGITS,
    settings: DemoSettings | None = None,
    repeat: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Train networks on real data, compare the methods, study batch sizes, and write a report.

    Args:
        directory: folder of the report and the bank.
        data: "digits" (bundled with scikit-learn), or "mnist" or "cifar10" (from the data root: the
            environment variable MCBN_DATA, else ./data). For cifar10 nothing is trained: the
            published ResNet20 is loaded from there.
        settings: size of the demo; by default that of the data set.
        repeat: the command that runs this demo again, for the report.
        say: function that takes each line of progress.

    Returns:
        The path of report.html.

    Raises:
        FileNotFoundError: the data set or the published weights are not under the data root.
        ValueError: the data set is unknown.
    """
    if data not in SETTINGS:
        raise ValueError(f"expected data of {sorted(SETTINGS)}, got {data!r}; choose one")
    settings = settings or SETTINGS[data]
    folder = Path(directory) / "study"
    say(_started(data, settings))
    own = DIGITS_TASK if data == DIGITS else None
    study = run_study(settings.plan(data), folder, task=own)
    task = with_labels(load_task(study.plan.cells()[0]), settings)
    say(f"Data: {task.description}")
    networks = _networks(study.plan, settings, task, folder)
    say(f"Making the methods: {settings.draws} draws, {settings.labels} labels to choose and fit")
    methods = methods_of(networks, task, settings)
    methods.bank.save(Path(directory) / "bank.safetensors")
    say(f"  the labels choose M = {methods.batch_size} and T = {methods.temperature:.2f}")
    say(f"Comparing {len(methods.samplers)} methods on {len(task.test):,} test examples:")
    comparison = compare(
        methods.samplers, task.test.inputs, task.test.targets, outside=task.outside,
        classes=task.classes, resamples=settings.resamples,
    )  # fmt: skip
    _say_scores(comparison, say)
    _say_mutual_information(study, settings.batch_size, say)
    report = Report.from_comparison(
        comparison,
        title=f"mcbn demo: {task.name}",
        study=study,
        convergence=_convergence(comparison),
        provenance=_provenance(task, networks[0], methods, settings, repeat),
        notes=methods.warnings,
    )
    page = report.write(directory)
    say(report.headline)
    for claim in report.verdict:
        if claim.status != "passed":
            say(f"  {claim.code} {claim.topic}: {claim.sentence}")
    say(f"Report: {page}")
    return page


def _started(data: str, settings: DemoSettings) -> str:
    sizes = f"MCBN at inference batch sizes {_listed(settings.batch_sizes)}"
    if settings.published:
        return f"Scoring {settings.architecture} on {data}, {sizes} ..."
    networks = {each for cell in settings.plan(data).cells() for each in cell.networks}
    return (
        f"Training {len(networks)} small networks on {data}, at batch sizes "
        f"{_listed(settings.training_batch_sizes)}, and scoring each method, {sizes} ..."
    )


def _networks(plan: Plan, settings: DemoSettings, task: Task, folder: Path) -> list[Module]:
    """Those of the ensemble of the first seed, trained at the batch size that is compared."""
    method = "Deterministic" if settings.published else "Deep ensemble"
    chosen = next(
        cell.networks
        for cell in plan.cells()
        if cell.method == method and cell.network.batch_size == settings.batch_size
    )
    return [load_trained(Store(folder), network, task) for network in chosen]


def _convergence(comparison: Comparison) -> dict[str, Convergence]:
    """The curve of every method with enough draws."""
    known = {name: each.target_logs for name, each in comparison.entries.items()}
    return {
        name: convergence_of_targets(logs)
        for name, logs in known.items()
        if logs is not None and len(logs) >= MIN_DRAWS
    }


def _say_scores(comparison: Comparison, say: Callable[[str], None]) -> None:
    width = max(map(len, comparison.entries))
    for name, entry in comparison.entries.items():
        scores = entry.evaluation
        say(f"  {name:<{width}}  accuracy {scores['accuracy']}   NLL {scores['nll']}")


def _say_mutual_information(study: Study, size: int, say: Callable[[str], None]) -> None:
    say(f"Mean mutual information of MCBN (trained at {size}), in nats:")
    for batch_size in study.batch_sizes:
        point = study.point(
            "mutual_information", "MCBN", training_batch_size=size, batch_size=batch_size
        )
        say(f"  M = {batch_size:<4d} {point.mean:.5f}")


def _provenance(
    task: Task, model: Module, methods: Methods, settings: DemoSettings, repeat: str
) -> dict[str, str]:
    packages = ("mcbn", "torch", "numpy", "scipy", "scikit-learn", "matplotlib")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = settings.batch_size
    trained = (
        f"published weights, which were trained at batch size {size}"
        if settings.published
        else f"batch size {size}, {settings.epochs} epochs"
    )
    return {
        "Data": task.description,
        "Training examples": str(len(task.train)),
        "Labels": f"{len(task.validation)} held-out examples chose M = {methods.batch_size}, at "
        f"which draws were then collected, and fitted the temperature {methods.temperature:.3g}",
        "Out-of-distribution sets": ", ".join(
            f"{name} ({len(inputs)})" for name, inputs in task.outside.items()
        ),
        "Network": f"{settings.architecture} with batch norm, {parameters:,} parameters",
        "Training": trained,
        "Mini-batches of MCBN": "without replacement, from the training examples",
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
