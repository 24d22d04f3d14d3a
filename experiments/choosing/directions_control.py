"""Controls of the experiment on directions, where the posterior has a closed form."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

import mcbn
from mcbn.samplers.curvature_posterior import CurvaturePosterior
from mcbn.tasks.training import build

FEATURES = 6
TAU = 25.0


def linear_network(seed: int) -> nn.Module:
    """Batch norm of the inputs and a dense layer: a linear regression in the means and scales."""

    def made() -> nn.Module:
        network = nn.Sequential(nn.BatchNorm1d(FEATURES), nn.Linear(FEATURES, 1)).double()
        nn.init.uniform_(network[0].weight, 0.5, 1.5)
        return network

    return build(made, seed=seed).eval()


def jacobian(
    network: nn.Module, inputs: Tensor, center: dict[str, Tensor]
) -> Float64[Tensor, "batch statistics"]:
    """The derivatives of the outputs in the means and log-variances, written out."""
    norm, head = network[0], network[1]
    mean, log_variance = center["0.running_mean"], center["0.running_var"]
    slope = norm.weight * head.weight[0] * (-log_variance / 2).exp()
    return torch.cat([-slope.expand_as(inputs), -slope * (inputs - mean) / 2], 1).detach()


def exact_variances(case: dict[str, Any], test: Tensor) -> Float64[Tensor, " batch"]:
    """Bayesian linear regression in the statistics: of the mean of each test example."""
    bank, center = case["bank"], case["posterior"].center
    scale = 1 / bank.size - 1 / bank.population
    prior = torch.cov(bank.points().T) / scale
    design = jacobian(case["network"], case["inputs"], center)
    precision = TAU * design.T @ design + torch.linalg.inv(prior)
    rows = jacobian(case["network"], test, center)
    return (rows @ torch.linalg.inv(precision) * rows).sum(1)


def control_case(population: int, seed: int, draws: int) -> dict[str, Any]:
    """Skewed inputs, the network, its bank and its posterior."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(FEATURES, FEATURES, generator=generator, dtype=torch.float64) / 2
    noise = torch.randn(population, FEATURES, generator=generator, dtype=torch.float64)
    inputs = noise @ (torch.eye(FEATURES, dtype=torch.float64) + mixing) + noise.square() / 4
    network = linear_network(seed)
    batches = mcbn.minibatches(inputs, batch_size=32, draws=draws, seed=seed)
    bank = mcbn.collect(network, batches, progress=False)
    posterior = CurvaturePosterior.fit(
        network, bank, inputs, likelihood=mcbn.Gaussian(precision=TAU), progress=False
    )
    return {"network": network, "bank": bank, "inputs": inputs, "posterior": posterior}


def control(populations: list[int], seed: int, draws: int) -> dict[str, Any]:
    """Epistemic standard deviation against N: by the closed form, by directions, at M = 32."""
    generator = torch.Generator().manual_seed(1000 + seed)
    test = torch.randn(200, FEATURES, generator=generator, dtype=torch.float64)
    found: dict[str, list[float]] = {"exact": [], "directions": [], "M = 32": [], "passes": []}
    worst = 0.0
    for population in populations:
        case = control_case(population, seed, draws)
        exact = exact_variances(case, test)
        rescaled = case["posterior"].rescaled()
        linear = variances(mcbn.LinearizedBatchNorm(case["network"], rescaled, exact=0)(test))
        worst = max(worst, float((linear / exact - 1).abs().max()))
        found["exact"].append(float(exact.mean().sqrt()))
        found["directions"].append(float(linear.mean().sqrt()))
        found["passes"].append(root_mean(mcbn.MCBatchNorm(case["network"], rescaled)(test)))
        found["M = 32"].append(root_mean(mcbn.MCBatchNorm(case["network"], case["bank"])(test)))
    logs = np.log(populations)
    slopes = {name: float(np.polyfit(logs, np.log(each), 1)[0]) for name, each in found.items()}
    return {"sd": found, "slopes": slopes, "largest error of a variance": worst}


def variances(draws: Tensor) -> Tensor:
    """Over draws, unbiased, of the only output."""
    return draws.double()[..., 0].var(0)


def root_mean(draws: Tensor) -> float:
    """The root mean square over examples of the standard deviation of the draws."""
    return float(variances(draws.detach()).mean().sqrt())
