"""Coverage-guided fuzzing of every reader of files; the law is that of test_files.py beside it.

Usage: fuzz.py SECONDS [READER ...]

The seconds are shared between the readers, each in a process of its own. Files to begin with are
written by the library; one that breaks the law is kept and named.
"""

import os
import sys
import tempfile
from pathlib import Path

import atheris
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
with atheris.instrument_imports(include=["mcbn", "yaml", "json", "csv", "zipfile", "jsonargparse"]):
    from readers import READERS, Reader
from hostile import WORDS, check

LARGEST = 2**14  # bytes of a file
MEMORY = 2048  # megabytes of a process, most of it PyTorch
PATIENCE = 20  # seconds for one file


def entry(word: bytes) -> str:
    """A line of libFuzzer's dictionary, which takes short words only."""
    letters = "".join(rf"\x{byte:02x}" for byte in word[:60])
    return f'"{letters}"\n'


def fuzz(seconds: int, reader: Reader, folder: Path) -> None:
    """Read ever new files of one kind, until the time is up or one breaks the law."""
    name = reader.name
    corpus = folder / f"{name}.corpus"
    corpus.mkdir(parents=True)
    (corpus / "whole").write_bytes(reader.valid())
    words = (folder / f"{name}.words").resolve()
    words.write_text("".join(map(entry, WORDS)))
    path = folder / name
    atheris.Setup(
        [sys.argv[0], str(corpus), f"-dict={words}", f"-max_total_time={seconds}", "-seed=1",
         f"-max_len={LARGEST}", f"-rss_limit_mb={MEMORY}", f"-timeout={PATIENCE}",
         f"-artifact_prefix={folder}/{name}.broken.", "-verbosity=1", "-print_final_stats=1"],
        lambda content: check(reader, content, path) and None,
    )  # fmt: skip
    atheris.Fuzz()


def fuzz_apart(seconds: int, reader: Reader, folder: Path) -> bool:
    """The same in a process of its own, which the fuzzer ends; whether the law held."""
    log = folder / f"{reader.name}.log"
    child = os.fork()
    if child == 0:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        fuzz(seconds, reader, folder)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    text = log.read_text(errors="replace")
    runs = [line for line in text.splitlines() if "number_of_executed_units" in line]
    print(f"{reader.name:<26} {runs[0].split()[-1] if runs else '?':>8} files", flush=True)
    if status:
        print(text[-3000:])
    return status == 0


def main(seconds: int, names: list[str]) -> int:
    """Fuzz each reader of these names, or all, for its share; return how many broke the law."""
    torch.set_num_threads(1)  # a fork would wait for threads that it does not have
    folder = Path(tempfile.mkdtemp(prefix="mcbn-fuzz-"))
    readers = [reader for reader in READERS if not names or reader.name in names]
    for reader in readers:
        reader.valid()
    share = max(1, seconds // len(readers))
    broken = [each.name for each in readers if not fuzz_apart(share, each, folder)]
    print(f"{len(readers) - len(broken)} of {len(readers)} readers held; files are in {folder}")
    return len(broken)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
