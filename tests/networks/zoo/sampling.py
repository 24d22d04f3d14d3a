"""The samplers: draws are what PyTorch answers under each state, on copies."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Any
from unittest.mock import patch

import torch
from posteriors import Posterior
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import DataLoader
from zoo.found import left_as_found
from zoo.guest import FEW, AbsentError, Guest, WrongError, called, pristine, states

import mcbn
from mcbn.network.batchnorm import unwrapped
from mcbn.network.dropout import DrawnMasks, dropout_masks, has_dropout
from mcbn.network.inputs import map_inputs
from mcbn.network.insertion import inserted_masks, insertion_sites
from mcbn.network.isolation import random_streams
from mcbn.samplers import vmap

ENGINES = ("auto", "loop", "batched", "folded")
RATE = 0.2  # of dropout that is put in
SMALL_PASS = 60  # values in the largest tensor of a pass, so that a few rows fit


def _sampled(
    guest: Guest, sampler: Any, network: nn.Module, answers: Callable[[], Tensor], what: str
) -> None:
    """Ask a sampler for all examples, and for a few of them."""
    inputs = guest.inputs()
    bank = guest.bank if isinstance(sampler, mcbn.MCBatchNorm) else None
    with left_as_found(network, inputs, bank):
        actual = sampler(inputs)
    expected = answers()
    guest.near(actual, expected, what)
    if not guest.stranger.whole:
        few = guest.inputs(FEW)
        with left_as_found(network, few):
            actual = sampler(few)
        guest.near(actual, expected[:, :FEW], f"{what}, {FEW} examples alone")


def by_engine(engine: Any, guest: Guest) -> None:
    network = guest.fresh()
    for layers in ("all", "the last"):
        sampler = mcbn.MCBatchNorm(
            network, guest.bank, engine=engine, output=guest.stranger.output,
            layers=None if layers == "all" else 1,
        )  # fmt: skip
        _sampled(guest, sampler, network, partial(guest.right, layers), f"{layers} layers")


def linearized(guest: Guest) -> None:
    """Near the mean of the bank the network is linear, so all draws are known."""
    network, bank = guest.fresh(), guest.bank
    near = {name: v.mean(0).lerp(v, 0.01) for name, v in bank.statistics.items()}
    bank = replace(bank, statistics=near)
    sampler = mcbn.LinearizedBatchNorm(network, bank, exact=2, output=guest.stranger.output)
    inputs = guest.inputs(FEW)
    with left_as_found(network, inputs):
        actual = sampler(inputs)
    expected = guest.answers(guest.inputs(FEW), states(bank))
    guest.near(actual[:2], expected[:2], "the exact draws")
    spread = (expected - expected.mean(0)).square().mean().sqrt()
    gap = (actual - expected).square().mean().sqrt()
    rounding = 0.1 * guest.stranger.tolerance * max(1.0, float(expected.abs().max()))
    if not gap <= 0.3 * spread + rounding:
        raise WrongError(f"linear draws off by {float(gap / spread):.0%} of their spread")


def dropout(guest: Guest) -> None:
    """Each draw is what a fresh network answers under its masks."""
    network, output = guest.fresh(), guest.stranger.output
    if not any(isinstance(m, _DropoutNd) and m.p > 0 for m in network.modules()):
        raise AbsentError("no dropout")
    sampler = mcbn.MCDropout(network, draws=3, output=output)

    def answers() -> Tensor:
        rows = []
        for draw in range(3):
            copy = guest.fresh()
            with dropout_masks(copy, DrawnMasks(0, draw)), torch.no_grad():
                rows.append(guest.picked(called(copy, guest.inputs())))
        return torch.stack(rows)

    _sampled(guest, sampler, network, answers, "masked")


def inserted(guest: Guest) -> None:
    """Each draw is what a fresh network answers with dropout of the same masks put in."""
    network, output = guest.fresh(), guest.stranger.output
    if has_dropout(network):
        raise AbsentError("dropout of its own")
    sampler = mcbn.MCDropout(network, draws=3, insert=RATE, output=output)

    def answers() -> Tensor:
        rows = []
        for draw in range(3):
            copy = unwrapped(guest.fresh())
            sites = insertion_sites(copy, "classifier")
            masks = inserted_masks(copy, sites, RATE, DrawnMasks(0, draw))
            with masks, torch.no_grad(), random_streams(0, "zoo"):
                rows.append(guest.picked(called(copy, guest.inputs())))
        return torch.stack(rows)

    _sampled(guest, sampler, network, answers, "masked")


def _scaled(factor: float, inputs: Any) -> Any:
    """Inputs, or one example of them, with all real numbers multiplied."""
    return map_inputs(lambda x: x * factor if x.is_floating_point() else x, inputs)


def augmented(guest: Guest) -> None:
    """Draw t is what the network answers under draw t of the bank for inputs under transform t."""
    network, drawn = guest.fresh(), states(guest.bank)
    factors = [1 + 0.1 * draw for draw in range(len(drawn))]
    sampler = mcbn.Augmented(
        mcbn.MCBatchNorm(network, guest.bank, output=guest.stranger.output),
        [partial(_scaled, factor) for factor in factors],
    )
    inputs = guest.inputs()
    with left_as_found(network, inputs, guest.bank):
        actual = sampler(inputs)
    expected = [
        guest.answers(_scaled(factor, guest.inputs()), [state])[0]
        for factor, state in zip(factors, drawn, strict=True)
    ]
    guest.near(actual, torch.stack(expected), "augmented")


def laplace(guest: Guest) -> None:
    """Each draw is what a fresh network answers with that draw's weights in its last layer."""
    network, stranger = guest.fresh(), guest.stranger
    labelled = [(inputs, _labels(guest, inputs)) for inputs in
                (guest.batch(stranger.batch_size, 100 + step) for step in range(3))]  # fmt: skip
    sampler = mcbn.LastLayerLaplace.fit(
        network, DataLoader(labelled, batch_size=None, collate_fn=lambda pair: pair),
        draws=3, prior_precision=1.0, output=stranger.output, select=itemgetter(0), progress=False,
    )  # fmt: skip

    def answers() -> Tensor:
        rows = []
        for draw in range(3):
            copy = guest.fresh()
            layer, drawn = unwrapped(copy).get_submodule(sampler.layer), sampler.weights(draw)
            layer.forward = partial(_product, layer.bias is not None, drawn)
            with torch.no_grad(), random_streams(0, "zoo"):
                rows.append(guest.picked(called(copy, guest.inputs())))
        return torch.stack(rows)

    _sampled(guest, sampler, network, answers, "last layer")


def _labels(guest: Guest, inputs: Any) -> Tensor:
    """Some class for each of the network's outputs."""
    with torch.no_grad(), random_streams(0, "zoo"):
        outputs = guest.picked(called(guest.fresh(), pristine(inputs)))
    return torch.arange(len(outputs)) % outputs.shape[-1]


def _product(biased: bool, weights: Tensor, features: Tensor) -> Tensor:
    """What a dense layer makes of its inputs with other weights."""
    weights = weights.to(features)
    if not biased:
        return nn.functional.linear(features, weights)
    return nn.functional.linear(features, weights[:, :-1], weights[:, -1])


def posterior(guest: Guest) -> None:
    """Each draw is what a fresh network answers with all weights of that draw."""
    network = guest.fresh()
    found = Posterior(unwrapped(network), 0.02)
    if not found.params:
        raise AbsentError("no weights")
    sampler = mcbn.LaplaceSampler(found, draws=3, output=guest.stranger.output)

    def answers() -> Tensor:
        rows = []
        for draw in range(3):
            with random_streams(0, "laplace", draw):
                drawn = found.sample(1)[0]
            copy = guest.fresh()
            parameters = [p for p in copy.parameters() if p.requires_grad]
            pieces = drawn.split([p.numel() for p in parameters])
            with torch.no_grad(), random_streams(0, "zoo"):
                for parameter, piece in zip(parameters, pieces, strict=True):
                    parameter.copy_(piece.view(parameter.shape))
                rows.append(guest.picked(called(copy, guest.inputs())))
        return torch.stack(rows)

    _sampled(guest, sampler, network, answers, "all weights")


def ensemble(guest: Guest) -> None:
    network = guest.fresh()
    sampler = mcbn.DeepEnsemble([network] * 3, output=guest.stranger.output)
    _sampled(
        guest,
        sampler,
        network,
        lambda: guest.right("none").expand(3, *guest.right("none").shape[1:]),
        "three members",
    )


def deterministic(guest: Guest) -> None:
    network = guest.fresh()
    sampler = mcbn.Deterministic(network, output=guest.stranger.output)
    _sampled(guest, sampler, network, partial(guest.right, "none"), "plain")


def in_pieces(guest: Guest) -> None:
    """All examples, where a pass may hold the values of a few of them alone."""
    sizes = ("DENSE_VALUES", "IMAGE_VALUES", "HEAVY_VALUES")
    with ExitStack() as stack:
        for size in sizes:
            stack.enter_context(patch.object(vmap, size, SMALL_PASS))
        for engine in ("folded", "batched"):
            network = guest.fresh()
            output = guest.stranger.output
            sampler = mcbn.MCBatchNorm(network, guest.bank, engine=engine, output=output)
            guest.near(sampler(guest.inputs()), guest.right(), f"{engine}, in pieces")


def switch(guest: Guest) -> None:
    """After plain attributes were changed, samplers answer for the new network, old ones too."""
    stranger = guest.stranger
    if stranger.switch is None:
        raise AbsentError("nothing to switch")
    inputs, network = guest.inputs(), guest.fresh()
    make = partial(mcbn.MCBatchNorm, network, guest.bank, output=stranger.output)
    before = {engine: make(engine=engine) for engine in ENGINES}
    for sampler in before.values():
        sampler(guest.inputs())
    stranger.switch(network)
    expected = guest.answers(inputs, states(guest.bank), switched=True)
    for engine, old in before.items():
        new = make(engine=engine)
        guest.near(new(guest.inputs()), expected, f"{engine}, made after the switch")
        guest.near(old(guest.inputs()), expected, f"{engine}, made before the switch")
