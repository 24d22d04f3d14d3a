"""Files made to do harm: an answer or one clear error, whatever is in them."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import READERS

# Values that readers trip over, as they stand in text and as integers in headers.
WORDS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"1e-320", b"null", b"true", b'""',
    b"9" * 40, b"9" * 5000, b"[" * 2000, b"{" * 2000, b"\xff\xfe", b"\0", b"\xed\xa0\x80", b"../",
    b"\xef\xbb\xbf", b'{"a": 1, "a": 2}', b"&a [*a, *a]", b"*a", b"!!python/name:os.system", b"? [",
    b"class_path: antigravity", b"<<: *a", b"config: /etc/hostname", b",,,", b'"', b"\r", b"nan",
    b"|O8", b"'descr': '|O'", b"(99999999999999,)", b"<f8", b"cos\nsystem\n(S'true'\ntR.", b"-0.0",
)  # fmt: skip
COUNTS = (0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)
SMALL = 8 * 2**20  # bytes any reader may need, besides twice the file


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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@st.composite
def hostile(draw, reader):
    """A whole file after a few edits, one with a value of its JSON replaced, or one of noise."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind < 5 and reader.name.endswith(".json"):
        values = json.loads(reader.whole())
        values[draw(st.sampled_from([*values, "other"]))] = draw(JSON)
        return json.dumps(values).encode()
    content = reader.whole()
    for edit in draw(st.lists(edits(), min_size=1, max_size=4)):
        content = edited(content, edit)
    return content


def check(reader, content, path):
    """The law: an answer, or an error of one kind that says what to do and of which file.

    Returns what the error says.
    """
    path.write_bytes(content)
    try:
        reader.read(path)
    except ValueError as error:
        told = str(error)
        assert "expected" in told, told
        assert reader.is_value or path.name in told, told
        assert len(told) < 2000, f"{len(told)} characters"
        return told
    return ""


def laws(count):
    """A share of so many hostile files for each reader; the same ones every time."""
    return settings(
        max_examples=-(-count // len(READERS)), derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def try_many(reader, folder, count):
    @laws(count)
    @given(hostile(reader))
    def law(content):
        check(reader, content, folder / reader.name)

    law()


every_reader = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)


@every_reader
def test_a_whole_file_is_read(reader, tmp_path):
    assert check(reader, reader.whole(), tmp_path / reader.name) == ""


@every_reader
def test_a_thousand_hostile_files_are_answered_or_refused(reader, tmp_path):
    try_many(reader, tmp_path, 1000)


@pytest.mark.slow
@every_reader
def test_ten_thousand_hostile_files_are_answered_or_refused(reader, tmp_path):
    try_many(reader, tmp_path, 10_000)
