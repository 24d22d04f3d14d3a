"""A program that reads files made to fill the memory, and tells what each of them cost.

Usage: bombs.py FOLDER. It prints one JSON object: by name, the error and the growth of the process.
"""

import gzip
import io
import json
import resource
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from readers import READERS

import mcbn
from mcbn.io.tables import read_columns

ROOM = 2**30  # bytes of address space beside what is in use
ZEROS = 2**27  # bytes that a bomb holds once it is unpacked


def npy(shape, *, version=b"\x01\x00", size=None, kind="<f8", rest=b""):
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text) if size is None else size)
    return b"\x93NUMPY" + version + length + text + rest


def archive(*contents, names=None, stored=False):
    made = io.BytesIO()
    kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(made, "w", kind) as file:
        for place, content in enumerate(contents):
            file.writestr(names[place] if names else f"a{place}.npy", content)
    return made.getvalue()


def tensors(header, *, size=None, rest=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + rest


def parquet(columns, **options):
    made = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), made, **options)
    return made.getvalue()


def repeated(text, rows):
    indices = pyarrow.array(np.zeros(rows, dtype=np.int32))
    return pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([text]))


def checkpoint():
    made = io.BytesIO()
    torch.save({"weight": torch.zeros(ZEROS // 4)}, made)
    with zipfile.ZipFile(made) as file:
        return archive(*map(file.read, file.namelist()), names=file.namelist())


def laughs(depth=12):
    lines = ["l0: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"l{k}: &l{k} [{', '.join([f'*l{k - 1}'] * 9)}]" for k in range(1, depth)]
    return "\n".join([*lines, f"seeds: *l{depth - 1}", ""]).encode()


def quoted_laughs(depth=12):
    inner = "&l0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"
    for k in range(1, depth):
        inner = f"&l{k} [{inner}, {', '.join([f'*l{k - 1}'] * 8)}]"
    return f'seeds: "{inner}"\n'.encode()


def noise(size):
    return np.random.default_rng(0).bytes(size)


def chances(place):
    found = np.random.default_rng(0).random(LARGE // 16)
    return found if place else 1 - found


def large_bank():
    rows = torch.ones(2**10, LARGE // 2**13)
    statistics = {"running_mean": rows, "running_var": rows}
    bank = mcbn.Bank(statistics, {k: v[0] for k, v in statistics.items()}, batch_size=8)
    with tempfile.TemporaryDirectory() as folder:
        bank.save(Path(folder) / "bank")
        return (Path(folder) / "bank").read_bytes()


def grid(values=2000):
    axis = list(range(2, values))
    return f"seeds: {axis}\ntraining: {{batch_sizes: {axis}}}\n".encode()


MADE = {
    "zeros.npz": lambda: archive(npy((ZEROS // 8,), rest=b"\0" * ZEROS)),
    "many zeros.npz": lambda: archive(*[npy((2**21,), rest=b"\0" * 2**24)] * 8),
    "false shape.npz": lambda: archive(npy((10**12,), rest=b"\0" * 80)),
    "no numbers but a shape.npz": lambda: archive(npy((0, 10**30))),
    "long header.npz": lambda: archive(npy((1,), version=b"\x02\x00", size=2**32 - 1)),
    "no width.npz": lambda: archive(npy((2**50,), kind="<U0")),
    "wide text.npz": lambda: archive(npy((1,), kind=f"<U{2**28}")),
    "false shape.npy": lambda: npy((2**40,), rest=b"\0" * 80),
    "objects.npy": lambda: npy((1,), kind="|O", rest=b"cos\nsystem\n(S'true'\ntR."),
    "zeros.idx.gz": lambda: gzip.compress(
        struct.pack(">HBBI", 0, 8, 1, ZEROS) + b"\0" * ZEROS, mtime=0
    ),
    "false shape.idx.gz": lambda: gzip.compress(struct.pack(">HBBII", 0, 8, 2, 2**32 - 1, 2**31)),
    "zeros.gz": lambda: gzip.compress(b"0\n" * (ZEROS // 2), mtime=0),
    "long header.st": lambda: tensors({}, size=2**40),
    "longer header.st": lambda: tensors({}, size=2**64 - 1),
    "false offsets.st": lambda: tensors(
        {"a": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}}
    ),
    "false shape.st": lambda: tensors(
        {"a": {"dtype": "F64", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}, rest=b"\0" * 8
    ),
    "one number.parquet": lambda: parquet({"p_0": repeated(0.5, 10**7)}),
    "one text.parquet": lambda: parquet({"site": repeated("x" * 2**20, 10**5)}),
    "one long text.parquet": lambda: parquet({"site": ["x" * 2**26]}, compression="zstd"),
    "one cell.csv": lambda: b"p_0,p_1\n0." + b"5" * 2**24 + b",0.5\n",
    "one line.csv": lambda: b"," * 2**20,
    "quotes.csv": lambda: b'p_0,p_1\n"' + b'""' * 2**22 + b"\n",
    "laughs.yaml": laughs,
    "quoted laughs.yaml": quoted_laughs,
    "deep.yaml": lambda: b"seeds: " + b"[" * 2**15,
    "long.yaml": lambda: b"seeds: [" + b"1," * 2**22 + b"1]\n",
    "a grid.yaml": grid,
    "an ensemble.yaml": lambda: b"inference: {members: 1000000000}\nmethods: [Deep ensemble]\n",
    "deep.json": lambda: b'{"nll": ' + b"[" * 2**22,
    "long number.json": lambda: b'{"nll": ' + b"9" * 2**22 + b"}",
    "zeros.pt": checkpoint,
}  # fmt: skip
# Files that are large and whole: what they hold is twice in memory at most.
LARGE = 2**24
MADE |= {
    "large.npz": lambda: archive(npy((LARGE // 8,), rest=bytes(noise(LARGE))), stored=True),
    "large.npy": lambda: npy((LARGE // 8,), rest=bytes(noise(LARGE))),
    "large.idx.gz": lambda: gzip.compress(
        struct.pack(">HBBI", 0, 8, 1, LARGE) + bytes(noise(LARGE)), 1, mtime=0
    ),
    "large.parquet": lambda: parquet({f"p_{k}": chances(k) for k in (0, 1)}),
    "large.st": large_bank,
}
# Scores and the like need memory of their own.
LOADED = {"large.st": mcbn.Bank.load, "large.parquet": read_columns}
READ = {".npz": "test.npz", ".npy": "labels.npy", ".idx.gz": "images.idx.gz", ".gz": "table.gz",
        ".st": "bank.st", ".parquet": "classes.parquet", ".csv": "classes.csv",
        ".yaml": "study.yaml", ".json": "scores.json", ".pt": "weights.pt"}  # fmt: skip


def memory(line):
    """Bytes of a line of the process's status: VmRSS now, VmHWM at the most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(each.split()[1]) for each in lines if each.startswith(line))


def main(folder):
    read = {reader.name: reader.read for reader in READERS}
    for reader in READERS:  # so that nothing is imported later
        path = folder / reader.name
        path.write_bytes(reader.whole())
        reader.read(path)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    found = {}
    for path in sorted(folder.glob("bombs/*")):
        reader = next(READ[end] for end in READ if path.name.endswith(end))
        use = LOADED.get(path.name, read[reader])
        Path("/proc/self/clear_refs").write_text("5")  # the most is from now on
        before, told = memory("VmRSS"), ""
        try:
            use(path)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        found[path.name] = [told, memory("VmHWM") - before, path.stat().st_size]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
