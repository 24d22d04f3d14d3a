"""The methods that the demo compares, on networks that are trained already."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.bank.bank import Bank
from mcbn.bank.collect import collect
from mcbn.bank.minibatches import minibatches
from mcbn.cli.demo_settings import DemoSettings
from mcbn.predictive.predict import predict
from mcbn.recalibration.temperature import TemperatureScaling
from mcbn.samplers.augmented import Augmented
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.dropout import MCDropout
from mcbn.samplers.ensemble import DeepEnsemble
from mcbn.samplers.sampler import Sampler, one_draw
from mcbn.study.batch_size import choose_batch_size
from mcbn.tasks.task import Task
from mcbn.tasks.transforms import RandomShift


@dataclass(frozen=True, eq=False)
class Tempered:
    """A sampler whose logits are divided by a temperature.

    Args:
        sampler: makes the draws.
        temperature: above 1 it softens.
    """

    sampler: Any
    temperature: float

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def model(self) -> Module:
        """The network that is called."""
        network: Module = self.sampler.model
        return network

    def passes(self, inputs: Any) -> Iterator[Tensor]:
        """Yield the outputs for all inputs, one draw at a time."""
        return (outputs / self.temperature for outputs in self.sampler.passes(inputs))

    def draw(self, index: int, inputs: Any) -> Tensor:
        """The outputs for all inputs under draw `index`."""
        return one_draw(self.sampler, index, inputs) / self.temperature

    def __call__(self, inputs: Any) -> Tensor:
        """All draws stacked."""
        draws: Tensor = self.sampler(inputs)
        return draws / self.temperature


@dataclass(frozen=True)
class Methods:
    """What is compared, and what it was fitted on the labels to.

    Attributes:
        samplers: by name, the plain network first.
        bank: of mini-batches as large as those of training.
        batch_size: M that the labels choose.
        temperature: T that the labels fit to the plain network.
        warnings: those of making them.
    """

    samplers: dict[str, Sampler]
    bank: Bank
    batch_size: int
    temperature: float
    warnings: tuple[str, ...]


def methods_of(networks: Sequence[Module], task: Task, settings: DemoSettings) -> Methods:
    """Make every method of the first of some networks, and the ensemble of all of them.

    Args:
        networks: trained at the batch size of the settings.
        task: its data; all examples of validation are the labels that choose and fit.
        settings: numbers of draws.
    """
    model, size = networks[0], settings.batch_size
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bank = _bank(model, task, size, settings)
        chosen = _chosen_size(model, bank, task)
        other = bank if chosen == size else _bank(model, task, chosen, settings)
        temperature = _temperature(model, task)
    samplers: dict[str, Sampler] = {
        "Deterministic": Deterministic(model),
        f"Temperature, {len(task.validation)} labels": Tempered(Deterministic(model), temperature),
        f"MCBN, M = {size}": MCBatchNorm(model, bank),
        f"MCBN, M = {chosen}": MCBatchNorm(model, other),
    }
    if not settings.published:
        samplers["MC Dropout"] = MCDropout(model, draws=settings.draws)
    transform, draws = augmentation_of(task, settings), settings.augmented_draws
    samplers["Augmentation"] = Augmented(model, transform, draws=draws)
    samplers[f"MCBN, M = {chosen}, augmented"] = Augmented(
        MCBatchNorm(model, other.thin(draws)), transform
    )
    if len(networks) > 1:
        samplers["Deep ensemble"] = DeepEnsemble(list(networks))
    texts = dict.fromkeys(str(warning.message) for warning in caught)
    return Methods(samplers, bank, chosen, temperature, tuple(texts))


def with_labels(task: Task, settings: DemoSettings) -> Task:
    """The task with as many validation examples as there are labels.

    A published network was trained on all images but those of the test part, so they are of these.
    """
    if not settings.published:
        return replace(task, validation=task.validation.rows(torch.arange(settings.labels)))
    spaced = torch.linspace(0, len(task.test) - 1, settings.labels).round().long()
    scored = torch.ones(len(task.test), dtype=torch.bool)
    scored[spaced] = False
    return replace(
        task, validation=task.test.rows(spaced), test=task.test.rows(scored.nonzero().flatten())
    )


def augmentation_of(task: Task, settings: DemoSettings) -> Any:
    """What the training examples went through, or small shifts, beyond which pictures are black."""
    darkest = float(task.test.inputs.min())
    return task.augmentation or RandomShift(settings.shift, fill=darkest)


def _bank(model: Module, task: Task, size: int, settings: DemoSettings) -> Bank:
    batches = minibatches(task.train.dataset(), batch_size=size, draws=settings.draws)
    return collect(model, batches)


def _chosen_size(model: Module, bank: Bank, task: Task) -> int:
    labelled = task.validation
    return round(choose_batch_size(model, bank, labelled.inputs, labelled.targets).best)


def _temperature(model: Module, task: Task) -> float:
    predictive = predict(Deterministic(model), task.validation.inputs, progress=False)
    return TemperatureScaling.fit(predictive, task.validation.targets).temperature
