"""The verb of the command line that sweeps a trained network over batch sizes."""

import os
import sys

from torch.nn import Module

from mcbn.cli import messages
from mcbn.cli.data import own_transform, picture_transform
from mcbn.cli.network import load_said
from mcbn.cli.options.study import SweepOptions
from mcbn.cli.values import names_of
from mcbn.predictive.bernoulli import Bernoulli
from mcbn.predictive.categorical import Categorical
from mcbn.report.figure_formats import figure_formats
from mcbn.report.report import Report
from mcbn.study.own_code import load_own_task
from mcbn.study.results import Study
from mcbn.study.sweep import sweep as swept
from mcbn.tasks.folder import group_by_pattern
from mcbn.tasks.task import Task


def sweep(options: SweepOptions) -> None:
    """Compare a trained network's uncertainty over batch sizes, and recommend one."""
    formats = figure_formats(names_of(options.figures))
    task, network = _task(options), load_said(options.network)
    study = _swept(network, task, options)
    path = Report.from_study(study).write(options.out, figures=formats)
    found = study.recommendation or {}
    numbers = {"out": options.out, "report": str(path), "cells": len(study.results),
               "recommendation": study.recommendation}  # fmt: skip
    best = found.get("best")
    words = f"recommended M = {best:.3g}" if best else "no M recommended"
    messages.show(f"{len(study.results)} cells, {words}; report: {path}", numbers,
                  json=options.json)  # fmt: skip


def _swept(network: Module, task: Task, options: SweepOptions) -> Study:
    try:
        return swept(
            network,
            task,
            batch_sizes=options.sizes,
            draws=options.draws,
            trained_at=options.trained_at,
            likelihood=_likelihood(task, options),
            folder=options.out,
            test_size=options.test_size,
            seed=options.seed,
        )
    except KeyboardInterrupt:
        messages.interrupted(
            f"what is finished is kept in {options.out}; run the same command again to resume"
        )
        sys.exit(130)


def _likelihood(task: Task, options: SweepOptions) -> Categorical | Bernoulli | None:
    """What the network returns, if it was said."""
    if options.outputs is None:
        return None
    return (Bernoulli if task.multilabel else Categorical)(options.outputs)


def _task(options: SweepOptions) -> Task:
    """The user's own task, or one of a folder of pictures."""
    if not os.path.isdir(options.task):
        return load_own_task(options.task)
    transform = picture_transform(options.transform, options.network.model)
    training = options.train_transform
    train_transform = transform if training is None else own_transform(training)
    task = Task.from_folder(
        options.task, transform=transform, train_transform=train_transform,
        num_workers=options.workers,
        group=None if options.group is None else group_by_pattern(options.group, options.task),
    )  # fmt: skip
    if task.description:
        messages.note(task.description)
    return task
