"""Several real outputs by name, in their units: through files, apart, and from other methods."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import mcbn
from mcbn.predictive.gaussian import Moments
from mcbn.predictive.pairing import same_examples
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import read_predictions, write_predictions

NAMES, UNITS = ("strength", "weight"), ("MPa", "kg")
TAUS = (4.0, 0.25)
EXACT = {"rtol": 0, "atol": 0}
ROUNDING = {"rtol": 1e-13, "atol": 1e-13}


def predictions(*, keep_draws=False, names=NAMES, units=UNITS, positions=()):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn((6, 40, 2, *positions), generator=generator).double()
    mixture = mcbn.Gaussian(TAUS).summarize(draws)
    stored = mixture if keep_draws else Moments.from_predictive(mixture)
    targets = torch.randn((40, 2, *positions), generator=generator).double()
    return Predictions("M", stored, targets, "forty", outputs=names, units=units)


def scores(given):
    evaluation = mcbn.evaluate(given.scored, given.targets, resamples=3, progress=False)
    return {name: (score.value, score.low, score.high) for name, score in evaluation.items()}


@pytest.mark.parametrize("suffix", [".st", ".npz", ".csv", ".tsv.gz", ".parquet"])
@pytest.mark.parametrize("keep_draws", [True, False])
def test_names_and_units_are_read_back(suffix, keep_draws, tmp_path):
    saved = predictions(keep_draws=keep_draws)
    write_predictions(tmp_path / f"m{suffix}", saved)
    loaded = read_predictions(tmp_path / f"m{suffix}")
    assert loaded.outputs == NAMES
    # Tables of text and Parquet have no place for them.
    assert loaded.units == (UNITS if suffix in (".st", ".npz") else ())
    assert_close(loaded.targets, saved.targets, **EXACT)
    assert_close(loaded.predictive.variance, saved.predictive.variance, **ROUNDING)
    assert loaded.columns == {}


@pytest.mark.parametrize("suffix", [".st", ".npz", ".csv"])
def test_outputs_without_names_stay_numbers(suffix, tmp_path):
    write_predictions(tmp_path / f"m{suffix}", predictions(names=(), units=()))
    loaded = read_predictions(tmp_path / f"m{suffix}")
    assert (loaded.outputs, loaded.units) == ((), ())
    assert list(loaded.by_output) == ["0", "1"]


@pytest.mark.parametrize("keep_draws", [True, False])
@pytest.mark.parametrize("positions", [(), (3, 5)])
def test_each_output_is_scored_as_if_it_were_alone(keep_draws, positions):
    whole = predictions(keep_draws=keep_draws, positions=positions)
    apart = whole.by_output
    assert list(apart) == list(NAMES)
    means = whole.predictive.means if keep_draws else whole.predictive.mean[None]
    for k, (name, unit) in enumerate(zip(NAMES, UNITS, strict=True)):
        assert (apart[name].unit, apart[name].outputs) == (unit, ())
        if keep_draws:
            alone = mcbn.Gaussian(TAUS[k]).summarize(means[:, :, k])
        else:
            alone = mcbn.GaussianPredictive(means[:, :, k], whole.predictive.variance[None, :, k])
        expected = mcbn.evaluate(alone, whole.targets[:, k], resamples=3, progress=False)
        for score, (value, low, high) in scores(apart[name]).items():
            assert (value, low, high) == pytest.approx(
                (expected[score].value, expected[score].low, expected[score].high), rel=1e-12
            )


def test_one_output_and_positions_without_names_are_not_taken_apart():
    column = mcbn.Gaussian(1.0).summarize(torch.zeros(3, 4, 1))
    picture = mcbn.Gaussian(1.0).summarize(torch.zeros(3, 4, 1, 5, 5))
    classes = mcbn.Categorical().summarize(torch.zeros(3, 4, 2))
    for predictive in (column, picture, classes):
        assert Predictions("M", predictive, None, "four").by_output == {}


def test_outputs_are_joined_by_name():
    first = predictions(keep_draws=True)
    kept = first.predictive
    swapped = replace(
        first,
        method="B",
        predictive=mcbn.GaussianPredictive(kept.means.flip(2), kept.variances.flip(2)),
        targets=first.targets.flip(1),
        outputs=NAMES[::-1],
        units=UNITS[::-1],
    )
    _, joined = same_examples([first, swapped], ["a.st", "b.st"])
    assert (joined.outputs, joined.units) == (NAMES, UNITS)
    assert scores(joined) == scores(first)
    with pytest.raises(ValueError, match="expected the same outputs of every method, got"):
        same_examples([first, replace(swapped, outputs=("weight", "length"))], ["a", "b"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"outputs": ("a", "b", "c")}, "a name for each of 2 outputs, got"),
        ({"outputs": ("a", "a")}, "a name for each of 2 outputs, got"),
        ({"units": ("a", "b", "c")}, "one unit for all 2 outputs, or one for each, got"),
    ],
)
def test_names_that_do_not_fit_are_refused(change, reason, tmp_path):
    replace(predictions(), **change).save(tmp_path / "m.st")
    with pytest.raises(ValueError, match=reason):
        read_predictions(tmp_path / "m.st")


def test_units_of_files_that_do_not_say():
    given = predictions(units=())
    assert given.in_units(("MPa",)).units == ("MPa",)
    assert given.in_units(()) is given
    with pytest.raises(ValueError, match="one unit for all 2 outputs, or one for each"):
        given.in_units(("a", "b", "c"))
    classes = Predictions("M", mcbn.Categorical().summarize(torch.zeros(3, 4, 2)), None, "four")
    with pytest.raises(ValueError, match="expected units of real targets only"):
        classes.in_units(("MPa",))


def test_a_unit_of_all_is_that_of_each():
    given = predictions(units=("MPa",))
    assert given.unit == "MPa"
    assert [each.unit for each in given.by_output.values()] == ["MPa", "MPa"]
    assert predictions().unit == ""


def test_columns_of_the_data_may_not_have_the_names_of_lists(tmp_path):
    given = replace(predictions(), columns={"units": np.arange(40)})
    with pytest.raises(ValueError, match="reserved for predictions"):
        write_predictions(tmp_path / "m.npz", given)


def test_xarray_has_the_names_of_outputs():
    data = predictions().to_xarray()
    assert list(data["output"].values) == list(NAMES)
    assert data["mean"].sel(output="weight").shape == (40,)
