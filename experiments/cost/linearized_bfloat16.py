"""Linearised draws in bfloat16, and few exact draws that correct many cheap ones.

Run: python -m experiments.cost.linearized_bfloat16 [resnet20] [convnet] [concrete] [energy]
(about 6 minutes on one core for all; data root in MCBN_DATA)
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

import mcbn
from experiments.cost.fewer_draws import BATCH_SIZE, CASES, POOL, Case
from experiments.record import RESULTS, rounded
from mcbn.evaluation.detection import auroc
from mcbn.io.atomic import write_whole
from mcbn.samplers.linearized import LinearizedBatchNorm, correction

PLAIN = 16  # draws that cost as much as the linear ones may
EXACT = (4, 6)  # exact draws that correct the linear ones
DENSE_EXACT = (4, 16)  # the same on dense networks, whose passes are cheap
CHEAP = 24  # passes in bfloat16 that 4 exact ones correct
SETS = 8  # disjoint sets of exact draws
GROUPS = 32  # of the jackknife
TIMED = 9
RESULT = RESULTS / "linearized_bfloat16.json"

# Of each draw what is averaged over draws: probabilities and entropy, or moments and density.
Terms = dict[str, Tensor]


def measured(case: Case) -> dict:
    """Costs and errors of the methods, by the answer of all exact draws of one bank."""
    bank = case.bank(BATCH_SIZE, POOL, seed=0)
    inputs = case.inputs
    if inputs.ndim > 2:
        inputs = torch.cat([inputs, shuffled(inputs)])
    plain = mcbn.MCBatchNorm(case.network, bank)
    exact = plain(inputs).double()
    linear = {
        precision: LinearizedBatchNorm(case.network, bank, exact=0, precision=precision)
        for precision in ("float32", "bfloat16")
    }
    draws = {precision: sampler(inputs).double() for precision, sampler in linear.items()}
    numbers = EXACT if inputs.ndim > 2 else DENSE_EXACT
    terms = terms_of(case, exact)
    target, noise = answer(case, means(terms)), monte_carlo(case, terms)
    answers: dict[str, list[Terms]] = {
        f"plain {PLAIN}": [answer(case, means(pick(terms, rows))) for rows in sets_of(PLAIN)]
    }
    for precision, rows in draws.items():
        for number in numbers:
            corrected = [with_exact(rows, exact, chosen) for chosen in sets_of(number)]
            answers[f"{precision} + {number} exact"] = [
                answer(case, means(terms_of(case, each))) for each in corrected
            ]
        every = terms_of(case, rows + (exact - rows).mean(0))
        answers[f"{precision}, corrected by all"] = [answer(case, means(every))]
        levels = [two_levels(terms_of(case, rows), terms, c) for c in sets_of(numbers[-1])]
        answers[f"{precision} + {numbers[-1]} exact, two levels"] = [
            answer(case, each) for each in levels
        ]
    if inputs.ndim > 2:
        cheap = terms_of(case, replace(plain, precision="bfloat16")(inputs).double())
        levels = [
            two_levels(pick(cheap, r), pick(terms, r), torch.arange(EXACT[0]))
            for r in sets_of(CHEAP)
        ]
        answers[f"{CHEAP} in bfloat16 + {EXACT[0]} exact, two levels"] = [
            answer(case, each) for each in levels
        ]
    timed = {f"{p} + {n} exact": replace(s, exact=n) for p, s in linear.items() for n in numbers}
    if inputs.ndim == 2:
        timed[f"all {POOL} exact"] = plain
    return {
        "examples": len(case.inputs),
        "monte_carlo": {name: float(value) for name, value in noise.items()},
        "passes": {name: cost(case, sampler) for name, sampler in timed.items()},
        "errors_by_monte_carlo": {
            name: {key: root_mean_square(list_of, target, key) / float(noise[key]) for key in noise}
            for name, list_of in answers.items()
        },
    }


def shuffled(images: Tensor) -> Tensor:
    """The images with their pixels in random order, to be told apart from them."""
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(len(images), images[0, 0].numel(), generator=generator).argsort(1)
    index = order[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view_as(images)


def sets_of(number: int) -> list[Tensor]:
    """Disjoint sets of draws."""
    return [torch.arange(start, start + number) for start in range(0, SETS * number, number)]


def with_exact(linear: Tensor, exact: Tensor, chosen: Tensor) -> Tensor:
    """Linear draws corrected by the chosen exact ones, as in the sampler."""
    rows = linear + correction(exact[chosen] - linear[chosen])
    rows[chosen] = exact[chosen]
    return rows


def two_levels(cheap: Terms, exact: Terms, chosen: Tensor) -> Terms:
    """Means over many cheap draws, with the mean difference of a few exact ones: unbiased."""
    return {
        name: rows.mean(0) + (exact[name][chosen] - rows[chosen]).mean(0)
        for name, rows in cheap.items()
    }


def terms_of(case: Case, outputs: Tensor) -> Terms:
    """What is averaged over draws."""
    if case.noise is None:
        p = outputs.softmax(-1)
        return {"p": p, "entropy": torch.special.entr(p).sum(-1)}
    y = outputs[..., 0]
    density = torch.distributions.Normal(y, case.noise**0.5).log_prob(case.targets.flatten()).exp()
    return {"y": y, "square": y.square(), "density": density}


def means(terms: Terms) -> Terms:
    """Averages over draws."""
    return {name: rows.mean(0) for name, rows in terms.items()}


def pick(terms: Terms, rows: Tensor) -> Terms:
    """Those of some draws."""
    return {name: values[rows] for name, values in terms.items()}


def answer(case: Case, mean: Terms) -> Terms:
    """The scores of these means; what lies outside of its range is clipped."""
    if case.noise is not None:
        epistemic = (mean["square"] - mean["y"].square()).clamp(min=0).sqrt()
        nll = -mean["density"].clamp(min=1e-12).log().mean()
        return {"mean": mean["y"], "epistemic": epistemic, "nll": nll}
    p = mean["p"].clamp(min=1e-12)
    p = p / p.sum(-1, keepdim=True)
    information = torch.special.entr(p).sum(-1) - mean["entropy"]
    number = len(case.inputs)
    told = auroc(information, torch.arange(len(information)) >= number)
    true = p[:number].gather(1, case.targets[:, None])
    return {
        "mean": p[:number],
        "epistemic": information[:number],
        "nll": -true.log().mean(),
        "ood_auroc": torch.tensor(float(told)).double(),
    }


def monte_carlo(case: Case, terms: Terms) -> Terms:
    """Monte Carlo errors of the scores of all draws, by the jackknife over groups of draws."""
    group = torch.arange(POOL) % GROUPS
    left = [answer(case, means(pick(terms, group != g))) for g in range(GROUPS)]
    errors = {}
    for name in left[0]:
        values = torch.stack([each[name] for each in left])
        variance = (GROUPS - 1) / GROUPS * (values - values.mean(0)).square().sum(0)
        errors[name] = variance.mean().sqrt()
    return errors


def root_mean_square(answers: list[Terms], target: Terms, name: str) -> float:
    """Error over examples and sets of exact draws."""
    missed = torch.stack([each[name] - target[name] for each in answers])
    return float(missed.square().mean().sqrt())


def cost(case: Case, sampler: Callable[[Tensor], Tensor]) -> float:
    """CPU time of one call in plain forward passes in float32 of the same inputs; paired median."""
    repeats = 4 if case.inputs.ndim > 2 else 100

    def plain() -> None:
        with torch.no_grad():
            for _ in range(repeats):
                case.network(case.inputs)

    plain(), sampler(case.inputs)
    ratios = [
        repeats * seconds(lambda: sampler(case.inputs)) / seconds(plain) for _ in range(TIMED)
    ]
    return median(ratios)


def seconds(run: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main(names: list[str]) -> None:
    """Measure the named cases, all by default; other results are kept."""
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    torch.set_num_threads(1)
    for name in names or list(CASES):
        result = rounded(measured(CASES[name]()))
        print(name, json.dumps(result, indent=1), flush=True)
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        write_whole(RESULT, (json.dumps({**kept, name: result}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
