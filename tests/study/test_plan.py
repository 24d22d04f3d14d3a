"""A study as declared: its file, its keys, its cells."""

import json
from collections import Counter
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import get_args

import pytest

import mcbn
from mcbn.evaluation.glossary import BETTER, OF_CLASSES, SEPARATION, ScoreName
from mcbn.study import declaration
from mcbn.study.cell import Cell, Network
from mcbn.study.names import OVER_BATCH_SIZES, Method
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes
from mcbn.tasks.names import OUTSIDE, Regression

EVERY = get_args(Method)


def plan(**change):
    return Plan(
        data=DataAxes(outside=("rotated",)),
        training=TrainingAxes(batch_sizes=(64, 16), epochs=2),
        inference=InferenceAxes(batch_sizes=(32, 8), draws=(4, 16), dropout_rates=(0.1, 0.3),
                                members=3),
        methods=EVERY,
        seeds=(0, 5),
        **change,
    )  # fmt: skip


def test_every_combination_is_a_cell_once():
    cells = plan().cells()
    assert len(set(cells)) == len(cells)
    counts = Counter(cell.label for cell in cells)
    networks = 2 * 2  # training batch sizes and seeds
    assert counts == {
        "Deterministic": networks,
        "Population BN": networks,
        "Deep ensemble": networks,
        "MC Dropout, p = 0.1": networks * 2,
        "MC Dropout, p = 0.3": networks * 2,
        **dict.fromkeys(OVER_BATCH_SIZES, networks * 2 * 2),
    }
    # Two trained networks a pair, since ensembles have three members and one more rate is trained.
    trained = {network for cell in cells for network in cell.networks}
    assert len(trained) == networks * (3 + 1)


def test_axes_given_twice_make_no_more_cells():
    assert replace(plan(), seeds=(0, 5, 0)).cells() == plan().cells()


def test_small_batch_sizes_come_first():
    sizes = [cell.network.batch_size for cell in plan().cells() if cell.network.seed == 0]
    assert sizes == sorted(sizes)
    at = [cell.batch_size for cell in plan().cells() if cell.method == "MCBN"][:4]
    assert at == [8, 8, 32, 32]


def test_rescaled_banks_are_drawn_at_the_training_size_or_the_one_given():
    def drawn(of):
        return {
            (cell.network.batch_size, cell.bank_batch_size)
            for cell in of.cells()
            if cell.method == "MCBN rescaled"
        }

    assert drawn(plan()) == {(16, 16), (64, 64)}
    given = replace(plan(), inference=replace(plan().inference, bank_batch_size=48))
    assert drawn(given) == {(16, 48), (64, 48)}


def test_a_published_network_keeps_its_batch_size():
    data = DataAxes(names=("cifar10",))
    cells = Plan(data=data, network=NetworkAxes(names=("resnet20",)), methods=("MCBN",)).cells()
    assert {cell.network.batch_size for cell in cells} == {128}
    assert len(cells) == 4 * 3


def a_cell():
    return next(cell for cell in plan().cells() if cell.method == "MCBN")


def test_a_key_is_that_of_the_content():
    cell = a_cell()
    again = Cell.from_dict(json.loads(json.dumps(asdict(cell))))
    assert again == cell
    assert again.key == cell.key
    assert cell.key != cell.network.key


CHANGES = {
    "data": "mnist", "split": 7, "train_size": 99, "architecture": "mlp", "width": 3, "depth": 9,
    "dropout": 0.77, "batch_size": 77, "epochs": 77, "learning_rate": 0.77, "weight_decay": 0.77,
    "seed": 77, "member": 7, "threads": 7, "fit": "mine.py:fit", "made_of": "0",
}  # fmt: skip


@pytest.mark.parametrize("field", fields(Network), ids=lambda field: field.name)
def test_every_field_of_a_network_is_in_its_key_and_in_its_cells_key(field):
    cell = a_cell()
    other = replace(cell.network, **{field.name: CHANGES[field.name]})
    assert other.key != cell.network.key
    assert replace(cell, network=other).key != cell.key


@pytest.mark.parametrize(
    ("name", "value"),
    [("method", "Stochastic BN"), ("batch_size", 77), ("bank_batch_size", 77), ("draws", 77),
     ("test_size", 77), ("outside", ("photographs",)), ("outside_size", 77)],
)  # fmt: skip
def test_every_field_of_a_cell_is_in_its_key(name, value):
    assert {name} | {"network"} <= {field.name for field in fields(Cell)}
    assert replace(a_cell(), **{name: value}).key != a_cell().key


def test_keys_are_goldens_and_change_with_the_version_of_the_data(monkeypatch):
    cell = Plan(methods=("MCBN",), seeds=(0,)).cells()[0]
    assert (cell.key, cell.network.key) == GOLDEN
    monkeypatch.setattr("mcbn.study.cell.DATA_VERSION", 2)
    assert cell.key != GOLDEN[0]


GOLDEN = ("8e85371e15a5f9d9c81b2aefd947caae", "ef853328e9bdbb37522398852b4da406")


def test_damaged_configurations_are_refused():
    good = json.loads(json.dumps(asdict(a_cell())))
    for bad in ({}, {**good, "extra": 1}, {**good, "network": {}}, {**good, "network": 3}):
        with pytest.raises(ValueError, match="expected the fields"):
            Cell.from_dict(bad)


def test_a_declaration_written_is_read_back(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(declaration.to_yaml(plan()))
    assert declaration.read(path) == plan()
    assert declaration.read_stored(path) == plan()
    assert declaration.read(path, ["--seeds", "[9]", "--training.epochs", "7"]) == replace(
        plan(), seeds=(9,), training=replace(plan().training, epochs=7)
    )
    for option in ("--training.batch_sizes", "--training.batch-sizes"):
        assert declaration.read(path, [option, "[8]"]).training.batch_sizes == (8,)


def test_an_empty_file_is_the_usual_study(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("title: only a title\n")
    assert declaration.read(path) == Plan(title="only a title")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("seedz: [1]\n", "did you mean 'seeds'"),
        ("data: {nmaes: [digits]}\n", "did you mean 'data.names'"),
        ("epochs: 3\n", "did you mean 'training.epochs'"),
        ("inference: {draw: [3]}\n", "did you mean 'inference.draws'"),
        ("zzzzzz: 1\n", "the keys are title, data.names"),
        ("methods: [MC Batch Norm]\n", "MCBN"),
        ("seeds: [one]\n", "seeds"),
        ("data: {names: [digit]}\n", "digits"),
        ("network: {names: [convnett]}\n", "did you mean 'convnet'"),
        ("seeds: [0\n", "expected the keys and values of a study"),
        ("!!python/object/apply:os.system [echo]\n", "expected the keys and values of a study"),
        ("title: &a [*a]\n", "expected the keys and values of a study"),
    ],
)
def test_mistakes_in_a_file_are_told_with_the_nearest_key(tmp_path, text, hint):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="expected") as raised:
        declaration.read(path)
    assert hint in str(raised.value)


def test_no_key_names_code(tmp_path):
    path = tmp_path / "study.yaml"
    for text in ("model: nets:build\n", "network: {names: ['nets:build']}\n",
                 "class_path: os.system\n", "network: {class_path: os.system}\n"):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ValueError, match="expected"):
            declaration.read(path)
    path.write_text("title: x\n")
    with pytest.raises(ValueError, match=r"--model module:function on the command line"):
        declaration.read(path, ["--network.names", "['nets:build']"])
    assert declaration.read(path, model="nets:build").network.names == ("nets:build",)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        declaration.read(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seeds": ()}, "expected seeds"),
        ({"seeds": (-1,)}, "expected seeds"),
        ({"threads": 0}, "expected threads"),
        ({"methods": ()}, "expected at least one of methods"),
        ({"training": TrainingAxes(batch_sizes=(1,))}, "training.batch_sizes"),
        ({"training": TrainingAxes(learning_rate=0.0)}, "learning_rate"),
        ({"inference": InferenceAxes(dropout_rates=(0.0,))}, "dropout rates"),
        ({"inference": InferenceAxes(dropout_rates=(1.0,))}, "dropout rates"),
        ({"inference": InferenceAxes(batch_sizes=(1,))}, "inference.batch_sizes"),
        ({"data": DataAxes(outside=("cats",))}, "data.outside"),
        ({"data": DataAxes(names=("yacht",), outside=("rotated",))}, "data.outside"),
        ({"data": DataAxes(train_sizes=(100,))}, "at most the 100 training examples, got 256"),
        ({"data": DataAxes(names=("yacht",), splits=(5,)),
          "network": NetworkAxes(names=("mlp",))}, "data.splits"),
        ({"data": DataAxes(names=("yacht",))}, "convnet"),
        ({"network": NetworkAxes(names=("resnet20",))}, "resnet20"),
        ({"data": DataAxes(names=("cifar10",)), "network": NetworkAxes(names=("resnet20",)),
          "methods": ("MC Dropout",)}, "MC Dropout"),
    ],
)  # fmt: skip
def test_axes_that_do_not_fit_are_refused_before_any_work(change, reason):
    with pytest.raises(ValueError, match="expected") as raised:
        Plan(**change)
    assert reason in str(raised.value)


def test_the_usual_scores_are_those_of_the_task():
    assert Plan().shown[0] == "nll"
    network = NetworkAxes(names=("mlp",))
    assert Plan(data=DataAxes(names=("yacht",)), network=network).shown[0] == "pll"
    assert Plan(scores=("ece",)).shown == ("ece",)


def test_the_catalogue_agrees_with_the_rest():
    undirected = {"mutual_information", "epistemic_sd", "coverage_90", "width_90"}
    of_sets = {*SEPARATION, *OF_CLASSES}
    assert set(get_args(ScoreName)) - undirected == BETTER.keys() - of_sets
    assert set(OUTSIDE) == {"digits", "mnist", "cifar10"}
    assert len(get_args(Regression)) == 8


def test_the_package_hands_out_its_names_without_importing_torch_first():
    assert mcbn.Plan is Plan
    assert {"Bank", "collect", "run_study", "Study"} <= set(dir(mcbn))


def test_no_public_name_is_that_of_a_module():
    # Importing the module would then hide the name.
    modules = {path.stem for path in Path(mcbn.__file__).parent.iterdir()}
    assert modules & set(mcbn.__all__) == {"plot"}  # which is a module by its name
    for name in mcbn.__all__:
        assert getattr(mcbn, name) is not None
