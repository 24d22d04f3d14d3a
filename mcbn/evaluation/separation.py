"""How well uncertainty tells out-of-distribution examples from those of the test set."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import bootstrap, detection, formulas
from mcbn.evaluation.bootstrap import ScoreColumns
from mcbn.evaluation.clusters import Clusters, Groups, clusters_of
from mcbn.evaluation.evaluate import require_predictive
from mcbn.evaluation.evaluation import Score, with_intervals
from mcbn.evaluation.uncertain_images import UncertainImages
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.positions import is_large

# What tells how uncertain examples are.
Uncertain = CategoricalPredictive | BernoulliPredictive | UncertainImages


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
Clustered = tuple[Uncertain, Clusters | None]


def separation_scores(
    inside: Clustered,
    outside: Clustered,
    *,
    uncertainty: Literal["mutual_information", "entropy"],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """The scores of `out_of_distribution`, of rows or images whose clusters are known."""
    validation.fraction(level, "level")
    if uncertainty not in ("mutual_information", "entropy"):
        raise ValueError(
            "expected the uncertainty 'mutual_information' or 'entropy', got "
            f"{uncertainty!r}; choose one"
        )
    sets = [inside, outside]
    large = any(isinstance(given, UncertainImages) or is_large(given) for given, _ in sets)
    of_sets = _of_images if large else _of_rows
    units, measure, whole = of_sets(sets, uncertainty)
    replicates = bootstrap.replicates(
        units, lambda chosen: measure(chosen), resamples=resamples, seed=seed, progress=False,
        clusters=whole,
    )  # fmt: skip
    every = {name: values for columns in units for name, values in columns.items()}
    return with_intervals(measure(every), replicates, level)


# What is drawn of each set, the scores of what was drawn, and the clusters of each set.
Resampled = tuple[
    list[ScoreColumns], Callable[[ScoreColumns], dict[str, float]], list[Clusters | None]
]


def _of_rows(sets: Sequence[Clustered], uncertainty: str) -> Resampled:
    """The uncertainties of rows."""
    values = [uncertainties(given, uncertainty) for given, _ in sets]  # type: ignore[arg-type]
    # This checks the values; resamples trust them.
    detection.out_of_distribution(*(each.flatten() for each in values))

    def measure(chosen: ScoreColumns) -> dict[str, float]:
        return _separation_scores(
            *formulas.out_of_distribution(chosen["inside"].flatten(), chosen["outside"].flatten())
        )

    units: list[ScoreColumns] = [{"inside": values[0]}, {"outside": values[1]}]
    return units, measure, [clusters for _, clusters in sets]


def _of_images(sets: Sequence[Clustered], uncertainty: str) -> Resampled:
    """The uncertainties of images in cells, whose values count as equal."""
    cells = []
    for given, clusters in sets:
        images = given if isinstance(given, UncertainImages) else UncertainImages.of(
            _of_classes(given), uncertainty
        )  # fmt: skip
        cells.append(images.sums.matrix("cells", clusters or Clusters.alone(len(images))))
    names = ("inside", "outside")
    units: list[ScoreColumns] = [
        {name: torch.arange(each.shape[1])} for name, each in zip(names, cells, strict=True)
    ]

    def measure(chosen: ScoreColumns) -> dict[str, float]:
        counts = [
            each @ chosen[name].bincount(minlength=each.shape[1]).double().numpy()
            for name, each in zip(names, cells, strict=True)
        ]
        return _separation_scores(*formulas.separation_of_counts(*map(torch.from_numpy, counts)))

    return units, measure, [None, None]


def _of_classes(given: Uncertain) -> CategoricalPredictive:
    if isinstance(given, CategoricalPredictive):
        return given
    raise ValueError(
        "expected two sets of images of classes, got another kind beside them; give sets of one "
        "kind"
    )


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
