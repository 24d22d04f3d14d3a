"""The law of hostile files: read right, or refused by an error that names the file."""

# Values that readers trip over, as they stand in text and as integers in headers.
WORDS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"1e-320", b"null", b"true", b'""',
    b"9" * 40, b"9" * 5000, b"[" * 2000, b"{" * 2000, b"\xff\xfe", b"\0", b"\xed\xa0\x80", b"../",
    b"\xef\xbb\xbf", b'{"a": 1, "a": 2}', b"&a [*a, *a]", b"*a", b"!!python/name:os.system", b"? [",
    b"class_path: antigravity", b"<<: *a", b"config: /etc/hostname", b",,,", b'"', b"\r", b"nan",
    b"|O8", b"'descr': '|O'", b"(99999999999999,)", b"<f8", b"cos\nsystem\n(S'true'\ntR.", b"-0.0",
)  # fmt: skip


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
