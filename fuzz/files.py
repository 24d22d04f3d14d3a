"""Coverage-guided fuzzing of every reader of files; the law is that of tests/test_hostile_files.py.

Usage: files.py SECONDS | files.py SECONDS READER FOLDER

The seconds are shared between the readers, each in a process of its own. Files to begin with are
written by the library; one that breaks the law is kept in the folder and named.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
with atheris.instrument_imports(include=["mcbn", "yaml", "json", "csv", "zipfile", "jsonargparse"]):
    from readers import READERS
from test_hostile_files import WORDS, check

LARGEST = 2**14  # bytes of a file
MEMORY = 2048  # megabytes of a process, most of it PyTorch
PATIENCE = 20  # seconds for one file


def entry(word: bytes) -> str:
    """A line of libFuzzer's dictionary, which takes short words only."""
    letters = "".join(rf"\x{byte:02x}" for byte in word[:60])
    return f'"{letters}"\n'


def fuzz(seconds: int, name: str, folder: Path) -> None:
    """Read ever new files of one kind, until the time is up or one breaks the law."""
    reader = next(each for each in READERS if each.name == name)
    corpus = folder / f"{name}.corpus"
    corpus.mkdir(parents=True)
    (corpus / "whole").write_bytes(reader.whole())
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


def fuzz_all(seconds: int) -> int:
    """Fuzz each reader for its share of the time; return how many broke the law."""
    folder = Path(tempfile.mkdtemp(prefix="mcbn-fuzz-"))
    share, broken = max(1, seconds // len(READERS)), []
    for reader in READERS:
        words = [sys.executable, __file__, str(share), reader.name, str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
        runs = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        print(f"{reader.name:<24} {runs[0].split()[-1] if runs else '?':>8} files", flush=True)
        if done.returncode:
            broken.append(reader.name)
            print(done.stderr[-3000:], done.stdout[-3000:], sep="\n")
    print(f"{len(READERS) - len(broken)} of {len(READERS)} readers held; files in {folder}")
    return len(broken)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit(fuzz_all(int(sys.argv[1])))
    fuzz(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
