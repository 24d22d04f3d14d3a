"""Scores of uncertainty in evaluations: by name, as objects, as detectors and as tensors."""

import json
import warnings

import numpy as np
import pytest
import torch
from forecasters import drawn, forecaster
from models import examples, make_network
from sklearn import metrics
from torch.testing import assert_close

import mcbn
from mcbn.evaluation import detection
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.error_detection import error_detection, rows_of
from mcbn.evaluation.evaluate import ScoredRows, evaluate_scored
from mcbn.evaluation.images import ScoredImages
from mcbn.evaluation.uncertain_images import UncertainImages
from mcbn.uncertainty.predictive_scores import PREDICTIVE_SCORES

NAME = "1d of 2-D"
AUROC = "auroc_out_of_distribution"
AREAS = ("auroc_of_errors", "aurc", "e_aurc", "augrc")


class Norm:
    """A detector of inputs."""

    name = "norm"

    def __call__(self, data):
        return data.square().mean(1)


class Confidence:
    """A score of predictions by the user, the other way round."""

    name = "confidence"

    def __call__(self, predictive):
        return predictive.confidence


# Errors.


@pytest.mark.parametrize("group", [None, [k // 5 for k in range(200)]])
def test_max_softmax_detects_errors_as_an_evaluation_says(group):
    """The same areas on the same resamples."""
    predictive, targets = forecaster(batch=200, draws=3)
    rows = ScoredRows.of(predictive, targets, group=group)
    found = error_detection(rows, 1 - predictive.confidence, resamples=20)
    expected = evaluate_scored(rows, resamples=20, progress=False)
    for name in AREAS:
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-12)
        assert_close(found[name].replicates, expected[name].replicates)
        assert found[name].better == expected[name].better


@pytest.mark.parametrize("name", ["margin", "mutual_information", "energy"])
def test_errors_by_any_score_are_those_of_scikit_learn_and_the_risk_coverage_curve(name):
    predictive, targets = forecaster(batch=200, draws=3)
    values = PREDICTIVE_SCORES[name](predictive)
    found = error_detection(ScoredRows(predictive, targets), values, resamples=0)
    wrong = predictive.prediction != targets
    expected = metrics.roc_auc_score(wrong.numpy(), values.numpy())
    assert found["auroc_of_errors"].value == pytest.approx(expected, rel=1e-12)
    curve = detection.risk_coverage(values, wrong)
    areas = (curve.area, curve.excess_area, curve.generalized_area)
    assert [found[key].value for key in AREAS[1:]] == pytest.approx(areas, rel=1e-9, abs=1e-12)


def test_positions_count_by_themselves_and_images_are_resampled_whole():
    predictive, targets = forecaster(batch=12, positions=(4,), draws=3)
    values = predictive.entropy
    found = error_detection(ScoredRows(predictive, targets), values, resamples=10)
    flat = mcbn.Categorical("logits").summarize(
        predictive.log_probabilities.movedim(1, -1).reshape(1, 48, 4)
    )
    rows = Clusters.alone(12).spread(torch.arange(12).repeat_interleave(4))
    alone = error_detection(
        ScoredRows(flat, targets.flatten(), rows), values.flatten(), resamples=10
    )
    for name in AREAS:
        assert found[name].value == pytest.approx(alone[name].value)
        assert_close(found[name].replicates, alone[name].replicates)


def test_values_of_another_shape_are_refused():
    predictive, targets = forecaster(batch=20)
    with pytest.raises(ValueError, match="uncertainty and targets of the same shape"):
        error_detection(ScoredRows(predictive, targets), torch.zeros(19).double())


def test_values_of_examples_are_put_into_the_rows_that_were_scored():
    predictive, targets = forecaster(batch=6, positions=(2,))
    values = torch.arange(6.0).double()
    whole = rows_of(ScoredRows.of(predictive, targets), values)
    assert_close(whole, values[:, None].expand(6, 2))
    void = targets.clone()
    void[0], void[3, 1] = 9, 9
    rows = ScoredRows.of(predictive, void, ignore_index=9)
    assert rows_of(rows, values).tolist() == [1, 1, 2, 2, 3, 4, 4, 5, 5]
    for name, score in PREDICTIVE_SCORES.items():
        labelled = score(predictive)[void != 9]
        assert_close(score(rows.predictive), labelled, msg=name)
    assert rows_of(ScoredImages(), values) is None
    labels = mcbn.Bernoulli("logits").summarize(torch.zeros(1, 6, 2))
    assert rows_of(ScoredRows.of(labels, torch.ones(6, 2)), values) is None


# Out of distribution.


def test_values_from_elsewhere_are_ranked_as_they_are():
    generator = np.random.default_rng(0)
    inside, outside = generator.normal(size=60), generator.normal(size=45) + 1
    expected = metrics.roc_auc_score(np.arange(105) >= 60, np.concatenate([inside, outside]))
    for given in ((inside, outside), (torch.from_numpy(inside), torch.from_numpy(outside))):
        found = mcbn.out_of_distribution(*given, resamples=20)
        assert found[AUROC].value == pytest.approx(expected)
        assert found[AUROC].low < expected < found[AUROC].high
    groups = [k // 3 for k in range(60)]
    grouped = mcbn.out_of_distribution(inside, outside, inside_group=groups, resamples=20)
    assert grouped[AUROC].value == pytest.approx(expected)
    assert grouped[AUROC].low != found[AUROC].low


def test_predictions_are_ranked_by_names_objects_and_their_values_alike():
    (inside, _), (outside, _) = forecaster(batch=60, draws=3), forecaster(batch=45, seed=5)
    by_name = mcbn.out_of_distribution(inside, outside, uncertainty="energy", resamples=10)
    score = PREDICTIVE_SCORES["energy"]
    by_object = mcbn.out_of_distribution(inside, outside, uncertainty=score, resamples=10)
    by_value = mcbn.out_of_distribution(score(inside), score(outside), resamples=10)
    for name in by_name:
        assert by_name[name].value == by_object[name].value == by_value[name].value
        assert by_name[name].low == by_object[name].low == by_value[name].low
    reversed_order = mcbn.out_of_distribution(
        inside, outside, uncertainty=Confidence(), resamples=0
    )
    softmax = mcbn.out_of_distribution(inside, outside, uncertainty="max_softmax", resamples=0)
    assert reversed_order[AUROC].value == pytest.approx(1 - softmax[AUROC].value)


def test_data_are_ranked_by_a_detector():
    inside, outside = examples(NAME, 30), 2 * examples(NAME, 20, seed=1)
    found = mcbn.out_of_distribution(inside, outside, uncertainty=Norm(), resamples=5)
    expected = mcbn.out_of_distribution(Norm()(inside), Norm()(outside), resamples=5)
    assert found[AUROC].value == expected[AUROC].value > 0.8


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("inside", "options", "kind", "match"),
    [
        (None, {"uncertainty": "entropie"}, ValueError, "among"),
        (torch.zeros(4), {"uncertainty": "entropy"}, TypeError, "predictions of classes"),
        (torch.tensor([1.0, float("nan")]), {}, ValueError, "finite numbers"),
        ("far.csv", {}, TypeError, "give what mcbn.predict returns"),
        (None, {"uncertainty": 3}, TypeError, "name of a score"),
    ],
)
def test_what_cannot_be_ranked_is_refused(inside, options, kind, match):
    given = forecaster(batch=20)[0] if inside is None else inside
    with pytest.raises(kind, match=match):
        mcbn.out_of_distribution(given, given, resamples=0, **options)


# Images of very many positions.


def test_images_keep_the_scores_that_are_asked_for():
    predictive, _ = forecaster(batch=5, positions=(3, 4), draws=3)
    usual = UncertainImages.of(predictive)
    assert usual.counted == ("entropy", "mutual_information")
    asked = UncertainImages.of(predictive, PREDICTIVE_SCORES["margin"])
    assert asked.counted == ("margin",)
    top = float(PREDICTIVE_SCORES["margin"](predictive).max())
    assert asked.top("margin") == pytest.approx(top, rel=2e-4)
    with pytest.raises(ValueError, match=r"counted .*\['margin'\], got 'entropy'.*uncertainties="):
        asked.cells("entropy")
    with pytest.raises(ValueError, match=r"at least 0 .*'max_logit'"):
        UncertainImages.of(predictive, PREDICTIVE_SCORES["max_logit"])
    single, _ = forecaster(batch=5, positions=(3, 4))
    assert UncertainImages.of(single).counted == ("entropy",)


# Comparisons.


@pytest.fixture(scope="module")
def made():
    network = make_network(NAME)
    batches = mcbn.minibatches(examples(NAME, 60), batch_size=8, draws=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
        bank = mcbn.collect(network, batches)
    samplers = {"plain": mcbn.Deterministic(network), "MCBN": mcbn.MCBatchNorm(network, bank)}
    inputs, far = examples(NAME, 40, seed=5), 5 * examples(NAME, 30, seed=6)
    targets = drawn(network(inputs).softmax(1).detach(), seed=0)
    knn = mcbn.NearestNeighbors.fit(network, examples(NAME, 60), k=3)
    names = ("entropy", "mutual_information", "energy", Confidence())
    options = {"outside": {"far": far}, "resamples": 8, "progress": False}
    found = mcbn.compare(
        samplers, inputs, targets, uncertainties=names, detectors=[knn, Norm()], **options
    )
    return found, samplers, inputs, targets, far, knn, options


def test_every_method_is_compared_by_every_score_that_it_has(made):
    found, samplers, _, targets, far, *_ = made
    every = ["entropy", "mutual_information", "energy", "confidence"]
    assert list(found.uncertainties) == ["entropy", "energy", "confidence", "mutual_information"]
    for method, entry in found.entries.items():
        names = [name for name in every if method == "MCBN" or name != "mutual_information"]
        assert list(entry.separation["far"]) == list(entry.errors) == names
        outside = mcbn.predict(samplers[method], far)
        for name in names:
            score = PREDICTIVE_SCORES.get(name, Confidence())
            apart = mcbn.out_of_distribution(
                entry.predictive, outside, uncertainty=score, resamples=8
            )
            assert entry.separation["far"][name][AUROC].value == apart[AUROC].value
            rows = ScoredRows(entry.predictive, targets)
            alone = error_detection(rows, score(entry.predictive), resamples=8)
            for key in AREAS:
                assert entry.errors[name][key].value == alone[key].value
                assert entry.errors[name][key].high == alone[key].high


def test_a_detector_has_a_row_of_its_own(made):
    found, _, inputs, targets, far, knn, _ = made
    assert list(found.detectors) == ["knn", "norm"]
    for detector in (knn, Norm()):
        entry = found.detectors[detector.name]
        assert_close(entry.values, detector(inputs).double())
        apart = mcbn.out_of_distribution(inputs, far, uncertainty=detector, resamples=8)
        assert entry.separation["far"][AUROC].value == apart[AUROC].value
        for method, scores in entry.errors.items():
            rows = ScoredRows(found.entries[method].predictive, targets)
            alone = error_detection(rows, detector(inputs).double(), resamples=8)
            assert scores["aurc"].value == alone["aurc"].value
        assert entry.seconds > 0


def test_scores_and_detectors_are_in_the_numbers_and_on_the_page(made):
    found, *_ = made
    numbers = json.loads(json.dumps(found.to_dict()))
    assert set(numbers["detectors"]) == {"knn", "norm"}
    far = numbers["detectors"]["knn"]["outside"]["far"][AUROC]["value"]
    assert far == found.detectors["knn"].separation["far"][AUROC].value
    assert list(numbers["methods"]["plain"]["errors"]) == ["entropy", "energy", "confidence"]
    lines = repr(found).splitlines()
    assert "far by entropy" in lines[1]
    assert [line.split()[0] for line in lines[2:]] == ["plain", "MCBN", "knn", "norm"]
    report = mcbn.Report.from_comparison(found)
    page = report.to_html()
    for words in ("Detection of errors", "one minus max softmax", "nearest neighbours", "energy"):
        assert words in page
    (claim,) = [each for each in report.verdict if each.topic == "Out of distribution"]
    assert "by entropy the best method" in claim.sentence
    assert "best of 2 detectors, " in claim.sentence
    for score in ("energy", "knn"):
        assert mcbn.plot.out_of_distribution(found, uncertainty=score).patches
    with pytest.raises(ValueError, match="expected a score of 'plain' among"):
        mcbn.plot.out_of_distribution(found, uncertainty="mutual_information")


def test_without_a_common_score_methods_are_not_contrasted(made):
    _, samplers, inputs, targets, _, _, options = made
    found = mcbn.compare(samplers, inputs, targets, uncertainties=["mutual_information"], **options)
    assert found.entries["plain"].separation["far"] == {}
    topics = [claim.topic for claim in mcbn.Report.from_comparison(found).verdict]
    assert "Out of distribution" not in topics


def test_names_of_detectors_and_methods_differ(made):
    _, samplers, inputs, targets, _, knn, options = made
    named = mcbn.NearestNeighbors(knn.features, knn.training, 3, name="plain")
    with pytest.raises(ValueError, match=r"got \['plain'\] for both; give the detectors name="):
        mcbn.compare(samplers, inputs, targets, detectors=[named], **options)
    with pytest.raises(ValueError, match="scores of different names"):
        mcbn.compare(samplers, inputs, targets, detectors=[knn, knn], **options)


def test_labels_and_pixels_are_compared_too():
    network, inputs = make_network(NAME), examples(NAME, 20)
    labels = (network(inputs).detach() > 0).long()
    options = {"outside": {"far": inputs + 3}, "resamples": 3, "progress": False}
    of_labels = mcbn.compare(
        {"plain": mcbn.Deterministic(network)}, inputs, labels, likelihood="bernoulli",
        detectors=[Norm()], uncertainties=["max_softmax"], **options,
    )  # fmt: skip
    entry = of_labels.entries["plain"]
    assert list(entry.separation["far"]) == ["max_softmax"]
    assert entry.errors == of_labels.detectors["norm"].errors == {}
    maps = mcbn.Deterministic(network, output=lambda z: z[:, :, None].expand(-1, -1, 2))
    pixels = labels[:, :1].expand(-1, 2)
    dense = mcbn.compare({"plain": maps}, inputs, pixels, detectors=[Norm()], **options)
    assert dense.detectors["norm"].errors["plain"]["aurc"].value > 0
    assert dense.entries["plain"].errors["entropy"]["aurc"].value > 0


def test_images_of_very_many_positions_are_compared_by_what_they_keep(monkeypatch):
    monkeypatch.setattr("mcbn.predictive.positions.LARGE", 10)
    network, inputs = make_network(NAME), examples(NAME, 12)
    maps = mcbn.MCDropout(network, draws=3, output=lambda z: z[:, :, None].expand(-1, -1, 2))
    pixels = network(inputs).argmax(1)[:, None].expand(-1, 2)
    options = {"outside": {"far": inputs + 3}, "resamples": 3, "progress": False}
    found = mcbn.compare(
        {"drop": maps}, inputs, pixels, uncertainties=["entropy", "margin"], detectors=[Norm()],
        **options,
    )  # fmt: skip
    entry = found.entries["drop"]
    assert entry.images is not None
    assert list(entry.separation["far"]) == ["entropy", "margin"]
    assert entry.errors == {}
    monkeypatch.setattr("mcbn.predictive.positions.LARGE", 10**6)
    kept = mcbn.compare({"drop": maps}, inputs, pixels, uncertainties=["margin"], **options)
    whole = kept.entries["drop"].separation["far"]["margin"][AUROC].value
    assert entry.separation["far"]["margin"][AUROC].value == pytest.approx(whole, abs=1e-3)


# Abstention and risk-coverage.


def test_abstention_and_risk_coverage_take_names_objects_and_values():
    predictive, targets = forecaster(batch=400, sharpness=2.0)
    wrong = predictive.prediction != targets
    values = PREDICTIVE_SCORES["margin"](predictive)
    expected = mcbn.choose_abstention(values, wrong, risk=0.6)
    assert mcbn.choose_abstention(predictive, wrong, risk=0.6, by="margin") == expected
    assert mcbn.choose_abstention(values.numpy(), wrong, risk=0.6) == expected
    score = PREDICTIVE_SCORES["margin"]
    assert mcbn.choose_abstention(predictive, wrong, risk=0.6, by=score) == expected
    usual = mcbn.choose_abstention(predictive, wrong, risk=0.6)
    assert usual == mcbn.choose_abstention(predictive, wrong, risk=0.6, by="max_softmax")
    curve = detection.risk_coverage(predictive, wrong, by="margin")
    assert curve.area == detection.risk_coverage(values, wrong).area
    inputs = examples(NAME, 400)
    of_inputs = detection.risk_coverage(inputs, wrong, by=Norm())
    assert of_inputs.area == detection.risk_coverage(Norm()(inputs), wrong).area


@pytest.mark.unchecked
def test_abstention_by_no_score_is_refused():
    predictive, targets = forecaster(batch=20)
    with pytest.raises(ValueError, match="among"):
        detection.risk_coverage(predictive, predictive.prediction != targets, by="entropie")
