"""What the names in a study stand for, on the data sets that they name."""

import os
import warnings
from dataclasses import replace

import pytest
import torch
from tiny import Here, tiny

import mcbn
from mcbn.study import cell_sampler, worker
from mcbn.study.cell_sampler import make_sampler
from mcbn.study.cell_task import load_task
from mcbn.study.names import REGRESSION_SCORES
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes
from mcbn.study.run import run_study
from mcbn.tasks.cifar10 import CropAndFlip

real = pytest.mark.skipif("MCBN_DATA" not in os.environ, reason="no data root is named")


def first(plan):
    return plan.cells()[0]


def test_training_examples_are_cut_and_test_examples_spread():
    cell = first(tiny())
    task, whole = load_task(cell), load_task(replace(cell.network, train_size=None))
    assert (len(task.train), len(task.test), len(task.outside["rotated"])) == (300, 60, 50)
    assert torch.equal(task.train.inputs, whole.train.inputs[:300])
    assert torch.equal(task.test.inputs[[0, -1]], whole.test.inputs[[0, -1]])
    # Some files are sorted by class: cut at the end they would lack some.
    assert len(task.test.targets.unique()) == 10


def test_an_outside_set_that_is_not_there_is_named(monkeypatch):
    cell = replace(first(tiny()), outside=("photographs", "letters"))
    with pytest.raises(ValueError, match="out-of-distribution set 'letters' of digits"):
        load_task(cell)


def write_yacht(root, scale):
    folder = root / "uci" / "yacht"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{scale * row**2} {row % 7} {row % 5}\n" for row in range(50)]
    for name, text in (
        ("data.txt", "".join(rows)),
        ("index_features.txt", "1\n2\n"),
        ("index_target.txt", "0\n"),
    ):
        (folder / name).write_text(text)


def test_another_data_root_is_another_data_set(tmp_path, monkeypatch):
    network = replace(first(tiny()).network, data="yacht", train_size=None)
    for root, scale in (("one", 1.0), ("two", 2.0)):
        write_yacht(tmp_path / root, scale)
    scales = []
    for root in ("one", "two", "one"):
        monkeypatch.setenv("MCBN_DATA", str(tmp_path / root))
        scales.append(float(load_task(network).target_scale))
    assert scales[1] == pytest.approx(2 * scales[0])
    assert scales[2] == scales[0]
    monkeypatch.chdir(tmp_path / "two")
    monkeypatch.setenv("MCBN_DATA", ".")
    assert float(load_task(network).target_scale) == scales[1]
    monkeypatch.chdir(tmp_path / "one")
    assert float(load_task(network).target_scale) == scales[0]


def test_a_file_that_is_edited_is_another_data_set(tmp_path, monkeypatch):
    network = replace(first(tiny()).network, data="yacht", train_size=None)
    write_yacht(tmp_path, 1.0)
    monkeypatch.setenv("MCBN_DATA", str(tmp_path))
    before = float(load_task(network).target_scale)
    write_yacht(tmp_path, 2.0)
    assert float(load_task(network).target_scale) == pytest.approx(2 * before)


def test_more_training_examples_than_there_are_is_refused():
    with pytest.raises(ValueError, match="at most the 1078 training examples of digits"):
        load_task(replace(first(tiny()).network, train_size=2000))


def test_networks_are_built_for_their_data():
    task = load_task(first(tiny()))
    for name in ("mlp", "convnet"):
        network = replace(first(tiny()).network, architecture=name)
        with torch.random.fork_rng():
            model = worker.untrained(network, task).eval()
        assert model(task.test.inputs[:3]).shape == (3, 10)


def test_statistics_of_a_large_population_are_pooled_over_its_parts(monkeypatch):
    plan = tiny(methods=("Population BN", "MCBN"), seeds=(0,),
                training=TrainingAxes(batch_sizes=(32,), epochs=1),
                inference=InferenceAxes(batch_sizes=(300,), draws=(1,)))  # fmt: skip
    cell = next(cell for cell in plan.cells() if cell.method == "Population BN")
    task = load_task(cell)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = worker.untrained(cell.network, task).eval()
    whole = make_sampler(cell, [model], task).bank
    assert (len(whole), whole.batch_size) == (1, 300)
    monkeypatch.setattr(cell_sampler, "POPULATION_BATCH_SIZE", 100)
    parts = make_sampler(cell, [model], task).bank
    batches = mcbn.minibatches(task.train.inputs, batch_size=100, draws=3, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
        pooled = mcbn.collect(model, batches).pooled()
    for name, rows in whole.statistics.items():
        # Three mini-batches of 100 of 300: near, and not the same.
        assert not torch.equal(parts.statistics[name], rows)
        gap = (parts.statistics[name] - rows).abs().mean() / rows.abs().mean()
        assert gap < 0.1, name
        torch.testing.assert_close(parts.statistics[name][0], pooled[name].to(rows))


@real
def test_real_targets_are_scored_in_their_own_units(tmp_path):
    plan = Plan(
        data=DataAxes(names=("yacht",), splits=(0, 1)),
        network=NetworkAxes(names=("mlp",), width=20, dropout=0.05),
        training=TrainingAxes(batch_sizes=(32,), epochs=30),
        inference=InferenceAxes(batch_sizes=(16,), draws=(8,), members=2, dropout_rates=(0.05,)),
        methods=("Deterministic", "Population BN", "MCBN", "MCBN joint", "MC Dropout",
                 "Deep ensemble"),
        seeds=(0,),
    )  # fmt: skip
    study = run_study(plan, tmp_path, executor=Here(), progress=False)
    assert not study.failures
    assert len(study.results) == 2 * 6
    for result in study.results:
        assert set(REGRESSION_SCORES) <= set(result.scores)
        # The yachts' residuary resistance goes from 0.01 to 62.
        assert 0.3 < result.scores["rmse"] < 12
        spread = result.scores["epistemic_sd"]
        alone = result.cell.method in ("Deterministic", "Population BN")
        assert spread == pytest.approx(0, abs=1e-6) if alone else spread > 0.01
    splits = {result.cell.network.split for result in study.results}
    assert splits == {0, 1}


@real
def test_the_published_network_is_loaded_and_its_mini_batches_are_augmented(tmp_path):
    plan = Plan(
        data=DataAxes(names=("cifar10",), test_size=40, outside=("notmnist",), outside_size=20,
                      train_sizes=(600,)),
        network=NetworkAxes(names=("resnet20",)),
        training=TrainingAxes(batch_sizes=(128,)),
        inference=InferenceAxes(batch_sizes=(64,), draws=(4,)),
        methods=("Deterministic", "MCBN"),
        seeds=(0,),
    )  # fmt: skip
    executor = Here()
    study = run_study(plan, tmp_path, executor=executor, progress=False)
    assert len(executor.calls) == 2, "nothing is trained"
    plain, drawn = study.results
    assert plain.scores["accuracy"] >= 0.8
    assert drawn.scores["accuracy"] >= 0.8
    assert drawn.scores["mutual_information"] > 0.005
    cell = plan.cells()[1]
    task, model = load_task(cell), worker.load_published()
    drawn_bank = make_sampler(cell, [model], task).bank
    examples = task.train.dataset()
    assert isinstance(examples, CropAndFlip)
    batches = mcbn.minibatches(examples, batch_size=64, draws=4, seed=0)
    augmented = mcbn.collect(model, batches).statistics
    torch.testing.assert_close(dict(drawn_bank.statistics), dict(augmented), rtol=0, atol=0)
    assert task.outside["notmnist"].shape == (20, 3, 32, 32)
