"""Predictions written part by part: the file of the whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import VOID, pictures, sampler_of

import mcbn
from mcbn.predictive.gaussian import Moments
from mcbn.predictive.joining import example_of
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.recording import Recorded, write_parts

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


def whole(kind):
    x, y = pictures(5)
    about = {"columns": {"site": np.array(["b", "a", "b", "c", "a"])},
             "index": np.array(["3", "1", "4", "0", "2"])}  # fmt: skip
    if kind == "classes":
        predictive = mcbn.predict(sampler_of(4, x), x)
        return Predictions(
            "MCBN", predictive, y, "masks", tuple("abcd"), ignore_index=VOID, **about
        )
    mixture = mcbn.predict(sampler_of(1, x), x, mcbn.Gaussian(4.0))
    targets = x.sum(1, keepdim=True)
    moments = Moments.from_predictive(mixture)
    return Predictions("MCBN", moments, targets, "depth", units=("m",), **about)


@pytest.mark.parametrize("targets", [True, False])
@pytest.mark.parametrize("kind", ["classes", "real"])
def test_the_file_is_that_of_the_whole(kind, targets, tmp_path):
    given = whole(kind)
    if not targets:
        given = replace(given, targets=None)
    parts = [
        (example_of(given.predictive, k), given.targets[k : k + 1] if targets else None)
        for k in range(5)
    ]
    about = replace(given, predictive=parts[0][0], targets=parts[0][1])
    write_parts(tmp_path / "parts", about, iter(parts), 5)
    given.save(tmp_path / "whole")
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert Predictions.load(tmp_path / "parts").columns["site"].tolist() == list("babca")


@pytest.mark.parametrize("kind", ["classes", "real"])
def test_what_is_said_of_the_parts_is_said_of_the_whole(kind):
    given = whole(kind).predictive
    together, apart = Recorded(), Recorded()
    together.add(given)
    for k in range(5):
        apart.add(example_of(given, k))
    assert (apart.examples, apart.draw_count) == (5, 4)
    assert apart.spread == pytest.approx(together.spread)
    assert apart.disagreement == together.disagreement
    mean = (
        given.mutual_information.mean() if kind == "classes"
        else given.epistemic_variance.sqrt().mean()
    )  # fmt: skip
    assert f"{float(mean):.4g}" in apart.disagreement


def test_what_is_not_known_of_the_draws_is_said():
    one, unknown = Recorded(), Recorded()
    one.add(mcbn.predict(mcbn.Deterministic(sampler_of(4, pictures()[0]).model), pictures()[0]))
    assert one.disagreement.startswith("a single draw")
    moments = Moments(torch.zeros(3, 1).double(), torch.ones(3, 1).double(), None, 0)
    unknown.add(moments)
    assert unknown.disagreement == "epistemic sd not known"
