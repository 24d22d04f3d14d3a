"""Scores of every method on one network, from kept draws."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from sklearn.metrics import roc_auc_score
from torch import Tensor

import mcbn
from experiments.comparisons.baselines_cases import SEED, Case
from experiments.comparisons.baselines_draws import Draws

PASSES = (1, 2, 4, 8, 16, 32, 64)
LABELS = (0, 5, 10, 20, 50, 100, 200, 500)
COMPARED = 16  # T that methods are compared at
AS_IT_IS, TEMPERED = 0, 1  # places in a pair of log scores
ONE_PASS = ("entropy", "max_softmax", "energy", "max_logit")

All = Mapping[str, Draws]


def scores_of(case: Case, draws: All, *, subsets: int) -> dict[str, Any]:
    """All scores of one network: of each method with the first 16 draws unless said otherwise.

    Args:
        case: the network and the pictures.
        draws: of each method.
        subsets: of labels that few-label temperatures are fitted on.
    """
    return {
        "accuracy": accuracies(case, draws),
        "nll": log_scores(case, draws),
        "aurc": {name: aurc(case, each) for name, each in draws.items()},
        "passes": {name: by_passes(case, each) for name, each in draws.items()},
        "labels": {
            name: by_labels(case, each["clean"], subsets=subsets) for name, each in draws.items()
        },
        "votes": {} if case.votes is None else votes(case, draws, case.votes),
        "auroc": separations(case, draws),
    }


def predicted(draws: Tensor, *, count: int = COMPARED) -> mcbn.CategoricalPredictive:
    """The average over the first draws."""
    return mcbn.Categorical(outputs="logits").summarize(draws[:count], keep_draws=True)


def nll(predictive: mcbn.CategoricalPredictive, targets: Int[Tensor, " batch"]) -> float:
    """Mean negative log-probability of the targets."""
    return float(-predictive.log_probabilities.gather(1, targets[:, None]).mean())


def halves(count: int) -> tuple[Tensor, Tensor]:
    """Even and odd places: of one half temperatures are fitted, the other is scored."""
    places = torch.arange(count)
    return places[places % 2 == 0], places[places % 2 == 1]


def fitted(draws: Tensor, targets: Tensor, *, prior: float = 1.0) -> Any:
    """A temperature of each draw, or of the only one."""
    return mcbn.fit_temperature(predicted(draws, count=len(draws)), targets, prior=prior)


def tempered(case: Case, draws: Draws, name: str, *, count: int = COMPARED) -> float:
    """NLL of a picture set after a temperature of clean images that are not in it."""
    clean, targets = draws["clean"][:count], case.clean.targets
    even, odd = halves(len(targets))
    if name == "clean":
        parts = [
            nll(fitted(clean[:, fit], targets[fit])(predicted(clean[:, held])), targets[held])
            for fit, held in ((even, odd), (odd, even))
        ]
        return sum(parts) / 2
    # Corruptions are of the clean images at odd places.
    scaling = fitted(clean[:, even], targets[even])
    return nll(scaling(predicted(draws[name], count=count)), case.shifted[name].targets)


def accuracies(case: Case, draws: All) -> dict[str, dict[str, float]]:
    """Share of correct classes, by picture set and method."""
    parts = {"clean": case.clean, **case.shifted}
    return {
        part: {
            name: float((predicted(each[part]).log_probabilities.argmax(1) == data.targets)
                        .double().mean())
            for name, each in draws.items()
        }
        for part, data in parts.items()
    }  # fmt: skip


def log_scores(case: Case, draws: All) -> dict[str, dict[str, list[float]]]:
    """NLL as it is and after a temperature of clean images, by picture set and method."""
    parts = {"clean": case.clean, **case.shifted}
    return {
        part: {
            name: [nll(predicted(each[part]), data.targets), tempered(case, each, part)]
            for name, each in draws.items()
        }
        for part, data in parts.items()
    }


def aurc(case: Case, draws: Draws) -> float:
    """Area under the risk-coverage curve of clean images, by confidence."""
    evaluation = mcbn.evaluate(
        predicted(draws["clean"]), case.clean.targets, resamples=2, progress=False
    )
    return float(evaluation["aurc"])


def by_passes(case: Case, draws: Draws) -> dict[str, list[float]]:
    """NLL of clean images by the first T draws, as it is and after a temperature."""
    found = {}
    for count in (count for count in PASSES if count <= len(draws["clean"])):
        found[str(count)] = [
            nll(predicted(draws["clean"], count=count), case.clean.targets),
            tempered(case, draws, "clean", count=count),
        ]
    return found


def by_labels(
    case: Case, draws: Float[Tensor, "draws batch classes"], *, subsets: int
) -> dict[str, float]:
    """NLL after a temperature of few labels: mean over subsets of them, the other half scored."""
    draws, targets = draws[:COMPARED], case.clean.targets
    half = len(targets) // 2
    found: dict[str, list[float]] = {}
    for subset in range(subsets):
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(SEED + subset))
        held = predicted(draws[:, order[half:]])
        for count in (count for count in LABELS if count <= half):
            fit = order[:count]
            scaled = fitted(draws[:, fit], targets[fit])(held) if count else held
            found.setdefault(str(count), []).append(nll(scaled, targets[order[half:]]))
    return {count: sum(values) / subsets for count, values in found.items()}


def votes(case: Case, draws: All, shares: Tensor) -> dict[str, list[float]]:
    """Cross-entropy of people's votes minus the entropy of the votes, as is and tempered."""
    entropy = float(torch.special.entr(shares).sum(1).mean())
    even, odd = halves(len(shares))
    found = {}
    for name, each in draws.items():
        clean, targets = each["clean"][:COMPARED], case.clean.targets
        scaling = fitted(clean[:, even], targets[even])
        held = predicted(clean[:, odd])
        found[name] = [
            float(-(shares[odd] * form.log_probabilities).sum(1).mean()) - entropy
            for form in (held, scaling(held))
        ]
    return found


def separations(case: Case, draws: All) -> dict[str, dict[str, float]]:
    """AUROC of each set of no class against clean images, by score; of kNN and of methods."""
    neighbors = mcbn.NearestNeighbors.fit(case.network, case.known.inputs, progress=False)
    inside = neighbors(case.clean.inputs)
    found: dict[str, dict[str, float]] = {}
    for name, inputs in case.outside.items():
        row = {"kNN": auroc(inside, neighbors(inputs))}
        for method, each in draws.items():
            clean, other = predicted(each["clean"]), predicted(each[name])
            kinds = ONE_PASS if method == "plain" else ("entropy", "mutual_information")
            for kind in kinds:
                row[f"{method}, {kind}"] = auroc(uncertainty(clean, kind), uncertainty(other, kind))
        found[name] = row
    return found


def uncertainty(predictive: mcbn.CategoricalPredictive, kind: str) -> Float[Tensor, " batch"]:
    """A score that is higher for what is less like the training data."""
    if kind == "max_softmax":
        return -predictive.log_probabilities.amax(1)
    values: Tensor = getattr(predictive, kind)
    return -values if kind == "max_logit" else values


def auroc(inside: Any, outside: Any) -> float:
    """How often an outside example scores higher than an inside one."""
    scores = torch.cat([torch.as_tensor(inside), torch.as_tensor(outside)]).double()
    labels = torch.arange(len(scores)) >= len(torch.as_tensor(inside))
    return float(roc_auc_score(labels.numpy(), scores.numpy()))
