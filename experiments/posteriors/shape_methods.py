"""Epistemic standard deviations of each method on one data set."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

import mcbn
from experiments.posteriors.gaps import Case
from experiments.posteriors.layout import Layout, module, outputs
from experiments.posteriors.training import Fit, trained

TRAINED_AT = 32  # M of training, unless it is varied
SIZES = (8, 16, 32)  # inference M; the fourth is three quarters of the training set
PARTIAL = (8, 32)  # inference M where layers or the training M are varied
DROPOUT = 0.05
MEMBERS = 5  # of an ensemble as people train it
WITHIN_LAYER: dict[str, int | str] = {"first": "first 1", "last": 1}

# Mean and standard deviation at the held-out examples and the points, of each repetition.
Moments = dict[str, list[tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]]]


def label(size: int, examples: int) -> str:
    """Name of MCBN at an inference batch size."""
    return "MCBN, M = 3N/4" if size == 3 * examples // 4 else f"MCBN, M = {size}"


def batch_norm_moments(
    case: Case, layout: Layout, vectors: Float[Tensor, "networks weights"], draws: int
) -> Moments:
    """MCBN by M and by layer, and last-layer Laplace, each on the same networks."""
    found: Moments = {}
    count, precision = len(case.train), (case.noise or 1.0) ** -2
    for index, vector in enumerate(vectors):
        network = module(layout, vector, case.train.inputs)
        for size in (*SIZES, 3 * count // 4):
            bank = drawn_bank(network, case, size, draws, seed=index)
            name = label(size, count)
            add(found, name, mcbn.MCBatchNorm(network, bank), case)
            for which, layers in WITHIN_LAYER.items():
                if size in PARTIAL:
                    some = mcbn.MCBatchNorm(network, bank, layers=layers)
                    add(found, f"{name}, {which} layer", some, case)
        laplace = mcbn.LastLayerLaplace.fit(
            network,
            case.train.inputs,
            case.train.targets[:, None],
            likelihood=mcbn.Gaussian(precision=precision),
            structure="full",
            prior_precision=layout.hidden[-1] / 2,
            progress=False,
        )
        with torch.no_grad():
            mean = network(rows_of(case))[:, 0].double()
        variance = laplace.output_covariance(rows_of(case))[:, 0, 0]
        found.setdefault("last-layer Laplace", []).append((mean, variance.sqrt()))
    return found


def untied_moments(case: Case, layout: Layout, networks: int, steps: int, draws: int) -> Moments:
    """MCBN where the batch size of training differs."""
    found: Moments = {}
    for training, name in ((8, "trained at M = 8"), (len(case.train), "trained at M = N")):
        fit = Fit(training, steps, seed=training)
        vectors = trained(layout, case.train, case.noise or 1.0, networks, fit)
        for index, vector in enumerate(vectors):
            network = module(layout, vector, case.train.inputs)
            for size in PARTIAL:
                bank = drawn_bank(network, case, size, draws, seed=index)
                add(found, f"MCBN, M = {size}, {name}", mcbn.MCBatchNorm(network, bank), case)
    return found


def dropout_moments(case: Case, layout: Layout, networks: int, steps: int, draws: int) -> Moments:
    """MC Dropout of networks without batch norm."""
    found: Moments = {}
    fit = Fit(TRAINED_AT, steps, seed=2, dropout=DROPOUT)
    for vector in trained(layout, case.train, case.noise or 1.0, networks, fit):
        network = module(layout, vector, case.train.inputs, DROPOUT)
        add(found, "MC Dropout", mcbn.MCDropout(network, draws=draws), case)
    return found


def ensemble_moments(
    case: Case, layout: Layout, vectors: Float[Tensor, "networks weights"], prefix: str = ""
) -> Moments:
    """Disjoint ensembles of a few networks, and the one of all."""
    every = outputs(layout, vectors, case.train.inputs, rows_of(case)).double()
    few = torch.split(every, MEMBERS)
    return {
        f"{prefix}ensemble of {MEMBERS}": [(each.mean(0), each.std(0)) for each in few],
        f"{prefix}ensemble of all": [(every.mean(0), every.std(0))],
    }


def rows_of(case: Case) -> Float[Tensor, "rows features"]:
    """The held-out examples and then the points."""
    return torch.cat([case.held_out.inputs, case.points.inputs])


def drawn_bank(network: nn.Module, case: Case, size: int, draws: int, seed: int) -> mcbn.Bank:
    """A bank of mini-batches of the training data."""
    batches = mcbn.minibatches(case.train.inputs, batch_size=size, draws=draws, seed=seed)
    return mcbn.collect(network, batches, limit=None, progress=False)


def add(found: Moments, name: str, sampler: mcbn.Sampler, case: Case) -> None:
    """Append the moments of a sampler's draws."""
    with torch.no_grad():
        draws = torch.stack(list(sampler.passes(rows_of(case))))[..., 0].double()
    found.setdefault(name, []).append((draws.mean(0), draws.std(0, correction=0)))
