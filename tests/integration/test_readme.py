"""The README: short, its example runs, its links lead somewhere, and it begins as the site does."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
INDEX = (ROOT / "docs" / "index.md").read_text()


def test_it_is_short_and_its_first_screen_has_what_a_stranger_needs():
    lines = README.splitlines()
    assert len(lines) < 150
    first = "\n".join(lines[:40])
    for part in ("<picture>", "pip install .", "mcbn.predict(", "make demo", "make test"):
        assert part in first


def test_the_site_begins_with_the_same_sentence_and_three_lines():
    assert README.split("\n\n")[:2] == INDEX.split("\n\n")[:2]
    (lines,) = re.findall(r"```py\n(bank.*?)```", README, flags=re.DOTALL)
    assert f"```py\n{lines}```" in INDEX


def test_the_example_runs_and_prints_what_it_says():
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "torch.Size([597, 10])" in done.stdout


def test_the_pages_it_links_exist():
    links = re.findall(r"\]\((?!https?:)([\w./-]+)(?:#[\w-]+)?\)", README)
    assert len(links) >= 20
    for page in links:
        assert (ROOT / page).exists(), page
