"""The command line: every verb on files, its help, and its errors."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mcbn
from mcbn.cli.errors import is_refusal
from mcbn.cli.main import VERBS, main
from mcbn.cli.options.network import CollectOptions
from mcbn.cli.options.parts import NetworkOptions
from mcbn.predictive.predictions import Predictions

NETS = """
from torch import nn
def build():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2),
                         nn.Linear(8, 3))
def nothing():
    return nn.Linear(4, 3)
"""


@pytest.fixture
def files(tmp_path):
    """A network's code and weights, training and test data, in one folder."""
    (tmp_path / "nets.py").write_text(NETS)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, generator=generator)
    y = x[:, :3].argmax(1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2),
                                nn.Linear(8, 3))  # fmt: skip
        optimizer = torch.optim.Adam(network.parameters(), 0.05)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[:200]), y[:200]).backward()
            optimizer.step()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    np.savez(tmp_path / "train.npz", inputs=x[:200].numpy(), targets=y[:200].numpy())
    np.savez(tmp_path / "test.npz", inputs=x[200:].numpy(), targets=y[200:].numpy())
    np.savez(tmp_path / "far.npz", inputs=5 * x[200:].numpy())
    return tmp_path


def run(verb, folder, **options):
    """Run a verb with `key=value` options; values that are files of the folder are found there."""
    arguments = [verb]
    for key, value in options.items():
        arguments += [f"--{key}", str(value).replace("@", f"{folder}/")]
    main(arguments)


NETWORK = {"model": "@nets.py:build", "weights": "@w.pt"}


@pytest.fixture
def predicted(files):
    run("collect", files, **NETWORK, data="@train.npz", out="@bank", batch_size=16, draws=8)
    for method in ("mcbn", "deterministic", "dropout"):
        for name in ("test", "far"):
            options = {"bank": "@bank"} if method == "mcbn" else {}
            run("predict", files, **NETWORK, **options, data=f"@{name}.npz", method=method,
                out=f"@{method}_{name}", draws=8)  # fmt: skip
    return files


@pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
def test_from_network_to_report(predicted, capsys):
    run("evaluate", predicted, predictions="@mcbn_test", out="@scores.json", resamples=20)
    printed = capsys.readouterr().out
    scores = json.loads((predicted / "scores.json").read_text())["scores"]
    assert f"nll              {scores['nll']['value']:.4g}" in printed
    inside, outside = (
        f"[@deterministic_{name}, @mcbn_{name}, @dropout_{name}]" for name in ("test", "far")
    )
    run("report", predicted, predictions=inside, outside=outside, out="@report", resamples=20)
    data = json.loads((predicted / "report" / "report.json").read_text())
    methods = data["comparison"]["methods"]
    assert list(methods) == ["Deterministic", "MCBN", "MC Dropout"]
    assert methods["MCBN"]["scores"]["nll"]["value"] == pytest.approx(scores["nll"]["value"])
    assert "far" in methods["MCBN"]["outside"]
    assert "<html" in (predicted / "report" / "report.html").read_text()


@pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
def test_the_verbs_do_what_the_library_does(predicted):
    bank = mcbn.Bank.load(predicted / "bank")
    assert (len(bank), bank.batch_size) == (8, 16)
    with np.load(predicted / "train.npz") as file:
        data = torch.from_numpy(file["inputs"])
    namespace = {}
    exec(NETS, namespace)
    with torch.random.fork_rng():
        model = namespace["build"]()
    model.load_state_dict(torch.load(predicted / "w.pt", weights_only=True))
    expected = mcbn.collect(model, mcbn.minibatches(data, batch_size=16, draws=8))
    torch.testing.assert_close(dict(expected.statistics), dict(bank.statistics), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
def test_a_network_and_its_bank_in_one_file(files, capsys):
    run("collect", files, **NETWORK, data="@train.npz", out="@bank", batch_size=16, draws=8)
    run("export", files, **NETWORK, bank="@bank", data="@test.npz", out="@net.pt2")
    run("predict", files, **NETWORK, bank="@bank", data="@test.npz", out="@mcbn")
    assert "8 draws written" in capsys.readouterr().out
    with np.load(files / "test.npz") as file, torch.no_grad():
        program = torch.export.load(files / "net.pt2").module()
        outputs = program(torch.from_numpy(file["inputs"]))
    expected = Predictions.load(files / "mcbn").predictive
    for name, values in outputs.items():
        torch.testing.assert_close(values.double(), getattr(expected, name), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "@nets.py:nothing", "weights": "@none.pt"}, "checkpoint at"),
        ({"model": "@nets.py:absent"}, "function 'absent'"),
        ({"model": "@absent.py:build"}, "Python file"),
        ({"model": "nets"}, "module:function"),
        ({"data": "@nets.py"}, "add the name of its function"),
        ({"data": "@w.pt"}, ".npz or .safetensors"),
        ({"data": "@w.safetensors"}, "array 'inputs'"),
        ({"weights": "@train.npz"}, "checkpoint of tensors"),
        ({"batch_size": 500}, "at most the 200"),
    ],
)
def test_mistakes_end_in_one_line_and_a_failing_exit(files, capsys, change, reason):
    options = {**NETWORK, "data": "@train.npz", "out": "@bank", **change}
    with pytest.raises(SystemExit) as stopped:
        run("collect", files, **options)
    error = capsys.readouterr().err.strip()
    assert stopped.value.code == 2
    assert reason in error
    assert error.startswith("mcbn: error: expected")
    assert not (files / "bank").exists()


class Code:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


def test_a_checkpoint_that_holds_code_is_refused_and_not_run(files, capsys):
    torch.save({"state_dict": Code()}, files / "evil.pt")
    with pytest.raises(SystemExit) as stopped:
        run("collect", files, model="@nets.py:build", weights="@evil.pt", data="@train.npz",
            out="@bank")  # fmt: skip
    assert stopped.value.code == 2
    assert "checkpoint" in capsys.readouterr().err


def test_targets_must_be_there_and_agree(files, capsys):
    run("predict", files, **NETWORK, data="@far.npz", method="deterministic", out="@far")
    for verb, options in (("evaluate", {"predictions": "@far"}),
                          ("report", {"predictions": "[@far]", "out": "@r"})):  # fmt: skip
        with pytest.raises(SystemExit):
            run(verb, files, **options)
        assert "expected targets" in capsys.readouterr().err


def python(code):
    """What a fresh process prints; it may not import torch before the code does."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


HELP = """
import contextlib, io, json, sys
from mcbn.cli.main import VERBS, main

printed = {}
for verb in ["", *VERBS, "report folder"]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([*verb.split(), "--help"])
    printed[verb] = out.getvalue(), "torch" in sys.modules
print(json.dumps(printed))
"""


@pytest.fixture(scope="module")
def helps():
    """The help of every verb, and whether torch was imported for it."""
    return json.loads(python(HELP))


@pytest.mark.parametrize("verb", ["", *VERBS, "report folder"])
def test_help_does_not_import_torch(helps, verb):
    _, imported = helps[verb]
    assert not imported


@pytest.mark.parametrize("verb", ["", *VERBS, "report folder"])
def test_every_verb_has_help_with_an_example(helps, verb):
    text, _ = helps[verb]
    assert f"Usage: mcbn {verb.removesuffix(' folder') or 'VERB'}" in text
    assert not verb or "Example: mcbn" in text
    assert "--traceback" in text


@pytest.mark.parametrize("verb", VERBS)
def test_options_have_hyphens_in_the_help(helps, verb):
    # Keys of a study, which have a section and a dot, are spelled as in its file.
    options = [word for word in re.findall(r"--([\w.-]+)", helps[verb][0]) if "." not in word]
    assert options
    assert not any("_" in option for option in options)


@pytest.mark.parametrize("option", ["--batch-size", "--batch_size"])
def test_options_are_accepted_with_hyphens_and_with_underscores(tmp_path, monkeypatch, option):
    given = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d_e").touch()
    monkeypatch.setattr("mcbn.cli.network.collect", given.append)
    main(["collect", "--model", "m_n:f", "--data", "d_e", "--out", "o", option, "7"])
    main(["collect", "--model=m_n:f", "--data=d_e", "--out=o", f"{option}=7"])
    assert given == [CollectOptions(NetworkOptions("m_n:f"), "d_e", "o", batch_size=7)] * 2


def failing(*words):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


REFUSED = ("collect", "--model", "m:f", "--data", "nowhere.npz", "--out", "o")


def test_a_refusal_is_one_line(capsys):
    assert failing(*REFUSED) == 2
    error = capsys.readouterr().err
    assert error == "mcbn: error: expected a data file at nowhere.npz, got none; check --data\n"


@pytest.mark.parametrize("place", range(len(REFUSED) + 1))
def test_traceback_shows_where_a_refusal_was_raised(capsys, place):
    assert failing(*REFUSED[:place], "--traceback", *REFUSED[place:]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last)")
    assert "mcbn/cli/paths.py" in error
    assert error.splitlines()[-1].startswith("mcbn: error: expected a data file")
    assert "bug" not in error


@pytest.mark.parametrize(
    "error", [KeyError("nll"), ValueError("not enough values to unpack"), RuntimeError("shapes")]
)
def test_a_bug_says_that_it_is_one_with_its_traceback(tmp_path, monkeypatch, capsys, error):
    # Its code is not in a file, as that of a user is.
    code = {"error": error}
    exec("def broken(options):\n    raise error", code)
    monkeypatch.setattr("mcbn.cli.network.collect", code["broken"])
    (tmp_path / "nowhere.npz").touch()
    monkeypatch.chdir(tmp_path)
    assert failing(*REFUSED) == 70
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last)")
    assert f"mcbn: error: {type(error).__name__}: {error}\nThis is a bug of mcbn" in said
    assert "Please report it" in said


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's error."""


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (ValueError("expected two classes, got one; add one"), True),
        (RuntimeError("expected the executor to run until the study ends"), True),
        (OSError(28, "No space left on device"), True),
        (ImportError("expected the package onnx"), True),
        (ModuleNotFoundError("No module named 'nets'"), True),
        (MemoryError(), True),
        (OutOfMemoryError("CUDA out of memory"), True),
        (ValueError("the truth value is unexpected "), False),
        (TypeError("unsupported operand"), False),
        (AttributeError("no attribute"), False),
        (AssertionError(), False),
    ],
)
def test_errors_that_mcbn_raises_on_purpose_are_no_bugs(error, refusal):
    assert is_refusal(error) == refusal


def test_the_doctor_prints_first_and_fails_for_an_incompatible_network(files, capsys):
    run("doctor", files, **NETWORK, data="@train.npz")
    printed = capsys.readouterr().out
    assert printed.startswith("Sequential is compatible with MCBN.")
    assert "drawn from 64 examples" in printed
    for json_too in (False, True):
        with pytest.raises(SystemExit) as stopped:
            run("doctor", files, model="@nets.py:nothing", json=json_too)
        printed = capsys.readouterr().out
        assert stopped.value.code == 1
        assert "There is no batch norm" in printed
    assert json.loads(printed)["servable"] is False


def test_an_unknown_option_is_refused(capsys):
    assert failing("evaluate", "--prediction", "x") == 2
    assert "prediction" in capsys.readouterr().err


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "mcbn", "--version"], capture_output=True, text=True
    )  # fmt: skip
    assert done.stdout == f"mcbn {mcbn.__version__}\n", done.stderr
