"""How alike two curves of standard deviations are: their shape, their scale, and what is left."""

import math
import statistics
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

import mcbn
from experiments.posteriors.gaps import REGIONS, Case
from experiments.posteriors.shape_methods import Moments
from mcbn.study.results import point

LEAST = 1e-6  # a standard deviation below this share of the largest counts as so much


def alike(
    sd: Float[Tensor, " points"], reference: Float[Tensor, " points"], case: Case
) -> dict[str, float]:
    """Correlations over inside and gap, and over all points; scale and shape of the log ratio."""
    near = case.region < REGIONS.index("outside")
    ratio = log_ratio(sd[near], reference[near])
    return {
        "pearson": pearson(sd[near], reference[near]),
        "spearman": spearman(sd[near], reference[near]),
        "pearson, outside too": pearson(sd, reference),
        "spearman, outside too": spearman(sd, reference),
        "log scale": float(ratio.mean()),
        "shape": float(ratio.std(correction=0)),
    }


def log_ratio(
    sd: Float[Tensor, " points"], reference: Float[Tensor, " points"]
) -> Float[Tensor, " points"]:
    """Log of their ratio: its mean is the scale, and its spread over points the shape."""
    return torch.log(sd.clamp_min(LEAST * sd.max())) - torch.log(reference)


def pearson(one: Float[Tensor, " points"], other: Float[Tensor, " points"]) -> float:
    """Correlation over points; 0 where one of the two is constant."""
    if float(one.max() - one.min()) == 0 or float(other.max() - other.min()) == 0:
        return 0.0
    return float(torch.corrcoef(torch.stack([one, other]))[0, 1])


def spearman(one: Float[Tensor, " points"], other: Float[Tensor, " points"]) -> float:
    """Correlation of the ranks over points."""
    return pearson(*(torch.from_numpy(stats.rankdata(each)) for each in (one, other)))


def gap_over_inside(sd: Float[Tensor, " points"], case: Case) -> float:
    """Ratio of the mean standard deviations of the two regions."""
    return float(sd[case.region == 1].mean() / sd[case.region == 0].mean())


def scores(
    mean: Float[Tensor, " rows"], sd: Float[Tensor, " rows"], case: Case
) -> dict[str, float]:
    """Log scores of each region before and after one factor on the epistemic variance.

    The factor is fitted on held-out examples of the training regions ("factor"), or on every other
    point of inside and gap and scored on the rest ("factor that knows the gap").
    """
    held, variance = len(case.held_out), (case.noise or 1.0) ** 2
    near = torch.nonzero(case.region < 2)[:, 0]
    fitted, rest = near[::2], torch.ones(len(case.region), dtype=torch.bool)
    rest[fitted] = False
    factors = {
        "no factor": 1.0,
        "factor": factor(mean[:held], sd[:held], case.held_out.targets, variance),
        "factor that knows the gap": factor(
            mean[held:][fitted], sd[held:][fitted], case.points.targets[fitted], variance
        ),
    }
    found = {f"sd {name}": math.sqrt(value) for name, value in factors.items() if value != 1}
    for name, value in factors.items():
        total = value * sd[held:].square() + variance
        log = stats.norm.logpdf(case.points.targets, mean[held:], total.sqrt())
        found |= by_region(torch.from_numpy(log), case, rest, name)
    return found


def by_region(
    log: Float[Tensor, " points"], case: Case, rest: Bool[Tensor, " points"], name: str
) -> dict[str, float]:
    """Mean log score of each region that has points."""
    return {
        f"{region}, {name}": float(log[(case.region == index) & rest].mean())
        for index, region in enumerate(REGIONS)
        if bool((case.region == index).any())
    }


def factor(
    mean: Float[Tensor, " rows"],
    sd: Float[Tensor, " rows"],
    targets: Float[Tensor, " rows"],
    variance: float,
) -> float:
    """The best factor of the epistemic variance, by the log score of a Gaussian.

    Two draws at one standard deviation from the mean have that mean and that variance. Where all
    are 0 there is nothing to multiply.
    """
    if not bool(sd.any()):
        return 1.0
    draws = torch.stack([mean + sd, mean - sd])[..., None]
    predictive = mcbn.GaussianPredictive(draws, torch.tensor(variance, dtype=torch.float64))
    fitted = mcbn.VarianceScaling.fit(
        predictive, targets[:, None].double(), part="epistemic", criterion="moments"
    )
    return fitted.factor


def averaged(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each measure over the repetitions on one data set."""
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}


def compared(
    moments: Moments, reference: Float[Tensor, " points"], case: Case
) -> dict[str, dict[str, float]]:
    """Likeness of each method to a reference."""
    held = len(case.held_out)
    return {
        name: averaged([alike(sd[held:], reference, case) for _, sd in repetitions])
        for name, repetitions in moments.items()
    }


def interval(values: Sequence[float]) -> list[float]:
    """Mean and 95% Student-t interval over data sets; only the mean of a single one."""
    estimate = point(list(values))
    return [estimate.mean, estimate.low, estimate.high] if len(values) > 1 else [estimate.mean]
