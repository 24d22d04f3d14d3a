"""Methods that are equally good and calibrated, each by evidence of its own, and their comparison.

An outcome is whether `a + sum of b_k + e` is above 0, all of them normal. Method k knows `a + b_k`
and says the exact probability of the outcome given that, so every method is calibrated, all are
equal, and they differ on each example.
"""

import math

import torch

from mcbn.evaluation import intervals
from mcbn.evaluation.class_scores import class_columns, plain_class_scores
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.comparison import Comparison, Entry
from mcbn.evaluation.evaluation import Evaluation, with_intervals
from mcbn.evaluation.weighted import WeightedClassScores
from mcbn.predictive.categorical import Categorical

OWN = 0.3  # variance of what one method alone knows


def equal_methods(seed, *, methods=3, examples=400, size=1.5, clusters=None):
    """Logits of two classes by each method, axes (methods, examples, 2), and the outcomes.

    Args:
        seed: of the examples.
        methods: how many.
        examples: how many.
        size: standard deviation of what all know: the larger, the surer.
        clusters: the cluster of each example, which shares what all know and the outcome's noise.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    common, noise = size * normal(examples), normal(examples)
    own = OWN**0.5 * normal(methods, examples)
    if clusters is not None:
        common, noise, own = (each[..., clusters] for each in (common, noise, own))
    targets = (common + own.sum(0) + noise > 0).long()
    place = (common + own) / math.sqrt(1 + (methods - 1) * OWN)
    logs = torch.stack([torch.special.log_ndtr(-place), torch.special.log_ndtr(place)], -1)
    return logs, targets


def compared(logits, targets, *, resamples=100, clusters=None, calibration=True, ranking=True):
    """The comparison of methods by their logits, called m0, m1 and so on, the first the baseline.

    Only the scores that are asked for have replicates, which makes hundreds of comparisons quick.

    Args:
        logits: of each method.
        targets: the outcomes.
        resamples: of the bootstrap.
        clusters: of the examples.
        calibration: whether calibration errors have replicates.
        ranking: whether NLL, Brier score, accuracy and scores of ranked errors have.
    """
    entries = {}
    for k, each in enumerate(logits):
        predictive = Categorical(outputs="logits").summarize(each[None])
        columns = class_columns(predictive, targets)
        values = {**plain_class_scores(columns), "ece_debiased": 0.0, "ece_classwise": 0.0}
        whole = clusters or Clusters.alone(len(targets))
        kind = errors_of_bins if calibration else intervals.no_gaps
        replicates = intervals.weighted_replicates(
            columns, whole, WeightedClassScores.of(columns, whole) if ranking else lambda _: {},
            kind=lambda rows, _, kind=kind: kind(rows, clusters), resamples=resamples, seed=0,
        )  # fmt: skip
        scores = with_intervals(values, replicates, 0.95)
        evaluation = Evaluation(scores, len(targets), 1, 0.95, 0)
        entries[f"m{k}"] = Entry(predictive, {}, evaluation, {}, math.nan)
    return Comparison(entries, targets, (), clusters)


def errors_of_bins(columns, clusters=None):
    """The gaps of the two calibration errors that are judged."""
    binned = intervals.binned_gaps(columns, clusters)
    by_class = intervals._class_sums(columns, clusters)
    return lambda counts: {
        "ece_debiased": binned(counts)["ece_debiased"],
        "ece_classwise": torch.from_numpy(by_class(counts).T),
    }


def at_most(hits, runs, nominal=0.05):
    """Whether a share is at most the nominal one plus three standard errors of the simulation."""
    return hits / runs <= nominal + 3 * math.sqrt(nominal * (1 - nominal) / runs)
