"""A task takes what users hold, and its digest tells any other value."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import mcbn
from mcbn.network.targets import select_targets
from mcbn.tasks.digests import digest_of
from mcbn.tasks.examples import LabeledData, LabeledDataset

INPUTS = torch.arange(24.0).reshape(8, 3)
TARGETS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


class Noisy(Dataset):
    """Examples whose inputs are noisy, as a random transform makes them."""

    def __init__(self, inputs: Tensor = INPUTS) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs[index] + torch.rand(3), int(TARGETS[index])


class Stream(IterableDataset):
    """Examples without a number."""

    def __iter__(self) -> Any:
        return iter([(INPUTS[0], 0)])


PAIRS = TensorDataset(INPUTS, TARGETS)
HELD: dict[str, Any] = {
    "a pair of tensors": (INPUTS, TARGETS),
    "a pair of arrays": (INPUTS.numpy(), TARGETS.numpy()),
    "a frame and a column": (pd.DataFrame(INPUTS.numpy()), pd.Series(TARGETS.numpy())),
    "a data set": PAIRS,
    "a part of one": Subset(PAIRS, range(8)),
    "a loader that shuffles": DataLoader(PAIRS, batch_size=3, shuffle=True),
    "a list of examples": [PAIRS[index] for index in range(8)],
    "labelled data": LabeledData(INPUTS, TARGETS),
}


def task(train: Any = PAIRS, **others: Any) -> mcbn.Task:
    return mcbn.Task(train, PAIRS, PAIRS, **others)


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
def test_every_holder_gives_the_same_examples(held: Any) -> None:
    train = task(held).train
    assert len(train) == 8
    assert torch.equal(train.targets, TARGETS)
    inputs, targets = train.batch(torch.tensor([6, 2]))
    assert torch.equal(inputs, INPUTS[[6, 2]])
    assert torch.equal(targets, TARGETS[[6, 2]])
    part = train.rows(torch.tensor([5, 0]))
    assert torch.equal(part.targets, TARGETS[[5, 0]])
    assert torch.equal(part.batch(torch.tensor([0]))[0], INPUTS[[5]])


def test_inputs_of_a_data_set_are_loaded_in_order() -> None:
    loader = DataLoader(Subset(PAIRS, range(8)), batch_size=3, shuffle=True)
    with torch.random.fork_rng():  # from which a loader takes a seed
        batches = list(task(loader).train.inputs)
    assert [len(batch[0]) for batch in batches] == [3, 3, 2]
    assert torch.equal(torch.cat([batch[0] for batch in batches]), INPUTS)
    assert torch.equal(torch.cat([select_targets(batch) for batch in batches]), TARGETS)


@pytest.mark.parametrize(
    ("part", "error", "words"),
    [
        (Stream(), TypeError, "train as a pair"),
        ([INPUTS, TARGETS, TARGETS], TypeError, "got list"),
        (INPUTS, TypeError, "got Tensor"),
        ((INPUTS, TARGETS[:5]), ValueError, "as many targets"),
        ((INPUTS[:0], TARGETS[:0]), ValueError, "at least one value"),
        ((INPUTS, ["a"] * 8), TypeError, "targets of train"),
    ],
)
@pytest.mark.unchecked
def test_other_parts_are_refused(part: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        task(part)


def test_real_targets_make_a_regression() -> None:
    pair = INPUTS, INPUTS.sum(1, keepdim=True)
    real = mcbn.Task(pair, pair, pair, units="MPa")
    assert real.regression
    assert (real.output_count, real.input_shape) == (1, (3,))
    assert not task().regression
    assert (task().output_count, task(classes=tuple("abcd")).output_count) == (3, 4)
    with pytest.raises(ValueError, match="class indices"):
        mcbn.Task(pair, pair, pair, classes=("a", "b"))


def test_real_targets_have_names_and_units() -> None:
    pair = (torch.zeros(4, 2), torch.zeros(4, 2))
    real = mcbn.Task(pair, pair, pair, outputs=("strength", "weight"), units="MPa")
    assert (real.outputs, real.units) == (("strength", "weight"), ("MPa",))
    assert mcbn.Task(pair, pair, pair, units=("MPa", "kg")).units == ("MPa", "kg")
    assert mcbn.Task(pair, pair, pair).units == ()
    one = (torch.zeros(4, 2), torch.zeros(4))
    classes = (torch.zeros(4, 2), torch.zeros(4).long())
    wrong: list[tuple[Any, dict[str, Any]]] = [
        (pair, {"outputs": ("strength",)}),
        (pair, {"units": ("a", "b", "c")}),
        (one, {"units": ("a", "b")}),
        (classes, {"units": "MPa"}),
    ]
    for part, names in wrong:
        with pytest.raises(ValueError, match=r"expected the (outputs|units) of . real targets"):
            mcbn.Task(part, part, part, **names)


def test_unlabelled_positions_are_no_class() -> None:
    marked = TARGETS.clone()
    marked[0] = 255
    assert task((INPUTS, marked), ignore_index=255).output_count == 3


OTHERS: dict[str, Callable[[], mcbn.Task]] = {
    "an input": lambda: task((INPUTS.index_put((torch.tensor(0),), torch.tensor(0.5)), TARGETS)),
    "a target": lambda: task((INPUTS, TARGETS.flip(0))),
    "the shape": lambda: task((INPUTS.reshape(8, 3, 1), TARGETS)),
    "the type": lambda: task((INPUTS.double(), TARGETS)),
    "one example fewer": lambda: task((INPUTS[:-1], TARGETS[:-1])),
    "an outside set": lambda: task(outside={"far": INPUTS}),
    "the classes": lambda: task(classes=("a", "b", "c")),
    "another part": lambda: mcbn.Task(PAIRS, PAIRS, Subset(PAIRS, range(7))),
    "the order of a part": lambda: task(Subset(PAIRS, list(range(8))[::-1])),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_any_other_value_has_another_digest(other: Callable[[], mcbn.Task]) -> None:
    assert digest_of(task()) == digest_of(task((INPUTS.numpy(), TARGETS.numpy())))
    assert digest_of(other()) != digest_of(task())
    assert digest_of(other()) == digest_of(other())


def test_a_random_transform_has_one_digest() -> None:
    assert digest_of(task(Noisy())) == digest_of(task(Noisy()))
    assert digest_of(task(Noisy())) != digest_of(task(Noisy(INPUTS + 1)))


class Unknown(Dataset):
    """Examples that hold an object."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Tensor, int, object]:
        return INPUTS[index], 0, object()


def test_what_has_no_value_is_refused() -> None:
    with pytest.raises(TypeError, match="expected examples of tensors"):
        digest_of(task(Unknown()))


def test_pictures_are_digested_as_files(tmp_path: Any) -> None:
    image = pytest.importorskip("PIL.Image")
    folders = pytest.importorskip("torchvision.datasets")
    for place in ("one", "two"):
        for index in range(3):
            path = tmp_path / place / "cat" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.fromarray(np.full((2, 2, 3), index, np.uint8)).save(path)

    def made(place: str, scale: float = 1.0) -> mcbn.Task:
        def transform(picture: Any) -> Tensor:
            return torch.from_numpy(np.asarray(picture) * scale).float()

        return task(folders.ImageFolder(tmp_path / place, transform=transform))

    assert digest_of(made("one")) == digest_of(made("two"))
    assert digest_of(made("one", 0.5)) == digest_of(made("one", 0.5))
    # The first picture is black, so its scale does not show; the second does not count.
    image.fromarray(np.full((2, 2, 3), 9, np.uint8)).save(tmp_path / "two" / "cat" / "2.png")
    assert digest_of(made("one")) != digest_of(made("two"))


def test_a_loader_keeps_its_collate_and_workers() -> None:
    def collate(examples: list[Any]) -> Any:
        return torch.stack([each[0] for each in examples]) * 2, torch.tensor([0] * len(examples))

    held = task(DataLoader(Subset(PAIRS, range(8)), batch_size=2, collate_fn=collate)).train
    assert isinstance(held, LabeledDataset)
    assert torch.equal(held.batch(torch.tensor([1]))[0], 2 * INPUTS[[1]])
    assert (held.batch_size, held.num_workers) == (2, 0)
