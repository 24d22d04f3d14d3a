"""Values of a declaration are what they look like, or are refused with what to write."""

import pytest

from mcbn.study import declaration
from mcbn.study.plan import DataAxes, InferenceAxes, Plan, TrainingAxes


def read(tmp_path, text, overrides=()):
    path = tmp_path / "study.yaml"
    path.write_text(f"{text}\n")
    return declaration.read(path, overrides)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seeds: [032]", "got 032 in line 1, which YAML reads as 26; write 26 or 32"),
        ("title: a\nseeds:\n- 1\n- 010", "got 010 in line 4, which YAML reads as 8; write 8 or 10"),
        ("seeds: ['032']", "got 032 in line 1"),
        ("seeds: [1:30]", "which YAML reads as 90; write 90"),
        ("training: {learning_rate: 1:30}", "which YAML reads as 90"),
        ("training: {epochs: 1_000}", "write 1000"),
        ("training: {epochs: 0o10}", "got 0o10 in line 1; write digits, as in 32"),
        ("training: {epochs: 5.0}", "a whole number, got 5.0 in line 1; write 5;"),
        ("training: {epochs: 1e1}", "write 10"),
        ("training: {epochs: yes}", "which YAML reads as true"),
        ("data: {train_sizes: [on]}", "which YAML reads as true"),
        ("data: {test_size: 0x10}", "which YAML reads as 16; write 16"),
        ("threads: 0b11", "which YAML reads as 3; write 3"),
        ("seeds: [٣]", "write digits"),
        ("training: {learning_rate: .inf}", "a decimal number, got .inf"),
        ("network: {dropout: 10%}", "write digits, as in 0.01"),
        ("network: {dropout: 0,1}", "write decimal numbers with a point"),
        ("training: {learning_rate: +.5}", "write digits, as in 0.01"),
        ("title: yes", "put it in quotes, as in 'yes'"),
        ("title: 1e3", "put it in quotes, as in '1e3'"),
        ("seeds: 3", "got 3 in line 1; write [3]"),
        ("inference: {draws: 8}", "write [8]"),
        ("methods: MCBN", "write [MCBN]"),
        ("data: {outside: rotated}", "write [rotated]"),
        ("data: {train_sizes: null}", "write [null]"),
        ("seeds:", "write a list, or leave it out"),
        ("training: {epochs: [5]}", "as one value, got a list in line 1; write 5"),
        ("seeds: [0]\nseeds: [1]", "got 'seeds' in line 1 and again in line 2"),
        ("data:\n  names: [digits]\n  names: [mnist]",
         "got 'data.names' in line 2 and again in line 3"),
        ("training: {epochs: 5}\ntraining: {batch_sizes: [32]}", "and again in line 2"),
    ],
)  # fmt: skip
def test_what_is_read_otherwise_than_it_looks_is_refused_with_what_to_write(tmp_path, text, told):
    with pytest.raises(ValueError, match="expected") as raised:
        read(tmp_path, text)
    assert told in str(raised.value)


def test_usual_numbers_are_read_as_they_look(tmp_path):
    for text, value in (("1e-3", 1e-3), (".5e3", 500.0), ("1.e-3", 1e-3), ("2", 2), (".5", 0.5)):
        plan = read(tmp_path, f"training: {{learning_rate: {text}}}")
        assert plan.training.learning_rate == value
    assert read(tmp_path, "title: 2020-01-01").title == "2020-01-01"
    assert read(tmp_path, "title: '010'").title == "010"
    assert read(tmp_path, "data: {train_sizes: [~, 300]}").data.train_sizes == (None, 300)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seeds", "3"], "got 3 for --seeds; write '[3]'"),
        (["--seeds=[032]"], "which YAML reads as 26"),
        (["--seeds", "[0]", "--seeds", "[1]"], "expected --seeds once, got it twice"),
        (["--training.batch-sizes", "[32]", "--training.batch_sizes", "[64]"], "got it twice"),
        (["--training.epochs", "010"], "write 8 or 10"),
        (["--training", "{epochs: 3}"], "Option 'training' is not accepted"),
        (["--config", "other.yaml"], "Option 'config' is not accepted"),
        (["--data.names", "['digits'"], "write a list as in"),
    ],
)
def test_the_command_line_is_held_to_the_same(tmp_path, words, told):
    with pytest.raises(ValueError, match="expected") as raised:
        read(tmp_path, "title: x", words)
    assert told in str(raised.value)


@pytest.mark.unchecked
def test_axes_from_python_are_of_their_types():
    assert Plan(seeds=[0, 1]).cells() == Plan(seeds=(0, 1)).cells()
    assert Plan(seeds=range(2)).seeds == (0, 1)
    for make, told in (
        (lambda: Plan(seeds=3), "give (3,)"),
        (lambda: DataAxes(names="digits"), "give ('digits',)"),
        (lambda: Plan(data=DataAxes(names=("digitz",))), "did you mean 'digits'?"),
        (lambda: Plan(methods=("MCB",)), "expected methods"),
        (lambda: Plan(data={"names": ["digits"]}), "of type DataAxes"),
        (lambda: TrainingAxes(epochs=5.0), "expected training.epochs of type int"),
        (lambda: TrainingAxes(epochs=True), "expected training.epochs of type int"),
        (lambda: TrainingAxes(learning_rate=float("nan")), "expected training.learning_rate"),
        (lambda: InferenceAxes(dropout_rates=0.1), "give (0.1,)"),
    ):
        with pytest.raises(ValueError, match="expected") as raised:
            make()
        assert told in str(raised.value)
