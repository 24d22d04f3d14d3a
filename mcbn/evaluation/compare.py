"""Comparison of several methods on the same examples."""

from collections.abc import Collection, Mapping
from typing import Literal

from mcbn.evaluation.batches import predict_scored, predict_uncertain
from mcbn.evaluation.clusters import Groups, clusters_of
from mcbn.evaluation.comparison import Comparison, Entry, knows_epistemic
from mcbn.evaluation.evaluate import ScoredRows, evaluate_scored
from mcbn.evaluation.images import ScoredImages
from mcbn.evaluation.separation import Uncertain, separation_scores
from mcbn.network.loaders import Data
from mcbn.network.targets import Targets
from mcbn.predictive.bernoulli import Bernoulli
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.likelihood import LikelihoodName
from mcbn.samplers.sampler import Sampler


def compare(
    samplers: Mapping[str, Sampler],
    inputs: Data,
    targets: Targets | None = None,
    *,
    outside: Mapping[str, Data] | None = None,
    classes: tuple[str, ...] = (),
    likelihood: LikelihoodName | Categorical | Bernoulli = "categorical",
    ignore_index: int | None = None,
    group: Groups | None = None,
    outside_group: Mapping[str, Groups] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Predict and score the same classification examples with several methods.

    Args:
        samplers: methods by name, the baseline first.
        inputs: test examples: as `predict` takes them, or a data set or loader of inputs with
            their targets.
        targets: their class indices, or 0 and 1 of each label: a tensor, an array, a column of a
            data frame; by default those in the data set or loader.
        outside: inputs of out-of-distribution sets by name.
        classes: names of the classes.
        likelihood: "categorical", or "bernoulli" for several labels an example;
            `Categorical(outputs=...)` and `Bernoulli(outputs=...)` say what the networks return.
        ignore_index: the target of positions or labels of which the truth is not known; they are
            left out.
        group: what examples that hang together share; see `evaluate`.
        outside_group: the same of the examples of out-of-distribution sets, by name of the set.
        resamples: bootstrap resamples behind each interval.
        seed: chooses the resamples.
        progress: show bars, on a terminal only.

    Raises:
        TypeError: there are no targets, or an argument is of another type.
        ValueError: there is no method, or groups of a set that is not there.
    """
    if not samplers:
        raise ValueError("expected at least one method to compare, got none; name some samplers")
    _require_sets(outside_group or {}, outside or {})
    entries = {}
    for name, sampler in samplers.items():
        scored, seconds = predict_scored(
            sampler, inputs, targets, likelihood, ignore_index=ignore_index, group=group,
            has_cells=bool(outside), progress=progress,
        )  # fmt: skip
        predicted_outside = {
            key: predict_uncertain(sampler, values, likelihood, progress=progress)
            for key, values in (outside or {}).items()
        }
        entries[name] = entry(
            scored,
            outside=predicted_outside,
            outside_group=outside_group,
            seconds=seconds,
            resamples=resamples,
            seed=seed,
            progress=progress,
        )
    return compared(entries, scored, classes)


def compared(
    entries: Mapping[str, Entry], scored: ScoredRows | ScoredImages, classes: tuple[str, ...]
) -> Comparison:
    """The comparison of methods, with the targets of what was scored, of any of them."""
    targets = None if isinstance(scored, ScoredImages) else scored.targets
    return Comparison(entries, targets, classes, scored.clusters)


def entry(
    scored: ScoredRows | ScoredImages,
    *,
    outside: Mapping[str, Uncertain],
    outside_group: Mapping[str, Groups] | None = None,
    seconds: float = float("nan"),
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Entry:
    """Score predictions of one method; the arguments are those of `compare` and `Entry`."""
    if isinstance(scored, ScoredImages):
        images, predictive, known = scored, None, scored.uncertain
    else:
        images, predictive, known = None, scored.predictive, scored.predictive
    uncertainty: Literal["mutual_information", "entropy"] = (
        "mutual_information" if knows_epistemic(known) else "entropy"
    )
    groups = outside_group or {}
    return Entry(
        predictive,
        outside,
        evaluate_scored(scored, resamples=resamples, seed=seed, progress=progress),
        {
            name: separation_scores(
                (known, scored.clusters),
                (other, clusters_of(groups.get(name), len(other))),
                uncertainty=uncertainty,
                resamples=resamples,
                seed=seed,
            )
            for name, other in outside.items()
        },
        seconds,
        images,
    )


def _require_sets(groups: Mapping[str, Groups], outside: Collection[str]) -> None:
    """Check that groups are of out-of-distribution sets that are there.

    Raises:
        ValueError: they are of another set.
    """
    if unknown := [name for name in groups if name not in outside]:
        raise ValueError(
            f"expected outside_group of the sets {list(outside)}, got {unknown}; name the groups "
            "after their set"
        )
