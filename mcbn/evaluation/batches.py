"""Predict and score dense data batch by batch, in memory that does not grow with the pixels."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mcbn.evaluation.clusters import Groups
from mcbn.evaluation.evaluate import ScoredRows, target_logs_of
from mcbn.evaluation.evaluation import Evaluation
from mcbn.evaluation.images import ScoredImages
from mcbn.evaluation.separation import Uncertain
from mcbn.evaluation.uncertain_images import UncertainImages
from mcbn.io.progress import progress_bar
from mcbn.network.inputs import Select
from mcbn.network.loaders import Data, order_sampler, ordered_loader
from mcbn.network.targets import Targets, joined_targets
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive
from mcbn.predictive.joining import joined, joined_parts
from mcbn.predictive.labelled import labelled_parts
from mcbn.predictive.likelihood import as_likelihood
from mcbn.predictive.positions import are_large, positions
from mcbn.predictive.predict import length, predict_batches, require_some
from mcbn.samplers.sampler import Sampler
from mcbn.uncertainty.score import UncertaintyScore

P = TypeVar("P")
WARMING_EXAMPLES = 16  # predicted before the time is taken


def evaluate_batches(
    sampler: Sampler,
    data: DataLoader[Any] | Dataset[Any],
    likelihood: Literal["categorical"] | Categorical | Gaussian = "categorical",
    *,
    select: Select | None = None,
    ignore_index: int | None = None,
    group: Groups | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Predict and score images pixel by pixel, one batch after another, and forget each.

    The scores are those of `evaluate` on the result of `predict`, which holds every pixel: means
    and errors in bins of equal width are the same, while those of ranks and of bins of equal mass
    (aurc, e_aurc, augrc, auroc_of_errors, ece_equal_mass, ece_debiased, pit_error) take values that
    agree to 1/8192 for equal, as `evaluate` does of more than 131,072 pixels. Resampling is by
    whole image or group.

    Args:
        sampler: what makes the draws.
        data: a loader in fixed order, or a data set, of images with their targets.
        likelihood: "categorical" for classes of pixels, `Gaussian(...)` for real values of them.
        select: picks the network's inputs out of a batch where the default rule does not apply.
        ignore_index: the class of pixels that are not labelled, which are left out.
        group: what images that hang together share; see `evaluate`.
        resamples: bootstrap resamples of the images; 0 gives no intervals.
        level: of the intervals.
        seed: chooses the resamples.
        progress: show bars, on a terminal only.

    Raises:
        TypeError: data without targets.
        ValueError: predictions without positions, or what `evaluate` refuses.
    """
    parts = labelled_parts(sampler, data, None, likelihood, select=select)
    images = ScoredImages(ignore_index, group)
    for part, targets in progress_bar(parts, label="evaluate", unit="batch", shown=progress):
        images.add(part, targets)
    return images.evaluation(resamples=resamples, level=level, seed=seed, progress=progress)


@dataclass(eq=False)
class Timed:
    """What was predicted, and how long that took without the scoring.

    Attributes:
        seconds: so far.
    """

    seconds: float = 0.0

    def parts(self, parts: Iterator[P]) -> Iterator[P]:
        """The parts, whose making is timed."""
        while True:
            start = time.perf_counter()
            part = next(parts, None)
            self.seconds += time.perf_counter() - start
            if part is None:
                return
            yield part


@dataclass(frozen=True)
class WithDraws:
    """A likelihood whose predictives keep the draws of a batch of classes of whole examples.

    Attributes:
        likelihood: what summarizes the draws.
    """

    likelihood: Any

    @property
    def outputs(self) -> Any:
        """What the network returns, if the likelihood says so."""
        return getattr(self.likelihood, "outputs", "known")

    def summarize(self, passes: Iterable[Tensor], *, keep_draws: bool = False) -> Any:
        """The summary of the likelihood; of positions the draws would be many, and are not kept."""
        draws = iter(passes)
        first = list(islice(draws, 1))
        small = isinstance(self.likelihood, Categorical) and all(each.ndim == 2 for each in first)
        return self.likelihood.summarize(chain(first, draws), keep_draws=keep_draws or small)

    def join(self, parts: Sequence[Any]) -> Any:
        """One predictive of the examples of all parts, in order."""
        return self.likelihood.join(parts)


def predict_scored(
    sampler: Sampler,
    data: Data,
    targets: Targets | None,
    likelihood: Any,
    *,
    ignore_index: int | None,
    group: Groups | None,
    uncertainties: tuple[UncertaintyScore, ...],
    keep_draws: bool = False,
    progress: bool,
) -> tuple[ScoredRows | ScoredImages, float]:
    """Predict, and keep what is scored: every row, or of very many positions sums of each image.

    Args:
        sampler: see `predict`.
        data: see `predict_labelled`.
        targets: see `predict_labelled`.
        likelihood: see `predict`.
        ignore_index: see `evaluate`.
        group: see `evaluate`.
        uncertainties: the scores of `UncertainImages`.
        keep_draws: keep the draws of classes of whole examples.
        progress: show a bar, on a terminal only.

    Returns:
        What is scored, and the seconds that the prediction took, once the sampler had been called.
    """
    _call_once(sampler, data, likelihood)
    timed, labels, logs = Timed(), [], []
    images = ScoredImages(ignore_index, group, uncertain=UncertainImages(uncertainties))

    def pairs() -> Iterator[Any]:
        of_draws = WithDraws(as_likelihood(likelihood))
        for part, of_part in timed.parts(labelled_parts(sampler, data, targets, of_draws)):
            labels.append(of_part)
            logs.append(target_logs_of(part, of_part, ignore_index))
            # All else that is asked of the draws is in these, and does not grow with the classes.
            forgets = isinstance(part, CategoricalPredictive) and not keep_draws
            yield replace(part, draws=None) if forgets else part

    def add(part: Any) -> None:
        images.add(part, labels.pop(0))

    predictive = _kept(pairs(), data, likelihood, add, progress=progress)
    if predictive is None:
        return images, timed.seconds
    rows = ScoredRows.of(predictive, joined_targets(labels), ignore_index=ignore_index, group=group)
    known = [each for each in logs if each is not None]
    if known and len(known) == len(logs):
        rows = replace(rows, target_logs=torch.cat(known, dim=1))
    return rows, timed.seconds


def _call_once(sampler: Sampler, data: Data, likelihood: Any) -> None:
    """Predict some examples and forget them, so that what a first call sets up is not timed.

    The first batch of a loader as it is, since it may not be cut; a stream is left alone, since it
    may not be read twice.
    """
    loader = ordered_loader(data, WARMING_EXAMPLES)
    if not isinstance(loader.dataset, IterableDataset):
        next(predict_batches(sampler, loader, likelihood), None)


def predict_uncertain(
    sampler: Sampler,
    data: Data,
    likelihood: Any,
    *,
    uncertainties: tuple[UncertaintyScore, ...],
    progress: bool,
) -> Uncertain:
    """Predict, and keep the predictions, or of very many positions the uncertainties in each image.

    The arguments are those of `predict`, and `uncertainties` are the scores of `UncertainImages`.
    """
    images = UncertainImages(uncertainties)
    parts = predict_batches(sampler, data, likelihood)
    kept = _kept(parts, data, likelihood, images.add, progress=progress)
    return images if kept is None else kept


def _kept(
    parts: Iterator[Any],
    data: Data,
    likelihood: Any,
    add: Callable[[Any], None],
    *,
    progress: bool,
) -> Any:
    """The predictions of all parts; None where they have very many positions and were added."""
    loader = ordered_loader(data, None)
    bar = iter(
        progress_bar(parts, label="predict", unit="batch", total=length(loader), shown=progress)
    )
    first = next(bar, None)
    if not isinstance(first, (CategoricalPredictive, GaussianPredictive)) or not positions(first):
        every = chain(() if first is None else [first], bar)
        examples = length(order_sampler(loader)) or 0
        return require_some(joined(as_likelihood(likelihood), every, examples))
    held: list[Any] | None = []
    for part in chain([first], bar):
        if held is None:
            add(part)
            continue
        held.append(part)
        if are_large(held):
            for each in held:
                add(each)
            held = None
    return None if held is None else joined_parts(held)
