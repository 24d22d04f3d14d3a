"""How results show themselves: in few lines, escaped, and as frames of the same numbers."""

import importlib
import math
import pkgutil
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from posteriors import Posterior
from synthetic_studies import classification_plan, classification_scores, made_study
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import mcbn
from mcbn.drawing.figures import Curve
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.compare import entry
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import convergence
from mcbn.evaluation.detection import out_of_distribution, risk_coverage
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.evaluation.finite_draws import DrawError
from mcbn.evaluation.reliability import Reliability
from mcbn.evaluation.subgroups import subgroups
from mcbn.inspection.findings import Finding
from mcbn.inspection.layers import SkippedLayer
from mcbn.io.display import Display, Displayed
from mcbn.predictive.gaussian import Moments
from mcbn.predictive.predictions import Predictions
from mcbn.samplers.uncertainty_ratio import UncertaintyRatio
from mcbn.study.confirmation import Confirmation
from mcbn.study.results import point
from mcbn.study.slopes import slopes, spreads
from mcbn.tasks.examples import LabeledData, LabeledDataset
from mcbn.uncertainty.predictive_scores import PREDICTIVE_SCORES

HOSTILE = '<script>alert("1")</script>'


class Detector:
    """Of another library."""

    def predict(self, x):
        return x.sum(1)


def logits(draws=5, count=40, classes=3, seed=0, positions=()):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(draws, count, classes, *positions, generator=generator)


PREDICTIVE = mcbn.Categorical().summarize(logits())
TARGETS = logits(1, seed=1)[0].argmax(1)
MIXTURE = mcbn.Gaussian((4.0, 1.0)).summarize(logits(classes=2))
REALS = logits(1, classes=2, seed=2)[0].double()
COMPARISON = Comparison(
    {
        name: entry(
            ScoredRows(mcbn.Categorical().summarize(logits(draws)), TARGETS), outside={},
            resamples=20, progress=False,
        )
        for name, draws in (("plain", 1), (HOSTILE, 5))
    },
    TARGETS, ("a", "b", "c"),
)  # fmt: skip
RELIABILITY = Reliability.from_predictions(PREDICTIVE.confidence, PREDICTIVE.prediction == TARGETS)
RISKS = risk_coverage(PREDICTIVE.entropy, PREDICTIVE.prediction != TARGETS)
INPUTS = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
with torch.random.fork_rng():
    torch.manual_seed(0)
    NETWORK = nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8, momentum=1.0), nn.Linear(8, 3),
        nn.BatchNorm1d(3, momentum=1.0), nn.Dropout(0.1),
    )  # fmt: skip
    NETWORK(INPUTS)
    NETWORK.eval()
BATCHES = mcbn.minibatches(INPUTS, batch_size=8, draws=6, seed=0)
BANK = mcbn.collect(NETWORK, BATCHES, progress=False)
DRIFT = mcbn.drift_test(NETWORK, BANK, INPUTS, alpha=0.4)
MONITOR = mcbn.DriftMonitor(NETWORK, BANK, alpha=0.4)
for rows in INPUTS[:24].split(8):
    MONITOR.update(rows)
NEIGHBORS = mcbn.NearestNeighbors.fit(NETWORK, INPUTS, k=3, name=HOSTILE)
DETECTED = mcbn.compare(
    {"plain": mcbn.Deterministic(NETWORK)}, INPUTS, torch.arange(60) % 3,
    outside={HOSTILE: INPUTS + 1, "b": INPUTS + 2}, detectors=[NEIGHBORS], resamples=5,
)  # fmt: skip
INSPECTION = mcbn.inspect(NETWORK, INPUTS, batch_size=8)
JOINT = mcbn.JointPosterior.from_bank(BANK)
LINEARIZED = mcbn.LinearizedBatchNorm(NETWORK, BANK, exact=2)
NEW = mcbn.Categorical().summarize(logits(seed=3))
LABELED = mcbn.Bernoulli().summarize(logits())
LABELS = (logits(1, seed=1)[0] > 0).long()
LABEL_SETS = mcbn.ConformalLabels.fit(LABELED, LABELS, level=0.8)
NEW_ONE = mcbn.Gaussian(4.0).summarize(logits(classes=1, seed=3)[..., 0])
SETS = mcbn.ConformalSets.fit(PREDICTIVE, TARGETS, level=0.8)
ONE = mcbn.Gaussian(4.0).summarize(logits(classes=1)[..., 0])
INTERVALS = mcbn.ConformalIntervals.fit(ONE, REALS[:, 0], level=0.8)
RATIO = UncertaintyRatio("variance", 1.0, 0.9, 1.1)
CONFIRMATION = Confirmation((4, 8), (0.5, 0.4), (0.1, 0.0), (0.0, -0.1), (0.2, 0.1), 8)
SIZES = torch.tensor([2.0, 4.0, 8.0, 16.0]).double()
CHOICE = mcbn.BatchSizeChoice(
    8.0, 0.4, (4.0, 16.0), (3.0, math.inf), SIZES, 1 / SIZES, 0.9 / SIZES, 1.1 / SIZES,
    "log_score", 8.0, 16, 0.95, ("it is far",), None, CONFIRMATION,
)  # fmt: skip
LAYERS = mcbn.choose_layers(
    NETWORK,
    BANK,
    INPUTS,
    torch.arange(60) % 3,
    resamples=20,
    candidates={HOSTILE: "first 1", "last": 1},
    progress=False,
)
STUDY = made_study(classification_plan(), classification_scores)
SPREADS = spreads(STUDY, "mutual_information", "MCBN", 64)
DATA = LabeledData(INPUTS, torch.arange(60) % 3)
RESULTS = {
    "predictive": PREDICTIVE,
    "dense predictive": mcbn.Categorical().summarize(logits(positions=(4, 5))),
    "scores of labels": mcbn.class_scores(
        mcbn.Bernoulli().summarize(logits()), (logits(1, seed=1)[0] > 0).long(), resamples=5
    ),
    "predictive of labels": mcbn.Bernoulli().summarize(logits()),
    "mixture": MIXTURE,
    "moments": Moments.from_predictive(MIXTURE),
    "predictions": Predictions(HOSTILE, PREDICTIVE, TARGETS, "data"),
    "evaluation": mcbn.evaluate(PREDICTIVE, TARGETS, resamples=20),
    "sums of shards": mcbn.ShardScores.of([(PREDICTIVE, TARGETS)], shard="a"),
    "comparison": COMPARISON,
    "entry": COMPARISON.entries["plain"],
    "comparison of detectors": DETECTED,
    "detector entry": DETECTED.detectors[HOSTILE],
    "features": NEIGHBORS.features,
    "neighbours": NEIGHBORS,
    "external detector": mcbn.ExternalDetector(Detector(), name=HOSTILE),
    "class scores": mcbn.class_scores(PREDICTIVE, TARGETS, classes=("a", HOSTILE, "c")),
    "study": STUDY,
    "study that failed": made_study(
        classification_plan(), classification_scores, failed=lambda cell: cell.batch_size == 16
    ),
    "result": STUDY.results[0],
    "spreads": SPREADS,
    "plan": classification_plan(),
    "bank": BANK,
    "bank of many layers": mcbn.Bank(
        {f"{HOSTILE}.{k}.{name}": torch.ones(4, 5) for k in range(50)
         for name in ("running_mean", "running_var")},
        {f"{HOSTILE}.{k}.{name}": torch.ones(5) for k in range(50)
         for name in ("running_mean", "running_var")}, 8, 100,
    ),
    "mini-batches": BATCHES,
    "joint posterior": JOINT,
    "factorized posterior": mcbn.FactorizedPosterior.from_bank(BANK),
    "drift test": DRIFT,
    "drift monitor": MONITOR,
    "consistency": mcbn.consistency(BANK),
    "inspection": INSPECTION,
    "inspection without inputs": mcbn.inspect(NETWORK),
    "observation": INSPECTION.observation,
    "artifact": mcbn.Artifact(Path("net.pt2"), 6, ("x",), ("mean", "variance"), 4096, 200, 100,
                              {"mean": 1e-7}),
    "convergence": convergence(logits(16), TARGETS),
    "risk-coverage": RISKS,
    "reliability": RELIABILITY,
    "subgroup": subgroups(PREDICTIVE, TARGETS, ["a", HOSTILE] * 20, resamples=5)[0],
    "subgroups": subgroups(PREDICTIVE, TARGETS, list("abcdefghij") * 4, resamples=5),
    "clusters": Clusters.of_groups(list("abcd") * 10, 40),
    "prediction sets": SETS(NEW),
    "prediction intervals": INTERVALS(NEW_ONE),
    "label sets": LABEL_SETS(mcbn.Bernoulli().summarize(logits(seed=3))),
    "sets by class": mcbn.ConformalSetsByClass.fit(PREDICTIVE, TARGETS, level=0.8),
    "sets by class of many": mcbn.ConformalSetsByClass(0.9, (math.inf,) * 1000, (5,) * 1000),
    "sets by subgroup": mcbn.ConformalSetsBySubgroup.fit(
        PREDICTIVE, TARGETS, by=["a", HOSTILE] * 20, level=0.8),
    "intervals by subgroup": mcbn.ConformalIntervalsBySubgroup.fit(
        ONE, REALS[:, 0], by=["a", HOSTILE] * 20, group=[k // 4 for k in range(40)], level=0.8),
    "platt scaling": mcbn.PlattScaling((1.0,) * 1000, (0.0,) * 1000),
    "isotonic by label": mcbn.IsotonicByLabel(((0.2, 0.5),) * 1000, ((0.0, 1.0),) * 1000,
                                              (1234,) * 1000),
    "isotonic": mcbn.Isotonic(*(tuple(k / 999 for k in range(1000)),) * 2, 1000),
    "vector scaling": mcbn.VectorScaling((1.0,) * 1000, (0.0,) * 1000),
    "MCBN": mcbn.MCBatchNorm(NETWORK, BANK),
    "MCBN of a layer": mcbn.MCBatchNorm(NETWORK, BANK, layers=1),
    "MCBN of a named layer": mcbn.MCBatchNorm(NETWORK, BANK, layers=["1"]),
    "MC Dropout": mcbn.MCDropout(NETWORK),
    "MC Dropout put in": mcbn.MCDropout(
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3)), insert=0.1),
    "augmented": mcbn.Augmented(mcbn.MCBatchNorm(NETWORK, BANK), mcbn.RandomFlip()),
    "augmented by a list": mcbn.Augmented(NETWORK, [torch.clone, torch.neg, torch.clone]),
    "last-layer Laplace": mcbn.LastLayerLaplace.fit(
        NETWORK[:3], INPUTS, torch.arange(60) % 3, prior_precision=2.0),
    "curvature posterior": mcbn.CurvaturePosterior.fit(NETWORK, BANK, INPUTS),
    "Laplace": mcbn.LaplaceSampler(Posterior(NETWORK), draws=3),
    "ensemble": mcbn.DeepEnsemble([NETWORK] * 5),
    "plain": mcbn.Deterministic(NETWORK),
    "linearized": LINEARIZED,
    "linearity": LINEARIZED.linearity(INPUTS[:4]),
    "choice": CHOICE,
    "choice of layers": LAYERS,
    "task": mcbn.Task(DATA, (INPUTS, TARGETS[:1].repeat(60)), DATA, outside={HOSTILE: INPUTS},
                      classes=("a", "b", "c")),
    "data": DATA,
    "data set": LabeledDataset(TensorDataset(INPUTS, INPUTS)),
    "report": mcbn.Report.from_comparison(COMPARISON, title=HOSTILE),
}  # fmt: skip
# Values of one line, which need no table.
VALUES = {
    "score": RESULTS["evaluation"]["nll"],
    "abstention": mcbn.choose_abstention(
        PREDICTIVE.entropy, PREDICTIVE.prediction != TARGETS, risk=0.9
    ),
    "separation": out_of_distribution(PREDICTIVE.entropy, PREDICTIVE.entropy),
    "score of uncertainty": PREDICTIVE_SCORES["energy"],
    "conformal sets": SETS,
    "conformal intervals": INTERVALS,
    "conformal labels": LABEL_SETS,
    "coverage": SETS(NEW).coverage(TARGETS),
    "temperature": mcbn.TemperatureScaling.fit(PREDICTIVE, TARGETS),
    "temperature of draws": mcbn.TemperedCategorical(0.01, 5),
    "variance": mcbn.VarianceScaling.fit(ONE, REALS[:, 0]),
    "likelihood of classes": mcbn.Categorical(),
    "likelihood of labels": mcbn.Bernoulli(),
    "likelihood of reals": mcbn.Gaussian((1.0, 2.0)),
    "crop": mcbn.RandomCrop(2),
    "flip": mcbn.RandomFlip(),
    "shift": mcbn.RandomShift(2),
    "transforms": mcbn.Compose(mcbn.RandomFlip(), mcbn.RandomShift(2)),
    "uncertainty ratio": RATIO,
    "posterior check": mcbn.PosteriorCheck(RATIO, 100, 8),
    "layer": INSPECTION.layers[0],
    "skipped layer": SkippedLayer("norm", "LayerNorm", "has no batch statistics", False),
    "noise": INSPECTION.observation.noise["1"],
    "drift of a layer": DRIFT.layers[0],
    "error of draws": DrawError(16, 0.01, 0.003),
    "finding": Finding("MCBN118", "it is small", blocking=True),
    "layer of a consistency": mcbn.consistency(BANK).layers[0],
    "confirmation": CONFIRMATION,
    "candidate of layers": LAYERS.candidates[0],
    "criterion": mcbn.ELBO(8.0),
    "cell": STUDY.results[0].cell,
    "network": STUDY.results[0].cell.network,
    "axes of data": mcbn.DataAxes(),
    "axes of networks": mcbn.NetworkAxes(),
    "axes of training": mcbn.TrainingAxes(),
    "axes of inference": mcbn.InferenceAxes(),
    "point": point([1.0, 2.0]),
    "slope": slopes(STUDY, "mutual_information")[0],
    "claim": RESULTS["report"].verdict[0],
    "curve": Curve("a", (1.0, 2.0), (1.0, 2.0), (0.0, 0.0), (3.0, 3.0), 0),
}
# What describes no result: protocols, what holds a network that is loaded from files, and what
# draws at random.
NOT_RESULTS = {"Likelihood", "Sampler", "UncertaintyScore", "DrawSampler", "BatchTransform",
               "Predictor", "ExampleStreams", "Display"}  # fmt: skip


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_a_result_shows_itself_in_ten_lines_and_as_a_table(result):
    lines = repr(result).splitlines()
    assert 1 <= len(lines) <= 10
    assert max(map(len, lines)) < 160
    if "__str__" not in vars(type(result)):  # some print more
        assert repr(result) == str(result)
    text = result._repr_html_()
    assert "<script" not in text
    assert text.count("<tr>") == text.count("</tr>")
    assert len(text) < 20_000


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_is_one_short_line(value):
    (line,) = repr(value).splitlines()
    assert len(line) <= 500
    assert line.startswith(f"{type(value).__name__}(")


def displayed_classes():
    found, waiting = set(), [Displayed]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found |= set() if kind.__subclasses__() else {kind}
    return found


def documented_classes():
    """The classes of the reference, docs/api: those entered by name, and those of modules."""
    folder = Path(__file__).parents[2] / "docs" / "api"
    text = "\n".join(page.read_text() for page in sorted(folder.glob("*.md")))
    names = re.findall(r"autoclass:: (?:mcbn\.)?([\w.]+)$", text, re.M)
    found = {
        pkgutil.resolve_name(f"mcbn.{name}") if name[0].isupper() else
        pkgutil.resolve_name(f"mcbn.{name}".replace(f".{name.split('.')[-1]}", "") + ":"
                             + name.split(".")[-1])
        for name in names
    }  # fmt: skip
    for module in re.findall(r"automodule:: (\S+)$", text, re.M):
        members = vars(importlib.import_module(module))
        found |= {
            each for name, each in members.items()
            if isinstance(each, type) and each.__module__ == module and name[0] != "_"
        }  # fmt: skip
    return {
        each for each in found
        if not issubclass(each, (BaseException, Warning, nn.Module))
        and each.__name__ not in NOT_RESULTS
    }  # fmt: skip


def test_every_public_result_is_tried():
    tried = {type(each) for each in (*RESULTS.values(), *VALUES.values())}
    documented = documented_classes()
    assert len(documented) > 50
    assert documented - tried == set()
    assert displayed_classes() <= {type(result) for result in RESULTS.values()}


def test_a_display_shows_the_numbers_of_its_result():
    """Of each table a row that was worked out by hand: another column or order is noticed."""
    cells = {
        name: [tuple(row) for row in RESULTS[name].display().rows]
        for name in RESULTS
    }  # fmt: skip
    channels = [(layer.name, f"{layer.channels}") for layer in INSPECTION.layers]
    assert cells["bank"] == cells["joint posterior"] == cells["factorized posterior"] == channels
    assert [row[:3] for row in cells["inspection"]] == [
        (layer.name, layer.kind, str(layer.channels)) for layer in INSPECTION.layers
    ]
    assert [row[3] for row in cells["inspection"]] == [
        f"{100 * share:.0f}%" for share in INSPECTION.shares.values()
    ]
    layers = mcbn.consistency(BANK).layers
    worst = max(layers, key=lambda layer: max(layer.mean_excess, layer.variance_excess))
    assert cells["consistency"][0] == (
        worst.name, f"{worst.mean_excess:.2f}", f"{worst.variance_excess:.2f}",
        f"{worst.variance_ratio:.4f}",
    )  # fmt: skip
    seen = INSPECTION.observation
    assert cells["observation"][0] == (
        "1", "1", str(seen.values["1"]), f"{seen.noise['1'].mean_sd:.3g}",
        f"{seen.noise['1'].log_variance_sd:.3g}",
    )  # fmt: skip
    assert cells["artifact"] == [("mean", "1e-07"), ("variance", "-")]
    first = min(DRIFT.layers, key=lambda each: (each.adjusted_p_value, each.p_value))
    assert cells["drift test"][0] == (
        first.name, f"{first.ratio:.3g}", f"{first.p_value:.3g}", f"{first.adjusted_p_value:.3g}"
    )  # fmt: skip
    assert cells["drift monitor"][0] == (
        "3", f"{MONITOR.distances[2]:.3g}", f"{MONITOR.p_values[2]:.3g}", f"{MONITOR.e_value:.3g}"
    )  # fmt: skip
    curve = RESULTS["convergence"]
    assert cells["convergence"][1] == ("2", f"{curve.nll[1]:.4g}", f"{curve.spread[1]:.2g}")
    assert cells["convergence"][-1][2] == "-"
    assert cells["risk-coverage"][2] == ("0.50", f"{float(RISKS.risk[19]):.4g}")
    assert cells["risk-coverage"][-1] == ("1.00", f"{float(RISKS.risk[-1]):.4g}")
    bin_ = int(RELIABILITY.counts.argmax())
    assert (f"({bin_ / 15:.3g}, {(bin_ + 1) / 15:.3g}]", str(int(RELIABILITY.counts[bin_])),
            f"{float(RELIABILITY.confidence[bin_]):.3f}",
            f"{float(RELIABILITY.accuracy[bin_]):.3f}") in cells["reliability"]  # fmt: skip
    group = RESULTS["subgroups"][3]
    assert cells["subgroups"][3][:3] == ("d", "4", f"{group.scores['accuracy']:.3g}")
    nll = RESULTS["subgroup"].scores["nll"]
    assert ("nll", f"{nll.value:.4g}", f"{nll.low:.4g}", f"{nll.high:.4g}") in cells["subgroup"]
    sizes = RESULTS["prediction sets"].members.sum(1).tolist()
    assert dict(cells["prediction sets"]) == {
        str(size): str(sizes.count(size)) for size in sorted(set(sizes))
    }
    found = RESULTS["prediction intervals"]
    assert [row[1] for row in cells["prediction intervals"]] == [
        f"{float(each.mean()):.4g}" for each in (found.low, found.high, found.high - found.low)
    ]
    scaling = mcbn.VectorScaling((1.5, 2.0), (-0.25, 0.25)).display()
    assert list(scaling.rows) == [("0", "1.5", "-0.25"), ("1", "2", "+0.25")]
    sizes = RESULTS["label sets"].members.sum(1).tolist()
    assert dict(cells["label sets"]) == {
        str(size): str(sizes.count(size)) for size in sorted(set(sizes))
    }
    scaling = mcbn.PlattScaling((1.5, 2.0), (-0.25, 0.25)).display()
    assert list(scaling.rows) == [("0", "1.5", "-0.25"), ("1", "2", "+0.25")]
    functions = mcbn.IsotonicByLabel(((0.1, 0.2), ()), ((0.0, 1.0), ()), (1234, 0)).display()
    assert list(functions.rows) == [("0", "2", "1,234"), ("1", "0", "0")]
    function = mcbn.Isotonic((0.25, 0.5), (0.1, 0.9), 10).display()
    assert list(function.rows) == [("0.25", "0.1"), ("0.5", "0.9")]
    linearity = RESULTS["linearity"]
    assert cells["linearity"][:2] == [
        ("all", f"{linearity.residual:.3g}"), ("0", f"{linearity.outputs[0]:.3g}"),
    ]  # fmt: skip
    assert dict(cells["choice"]) == {
        "best batch size": "8", "95% interval": "[3 or more]", "nats per example": "0.4",
        "not significantly different": "4 to 16", "collected at": "8", "draws": "16",
        "confirmed by collected draws": "yes",
    }  # fmt: skip
    axes = dict(cells["plan"])
    plan = RESULTS["plan"]
    assert axes["M"] == ", ".join(map(str, plan.inference.batch_sizes))
    assert axes["trained at"] == ", ".join(map(str, plan.training.batch_sizes))
    assert "in doubt" in repr(CHOICE)
    result = RESULTS["result"]
    assert dict(cells["result"]) == {name: f"{x:.4g}" for name, x in result.scores.items()}
    first, values = next(iter(SPREADS.values.items()))
    assert cells["spreads"][0] == (str(first), *(f"{value:.3g}" for value in values))
    assert cells["task"] == [
        ("train", "60", "(3,)"), ("validation", "60", "(3,)"), ("test", "60", "(3,)"),
        (f"outside: {HOSTILE}", "60", "(3,)"),
    ]  # fmt: skip
    assert cells["report"] == [
        (claim.topic, claim.mark, claim.sentence) for claim in RESULTS["report"].verdict
    ]


SPREAD = ("quantity", "mean", "least", "most")
HEADS = {
    "predictive": ("Predictive over 3 classes for 40 examples, T = 5", SPREAD),
    "dense predictive": ("Predictive over 3 classes for 40 examples of 4 x 5 positions, T = 5",
                         SPREAD),
    "mixture": ("GaussianPredictive for 40 examples of 2 outputs, T = 5", SPREAD),
    "moments": ("Moments for 40 examples of 2 outputs, T = 5", SPREAD),
    "predictions": (
        f"{HOSTILE} on data, with targets: Predictive over 3 classes for 40 examples, T = 5",
        SPREAD,
    ),
    "evaluation": ("Evaluation of 40 examples, T = 5, 95% intervals",
                   ("score", "value", "low", "high", "better")),
    "comparison": (
        "Comparison of 2 methods on 40 examples, baseline plain, 95% intervals",
        ("method", "accuracy", "nll", "nll_calibrated", "brier", "ece_debiased"),
    ),
    "class scores": ("Scores of 3 classes", ("class", "support", "recall", "precision", "iou")),
    "study": ("Study 'Digits': 300 of 300 cells done", ("method", "cells", "mean nll")),
    "study that failed": ("Study 'Digits': 240 of 300 cells done, 60 failed",
                          ("", "cell", "error")),
    "result": (str(STUDY.results[0].cell), ("score", "value")),
    "spreads": ("Spreads of 5 replicates", ("replicate", "M = 4", "M = 16", "M = 64", "M = 256")),
    "plan": ("Plan 'Digits'", ("axis", "values")),
    "bank": ("Bank(6 draws of 2 layers, batch_size=8, model='Sequential')", ("layer", "channels")),
    "joint posterior": (
        "JointPosterior fitted to Bank(6 draws of 2 layers, batch_size=8, model='Sequential')",
        ("layer", "channels"),
    ),
    "factorized posterior": (
        "FactorizedPosterior fitted to Bank(6 draws of 2 layers, batch_size=8, model='Sequential')",
        ("layer", "channels"),
    ),
    "inspection": (
        "Sequential is compatible with MCBN at M = 8; layers: 2, findings: 0; print it to read "
        "them",
        ("layer", "class", "channels", "share of noise"),
    ),
    "observation": ("Observation of 60 examples",
                    ("layer", "calls", "values", "sd of mean", "sd of log variance")),
    "artifact": ("net.pt2: T = 6, 4,096 bytes, inputs x", ("output", "largest difference")),
    "convergence": ("NLL against the number of draws T", ("T", "nll", "Monte Carlo error")),
    "risk-coverage": (
        f"Risk-coverage curve of 40 examples: AURC {RISKS.area:.4g}, E-AURC "
        f"{RISKS.excess_area:.4g}, AUGRC {RISKS.generalized_area:.4g}",
        ("coverage", "risk"),
    ),
    "reliability": (
        f"Reliability of 40 examples in {int((RELIABILITY.counts > 0).sum())} bins, ECE "
        f"{RELIABILITY.expected_error:.4g}",
        ("bin", "examples", "confidence", "accuracy"),
    ),
    "subgroups": ("Scores of 10 groups", ("group", "examples", "accuracy", "nll", "ece_debiased",
                                          "mutual_information")),
    "prediction sets": (
        f"Sets of 3 classes for 40 examples, mean size {RESULTS['prediction sets'].mean_size:.3g}",
        ("classes in a set", "examples"),
    ),
    "prediction intervals": (
        f"Intervals for 40 examples, mean length {RESULTS['prediction intervals'].mean_size:.4g}",
        SPREAD,
    ),
    "label sets": (
        f"Sets of 3 labels for 40 examples, mean size {RESULTS['label sets'].mean_size:.3g}",
        ("labels in a set", "examples"),
    ),
    "platt scaling": ("PlattScaling of 1000 labels", ("label", "scale", "bias")),
    "isotonic by label": ("IsotonicByLabel of 1000 labels", ("label", "knots", "known answers")),
    "isotonic": ("Isotonic with 1000 knots, fitted on 1,000 labels",
                 ("probability", "share of labels")),
    "vector scaling": ("VectorScaling of 1000 classes", ("class", "scale", "bias")),
    "choice": ("BatchSizeChoice by log_score, in doubt; print it to read why",
               ("quantity", "value")),
    "choice of layers": (
        f"LayerChoice: {LAYERS._verdict()}",
        ("layers", "count", "nll", "minus all", "low", "high", "p"),
    ),
    "task": ("Task 'task' of 3 classes", ("part", "examples", "of an example")),
    "report": (
        f"Report {HOSTILE!r}: {RESULTS['report'].headline}",
        ("claim", "", "what the numbers say"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_headings_and_columns_say_what_the_numbers_are(name):
    display = RESULTS[name].display()
    assert (display.heading, display.columns) == HEADS[name]


def test_headings_of_verdicts_are_those_of_the_results():
    consistency = mcbn.consistency(BANK)
    assert consistency.passed
    assert repr(consistency).startswith("The bank agrees with the running statistics: ")
    wrong = replace(consistency, excess=20.0)
    assert repr(wrong).startswith("The bank disagrees with the running statistics: the typical "
                                  "gap is 20.0 times the noise")  # fmt: skip
    refused = mcbn.inspect(nn.Sequential(nn.Identity()))
    assert repr(refused).startswith("Sequential is incompatible with MCBN at M = 32; layers: 0")
    linearity = RESULTS["linearity"]
    assert linearity.ratio.verdict.lower() in repr(linearity).splitlines()[0]
    group = replace(RESULTS["subgroup"], p_value=0.001, adjusted=0.04)
    assert group.display().heading == f"Group {HOSTILE!r} of 20 examples, p = 0.040"
    assert "p = 0.001" in repr(replace(group, adjusted=math.nan))
    unknown = replace(RESULTS["predictions"], targets=None)
    assert "on data, without targets: " in repr(unknown)
    failed = replace(INSPECTION.observation, failure="no such axis")
    assert "which failed: no such axis" in repr(failed)
    uneven = Clusters.of_groups(list("abbb"), 4)
    assert repr(uneven) == "2 clusters of 1 to 3 rows, 4 rows in all"
    assert repr(mcbn.minibatches(INPUTS, batch_size=8, draws=6, seed=1, replacement=True)) == (
        "6 mini-batches of 8 examples, drawn from 60 with replacement, seed 1"
    )


def test_displays_of_predictions_and_scores_show_their_numbers():
    for name in ("mixture", "moments"):
        result = RESULTS[name]
        rows = {row[0]: row[1:] for row in result.display().rows}
        for quantity, values in (("mean", result.mean), ("sd", result.variance.sqrt()),
                                 ("epistemic_sd", result.epistemic_variance.sqrt())):  # fmt: skip
            ends = (values.mean(), values.min(), values.max())
            assert rows[quantity] == tuple(f"{float(end):.4g}" for end in ends), quantity
    entropy = PREDICTIVE.entropy
    for name in ("predictive", "predictions"):
        assert ("entropy", *(f"{float(end):.4g}" for end in
                             (entropy.mean(), entropy.min(), entropy.max()))) in list(
            RESULTS[name].display().rows
        )  # fmt: skip
    evaluation = RESULTS["evaluation"]
    assert [tuple(row) for row in evaluation.display().rows] == [
        (name, f"{score.value:.4g}", f"{score.low:.4g}", f"{score.high:.4g}", score.better or "")
        for name, score in evaluation.items()
    ]
    assert [(row[0], row[2]) for row in COMPARISON.display().rows] == [
        (name, f"{each['nll']:.3g}") for name, each in COMPARISON.evaluations.items()
    ]
    classes = RESULTS["class scores"]
    mean, *each = classes.display().rows
    assert mean[:3] == ("mean of the classes", "40", f"{classes.mean['recall']:.3f}")
    assert [row[:3] for row in each] == [
        (name, str(classes.support[name]), f"{scores['recall']:.3f}")
        for name, scores in classes.by_class.items()
    ]
    cells = [each for each in STUDY.results if each.cell.label == "MCBN"]
    assert ("MCBN", str(len(cells)), f"{np.mean([e.scores['nll'] for e in cells]):.4g}") in list(
        STUDY.display().rows
    )
    failed = RESULTS["study that failed"]
    assert list(failed.display().rows) == [
        ("failed", str(cell), error) for cell, error in failed.failures.items()
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("MCBN", "MCBatchNorm of Sequential: T = 6, M = 8, all layers, engine 'auto'"),
        ("MCBN of a layer", "MCBatchNorm of Sequential: T = 6, M = 8, the last layer, engine "
                            "'auto'"),
        ("MCBN of a named layer", "MCBatchNorm of Sequential: T = 6, M = 8, layers 1, engine "
                                  "'auto'"),
        ("MC Dropout", "MCDropout of Sequential: T = 64, seed 0"),
        ("MC Dropout put in", "MCDropout of Sequential: T = 64, seed 0, dropout 0.1 put in before "
                              "1"),
        ("augmented", "Augmented by RandomFlip: T = 6, seed 0, of MCBatchNorm of Sequential: T = "
                      "6, M = 8, all layers, engine 'auto'"),
        ("augmented by a list", "Augmented by clone, neg: T = 3, seed 0, of Deterministic: "
                                "Sequential, T = 1"),
        ("last-layer Laplace", "LastLayerLaplace of Sequential: T = 64, seed 0, kronecker "
                               "posterior of 27 weights of 2, prior precision 2"),
        ("curvature posterior", "CurvaturePosterior of Sequential: 5 directions of 6 draws, batch "
                                "sizes from 1.37 to 56.8, N = 60, 3.7 directions determined"),
        ("Laplace", "LaplaceSampler of Posterior of Sequential: T = 3, seed 0"),
        ("ensemble", "DeepEnsemble of 5 networks: Sequential"),
        ("plain", "Deterministic: Sequential, T = 1"),
        ("linearized", "LinearizedBatchNorm of Sequential: T = 6, M = 8, 2 exact draws"),
        ("mini-batches", "6 mini-batches of 8 examples, drawn from 60 without replacement, seed 0"),
        ("data", "LabeledData of 60 examples: inputs (3,), targets () torch.int64"),
        ("data set", "LabeledDataset of 60 examples in a TensorDataset"),
        ("clusters", "4 clusters of 10 to 10 rows, 40 rows in all"),
    ],
)  # fmt: skip
def test_what_needs_no_table_is_one_line(name, line):
    assert repr(RESULTS[name]) == line


def test_a_task_whose_pictures_are_in_files_shows_itself_without_reading_them():
    class Files(Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            pytest.fail("was read")

    shown = LabeledDataset(Files())
    assert repr(shown) == "LabeledDataset of 5 examples in a Files"
    task = mcbn.Task(DATA, DATA, DATA)
    object.__setattr__(task, "test", shown)
    object.__setattr__(task, "outside", {"far": shown.inputs})
    assert task.display().rows[2:] == [("test", "5", "loaded when needed"),
                                       ("outside: far", "5", "loaded when needed")]  # fmt: skip


def test_text_stays_in_its_lines_whatever_it_holds():
    rows = [("a\nb" * 100, "x\r\ny " * 100, "1")] * 3
    display = Display("one\ntwo " * 100, ("name", "words", "n"), rows, words=2)
    lines = display.to_text().splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) <= 150
    assert lines[0].startswith("one two one")
    assert lines[0].endswith("\N{HORIZONTAL ELLIPSIS}")
    assert lines[2].startswith("  a ba b")


def test_words_begin_at_one_place():
    text = Display("h", ("", "b", "c"), [("x", "long word", "1"), ("y", "z", "10")], 2).to_text()
    assert text.splitlines()[2:] == ["  x  long word   1", "  y  z          10"]
    left = Display("h", ("", "b", "c"), [("x", "y", "1")], 2).to_html()
    assert re.findall(r"<td style=\"text-align: (\w+)", left) == ["left", "left", "right"]


def test_long_tables_are_cut_in_text_and_in_html():
    rows = [(str(k), "1") for k in range(100)]
    display = Display("heading", ("a", "b"), rows)
    assert len(display.to_text().splitlines()) == 10
    assert display.to_text().endswith("... and 93 more")
    assert display.to_html().count("<tr>") == 41
    assert "... and 60 more" in display.to_html()


def test_columns_are_aligned():
    text = Display("h", ("name", "value"), [("a", "1.5"), ("long name", "10")]).to_text()
    assert text.splitlines()[1:] == [
        "  name       value",
        "  a            1.5",
        "  long name     10",
    ]


def test_a_score_is_a_number_with_an_interval():
    score = RESULTS["evaluation"]["nll"]
    assert float(score) == score.value
    assert f"{score:.2f}" == f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
    assert f"{score}" == str(score)
    assert repr(score) == f"Score({score})"
    plain = mcbn.evaluate(PREDICTIVE, TARGETS, resamples=0)["nll"]
    assert f"{plain:.3f}" == f"{plain.value:.3f}"


def test_frames_of_scores_hold_the_scores():
    evaluation = RESULTS["evaluation"]
    frame = evaluation.to_dataframe()
    assert list(frame.index) == list(evaluation)
    for name, score in evaluation.items():
        row = frame.loc[name]
        assert (row.value, row.low, row.high) == (score.value, score.low, score.high)
    wide = COMPARISON.to_dataframe().set_index(["method", "score"])
    gap = COMPARISON.differences()[HOSTILE]["brier"]
    row = wide.loc[(HOSTILE, "brier")]
    assert (row.difference, row.difference_low, row.difference_high) == (
        gap.value, gap.low, gap.high
    )  # fmt: skip
    assert math.isnan(wide.loc[("plain", "brier")].difference)
    classes = RESULTS["class scores"].to_dataframe()
    recall = classes[(classes["class"] == "c") & (classes.score == "recall")]
    assert recall.value.item() == RESULTS["class scores"].by_class["c"]["recall"].value


def test_frames_of_predictions_have_a_row_per_example():
    frame = PREDICTIVE.to_dataframe(("a", "b", "c"))
    np.testing.assert_array_equal(frame["p_b"], PREDICTIVE.probabilities[:, 1])
    np.testing.assert_array_equal(frame.mutual_information, PREDICTIVE.mutual_information)
    assert list(frame.prediction) == ["abc"[k] for k in PREDICTIVE.prediction.tolist()]
    assert list(PREDICTIVE.to_dataframe().prediction) == PREDICTIVE.prediction.tolist()
    reals = MIXTURE.to_dataframe(("x", "y"))
    np.testing.assert_array_equal(reals["sd_y"], MIXTURE.variance[:, 1].sqrt())
    assert list(reals) == ["mean_x", "mean_y", "sd_x", "sd_y", "epistemic_sd_x",
                           "epistemic_sd_y", "aleatoric_sd_x", "aleatoric_sd_y"]  # fmt: skip
    with pytest.raises(ValueError, match="expected one prediction per example for a data frame"):
        RESULTS["dense predictive"].to_dataframe()


def test_frames_of_predictions_have_targets_and_columns():
    columns, index = {"site": np.array(list("ab") * 20)}, np.array([f"i{k}" for k in range(40)])
    given = Predictions("M", PREDICTIVE, TARGETS, "d", ("a", "b", "c"), columns, index)
    frame = given.to_dataframe()
    assert list(frame.index) == index.tolist()
    assert list(frame.target) == ["abc"[k] for k in TARGETS.tolist()]
    assert list(frame.site) == list("ab") * 20
    moments = Moments.from_predictive(MIXTURE)
    reals = Predictions("M", moments, REALS, "d", outputs=("x", "y")).to_dataframe()
    np.testing.assert_array_equal(reals["target_y"], REALS[:, 1])
    assert isinstance(reals, pd.DataFrame)
