"""Studies of a user's own task, network and training: right, resumed, and never stale."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from own_study import CODE, MINE, PLAN, write_own_files

import mcbn
from mcbn.network.isolation import derived_seed, random_streams
from mcbn.study import declaration, own_code
from mcbn.study.executors import Processes, ThisProcess
from mcbn.study.given import accepted, reference
from mcbn.study.plan import DataAxes, NetworkAxes, Plan
from mcbn.study.results import Study, to_csv
from mcbn.tasks.training import build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a user's files, in which the test works."""
    monkeypatch.chdir(tmp_path)
    write_own_files(tmp_path)
    yield tmp_path
    sys.modules.pop("parts", None)


def run(folder: str = "out", plan: Plan = PLAN, **changes: object) -> Study:
    sys.modules.pop("parts", None)  # as in a process that begins
    options = {"executor": ThisProcess(), "progress": False, **CODE, **changes}
    study = mcbn.run_study(plan, folder, **options)  # type: ignore[arg-type]
    assert not study.failures, study.failures
    return study


def fits() -> int:
    return len(Path("fits.txt").read_text().splitlines())


def edit(path: str, before: str, after: str) -> None:
    text = Path(path).read_text()
    assert before in text
    Path(path).write_text(text.replace(before, after, 1))


def test_the_scores_are_those_of_the_network_that_the_user_trains() -> None:
    study = run()
    assert len(study.results) == 2 * 7
    assert fits() == 2 * 2  # both members, and dropout has no network of its own
    module = {"__name__": "mine"}
    sys.path.insert(0, ".")
    try:
        exec(compile(MINE, "mine.py", "exec"), module)
    finally:
        sys.path.remove(".")
    seed = derived_seed(1, "member", 0)
    network = build(module["build"], seed=seed)  # type: ignore[arg-type]
    task = module["task"]()  # type: ignore[operator]
    with random_streams(seed, "training"):
        module["fit"](network, task, batch_size=8, seed=seed)  # type: ignore[operator]
    expected = mcbn.predict(mcbn.Deterministic(network.eval()), task.test.inputs, progress=False)
    found = study.values("nll", "Deterministic", training_batch_size=8)
    nll = mcbn.evaluate(expected, task.test.targets, resamples=0)["nll"].value
    assert found[0, 1] == pytest.approx(nll, rel=1e-6)
    assert {"mutual_information_far", "auroc_far_by_entropy"} <= set(study.results[0].scores)


def test_a_finished_study_is_not_run_again() -> None:
    first = run()
    before = fits()
    assert run().results == first.results
    assert fits() == before
    edit("mine.py", "import mcbn\n", "import mcbn  # a comment\n")
    run()
    assert fits() == before


CHANGES: dict[str, Callable[[], None]] = {
    "a line of the training": lambda: edit("mine.py", "parameters(), 0.1", "parameters(), 0.2"),
    "a line of the network": lambda: edit("parts.py", "nn.ReLU()", "nn.Tanh()"),
    "a line of the task": lambda: edit("mine.py", "noise=0.1", "noise=0.3"),
    "a value of the data": lambda: edit("data.csv", ",1.0", ",0.0"),
    "a value of the outside set": lambda: edit("mine.py", "(6, 4), 5.0", "(6, 4), 4.0"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_stale_is_used(change: Callable[[], None]) -> None:
    run()
    change()
    with pytest.warns(UserWarning, match="have changed: cells are run anew"):
        again = run()
    assert to_csv(again) == to_csv(run("fresh"))


def test_an_undone_change_finds_the_earlier_results() -> None:
    first = run()
    edit("mine.py", "parameters(), 0.1", "parameters(), 0.2")
    with pytest.warns(UserWarning, match="have changed"):
        run()
    before = fits()
    edit("mine.py", "parameters(), 0.2", "parameters(), 0.1")
    with pytest.warns(UserWarning, match="have changed"):
        assert run().results == first.results
    assert fits() == before


def test_a_change_while_the_study_runs_fails_its_jobs() -> None:
    plan = replace(PLAN, methods=("Deterministic",), seeds=(0,))

    class Meddling(ThisProcess):
        """Changes the data after the study began."""

        def submit(self, fn, /, *args):  # type: ignore[no-untyped-def]
            if fn.__name__ == "_work":
                edit("data.csv", ",1.0", ",0.0")
            return super().submit(fn, *args)

    own_code._checked_task.cache_clear()
    study = mcbn.run_study(plan, "out", executor=Meddling(), progress=False, **CODE)
    assert "as they were when the run began" in next(iter(study.failures.values()))


def test_processes_give_the_same_results(folder: Path) -> None:
    executor = Processes(2)
    try:
        study = run("processes", executor=executor)
    finally:
        executor.shutdown()
    assert to_csv(study) == to_csv(run())
    assert Study.load(folder / "processes").results == study.results
    assert "far" in mcbn.Report.from_study(study).to_html()


def test_real_targets() -> None:
    plan = replace(PLAN, methods=("Deterministic", "MCBN"), seeds=(0,))
    code = {"task": "mine.py:real", "model": "mine.py:one_output", "fit": "mine.py:fit_real"}
    study = run(plan=plan, **code)
    assert study.regression
    assert study.plan.shown[0] == "pll"
    assert Study.load("out").regression


def test_the_training_of_the_package_serves_as_well() -> None:
    study = run(plan=replace(PLAN, methods=("Deterministic",)), fit=None)
    assert len(study.results) == 2
    assert not Path("fits.txt").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model": None, "plan": replace(PLAN, network=NetworkAxes(names=("mine.py:build",)))},
            "give that function as model=",
        ),
        ({"task": "mine.py:nothing"}, "to return an mcbn.Task, got int"),
        ({"task": "mine.py:absent"}, "absent"),
        ({"task": "other.py:task"}, "other.py"),
        ({"task": "mine.py"}, "after a colon"),
        ({"task": lambda: None}, "other processes can import"),
        ({"plan": replace(PLAN, data=DataAxes(splits=(1,)))}, "data.splits"),
    ],
)
def test_what_is_no_task_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        run(**changes)  # type: ignore[arg-type]


def test_a_training_of_built_in_data_is_held_to_its_source() -> None:
    plan = replace(PLAN, methods=("Deterministic",), seeds=(0,), network=NetworkAxes(("mlp",)))
    options = {"executor": ThisProcess(), "progress": False, "fit": "mine.py:replaced_by_none"}
    with Path("mine.py").open("a") as file:
        file.write("\n\ndef replaced_by_none(model, task, **_):\n    model.scale = 1\n")
    first = mcbn.run_study(plan, "out", **options)  # type: ignore[arg-type]
    assert not first.failures
    edit("mine.py", "model.scale = 1", "model.scale = 2")
    with pytest.warns(UserWarning, match="have changed"):
        second = mcbn.run_study(plan, "out", **options)  # type: ignore[arg-type]
    assert {each.cell.key for each in first.results}.isdisjoint(
        each.cell.key for each in second.results
    )


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        ("broken", "no disk for the log"),
        ("diverging", "expected finite weights"),
        ("replaced", "other weights"),
    ],
)
def test_a_training_that_fails_fails_its_cells(fit: str, words: str) -> None:
    plan = replace(PLAN, methods=("Deterministic",), seeds=(0,))
    code = {**CODE, "fit": f"mine.py:{fit}"}
    study = mcbn.run_study(plan, "out", executor=ThisProcess(), progress=False, **code)
    assert words in next(iter(study.failures.values()))


def test_a_file_names_no_code() -> None:
    Path("study.yaml").write_text("data: {names: ['mine.py:task']}\n")
    with pytest.raises(ValueError, match=r"expected data\.names"):
        declaration.read("study.yaml")
    Path("study.yaml").write_text("given: {task: 'mine.py:task'}\n")
    with pytest.raises(ValueError, match="given"):
        declaration.read("study.yaml")


def test_networks_of_the_package_fit_the_task() -> None:
    plan = replace(PLAN, methods=("MCBN",), seeds=(0,), network=NetworkAxes(names=("mlp",)))
    assert len(run(plan=plan, model=None, fit=None).results) == 2


def test_references() -> None:
    assert reference("mine.py:task", "task") == "mine.py:task"
    assert reference(declaration.read, "task") == "mcbn.study.declaration:read"
    with pytest.raises(ValueError, match="top level"):
        reference("".upper, "model")
    assert accepted(lambda seed: seed, {"seed": 1, "epochs": 2}) == {"seed": 1}
    assert accepted(lambda **rest: rest, {"seed": 1}) == {"seed": 1}


SCRIPT = """
from mine import build, fit, task
import mcbn
from mcbn.study.plan import Plan, InferenceAxes, TrainingAxes

def own():
    return task()

if __name__ == "__main__":
    plan = Plan(training=TrainingAxes(batch_sizes=(8,)), methods=("Deterministic",), seeds=(0,),
                inference=InferenceAxes(batch_sizes=(4,), draws=(2,)))
    study = mcbn.run_study(plan, "out", task=own, model=build, fit=fit, jobs=1, progress=False)
    print(len(study.results), study.plan.given.task)
"""


def test_functions_of_a_script_are_found(folder: Path) -> None:
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == ["1", "script.py:own"]


def test_a_task_of_several_labels_is_known_as_one(folder: Path) -> None:
    (folder / "labels.py").write_text(
        "import mcbn, torch\n"
        "def task():\n"
        "    pair = torch.zeros(6, 2), torch.ones(6, 3)\n"
        "    return mcbn.Task(pair, pair, pair, multilabel=True)\n"
    )
    given = own_code.describe("labels.py:task", "", "")
    assert (given.multilabel, given.regression) == (True, False)
