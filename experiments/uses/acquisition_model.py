"""Data, networks and acquisition scores of the experiment on active learning."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

import mcbn
from experiments.uses.acquisition_scores import batch_bald, gaussian_batch_bald, largest
from mcbn.tasks.datasets import LabeledData, digits, mnist, uci
from mcbn.tasks.networks import mlp
from mcbn.tasks.training import Loss, build

BATCH_SIZE = 10  # M of training and, unless it is said, of MCBN
DROPOUT = {"mnist": 0.25, "kin8nm": 0.1}
NOISE_VARIANCE = 0.1  # of the regression, as a share of the variance of its targets
SCORES = ("plain", "mcbn", "mcbn_half", "dropout", "ensemble")  # that rank one example at a time
METHODS = ("random", *SCORES, "batch_mcbn", "batch_dropout")


@dataclass(frozen=True)
class Scale:
    """Size of the experiment.

    Attributes:
        seeds: number of seeds, of pool, first labels, networks and test examples.
        pool: examples that may be labelled.
        candidates: of these, drawn at random in each round and scored.
        test: test examples.
        start: labels of the first network.
        size: labels added in a round.
        rounds: how often labels are added.
        steps: training steps of a network.
        draws: T.
        members: networks of the ensemble.
        labellings: combinations of labels that BatchBALD holds.
    """

    seeds: int
    pool: int
    candidates: int
    test: int
    start: int
    size: int
    rounds: int
    steps: int
    draws: int
    members: int
    labellings: int

    @property
    def labels(self) -> list[int]:
        """Number of labels in each round."""
        return [self.start + self.size * each for each in range(self.rounds + 1)]


@dataclass(frozen=True, eq=False)
class Problem:
    """A data set for one seed.

    Attributes:
        name: of the set.
        pool: examples that may be labelled, in random order.
        test: test examples.
        builder: makes the network.
        scale: size of the experiment.
        seed: the seed.
    """

    name: str
    pool: LabeledData
    test: LabeledData
    builder: Callable[[], nn.Module]
    scale: Scale
    seed: int

    @property
    def loss(self) -> Loss:
        """What the networks are trained by."""
        return "mse" if self.name == "kin8nm" else "cross_entropy"

    @property
    def likelihood(self) -> Any:
        """Of the targets."""
        if self.loss == "cross_entropy":
            return mcbn.Categorical(outputs="logits")
        return mcbn.Gaussian(precision=1 / NOISE_VARIANCE)


def problem(name: str, scale: Scale, seed: int, *, fast: bool) -> Problem:
    """Pool and test examples of a seed; small stand-ins of the data sets if `fast`."""
    training, test = _parts(name, seed if name == "kin8nm" else 0, fast)
    generator = torch.Generator().manual_seed(seed)
    pool, held = (
        part.rows(torch.randperm(len(part), generator=generator)[:count])
        for part, count in ((training, scale.pool), (test, scale.test))
    )
    if name == "kin8nm":
        features = pool.inputs.shape[1]
        builder = lambda: mlp(features, 1, width=50, depth=2, dropout=DROPOUT[name])  # noqa: E731
    else:
        side = pool.inputs.shape[-1]
        builder = lambda: convolutional(side, dropout=DROPOUT[name])  # noqa: E731
    return Problem(name, pool, held, builder, scale, seed)


@lru_cache(maxsize=1)
def _parts(name: str, split: int, fast: bool) -> tuple[LabeledData, LabeledData]:
    """Examples to choose from, and others to test on."""
    if name == "mnist":
        task = digits() if fast else mnist()
        parts = task.train, task.test
        if fast:
            return parts
        # Images of 14 by 14 pixels: the networks are trained thousands of times.
        small = [functional.avg_pool2d(part.inputs, 2) for part in parts]
        return LabeledData(small[0], parts[0].targets), LabeledData(small[1], parts[1].targets)
    if fast:
        generator = torch.Generator().manual_seed(split)
        inputs = torch.randn(800, 8, generator=generator)
        data = LabeledData(inputs, torch.sin(inputs.sum(1, keepdim=True)))
        return data.rows(torch.arange(400)), data.rows(torch.arange(400, 800))
    task = uci("kin8nm", split=split)
    others = task.validation, task.test
    return task.train, LabeledData(
        torch.cat([part.inputs for part in others]), torch.cat([part.targets for part in others])
    )


def convolutional(side: int, *, dropout: float) -> nn.Module:
    """Two convolutions and a dense layer, each with batch norm, and dropout before dense layers."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(dropout),
        nn.Linear(16 * (side // 4) ** 2, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Dropout(dropout), nn.Linear(64, 10),
    )  # fmt: skip


def untrained(of: Problem, labels: int, member: int = 0) -> nn.Sequential:
    """A network whose seed depends on the number of labels, not on which they are."""
    net = build(of.builder, seed=(1000 * of.seed + labels) * 10 + member)
    return net if isinstance(net, nn.Sequential) else nn.Sequential(net)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Networks of one set of labels.

    Attributes:
        labelled: rows of the pool.
        nets: the plain network, and the others of the ensemble where they are needed.
    """

    labelled: Int[Tensor, " labels"]
    nets: tuple[nn.Sequential, ...]


def candidates_of(of: Problem, labelled: Int[Tensor, " labels"]) -> Int[Tensor, " candidates"]:
    """Examples without a label, in an order that depends on the round alone."""
    generator = torch.Generator().manual_seed(1000 * of.seed + len(labelled))
    order = torch.randperm(len(of.pool), generator=generator)
    return order[~torch.isin(order, labelled)][: of.scale.candidates]


def acquired(
    of: Problem, fitted: Fitted, candidates: Int[Tensor, " candidates"], *, method: str
) -> Int[Tensor, " size"]:
    """The candidates whose labels a method asks for."""
    size, inputs = of.scale.size, of.pool.inputs[candidates]
    if method == "random":
        return candidates[:size]  # their order is random
    if not method.startswith("batch_"):
        return candidates[largest(score(of, fitted, inputs, name=method), size)]
    sampler = sampler_of(of, fitted, method.removeprefix("batch_"))
    draws = torch.stack(list(sampler.passes(inputs))).detach()
    if of.loss == "mse":
        choice = gaussian_batch_bald(draws[..., 0], size, noise_variance=NOISE_VARIANCE)
    else:
        generator = torch.Generator().manual_seed(of.seed)
        choice = batch_bald(draws.softmax(2), size, labellings=of.scale.labellings,
                            generator=generator)  # fmt: skip
    return candidates[torch.tensor(choice.rows)]


def sampler_of(of: Problem, fitted: Fitted, name: str) -> mcbn.Sampler:
    """The sampler of a score that is an expected information gain."""
    net, count = fitted.nets[0], len(fitted.labelled)
    seed = 1000 * of.seed + count
    if name == "dropout":
        return mcbn.MCDropout(net, draws=of.scale.draws, seed=seed)
    if name == "ensemble":
        return mcbn.DeepEnsemble(list(fitted.nets))
    batches = mcbn.minibatches(
        of.pool.inputs[fitted.labelled],
        batch_size=count // 2 if name == "mcbn_half" else BATCH_SIZE,
        draws=of.scale.draws,
        seed=seed,
    )
    return mcbn.MCBatchNorm(net, mcbn.collect(net, batches, limit=None, progress=False))


def score(
    of: Problem, fitted: Fitted, inputs: Float[Tensor, "batch ..."], *, name: str
) -> Float[Tensor, " batch"]:
    """How much a method wants the label of each example.

    Of the plain network it is the predictive entropy. A regression's is the same everywhere, as its
    noise is; there it is the variance by a Laplace posterior of the last layer.
    """
    if name == "plain":
        if of.loss == "mse":
            return laplace_variance(of, fitted, inputs)
        plain = mcbn.Deterministic(fitted.nets[0])
        entropy: Tensor = mcbn.predict(plain, inputs, of.likelihood, progress=False).entropy
        return entropy
    sampler = sampler_of(of, fitted, name)
    predictive = mcbn.predict(sampler, inputs, of.likelihood, progress=False)
    gain: Tensor = (
        predictive.epistemic_variance[:, 0] if of.loss == "mse" else predictive.mutual_information
    )
    return gain


def laplace_variance(
    of: Problem, fitted: Fitted, inputs: Float[Tensor, "batch features"]
) -> Float[Tensor, " batch"]:
    """Variance of the output under a Laplace posterior of the last layer, without draws."""
    data = of.pool.rows(fitted.labelled)
    posterior = mcbn.LastLayerLaplace.fit(
        fitted.nets[0], data.inputs, data.targets,
        likelihood=of.likelihood, structure="full", progress=False,
    )  # fmt: skip
    return posterior.output_covariance(inputs)[:, 0, 0]


def outputs_of(net: nn.Module, inputs: Float[Tensor, "batch ..."]) -> Tensor:
    """Outputs of the plain network."""
    with torch.no_grad():
        outputs: Tensor = net(inputs)
    return outputs


def losses(of: Problem, outputs: Tensor, targets: Tensor) -> Float[Tensor, " batch"]:
    """Negative log-likelihood of each example, or its squared error."""
    if of.loss == "mse":
        return (outputs - targets).square()[:, 0]
    return functional.cross_entropy(outputs, targets, reduction="none")


def neighbour_distance(inputs: Float[Tensor, "batch ..."], most: int = 1000) -> float:
    """Median distance of an example to the nearest other of the pool."""
    flat = inputs.flatten(1)
    distances = torch.cdist(flat[:most], flat)
    distances.fill_diagonal_(torch.inf)
    return float(distances.amin(1).median())
