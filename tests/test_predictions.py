"""Predictions as a file: what comes back, and what is refused."""

import json

import pytest
import torch
from models import examples, made
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import mcbn
from mcbn.predictions import PARTS, Predictions

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


def predictions(targets=True, positions=()):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn((5, 7, 3, *positions), generator=generator)
    answers = torch.randint(3, (7, *positions), generator=generator) if targets else None
    return Predictions(
        "MCBN, M = 8", mcbn.Categorical().summarise(draws), answers, "seven in three"
    )


@pytest.mark.parametrize("targets", [True, False])
@pytest.mark.parametrize("positions", [(), (2, 2)])
def test_saved_and_loaded_is_the_same(targets, positions, tmp_path):
    mine = predictions(targets, positions)
    mine.save(tmp_path / "deep" / "file")
    back = Predictions.load(tmp_path / "deep" / "file")
    assert (back.method, back.data) == (mine.method, mine.data)
    assert back.predictive.draw_count == 5
    for name in (*PARTS, "mutual_information", "entropy", "confidence"):
        assert_close(getattr(back.predictive, name), getattr(mine.predictive, name), rtol=0, atol=0)
    if targets:
        assert_close(back.targets, mine.targets, rtol=0, atol=0)
    else:
        assert back.targets is None
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_the_scores_of_a_file_are_those_of_the_predictions(tmp_path):
    mine = predictions()
    mine.save(tmp_path / "file")
    back = Predictions.load(tmp_path / "file")
    scores = [mcbn.evaluate(p.predictive, p.targets, resamples=20).to_dict() for p in (mine, back)]
    assert json.dumps(scores[0]) == json.dumps(scores[1])


def test_the_same_predictions_are_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        predictions().save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-3],
        lambda content: content[:40] + b"\xff" + content[41:],
        lambda content: b"PK\x03\x04 not ours",
        lambda content: content[:6],
        lambda content: b"",
    ],
    ids=["cut", "flipped", "foreign", "six bytes", "empty"],
)
def test_damaged_files_are_refused(damage, tmp_path):
    path = tmp_path / "file"
    predictions().save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="expected a predictions file"):
        Predictions.load(path)


def test_a_bank_is_refused_by_name(tmp_path):
    batches = mcbn.minibatches(examples("1d of 2-D", 40), batch_size=8, draws=3)
    mcbn.collect(made("1d of 2-D"), batches).save(tmp_path / "bank")
    with pytest.raises(ValueError, match="of kind 'bank'"):
        Predictions.load(tmp_path / "bank")


def test_predictions_are_refused_as_a_bank(tmp_path):
    predictions().save(tmp_path / "file")
    with pytest.raises(ValueError, match="of kind 'predictions'"):
        mcbn.Bank.load(tmp_path / "file")


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "file")
    with pytest.raises(ValueError, match="of kind None"):
        Predictions.load(tmp_path / "file")


def test_another_version_is_refused_by_name(tmp_path):
    path = tmp_path / "file"
    predictions().save(path)
    content = path.read_bytes()
    assert b'\\"version\\": 1' in content
    path.write_bytes(content.replace(b'\\"version\\": 1', b'\\"version\\": 9'))
    with pytest.raises(ValueError, match="version 9"):
        Predictions.load(path)


def rewritten(path, tensors=None, **header):
    """The file again, with some tensors or header entries exchanged or (None) left out."""
    whole = {"kind": "predictions", "version": 1, "method": "a", "data": "b", "draws": 5, **header}
    kept = {**load_file(path), **(tensors or {})}
    line = json.dumps({key: value for key, value in whole.items() if value is not None})
    save_file({key: value for key, value in kept.items() if value is not None}, path,
              {"mcbn": line})  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        *({"tensors": {name: None}} for name in PARTS),
        {"tensors": {"variance": torch.zeros(7, 4, dtype=torch.float64)}},
        {"tensors": {"expected_entropy": torch.zeros(6, dtype=torch.float64)}},
        {"tensors": {"variation_ratio": torch.zeros(7)}},
        {"tensors": {"log_probabilities": torch.zeros(7, dtype=torch.float64)}},
        {"draws": None},
        {"draws": "5"},
        {"method": None},
        {"data": 3},
    ],
    ids=str,
)
def test_files_that_lack_a_part_are_refused(change, tmp_path):
    path = tmp_path / "file"
    predictions().save(path)
    rewritten(path)
    Predictions.load(path)
    rewritten(path, **change)
    with pytest.raises(ValueError, match="expected the tensors"):
        Predictions.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Predictions.load(tmp_path / "nowhere")
