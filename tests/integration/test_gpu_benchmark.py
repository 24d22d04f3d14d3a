"""The benchmark of a GPU, tried where there is none: on the processor and on a second device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT, ROOT / "benchmarks", ROOT / "tests" / "helpers"]
RUN = "import second_device, gpu; gpu.main()"
ENGINES = ("batched, float32", "folded, float32", "auto, float32")


def tried(folder, *options):
    """The results and the page of a run of the script."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, FOLDERS))}
    command = [sys.executable, "-c", RUN, "--quick", "--out", str(folder), *options]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    page = (folder / "performance.md").read_text()
    begin, end = "<!-- gpu: begin -->", "<!-- gpu: end -->"
    assert (page.count(begin), page.count(end)) == (1, 1)
    return json.loads((folder / "gpu.json").read_text()), page.partition(begin)[2].partition(end)[0]


@pytest.mark.parametrize("device", ["cpu", "toy"])
def test_a_trial_measures_every_method_and_makes_the_tables(tmp_path, device):
    results, section = tried(tmp_path, "--device", device)
    assert results["failed"] == {}
    assert results["left"] == ["compiled, float32", "compiled, bfloat16, channels last"]
    assert results["machine"]["quick"]
    assert set(results["rates"]) == {"bytes", "float32", "TF32", "bfloat16"}
    times, _, differences = section.partition("\n\n| floors")
    rows = [line.strip("| ").split(" | ") for line in times.splitlines() if "|" in line]
    cells = {row[0]: row[1:] for row in rows}
    assert "| the loop repeats its bits | yes | yes |" in differences
    assert list(results["cases"]) == ["tiny, N = 5", "tiny, N = 1"]
    for number, entry in enumerate(results["cases"].values()):
        assert len(entry["methods"]) == 19
        for name, found in entry["methods"].items():
            assert len(found["each"]) == found["rounds"] >= 2
            assert min(found["each"]) <= found["ratio"] <= max(found["each"])
            assert found["peak_bytes"] is None
            assert found["gave_up"] == [] or "bfloat16" in name
            gave_up = " (gave up)" if found["gave_up"] else ""
            assert cells[name][number] == f"{found['ratio']:.2f}{gave_up}"
        checks = entry["checks"]
        assert checks["repeats"] is True
        # Rounding in float32, none where the kernels are the same, three digits in bfloat16.
        assert all(checks[name] < 1e-6 for name in ENGINES)
        assert checks["graph, float32"] == checks["loop, TF32"] == checks["processor"] == 0
        assert 1e-5 < checks["loop, bfloat16, channels last"] < 0.05
        for kinds in entry["floors"].values():
            assert all(0 < floor < 1 for floor in kinds.values())


def test_a_run_without_time_says_what_is_left(tmp_path):
    results, section = tried(tmp_path, "--device", "cpu", "--seconds", "0")
    assert results["cases"] == results["failed"] == {}
    assert results["left"][:2] == ["rates", "tiny, N = 5: all"]
    assert section.strip() == "## GPU\n\nnot measured"


def test_an_error_of_one_method_is_noted_and_the_others_are_measured(tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "fails.py").write_text(
        "import gpu_methods\n"
        "def captured(model, inputs):\n    raise RuntimeError('out of memory\\nat length')\n"
        "gpu_methods.captured = captured\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "FOLDERS", [*FOLDERS, broken])
    monkeypatch.setattr(sys.modules[__name__], "RUN", "import fails, gpu; gpu.main()")
    results, section = tried(tmp_path, "--device", "cpu")
    assert results["failed"]["tiny, N = 5: graph, float32"] == "RuntimeError: out of memory"
    assert "tiny, N = 5: checks" in results["failed"]
    assert len(results["cases"]["tiny, N = 1"]["methods"]) == 16
    assert "Failed: tiny, N = 5: checks (RuntimeError: out of memory)" in section


def test_the_page_has_what_the_results_say():
    """Of the results that are in the folder, or that none are."""
    page = (ROOT / "docs" / "performance.md").read_text()
    section = page.partition("<!-- gpu: begin -->")[2].partition("<!-- gpu: end -->")[0]
    measured = (ROOT / "benchmarks" / "gpu.json").is_file()
    assert ("not measured" in section) == (not measured)
