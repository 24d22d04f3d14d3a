"""The numbers on the page of the experiments are those of the results, and every script runs."""

import csv
import importlib
import json
import math
import re
import statistics
from pathlib import Path

import pytest
from result_numbers import decimals, intervals, numbers, unknown_decimals, unknown_intervals
from scipy import stats

FOLDER = Path(__file__).parents[2] / "experiments"
PAGE = (FOLDER / "studies" / "mnist.md").read_text()
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


def interval(values):
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return [mean, mean - half, mean + half]


def written(line):
    return [[float(n) for n in re.findall(r"-?\d+\.\d+", word)] for word in line.split("|")]


def test_scores_of_the_mnist_study_match_its_table(results):
    lines = [line for line in PAGE.splitlines() if line.count("[") == 4 and "slope" not in line]
    assert len(lines) == 9
    for line in lines:
        name, size = (word.strip() for word in line.split("|")[1:3])
        method = name.split(",")[0].removesuffix(" of 3")
        for training, figures in zip(SIZES, written(line)[3:7], strict=True):
            seeds = values(results, "nll_nats", method, size.replace("-", ""), training)
            assert len(seeds) == 3
            assert figures == pytest.approx(interval(seeds), abs=5.1e-4), line


def test_mutual_information_and_slopes_of_the_mnist_study_match_its_table(results):
    sizes = (8, 16, 64, 256, 1024)
    lines = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line.startswith("|")}
    for size in sizes:
        for training, (number,) in zip(SIZES, written(lines[str(size)])[2:6], strict=True):
            seeds = values(results, "mutual_information_nats", "MCBN", str(size), training)
            assert number == pytest.approx(statistics.fmean(seeds), abs=5.1e-5)
    for training, figures in zip(SIZES, written(lines["slope of the sd"])[2:6], strict=True):
        spread = [values(results, "epistemic_sd", "MCBN", str(size), training) for size in sizes]
        slopes = [
            stats.linregress([math.log(size) for size in sizes], [math.log(v) for v in seed]).slope
            for seed in zip(*spread, strict=True)
        ]
        assert figures == pytest.approx(interval(slopes), abs=5.1e-4)


SCRIPTS = {
    "toy": "reproductions", "uci": "reproductions", "batch_size": "reproductions",
    "elbo": "reproductions", "images": "reproductions", "segmentation": "reproductions",
    "drift": "shift", "alternatives": "comparisons", "minibatch_elbo": "reproductions",
    "acquisition": "uses", "directions": "choosing", "super_resolution": "uses",
    "shape": "posteriors", "tabular": "comparisons", "directions_images": "choosing",
    "baselines": "comparisons", "labels": "comparisons", "mutual_information": "comparisons",
}  # fmt: skip
WITHOUT_INTERVALS = ("drift", "shape")
# Their scripts ask for more than their results hold, and are run anew.
MEASURED_ANEW = ("batch_size",)
# Planned, and not run in full yet.
WITHOUT_RESULT = {"which_layers": "choosing"}


def section(name):
    if name == "guide":
        return (FOLDER.parent / "docs" / "what_to_pick.md").read_text()
    return (FOLDER / SCRIPTS[name] / f"{name}.md").read_text()


def result_of(name):
    if name == "guide":
        return [result_of(each) for each in ("alternatives", "baselines", "labels")]
    return json.loads((FOLDER / "results" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", [*SCRIPTS, "guide"])
def test_every_decimal_on_the_page_occurs_in_the_result(name):
    """A number with n decimals on the page is a number of the result rounded to n decimals."""
    text = section(name)
    assert len(decimals(text)) >= 5
    assert not unknown_decimals(text, result_of(name))


WITH_INTERVALS = [name for name in (*SCRIPTS, "guide") if name not in WITHOUT_INTERVALS]


@pytest.mark.parametrize("name", WITH_INTERVALS)
def test_every_interval_on_the_page_is_next_to_its_mean_in_the_result(name):
    assert len(intervals(section(name))) >= 5
    assert not unknown_intervals(section(name), result_of(name))


@pytest.mark.parametrize("name", SCRIPTS | WITHOUT_RESULT)
def test_every_experiment_runs_at_a_tiny_scale(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    script = importlib.import_module(f"experiments.{(SCRIPTS | WITHOUT_RESULT)[name]}.{name}")
    record = importlib.import_module("experiments.record")
    script.main(record.Record(name, fast=True, folder=tmp_path))
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert all(math.isfinite(number) for number in numbers(result))
    assert (tmp_path / f"{name}.svg").stat().st_size > 1000
    if name in MEASURED_ANEW:
        assert "**Being measured anew" in section(name)
    elif name in SCRIPTS:
        committed = json.loads((FOLDER / "results" / f"{name}.json").read_text())
        assert result.keys() == committed.keys()


def test_every_script_has_a_page_and_the_list_names_it():
    """Scripts of which another page reports are listed with that page."""
    listed = (FOLDER / "README.md").read_text()
    scripts = [path for path in FOLDER.glob("*/*.py")
               if path.parent.name != "data" and "\ndef main(" in path.read_text()]  # fmt: skip
    assert len(scripts) >= 19
    for script in scripts:
        module = ".".join(script.relative_to(FOLDER.parent).with_suffix("").parts)
        command = re.compile(rf"`python -m {module}[` ]")
        (line,) = filter(command.search, listed.splitlines())
        page = script.with_suffix(".md")
        assert ("../docs/" in line) != page.is_file(), script
        if page.is_file():
            assert f"]({page.relative_to(FOLDER)})" in line


def test_the_list_and_the_command_name_the_same_scripts_and_minutes(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    command = importlib.import_module("experiments.__main__")
    rows = re.findall(
        r"`python -m experiments\.([\w.]+)[^`]*` \| (?:about|under) (\d+) \|",
        (FOLDER / "README.md").read_text(),
    )
    assert {name: int(minutes) for name, minutes in rows} == command.MINUTES
    with_tiny_scale = [
        name for name in command.MINUTES
        if "asked(" in (FOLDER / f"{name.replace('.', '/')}.py").read_text()
    ]  # fmt: skip
    assert sorted(command.FAST) == sorted(with_tiny_scale)
