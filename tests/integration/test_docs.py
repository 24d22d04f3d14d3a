"""The documentation: code blocks run and print what the page shows; links and commands exist."""

import ast
import contextlib
import io
import math
import os
import re
import runpy
import socket
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import recipe_files
import torch
from sklearn.datasets import load_digits
from tiny import Here
from torch import nn

import mcbn
from mcbn.cli.main import VERBS, main
from mcbn.evaluation import bootstrap
from mcbn.io.tensors import draws_file
from mcbn.study import run as study_run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {"README.md": (ROOT / "README.md").read_text()}
PAGES |= {
    path.relative_to(DOCS).as_posix(): path.read_text()
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts
}
# These include a file that has tests of its own.
COPIES = {page for page, text in PAGES.items() if text.startswith("```{include}")}
# Their blocks run in tests of their own; of the README only the blocks marked `py` run here.
README, TRACKING = "README.md", "tracking.md"
FILE = re.compile(r"# (\w+\.\w+)\n")
BLOCK = re.compile(r"^( *)```(python|py|text|sh)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# Results of networks trained here differ between processors by about this much.
RELATIVE, ABSOLUTE = 0.1, 0.02
MAX_RESAMPLES = 100


def blocks(page, *languages):
    """Language and text of the fenced blocks of a page, in order."""
    fenced = [(language, textwrap.dedent(text)) for _, language, text in BLOCK.findall(PAGES[page])]
    return [block for block in fenced if block[0] in languages]


@pytest.fixture(scope="module")
def names_of_the_pages():
    """The names that pages use without defining them: a trained network, its bank, and data."""
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images / 16).float(), torch.tensor(labels)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(100):
            rows = torch.randint(1200, (32,), generator=generator)
            loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    batches = mcbn.minibatches(inputs[:1200], batch_size=32, draws=16, seed=0)
    bank = mcbn.collect(model, batches)
    names = {
        "model": model,
        "bank": bank,
        "batches": batches,
        "sampler": mcbn.MCBatchNorm(model, bank),
        "training_data": inputs[:1200],
        "images": inputs[1200:1300],
        "some_inputs": inputs[:32],
        "held_out_images": inputs[1200:],
        "held_out_labels": targets[1200:],
        "file": type("File", (), {"write": lambda self, values: None})(),
        "torch": torch,
        "math": math,
        "mcbn": mcbn,
    }
    for part, rows in (("validation", slice(1200, 1300)), ("test", slice(1300, 1400))):
        names |= {f"{part}_inputs": inputs[rows], f"{part}_targets": targets[rows]}
        names[f"{part}_data"] = inputs[rows]
    return names | {"inputs": inputs[1200:1300], "targets": targets[1200:1300]}


PAIRS = """
train_data = (training_data, torch.zeros(len(training_data), dtype=torch.long))
validation_data, test_data = (validation_inputs, validation_targets), (test_inputs, test_targets)
"""
# Code to run before a page's first block, for files that one of its commands would have written.
# Also for a package that warns when it is imported.
BEFORE = {
    # A network of two batch-norm layers, so that there are layers to choose.
    "choosing.md": "model = torch.nn.Sequential(*model[:3], torch.nn.BatchNorm1d(32), model[4])"
    ".eval()\nbank = mcbn.collect(model, batches)",
    "deployment.md": 'mcbn.export(sampler, images[:4], "net.pt2")',
    "batches.md": "import graphs",
    "tutorial.md": f'torch.save(model.state_dict(), "weights.pt")\n{PAIRS}',
    "README.md": PAIRS.replace("test_data", "test_pairs"),
}

TINY_STUDY = """
data: {names: [digits], test_size: 40}
network: {names: [mlp], width: 8}
training: {batch_sizes: [32], epochs: 1}
inference: {batch_sizes: [16], draws: [2]}
methods: [MCBN]
seeds: [0]
"""


def write_files_of_commands():
    """Write the files that the commands on the pages would have written."""
    study = Path("experiments/studies/digits.yaml")
    study.parent.mkdir(parents=True)
    study.write_text(TINY_STUDY)
    logits = torch.arange(24.0).reshape(2, 4, 3).cos()
    with draws_file("draws.st", examples=4, header={}) as add_batch:
        add_batch(logits)
    predictive = mcbn.Categorical().summarize(logits)
    mcbn.Predictions("MCBN", predictive, torch.tensor([0, 1, 2, 0]), "four").save("mcbn.st")


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """Run in an empty folder, with few resamples, studies in this process and a group of one."""
    if root := os.environ.get("MCBN_DATA"):
        monkeypatch.setenv("MCBN_DATA", str(Path(root).resolve()))  # it may be relative
    monkeypatch.chdir(tmp_path)
    write_files_of_commands()
    monkeypatch.setattr(study_run, "Processes", Here)
    # Most pages use the default of 1,000, which would take most of the time.
    for name in ("replicates", "counted_replicates"):
        original = getattr(bootstrap, name)
        monkeypatch.setattr(
            bootstrap,
            name,
            lambda *arguments, resamples, original=original, **options: original(
                *arguments, resamples=min(resamples, MAX_RESAMPLES), **options
            ),
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"),
                        ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port)):  # fmt: skip
        monkeypatch.setenv(name, value)
    with torch.random.fork_rng():
        yield


def run(page, names):
    """Run a page's code in order; yield what it prints and what the page shows for it.

    A block that begins with the name of a file, as a comment, is written to it instead.
    """
    printed = ""
    exec(BEFORE.get(page, ""), names)
    languages = ("py",) if page == README else ("python", "py", "text")
    for number, (language, text) in enumerate(blocks(page, *languages), 1):
        if language == "text":
            yield printed, text
            continue
        if file := FILE.match(text):
            Path(file[1]).write_text(text)
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(text, f"{page}, block {number}", "exec"), names)
        printed = out.getvalue()


NUMBER = re.compile(r"(-?\d+\.?\d*(?:e-?\d+)?)")


def assert_same_output(printed, shown):
    """Check that words are equal and numbers differ by no more than between processors."""
    actual, expected = (NUMBER.split(" ".join(text.split())) for text in (printed, shown))
    assert actual[::2] == expected[::2], f"printed:\n{printed}\nshown:\n{shown}"
    for number, other in zip(actual[1::2], expected[1::2], strict=True):
        assert float(number) == pytest.approx(float(other), rel=RELATIVE, abs=ABSOLUTE), printed


WITH_CODE = [
    page for page in PAGES if page not in COPIES | {TRACKING} and blocks(page, "python", "py")
]


@pytest.mark.filterwarnings("default::mcbn.InconsistentBankWarning")
@pytest.mark.filterwarnings("default::mcbn.RescalingWarning")
@pytest.mark.filterwarnings("default:the code or the data:UserWarning")
@pytest.mark.parametrize("page", WITH_CODE)
@pytest.mark.usefixtures("sandbox")
def test_code_of_the_page_runs_and_prints_what_the_page_shows(page, request, monkeypatch):
    if page.startswith("recipes/"):  # their readers have files, and nothing else
        names = {}
        recipe_files.write(page)
    else:
        names = dict(request.getfixturevalue("names_of_the_pages"))
    if page == "recipes/lightning.md":  # whose class is a module of PyTorch, all the same
        monkeypatch.setitem(sys.modules, "lightning", SimpleNamespace(LightningModule=nn.Module))
    for printed, shown in run(page, names):
        assert_same_output(printed, shown)


def test_a_page_that_shows_other_output_is_detected():
    assert_same_output("best 32.1 of 3", "best  31.9\nof 3")
    with pytest.raises(AssertionError):
        assert_same_output("best 32.1", "best 12.1")
    with pytest.raises(AssertionError):
        assert_same_output("best 32.1", "worst 32.1")


def commands(program):
    """Page and arguments of each call of a program in the `sh` blocks."""
    for page in PAGES.keys() - COPIES:
        for _, text in blocks(page, "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                if line.startswith(program + " "):
                    yield page, line.split("#")[0].split()[1:]


def test_commands_on_the_pages_use_existing_options(capsys):
    options = {}
    for page, words in commands("mcbn"):
        name = next((verb for verb in (" ".join(words[:2]), words[0]) if verb in VERBS), None)
        assert name or words[0] in ("VERB", "--help"), f"{page}: {words}"
        if name and name not in options:
            with pytest.raises(SystemExit) as ended:
                main([*name.split(), "--help"])
            assert ended.value.code == 0
            options[name] = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert not name or given <= options[name], f"{page}: {given - options[name]}"
    assert len(options) > 5


def test_make_targets_on_the_pages_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = [(page, words[0]) for page, words in commands("make")]
    assert len(named) >= 2
    for page, target in named:
        assert f"\n{target}:" in makefile, f"{page}: make {target}"


def test_every_page_is_in_the_table_of_contents_exactly_once():
    trees = [
        tree
        for text in PAGES.values()
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", text, flags=re.DOTALL)
    ]
    lines = [line for tree in trees for line in tree.splitlines()]
    listed = [line.removeprefix("/") for line in lines if line and line[0] != ":"]
    assert sorted(listed) == sorted(
        page.removesuffix(".md") for page in PAGES if page not in ("README.md", "index.md")
    )


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_resolve(page):
    folder = ROOT if page == README else (DOCS / page).parent
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in link:
            assert (folder / link).exists(), link
    for file in re.findall(r'src(?:set)?="([^"]*)"', text):
        assert (folder / file).is_file(), file
    for shown in re.findall(r"\{(?:include|literalinclude)\} (\S+)", PAGES[page]):
        assert (folder / shown).exists(), shown


def messages():
    """Every string in the package, with `...` in place of inserted values."""
    for path in (ROOT / "mcbn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    part.value if isinstance(part, ast.Constant) else "..." for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "validation.require_type":
                expected = node.args[2]
                yield f"expected {getattr(expected, 'value', '...')}, got ..."


def test_errors_explained_in_the_faq_exist_in_the_package():
    quoted = re.findall(r"^### `(.*)`$", PAGES["faq.md"], flags=re.MULTILINE)
    assert len(quoted) >= 25
    known = [" ".join(message.split()) for message in messages()]
    for head in quoted:
        assert any(head in message for message in known), head


@pytest.mark.parametrize("name", mcbn.__all__)
def test_every_public_name_is_on_the_page_of_its_package(name):
    module = getattr(getattr(mcbn, name), "__module__", f"mcbn.{name}")  # `plot` is one itself
    page = PAGES[f"api/{module.split('.')[1]}.md"]
    assert re.search(rf"^\.\. auto\w+:: (mcbn\.)?{name}$", page, re.MULTILINE)


def test_the_overview_summarizes_each_page_of_the_reference():
    overview = PAGES["api.md"]
    pages = [page.removesuffix(".md") for page in PAGES if page.startswith("api/")]
    assert len(pages) > 10
    for page in pages:
        assert f"```{{summary}} {page}\n```" in overview
        assert "```{summary}\n```" in PAGES[f"{page}.md"]


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("sandbox")
def test_example_runs_from_top_to_bottom(script, tmp_path, monkeypatch):
    if "MCBN_DATA" in script.read_text() and not os.environ.get("MCBN_DATA"):
        pytest.skip("needs the data root MCBN_DATA")
    monkeypatch.setenv("EXAMPLE_SIZE", "small")
    runpy.run_path(str(script), run_name="__main__")
    assert list(tmp_path.rglob("*.png"))
