"""`inspect`, and the commands: doctor, collect and predict, each on files."""

import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from zoo.found import left_as_found
from zoo.guest import DRAWS, AbsentError, Guest, RefusedError, states

import mcbn
from mcbn.cli.network import collect, doctor
from mcbn.cli.options.network import CollectOptions, DoctorOptions, PredictOptions
from mcbn.cli.options.parts import NetworkOptions
from mcbn.cli.predict import predict

CHUNK = 5  # examples per pass
BUILD = f"{__name__}:build"
NETWORK = NetworkOptions(BUILD)


def inspect(guest: Guest) -> list[str]:
    """Says what `collect` and the samplers say: the findings are its warnings and refusals."""
    network, inputs = guest.fresh(), guest.inputs(16)
    with left_as_found(network, inputs):
        found = mcbn.inspect(network, inputs, batch_size=guest.stranger.batch_size)
    texts = [finding.text for finding in found.findings]
    if not found.servable:
        raise RefusedError(" ".join(f.text for f in found.findings if f.blocking))
    return texts


_guests: list[Guest] = []


def build() -> nn.Module:
    """What the command line is told to build: the network in question."""
    return _guests[-1].fresh()


@contextmanager
def _file_of_inputs(guest: Guest, inputs: Any) -> Iterator[str]:
    """A folder with the inputs in data.npz, while `build` builds the guest's network."""
    alone = guest.stranger.output is None and not guest.stranger.whole
    if not isinstance(inputs, Tensor) or inputs.dtype != torch.float32 or not alone:
        raise AbsentError("the command line takes a table of numbers")
    _guests.append(guest)
    try:
        with tempfile.TemporaryDirectory() as folder:
            np.savez(f"{folder}/data.npz", inputs=inputs.detach().numpy())
            yield folder
    finally:
        _guests.pop()


def by_doctor(guest: Guest) -> list[str]:
    printed, size = io.StringIO(), guest.stranger.batch_size
    with (
        _file_of_inputs(guest, guest.inputs(16)) as folder,
        redirect_stdout(printed),
        suppress(SystemExit),
    ):
        doctor(DoctorOptions(NETWORK, data=f"{folder}/data.npz", batch_size=size, json=True))
    found = json.loads(printed.getvalue())
    if not found["servable"]:
        raise RefusedError(" ".join(f["text"] for f in found["findings"] if f["blocking"]))
    return [finding["text"] for finding in found["findings"]]


def by_commands(guest: Guest) -> None:
    """A bank collected and predictions made from files alone, by the commands."""
    inputs, size = guest.inputs(), guest.stranger.batch_size
    kind = "gaussian" if guest.stranger.gaussian else "categorical"
    with _file_of_inputs(guest, inputs) as folder, redirect_stdout(io.StringIO()):
        data, bank, out = (f"{folder}/{name}" for name in ("data.npz", "bank.st", "out.st"))
        collect(CollectOptions(NETWORK, data, bank, batch_size=size, draws=DRAWS))
        predict(PredictOptions(NETWORK, data, out, bank=bank, batch_size=CHUNK, likelihood=kind,
                               precision=1.0 if kind == "gaussian" else None))  # fmt: skip
        drawn = states(mcbn.Bank.load(bank))
        found = mcbn.read_predictions(out).predictive
    first = mcbn.minibatches(guest.inputs(), batch_size=size, draws=DRAWS)[0]
    guest.near(guest.answers(first, drawn[:1])[0], guest.in_training(first), "the first draw")
    answers = guest.answers(guest.inputs(), drawn).double()
    if guest.stranger.gaussian:
        guest.near(found.mean, answers.mean(0), "the means")
    else:
        guest.near(found.probabilities, answers.softmax(2).mean(0), "the probabilities")
