"""A full, broken or read-only disk, and work that fails midway: told by name, with nothing torn."""

import ast
import errno
import functools
import io
import itertools
import os
import resource
import threading
from contextlib import contextmanager, redirect_stdout

import numpy as np
import pytest
import torch
from faults import Fault, faults_of
from models import examples, make_network
from posteriors import Posterior
from readers import bank, classes, reals
from regression_reports import report as regression_report
from reports import report
from snapshots import assert_same, snapshot
from source import MODULES, dotted, keyword, module_name
from synthetic_studies import classification_study
from torch.utils.data import DataLoader

import mcbn
from mcbn.cli.evaluate import evaluate
from mcbn.cli.options.predictions import EvaluateOptions
from mcbn.io.atomic import write_whole
from mcbn.io.tables import write_columns
from mcbn.io.tensors import draws_file
from mcbn.predictive.recording import parts_for_file
from mcbn.report.report import Report
from mcbn.study import results
from mcbn.study.store import Store

pytestmark = [
    pytest.mark.unchecked,
    pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning"),
]
CODES = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EINTR)
# Every call of ours that changes the disk.
STEPS = ("open", "write", "pwrite", "truncate", "fsync", "replace")


def write_draws(path):
    with draws_file(path, examples=4, header={"data": "x"}) as add:
        add(torch.ones(2, 2, 3))
        add(torch.ones(2, 2, 3))


def write_table(made):
    return lambda path: mcbn.write_predictions(path, made)


def write_scores(path):
    found = path.parent.parent / "scored.st"
    if not found.exists():
        classes().save(found)
    with redirect_stdout(io.StringIO()):
        evaluate(EvaluateOptions(str(found), out=str(path), resamples=2))


@functools.cache
def study():
    return classification_study(seeds=(0,))


def write_page(make_report):
    """Of the two files of a report, the one that is written last."""
    return lambda path: make_report().write(path.parent)


WRITERS = {
    "bank.st": bank().save,
    "predictions.st": classes(draws=True).save,
    "regression.st": reals(keep_draws=True).save,
    "draws.st": write_draws,
    "classes.csv": write_table(classes()),
    "classes.parquet": write_table(classes(columns=False)),
    "classes.npz": write_table(classes()),
    "columns.csv": lambda path: write_columns(path, {"a": np.arange(99)}),
    "study.yaml": lambda path: Store(path.parent).declare("title: x\n"),
    "scores.json": write_scores,
    "study.csv": lambda path: write_whole(path, results.to_csv(study()).encode()),
    "study.parquet": lambda path: write_whole(path, results.to_parquet(study())),
}
REPORTS = {
    "report": report,
    "regression report": regression_report,
    "study report": functools.cache(lambda: Report.from_study(study())),
}
every_writer = pytest.mark.parametrize("name", WRITERS)


# What puts a file somewhere. Text has a method called replace: that one is named in full.
PUTS = {"write_bytes", "write_text", "symlink_to", "hardlink_to", "rename", "save_file", "tofile",
        "os.replace", "os.link", "os.symlink", "shutil.copy", "shutil.copyfile", "shutil.move",
        "np.save", "np.savez", "torch.save", "json.dump", "yaml.dump"}  # fmt: skip


def puts_a_file(node):
    """Whether a call writes a file by itself; a handle that `durable` gave is no file."""
    name = dotted(node)
    last = name.rpartition(".")[2]
    if last not in ("open", "fdopen") or name.startswith("archive."):
        return not PUTS.isdisjoint((name, last))
    said = [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
    modes = [*(text for text in said if set(text) <= set("rwaxbt+")), keyword(node, "mode") or ""]
    return not set("wax+").isdisjoint("".join(modes)) and keyword(node, "closefd") != "False"


def writes(text):
    calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return [ast.unparse(node) for node in calls if puts_a_file(node)]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_file_is_written_by_the_one_writer(path):
    moved = (
        ["os.rename(self.folder / kind / key, doomed)"]
        if module_name(path) == "study/store"
        else []
    )
    if module_name(path) != "io/atomic":
        assert writes(path.read_text(encoding="utf-8")) == moved


@pytest.mark.parametrize(
    "text",
    ["open(p, 'w')", "open(p, mode='ab')", "Path(p).open('w')", "Path(p).write_text(t)",
     "gzip.open(p, 'wb')", "os.replace(a, b)", "torch.save(x, p)", "path.rename(b)"],
)  # fmt: skip
def test_a_writer_of_its_own_is_seen(text):
    assert writes(text) == [ast.unparse(ast.parse(text))]


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "out"
    found.mkdir()
    return found


@contextmanager
def files_of_at_most(size):
    """The kernel's own fault: no file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_old(folder, name, old):
    """The target is as it was, or absent, and nothing lies beside it."""
    assert {path.name for path in folder.iterdir()} == (set() if old is None else {name})
    if old is not None:
        assert (folder / name).read_bytes() == old


@every_writer
@pytest.mark.parametrize("old", [None, b"old"], ids=["absent", "old"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_disk_that_is_full_at_any_byte_leaves_the_old_file(name, old, share, folder):
    path = folder / name
    WRITERS[name](path)
    size = path.stat().st_size
    path.unlink()
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(OSError, match="too large") as told, files_of_at_most(int(share * size)):
        WRITERS[name](path)
    assert told.value.errno == errno.EFBIG
    assert told.value.filename == str(path)
    check_old(folder, name, old)
    WRITERS[name](path)
    assert path.stat().st_size == size


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "scores.json"])  # slow
@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
def test_a_fault_at_any_step_is_told_by_name_and_tears_nothing(name, code, folder, monkeypatch):
    path, places = folder / name, 0
    WRITERS[name](path)
    whole = path.read_bytes()
    for step in STEPS:
        path.write_bytes(b"old")
        error = OSError(code, os.strerror(code))
        for told in faults_of(lambda: WRITERS[name](path), monkeypatch, step, error):
            places += 1
            assert told is not None, f"{step} failed and nobody was told"
            assert told.errno == code
            assert str(path) in str(told)
            assert [each.name for each in folder.iterdir()] == [name]
            # Only the last sync comes after the file is in its place.
            after = (b"old", whole) if step in ("open", "fsync") else (b"old",)
            assert path.read_bytes() in after
            path.write_bytes(b"old")
    assert places >= 5


@pytest.mark.parametrize(
    ("kind", "step", "at"),
    # All go through one writer, and each takes seconds; its other steps are tried above.
    [*((kind, "replace", 1) for kind in REPORTS), ("report", "write", 1), ("report", "fsync", 2)],
)
def test_a_report_is_written_whole_or_not_at_all(kind, step, at, folder, monkeypatch):
    made = REPORTS[kind]()
    olds = {name: f"old {name}".encode() for name in ("report.html", "report.json")}
    for name, content in olds.items():
        (folder / name).write_bytes(content)
    with monkeypatch.context() as patch:
        Fault(patch, step, at, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(OSError, match=r"No space left.*report\.(html|json)"):
            made.write(folder)
    assert {path.name for path in folder.iterdir()} == set(olds)
    assert (folder / "report.html").read_bytes() == olds["report.html"]
    if step == "write":  # nothing is in the way of doing it again
        made.write(folder)
        assert (folder / "report.html").read_text().endswith("</html>")


def test_an_export_that_finds_the_disk_full_leaves_the_old_file(folder, monkeypatch):
    (folder / "net.pt2").write_bytes(b"old")
    sampler = mcbn.Deterministic(make_network("1d of 2-D").eval())
    Fault(monkeypatch, "fsync", 1, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(OSError, match=r"No space left.*net\.pt2"):
        mcbn.export(sampler, examples("1d of 2-D", 2), folder / "net.pt2")
    check_old(folder, "net.pt2", b"old")


def test_a_study_names_the_cell_that_could_not_be_kept(tmp_path, monkeypatch):
    store = Store.create(tmp_path)
    Fault(monkeypatch, "write", 1, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(OSError, match=r"No space left.*cells.key"):
        store.commit("cells", "key", {"scores.json": b"{}"})
    assert not list((tmp_path / "unfinished").iterdir())


def test_an_error_of_what_is_read_meanwhile_is_told_as_it_is(folder):
    def write():
        with draws_file(folder / "draws.st", examples=4, header={}) as add:
            add(torch.ones(2, 2, 3))
            raise PermissionError(errno.EACCES, "denied", "pictures/0.png")

    with pytest.raises(OSError, match=r"denied.*pictures"):
        write()
    assert not list(folder.iterdir())


# Work that fails midway.


class Failing(torch.nn.Module):
    """Passes its input on, and fails from the n-th pass on."""

    def __init__(self, at, error):
        super().__init__()
        # A count of its own would be put back after each pass, as all that a forward changes.
        self.at, self.error, self.passes = at, error, itertools.count(1)

    def forward(self, values):
        if 0 < self.at <= next(self.passes):
            raise self.error
        return values


def noisy(example):
    return example * (1 + 0.1 * torch.rand((), dtype=torch.float64))


SAMPLERS = {
    "MCBatchNorm": lambda model, bank: mcbn.MCBatchNorm(model, bank),
    "MCDropout": lambda model, bank: mcbn.MCDropout(model, draws=4, seed=0),
    "MCDropout put in": lambda model, bank: mcbn.MCDropout(
        torch.nn.Sequential(*(m for m in model if not isinstance(m, torch.nn.Dropout))),
        draws=4,
        insert=0.1,
    ),
    "Augmented": lambda model, bank: mcbn.Augmented(mcbn.MCBatchNorm(model, bank), noisy),
    "LastLayerLaplace": lambda model, bank: mcbn.LastLayerLaplace.fit(
        model, examples("1d of 2-D", 40), torch.arange(40) % 3, draws=4
    ),
    "LaplaceSampler": lambda model, bank: mcbn.LaplaceSampler(Posterior(model), draws=4),
    "Deterministic": lambda model, bank: mcbn.Deterministic(model),
    "DeepEnsemble": lambda model, bank: mcbn.DeepEnsemble([model, model]),
}


def network(training=False):
    model = make_network("1d of 2-D")
    model.append(torch.nn.Dropout(0.1))
    model.append(Failing(0, MemoryError("no more of it")))
    return model.train(training)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, RuntimeError])
def test_a_pass_that_fails_leaves_the_network_and_no_file(name, training, error, folder):
    model, data = network(training), examples("1d of 2-D", 40)
    draws = mcbn.collect(model, mcbn.minibatches(data, batch_size=8, draws=4))
    sampler, before = SAMPLERS[name](model, draws), snapshot(model)
    mcbn.predict(sampler, data[:4], likelihood="categorical")
    for at in (1, 2):
        model[-1].at, model[-1].error, model[-1].passes = (
            at,
            error("no more of it"),
            itertools.count(1),
        )
        with (
            pytest.raises(error, match="no more"),
            draws_file(folder / "draws.st", examples=40, header={}) as add,
        ):
            list(parts_for_file(sampler, data, mcbn.Categorical(), batch_size=10, add=add))
        assert_same(before, snapshot(model))
        assert not list(folder.iterdir())


class Breaking(torch.utils.data.Dataset):
    """Examples of which one cannot be read."""

    def __init__(self, error):
        self.data, self.error = examples("1d of 2-D", 40), error

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        if index == 23:
            raise self.error
        return self.data[index]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken", "23.png"), MemoryError("none")])
def test_a_loader_that_fails_midway_is_told_and_leaves_the_network(workers, error):
    model = network(training=True)
    draws = mcbn.collect(model, mcbn.minibatches(examples("1d of 2-D", 40), batch_size=8, draws=4))
    before = snapshot(model)
    loader = DataLoader(Breaking(error), batch_size=8, num_workers=workers)
    for work in (
        lambda: mcbn.predict(mcbn.MCBatchNorm(model, draws), loader, likelihood="categorical"),
        lambda: mcbn.collect(model, loader, draws=4),
    ):
        with pytest.raises(type(error), match=r"broken|none"):
            work()
        assert_same(before, snapshot(model))


def test_a_loader_that_stalls_ends_by_its_own_timeout():
    class Stalling(Breaking):
        def __getitem__(self, index):
            if index == 23:
                threading.Event().wait(2.5)  # longer than the timeout, no longer than need be
            return self.data[index]

    model = network()
    loader = DataLoader(Stalling(None), batch_size=8, num_workers=1, timeout=1)
    with pytest.raises(RuntimeError, match="timed out"):
        mcbn.predict(mcbn.Deterministic(model), loader, likelihood="categorical")
