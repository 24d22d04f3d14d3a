"""Reports of synthetic predictions, and a parser of their pages."""

import functools
from html.parser import HTMLParser

import torch
from synthetic_studies import made_study

from mcbn.drift.drift_test import DriftTest, LayerDrift
from mcbn.evaluation.compare import entry
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import convergence
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.predictive.categorical import Categorical
from mcbn.report.report import Report
from mcbn.study.plan import DataAxes, InferenceAxes, Plan, TrainingAxes

CLASSES = 4


@functools.cache
def comparison(
    *, scale=1.0, draws=8, resamples=20, examples=300, names=("Plain", "MCBN", "Dropout"), ood=True
):
    """Methods on examples whose classes are drawn from the softmax of the first one's logits."""
    generator = torch.Generator().manual_seed(3)
    base = 2 * torch.randn(examples, CLASSES, generator=generator, dtype=torch.float64)
    targets = torch.multinomial(base.softmax(1), 1, generator=generator)[:, 0]
    others = 2 * torch.randn(200, CLASSES, generator=generator, dtype=torch.float64)
    entries = {}
    for index, name in enumerate(names):
        count = 1 if index == 0 else draws
        inside, outside = (
            scale * (x + index * width * torch.randn(count, *x.shape, generator=generator).double())
            for x, width in ((base, 0.2), (others, 0.6))
        )
        entries[name] = entry(
            ScoredRows.of(Categorical().summarize(inside, keep_draws=True), targets),
            outside={"noise": Categorical().summarize(outside)} if ood else {},
            seconds=0.1 * count,
            resamples=resamples,
            progress=False,
        )
    return Comparison(entries, targets, tuple("abcd"))


def study(*, power=-1.0, seeds=(0, 1, 2), sizes=(4, 16, 64), training=(8, 32)):
    """A study in which MCBN's mutual information scales as a power of M."""

    def scores(cell):
        shift = 1 + 0.05 * cell.network.seed
        size = cell.batch_size or 64
        value = 0.4 * shift * size**power
        level = {"Deterministic": 0.42, "MC Dropout": 0.38, "Deep ensemble": 0.31}
        return {
            "accuracy": 0.9 / shift,
            "nll": level.get(cell.method, (0.3 + 1 / size) * shift),
            "ece_debiased": (0.05 + 0.1 / size) * shift,
            "mutual_information": value,
            "mutual_information_rotated": 3 * value,
            "auroc_rotated_by_mutual_information": 0.8 + 0.01 * cell.network.seed,
            "auroc_rotated_by_entropy": 0.7,
        }

    plan = Plan(
        data=DataAxes(outside=("rotated",)),
        training=TrainingAxes(batch_sizes=training),
        inference=InferenceAxes(batch_sizes=sizes, draws=(16,)),
        methods=("Deterministic", "MCBN", "MC Dropout", "Deep ensemble"),
        seeds=seeds,
    )
    return made_study(plan, scores)


@functools.cache
def report():
    """A report with every section but groups and pictures."""
    compared = comparison()
    curves = {
        name: convergence(entry.predictive.draws, compared.targets)
        for name, entry in compared.entries.items()
        if entry.predictive.draw_count > 1
    }
    return Report.from_comparison(
        compared,
        title="MCBN on synthetic digits",
        study=study(),
        convergence=curves,
        provenance={"Data": "synthetic", "Repeat": "python -m mcbn demo --seed 0"},
        notes=("The bank was collected with batches of 4.",),
        drift={"Today": drift_test(), "Far": drift_test(p_value=0.01, distance=3.0)},
    )


def drift_test(*, p_value=0.4, distance=1.0, name="stem"):
    """A test of two mini-batches of 32 for drift, by one layer."""
    layer = LayerDrift(name, distance, p_value, p_value)
    calibration = tuple(0.5 + k / 60 for k in range(60))
    return DriftTest(p_value, 0.05, (distance, distance), calibration, (layer,), 32.0, 32.0)


class ParsedPage(HTMLParser):
    """A page read back: its cells by key, its ids and its tags."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.ids, self.tags = {}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if "data-key" in attributes:
            self.cells.setdefault(attributes["data-key"], []).append({"class": "", **attributes})


def looked_up(numbers, key):
    """The number that stands at a key of the JSON."""
    for part in key.split("."):
        numbers = numbers[int(part) if isinstance(numbers, list) else part]
    return numbers["value"] if isinstance(numbers, dict) else numbers


def figures_below(text):
    """How many figures a page has below its first screen, which repeats the one that matters."""
    return text.partition('<section id="checks">')[2].count('<svg role="img"')
