"""Reports of synthetic regression forecasts."""

import functools

import numpy as np
import torch
from reports import drift_test

from mcbn.evaluation.real_outputs import evaluation_of
from mcbn.evaluation.subgroups import subgroups
from mcbn.predictive.gaussian import Moments
from mcbn.predictive.predictions import Predictions
from mcbn.report.real_content import RealContent
from mcbn.report.report import Report

HOSTILE = '<script>alert(1)</script>"$x_"'


def predictions(name, width, *, examples=600, known=True):
    """Forecasts that state a standard deviation of `width`, where the true one is 1."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(examples, generator=generator).double()
    targets = mean + torch.randn(examples, generator=generator).double()
    variance = torch.full((examples,), float(width) ** 2).double()
    moments = Moments(mean, variance, variance / 4 if known else None, 8 if known else 0)
    return Predictions(name, moments, targets, "d", (), {"site": np.array(list("ab") * 300)})


@functools.cache
def report(widths=(1.0, 0.5), resamples=30, known=True):
    """A report of one method per width of the forecasts."""
    methods = {f"{HOSTILE} {w}": predictions(f"{w}", w, known=known) for w in widths}
    scores = {name: evaluation_of(each, resamples=resamples) for name, each in methods.items()}
    groups = {
        "site": {
            name: subgroups(each.scored, each.targets, list("ab") * 300, resamples=5)
            for name, each in methods.items()
        }
    }
    page = RealContent(methods, scores, provenance={"Data": HOSTILE}, groups=groups,
                          drift={HOSTILE: drift_test(p_value=0.01, name=HOSTILE)})  # fmt: skip
    return Report(page)
