"""Arguments of the command line: each counts once, adds to a list, or is refused in words."""

import shlex
from dataclasses import MISSING

import pytest

from mcbn.cli.commands import VerbCommand
from mcbn.cli.declarations import values_of
from mcbn.cli.main import main
from mcbn.cli.options.network import PredictOptions
from mcbn.cli.options.parts import NetworkOptions
from mcbn.cli.options.predictions import EvaluateOptions, ReportOptions
from mcbn.cli.repeat import command
from mcbn.cli.verbs import STUDY_VERBS, VERBS

PARSED = {**VERBS, "study": STUDY_VERBS["report"], "checked study": STUDY_VERBS["check"]}


def asked(program, verb, words):
    """What words ask of a verb."""
    with VerbCommand(program, verb).make_context(program, list(words)) as context:
        return context.command.request(context)


def parse(program, verb, words):
    return asked(program, verb, words).read()


def parsed(line):
    name, *words = shlex.split(line)
    return parse(f"mcbn {name}", VERBS[name], words)


def checked(line):
    """The options of a line, whose files are there and lose nothing."""
    name, *words = shlex.split(line)
    request = asked(f"mcbn {name}", VERBS[name], words)
    options = request.read()
    request.check(options)
    return options


def every_option():
    return [
        pytest.param(verb, option, id=f"{name} {option.name}")
        for name, verb in PARSED.items()
        for option in verb.declared().values()
    ]


def text_for(option):
    kinds = {int: "7", float: "0.5", bool: "true"}
    return option.kind[-1] if isinstance(option.kind, tuple) else kinds.get(option.kind, "text")


def required(verb, option):
    """The other options that the verb cannot do without."""
    others = verb.declared().values()
    return [f"--{each.name}={each.name}" for each in others
            if each.default is MISSING and each.name != option.name]  # fmt: skip


@pytest.mark.parametrize(("verb", "option"), every_option())
def test_an_option_given_twice_adds_or_is_refused(verb, option):
    words = [f"--{option.name}={text_for(option)}", *required(verb, option)]
    value = values_of(parse("mcbn", verb, words))[option.field]
    assert value == ([text_for(option)] if option.kind is list else value)
    assert str(value).lower() == text_for(option) or option.kind is list
    again = f"--{option.name}={text_for(option)}"
    if option.kind is list:
        more = parse("mcbn", verb, [*words, f"--{option.name}", "other"])
        assert values_of(more)[option.field] == ["text", "other"]
        if option.repeats:
            same = parse("mcbn", verb, [*words, again])
            assert values_of(same)[option.field] == ["text", "text"]
            return
        with pytest.raises(ValueError, match=f"different values of --{option.name}, got 'text'"):
            parse("mcbn", verb, [*words, again])
        return
    with pytest.raises(ValueError, match=rf"expected (--{option.name} once|one {option.name})"):
        parse("mcbn", verb, [*words, again])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("evaluate a.csv b.csv", r"expected one predictions .* got \['a.csv', 'b.csv'\]"),
        ("evaluate a.csv --predictions b.csv", "expected one predictions"),
        ("evaluate --by site age a.csv", "write its --name before each value"),
        ("report a.csv --outside far.csv other.csv", "write --outside before each of its values"),
        ("report a.csv --held-out h.csv other.csv", "write --held-out before each of its values"),
        ("predict nets.py:build", "write its --name before each value"),
        ("evaluate a.csv --resample 3", "did you mean '--resamples'"),
        ("evaluate a.csv --res 3", "got '--res'"),
        ("evaluate a.csv -r 3", "got '-r'"),
        ("evaluate a.csv --tracebacks", "got '--tracebacks'"),
        ("report a.csv --by+ b", r"got '--by\+'"),
        ("report a.csv --title", "expected a value of --title, got none"),
        ("report a.csv --title --by site", "expected a value of --title, got none"),
        ("report a.csv --out ''", "expected a value of --out, got an empty text"),
        ("report a.csv ''", "expected names of files, got an empty text"),
        ("evaluate a.csv --by site,,age", "got '' among them"),
        ("evaluate a.csv --by '[a: b]'", "expected a list of texts for --by"),
        ("evaluate a.csv --by '[[a], b]'", "expected a list of texts for --by"),
        ("evaluate a.csv --resamples 1e3", "expected a whole number for --resamples, got '1e3'"),
        ("evaluate a.csv --resamples 1_000", "expected a whole number"),
        ("evaluate a.csv --resamples 1:30", "expected a whole number"),
        ("evaluate a.csv --resamples 0x10", "expected a whole number"),
        ("evaluate a.csv --resamples null", "expected a whole number"),
        ("predict --model m --data d --out o --precision nan", "expected a number"),
        ("predict --model m --data d --out o --precision 1e999", "expected a number"),
        ("predict --model m --data d --out o --method MCBN", "did you mean 'mcbn'"),
        ("predict --model m --data d --out o --keep-draws=maybe", "expected true or false"),
        ("predict --model m", "expected --data and --out of mcbn predict, got none"),
        ("report --by site", "expected FILE... of mcbn report, got none"),
    ],
)
def test_what_would_be_dropped_or_guessed_is_refused(line, reason):
    with pytest.raises(ValueError, match=reason) as refused:
        parsed(line)
    assert str(refused.value).startswith("expected ")
    assert "; " in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        "report a.st b.st --by site --by age --out r",
        "report --out r a.st b.st --by site,age",
        "report --predictions a.st --predictions b.st --by 'site, age' --out=r",
        "report --predictions a.st b.st --by '[site, age]' --out r",
        "report a.st --predictions '[b.st]' --by=site --by=age --out r",
        "report --out r --by site,age -- a.st b.st",
        "report --out r --by site --by=age a.st b.st",
        "report --out r --by site --by age a.st b.st",
    ],
)
def test_a_list_may_be_written_in_each_of_these_ways(line):
    assert parsed(line) == ReportOptions(["a.st", "b.st"], "r", by=["site", "age"])


@pytest.mark.parametrize("name", ["held-out", "held_out"])
def test_names_have_hyphens_or_underscores_and_values_stay_as_they_are(name):
    options = parsed(f"report a_b.st --{name} h_o.st --title=--a_b --target null -- --c_d.st")
    wanted = ReportOptions(["a_b.st", "--c_d.st"], held_out=["h_o.st"], title="--a_b",
                           target="null")  # fmt: skip
    assert options == wanted


def test_values_are_what_they_look_like():
    options = parsed("evaluate 1.0 --target 010 --resamples 010 --by null --by 'a: b' --out ~")
    assert options == EvaluateOptions("1.0", "~", 10, ["null", "a: b"], "010")
    assert parsed("evaluate x --by '[\"a,b\", null]'").by == ["a,b", "null"]
    negative = parsed("predict --model m --data d --out o --ignore-index -3 --precision .5")
    assert (negative.ignore_index, negative.precision) == (-3, 0.5)


@pytest.mark.parametrize("words", ["--keep-draws", "--keep-draws true", "--keep-draws=True"])
def test_a_switch_needs_no_value(words):
    options = parsed(f"predict {words} --model m --data d --out o.st")
    assert options == PredictOptions(NetworkOptions("m"), "d", "o.st", keep_draws=True)
    assert not parsed("predict --keep-draws false --model m --data d --out o.st").keep_draws


def written(tmp_path, text):
    path = tmp_path / "options.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_options_is_replaced_by_the_command_line_wherever_it_stands(tmp_path):
    path = written(tmp_path, "predictions: [a.st]\nheld-out: h.st\nresamples: 010\nby: ['a,b', c]\n"
                             "title: null\ntarget: 'null'\n")  # fmt: skip
    wanted = ReportOptions(["a.st"], resamples=9, by=["a,b", "c"], held_out=["h.st"], target="null")
    for line in (f"report --config {path} --resamples 9", f"report --resamples 9 --config {path}"):
        assert parsed(line) == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("resamples: 1\nresamples: 2\n", "expected 'resamples' once"),
        ("held-out: a\nheld_out: b\n", "expected 'held_out' once"),
        ("resample: 1\n", "did you mean 'resamples'"),
        ("resamples: [1, 2]\n", "expected one value of 'resamples'"),
        ("resamples: 1:30\n", "expected a whole number"),
        ("by: {a: b}\n", "expected YAML of the options"),
        ("- a\n", "expected YAML of the options"),
        ("by: [a\n", "expected YAML of the options"),
        ("", "expected YAML of the options"),
        ("by: " + 70_000 * "a", "more than 65,536 bytes"),
    ],
)
def test_a_file_of_options_drops_nothing_either(tmp_path, text, reason):
    with pytest.raises(ValueError, match=reason):
        parsed(f"report a.st --config {written(tmp_path, text)}")
    with pytest.raises(FileNotFoundError, match="expected a file of options"):
        parsed(f"report a.st --config {tmp_path}/none.yaml")


HARD = ReportOptions(
    ["-a b.st", "[c].st", "d'e\"f$g.csv", "h,i.npz"], "o ut", ["x\ny.st"], "--title; rm *",
    7, ["a,b", " c", "[d]", "é", "null"], None, None, "temperature", "a b", "010", ["p q"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("report", HARD),
        ("report", ReportOptions(["a.st"])),
        ("evaluate", EvaluateOptions("a b.csv", by=["site"])),
        (
            "predict",
            PredictOptions(NetworkOptions("m:f"), "d", "o", keep_draws=True, precision=1e-07),
        ),
    ],
)
def test_a_printed_command_and_a_printed_file_give_the_same_options(
    tmp_path, capsys, name, options
):
    program, verb = f"mcbn {name}", VERBS[name]
    line = command(program, options, positional=verb.positional)
    words = shlex.split(line)
    assert words[:2] == ["mcbn", name]
    assert parse(program, verb, words[2:]) == options
    with pytest.raises(SystemExit) as stopped:
        parse(program, verb, [*words[2:3], "--print-config", *words[3:]])
    assert stopped.value.code == 0
    path = written(tmp_path, capsys.readouterr().out)
    assert parse(program, verb, ["--config", str(path)]) == options


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("predict --draws 8 --bank b", "--draws has no effect without --method dropout"),
        ("predict --seed 0 --bank b", "--seed has no effect without --method dropout"),
        ("predict --bank b --method dropout", "--bank has no effect without --method mcbn"),
        ("predict --draws-type float16", "--draws-type has no effect without --draws-out"),
        ("predict --draws 8 --method dropout", ""),
        ("predict --draws-type float16 --draws-out d", ""),
        ("predict --bank b", ""),
    ],
)
def test_an_option_without_effect_is_told(capsys, line, note):
    parsed(f"{line} --model m --data d --out o")
    said = capsys.readouterr()
    assert said.err == (f"mcbn: note: {note}\n" if note else "")
    assert not said.out
    parse("mcbn demo", VERBS["demo"], ["--root", "x"])
    assert "--root has no effect without --data mnist or cifar10" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "evaluate in.csv --out in.csv",
        "evaluate in.csv --out ./in.csv",
        "evaluate in.csv --out link.csv",
        "report a.csv in.csv --out in.csv",
        "report a.csv --images in.csv --out in.csv",
        "collect --model in.csv:build --data d --out in.csv",
        "predict --model m --data in.csv --out in.csv",
        "predict --model m --data d --weights in.csv --out o --draws-out in.csv",
        "predict --model m --data d --out new --draws-out ./new",
        "export --model m --data d --bank in.csv --out in.csv",
    ],
)
def test_no_file_that_is_read_is_overwritten(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("a file of the user")
    (tmp_path / "link.csv").symlink_to("in.csv")
    with pytest.raises(ValueError, match=r"expected another file in --.*would be lost"):
        checked(f"{line} --force")
    assert checked("report in.csv --title r --by r --out r").out == "r"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--jobs", "1", "--jobs", "2"), "expected --jobs once, got '1' and '2'"),
        (("--out", "a", "--out", "b"), "expected --out once"),
        (("--seeds", "[0]", "--seeds", "[1]"), "expected --seeds once"),
        (("--training.batch-sizes", "[8]", "--training.batch_sizes=[9]"),
         "expected --training.batch-sizes once"),
        (("--config", "other.yaml"), "expected single keys of a study"),
        (("--data", "{names: [mnist]}"), "expected single keys of a study"),
        (("--job", "1"), "did you mean '--jobs'?"),
        (("--seeds+", "3"), "did you mean 'seeds'?"),
    ],
)  # fmt: skip
def test_arguments_of_a_study_are_not_dropped_either(tmp_path, capsys, words, reason):
    (tmp_path / "study.yaml").write_text("seeds: [0]\n")
    out = () if "--out" in words else ("--out", str(tmp_path / "out"))
    with pytest.raises(SystemExit) as stopped:
        # The file comes last, so that no option of a study takes it for its value.
        main(["study", "run", *words, *out, str(tmp_path / "study.yaml")])
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("evaluate x --out folder", "expected the name of a file to write, got the folder folder"),
        ("evaluate x --out file/s.json", "expected a folder to write s.json in, got the file file"),
        ("collect --model m --data d --out folder", "got the folder folder"),
        ("predict --model m --data d --out o --draws-out file/d", "got the file file"),
        ("export --model m --data d --bank b --out folder", "got the folder folder"),
        ("report x --out file", "expected a folder to write report.html in, got the file file"),
        ("demo --out file/x", "got the file file"),
        ("evaluate x --out file", "expected no file at file yet, got one, .*; give --force"),
        ("report x --out folder", "expected no file at folder/report.html yet"),
        ("demo --out folder", "or one that mcbn wrote, got another, which would be lost"),
    ],
)
def test_where_nothing_can_be_written_is_told_before_the_work(tmp_path, monkeypatch, line, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder/report.html", "folder/report.json"):
        (tmp_path / name).write_text('{"something": "of the user"}')
    with pytest.raises((OSError, ValueError), match=reason) as refused:
        checked(line)
    assert str(refused.value).startswith("expected ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "x.st"), "write x.st, got: Permission denied;"),
        (OSError("strange"), "expected files that can be read and written, got: strange;"),
        (ModuleNotFoundError("No module named 'nets'"), "imported, got: No module named 'nets';"),
        (MemoryError(), "expected enough memory, got too little (no more); "),
        (ValueError("expected a, got b; do c"), "expected a, got b; do c"),
        (FileNotFoundError("expected a file at x, got none; check"), "expected a file at x, got"),
    ],
)
def test_errors_of_python_about_the_machine_are_told_in_words(
    tmp_path, monkeypatch, capsys, error, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()

    # Its code is not in a file, as that of a user is.
    code = {"error": error}
    exec("def broken(options):\n    raise error", code)
    monkeypatch.setattr("mcbn.cli.evaluate.evaluate", code["broken"])
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "x"])
    assert stopped.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("mcbn: error: expected ")
    assert said in text
    assert "Errno" not in text
    assert text.count("\n") == 1


def test_a_reader_that_wants_no_more_output_is_no_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()

    def broken(options):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("mcbn.cli.evaluate.evaluate", broken)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "x"])
    assert stopped.value.code == 0
    assert not capsys.readouterr().err
