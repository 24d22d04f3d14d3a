"""`collect`: the draw of a mini-batch answers for it as train mode does."""

from typing import Any

import torch
from torch.utils.data import DataLoader
from zoo.found import left_as_found
from zoo.guest import DRAWS, TRAINING, Guest, WrongError

import mcbn


def _collected(guest: Guest, batches: Any, mini_batches: list[Any], **options: Any) -> None:
    """Collect, and compare each draw on its own mini-batch with train mode on a copy."""
    network = guest.fresh()
    with left_as_found(network):
        bank = mcbn.collect(network, batches, progress=False, **options)
    if len(bank) != DRAWS or bank.size != guest.stranger.batch_size:
        raise WrongError(f"{len(bank)} draws of M = {bank.size:g}")
    for draw in range(DRAWS):
        expected = guest.in_training(mini_batches[draw])
        actual = guest.answers(mini_batches[draw], [bank.state(draw)])[0]
        guest.near(actual, expected, f"draw {draw} against train mode")


def collect_minibatches(guest: Guest) -> None:
    stranger = guest.stranger
    batches = mcbn.minibatches(
        stranger.examples(40, TRAINING), batch_size=stranger.batch_size, draws=DRAWS,
        collate=stranger.collate, select=lambda batch: batch,
    )  # fmt: skip
    _collected(guest, batches, [batches[draw] for draw in range(DRAWS)])


def collect_loader(guest: Guest) -> None:
    stranger = guest.stranger
    examples = stranger.examples(stranger.batch_size * DRAWS + 3, TRAINING)
    loader = DataLoader(
        examples, stranger.batch_size, collate_fn=stranger.collate, generator=torch.Generator()
    )
    _collected(guest, loader, list(loader), draws=DRAWS, select=lambda batch: batch)
