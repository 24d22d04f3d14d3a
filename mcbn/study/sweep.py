"""A sweep of one trained network over batch sizes: a study without training."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.dropout import _DropoutNd

from mcbn import validation
from mcbn.bank.bank import Bank
from mcbn.evaluation.clusters import Clusters, Groups, names_of_groups
from mcbn.io.atomic import write_whole
from mcbn.io.plain import to_json
from mcbn.network.batchnorm import unwrapped
from mcbn.network.isolation import random_streams
from mcbn.predictive.bernoulli import Bernoulli
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.gaussian import Gaussian, fit_precision
from mcbn.predictive.likelihood import as_likelihood
from mcbn.predictive.predict import predict
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.sampler import Sampler
from mcbn.study.batch_size import choose_batch_size
from mcbn.study.cell_sampler import LARGER_BATCH, collected, training_batches
from mcbn.study.executors import ThisProcess
from mcbn.study.given import TRAINED, Given
from mcbn.study.measurement import ClassLikelihood, usual_likelihood
from mcbn.study.names import Method
from mcbn.study.own_code import Here, held_here
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes
from mcbn.study.results import Study
from mcbn.study.run import run_study
from mcbn.study.store import Store
from mcbn.tasks.digests import digest_of
from mcbn.tasks.examples import count_of
from mcbn.tasks.task import Task

# Of the recommendation: sizes that the search scores, and draws at each of three to confirm it.
SCORED_SIZES, CONFIRMED = 32, 32
ANSWERED = 4  # test examples by whose outputs a network is told from others


def sweep(
    model: Module,
    task: Task,
    *,
    batch_sizes: Sequence[int] = (8, 16, 32, 64, 128),
    draws: int = 64,
    trained_at: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    samplers: Mapping[str, Sampler] | None = None,
    likelihood: ClassLikelihood | None = None,
    test_size: int | None = None,
    validation_group: Groups | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Study:
    """Compare a trained network's uncertainty over inference batch sizes; nothing is trained.

    The methods are the plain network, population statistics, MCBN at each M from banks really
    collected and from the one at `trained_at` rescaled, MC Dropout where there is dropout, and any
    further samplers. `choose_batch_size` recommends an M on the validation examples. The number of
    examples that will pass through the network is said first.

    Args:
        model: the trained network.
        task: its data; mini-batches are of `task.train`, whose transforms should be those of the
            training.
        batch_sizes: M, ascending or not.
        draws: T of MCBN and MC Dropout.
        trained_at: the batch size of the training; by default the middle one of `batch_sizes`.
        folder: where results are kept as they are finished, so that the same call resumes; a result
            is only used again for the same weights and data. By default nothing is kept.
        samplers: further methods by name, which are scored anew by every call.
        likelihood: of classes or labels, such as `Bernoulli(outputs="probabilities")` of a network
            that ends in a sigmoid; by default that of the task, for logits.
        test_size: test examples used, evenly spaced; all by default.
        validation_group: what validation examples that hang together share, one value per example,
            for the intervals of the recommendation; see `choose_batch_size`.
        seed: of mini-batches and dropout masks.
        progress: say what it will cost, and show progress.

    Returns:
        A study of one network; `Report.from_study` makes its report.

    Raises:
        OSError: the folder cannot be written to.
        TypeError: `model` is not a network or `task` not a task.
        ValueError: an argument is out of range, or a cell failed.
    """
    validation.require_type(task, Task, "an mcbn.Task", "make one of train, validation and test")
    if validation_group is not None:
        Clusters.of_groups(validation_group, len(task.validation))  # refused before any work
        validation_group = names_of_groups(validation_group, len(task.validation))
    model, extra = unwrapped(model), dict(samplers or {})
    if trained_at is None:
        trained_at = sorted(batch_sizes)[len(batch_sizes) // 2]
    here = Here(task, model, extra, likelihood=_settled(likelihood, task))
    plan = _plan(here, batch_sizes, draws, trained_at, test_size, seed)
    if progress:
        print(f"sweep: {_cost(plan, task)}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as temporary, held_here(plan.given.digest, here):
        place = Path(folder) if folder is not None else Path(temporary)
        for cell in (each for each in plan.cells() if each.method in extra):
            # Nothing tells whether a sampler is the one of the finished result.
            Store(place).discard("cells", cell.key)
        study = run_study(plan, place, executor=ThisProcess(), progress=progress, retry=True)
        if study.failures:
            cell, reason = next(iter(study.failures.items()))
            raise ValueError(
                f"expected to score every method, got an error of {cell}: {reason}; mend it, and "
                "run the sweep again, which keeps what is finished"
            )
        found = _recommendation(place, here, plan, validation_group, progress=progress)
        return replace(study, recommendation=found)


def _settled(likelihood: ClassLikelihood | None, task: Task) -> ClassLikelihood | None:
    """The likelihood, which is of classes or labels as the task is."""
    if likelihood is None:
        return None
    given = as_likelihood(likelihood)
    kind = Bernoulli if task.multilabel else Categorical
    if task.regression or not isinstance(given, kind):
        usual = "no likelihood" if task.regression else f"mcbn.{kind.__name__}(...)"
        raise ValueError(
            f"expected {usual} for the task {task.name!r}, got {given}; leave it out, or make the "
            "task with multilabel=True for several labels an example"
        )
    settled: ClassLikelihood = given
    return settled


def _plan(
    here: Here,
    batch_sizes: Sequence[int],
    draws: int,
    trained_at: int,
    test_size: int | None,
    seed: int,
) -> Plan:
    model, task, samplers = here.model, here.task, here.samplers
    methods: list[Method] = ["Deterministic", "Population BN", "MCBN", "MCBN rescaled"]
    if any(isinstance(layer, _DropoutNd) and layer.p > 0 for layer in model.modules()):
        methods.append("MC Dropout")
    largest = max(*batch_sizes, trained_at)
    if largest > len(task.train):
        raise ValueError(
            f"expected batch_sizes and trained_at of at most the {len(task.train)} training "
            f"examples, got {largest}; leave out those above"
        )
    if same := [name for name in samplers if name in methods]:
        raise ValueError(
            f"expected other names of samplers than those of the sweep's own methods, got {same}; "
            "rename them"
        )
    name = type(model).__name__
    given = Given(
        task.name,
        TRAINED,
        _digest(here),
        task.regression,
        tuple(task.outside),
        tuple(samplers),
        tuple(map(len, samplers.values())),
        task.multilabel,
    )
    return Plan(
        title=f"{name} on {task.name}: batch sizes",
        data=DataAxes(names=(task.name,), outside=tuple(task.outside), test_size=test_size),
        network=NetworkAxes(names=(name,), dropout=0.0),
        training=TrainingAxes(batch_sizes=(trained_at,)),
        inference=InferenceAxes(tuple(batch_sizes), (draws,), bank_batch_size=trained_at),
        methods=tuple(methods),
        seeds=(seed,),
        threads=torch.get_num_threads(),
        given=given,
    )


def _digest(here: Here) -> str:
    """A digest of the network, its weights, buffers and first answers, and of the data."""
    model, task = here.model, here.task
    likelihood = f"{here.likelihood}\n" if here.likelihood is not None else ""
    total = hashlib.sha256(f"{model}\n{digest_of(task)}\n{likelihood}".encode())
    with random_streams(0, "sweep"):  # from which a transform may draw
        inputs, _ = task.test.batch(torch.arange(min(ANSWERED, len(task.test))))
    # Another forward may have the same layers and weights.
    answers = {"answers": Deterministic(model)(inputs)}
    for name, value in (model.state_dict() | answers).items():
        if isinstance(value, Tensor):  # not the extra state of a layer
            rows = value.detach().cpu().contiguous()
            total.update(f"{name} {rows.dtype} {tuple(rows.shape)}\n".encode())
            total.update(rows.flatten().view(torch.uint8).numpy().data if rows.numel() else b"")
    return total.hexdigest()[:32]


def _cost(plan: Plan, task: Task) -> str:
    """How many examples will pass through the network, in words."""
    cells = plan.cells()
    scored = min(plan.data.test_size or len(task.test), len(task.test))
    scored += sum(map(count_of, task.outside.values()))
    scored += len(task.validation) if task.regression else 0
    predicted = sum(cell.draws * scored for cell in cells)
    draws, sizes = plan.inference.draws[0], plan.inference.batch_sizes
    # A bank for each size, the one that is rescaled with its limit, and the population's.
    read = draws * (sum(sizes) + (plan.inference.bank_batch_size or 0)) + LARGER_BATCH
    read += len(task.train)
    confirmed = min(CONFIRMED, draws)
    chosen = (SCORED_SIZES * draws + 2 * 3 * confirmed) * len(task.validation)
    chosen += 3 * confirmed * max(sizes)
    return (
        f"{len(cells)} methods and sizes; at most about {predicted + read + chosen:,} passes of an "
        f"example through the network: {read:,} to collect, {predicted:,} to predict, {chosen:,} "
        "to recommend"
    )


def _recommendation(
    folder: Path, here: Here, plan: Plan, group: tuple[str, ...] | None, *, progress: bool
) -> Mapping[str, object]:
    """The choice of M on the validation examples; read from the folder if it is there."""
    store = Store(folder)
    named: list[Any] = [cell.key for cell in plan.cells()]
    named += [] if group is None else [group]
    key = hashlib.sha256(repr(named).encode()).hexdigest()[:32]
    kept = store.read_recommendation()
    if kept is not None and kept.get("key") == key:
        return kept
    choice = _chosen(here, plan, group, progress=progress)
    found = {"key": key, **choice}
    write_whole(store.recommendation, (to_json(found, indent=1) + "\n").encode())
    return found


def _chosen(
    here: Here, plan: Plan, group: tuple[str, ...] | None, *, progress: bool
) -> Mapping[str, object]:
    task, seed = here.task, plan.seeds[0]
    size, draws = plan.inference.bank_batch_size or 0, plan.inference.draws[0]
    bank = here.banks.get((size, draws, LARGER_BATCH))
    if bank is None:  # the bank that was rescaled is there, unless that was in an earlier call
        bank = collected(here.model, task, size, draws, seed, LARGER_BATCH)
    targets = task.validation.targets
    if task.ignore_index is not None and bool((targets == task.ignore_index).any()):
        return {"reason": "validation examples have positions that are not labelled"}
    sizes = sorted(plan.inference.batch_sizes)
    choice = choose_batch_size(
        here.model,
        bank,
        task.validation.inputs,
        targets,
        batches=training_batches(task, size, draws, seed),
        confirm=CONFIRMED,
        likelihood=_likelihood(here, bank),
        bounds=(sizes[0], min(sizes[-1], len(task.train))) if len(sizes) > 1 else None,
        group=group,
        seed=seed,
        progress=progress,
    )
    return choice.to_dict()


def _likelihood(here: Here, bank: Bank) -> ClassLikelihood | Gaussian:
    """That of the task; the noise of real targets is fitted to the validation examples."""
    if not here.task.regression:
        return here.likelihood or usual_likelihood(here.task)
    sampler, held_out = MCBatchNorm(here.model, bank), here.task.validation
    predictive = predict(sampler, held_out.inputs, Gaussian(1.0), progress=False)
    return fit_precision(predictive, held_out.targets)
