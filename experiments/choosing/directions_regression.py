"""The parts of the experiment on directions with real targets: held-out scores, growth with N."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor, nn

import mcbn
from mcbn.samplers.curvature_posterior import CurvaturePosterior
from mcbn.tasks.datasets import LabeledData, Regression, uci
from mcbn.tasks.networks import mlp
from mcbn.tasks.training import build, train

PRECISIONS = torch.logspace(-1, 5, 121, dtype=torch.float64)  # tau, of standardised targets
FACTORS = torch.logspace(-5, 5, 21, base=2.0, dtype=torch.float64)  # of all M_k
ELBO_EXAMPLES, ELBO_DRAWS = 200, 64
ROUNDS = 3  # of the precision that the curvature needs


@dataclass(frozen=True)
class Scale:
    """Size of the regression part.

    Attributes:
        steps: training steps of a network.
        draws: T.
        width: of the two hidden layers.
        batch_size: M of training and of the bank.
    """

    steps: int = 1200
    draws: int = 256
    width: int = 50
    batch_size: int = 32


@dataclass(frozen=True, eq=False)
class Case:
    """A trained network with its bank, and the parts of its data."""

    network: nn.Module
    bank: mcbn.Bank
    training: LabeledData
    held_out: LabeledData
    test: LabeledData

    @property
    def population(self) -> int:
        """N."""
        return len(self.training)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Draws for the test examples, under the precision that held-out examples fit best.

    Attributes:
        draws: outputs of each draw for the test examples.
        precision: tau.
        loss: held-out negative log-likelihood at it.
    """

    draws: Float[Tensor, "draws batch"]
    precision: float
    loss: float


def case_of(training: LabeledData, others: tuple[LabeledData, LabeledData], scale: Scale,
            seed: int) -> Case:  # fmt: skip
    """Train a network and collect its bank."""
    features = training.inputs.shape[1]
    network = build(lambda: mlp(features, 1, width=scale.width, dropout=0.0), seed=seed)
    epochs = max(1, round(scale.steps / (len(training) // scale.batch_size)))
    train(network, training, epochs=epochs, batch_size=scale.batch_size, seed=seed, loss="mse")
    batches = mcbn.minibatches(
        training.inputs, batch_size=scale.batch_size, draws=scale.draws, seed=seed
    )
    return Case(network, mcbn.collect(network, batches, progress=False), training, *others)


def set_case(name: str, split: int, size: int, scale: Scale) -> Case:
    """A network of one UCI set, on at most `size` training examples."""
    if name not in get_args(Regression):
        raise ValueError(f"expected one of {get_args(Regression)}, got {name!r}; give its folder")
    task = uci(name, split=split)  # type: ignore[arg-type]
    few = task.train.rows(torch.arange(min(size, len(task.train))))
    return case_of(few, (task.validation, task.test), scale, split)


def log_score(draws: Tensor, targets: Tensor, precisions: Tensor) -> Float[Tensor, " precisions"]:
    """Mean negative log-likelihood of the mixture over draws, for each precision."""
    squares = (draws.double() - targets.flatten().double()).square()
    logs = [(-precision / 2 * squares).logsumexp(0).mean() for precision in precisions]
    normaliser = (precisions / (2 * torch.pi)).log() / 2 - torch.tensor(len(draws)).log()
    return -(torch.stack(logs) + normaliser)


def fitted(sampler: Any, case: Case) -> Fitted:
    """The draws of a sampler with the precision that fits the held-out examples best."""
    held_out, test = (sampler(part.inputs)[..., 0].detach() for part in (case.held_out, case.test))
    losses = log_score(held_out, case.held_out.targets, PRECISIONS)
    best = int(losses.argmin())
    return Fitted(test, float(PRECISIONS[best]), float(losses[best]))


def lowest(candidates: dict[float, Callable[[], mcbn.Bank]], case: Case) -> tuple[float, Fitted]:
    """Of several banks the one of the lowest held-out loss, each with a precision of its own."""
    found = {
        key: fitted(mcbn.MCBatchNorm(case.network, make()), case)
        for key, make in candidates.items()
    }
    best = min(found, key=lambda key: found[key].loss)
    return best, found[best]


def sizes(population: int) -> list[float]:
    """Batch sizes from 2 to N, a factor of about the root of 2 apart."""
    count = 2 * (population // 2).bit_length()
    return torch.logspace(1, torch.tensor(population).log2(), count, base=2.0).tolist()


def posterior_of(case: Case, *, inputs: Tensor | None = None) -> CurvaturePosterior:
    """Fit it, with the precision that its own predictions need."""
    precision = fitted(limit(case), case).precision
    for _ in range(ROUNDS):
        posterior = CurvaturePosterior.fit(
            case.network, case.bank, case.training.inputs if inputs is None else inputs,
            likelihood=mcbn.Gaussian(precision=precision), progress=False,
        )  # fmt: skip
        precision = fitted(mcbn.MCBatchNorm(case.network, posterior.rescaled()), case).precision
    return posterior


def at_limit(network: nn.Module, bank: mcbn.Bank, population: int) -> nn.Module:
    """A copy of the network with the statistics of large batches as its running ones."""
    copied = copy.deepcopy(network)
    copied.load_state_dict(bank.rescale(population, warn=False).state(0), strict=False)
    return copied


def limit(case: Case) -> mcbn.Deterministic:
    """The network with the statistics of large batches, which do not vary."""
    return mcbn.Deterministic(at_limit(case.network, case.bank, case.population))


def by_elbo(case: Case, posterior: CurvaturePosterior, precision: float) -> float:
    """The one batch size of the ELBO."""
    part = case.training.rows(torch.arange(min(ELBO_EXAMPLES, case.population)))
    choice = mcbn.choose_batch_size(
        case.network, case.bank.first(min(ELBO_DRAWS, len(case.bank))), part.inputs, part.targets,
        criterion=mcbn.ELBO(dimensions=len(posterior.curvatures)), points=9, resamples=2,
        likelihood=mcbn.Gaussian(precision=precision), bounds=(2, case.population), progress=False,
    )  # fmt: skip
    return choice.best


def laplace_of(case: Case, precision: float) -> mcbn.LastLayerLaplace:
    """Last-layer Laplace with all covariances, on top of the statistics of large batches."""
    return mcbn.LastLayerLaplace.fit(
        limit(case).model, case.training.inputs, case.training.targets, structure="full",
        likelihood=mcbn.Gaussian(precision=precision), draws=len(case.bank), progress=False,
    )  # fmt: skip


def methods(case: Case) -> tuple[dict[str, Fitted], dict[str, Any]]:
    """Every method with its held-out precision, and what was chosen."""
    network, bank = case.network, case.bank
    posterior = posterior_of(case)
    rescaled = posterior.rescaled()
    found = {
        "running statistics": fitted(mcbn.Deterministic(network), case),
        "limit": fitted(limit(case), case),
        "M = 32": fitted(mcbn.MCBatchNorm(network, bank), case),
        "directions": fitted(mcbn.MCBatchNorm(network, rescaled), case),
        "directions, linear": fitted(mcbn.LinearizedBatchNorm(network, rescaled, exact=0), case),
    }
    chosen: dict[str, Any] = {"N": case.population}
    chosen["M*"], found["M*"] = lowest(
        {size: lambda size=size: bank.rescale(size, warn=False)  # type: ignore[misc]
         for size in sizes(case.population)}, case)  # fmt: skip
    chosen["factor"], found["directions, scaled"] = lowest(
        {factor: lambda factor=factor: rescaled.rescale(factor * rescaled.size, warn=False)  # type: ignore[misc]
         for factor in FACTORS.tolist() if factor * rescaled.size >= 1}, case)  # fmt: skip
    precision = found["directions"].precision
    elbo = by_elbo(case, posterior, precision)
    found["M of the ELBO"] = fitted(mcbn.MCBatchNorm(network, bank.rescale(elbo, warn=False)), case)
    found["last-layer Laplace"] = fitted(laplace_of(case, found["limit"].precision), case)
    return found, chosen | {"M of the ELBO": elbo} | described(posterior)


def described(posterior: CurvaturePosterior) -> dict[str, Any]:
    """The batch sizes of a posterior in numbers."""
    values = posterior.batch_sizes
    mean, geometric = float(values.mean()), float(values.log().mean().exp())
    return {
        "M_k": values.tolist(),
        "directions": len(values),
        "determined": posterior.effective_dimensions,
        "equivalent M": posterior.batch_size,
        "mean M_k": mean,
        # What one batch size loses of the ELBO, in nats, where both are at their best.
        "ELBO lost": len(values) / 2 * float(torch.tensor(mean / geometric).log()),
    }


def scored(fit: Fitted, targets: Tensor) -> dict[str, float]:
    """Test scores, in units of the standardised targets."""
    noise = torch.tensor(1 / fit.precision, dtype=torch.float64)
    predictive = mcbn.GaussianPredictive(fit.draws.double()[..., None], noise)
    values = targets.reshape(-1, 1)
    error = (predictive.mean - values).abs().flatten()
    spread = predictive.epistemic_variance.sqrt().flatten()
    inside = (predictive.cdf(values) - 0.5).abs() <= 0.45
    moving = bool(spread.max() > 0)
    return {
        "nll": -float(predictive.log_prob(values).mean()),
        "coverage_90": float(inside.double().mean()),
        "epistemic_sd": float(spread.square().mean().sqrt()),
        "noise_sd": fit.precision**-0.5,
        # Whether larger errors are where the draws differ more.
        "rank_correlation": float(stats.spearmanr(spread, error)[0]) if moving else 0.0,
    }


def measured(case: Case) -> dict[str, Any]:
    """Scores of all methods, and what was chosen, for one network."""
    found, chosen = methods(case)
    scores = {name: scored(fit, case.test.targets) for name, fit in found.items()}
    return {"scores": scores, "chosen": chosen}


def growth_case(size: int, seed: int, scale: Scale, data: LabeledData, held: int) -> Case:
    """A network trained on `size` examples; the same others are held out for all sizes."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    held_out, test, rest = order.tensor_split([held, 2 * held])
    training = data.rows(rest[:size])
    return case_of(training, (data.rows(held_out), data.rows(test)), scale, seed)


def grown(case: Case) -> dict[str, Any]:
    """The epistemic standard deviation of the methods whose growth with N is compared."""
    posterior = posterior_of(case)
    network, bank = case.network, case.bank
    size, best = lowest(
        {size: lambda size=size: bank.rescale(size, warn=False)  # type: ignore[misc]
         for size in sizes(case.population)}, case)  # fmt: skip
    found = {
        "directions": fitted(mcbn.MCBatchNorm(network, posterior.rescaled()), case),
        "M = 32": fitted(mcbn.MCBatchNorm(network, bank), case),
        "M*": best,
    }
    found["last-layer Laplace"] = fitted(laplace_of(case, found["directions"].precision), case)
    scores = {name: scored(fit, case.test.targets) for name, fit in found.items()}
    return {"N": case.population, "M*": size, "scores": scores,
            "determined": posterior.effective_dimensions,
            "mean M_k": float(posterior.batch_sizes.mean())}  # fmt: skip
