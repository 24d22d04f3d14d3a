"""Targets as users hold them become one tensor, or are refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mcbn.network.targets import as_targets, joined_targets, select_targets

CLASSES = torch.tensor([3, 1, 4, 1, 5])


class Named(Dataset):
    """Examples that are dicts."""

    def __len__(self) -> int:
        return len(CLASSES)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"image": torch.zeros(2), "label": int(CLASSES[index]), "index": index}


PAIRS = TensorDataset(torch.zeros(5, 2), CLASSES)


@pytest.mark.parametrize(
    "held",
    [
        CLASSES,
        CLASSES.numpy(),
        CLASSES.tolist(),
        pd.Series(CLASSES.numpy(), index=list("edcba")),
        pd.DataFrame({"class": CLASSES.numpy()}),
        PAIRS,
        Named(),
        DataLoader(PAIRS, batch_size=2),
        DataLoader(Named(), batch_size=2, num_workers=2),
    ],
    ids=lambda held: type(held).__name__,
)
def test_whatever_holds_targets_gives_the_same_tensor(held: object) -> None:
    assert torch.equal(as_targets(held), CLASSES)


def test_a_frame_of_several_columns_keeps_them() -> None:
    values = np.arange(6.0).reshape(3, 2)
    assert torch.equal(as_targets(pd.DataFrame(values)), torch.from_numpy(values))


def test_an_array_of_one_column_keeps_its_shape() -> None:
    assert as_targets(np.zeros((4, 1))).shape == (4, 1)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (pd.Series(["cat", "dog"]), "cat"),
        (np.array(["cat", "dog"]), "cat"),
        ("cat", "str"),
        ({"labels": [1, 2]}, "dict"),
        (5, "int"),
        (None, "NoneType"),
    ],
)
def test_what_holds_no_numbers_is_refused(held: object, words: str) -> None:
    with pytest.raises(TypeError, match=f"expected targets.*{words}"):
        as_targets(held)


def test_a_shuffling_loader_is_refused() -> None:
    with pytest.raises(ValueError, match="shuffle=False"):
        as_targets(DataLoader(PAIRS, shuffle=True))


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {"image": torch.zeros(3)},
        {"label": torch.zeros(3), "target": torch.zeros(3)},
        (torch.zeros(3), ["cat", "dog", "cat"]),
    ],
    ids=["tensor", "inputs alone", "no label", "two labels", "texts"],
)
def test_a_batch_without_one_target_is_refused(batch: object) -> None:
    with pytest.raises(TypeError, match="expected batches of inputs and their targets"):
        select_targets(batch)


def test_targets_of_several_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        joined_targets([torch.zeros(2, 3), torch.zeros(2, 4)])


def test_targets_of_a_graph_are_its_y() -> None:
    graphs = pytest.importorskip("torch_geometric.data")
    pair = [graphs.Data(x=torch.zeros(2, 1), y=torch.tensor([kind])) for kind in (1, 0)]
    assert torch.equal(select_targets(graphs.Batch.from_data_list(pair)), torch.tensor([1, 0]))


def test_places_of_examples_are_not_targets() -> None:
    batch: dict[str, Tensor] = {"x": torch.zeros(2), "idx": torch.ones(2), "y": CLASSES[:2]}
    assert torch.equal(select_targets(batch), CLASSES[:2])
