"""How well uncertainty tells out-of-distribution examples from those of the test set."""

from typing import Literal

from jaxtyping import Float64
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import bootstrap, detection, formulas
from mcbn.evaluation.bootstrap import ScoreColumns
from mcbn.evaluation.clusters import Clusters, Groups, clusters_of
from mcbn.evaluation.evaluate import require_predictive
from mcbn.evaluation.evaluation import Score, with_intervals
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive


def out_of_distribution(
    inside: CategoricalPredictive | BernoulliPredictive,
    outside: CategoricalPredictive | BernoulliPredictive,
    *,
    uncertainty: Literal["mutual_information", "entropy"] = "mutual_information",
    inside_group: Groups | None = None,
    outside_group: Groups | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """Score how well uncertainty detects examples that are out of distribution (OOD).

    They are the positive class. The two sets are resampled independently, by whole group where
    groups are given.

    Args:
        inside: predictions of examples from the training distribution.
        outside: predictions of examples that are out of distribution.
        uncertainty: what examples are ranked by; of several labels, its mean over the labels.
        inside_group: what examples of the first set that hang together share; see `evaluate`.
        outside_group: the same of the second set.
        resamples: bootstrap resamples of each set; 0 gives no intervals.
        level: of the intervals.
        seed: chooses the resamples.

    Raises:
        TypeError: predictions of the wrong kind.
        ValueError: another kind of uncertainty, or groups of another number of examples.
    """
    for predictive in (inside, outside):
        require_predictive(predictive, CategoricalPredictive, BernoulliPredictive)
    return separation_scores(
        (inside, clusters_of(inside_group, len(inside))),
        (outside, clusters_of(outside_group, len(outside))),
        uncertainty=uncertainty,
        resamples=resamples,
        level=level,
        seed=seed,
    )


# Predictions, and their rows that are resampled together; None where each is drawn by itself.
Clustered = tuple[CategoricalPredictive | BernoulliPredictive, Clusters | None]


def separation_scores(
    inside: Clustered,
    outside: Clustered,
    *,
    uncertainty: Literal["mutual_information", "entropy"],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """The scores of `out_of_distribution`, of rows whose clusters are known."""
    validation.fraction(level, "level")
    if uncertainty not in ("mutual_information", "entropy"):
        raise ValueError(
            "expected the uncertainty 'mutual_information' or 'entropy', got "
            f"{uncertainty!r}; choose one"
        )
    both = [uncertainties(predictive, uncertainty) for predictive, _ in (inside, outside)]
    separation = detection.out_of_distribution(*(values.flatten() for values in both))

    def measure(chosen: ScoreColumns) -> dict[str, float]:
        return _separation_scores(
            *formulas.out_of_distribution(chosen["inside"].flatten(), chosen["outside"].flatten())
        )

    replicates = bootstrap.replicates(
        [{"inside": both[0]}, {"outside": both[1]}],
        measure,
        resamples=resamples,
        seed=seed,
        progress=False,
        clusters=[inside[1], outside[1]],
    )
    values = _separation_scores(separation.auroc, separation.aupr, separation.fpr95)
    return with_intervals(values, replicates, level)


def uncertainties(
    predictive: CategoricalPredictive | BernoulliPredictive, uncertainty: str
) -> Float64[Tensor, "batch *positions"]:
    """The uncertainty of each example (and position); of several labels, the mean over them."""
    values: Tensor = getattr(predictive, uncertainty).cpu()
    return values.mean(1) if isinstance(predictive, BernoulliPredictive) else values


def _separation_scores(auroc: float, aupr: float, fpr95: float) -> dict[str, float]:
    return {
        "auroc_out_of_distribution": auroc,
        "aupr_out_of_distribution": aupr,
        "fpr95_out_of_distribution": fpr95,
    }
