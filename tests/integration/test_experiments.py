"""What the page of the experiments says is what their results hold, and every script runs."""

import csv
import importlib
import json
import math
import re
import statistics
from pathlib import Path

import pytest
from scipy import stats

FOLDER = Path(__file__).parents[2] / "experiments"
PAGE = (FOLDER / "README.md").read_text().partition("## The MNIST study")[2]
SIZES = (16, 64, 256, 1024)


@pytest.fixture(scope="module")
def results():
    with (FOLDER / "results" / "mnist_study.csv").open() as file:
        return list(csv.DictReader(file))


def values(results, score, method, size, training):
    return [
        float(row[score])
        for row in results
        if (row["method"], row["batch_size"], row["training_batch_size"])
        == (method, size, str(training))
    ]


def interval(found):
    half = stats.t.ppf(0.975, len(found) - 1) * statistics.stdev(found) / math.sqrt(len(found))
    mean = statistics.fmean(found)
    return [mean, mean - half, mean + half]


def written(line):
    return [[float(n) for n in re.findall(r"-?\d+\.\d+", word)] for word in line.split("|")]


def test_the_scores_of_the_mnist_study_are_those_of_its_table(results):
    lines = [line for line in PAGE.splitlines() if line.count("[") == 4 and "slope" not in line]
    assert len(lines) == 9
    for line in lines:
        name, size = (word.strip() for word in line.split("|")[1:3])
        method = name.split(",")[0].removesuffix(" of 3")
        for training, numbers in zip(SIZES, written(line)[3:7], strict=True):
            found = values(results, "nll_nats", method, size.replace("-", ""), training)
            assert len(found) == 3
            assert numbers == pytest.approx(interval(found), abs=5.1e-4), line


def test_the_mutual_information_and_the_slopes_are_those_of_its_table(results):
    sizes = (8, 16, 64, 256, 1024)
    lines = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line.startswith("|")}
    for size in sizes:
        for training, (number,) in zip(SIZES, written(lines[str(size)])[2:6], strict=True):
            found = values(results, "mutual_information_nats", "MCBN", str(size), training)
            assert number == pytest.approx(statistics.fmean(found), abs=5.1e-5)
    for training, numbers in zip(SIZES, written(lines["slope of the sd"])[2:6], strict=True):
        spread = [values(results, "epistemic_sd", "MCBN", str(size), training) for size in sizes]
        slopes = [
            stats.linregress([math.log(size) for size in sizes], [math.log(v) for v in seed]).slope
            for seed in zip(*spread, strict=True)
        ]
        assert numbers == pytest.approx(interval(slopes), abs=5.1e-4)


SCRIPTS = ("toy", "uci", "batch_size", "elbo", "images", "segmentation")
KEPT = [script for script in SCRIPTS if (FOLDER / "results" / f"{script}.json").is_file()]
READ = [script for script in KEPT if f"\n## `{script}`\n" in (FOLDER / "README.md").read_text()]


def numbers(value):
    """Every number in a result, at whatever depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def section(name):
    page = (FOLDER / "README.md").read_text()
    return page.partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", READ)
def test_every_figure_on_the_page_is_one_of_the_result(name):
    """A figure of n decimals on the page is some number of the result, rounded to n decimals."""
    found = numbers(json.loads((FOLDER / "results" / f"{name}.json").read_text()))
    text = section(name)
    assert text.strip()
    # Names of files and links hold no figures.
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    written = re.findall(r"(?<![\w.])[-+]?\d*\.\d+(?![\w.]*\d)", prose)
    assert len(written) >= 5
    missing = [
        figure for figure in written if not any(rounds_to(abs(number), figure) for number in found)
    ]
    assert not missing


FIGURE = r"[-+]?\d*\.?\d+"


def neighbours(value):
    """The numbers that stand side by side in a result: of one list, or of one mapping."""
    if isinstance(value, (dict, list)):
        inside = list(value.values()) if isinstance(value, dict) else value
        yield [n for n in inside if isinstance(n, (int, float)) and not isinstance(n, bool)]
        for each in inside:
            yield from neighbours(each)


@pytest.mark.parametrize("name", READ)
def test_every_interval_on_the_page_stands_with_its_mean_in_the_result(name):
    """In a long result a lone figure is met by chance; three beside each other are not."""
    result = json.loads((FOLDER / "results" / f"{name}.json").read_text())
    together = [found for found in neighbours(result) if 3 <= len(found) <= 12]
    written = re.findall(rf"({FIGURE})(?:\\\*)*\s\[({FIGURE}), ({FIGURE})\]", section(name))
    assert len(written) >= 5
    missing = [
        figures
        for figures in written
        if not any(
            all(any(rounds_to(abs(number), figure) for number in found) for figure in figures)
            for found in together
        )
    ]
    assert not missing


def rounds_to(number, figure):
    decimals = len(figure.partition(".")[2])
    return abs(number - abs(float(figure))) <= 0.5000001 * 10.0**-decimals


@pytest.mark.parametrize("name", KEPT)
def test_every_experiment_runs_at_a_tiny_scale(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    script, record = (importlib.import_module(module) for module in (name, "record"))
    script.main(record.Record(name, fast=True, folder=tmp_path))
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert all(math.isfinite(number) for number in numbers(found))
    assert (tmp_path / f"{name}.svg").stat().st_size > 1000
    kept = json.loads((FOLDER / "results" / f"{name}.json").read_text())
    assert found.keys() == kept.keys()
