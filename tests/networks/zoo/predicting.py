"""`predict` over every kind of data, `compare`, and banks from files."""

import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from zoo.found import left_as_found
from zoo.guest import EXAMPLES, TESTING, AbsentError, Guest, pristine, states
from zoo.stranger import CLASSES, stacked

import mcbn

CHUNK = 5  # examples per pass
LOADED = (6, 6, 6, 2)  # examples in the batches of a loader


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


def _predicted(guest: Guest, data: Any, sizes: tuple[int, ...], **options: Any) -> None:
    """Predict, and compare with the right answers for batches of these sizes."""
    network, gaussian = guest.fresh(), guest.stranger.gaussian
    with left_as_found(network, data if isinstance(data, Tensor) else ()):
        predictive = mcbn.predict(
            _sampler(guest, network), data, mcbn.Gaussian(1.0) if gaussian else "categorical",
            keep_draws=not gaussian, progress=False, **options,
        )  # fmt: skip
    draws = predictive.means if gaussian else predictive.draws
    guest.near(draws, guest.right_in_batches(*sizes), "the draws of the predictive")
    if not gaussian:
        right = draws.double().softmax(2).mean(0)
        guest.near(predictive.probabilities, right, "the probabilities")


def predict_tensor(guest: Guest) -> None:
    inputs = guest.inputs()
    if not isinstance(inputs, Tensor) or guest.stranger.whole:
        raise AbsentError("no tensor with an example per row")
    _predicted(guest, inputs, (EXAMPLES,), batch_size=CHUNK)


def _as_called(batch: Any) -> Any:
    """What PyTorch's own collate made of a tuple is a list."""
    return tuple(batch) if isinstance(batch, list) else batch


def predict_dataset(guest: Guest) -> None:
    stranger = guest.stranger
    if stranger.collate is not stacked or stranger.whole:
        raise AbsentError("its examples need a collate of their own")
    data = Listed(stranger.examples(EXAMPLES, TESTING))
    _predicted(guest, data, (EXAMPLES,), batch_size=CHUNK, select=_as_called)


def _loader(guest: Guest) -> DataLoader:
    examples = Listed(guest.stranger.examples(sum(LOADED), TESTING))
    collate = guest.stranger.collate
    return DataLoader(examples, LOADED[0], collate_fn=collate, generator=torch.Generator())


def predict_loader(guest: Guest) -> None:
    """Whole batches, as the loader gives them."""
    _predicted(guest, _loader(guest), LOADED, select=lambda batch: batch)


def predict_regrouped(guest: Guest) -> None:
    """Batches of another size than the loader's: cut where they may be, else refused."""
    _predicted(guest, _loader(guest), LOADED, select=lambda batch: batch, batch_size=4)


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
