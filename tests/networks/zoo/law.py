"""The law of the zoo: every entry answers every network exactly, refuses in words, or warns.

An entry is a way into the package. It is asked of a fresh network; its answer is compared with what
PyTorch alone computes on copies. What comes of it is one of the verdicts.
"""

import io
import json
import re
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import DataLoader, Dataset
from zoo.guest import (
    DRAWS,
    EXAMPLES,
    FEW,
    TESTING,
    TRAINING,
    Guest,
    WrongError,
    called,
    left_as_found,
    pristine,
    states,
)
from zoo.stranger import ABSENT, CLASSES, EXACT, REFUSED, WARNED, Stranger, stacked

import mcbn
from mcbn.cli.network import doctor
from mcbn.cli.options import DoctorOptions
from mcbn.network.dropout import dropout_masks
from mcbn.network.isolation import StreamStates

WRONG = "wrong"
PACKAGE = str(Path(mcbn.__file__).parent)
CHUNK, LOADED = 5, 6  # examples per pass, and per batch of a loader
ENGINES = ("auto", "loop", "batched", "folded")


@dataclass(frozen=True)
class Verdict:
    """What came of asking one entry of one network, and its words."""

    kind: str
    text: str = ""


class AbsentError(Exception):
    """There is no sense in asking this of the network."""


class RefusedError(Exception):
    """A refusal that is not raised but said, as `inspect` does."""


def verdict(stranger: Stranger, entry: str) -> Verdict:
    """Ask an entry of a network."""
    said: list[str] = []
    streams = StreamStates.now()  # whatever an entry does to them is its own verdict
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            said += ENTRIES[entry](Guest(stranger)) or []
            found = Verdict(EXACT)
        except AbsentError as error:
            return Verdict(ABSENT, str(error))
        except WrongError as error:
            found = Verdict(WRONG, str(error))
        except RefusedError as error:
            found = _named(stranger, entry, Verdict(REFUSED, str(error)))
        except (ValueError, TypeError) as error:
            found = _named(stranger, entry, _refusal(error))
        except Exception as error:
            found = Verdict(WRONG, f"raw {type(error).__name__}: {error}"[:300])
        finally:
            streams.restore()
    if found.kind == REFUSED or "as found" in found.text:
        return found
    said += [str(warning.message) for warning in seen]
    told = [text for text in said if stranger.words and re.search(stranger.words, text)]
    return Verdict(WARNED, told[0]) if told else found


def _refusal(error: Exception) -> Verdict:
    """A refusal in our words, or an error that came through raw."""
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    text = str(error)
    if place.startswith(PACKAGE) and "expected" in text and "got" in text:
        return Verdict(REFUSED, text)
    return Verdict(WRONG, f"raw {type(error).__name__}: {text}"[:300])


def _named(stranger: Stranger, entry: str, found: Verdict) -> Verdict:
    """A refusal counts only where it names what it is about; linearising has reasons of its own."""
    words = "" if entry == "linearized" else stranger.words
    if found.kind == REFUSED and words and not re.search(words, found.text):
        return Verdict(WRONG, f"refused for another reason: {found.text}"[:300])
    return found


# --- collect ------------------------------------------------------------------------------------


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


# --- samplers -----------------------------------------------------------------------------------


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
    if not gap <= 0.3 * spread + 1e-6 * expected.abs().max():
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
            with dropout_masks(copy, 0, draw), torch.no_grad():
                rows.append(guest.picked(called(copy, guest.inputs())))
        return torch.stack(rows)

    _sampled(guest, sampler, network, answers, "masked")


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


def switch(guest: Guest) -> None:
    """After plain attributes were changed, a new sampler answers for the new network."""
    stranger = guest.stranger
    if stranger.switch is None:
        raise AbsentError("nothing to switch")
    inputs, network = guest.inputs(), guest.fresh()
    make = mcbn.MCBatchNorm
    for engine in ENGINES:
        make(network, guest.bank, engine=engine, output=stranger.output)(guest.inputs())
    stranger.switch(network)
    expected = guest.answers(inputs, states(guest.bank), switched=True)
    for engine in ENGINES:
        sampler = make(network, guest.bank, engine=engine, output=stranger.output)
        guest.near(sampler(guest.inputs()), expected, f"{engine} after the switch")


# --- predict, compare and the bank --------------------------------------------------------------


class Listed(Dataset):
    """A data set of a list of examples."""

    def __init__(self, examples: list[Any]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        return pristine(self.examples[index])


def _sampler(guest: Guest, network: nn.Module) -> mcbn.MCBatchNorm:
    return mcbn.MCBatchNorm(network, guest.bank, output=guest.stranger.output)


def _predicted(guest: Guest, data: Any, batches: list[Any], **options: Any) -> None:
    """Predict, and compare with the right answers for whole batches."""
    network, gaussian = guest.fresh(), guest.stranger.gaussian
    with left_as_found(network, data if isinstance(data, Tensor) else ()):
        predictive = mcbn.predict(
            _sampler(guest, network), data, mcbn.Gaussian(1.0) if gaussian else "categorical",
            keep_draws=not gaussian, progress=False, **options,
        )  # fmt: skip
    draws = predictive.means if gaussian else predictive.draws
    expected = [guest.answers(batch, states(guest.bank)) for batch in batches]
    guest.near(draws, torch.cat(expected, 1), "the draws of the predictive")
    if not gaussian:
        right = draws.double().softmax(2).mean(0)
        guest.near(predictive.probabilities, right, "the probabilities")


def predict_tensor(guest: Guest) -> None:
    inputs = guest.inputs()
    if not isinstance(inputs, Tensor) or guest.stranger.whole:
        raise AbsentError("no tensor with an example per row")
    _predicted(guest, inputs, [guest.inputs()], batch_size=CHUNK)


def _as_called(batch: Any) -> Any:
    """What PyTorch's own collate made of a tuple is a list."""
    return tuple(batch) if isinstance(batch, list) else batch


def predict_dataset(guest: Guest) -> None:
    stranger, inputs = guest.stranger, guest.inputs()
    if stranger.collate is not stacked or stranger.whole:
        raise AbsentError("its examples need a collate of their own")
    data = Listed(stranger.examples(len(_first(inputs)), TESTING))
    _predicted(guest, data, [inputs], batch_size=CHUNK, select=_as_called)


def _first(inputs: Any) -> Any:
    while not isinstance(inputs, Tensor):
        inputs = next(iter(inputs.values() if isinstance(inputs, dict) else inputs))
    return inputs


def _loader(guest: Guest) -> DataLoader:
    examples = Listed(guest.stranger.examples(3 * LOADED + 2, TESTING))
    collate = guest.stranger.collate
    return DataLoader(examples, LOADED, collate_fn=collate, generator=torch.Generator())


def predict_loader(guest: Guest) -> None:
    """Whole batches, as the loader gives them."""
    _predicted(guest, _loader(guest), list(_loader(guest)), select=lambda batch: batch)


def predict_regrouped(guest: Guest) -> None:
    """Batches of another size than the loader's: cut where they may be, else refused."""
    _predicted(guest, _loader(guest), list(_loader(guest)), select=lambda batch: batch,
               batch_size=4)  # fmt: skip


def compare(guest: Guest) -> None:
    inputs, stranger = guest.inputs(), guest.stranger
    if not isinstance(inputs, Tensor) or stranger.gaussian or stranger.whole:
        raise AbsentError("takes a tensor of examples of classes")
    network, output = guest.fresh(), stranger.output
    samplers = {
        "plain": mcbn.Deterministic(network, output=output),
        "MCBN": _sampler(guest, network),
    }
    targets = torch.arange(EXAMPLES) % CLASSES
    with left_as_found(network, inputs):
        found = mcbn.compare(samplers, inputs, targets, resamples=10, progress=False).entries
    expected = torch.cat([guest.right("none"), guest.right()]).double().softmax(2)
    guest.near(found["plain"].predictive.probabilities, expected[0], "plain")
    guest.near(found["MCBN"].predictive.probabilities, expected[1:].mean(0), "MCBN")


def bank(guest: Guest) -> None:
    """A bank comes back from its file, thinned and rescaled, and fits the network."""
    network, inputs = guest.fresh(), guest.inputs()
    with tempfile.TemporaryDirectory() as folder:
        guest.bank.save(f"{folder}/bank.st")
        loaded = mcbn.Bank.load(f"{folder}/bank.st").rescale(guest.bank.size).thin(2)
    actual = mcbn.MCBatchNorm(network, loaded, output=guest.stranger.output)(inputs)
    expected = guest.answers(guest.inputs(), states(loaded))
    guest.near(actual, expected, "two draws of the bank")


# --- inspect and doctor -------------------------------------------------------------------------


def inspect(guest: Guest) -> list[str]:
    """Says what `collect` and the samplers say: the findings are its warnings and refusals."""
    network, inputs = guest.fresh(), guest.inputs(16)
    with left_as_found(network, inputs):
        found = mcbn.inspect(network, inputs, batch_size=guest.stranger.batch_size)
    texts = [finding.text for finding in found.findings]
    if not found.servable:
        raise RefusedError(" ".join(f.text for f in found.findings if f.blocking))
    return texts


_networks: list[nn.Module] = []


def build() -> nn.Module:
    """What the command line is told to build: the network in question."""
    return _networks.pop()


def by_doctor(guest: Guest) -> list[str]:
    inputs = guest.inputs(16)
    if not isinstance(inputs, Tensor) or inputs.dtype != torch.float32 or guest.stranger.whole:
        raise AbsentError("takes a table of numbers")
    _networks.append(guest.fresh())
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(printed):
        np.savez(f"{folder}/data.npz", inputs=inputs.numpy())
        size = guest.stranger.batch_size
        options = DoctorOptions("zoo.law:build", None, f"{folder}/data.npz", size, json=True)
        with suppress(SystemExit):
            doctor(options)
    found = json.loads(printed.getvalue())
    if not found["servable"]:
        raise RefusedError(" ".join(f["text"] for f in found["findings"] if f["blocking"]))
    return [finding["text"] for finding in found["findings"]]


ENTRIES: dict[str, Callable[[Guest], list[str] | None]] = {
    "collect minibatches": collect_minibatches,
    "collect loader": collect_loader,
    **{f"mcbn {engine}": (lambda g, engine=engine: by_engine(engine, g)) for engine in ENGINES},
    "linearized": linearized,
    "dropout": dropout,
    "ensemble": ensemble,
    "deterministic": deterministic,
    "switch": switch,
    "predict tensor": predict_tensor,
    "predict dataset": predict_dataset,
    "predict loader": predict_loader,
    "predict regrouped": predict_regrouped,
    "compare": compare,
    "bank": bank,
    "inspect": inspect,
    "doctor": by_doctor,
}
