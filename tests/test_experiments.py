"""What the page of the experiments says of a study is what its table holds."""

import csv
import math
import re
import statistics
from pathlib import Path

import pytest
from scipy import stats

FOLDER = Path(__file__).parent.parent / "experiments"
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
