"""Very many positions: the numbers of all of them, from sums of each image."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import VOID, pictures, sampler_of
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.evaluation.formulas import separation_of_counts
from mcbn.evaluation.subgroups import subgroups
from mcbn.evaluation.uncertain_images import EDGES, UncertainImages
from mcbn.predictive import positions
from mcbn.predictive.gaussian import Moments
from mcbn.predictive.predictions import Predictions
from mcbn.report.report import Report

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
RANKED = ("aurc", "e_aurc", "augrc", "auroc_of_errors", "ece_equal_mass", "ece_debiased")


@pytest.fixture
def sums(monkeypatch):
    """Called, it makes few positions count as very many."""
    return lambda: monkeypatch.setattr(positions, "LARGE", 1000)


def compared(x, y, data=None, **options):
    samplers = {"one": mcbn.Deterministic(sampler_of(4, x).model), "several": sampler_of(4, x)}
    generator = torch.Generator().manual_seed(5)
    options.setdefault("outside", {"noise": torch.rand(9, 3, 24, 18, generator=generator).double()})
    return mcbn.compare(
        samplers,
        *(data or (x, y)),
        ignore_index=VOID,
        resamples=30,
        classes=tuple("abcd"),
        **options,
    )


def near(name):
    return {"abs": 3e-3} if name.startswith(RANKED) else {"rel": 1e-9, "abs": 1e-12}


def numbers(plain, prefix=""):
    """Every number of nested results by its path."""
    if isinstance(plain, dict):
        return {
            path: value
            for key, each in plain.items()
            for path, value in numbers(each, f"{prefix}/{key}").items()
        }
    return {prefix: plain} if isinstance(plain, (int, float)) else {}


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("void", [0.0, 0.2])
def test_a_comparison_has_the_numbers_of_every_pixel(sums, grouped, void):
    x, y = pictures(void=void)
    y[3] = VOID if void else y[3]
    group = [k // 2 for k in range(14)] if grouped else None
    exact = compared(x, y, group=group)
    sums()
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    found = compared(x, y, (loader, None), group=group)
    assert found.entries["several"].predictive is None
    assert found.targets is None
    for method, entry in exact.entries.items():
        for name, score in entry.evaluation.items():
            other = found.entries[method].evaluation[name]
            assert other.value == pytest.approx(score.value, **near(name)), name
        assert found.entries[method].evaluation.clusters == entry.evaluation.clusters
    for method in exact.entries:
        one, two = (
            numbers(each.to_dict()["methods"][method]["outside"]) for each in (exact, found)
        )
        assert one.keys() == two.keys()
        for path, value in one.items():
            tolerance = {"abs": 4e-3} if "out_of_distribution" in path else {"rel": 1e-9}
            assert two[path] == pytest.approx(value, **tolerance), path
        gaps = [each.forecasts(method).confidence_gaps(each.units) for each in (exact, found)]
        for a, b in zip(*gaps, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_page_has_the_numbers_of_every_pixel(sums):
    x, y = pictures()
    exact = Report.from_comparison(compared(x, y)).to_dict()
    sums()
    found = Report.from_comparison(compared(x, y)).to_dict()
    for section in ("classes", "calibration"):
        one, two = numbers(exact[section]), numbers(found[section])
        assert len(one) > 2
        assert one == {path: pytest.approx(value, rel=1e-9) for path, value in two.items()}
    one, two = exact["figures"]["reliability"], found["figures"]["reliability"]
    assert json.dumps(one).count("counts") == 2
    for first, second in zip(one[0]["panels"], two[0]["panels"], strict=True):
        assert first.keys() == second.keys()
        for name in first.keys() - {"title"}:  # an empty bin has no accuracy
            bins = [np.array(each[name], dtype=float) for each in (first, second)]
            np.testing.assert_allclose(*bins, rtol=1e-9, err_msg=name)
    html = Report.from_comparison(compared(x, y)).to_html()
    assert "test positions," in html
    assert "test examples, 2 methods" not in html


def test_a_risk_coverage_curve_of_cells_lies_on_that_of_every_pixel(sums):
    x, y = pictures()
    exact = compared(x, y, outside={}).forecasts("several").risk_coverage()
    sums()
    found = compared(x, y, outside={}).forecasts("several").risk_coverage()
    assert len(found.coverage) < len(exact.coverage)
    places = torch.searchsorted(exact.coverage, found.coverage - 1e-12)
    torch.testing.assert_close(found.coverage, exact.coverage[places])
    torch.testing.assert_close(found.risk, exact.risk[places])
    assert float(found.coverage[-1]) == 1


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("real", [False, True])
def test_groups_of_images_have_the_numbers_of_every_pixel(sums, grouped, real):
    x, y = pictures()
    labels = [str(k % 3) for k in range(14)]
    group = [k // 4 for k in range(14)] if grouped else None
    if real:
        sampler, ignored, y = sampler_of(1, x), None, x.sum(1, keepdim=True)
        predictive = mcbn.predict(sampler, x, mcbn.Gaussian(4.0))
    else:
        predictive, ignored = mcbn.predict(sampler_of(4, x), x), VOID
    options = {"ignore_index": ignored, "group": group, "resamples": 20}
    exact = subgroups(predictive, y, labels, **options)
    sums()
    found = subgroups(predictive, y, labels, **options)
    for one, two in zip(exact, found, strict=True):
        assert (one.name, one.size, list(one.scores)) == (two.name, two.size, list(two.scores))
        for name, score in one.scores.items():
            assert two.scores[name].value == pytest.approx(score.value, **near(name)), name
            if name != "ece_debiased":
                ends = [(each.scores[name].low, each.scores[name].high) for each in (one, two)]
                assert ends[1] == pytest.approx(ends[0], rel=1e-9), name
        if ignored is None or grouped:
            assert two.p_value == pytest.approx(one.p_value, rel=1e-9)


def test_a_group_without_a_labelled_pixel_is_refused(sums):
    x, y = pictures()
    y[:7] = VOID
    sums()
    with pytest.raises(ValueError, match="a labelled pixel in the images of every group"):
        subgroups(mcbn.predict(sampler_of(4, x), x), y, ["a"] * 7 + ["b"] * 7, ignore_index=VOID)


def test_the_cells_of_uncertainty_are_narrow_and_hold_every_value():
    values = torch.tensor([0.0, 1e-12, 9e-11, 3e-7, 0.5, math.log(1000), 250.0]).double()
    cells = torch.bucketize(values, EDGES)
    assert cells[0] == cells[1] == cells[2] == 0
    assert cells[-1] == len(EDGES)
    inner = slice(3, 6)
    assert bool((EDGES[cells[inner]] >= values[inner]).all())
    assert bool((EDGES[cells[inner] - 1] < values[inner]).all())
    assert float((EDGES[1:] / EDGES[:-1]).max()) < 1.000116


def test_the_mutual_information_of_equal_draws_is_not_below_zero():
    x, _ = pictures(4)
    (part,) = mcbn.predict_batches(sampler_of(4, x), x)
    equal = replace(part, expected_entropy=part.entropy + 1e-9)  # as rounding may leave it
    assert UncertainImages.of(equal).mean("mutual_information") == 0


@pytest.mark.parametrize("score", ["mutual_information", "entropy"])
def test_histograms_of_cells_are_those_of_the_values(score):
    x, _ = pictures(6)
    predictive = mcbn.predict(sampler_of(4, x), x)
    images = UncertainImages.of(predictive)
    values = getattr(predictive, score).flatten().numpy()
    top = images.top(score)
    assert top >= values.max() > top / 1.000116
    # Edges of cells, as a report takes them: five decades below the top, twenty bins.
    edges = np.geomspace(top / 1e5, top, 21)
    expected = np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / len(values)
    assert images.shares(score, edges) == pytest.approx(expected, abs=1e-12)
    assert images.mean("entropy") == pytest.approx(float(predictive.entropy.mean()))


@pytest.mark.parametrize("seed", range(4))
def test_separation_of_counts_is_that_of_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 6, (2, 30)).astype(float)
    scores = np.repeat(np.tile(np.arange(30), 2), counts.flatten().astype(int))
    positive = np.repeat([0, 1], counts.sum(1).astype(int))
    false_rate, true_rate, _ = roc_curve(positive, scores, drop_intermediate=False)
    expected = (
        roc_auc_score(positive, scores),
        average_precision_score(positive, scores),
        false_rate[np.argmax(true_rate >= 0.95)],
    )
    found = separation_of_counts(*map(torch.from_numpy, counts))
    assert found == pytest.approx(expected, abs=1e-12)


def test_separation_of_counts_by_hand():
    inside, outside = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 1.0]]).double()
    # Pairs: the upper beats all three, the middle two and a half.
    assert separation_of_counts(inside, outside) == pytest.approx((5.5 / 6, (1 + 2 / 3) / 2, 1 / 3))


def test_out_of_distribution_takes_the_uncertainty_that_is_asked_for(sums):
    x, _ = pictures()
    sampler = sampler_of(4, x)
    inside, outside = (mcbn.predict(sampler, each) for each in (x, 3 * x))
    for uncertainty in ("mutual_information", "entropy"):
        exact = mcbn.out_of_distribution(inside, outside, uncertainty=uncertainty, resamples=20)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(positions, "LARGE", 1000)
            found = mcbn.out_of_distribution(inside, outside, uncertainty=uncertainty, resamples=20)
        for name, score in exact.items():
            assert found[name].value == pytest.approx(score.value, abs=3e-3)
            ends = found[name].low, found[name].high
            assert ends == pytest.approx((score.low, score.high), abs=5e-3)


def test_real_values_have_the_numbers_of_every_pixel(sums, tmp_path):
    x, _ = pictures()
    generator = torch.Generator().manual_seed(3)
    y = x.sum(1, keepdim=True) + 0.3 * torch.randn(14, 1, 24, 18, generator=generator)
    predictive = mcbn.predict(sampler_of(1, x), x, mcbn.Gaussian(4.0))
    given = Predictions("MCBN", Moments.from_predictive(predictive), y.double(), "pixels")
    given.save(tmp_path / "one.st")
    pages = []
    for large in (False, True):
        if large:
            sums()
        loaded = Predictions.load(tmp_path / "one.st")
        report = Report.from_predictions([loaded, replace(loaded, method="b")], resamples=20)
        assert len(report.content.maps.rows) == 6
        pages.append(numbers(report.to_dict()))
    assert pages[0].keys() == pages[1].keys()
    for path, value in pages[0].items():
        tolerance = {"abs": 3e-3} if "pit_error" in path else {"rel": 1e-9, "abs": 1e-12}
        assert pages[1][path] == pytest.approx(value, **tolerance), path


@pytest.mark.unchecked
def test_targets_of_another_number_are_refused():
    x, y = pictures()
    sampler = {"one": sampler_of(4, x)}
    few, many = (y[:-1], "class index for each"), (torch.cat([y, y[:1]]), "a target for each")
    for targets, message in (few, many):
        with pytest.raises(ValueError, match=message):
            mcbn.compare(sampler, x, targets, ignore_index=VOID, resamples=0)


def test_few_positions_are_kept_and_very_many_are_not(sums):
    x, y = pictures()
    assert compared(x, y, outside={}).entries["several"].predictive is not None
    sums()
    kept = compared(x, y, outside={}).entries["several"]
    with pytest.raises(ValueError, match="predictions that were kept"):
        _ = kept.known
    with pytest.raises(ValueError, match="targets that were kept"):
        _ = compared(x, y, outside={}).known_targets
    assert len(kept) == 14
