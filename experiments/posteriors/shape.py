"""Scale against shape: is what MCBN loses at a large batch size one number, or also a shape over x?

Run: python -m experiments.posteriors.shape [--fast]
(about 40 minutes on one core, nearly all of it Hamiltonian Monte Carlo; data root in MCBN_DATA)

References. Two posteriors over the weights of two hidden layers of 16 ReLU units, sampled by NUTS.
(a) "batch norm": the network with batch norm that uses the statistics of the whole training set;
these are a function of the weights, and so is the network. (b) "plain": the same shape with biases
in place of batch norm. All weights have Gaussian priors: sd sqrt(2 / inputs) for the weights of a
layer, sqrt(2) for the scales of batch norm, 1 for shifts and biases. The noise sd is the true one
in one dimension; on the UCI sets it is the held-out error of an ensemble, and at least 0.2 of the
targets' sd. It is the same for all methods, and every network is trained to the mode of the
posterior with this prior and this noise. A reference is left out if it did not converge by the
rule in reference.py, on split R-hat and effective sample size of the outputs and on divergences.

Measured over points inside the training data and in the gap. Of the log of the ratio of a method's
epistemic sd to the reference's, the mean over points is the scale, which one factor mends, and the
standard deviation over points is the shape, which none does.

Planned comparisons, fixed before the full run.
Primary: Pearson correlation over points of the epistemic sd with that of reference (a): MCBN at its
best M, chosen for each data set by this very correlation (in favour of MCBN), minus an ensemble of
5, and minus last-layer Laplace. A single factor changes no correlation.
Secondary: Spearman correlation; reference (b); the first, the last or all layers; training M of 8
and N; N of 64 and 256; points outside too; log score after one factor fitted on held-out data, and
after one fitted on points of inside and gap. Sharp form of the claim: MCBN at M = 3N/4 against
MCBN at M = 8 of the same network, scale and shape. Intervals are over data sets.
Changed since: chains of 300 draws and trees of depth 8 in place of 150 and 7, since the first
batch-norm reference failed the rule.
"""

import statistics
import warnings
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes

import mcbn
from experiments.posteriors import shape_methods as methods
from experiments.posteriors.gaps import Case, curve_case, table_case, uci_data
from experiments.posteriors.layout import Layout, outputs
from experiments.posteriors.reference import Answer, Problem, Settings, posterior, worker
from experiments.posteriors.shape_figure import SHOWN, draw
from experiments.posteriors.shape_measures import (
    alike,
    averaged,
    compared,
    gap_over_inside,
    scores,
)
from experiments.posteriors.shape_summary import REFERENCES, summary
from experiments.posteriors.training import Fit, trained
from experiments.record import Record, asked
from mcbn.tasks.datasets import LabeledData

LEAST_NOISE = 0.2  # on the UCI sets, in standard deviations of the targets
FIRST = "sine-64-0"  # the data set of the figure
CLAIM = {
    "source": "Mukhoti, Dokania, Torr and Gal 2020, abstract only",
    "claim": "for larger batch sizes MCBN fails to capture epistemic uncertainty",
}


@dataclass(frozen=True)
class Scale:
    """Size of the experiment.

    Attributes:
        keys: the data sets: generator, N and seed, or name and which input has the gap.
        examples: N of the UCI sets.
        per_region: points of each region.
        width: units of each of two hidden layers.
        ensemble: networks trained at M = 32.
        networks: networks of each other method, over which its measures are averaged.
        steps: training steps.
        draws: T.
        settings: of Hamiltonian Monte Carlo.
        strict: whether references that did not converge are left out.
    """

    keys: tuple[str, ...]
    examples: int
    per_region: int
    width: int
    ensemble: int
    networks: int
    steps: int
    draws: int
    settings: Settings
    strict: bool = True


FULL = Scale(
    ("sine-64-0", "cosine-64-0", "concrete-0", "energy-0", "sine-64-1", "cosine-64-1", "yacht-0",
     "bostonHousing-0", "sine-64-2", "cosine-64-2", "sine-256-0", "sine-256-1"),
    examples=128, per_region=40, width=16, ensemble=50, networks=3, steps=1500, draws=128,
    settings=Settings(chains=8, warmup=300, draws=300, depth=8),
)  # fmt: skip
FAST = Scale(
    ("sine-64-0", "sine-64-1", "diabetes-0"),
    examples=64, per_region=10, width=8, ensemble=10, networks=1, steps=60, draws=32,
    settings=Settings(chains=2, warmup=10, draws=10, depth=2), strict=False,
)  # fmt: skip


def main(record: Record) -> None:
    """Measure, write the result and draw the figure."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    scale = FAST if record.fast else FULL
    with worker() as pool:
        rows = [record.part(key, partial(measured, record, scale, key, pool)) for key in scale.keys]
    size = asdict(scale)
    result = {"claim": CLAIM, "scale": size, **summary(rows, strict=scale.strict)}
    draw(record, record.write(result))


def case_of(scale: Scale, key: str) -> Case:
    """The data set of a key."""
    name, *size, index = key.split("-")
    if size:
        return curve_case(name, int(size[0]), scale.per_region, seed=int(index))
    if name == "diabetes":
        inputs, targets = load_diabetes(return_X_y=True)
        # One column, so that what was compiled for one dimension serves here too.
        data = LabeledData(torch.from_numpy(inputs[:, 2:3]).float(), torch.from_numpy(targets))
    else:
        data = uci_data(name)  # type: ignore[arg-type]
    points = 2 * scale.per_region
    case = table_case(name, data, int(index), examples=scale.examples, points=points)
    layout = layout_of(scale, case, batch_norm=True)
    fit = Fit(methods.TRAINED_AT, scale.steps, seed=3)
    vectors = trained(layout, case.train, LEAST_NOISE, methods.MEMBERS, fit)
    found = outputs(layout, vectors, case.train.inputs, case.held_out.inputs).mean(0)
    error = float((found - case.held_out.targets).square().mean().sqrt())
    return replace(case, noise=max(LEAST_NOISE, error))


def measured(record: Record, scale: Scale, key: str, pool: Executor) -> dict[str, Any]:
    """All measures on one data set; each reference is stored as soon as it is sampled."""
    case = case_of(scale, key)
    few, fit = scale.networks, Fit(methods.TRAINED_AT, scale.steps, seed=0)
    layouts = {name: layout_of(scale, case, name == "batch norm") for name in REFERENCES}
    vectors, answers = {}, {}
    for name, layout in layouts.items():
        vectors[name] = trained(layout, case.train, case.noise or 1.0, scale.ensemble, fit)
        sampled = partial(sampled_in, pool, problem(scale, case, layout, vectors[name], key))
        answers[name] = Answer.from_lists(record.part(f"{key}-{name.replace(' ', '-')}", sampled))
    normed, plain = layouts.values()
    moments = methods.batch_norm_moments(case, normed, vectors["batch norm"][:few], scale.draws)
    moments |= methods.untied_moments(case, normed, few, scale.steps, scale.draws)
    moments |= methods.ensemble_moments(case, normed, vectors["batch norm"])
    moments |= methods.ensemble_moments(case, plain, vectors["plain"], "plain ")
    moments |= methods.dropout_moments(case, plain, few, scale.steps, scale.draws)
    return row(case, key, moments, answers)


def layout_of(scale: Scale, case: Case, batch_norm: bool) -> Layout:
    """The network of a data set."""
    return Layout(case.train.inputs.shape[1], (scale.width,) * 2, batch_norm)


def sampled_in(pool: Executor, asked_for: Problem) -> dict[str, Any]:
    """The answer of a worker, as lists."""
    answer: Answer = pool.submit(posterior, asked_for).result()
    return answer.to_lists()


def problem(scale: Scale, case: Case, layout: Layout, vectors: torch.Tensor, key: str) -> Problem:
    """What is sampled, from starts at trained networks."""
    return Problem(
        layout,
        case.train.inputs.numpy(),
        case.train.targets.numpy(),
        float(case.noise or 1.0),
        methods.rows_of(case).numpy(),
        scale.settings,
        seed=int(key.rpartition("-")[2]),
        start=np.ascontiguousarray(vectors[-scale.settings.chains :].numpy()),
    )


def row(
    case: Case, key: str, moments: methods.Moments, answers: dict[str, Answer]
) -> dict[str, Any]:
    """Measures of every method against every reference, and of the references themselves."""
    held = len(case.held_out)
    sds = {name: torch.from_numpy(each.sd[held:]) for name, each in answers.items()}
    against = {name: compared(moments, sd, case) for name, sd in sds.items()}
    for name, answer in answers.items():
        one, other = torch.from_numpy(answer.halves[:, held:])
        against[name]["half of its chains"] = alike(one, other, case)
    against["batch norm"]["plain posterior"] = alike(sds["plain"], sds["batch norm"], case)
    pairs = zip(moments["MCBN, M = 3N/4"], moments["MCBN, M = 8"], strict=True)
    large_small = averaged(
        [alike(large[held:], small[held:], case) for (_, large), (_, small) in pairs]
    )
    everything = moments | {
        f"posterior, {name}": [(torch.from_numpy(each.mean), torch.from_numpy(each.sd))]
        for name, each in answers.items()
    }
    return {
        "key": key,
        "name": case.name,
        "noise": case.noise,
        "diagnostics": {name: each.diagnostics() for name, each in answers.items()},
        "against": against,
        "M = 3N/4 against M = 8": large_small,
        "scores": {
            name: averaged([scores(mean, sd, case) for mean, sd in repetitions])
            for name, repetitions in everything.items()
        },
        "gap over inside": {
            name: statistics.fmean(gap_over_inside(sd[held:], case) for _, sd in repetitions)
            for name, repetitions in everything.items()
        },
        "picture": picture(case, everything) if key == FIRST else {},
    }


def picture(case: Case, moments: methods.Moments) -> dict[str, Any]:
    """Standard deviations at the points: the first repetition of each method shown."""
    held = len(case.held_out)
    curves = {name: moments[name][0][1][held:].tolist() for name in SHOWN}
    return {"x": case.x.tolist(), "region": case.region.tolist(), "sd": curves}


if __name__ == "__main__":
    main(asked("shape"))
