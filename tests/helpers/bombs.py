"""A program that reads files made to fill the memory, and measures the memory that each takes.

Usage: bombs.py FOLDER. It prints one JSON object: for each file name the error, the growth of the
process and the size of the file.
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

EXTRA_BYTES = 2**30  # of address space beyond what is in use
UNPACKED_BYTES = 2**27  # of a bomb


def npy(shape, *, version=b"\x01\x00", size=None, kind="<f8", content=b""):
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text) if size is None else size)
    return b"\x93NUMPY" + version + length + text + content


def archive(*contents, names=None, stored=False):
    buffer = io.BytesIO()
    kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(buffer, "w", kind) as file:
        for place, content in enumerate(contents):
            file.writestr(names[place] if names else f"a{place}.npy", content)
    return buffer.getvalue()


def tensors(header, *, size=None, content=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + content


def parquet(columns, **options):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer, **options)
    return buffer.getvalue()


def repeated(text, rows):
    indices = pyarrow.array(np.zeros(rows, dtype=np.int32))
    return pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([text]))


def checkpoint():
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(UNPACKED_BYTES // 4)}, buffer)
    with zipfile.ZipFile(buffer) as file:
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


def large_npy():
    return npy((LARGE_BYTES // 8,), content=noise(LARGE_BYTES))


def probabilities(class_index):
    values = np.random.default_rng(0).random(LARGE_BYTES // 16)
    return values if class_index else 1 - values


def large_bank():
    rows = torch.ones(2**10, LARGE_BYTES // 2**13)
    statistics = {"running_mean": rows, "running_var": rows}
    bank = mcbn.Bank(statistics, {k: v[0] for k, v in statistics.items()}, batch_size=8)
    with tempfile.TemporaryDirectory() as folder:
        bank.save(Path(folder) / "bank")
        return (Path(folder) / "bank").read_bytes()


def grid(values=2000):
    axis = list(range(2, values))
    return f"seeds: {axis}\ntraining: {{batch_sizes: {axis}}}\n".encode()


FILES = {
    "zeros.npz": lambda: archive(npy((UNPACKED_BYTES // 8,), content=b"\0" * UNPACKED_BYTES)),
    "many zeros.npz": lambda: archive(*[npy((2**21,), content=b"\0" * 2**24)] * 8),
    "false shape.npz": lambda: archive(npy((10**12,), content=b"\0" * 80)),
    "no numbers but a shape.npz": lambda: archive(npy((0, 10**30))),
    "long header.npz": lambda: archive(npy((1,), version=b"\x02\x00", size=2**32 - 1)),
    "no width.npz": lambda: archive(npy((2**50,), kind="<U0")),
    "wide text.npz": lambda: archive(npy((1,), kind=f"<U{2**28}")),
    "false shape.npy": lambda: npy((2**40,), content=b"\0" * 80),
    "objects.npy": lambda: npy((1,), kind="|O", content=b"cos\nsystem\n(S'true'\ntR."),
    "zeros.idx.gz": lambda: gzip.compress(
        struct.pack(">HBBI", 0, 8, 1, UNPACKED_BYTES) + b"\0" * UNPACKED_BYTES, mtime=0
    ),
    "false shape.idx.gz": lambda: gzip.compress(struct.pack(">HBBII", 0, 8, 2, 2**32 - 1, 2**31)),
    "zeros.csv.gz": lambda: gzip.compress(b"p_0\n" + b"0\n" * (UNPACKED_BYTES // 2), mtime=0),
    "zeros.gz": lambda: gzip.compress(b"0\n" * (UNPACKED_BYTES // 2), mtime=0),
    "long header.st": lambda: tensors({}, size=2**40),
    "longer header.st": lambda: tensors({}, size=2**64 - 1),
    "false offsets.st": lambda: tensors(
        {"a": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}}
    ),
    "false shape.st": lambda: tensors(
        {"a": {"dtype": "F64", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}, content=b"\0" * 8
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
# Large valid files: at most two copies of their content are in memory.
LARGE_BYTES = 2**24
FILES |= {
    "large.npz": lambda: archive(large_npy(), stored=True),
    "large.npy": large_npy,
    "large.idx.gz": lambda: gzip.compress(
        struct.pack(">HBBI", 0, 8, 1, LARGE_BYTES) + noise(LARGE_BYTES), 1, mtime=0
    ),
    "large.parquet": lambda: parquet({f"p_{k}": probabilities(k) for k in (0, 1)}),
    "large.st": large_bank,
}
# Read without the evaluation that follows, which needs memory of its own.
LOADED = {"large.st": mcbn.Bank.load, "large.parquet": read_columns}
READ = {".npz": "test.npz", ".npy": "labels.npy", ".idx.gz": "images.idx.gz",
        ".csv.gz": "classes.csv.gz", ".gz": "table.gz", ".st": "bank.st",
        ".parquet": "classes.parquet", ".csv": "classes.csv",
        ".yaml": "study.yaml", ".json": "scores.json", ".pt": "weights.pt"}  # fmt: skip


def memory(line):
    """Bytes in a line of the process's status: VmRSS is the present memory, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(each.split()[1]) for each in lines if each.startswith(line))


def main(folder):
    read = {reader.name: reader.read for reader in READERS}
    for reader in READERS:  # so that nothing is imported while memory is measured
        path = folder / reader.name
        path.write_bytes(reader.valid())
        reader.read(path)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_BYTES, used + EXTRA_BYTES))
    results = {}
    for path in sorted(folder.glob("bombs/*")):
        reader = next(READ[end] for end in READ if path.name.endswith(end))
        use = LOADED.get(path.name, read[reader])
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before, message = memory("VmRSS"), ""
        try:
            use(path)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
        results[path.name] = [message, memory("VmHWM") - before, path.stat().st_size]
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
