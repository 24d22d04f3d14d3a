"""Predictions and scores on Ray Data and Dask: the numbers of one process, wherever rows lie."""

import warnings
from functools import reduce
from operator import add

import elsewhere
import numpy as np
import pytest
import torch
from elsewhere import Mortal, in_a_column, made, made_by_id, scored
from torch import nn

import mcbn

# Clusters warn about ports, processes and event loops of their own.
pytestmark = pytest.mark.filterwarnings("default")

ROWS, BLOCK = 6_000, 500


@pytest.fixture(scope="module")
def sampler():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)
        ).eval()  # fmt: skip
    with warnings.catch_warnings():
        # The network is untrained, so its running statistics are meaningless.
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
        rows = torch.from_numpy(made(np.arange(400))["x"])
        bank = mcbn.collect(model, mcbn.minibatches(rows, batch_size=32, draws=8))
        return mcbn.MCBatchNorm(model, bank)


@pytest.fixture(scope="module")
def ray():
    for package in ("pandas", "pyarrow"):
        pytest.importorskip(package)
    ray = pytest.importorskip("ray")
    # One processor more than workers, for the tasks that read.
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False,
             object_store_memory=200 * 2**20, _node_ip_address="127.0.0.1")  # fmt: skip
    # Its actors do not search where pytest does.
    ray.cloudpickle.register_pickle_by_value(elsewhere)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    yield ray
    ray.cloudpickle.unregister_pickle_by_value(elsewhere)
    ray.shutdown()


@pytest.fixture(scope="module")
def predicted(ray, sampler, tmp_path_factory):
    """The predictions of two workers, one of which was killed on the way."""
    place = tmp_path_factory.mktemp("killed") / "process"
    # Block after block, a batch is the same rows in whichever order they are done.
    data = ray.data.range(ROWS, override_num_blocks=ROWS // BLOCK)
    found = data.map_batches(made_by_id, batch_size=None).map_batches(
        Mortal,
        fn_constructor_args=(sampler,),
        fn_constructor_kwargs={"inputs": "x"},
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=2),
        fn_kwargs={"place": place},  # of the file that says so
    )
    return found.materialize(), int(place.read_text())


@pytest.fixture(scope="module")
def here(sampler):
    """The predictions of one process with one thread, as the workers have, block by block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        predictor = mcbn.Predictor(sampler, inputs="x")
        starts = range(0, ROWS, BLOCK)
        blocks = [predictor(made(np.arange(start, start + BLOCK))) for start in starts]
    finally:
        torch.set_num_threads(before)
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def test_a_worker_that_is_killed_changes_no_bit_of_any_row(predicted, here):
    data, killed = predicted
    rows = sorted(data.take_all(), key=lambda row: row["id"])
    assert [row["id"] for row in rows] == list(range(ROWS))
    processes = [row["process"] for row in rows]
    assert killed != processes[elsewhere.VICTIM]
    assert len(set(processes) - {killed}) >= 2
    for name, wanted in here.items():
        np.testing.assert_array_equal(np.stack([row[name] for row in rows]), wanted, name)


def assert_scores_of_all(total, here):
    """The scores of all rows, which one process has evaluated; the ranked to 1e-3."""
    predictive = mcbn.Categorical("probabilities").summarize(
        [torch.from_numpy(here["probabilities"])]
    )
    expected = mcbn.evaluate(predictive, torch.from_numpy(here["label"]), resamples=0)
    found = total.evaluation(resamples=0)
    assert found.examples == expected.examples == ROWS
    for name in ("accuracy", "nll", "brier", "ece", "ece_classwise", "mce", "ece_smooth"):
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-9), name
    for name in ("aurc", "e_aurc", "augrc", "auroc_of_errors"):
        assert found[name].value == pytest.approx(expected[name].value, abs=1e-3), name


def test_the_blocks_of_a_ray_data_set_are_scored_where_they_lie(predicted, here):
    shards = predicted[0].map_batches(in_a_column, batch_size=None).take_all()
    assert len(shards) == ROWS // BLOCK
    assert_scores_of_all(reduce(add, (row["scores"] for row in shards)), here)


def test_an_error_in_a_worker_says_what_was_expected(ray, sampler):
    data = ray.data.from_numpy([np.full((3, 4), np.nan, np.float32)])
    mapped = data.map_batches(
        mcbn.Predictor, fn_constructor_args=(sampler,), compute=ray.data.ActorPoolStrategy(size=1)
    )
    with pytest.raises(Exception, match="expected finite"):
        mapped.materialize()


def test_the_partitions_of_a_dask_frame_are_scored_where_they_lie(here):
    distributed = pytest.importorskip("distributed")
    pandas = pytest.importorskip("pandas")
    dask = pytest.importorskip("dask")
    pytest.importorskip("dask.dataframe")
    table = pandas.DataFrame({name: list(here[name]) for name in ("id", "label", "probabilities")})
    with (
        dask.config.set({"dataframe.convert-string": False}),  # lists are not words
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        parts = dask.dataframe.from_pandas(table, npartitions=5).to_delayed()
        shards = client.gather(client.map(scored, client.compute(parts)))
    assert len(shards) == 5
    assert_scores_of_all(reduce(add, shards), here)
