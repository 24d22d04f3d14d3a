"""Studies on Ray and Dask clusters of this machine."""

from dataclasses import replace

import pytest
from own_study import CODE, PLAN, write_own_files
from tiny import Here, tiny

from mcbn.study.executors import Dask, Ray, named_executor
from mcbn.study.results import to_csv
from mcbn.study.run import run_study

# Clusters warn about ports, processes and event loops of their own.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The table of the tiny study when one process runs it, in order."""
    folder = tmp_path_factory.mktemp("here")
    return to_csv(run_study(tiny(), folder, executor=Here(), progress=False))


def own_study(folder, monkeypatch, executor):
    """A study of a user's files in a folder that the workers did not begin in."""
    write_own_files(folder)
    monkeypatch.chdir(folder)
    plan = replace(PLAN, methods=("MCBN",), seeds=(0,))
    place = f"own-{type(executor).__name__}"
    study = run_study(plan, place, executor=executor, progress=False, **CODE)
    assert not study.failures
    return study


def test_dask_gives_the_same_table(table, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address.replace("tcp://", "dask://")
        executor = named_executor(address, 2)
        assert isinstance(executor, Dask)
        try:
            study = run_study(tiny(), tmp_path / "tiny", executor=executor, progress=False)
            own = own_study(tmp_path, monkeypatch, executor)
        finally:
            executor.shutdown()
    assert to_csv(study) == table
    assert to_csv(own) == to_csv(own_study(tmp_path, monkeypatch, Here()))


def test_ray_gives_the_same_table(table, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    executor = named_executor("ray", 2)
    assert isinstance(executor, Ray)
    assert executor.slots == 2
    try:
        study = run_study(tiny(), tmp_path / "tiny", executor=executor, progress=False)
        own = own_study(tmp_path, monkeypatch, executor)
    finally:
        executor.shutdown()
    assert to_csv(study) == table
    assert to_csv(own) == to_csv(own_study(tmp_path, monkeypatch, Here()))
