"""Files of several labels an example: written, read back, read from other tools, and refused."""

import numpy as np
import pandas as pd
import pytest
import torch

import mcbn
from mcbn.predictive.pairing import same_examples
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import read_predictions, write_predictions

NAMES = ("cat", "big dog", "cow")
PARTS = ("log_odds", "expected_entropy", "variation_ratio")


def predictions(positions=(), names=NAMES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, 8, 3, *positions, generator=generator, dtype=torch.float64)
    targets = (torch.randn(8, 3, *positions, generator=generator) > 0).long()
    predictive = mcbn.Bernoulli("logits").summarize(logits)
    return Predictions(
        "MCBN", predictive, targets, "farm", names, {"site": np.array(list("ababbaab"))}
    )


def assert_same(found, given, exact=False):
    assert found.classes == given.classes
    assert torch.equal(found.targets, given.targets)
    assert found.predictive.draw_count == given.predictive.draw_count
    for name in PARTS:
        one, two = (getattr(each.predictive, name) for each in (found, given))
        torch.testing.assert_close(one, two, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-9)
    assert list(found.columns["site"]) == list(given.columns["site"])


@pytest.mark.parametrize("positions", [(), (2, 3)])
def test_a_safetensors_file_keeps_every_bit(tmp_path, positions):
    given = predictions(positions)
    given.save(tmp_path / "p.st")
    found = Predictions.load(tmp_path / "p.st")
    assert_same(found, given, exact=True)
    assert torch.equal(found.predictive.variance, given.predictive.variance)


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.csv.gz", "p.parquet", "p.npz"])
def test_a_table_is_read_back(tmp_path, name):
    given = predictions()
    write_predictions(tmp_path / name, given)
    found = read_predictions(tmp_path / name)
    assert isinstance(found.predictive, mcbn.BernoulliPredictive)
    assert_same(found, given)
    evaluations = [mcbn.evaluate(each.scored, each.known_targets, resamples=0)
                   for each in (found, given)]  # fmt: skip
    for score in evaluations[0]:
        assert evaluations[0][score].value == pytest.approx(evaluations[1][score].value), score


def test_arrays_with_positions_are_read_back(tmp_path):
    given = predictions((2, 3))
    write_predictions(tmp_path / "p.npz", given)
    assert_same(read_predictions(tmp_path / "p.npz"), given)


def test_a_table_of_another_tool_needs_probabilities_and_targets_alone(tmp_path):
    given = predictions()
    chances = given.predictive.probabilities.numpy().round(4)
    columns = {f"prob_{name}": chances[:, k] for k, name in enumerate(NAMES)}
    columns |= {f"label_{name}": given.targets[:, k].numpy() for k, name in enumerate(NAMES[::-1])}
    pd.DataFrame(columns).to_csv(tmp_path / "other.csv", index=False)
    found = read_predictions(tmp_path / "other.csv", probabilities=list(columns)[:3])
    assert found.classes == NAMES
    assert torch.equal(found.targets, given.targets.flip(1))
    np.testing.assert_allclose(found.predictive.probabilities, chances)
    torch.testing.assert_close(found.predictive.mutual_information, torch.zeros(8, 3).double())


def test_unknown_labels_are_read_where_they_are_said(tmp_path):
    given = predictions()
    frame = given.to_dataframe().rename(columns={"site": "place"})
    frame.loc[2, "target_cow"] = -1
    frame.to_csv(tmp_path / "p.csv", index=False)
    found = read_predictions(tmp_path / "p.csv", ignore_index=-1)
    assert found.ignore_index == -1
    assert int(found.targets[2, 2]) == -1
    with pytest.raises(ValueError, match="give ignore_index=-1"):
        mcbn.evaluate(found.scored, found.known_targets)


def test_votes_of_annotators_stay_votes(tmp_path):
    """Columns of targets by class beside probabilities that do sum to one."""
    chances = np.array([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    columns = {"p_a": chances[:, 0], "p_b": chances[:, 1], "target_a": [3, 0, 1],
               "target_b": [0, 3, 2]}  # fmt: skip
    pd.DataFrame(columns).to_csv(tmp_path / "votes.csv", index=False)
    with pytest.warns(UserWarning, match="several labels per example"):
        found = read_predictions(tmp_path / "votes.csv")
    assert isinstance(found.predictive, mcbn.CategoricalPredictive)


def test_probabilities_without_targets_of_their_own_are_refused_as_before(tmp_path):
    pd.DataFrame({"p_a": [0.7, 0.2], "p_b": [0.7, 0.1], "target": ["a", "b"]}).to_csv(
        tmp_path / "p.csv", index=False
    )
    with pytest.raises(ValueError, match="sum to 1"):
        read_predictions(tmp_path / "p.csv")


def test_a_value_above_1_is_refused_with_its_row(tmp_path):
    frame = predictions().to_dataframe()
    frame.loc[4, "p_cat"] = 1.5
    frame.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(ValueError, match=r"got 1.5 in row 5"):
        read_predictions(tmp_path / "p.csv")


@pytest.mark.parametrize("damage", ["infinite", "entropy", "targets", "names"])
def test_a_file_that_is_no_distribution_is_refused(tmp_path, damage):
    given = predictions()
    parts = {name: getattr(given.predictive, name).clone() for name in (*PARTS, "variance")}
    targets, names = given.targets.clone(), NAMES
    if damage == "infinite":
        parts["log_odds"][0, 0] = torch.inf
    elif damage == "entropy":
        parts["expected_entropy"][0, 0] = 0.8
    elif damage == "targets":
        targets[0, 0] = 2
    else:
        names = ("a", "b")
    broken = mcbn.BernoulliPredictive(**parts, draw_count=4)
    Predictions("M", broken, targets, "d", names).save(tmp_path / "p.st")
    with pytest.raises(ValueError, match=r"\(in .*p.st\)"):
        Predictions.load(tmp_path / "p.st")


def test_methods_are_joined_by_the_names_of_labels():
    first = predictions()
    order = [2, 0, 1]
    tensors = {name: value[:, order] for name, value in vars(first.predictive).items()
               if isinstance(value, torch.Tensor)}  # fmt: skip
    other = Predictions(
        "other", mcbn.BernoulliPredictive(**tensors, draw_count=4), first.targets[:, order], "farm",
        tuple(NAMES[k] for k in order), first.columns,
    )  # fmt: skip
    _, joined = same_examples([first, other], ["first", "other"])
    assert joined.classes == NAMES
    for name in (*PARTS, "variance"):
        assert torch.equal(getattr(joined.predictive, name), getattr(first.predictive, name))
    renamed = Predictions("x", first.predictive, first.targets, "farm", ("a", "b", "c"))
    with pytest.raises(ValueError, match="expected the same labels"):
        same_examples([first, renamed], ["first", "x"])


def test_an_xarray_has_labels_as_an_axis():
    found = predictions().to_xarray()
    assert found["probability"].dims == ("case", "label")
    assert list(found["label"].values) == list(NAMES)
    assert found["target"].dims == ("case", "label")
