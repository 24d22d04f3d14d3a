"""One seed of active learning with all methods: train, score, add the labels of the best."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

import mcbn
from experiments.uses.acquisition_model import (
    BATCH_SIZE,
    METHODS,
    SCORES,
    Fitted,
    Problem,
    acquired,
    candidates_of,
    losses,
    neighbour_distance,
    outputs_of,
    score,
    untrained,
)
from experiments.uses.acquisition_stack import train_together
from mcbn.evaluation.distributions import spearman

Rows = Int[Tensor, " labels"]
Columns = dict[str, list[float]]


def run(of: Problem, ranks_in: Sequence[int]) -> dict[str, Any]:
    """Add labels round by round.

    Returns:
        For each method test scores of each round and what was chosen; and, in some of the rounds,
        how each score ranks the candidates of the networks of random labels.
    """
    scale, near = of.scale, neighbour_distance(of.pool.inputs)
    labelled: dict[str, Rows] = dict.fromkeys(METHODS, torch.arange(scale.start))
    found: dict[str, Columns] = {method: {} for method in METHODS}
    ranks: Columns = {name: [] for name in SCORES}
    for number in range(scale.rounds + 1):
        last = number == scale.rounds
        ensembles = {"ensemble"} | ({"random"} if number in ranks_in else set())
        every = fitted(of, labelled, ensembles)
        if number in ranks_in:
            for name, value in rankings(of, every["random"]).items():
                ranks[name].append(value)
        for method, own in every.items():
            measured = scores_of(of, outputs_of(own.nets[0], of.test.inputs))
            if last:
                outputs = with_pool_statistics(of, own.nets[0])
                measured["with statistics of the pool"] = scores_of(of, outputs)["score"]
            else:
                chosen = acquired(of, own, candidates_of(of, own.labelled), method=method)
                measured |= variety(of, own.labelled, chosen, near)
                labelled[method] = torch.cat([own.labelled, chosen])
            for key, each in measured.items():
                found[method].setdefault(key, []).append(each)
    for method, rows in labelled.items():
        if of.loss == "cross_entropy":
            shares = of.pool.targets[rows].bincount(minlength=10).double() / len(rows)
            found[method]["class entropy"] = [float(torch.special.entr(shares).sum())]
    return {"methods": found, "ranks": ranks}


def fitted(of: Problem, labelled: Mapping[str, Rows], ensembles: set[str]) -> dict[str, Fitted]:
    """Networks of each method's labels, of all members for `ensembles`; the same of equal labels.

    In the first round all methods share the labels and so the networks.
    """
    shared = all(rows is labelled["random"] for rows in labelled.values())
    names = ["random"] if shared else list(labelled)
    wanted = [
        (name, member)
        for name in names
        for member in range(of.scale.members if shared or name in ensembles else 1)
    ]
    count = len(labelled["random"])
    nets = [untrained(of, count, member) for _, member in wanted]
    train_together(
        nets,
        [of.pool.rows(labelled[name]) for name, _ in wanted],
        epochs=max(1, round(of.scale.steps / (count // BATCH_SIZE))),
        batch_size=BATCH_SIZE,
        seed=1000 * of.seed + count,
        loss=of.loss,
    )
    members: dict[str, list[nn.Sequential]] = {}
    for (name, _), net in zip(wanted, nets, strict=True):
        members.setdefault(name, []).append(net)
    return {
        name: Fitted(rows, tuple(members["random" if shared else name]))
        for name, rows in labelled.items()
    }


def rankings(of: Problem, own: Fitted) -> dict[str, float]:
    """Spearman's correlation of each score and the actual loss, over the candidates."""
    data = of.pool.rows(candidates_of(of, own.labelled))
    actual = losses(of, outputs_of(own.nets[0], data.inputs), data.targets)
    return {name: spearman(score(of, own, data.inputs, name=name), actual) for name in SCORES}


def scores_of(of: Problem, outputs: Tensor) -> dict[str, float]:
    """Test scores of the plain network, by which all sets of labels are judged alike."""
    each = losses(of, outputs, of.test.targets)
    if of.loss == "mse":
        return {"score": float(each.mean().sqrt())}
    hits = outputs.argmax(1) == of.test.targets
    return {"score": float(hits.double().mean()), "nll": float(each.mean())}


def with_pool_statistics(of: Problem, net: nn.Module) -> Tensor:
    """Test outputs of the network with batch-norm statistics of many unlabelled examples.

    Chosen examples are harder than others, and so may their statistics differ from those of test
    examples; statistics need no labels.
    """
    size = min(1000, len(of.pool))
    batches = mcbn.minibatches(of.pool.inputs, batch_size=size, draws=1, seed=of.seed)
    bank = mcbn.collect(net, batches, limit=None, progress=False)
    return mcbn.MCBatchNorm(net, bank).draw(0, of.test.inputs)


def variety(of: Problem, labelled: Rows, chosen: Rows, near: float) -> dict[str, float]:
    """How unlike the chosen examples are each other and those labelled before.

    The nearest is that of the batch, in units of `near`; a near-duplicate is closer than `near` to
    one of the batch or of those labelled before.
    """
    flat = of.pool.inputs.flatten(1)
    own = torch.cdist(flat[chosen], flat[chosen]).fill_diagonal_(torch.inf).amin(1)
    before = torch.cdist(flat[chosen], flat[labelled]).amin(1)
    found = {
        "nearest": float(own.mean()) / near,
        "near-duplicates": float((torch.minimum(own, before) < near).double().mean()),
    }
    if of.loss == "cross_entropy":
        found["classes"] = float(len(set(of.pool.targets[chosen].tolist())))
    return found
