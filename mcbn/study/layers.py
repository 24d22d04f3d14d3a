"""Choose which batch-norm layers are stochastic, by held-out log score."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float64, Int
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader, Dataset

from mcbn import validation
from mcbn.bank.bank import Bank, require_bank
from mcbn.evaluation.clusters import Groups, clusters_of
from mcbn.evaluation.scores import negative_log_likelihood
from mcbn.io.progress import progress_bar
from mcbn.network.batchnorm import unwrapped
from mcbn.network.inputs import Inputs, count
from mcbn.network.layer_names import Layers, chosen_layers, stages
from mcbn.network.targets import Targets
from mcbn.predictive.bernoulli import Bernoulli
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.gaussian import Gaussian
from mcbn.predictive.likelihood import LikelihoodName, as_likelihood
from mcbn.recalibration.temperature import TemperedCategorical
from mcbn.samplers.batch_norm import drawn_layers
from mcbn.samplers.outputs import Output
from mcbn.study.criterion import Objective
from mcbn.study.examples import gathered_examples
from mcbn.study.layer_choice import LayerChoice, folds_of

ALL = "all"
SHARES = (1 / 4, 1 / 2, 3 / 4)  # of the layers, the first and the last of which are candidates
MAX_STAGES = 8  # more are no few parts of a network, and cost as much as they confuse


def choose_layers(
    model: Module,
    bank: Bank,
    inputs: Inputs | DataLoader[Any] | Dataset[Any],
    targets: Targets | None = None,
    *,
    candidates: Sequence[Layers] | Mapping[str, Layers] | None = None,
    likelihood: LikelihoodName | Categorical | Bernoulli | Gaussian = "categorical",
    output: Output | None = None,
    temperature: bool = False,
    group: Groups | None = None,
    folds: int = 5,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> LayerChoice:
    """Choose the layers whose statistics are drawn, the others at their running statistics.

    One bank serves all candidates, so no pass over training data is needed: each candidate costs
    one pass of the held-out examples per draw. The same draws, and the same examples in each
    resample, are used for all. Intervals cover the randomness of the examples, not that of the
    draws, which more draws reduce.

    Args:
        model: the trained network.
        bank: draws of its statistics.
        inputs: held-out examples; or a data set, or a loader of them in fixed order. All are held
            in memory.
        targets: targets of the inputs; by default those in the data set or loader.
        candidates: what `MCBatchNorm` takes as `layers=`, in a list or by names; all layers are
            compared with in any case. By default the first and the last quarter, half and three
            quarters of the layers, and each stage, such as `layer1`, that has several.
        likelihood: "categorical" for logits of classes, "bernoulli" for those of several labels an
            example, `Gaussian(...)` for real targets.
        output: picks the output tensor where the network returns something else.
        temperature: score each candidate at a temperature of its draws, fitted on the other folds:
            fewer layers give less noise, which else is judged by how far it tempers a network that
            is too sure. For classes.
        group: what examples that hang together share, one value per input, such as the patient of
            a scan: whole groups are resampled and left out; see `evaluate`.
        folds: into how many the examples are split, to score what is chosen without them.
        resamples: number of bootstrap resamples of the examples.
        level: level of the intervals.
        seed: seed of folds and resamples.
        progress: show a bar, on a terminal only.

    Raises:
        TypeError: the network, the bank or the targets are of another type.
        ValueError: an argument is out of range, there is no such layer, the bank is of another
            network, or the targets or groups do not fit the inputs.

    Reference:
        Romano and Wolf 2005, "Exact and approximate stepdown methods for multiple hypothesis
        testing", for the intervals of all candidates at once.
    """
    validation.fraction(level, "level")
    require_bank(bank)
    model = unwrapped(model)
    compared = _candidates(drawn_layers(model, bank), candidates)
    inputs, targets = gathered_examples(inputs, targets)
    clusters = clusters_of(group, len(targets))
    units = len(targets) if clusters is None else len(clusters)
    _require(folds, resamples, count(inputs), len(targets), units)
    family = as_likelihood(likelihood)
    if temperature and not isinstance(family, Categorical):
        raise ValueError(
            f"expected the likelihood of classes with temperature=True, got {family!r:.80}; leave "
            "temperature out"
        )
    objective = Objective(model, bank, inputs, targets, family, None, output)
    fold = folds_of(len(targets), clusters, folds, seed)
    bar = progress_bar(compared, label="choose", unit="candidate", shown=progress)
    losses = torch.stack(
        [
            _tempered(objective, layers, fold) if temperature else objective.losses(bank, layers)
            for _, layers in bar
        ]
    )
    return LayerChoice.from_losses(
        losses, compared, draws=len(bank), bank_size=bank.size, clusters=clusters, folds=folds,
        resamples=resamples, level=level, seed=seed, tempered=temperature, progress=progress,
    )  # fmt: skip


def default_candidates(names: Sequence[str]) -> list[str]:
    """The first and the last layers of a network in several numbers, and its stages."""
    counts = list(dict.fromkeys(math.ceil(share * len(names)) for share in SHARES))
    parts = [part for part, inside in stages(names).items() if len(inside) > 1]
    ends = [f"{end} {number}" for end in ("first", "last") for number in counts]
    return ends + (parts if len(parts) <= MAX_STAGES else [])


def _tempered(
    objective: Objective, layers: Sequence[str], fold: Int[Tensor, " batch"]
) -> Float64[Tensor, " batch"]:
    """The loss of each example at the temperature of the draws that fits the other folds best."""
    draws, targets = objective.outputs(layers), objective.targets.cpu()
    losses = draws.new_empty(len(targets), dtype=torch.float64)
    for number in range(int(fold.max()) + 1):
        here = fold == number
        known = Categorical(outputs="logits").summarize(draws[:, ~here], keep_draws=True)
        fitted = TemperedCategorical.fit(known, targets[~here])
        found = fitted.summarize(draws[:, here]).log_probabilities
        losses[here] = (
            negative_log_likelihood(found, targets[here]).reshape(int(here.sum()), -1).mean(1)
        )
    return losses


def _candidates(
    names: list[str], given: Sequence[Layers] | Mapping[str, Layers] | None
) -> list[tuple[str, list[str]]]:
    """The name and the layers of each candidate, all layers first; of equal ones the first."""
    if isinstance(given, (str, int)):
        raise TypeError(
            f"expected candidates in a list or by names, got {given!r}; give [{given!r}]"
        )
    wanted: Iterable[tuple[str, Layers]]
    if isinstance(given, Mapping):
        wanted = given.items()
    else:
        listed = default_candidates(names) if given is None else given
        wanted = [(_name(layers), layers) for layers in listed]
    found = {tuple(names): ALL}
    for name, layers in wanted:
        found.setdefault(tuple(chosen_layers(names, layers)), name)
    if len(found) < 2:
        raise ValueError(
            f"expected candidates besides all layers, got none for layers {names}; give "
            "candidates=, or use all"
        )
    if len(set(found.values())) < len(found):
        raise ValueError(
            f"expected candidates of different names, got {list(found.values())}; give a dict, and "
            f"no other candidate the name {ALL!r}"
        )
    return [(name, list(layers)) for layers, name in found.items()]


def _name(layers: Layers) -> str:
    if layers is None:
        return ALL
    if isinstance(layers, int):
        return f"last {layers}"
    return layers if isinstance(layers, str) else ", ".join(layers)


def _require(folds: int, resamples: int, examples: int, targets: int, units: int) -> None:
    if resamples < 2:
        raise ValueError(f"expected at least 2 resamples, got {resamples}; 1000 is usual")
    if examples != targets or examples == 0:
        raise ValueError(
            f"expected one target per input, got {examples} inputs and {targets} targets; give "
            "both of the same examples"
        )
    if not 2 <= folds <= units:
        raise ValueError(
            f"expected folds from 2 to {units}, the number of examples or groups, got {folds}; "
            "give folds=2 or more examples"
        )
