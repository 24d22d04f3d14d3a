"""Delimited text: separators, encodings and packings that people have, read alike or refused."""

import gzip

import numpy as np
import pytest

from mcbn.io import delimited
from mcbn.io.suffixes import stem
from mcbn.io.tables import column, numbers, read_columns, write_columns

PLAIN = "p_0,p_1,label\n0.9,0.1,0\n0.25,0.75,1\n"
TAB = PLAIN.replace(",", "\t")
ALIKE = {
    "plain.csv": PLAIN.encode(),
    "tab.tsv": TAB.encode(),
    "tab.csv": TAB.encode(),
    "semicolon.csv": PLAIN.replace(",", ";").encode(),
    "bar.csv": PLAIN.replace(",", "|").encode(),
    "decimal commas.csv": PLAIN.replace(",", ";").replace(".", ",").encode(),
    "quoted commas.csv": b'p_0,p_1,label\n"0,9","0,1",0\n"0,25","0,75",1\n',
    "quoted.csv": b'"p_0","p_1","label"\n"0.9","0.1","0"\n"0.25","0.75","1"\n',
    "mark.csv": b"\xef\xbb\xbf" + PLAIN.encode(),
    "utf-16.csv": PLAIN.encode("utf-16"),
    "utf-16 tabs.tsv": TAB.encode("utf-16"),
    "utf-16 without a mark.csv": PLAIN.encode("utf-16-le"),
    "utf-16 big.csv": PLAIN.encode("utf-16-be"),
    "utf-32.csv": PLAIN.encode("utf-32"),
    "gzipped.csv.gz": gzip.compress(PLAIN.encode(), mtime=0),
    "gzipped.tsv.gz": gzip.compress(TAB.encode(), mtime=0),
    "gzipped without saying so.csv": gzip.compress(PLAIN.encode(), mtime=0),
    "windows.csv": PLAIN.replace("\n", "\r\n").encode(),
    "old mac.csv": PLAIN.replace("\n", "\r").encode(),
    "blank lines.csv": b"\n" + PLAIN.replace("\n", "\n\n,,\n  \n").encode(),
    "ends.csv": PLAIN.replace("\n", ",\n").encode(),
    "ends of values.csv": PLAIN.replace("0\n", "0,,\n").replace("1\n", "1,\n").encode(),
    "spaces.csv": PLAIN.replace(",", " , ").encode(),
    "one space.csv": PLAIN.replace("label", " label").encode(),
    "remark.csv": b"# by hand\n" + PLAIN.encode(),
    "excel.csv": b"sep=;\r\n" + PLAIN.replace(",", ";").encode(),
    "savetxt.csv": b"# " + PLAIN.encode(),
    "UPPER.CSV": PLAIN.encode(),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_people_have_is_read_alike(name, tmp_path):
    (tmp_path / name).write_bytes(ALIKE[name])
    columns = read_columns(tmp_path / name)
    assert list(columns) == ["p_0", "p_1", "label"]
    read = [numbers(values, key, name).tolist() for key, values in columns.items()]
    assert read == [[0.9, 0.25], [0.1, 0.75], [0, 1]]


@pytest.mark.parametrize(
    ("content", "reason", "remedied"),
    [
        ("0.9,0.1,0\n0.2,0.8,1\n", "names of the columns in the first line .* number '0.9'",
         "p_0,p_1,label\n0.9,0.1,0\n0.2,0.8,1\n"),
        ("p_0 p_1 label\n0.9 0.1 0\n", "got spaces in 'p_0 p_1 label'; separate them by commas",
         "p_0,p_1,label\n0.9,0.1,0\n"),
        ("a,b\n1,5,2\n", "2 values per line .* 3 in line 2; .* decimal point", "a,b\n1.5,2\n"),
        ("a,b\n1\n", "2 values per line .* got 1 in line 2", "a,b\n1,\n"),
        ("a,,b\n1,2,3\n", "one without a name; rename", "a,c,b\n1,2,3\n"),
        (b"a,b\nK\xe4se,2\n", "text in UTF-8 or UTF-16.* save it as UTF-8", "a,b\nKäse,2\n"),
        (b"PK\x03\x04rest", "got a zip archive, such as a workbook; save it as", "a,b\n1,2\n"),
        (gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:-9], "gzipped text",
         gzip.compress(b"a,b\n1,2\n", mtime=0)),
    ],
)  # fmt: skip
def test_other_text_is_refused_and_the_remedy_works(content, reason, remedied, tmp_path):
    path = tmp_path / "net.csv"
    for given in (content, remedied):
        path.write_bytes(given if isinstance(given, bytes) else given.encode())
        if given is content:
            with pytest.raises(ValueError, match=rf"(?s)^expected .*{reason}"):
                read_columns(path)
    assert len(read_columns(path)) >= 2


@pytest.mark.parametrize("word", ["1,234", "-12,000", "+1,000"])
def test_a_comma_that_may_be_of_thousands_is_refused(word):
    given = np.array([word, "2,500"], dtype=object)
    with pytest.raises(ValueError, match=r"got .* in row 1 .*write a decimal point"):
        numbers(given, "mean", "net.csv")
    # One value that is no thousand decides.
    decided = numbers(np.array([word, "0,5"], dtype=object), "mean", "net.csv")
    assert decided.tolist() == [float(word.replace(",", ".")), 0.5]


def test_mixed_decimal_signs_are_refused():
    with pytest.raises(ValueError, match="got '0,5' in row 2"):
        numbers(np.array(["0.5", "0,5"], dtype=object), "p_0", "net.csv")


HOSTILE = ["a,b", 'say "x"', "two\nlines", "end\r", "a\r\nb", " lead", "tab\t", "é;|", "#", "0,5"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".npz"])
def test_text_is_written_and_read_back(suffix, tmp_path):
    columns = {
        "index": np.arange(len(HOSTILE)),
        "x": np.arange(len(HOSTILE)) / 3,
        "text": np.array(HOSTILE, dtype=object),
    }
    for name in ("one", "two"):
        write_columns(tmp_path / f"{name}{suffix}", columns)
    one, two = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two"))
    assert one == two
    back = read_columns(tmp_path / f"one{suffix}")
    assert list(map(str, back["text"])) == HOSTILE
    assert numbers(back["x"], "x", "").tolist() == columns["x"].tolist()
    assert stem(tmp_path / f"one{suffix}") == "one"


def test_text_that_would_be_padded_to_gigabytes_is_refused_for_npz(tmp_path):
    values = np.array(["x"] * 30_000 + ["y" * 100_000], dtype=object)
    with pytest.raises(ValueError, match=r"12,000,400,000 .* write \.csv or \.parquet instead"):
        write_columns(tmp_path / "a.npz", {"site": values})
    assert not (tmp_path / "a.npz").exists()
    write_columns(tmp_path / "a.csv", {"site": values})
    assert column(read_columns(tmp_path / "a.csv"), "site", "")[-1] == "y" * 100_000


def test_bytes_in_npz_are_text(tmp_path):
    np.savez(tmp_path / "a.npz", site=np.array([b"cat", b"dog"]), x=np.array([b"0.5", b"1"]))
    columns = read_columns(tmp_path / "a.npz")
    assert numbers(columns["x"], "x", "").tolist() == [0.5, 1]


def test_a_separator_within_names_is_none(tmp_path):
    (tmp_path / "a.csv").write_text("p_a,b,c;p_d,e;label\n0.5;0.5;d,e\n")
    columns = read_columns(tmp_path / "a.csv")
    assert {name: list(values) for name, values in columns.items()} == {
        "p_a,b,c": ["0.5"], "p_d,e": ["0.5"], "label": ["d,e"],
    }  # fmt: skip


def is_share(name):
    return name.startswith("p_")


@pytest.mark.parametrize("piece", [1, 2, 100])
def test_numbers_whose_text_does_not_matter_are_held_as_numbers(monkeypatch, tmp_path, piece):
    monkeypatch.setattr(delimited, "PIECE", piece)
    (tmp_path / "a.csv").write_text("p_a,id,p_b,\n0.50,007,1e-3,\n.25,007,1,\n0.125,8,0.3,\n")
    columns = read_columns(tmp_path / "a.csv", is_numeric=is_share)
    assert columns["p_a"].tolist() == [0.5, 0.25, 0.125]
    assert columns["p_b"].tolist() == [0.001, 1.0, 0.3]
    assert columns["id"].tolist() == ["007", "007", "8"]
    assert [columns[name].dtype.kind for name in columns] == ["f", "O", "f"]


@pytest.mark.parametrize("piece", [1, 2, 100])
@pytest.mark.parametrize("odd", ["1_0", "nan", "inf", "-inf", "", "x", "0,5", "5%"])
def test_a_column_with_anything_else_is_text_with_every_digit(monkeypatch, tmp_path, piece, odd):
    monkeypatch.setattr(delimited, "PIECE", piece)
    third = str(1 / 3)
    (tmp_path / "a.csv").write_text(f"p_a;b\n{third};x\n0.25;x\n{odd};x\n0.5;x\n")
    columns = read_columns(tmp_path / "a.csv", is_numeric=is_share)
    assert columns["p_a"].tolist() == [third, "0.25", odd, "0.5"]


def test_a_last_column_without_a_name_stays_if_a_late_line_has_a_value(monkeypatch, tmp_path):
    monkeypatch.setattr(delimited, "PIECE", 1)
    (tmp_path / "a.csv").write_text("a,\n1,\n2,x\n")
    with pytest.raises(ValueError, match="one without a name"):
        read_columns(tmp_path / "a.csv")


def test_lines_are_read_in_pieces(monkeypatch, tmp_path):
    """No more cells are held as text than a piece has, by counting those that are added."""
    monkeypatch.setattr(delimited, "PIECE", 10)
    sizes, finite = [], delimited._finite
    monkeypatch.setattr(
        delimited, "_finite", lambda cells: sizes.append(len(cells)) or finite(cells)
    )
    (tmp_path / "a.csv").write_text("p_a,p_b\n" + 25 * "0.5,0.5\n")
    assert len(read_columns(tmp_path / "a.csv", is_numeric=is_share)["p_b"]) == 25
    assert sizes == [10, 10, 10, 10, 5, 5]
