"""Files made to do harm: an answer or one clear error, whatever is in them."""

import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import bombs
import numpy as np
import pytest
import torch
from hostile import WORDS, check
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import READERS, bank, classes, plan, reals

from mcbn.io.archives import ALWAYS_ALLOWED_BYTES
from mcbn.io.tables import write_columns
from mcbn.predictive.tables import read_predictions, write_predictions
from mcbn.study import declaration
from mcbn.study.store import Store, commit_failure

pytestmark = pytest.mark.unchecked

COUNTS = (0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)


@st.composite
def edits(draw):
    """What is done to a whole file: where, as a share of it, and what."""
    kind = draw(st.sampled_from(("flip", "cut", "insert", "replace", "count", "repeat", "drop")))
    what = draw(
        st.sampled_from(WORDS) | st.binary(max_size=12) if kind in ("insert", "replace")
        else st.sampled_from(COUNTS) if kind == "count" else st.integers(1, 255)
    )  # fmt: skip
    return kind, draw(st.floats(0, 1)), what, draw(st.sampled_from((1, 2, 4, 8, 64)))


def edited(content, edit):
    kind, share, what, size = edit
    place = int(share * len(content))
    head, tail = content[:place], content[place:]
    if kind == "flip":
        return head + bytes(byte ^ what for byte in tail[:1]) + tail[1:]
    if kind == "cut":
        return head
    if kind == "insert":
        return head + what + tail
    if kind == "replace":
        return head + what + tail[max(len(what), size) :]
    if kind == "count":
        return head + (what % 256 ** min(size, 8)).to_bytes(min(size, 8), "little") + tail[size:]
    if kind == "repeat":
        return head + tail[:size] * what + tail[size:]
    return head + tail[size:]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
LISTS = st.lists(SCALARS, max_size=3)
JSON = SCALARS | LISTS | st.lists(LISTS, max_size=3) | st.dictionaries(st.text(), LISTS, max_size=3)


@st.composite
def hostile(draw, name, whole):
    """A whole file after a few edits, one with a value of its JSON replaced, or one of noise."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind < 5 and name.endswith(".json"):
        values = json.loads(whole)
        values[draw(st.sampled_from([*values, "other"]))] = draw(JSON)
        return json.dumps(values).encode()
    content = whole
    for edit in draw(st.lists(edits(), min_size=1, max_size=4)):
        content = edited(content, edit)
    return content


def laws(count):
    """A share of so many hostile files for each reader; the same ones every time."""
    return settings(
        max_examples=-(-count // len(READERS)), derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def try_many(reader, folder, count):
    @laws(count)
    @given(hostile(reader.name, reader.valid()))
    def law(content):
        check(reader, content, folder / reader.name)

    law()


every_reader = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)


@every_reader
def test_a_whole_file_is_read(reader, tmp_path):
    assert check(reader, reader.valid(), tmp_path / reader.name) == ""


@every_reader
def test_a_thousand_hostile_files_are_answered_or_refused(reader, tmp_path):
    try_many(reader, tmp_path, 1000)


@pytest.mark.slow
@every_reader
def test_ten_thousand_hostile_files_are_answered_or_refused(reader, tmp_path):
    try_many(reader, tmp_path, 10_000)


# Bytes that a reader may need beside twice the file: what a packed file may hold at least, and
# the copies and objects of the reader itself.
BESIDE = ALWAYS_ALLOWED_BYTES + 8 * 2**20


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    """What each bomb did to a process that may grow by 1 GiB."""
    folder = tmp_path_factory.mktemp("costs")
    (folder / "bombs").mkdir()
    for name, make in bombs.FILES.items():
        (folder / "bombs" / name).write_bytes(make())
    words = [sys.executable, bombs.__file__, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", bombs.FILES)
def test_a_bomb_is_refused_and_a_large_file_read_in_twice_its_memory(costs, name):
    told, growth, size = costs[name]
    assert growth <= 2 * size + BESIDE, f"{growth:,} bytes"
    if name.startswith("large"):
        assert not told or "such rows" in told
    else:
        assert told.startswith("ValueError: ")
        assert "expected" in told


EVIL = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from mcbn.plan import DataAxes
class Axes(DataAxes): pass
"""


@pytest.mark.parametrize(
    "text",
    [
        "data: {class_path: evil.Axes, init_args: {}}", "data: evil.Axes", "class_path: evil.Axes",
        "data: !!python/object:evil.Axes {}", "title: !!python/name:evil.Axes",
        "title: !!python/object/apply:evil.Axes []", 'network: {names: ["evil:Axes"]}',
        "config: secret", "print_config: true", "data: secret", "seeds: secret",
    ],
)  # fmt: skip
def test_a_declaration_runs_and_shows_nothing(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "secret").write_text("hunter2: {}")
    (tmp_path / "study.yaml").write_text(f"{text}\n")
    with pytest.raises(ValueError, match=r"study\.yaml|network\.names") as told:
        declaration.read(tmp_path / "study.yaml")
    assert "hunter2" not in str(told.value)
    assert not (tmp_path / "ran").exists()
    assert "evil" not in sys.modules


OTHER = ("null", "", "[null]", ".nan", "1e400", "-1", "{}", "[[1]]", "9" * 30)


@pytest.mark.parametrize("key", declaration.known_keys())
def test_a_value_of_another_kind_in_a_declaration_is_answered_or_refused(key, tmp_path):
    group, _, inner = key.rpartition(".")
    reader = next(each for each in READERS if each.name == "study.yaml")
    for value in OTHER:
        text = f"{group}: {{{inner}: {value}}}\n" if group else f"{inner}: {value}\n"
        check(reader, text.encode(), tmp_path / reader.name)


def pickles():
    """Files with pickles that would make a file."""
    yield "by hand", b"cos\nsystem\n(S'touch ran'\ntR."
    yield (
        "in a tuple",
        b"\x80\x02}q\x00U\x01aq\x01cbuiltins\neval\nq\x02X\x0c\x00\x00\x00open('ran','w')",
    )
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("a/data.pkl", b"cposix\nsystem\n(S'touch ran'\ntR.")
        file.writestr("a/version", b"3\n")
    yield "of torch", made.getvalue()
    made = io.BytesIO()
    np.save(made, np.array([Touching()], dtype=object), allow_pickle=True)
    yield "of numpy", made.getvalue()


class Touching:
    """Makes a file where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@pytest.mark.parametrize(("kind", "content"), [*pickles()], ids=[name for name, _ in pickles()])
def test_no_reader_unpickles(reader, kind, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check(reader, content, tmp_path / reader.name)
    assert not (tmp_path / "ran").exists()


NAMES = ("../out", "../../out", "/out", "..", ".", "a/../../out", "C:\\out", "~/out", "nul\0l")


@pytest.mark.parametrize("name", NAMES)
def test_names_in_files_lead_nowhere(name, tmp_path):
    folder = tmp_path / "deep" / "down"
    folder.mkdir(parents=True)
    path = folder / "m.npz"
    columns = {"p_0": np.array([0.5, 1]), "p_1": np.array([0.5, 0]), name: np.array(["a", "b"])}
    write_columns(path, columns)
    found = read_predictions(path)
    evil = replace(found, method=name, data=name, classes=(name, "b"))
    for suffix in (".csv", ".parquet", ".npz", ".st"):
        write_predictions(folder / f"again{suffix}", evil)
        read_predictions(folder / f"again{suffix}")
    store = Store.create(folder / "study")
    cell = plan().cells()[0]
    network = replace(cell.network, architecture=name, data=name)
    commit_failure(store, replace(cell, network=network, outside=(name,)), name)
    everything = {each.name for each in tmp_path.rglob("*")} - {"down"}
    assert {each.name for each in tmp_path.iterdir()} == {"deep"}
    assert {each.name for each in folder.parent.iterdir()} == {"down"}
    assert not any("out" in each for each in everything)


def test_a_link_in_the_way_is_replaced_and_never_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / "bank.st").symlink_to(other)
    bank().save(tmp_path / "bank.st")
    assert other.read_text() == "mine"
    assert not (tmp_path / "bank.st").is_symlink()


def test_sweeping_a_study_removes_nothing_behind_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    store = Store.create(tmp_path / "study")
    (store.folder / "unfinished" / "link").symlink_to(outside)
    (store.folder / "cells" / "key").symlink_to(outside)
    store.sweep(older_than=-1)
    store.discard("cells", "key")
    assert (outside / "mine").read_text() == "mine"


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_path_with_nul_in_it_is_refused(reader, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)):
        reader.read(tmp_path / "nu\0l" / reader.name)


def changed_predictions(path, made, change):
    """A file of predictions in which some attributes are others."""
    predictive = {k: v for k, v in change.items() if hasattr(made.predictive, k)}
    rest = {k: v for k, v in change.items() if k not in predictive}
    replace(made, predictive=replace(made.predictive, **predictive), **rest).save(path)


@pytest.mark.parametrize(
    ("made", "change", "reason"),
    [
        (classes(), {"log_probabilities": torch.zeros(6, 3).double()}, "sum to 1"),
        (classes(), {"log_probabilities": torch.full((6, 3), torch.nan).double()}, "18 NaN"),
        (
            classes(),
            {"expected_entropy": torch.full((6,), torch.inf).double()},
            "6 NaN or infinite",
        ),
        (classes(), {"targets": torch.full((6,), 3)}, "labels from 0 to 2"),
        (classes(), {"targets": torch.zeros(5, dtype=torch.long)}, "shape"),
        (classes(), {"classes": ("a", "b")}, "names of 3 classes"),
        (reals(keep_draws=True), {"targets": torch.zeros(5).double()}, "of the same shape"),
        (reals(keep_draws=True), {"targets": torch.full((6,), torch.nan).double()}, "6 NaN"),
        (reals(keep_draws=False), {"variance": torch.zeros(6).double()}, "above 0"),
        (
            classes(),
            {"variation_ratio": torch.full((6,), 7.0).double()},
            "variation_ratio from 0 to 1",
        ),
        (
            classes(),
            {"expected_entropy": torch.full((6,), 2.0).double()},
            "entropy from 0 to 1.0986",
        ),
        (classes(), {"variance": torch.full((6, 3), -0.1).double()}, "variance from 0 to 1"),
        (classes(), {"columns": {"site": np.array(["a"])}}, "6 values of 'site', got 1"),
        (classes(), {"index": np.array(["a"])}, "6 values of 'index', got 1"),
        (
            reals(keep_draws=False),
            {"epistemic_variance": torch.full((6,), 9.0).double()},
            "epistemic variances from 0 to the whole",
        ),
        (
            reals(keep_draws=False),
            {"epistemic_variance": torch.full((6,), -0.1).double()},
            "epistemic variances from 0 to the whole",
        ),
        (reals(keep_draws=False), {"mean": torch.full((6,), torch.nan).double()}, "6 NaN"),
    ],
)
def test_predictions_that_contradict_themselves_are_refused(made, change, reason, tmp_path):
    changed_predictions(tmp_path / "p.st", made, change)
    with pytest.raises(ValueError, match=rf"(?s)^expected .*{reason}.*p\.st"):
        read_predictions(tmp_path / "p.st")
