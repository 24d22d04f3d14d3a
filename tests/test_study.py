"""A batch-size study on real digits, small: the failure of large batches, seen and written down."""

import json
import math
from dataclasses import replace

import pytest
import torch

import mcbn
from mcbn.data import digits
from mcbn.demo import Settings, run_demo
from mcbn.networks import mlp
from mcbn.study import Cell, Study, study_batch_sizes, train_networks

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


def flat(task):
    """The digits as vectors, for a network that is quick to train."""

    def rows(part):
        return replace(part, inputs=part.inputs.flatten(1))

    outside = {name: values.flatten(1)[:80] for name, values in task.outside.items()}
    return replace(
        task, train=rows(task.train), validation=rows(task.validation), test=rows(task.test),
        outside=outside,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study():
    task = flat(digits())
    networks = train_networks(
        task, lambda: mlp(64, 10, width=24), batch_sizes=(32,), seeds=(0, 1), members=2, epochs=4,
        progress=False,
    )  # fmt: skip
    sizes = (4, 16, 64, len(task.train))
    return study_batch_sizes(task, networks, batch_sizes=sizes, draws=16, progress=False)


def test_every_method_has_a_cell_for_every_seed(study):
    assert study.methods == ("Deterministic", "MCBN", "MC Dropout", "Deep ensemble")
    assert study.training_batch_sizes == (32,)
    assert study.batch_sizes == (4, 16, 64, 1078)
    assert len(study.cells) == 2 * (4 + 3)


def test_mutual_information_falls_with_the_batch_size_and_vanishes_at_everything(study):
    found = [
        study.point("mutual_information", "MCBN", training_batch_size=32, batch_size=size).mean
        for size in study.batch_sizes
    ]
    assert found[0] > 2 * found[1] > 4 * found[2] > 0
    assert found[3] < 1e-6
    dropout = study.point("mutual_information", "MC Dropout", training_batch_size=32).mean
    assert dropout > found[3]


def test_the_plain_network_has_no_mutual_information(study):
    for cell in study.cells:
        if cell.method == "Deterministic":
            assert cell.scores["mutual_information"] == pytest.approx(0, abs=1e-12)
            assert cell.scores["accuracy"] > 0.85


def test_outside_is_more_uncertain_than_inside(study):
    point = study.point("auroc_photographs_by_entropy", "MCBN", training_batch_size=32,
                        batch_size=16)  # fmt: skip
    assert point.mean > 0.7


def test_a_point_is_the_mean_over_seeds_with_a_student_interval():
    cells = tuple(Cell("MCBN", 8, 4, seed, {"nll": value}) for seed, value in enumerate((1.0, 3.0)))
    study = Study("by hand", 2, (), cells)
    point = study.point("nll", "MCBN", training_batch_size=8, batch_size=4)
    # Two values: sd = sqrt(2), t(0.975, 1) = 12.706, half = 12.706 * sqrt(2) / sqrt(2).
    assert point.mean == 2.0
    assert point.high - point.mean == pytest.approx(12.7062, rel=1e-5)
    single = Study("by hand", 2, (), cells[:1])
    assert math.isnan(single.point("nll", "MCBN", training_batch_size=8, batch_size=4).low)
    with pytest.raises(KeyError, match="a cell of the study"):
        study.point("nll", "MCBN", training_batch_size=9)


def test_networks_of_a_study_are_all_different():
    task = flat(digits())
    networks = train_networks(
        task, lambda: mlp(64, 10, width=4), batch_sizes=(256,), seeds=(0, 1), members=2, epochs=1,
        progress=False,
    )  # fmt: skip
    weights = [next(m.parameters()) for members in networks.values() for m in members]
    assert len(weights) == 4
    for i, first in enumerate(weights):
        for second in weights[:i]:
            assert not torch.equal(first, second)


def test_the_demo_goes_from_data_to_a_report(tmp_path):
    lines = []
    settings = Settings(training_batch_sizes=(128,), batch_sizes=(8, 64), seeds=(0,), members=2,
                        epochs=2, width=4, draws=8, study_draws=4, resamples=10)  # fmt: skip
    page = run_demo(tmp_path, settings=settings, say=lines.append)
    assert page.name == "report.html"
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert list(numbers["comparison"]["methods"]) == [
        "Deterministic", "MCBN", "MC Dropout", "Deep ensemble",
    ]  # fmt: skip
    assert len(mcbn.Bank.load(tmp_path / "bank.safetensors")) == 8
    assert lines[0].startswith("Data: Handwritten digits")
    assert lines[-1] == f"Report: {page}"
    with pytest.raises(ValueError, match="expected data of"):
        run_demo(tmp_path, data="cats")
