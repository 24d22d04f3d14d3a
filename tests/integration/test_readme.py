"""The README's example runs, and its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_example_runs_and_prints_what_it_says():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 3
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
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
