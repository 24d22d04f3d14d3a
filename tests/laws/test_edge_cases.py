"""Edge cases of every public score, calibration error, detection, conformal set and recalibration.

Numbers that are not finite are refused with their count and the first index. Empty sets, single
examples, single classes, single draws, no spread and ties everywhere have a result that is listed
here, or one clear error.
"""

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from models import without_seed
from readers import bank
from torch import Tensor

import mcbn
from mcbn.evaluation import calibration, detection, scores
from mcbn.evaluation.convergence import convergence
from mcbn.evaluation.subgroups import subgroups
from mcbn.predictive import categorical, mixture

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
BAD = (float("nan"), float("inf"), -float("inf"))
CASES = 12


def unit(count=CASES, seed=0):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)).double()


def flags(count=CASES):
    return torch.arange(count) % 3 == 0


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def chances(count=CASES, classes=3):
    return normal(count, classes).softmax(1)


def labels(count=CASES, classes=3):
    return torch.arange(count) % classes


def predicted(draws=4, count=CASES, classes=3):
    return mcbn.Categorical().summarize(normal(draws, count, classes), keep_draws=True)


def forecast(draws=4, count=CASES, noise=1.0):
    return mcbn.Gaussian(precision=noise).summarize(normal(draws, count))


# By name: the function, and the tensors it is given.
FUNCTIONS = {
    "negative_log_likelihood": (
        scores.negative_log_likelihood, lambda: [chances().log(), labels()]),
    "brier": (scores.brier, lambda: [chances(), labels()]),
    "correct": (scores.correct, lambda: [chances(), labels()]),
    "entropy": (categorical.entropy, lambda: [chances()]),
    "squared_error": (scores.squared_error, lambda: [normal(CASES), normal(CASES, seed=1)]),
    "ece": (calibration.expected_calibration_error, lambda: [unit(), flags()]),
    "ece_debiased": (calibration.debiased_calibration_error, lambda: [unit(), flags()]),
    "ece_classwise": (calibration.classwise_calibration_error, lambda: [chances(), labels()]),
    "ece_smooth": (calibration.smooth_calibration_error, lambda: [unit(), flags()]),
    "pit_error": (calibration.quantile_calibration_error, lambda: [unit()]),
    "auroc": (detection.auroc, lambda: [unit(), flags()]),
    "aupr": (detection.aupr, lambda: [unit(), flags()]),
    "fpr95": (detection.fpr95, lambda: [unit(), flags()]),
    "separation": (detection.out_of_distribution, lambda: [unit(), unit(seed=1)]),
    "risk_coverage": (detection.risk_coverage, lambda: [unit(), unit(seed=1)]),
    "choose_abstention": (
        lambda *given: detection.choose_abstention(*given, risk=0.9), lambda: [unit(), flags()]),
    "log_density": (
        mixture.log_density, lambda: [normal(4, CASES), unit() + 0.1, normal(CASES)]),
    "cdf": (mixture.cdf, lambda: [normal(4, CASES), unit() + 0.1, normal(CASES)]),
    "quantile": (
        lambda means, variances: mixture.quantile(means, variances, 0.9),
        lambda: [normal(4, CASES), unit() + 0.1]),
    "crps": (mixture.crps, lambda: [normal(4, CASES), unit() + 0.1, normal(CASES)]),
    "gaussian_log_density": (
        mixture.gaussian_log_density, lambda: [normal(CASES), unit() + 0.1, normal(CASES)]),
    "gaussian_crps": (
        mixture.gaussian_crps, lambda: [normal(CASES), unit() + 0.1, normal(CASES)]),
    "ensemble_crps": (mixture.ensemble_crps, lambda: [normal(4, CASES), normal(CASES)]),
    "convergence": (convergence, lambda: [normal(4, CASES, 3), labels()]),
    "Categorical": (mcbn.Categorical().summarize, lambda: [normal(4, CASES, 3)]),
    "Gaussian": (mcbn.Gaussian(1.0).summarize, lambda: [normal(4, CASES)]),
    "predict": (
        lambda inputs: mcbn.predict(
            mcbn.Deterministic(torch.nn.Identity().eval()), inputs, likelihood="categorical"
        ),
        lambda: [normal(CASES, 3)]),
}  # fmt: skip
PREDICTIVES = {
    "log_prob": lambda given, targets: given.log_prob(targets),
    "crps of a predictive": lambda given, targets: given.crps(targets),
    "crps_moment_matched": lambda given, targets: given.crps_moment_matched(targets),
    "fit_precision": mcbn.fit_precision,
    "VarianceScaling": mcbn.VarianceScaling.fit,
    "ConformalIntervals": lambda given, targets: mcbn.ConformalIntervals.fit(given, targets),
    "evaluate": lambda given, targets: mcbn.evaluate(given, targets, resamples=0),
    "subgroups": lambda given, targets: subgroups(
        given, targets, ["a", "b"] * (len(given) // 2) + ["a"] * (len(given) % 2), resamples=0
    ),
}
FITS = {
    "TemperatureScaling": mcbn.TemperatureScaling.fit,
    "TemperedCategorical": mcbn.TemperedCategorical.fit,
    "VectorScaling": mcbn.VectorScaling.fit,
    "Isotonic": mcbn.Isotonic.fit,
    "ConformalSets": lambda given, targets: mcbn.ConformalSets.fit(given, targets),
    "ConformalSetsByClass": lambda given, targets: mcbn.ConformalSetsByClass.fit(
        given, targets, level=0.5
    ),
    "fit_temperature": mcbn.fit_temperature,
    "evaluate": lambda given, targets: mcbn.evaluate(given, targets, resamples=0),
    "subgroups": PREDICTIVES["subgroups"],
}


def spoiled(values, bad, count=2):
    """The values with some at the end made non-finite, and the index of the first of them."""
    values = values.clone()
    flat = values.view(-1)
    flat[-count:] = bad
    place = torch.isfinite(values).logical_not().nonzero()[0]
    return values, tuple(place.tolist())


def refused(work, place, count=2):
    with pytest.raises(ValueError, match="expected") as caught:
        work()
    assert f"{count} NaN or infinite of" in str(caught.value), caught.value
    assert f"the first at index {place}" in str(caught.value), caught.value


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_that_are_not_finite_are_refused_with_count_and_index(name, bad):
    function, given = FUNCTIONS[name]
    function(*given())
    for place, values in enumerate(given()):
        masked = name == "negative_log_likelihood" and bad < 0  # a class of probability 0
        if values.is_floating_point() and not masked:
            worse, first = spoiled(values, bad)
            changed = [*given()[:place], worse, *given()[place + 1 :]]
            where = first[1:] if name == "Categorical" else first  # it checks draw by draw
            refused(lambda changed=changed: function(*changed), where)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", PREDICTIVES)
def test_real_targets_that_are_not_finite_are_refused(name, bad):
    worse, first = spoiled(normal(CASES), bad)
    PREDICTIVES[name](forecast(), normal(CASES))
    refused(lambda: PREDICTIVES[name](forecast(), worse), first)


@pytest.mark.parametrize("bad", BAD)
def test_statistics_and_weights_that_are_not_finite_are_refused(bad, tmp_path):
    model = without_seed(
        lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
    )
    inputs = normal(CASES, 3).float()
    draws = mcbn.collect(model, mcbn.minibatches(inputs, batch_size=4, draws=3))
    name = next(iter(draws.statistics))
    worse, first = spoiled(draws.statistics[name], bad)
    evil = replace(draws, statistics={**draws.statistics, name: worse})
    evil.save(tmp_path / "bank")
    refused(lambda: mcbn.Bank.load(tmp_path / "bank"), first)
    spoilt, first = spoiled(inputs, bad)
    refused(lambda: mcbn.predict(mcbn.MCBatchNorm(model, draws), spoilt), first)
    refused(lambda: mcbn.collect(model, [spoilt]), first)
    with torch.no_grad():
        model[0].weight[1, 2] = bad
    with pytest.raises(ValueError, match=r"expected finite.*1 NaN or infinite.*\(1, 2\)"):
        mcbn.collect(model, [inputs])


def outcome(work):
    """Kind of the result: "number", "not a number", "infinite" or "refused"."""
    try:
        result = work()
    except (ValueError, TypeError) as error:
        if "expected" not in str(error):
            raise
        return "refused"
    values = torch.cat([part.double().reshape(-1) for part in tensors(result)])
    if values.isnan().any():
        return "not a number"
    return "infinite" if values.isinf().any() else "number"


def tensors(result):
    """All numbers in a result."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (int, float)):
        yield torch.tensor(float(result))
    elif is_dataclass(result) and not isinstance(result, type):
        for field in fields(result):
            if field.name != "held_out":
                yield from tensors(getattr(result, field.name))
    elif isinstance(result, (tuple, list)):
        for each in result:
            yield from tensors(each)
    elif hasattr(result, "values"):
        yield from tensors([score.value for score in result.values()])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_empty_sets_are_refused(name):
    function, given = FUNCTIONS[name]
    assert outcome(lambda: function(*[first(values, 0) for values in given()])) == "refused"
    if name in ("Categorical", "Gaussian"):
        assert outcome(lambda: function([])) == "refused"


def of_draws(values):
    """Whether the first axis is that of draws."""
    return values.ndim > 1 and values.shape[0] == 4


def first(values, count):
    """The first examples."""
    return values[:, :count] if of_draws(values) else values[:count]


EDGES = {
    "one example": lambda values: first(values, 1),
    "ties": lambda values: torch.full_like(values, 0.5)
    if values.ndim == 1 and values.is_floating_point() else values,
    "one class": lambda values: values if values.is_floating_point() else torch.zeros_like(values),
    "the other": lambda values: values if values.is_floating_point() else torch.ones_like(values),
    "one draw": lambda values: values[:1] if of_draws(values) else values,
}  # fmt: skip
# Their results where these are not finite numbers.
OF_EDGES = {
    **dict.fromkeys(
        [(name, edge) for name in ("auroc", "aupr", "fpr95")
         for edge in ("one example", "one class", "the other")], "refused"),
    ("choose_abstention", "one example"): "refused",  # too few for any bound
    ("choose_abstention", "the other"): "refused",  # all are wrong
    # None is abstained from: the threshold is infinite.
    ("choose_abstention", "one class"): "infinite",
    ("choose_abstention", "one draw"): "infinite",
    ("choose_abstention", "ties"): "infinite",
    # A single group of all draws has no spread over groups.
    **{("convergence", edge): "not a number" for edge in EDGES},
}  # fmt: skip


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_edge_cases_of_functions_have_the_listed_result(name, edge):
    function, given = FUNCTIONS[name]
    result = outcome(lambda: function(*map(EDGES[edge], given())))
    assert result == OF_EDGES.get((name, edge), "number")


OF_CLASSES = {
    "one example": lambda: (predicted(count=1), labels(1)),
    "one draw": lambda: (predicted(draws=1), labels()),
    "one class": lambda: (predicted(classes=1), labels(classes=1)),
    "a class never seen": lambda: (predicted(), labels(classes=2)),
    "a single class seen": lambda: (predicted(), labels(classes=1)),
    "ties": lambda: (mcbn.Categorical().summarize(torch.zeros(4, CASES, 3), keep_draws=True),
                     labels()),
    "no examples": lambda: (predicted(count=0), labels(0)),
}  # fmt: skip
OF_FITS = {
    **{(name, edge): "refused" for name in FITS for edge in ("one class", "no examples")},
    ("ConformalSets", "one example"): "infinite",  # every set is whole
    # A class that was not seen is in every set.
    **{("ConformalSetsByClass", edge): "infinite" for edge in
       ("one example", "a class never seen", "a single class seen")},
    # A score that is not defined, as the AUROC of errors where there is none, is NaN.
    ("evaluate", "one example"): "not a number",
    ("subgroups", "one example"): "not a number",
    ("subgroups", "ties"): "not a number",
}  # fmt: skip


@pytest.mark.parametrize("edge", OF_CLASSES)
@pytest.mark.parametrize("name", FITS)
def test_edge_cases_of_classes_have_the_listed_result(name, edge):
    result = outcome(lambda: FITS[name](*OF_CLASSES[edge]()))
    assert result == OF_FITS.get((name, edge), "number")


OF_REALS = {
    "one example": lambda: (forecast(count=1), normal(1, seed=1)),
    "one draw": lambda: (forecast(draws=1), normal(CASES, seed=1)),
    "ties": lambda: (mcbn.Gaussian(1.0).summarize(torch.zeros(4, CASES)), torch.ones(CASES)),
    "right to the last bit": lambda: (
        mcbn.Gaussian(1.0).summarize(torch.zeros(4, CASES)), torch.zeros(CASES)),
    "no spread": lambda: (
        mcbn.GaussianPredictive(torch.zeros(4, CASES).double(), torch.zeros(()).double()),
        normal(CASES)),
    "no examples": lambda: (forecast(count=0), normal(0)),
}  # fmt: skip
OF_FORECASTS = {
    **{(name, "no examples"): "refused" for name in PREDICTIVES},
    # Without a spread there is no density, and nothing to scale.
    **{(name, "no spread"): "refused" for name in
       ("log_prob", "VarianceScaling", "ConformalIntervals", "evaluate", "subgroups")},
    # The best spread would be 0.
    ("fit_precision", "right to the last bit"): "refused",
    ("VarianceScaling", "right to the last bit"): "refused",
    ("ConformalIntervals", "one example"): "infinite",
    ("subgroups", "one example"): "not a number",
}  # fmt: skip


@pytest.mark.parametrize("edge", OF_REALS)
@pytest.mark.parametrize("name", PREDICTIVES)
def test_edge_cases_of_forecasts_have_the_listed_result(name, edge):
    result = outcome(lambda: PREDICTIVES[name](*OF_REALS[edge]()))
    assert result == OF_FORECASTS.get((name, edge), "number")


@pytest.mark.parametrize("model", ["JointPosterior", "FactorizedPosterior"])
def test_a_posterior_of_a_single_draw_is_refused(model):
    with pytest.raises(ValueError, match="expected"):
        getattr(mcbn, model).from_bank(bank().first(1))
