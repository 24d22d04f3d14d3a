"""The command as a process: what it imports, prints to a pipe and a terminal, and completes."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import Here, smallest

from mcbn.cli import completion
from mcbn.cli.verbs import VERBS
from mcbn.study.run import run_study

pytestmark = pytest.mark.unchecked

MCBN = [sys.executable, "-m", "mcbn"]
# A table longer than what a pipe holds, so that it is still being written when its reader ends.
MANY_SEEDS = tuple(range(400))


def run(*words, cwd=None, **variables):
    """A finished process of the command."""
    return subprocess.run(
        [*MCBN, *map(str, words)], capture_output=True, text=True, cwd=cwd,
        env={**os.environ, **variables},
    )  # fmt: skip


def imported(*words, cwd):
    """The exit code, what was said, and the names of all modules that a command imported."""
    return _imported("-m", "mcbn", *words, cwd=cwd)


def imported_by(code):
    """The same of some lines of Python."""
    return _imported("-c", code)


def _imported(*words, cwd=None):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, cwd=cwd,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    names = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    said = [line for line in lines if not line.startswith("import time:")]
    return done.returncode, [*done.stdout.splitlines(), *said], names


# Modules of all kinds that a process may import: a count is the same on every machine and day, and
# hundreds of modules stand for a tenth of a second or more. The help of the keys of a study is made
# by jsonargparse, which takes as many again.
FEW_MODULES = {"": 280, "study run": 400}
HEAVY = {"torch", "numpy", "scipy", "matplotlib", "sklearn", "pandas", "torchvision", "jinja2"}
# What a process that scores a file has besides torch.
SCORING_MODULES = 620
UNSCORED = {"matplotlib", "jinja2", "pandas", "sklearn", "torchvision", "scipy.stats",
            "jsonargparse", "mcbn.study", "mcbn.bank", "mcbn.drift", "mcbn.tasks",
            "mcbn.report.report", "mcbn.plot"}  # fmt: skip


def require_few(names, line):
    """Check that a command imported nothing heavy, and few modules at all."""
    assert "click" in names
    assert not names & HEAVY
    assert len(names) <= FEW_MODULES["study run" if line.startswith("study run") else ""]


def test_the_package_imports_little():
    code = "import sys, mcbn\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    names = set(done.stdout.split())
    assert "mcbn" in names
    assert not names & HEAVY
    assert len(names) <= 100


@pytest.mark.parametrize("verb", list(VERBS))
def test_the_help_of_a_verb_imports_little(tmp_path, verb):
    code, said, names = imported(*verb.split(), "--help", cwd=tmp_path)
    assert code == 0, said
    require_few(names, verb)


@pytest.mark.parametrize("suffix", ["npz", "csv"])
def test_scoring_a_file_loads_what_it_needs_alone(tmp_path, suffix):
    np.savez(tmp_path / "p.npz", probabilities=[[0.7, 0.3], [0.2, 0.8]], targets=[0, 1])
    (tmp_path / "p.csv").write_text("p_a,p_b,target,site\n.7,.3,a,x\n.2,.8,b,y\n.6,.4,a,y\n")
    by = ("--by", "site", "--uncertainty", "entropy") if suffix == "csv" else ()
    words = ("evaluate", f"p.{suffix}", "--resamples", "2", *by)
    code, said, names = imported(*words, cwd=tmp_path)
    assert code == 0, said
    assert "torch" in names
    assert not names & UNSCORED
    _, _, of_torch = imported_by("import torch")
    assert len(names - of_torch) <= SCORING_MODULES


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--help", 0),
        ("collect --help", 0),
        ("help evaluate", 0),
        ("study run --help", 0),
        ("completion bash", 0),
        ("evalaute", 2),
        ("collect --modle m", 2),
        ("predict --method MCBN", 2),
        ("study run study.yaml --out o --sedes [1]", 2),
        ("collect --model nets.py:build --data d.npz --out o", 2),
        ("collect --model m:f --data nowhere.npz --out o", 2),
        ("collect --model m:f --weights nowhere.pt --data d.npz --out o", 2),
        ("predict --model m:f --bank nowhere.st --data d.npz --out o", 2),
        ("predict --model m:f --data d.npz --out o", 2),
        ("predict --model m:f --method dropout --data d.npz --out o --likelihood gaussian "
         "--precision auto", 2),
        ("predict --model m:f --method dropout --data d.npz --out o --key best", 2),
        ("collect --model m:f --data nowhere.py:train --out o", 2),
        ("collect --model m:f --data . --transform nowhere.py:crop --out o", 2),
        ("study run study.yaml --out o --task nowhere.py:task", 2),
        ("evaluate nowhere.st", 2),
        ("evaluate *.parquet", 2),
        ("evaluate d.npz --out d.npz", 2),
        ("evaluate d.npz --out study.yaml", 2),
        ("report d.npz --held-out nowhere.st", 2),
        ("report .", 2),
        ("study table .", 2),
        ("evaluate p.xlsx", 2),
        ("evaluate d.npz --resamples -1", 2),
        ("report d.npz --figures gif", 2),
        ("report d.npz --ignore MCBN999", 2),
        ("report d.npz --recalibrate temperature", 2),
        ("report d.npz --sets-by target", 2),
        ("check d.npz --ignore X", 2),
        ("check d.npz --recalibrate platt", 2),
        ("collect --model m:f --data d.npz --out o --batch-size 0", 2),
        ("collect --model m:f --data d.npz --out o --seed -1", 2),
        ("collect --model m:f --data d.npz --out o --target y", 2),
        ("doctor --model m:f --data d.npz --group ^.", 2),
        ("predict --model m:f --method dropout --data d.npz --out o --draws 0", 2),
        ("predict --model m:f --method dropout --data d.npz --out o.csv --keep-draws", 2),
        ("predict --model m:f --method dropout --data d.npz --out o --transform m:f", 2),
        ("drift --model m:f --bank d.npz --data d.npz --alpha 1", 2),
        ("drift --model m:f --bank d.npz --data d.npz --target y", 2),
        ("export --model m:f --bank d.npz --data d.npz --out net.pth", 2),
        ("export --model m:f --bank d.npz --data d.npz --out net.pt2 --precision 4,x", 2),
        ("export --model m:f --bank d.npz --data d.npz --out net.pt2 --group ^.", 2),
        ("sweep --model m:f --task . --out o --batch-sizes 8,many", 2),
        ("sweep --model m:f --task . --out o --figures gif", 2),
        ("sweep --model m:f --task . --out o --workers -1", 2),
        ("sweep --model m:f --task m:f --out o --group ^.", 2),
        ("sweep --model m:f --task . --out d.npz", 2),
        ("study run study.yaml --out d.npz", 2),
        ("study run study.yaml --out o --jobs 0", 2),
        ("study run study.yaml --out o --shard 3/2", 2),
        ("study run study.yaml --out o --executor slurm", 2),
        ("demo --out d.npz", 2),
    ],
)  # fmt: skip
def test_no_answer_that_needs_no_network_waits_for_torch(tmp_path, line, code):
    for name in ("d.npz", "p.xlsx"):
        (tmp_path / name).touch()
    study = tmp_path / "study.yaml" if line.startswith("study run") else tmp_path / "o.yaml"
    study.write_text("seeds: [0]\n")
    if "--out study.yaml" in line:
        (tmp_path / "study.yaml").touch()
    actual, said, names = imported(*line.split(), cwd=tmp_path)
    assert actual == code, said
    assert said
    assert code == 0 or (len(said) == 1 and said[0].startswith("mcbn: error: expected "))
    require_few(names, line)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    run_study(smallest(), folder, executor=Here(), progress=False)
    return folder


LONG = f"""
import sys
sys.argv = ["mcbn", "study", "table", {{folder!r}}]
from mcbn.cli import study
row = study.Study.rows
study.Study.rows = lambda self, **options: {len(MANY_SEEDS)} * row(self, **options)
from mcbn.cli.main import main
main()
"""


@pytest.mark.parametrize("lines", [0, 1])
def test_a_reader_that_ends_early_sees_no_traceback(finished, lines):
    writer = subprocess.Popen(
        [sys.executable, "-c", LONG.format(folder=str(finished))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(lines):
        assert writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == ""
    writer.stderr.close()
    assert writer.wait() == 0


def on_terminal(*words, **variables):
    """What a command writes to a terminal, as far as errors go."""
    leader, follower = pty.openpty()
    done = subprocess.run(
        [*MCBN, *words], stdout=subprocess.DEVNULL, stderr=follower,
        env={**os.environ, "TERM": "xterm", **variables},
    )  # fmt: skip
    os.close(follower)
    text = b""
    try:
        while part := os.read(leader, 4096):
            text += part
    except OSError:  # all was read
        pass
    os.close(leader)
    assert done.returncode == 2
    return text.decode()


def test_errors_are_red_on_a_terminal_alone(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b[1;31mmcbn: error:\x1b[0m expected a verb" in on_terminal("evalaute")
    assert "\x1b" not in on_terminal("evalaute", NO_COLOR="1")
    assert "\x1b" not in on_terminal("evalaute", TERM="dumb")
    assert "\x1b" not in run("evalaute", TERM="xterm").stderr


def test_a_name_with_codes_of_a_terminal_is_printed_without_them(tmp_path):
    said = run("evaluate", "x\x1b7\x07.st", cwd=tmp_path).stderr
    assert "x\\x1b7\\x07.st" in said
    assert said.count("\n") == 1
    assert said.removesuffix("\n").isprintable()


def completions(line):
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    done = run(**{completion.VARIABLE: "bash_complete", "COMP_WORDS": line,
                  "COMP_CWORD": str(len(words) - 1)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [tuple(each.split(",")) for each in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mcbn ev", [("plain", "evaluate")]),
        ("mcbn study ", [("plain", each) for each in ("run", "status", "table")]),
        ("mcbn predict --meth", [("plain", "--method")]),
        ("mcbn predict --method d", [("plain", "dropout"), ("plain", "deterministic")]),
        ("mcbn predict --keep-draws --likelihood ",
         [("plain", "categorical"), ("plain", "bernoulli"), ("plain", "gaussian")]),
        ("mcbn evaluate --json ", [("file", "")]),
        ("mcbn collect --data tr", [("file", "tr")]),
        ("mcbn study table ", [("dir", "")]),
        ("mcbn completion z", [("plain", "zsh")]),
    ],
)  # fmt: skip
def test_verbs_options_and_values_are_completed(line, offered):
    assert completions(line) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_asks_the_command(shell):
    done = run("completion", shell)
    assert done.returncode == 0, done.stderr
    assert f"{completion.VARIABLE}={shell}_complete" in done.stdout


def test_completion_does_not_import_torch(tmp_path):
    code = (
        "import sys\nfrom mcbn.cli.completion import complete\n"
        "code = complete()\nsys.exit(code or 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, completion.VARIABLE: "bash_complete", "COMP_WORDS": "mcbn predict --m",
             "COMP_CWORD": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--method" in done.stdout


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="needs bash")
def test_bash_accepts_the_script(tmp_path):
    script = tmp_path / "mcbn.bash"
    script.write_text(run("completion", "bash").stdout)
    done = subprocess.run(["/bin/bash", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_warnings_of_a_command_are_one_line(tmp_path):
    code = (
        "import sys, warnings\nsys.argv = ['mcbn', *sys.argv[1:], 'study', 'status', 'x']\n"
        "from mcbn.cli import main, commands\n"
        "commands.pkgutil.resolve_name = lambda _: lambda *_: warnings.warn('one\\ntwo')\n"
        "from mcbn.cli.request import Request\n"
        "Request.check = lambda *_: None\n"
        "main.main()\n"
    )
    for words, expected in (((), "mcbn: warning: one two\n"), (("--quiet",), "")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, expected)
