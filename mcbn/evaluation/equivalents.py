"""Deep-ensemble equivalents: of how many networks an ensemble would predict as well as a method."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import bootstrap
from mcbn.evaluation.bootstrap import Counts
from mcbn.evaluation.calibrated import calibrated_nll
from mcbn.evaluation.clusters import Clusters, Groups, clusters_of
from mcbn.evaluation.comparison import Entry
from mcbn.evaluation.evaluate import ScoredRows, require_predictive
from mcbn.evaluation.evaluation import NO_REPLICATES, Score
from mcbn.evaluation.images import ScoredImages
from mcbn.evaluation.scores import negative_log_likelihood
from mcbn.evaluation.weighted import MeanScores, one_by_one
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.categorical import Categorical, CategoricalPredictive

MOST_SUBSETS = 12  # of the networks of an ensemble, at each size


def ensemble_equivalents(
    methods: Mapping[str, CategoricalPredictive],
    ensemble: CategoricalPredictive,
    targets: Targets,
    *,
    group: Groups | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    r"""How many networks an ensemble needs to predict as well as each method does.

    All are compared by their calibrated negative log-likelihood, so that no method gains by what a
    temperature would mend as well. With $c(l)$ that of ensembles of l networks, the mean over at
    most 12 subsets of those given, and $c$ that of a method, it is the smallest

    $$l \geq 1 \quad \text{with} \quad c(l) \leq c,$$

    where c(l) is linear between whole numbers. It is 1 for a method that is no better than a single
    network, and infinite for one that is better than all networks together.

    Args:
        methods: predictions by name.
        ensemble: predictions of the networks of a deep ensemble on the same examples, with their
            draws: `predict(DeepEnsemble(...), data, keep_draws=True)`.
        targets: their class indices.
        group: what examples that hang together share; see `evaluate`.
        resamples: bootstrap resamples of the examples; 0 gives no intervals.
        level: of the intervals.
        seed: chooses halves, subsets and resamples.

    Raises:
        TypeError: predictions or targets of the wrong kind.
        ValueError: an ensemble without draws or with a single network; examples of different
            numbers, or targets that do not fit.

    Reference:
        Ashukha, Lyzhov, Molchanov, Vetrov 2020, "Pitfalls of in-domain uncertainty estimation and
        ensembling in deep learning", section 5, equation 4.
    """
    validation.fraction(level, "level")
    return equivalents_of(
        methods, ensemble, as_targets(targets), clusters_of(group, len(ensemble)),
        resamples=resamples, level=level, seed=seed,
    )  # fmt: skip


def equivalents_of(
    methods: Mapping[str, CategoricalPredictive],
    ensemble: CategoricalPredictive,
    targets: Tensor,
    clusters: Clusters | None,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """The scores of `ensemble_equivalents`, of rows whose clusters are known."""
    for predictive in (*methods.values(), ensemble):
        require_predictive(predictive, CategoricalPredictive)
    networks = _networks(ensemble)
    known = targets.to(networks.device)
    for predictive in (*methods.values(), ensemble):
        negative_log_likelihood(predictive.log_probabilities, known)  # checks them

    def losses(predictive: CategoricalPredictive) -> Tensor:
        each = calibrated_nll(predictive.log_probabilities, known, clusters=clusters, seed=seed)
        return each.flatten(1).mean(1) if each.ndim > 1 else each

    curve = torch.stack([
        torch.stack([losses(_average(networks[list(subset)])) for subset in subsets]).mean(0)
        for subsets in _subsets(len(networks), seed)
    ], dim=1)  # fmt: skip
    whole = clusters or Clusters.alone(len(curve))
    sizes = {str(size): column for size, column in enumerate(curve.T)}
    ensembles = MeanScores.of(sizes, whole)
    each_method = MeanScores.of({name: losses(each) for name, each in methods.items()}, whole)

    def measure(counts: Counts) -> dict[str, float]:
        means = [float(value) for value in ensembles(counts).values()]
        return {name: _size(means, float(loss)) for name, loss in each_method(counts).items()}

    replicates = bootstrap.counted_replicates(
        [len(whole)], one_by_one(measure), resamples=resamples, seed=seed
    )
    return {
        name: Score.from_replicates(
            "ensemble_equivalent", value, replicates.get(name, NO_REPLICATES), level
        )
        for name, value in measure(np.ones(len(whole))).items()
    }


def with_equivalents(
    entries: Mapping[str, Entry],
    rows: Mapping[str, ScoredRows | ScoredImages],
    ensemble: str | None,
    **options: Any,
) -> dict[str, Entry]:
    """Entries of a comparison with their ensemble equivalent, where the draws of one were kept.

    Args:
        entries: by name.
        rows: what was scored of each.
        ensemble: name of a deep ensemble among them; None if there is none.
        options: resamples and their seed.
    """
    scored = None if ensemble is None else rows[ensemble]
    draws = getattr(getattr(scored, "predictive", None), "draws", None)
    if not isinstance(scored, ScoredRows) or draws is None or len(draws) < 2:
        return dict(entries)
    methods: Any = {name: entry.predictive for name, entry in entries.items()}
    found = equivalents_of(methods, scored.predictive, scored.targets, scored.clusters, **options)
    return {
        name: replace(
            entry,
            evaluation=entry.evaluation.including(
                "ensemble_equivalent", found[name], after="nll_calibrated"
            ),
        )
        for name, entry in entries.items()
    }


def _networks(ensemble: CategoricalPredictive) -> Tensor:
    draws = ensemble.draws
    if draws is None or len(draws) < 2:
        number = "none" if draws is None else f"{len(draws)}"
        raise ValueError(
            f"expected the predictions of 2 networks or more, got the draws of {number}; predict "
            "the DeepEnsemble with keep_draws=True"
        )
    return draws


def _average(logits: Tensor) -> CategoricalPredictive:
    return Categorical(outputs="logits").summarize(logits)


def _subsets(networks: int, seed: int) -> list[list[tuple[int, ...]]]:
    """Subsets of each size: all of them, or some that are chosen by chance."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for size in range(1, networks + 1):
        if math.comb(networks, size) <= MOST_SUBSETS:
            found.append(list(itertools.combinations(range(networks), size)))
            continue
        orders = [torch.randperm(networks, generator=generator) for _ in range(MOST_SUBSETS)]
        found.append([tuple(order[:size].tolist()) for order in orders])
    return found


def _size(values: list[float], loss: float) -> float:
    """The smallest size, at least 1, at which the curve is no higher than a loss."""
    if values[0] <= loss:
        return 1.0
    for size, (before, after) in enumerate(itertools.pairwise(values), start=1):
        if after <= loss:
            return float(size + (before - loss) / (before - after))
    return math.inf
