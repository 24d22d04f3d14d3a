"""The results of a study: scores, parts and tables."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from tiny import Here, smallest, tiny

import mcbn
from mcbn.study.cell import Cell
from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes
from mcbn.study.results import Result, Study, point, to_csv, to_markdown, to_parquet
from mcbn.study.run import run_study

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Digits, every method, M up to everything."""
    plan = tiny(
        data=DataAxes(outside=("photographs",), outside_size=80),
        network=NetworkAxes(names=("mlp",), width=24),
        training=TrainingAxes(batch_sizes=(32,), epochs=4),
        inference=InferenceAxes(batch_sizes=(4, 16, 64, 1078), draws=(16,), members=2),
    )
    return run_study(plan, tmp_path_factory.mktemp("study"), executor=Here(), progress=False)


def found(study, score, label, size=None):
    return study.point(score, label, training_batch_size=32, batch_size=size).mean


def test_every_method_has_a_cell_for_every_seed(study):
    assert not study.failures
    assert study.methods == (
        "Deterministic", "Population BN", *OVER_BATCH_SIZES, "MC Dropout, p = 0.1",
        "Deep ensemble",
    )  # fmt: skip
    assert study.training_batch_sizes == (32,)
    assert study.batch_sizes == (4, 16, 64, 1078)
    assert len(study.results) == 2 * (4 * 4 + 4)
    assert list(study.parts()) == [""]
    assert study.parts()[""].results == study.results


@pytest.mark.parametrize("score", ["mutual_information", "epistemic_sd"])
def test_the_spread_falls_with_the_batch_size_and_vanishes_at_everything(study, score):
    values = [found(study, score, "MCBN", size) for size in study.batch_sizes]
    # Mutual information falls about as 1/M, a standard deviation as its root: at least half that.
    step = 2.0 if score == "mutual_information" else 1.4
    assert values[0] > step * values[1] > step * step * values[2] > 0
    assert values[3] < 1e-6
    assert found(study, score, "MC Dropout, p = 0.1") > values[3]


def test_population_statistics_are_the_limit_of_large_mini_batches(study):
    for name in ("nll", "accuracy", "brier"):
        limit = found(study, name, "Population BN")
        assert found(study, name, "MCBN", 1078) == pytest.approx(limit, rel=1e-4)
    assert found(study, "mutual_information", "Population BN") == pytest.approx(0, abs=1e-12)


def test_at_the_size_of_the_bank_a_rescaled_bank_is_the_bank(tmp_path):
    plan = tiny(methods=("MCBN", "MCBN rescaled"), seeds=(0,),
                training=TrainingAxes(batch_sizes=(32,), epochs=2),
                inference=InferenceAxes(batch_sizes=(8, 32), draws=(8,)))  # fmt: skip
    done = run_study(plan, tmp_path, executor=Here(), progress=False)
    same, other = (
        [done.select(label, 32, size)[0].scores["nll"] for label in ("MCBN", "MCBN rescaled")]
        for size in (32, 8)
    )
    assert same[1] == pytest.approx(same[0], rel=1e-5)
    assert other[1] != pytest.approx(other[0], rel=1e-5)
    # Mutual information goes about as 1/M, so it is some four times that at 32.
    near, far = (done.select("MCBN rescaled", 32, size)[0].scores["mutual_information"]
                 for size in (8, 32))  # fmt: skip
    assert near > 2 * far


def test_parametric_banks_come_near_the_banks_they_are_fitted_on(study):
    exact = found(study, "epistemic_sd", "MCBN", 16)
    assert found(study, "epistemic_sd", "MCBN joint", 16) == pytest.approx(exact, rel=0.3)
    # Units are not independent, and drawing them so loses spread.
    assert found(study, "epistemic_sd", "Stochastic BN", 16) < 0.9 * exact


def test_the_plain_network_has_no_epistemic_part(study):
    for result in study.select("Deterministic", 32):
        assert result.scores["mutual_information"] == pytest.approx(0, abs=1e-12)
        assert result.scores["epistemic_sd"] == 0
        assert result.scores["accuracy"] > 0.85


def test_outside_is_more_uncertain_than_inside(study):
    # 449 examples inside, 80 outside: guessing has a standard error of 0.035 (Hanley, McNeil 1982).
    guess = 0.5 + 4 * ((449 + 80 + 1) / (12 * 449 * 80)) ** 0.5
    assert found(study, "auroc_photographs_by_entropy", "MCBN", 16) > guess
    assert found(study, "epistemic_sd_photographs", "MCBN", 16) > 0


def test_scores_are_those_of_the_library(tmp_path):
    """The same cell by hand, from the weights in the folder."""
    from mcbn.study.cell_task import load_task  # noqa: PLC0415
    from mcbn.study.store import Store  # noqa: PLC0415
    from mcbn.study.worker import load_trained  # noqa: PLC0415

    plan = tiny(methods=("MCBN",), seeds=(1,), training=TrainingAxes(batch_sizes=(32,), epochs=1),
                inference=InferenceAxes(batch_sizes=(8,), draws=(6,)))  # fmt: skip
    (result,) = run_study(plan, tmp_path, executor=Here(), progress=False).results
    task = load_task(result.cell)
    model = load_trained(Store(tmp_path), result.cell.network, task)
    batches = mcbn.minibatches(task.train.inputs, batch_size=8, draws=6, seed=1)
    sampler = mcbn.MCBatchNorm(model, mcbn.collect(model, batches))
    predictive = mcbn.predict(sampler, task.test.inputs)
    scores = mcbn.evaluate(predictive, task.test.targets, resamples=0)
    for name, score in scores.items():
        assert result.scores[name] == pytest.approx(score.value, nan_ok=True), name
    spread = predictive.variance.sqrt().mean()
    assert result.scores["epistemic_sd"] == pytest.approx(float(spread))
    assert result.seconds["predict"] > 0


def test_networks_of_a_study_are_all_different(tmp_path):
    plan = tiny(methods=("Deep ensemble",), training=TrainingAxes(batch_sizes=(100,), epochs=1))
    run_study(plan, tmp_path, executor=Here(), progress=False)
    contents = [path.read_bytes() for path in (tmp_path / "networks").glob("*/*.safetensors")]
    assert len(contents) == 4
    assert len(set(contents)) == 4


# Values by hand.


def by_hand(plan, values):
    """A study whose cells have these values of one score, in the order of the plan."""
    return Study(
        plan,
        tuple(Result(cell, {"nll": value, "rmse": value}, {"predict": 0.5})
              for cell, value in zip(plan.cells(), values, strict=True)),
        {}, 0,
    )  # fmt: skip


def test_a_point_is_the_mean_over_seeds_with_a_student_interval():
    plan = smallest(methods=("Deterministic",))
    plan = replace(plan, seeds=(0, 1))
    done = by_hand(plan, [1.0, 3.0])
    mean = done.point("nll", "Deterministic", training_batch_size=32)
    # Two values: sd = sqrt(2), t(0.975, 1) = 12.706, half = 12.706 * sqrt(2) / sqrt(2).
    assert mean.mean == 2.0
    assert mean.high - mean.mean == pytest.approx(12.7062, rel=1e-5)
    assert math.isnan(point([1.0]).low)
    assert math.isnan(point([1.0, math.nan]).mean)
    with pytest.raises(KeyError, match="a cell of the study"):
        done.point("nll", "Deterministic", training_batch_size=9)


def test_parts_are_cut_by_what_varies_and_share_what_has_no_choice_of_draws():
    plan = Plan(
        data=DataAxes(train_sizes=(500, None)),
        inference=InferenceAxes(batch_sizes=(8,), draws=(4, 16)),
        training=TrainingAxes(batch_sizes=(32,)),
        methods=("Deterministic", "MCBN"),
        seeds=(0,),
    )
    parts = by_hand(plan, [float(i) for i in range(len(plan.cells()))]).parts()
    assert list(parts) == [
        "N = 500, T = 4", "N = 500, T = 16", "all N, T = 4", "all N, T = 16",
    ]  # fmt: skip
    for part in parts.values():
        assert [result.cell.method for result in part.results] == ["Deterministic", "MCBN"]
    assert parts["N = 500, T = 4"].results[0] is parts["N = 500, T = 16"].results[0]


def test_a_table_has_a_row_a_cell_and_gives_every_number_back(study):
    read = list(csv.DictReader(io.StringIO(to_csv(study))))
    assert len(read) == len(study.results)
    for row, result in zip(read, study.results, strict=True):
        assert int(row["seed"]) == result.cell.network.seed
        assert row["method"] == result.cell.method
        assert row["batch_size"] == str(result.cell.batch_size or "")
        for name, value in result.scores.items():
            text = row[study.column(name)]
            assert (math.isnan(value) and text == "") or float(text) == value
    assert "nll_nats" in read[0]
    assert "mutual_information_photographs_nats" in read[0]
    assert not any("seconds" in name for name in read[0])
    assert "predict_seconds" in study.rows(cost=True)[0]


def test_units_of_real_targets_are_those_of_the_data():
    plan = Plan(data=DataAxes(names=("yacht",)), network=NetworkAxes(names=("mlp",)),
                methods=("Deterministic",), seeds=(0,),
                training=TrainingAxes(batch_sizes=(32,)))  # fmt: skip
    assert "rmse_target_units" in by_hand(plan, [1.0]).rows()[0]
    assert by_hand(plan, [1.0]).column("epistemic_sd") == "epistemic_sd_target_units"


def test_markdown_shows_the_usual_scores_and_what_varies(study):
    lines = to_markdown(study).splitlines()
    assert len(lines) == 2 + len(study.results)
    heads = [word.strip() for word in lines[0].strip("|").split("|")]
    assert heads[:3] == ["training_batch_size", "method", "batch_size"]
    assert "data" not in heads
    assert "accuracy" in heads
    assert "ece_classwise" not in heads


def test_other_formats_hold_the_same(study):
    arrow = pytest.importorskip("pyarrow.parquet")
    table = arrow.read_table(io.BytesIO(to_parquet(study)))
    assert table.to_pylist() == study.rows()
    frame = study.to_dataframe()
    assert len(frame) == len(study.results)
    assert list(frame.columns) == list(study.rows()[0])
    assert frame["nll_nats"].tolist() == [result.scores["nll"] for result in study.results]


def test_a_package_that_is_missing_is_named(study, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'mcbn\[parquet\]'"):
        to_parquet(study)


def test_an_empty_study_has_an_empty_table():
    empty = Study(tiny(), (), {}, 48)
    assert to_csv(empty) == "\n"
    assert to_markdown(empty).count("\n") == 2


def test_a_result_survives_json(study):
    again = [Cell.from_dict(entry["cell"])
             for entry in json.loads(json.dumps(study.to_dict()))["results"]]  # fmt: skip
    assert again == [result.cell for result in study.results]
