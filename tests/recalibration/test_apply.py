"""Predictions before and after recalibration, as the report shows them."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from law import DEVIATIONS

import mcbn
from mcbn.cli.main import main
from mcbn.evaluation.scores import negative_log_likelihood
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import write_predictions
from mcbn.recalibration.apply import (
    Sides,
    averaged_for_want_of_draws,
    before_and_after,
    fit_dicts,
    fitted,
    in_words,
)
from mcbn.recalibration.coverages import coverage_dicts, set_coverages
from mcbn.report import tables


def classes(seed, count=400, draws=1, temperature=3.0, method="net"):
    """A calibrated forecaster whose logits are multiplied: over-confident by that factor."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(draws, count, 4, generator=generator).double()
    targets = torch.multinomial(logits.mean(0).softmax(1), 1, generator=generator)[:, 0]
    predictive = mcbn.Categorical().summarize(temperature * logits, keep_draws=True)
    return Predictions(method, predictive, targets, "simulated")


def reals(seed, count=400, method="net"):
    """Real targets with twice the deviation that is said."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(8, count, generator=generator).double() * 0.3
    targets = means.mean(0) + 2 * torch.randn(count, generator=generator).double()
    return Predictions(method, mcbn.Gaussian(1.0).summarize(means), targets, "simulated")


def nll(each):
    predictive = each.scored
    if isinstance(predictive, mcbn.GaussianPredictive):
        return -predictive.log_prob(each.targets).mean()
    return negative_log_likelihood(predictive.log_probabilities, each.targets).mean()


CASES = [
    ("temperature", classes, mcbn.TemperatureScaling),  # of a single draw
    ("temperature", partial(classes, draws=3), mcbn.TemperedCategorical),
    ("temperature-per-draw", partial(classes, draws=3), mcbn.TemperedCategorical),
    ("temperature-of-average", partial(classes, draws=3), mcbn.TemperatureScaling),
    ("vector", classes, mcbn.VectorScaling),
    ("isotonic", classes, mcbn.Isotonic),
    ("variance", reals, mcbn.VarianceScaling),
]


@pytest.mark.parametrize(
    ("by", "made", "method"), CASES, ids=[f"{case[0]} {case[2].__name__}" for case in CASES]
)
def test_each_method_is_shown_as_it_is_and_cured(by, made, method):
    test, held = made(0), made(1)
    fits = fitted([test], [held], by)
    assert type(fits["net"]) is method
    before, after = before_and_after([test], fits, by)
    assert before is test
    assert (after.method, after.targets is test.targets) == (f"net + {by}", True)
    assert nll(after) < nll(before) - 0.05
    expected = method.fit(held.scored, held.targets)(test.scored)
    torch.testing.assert_close(
        nll(after), nll(replace(test, predictive=expected)), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("forgotten", ["test", "held", "outside"])
def test_a_temperature_is_of_the_average_where_draws_of_any_file_were_not_kept(forgotten):
    made = {"test": 0, "held": 1, "outside": 2}
    files = {name: classes(seed, draws=3) for name, seed in made.items()}
    files[forgotten] = replace(
        files[forgotten], predictive=replace(files[forgotten].predictive, draws=None)
    )
    test, held, outside = files.values()
    fit = fitted([test], [held], "temperature", others=[outside])["net"]
    assert fit == mcbn.TemperatureScaling.fit(held.scored, held.targets)
    assert averaged_for_want_of_draws(fit, test)
    before_and_after([outside], {"net": fit}, "temperature")
    one = classes(0)
    assert not averaged_for_want_of_draws(fitted([one], [classes(1)], "temperature")["net"], one)
    # Predictions by other methods do not count.
    other = replace(files[forgotten], method="other")
    kept = [classes(seed, draws=3) for seed in (0, 1)]
    fits = fitted(
        [kept[0], classes(3, method="other")], [kept[1], classes(4, method="other")],
        "temperature", others=[other, classes(2, draws=3)],
    )  # fmt: skip
    assert type(fits["net"]) is mcbn.TemperedCategorical


def test_fits_are_told_in_a_line_and_as_numbers():
    test, held = classes(0), classes(1)
    told = {}
    for by in ("temperature", "vector", "isotonic"):
        fits = fitted([test], [held], by)
        told[by] = in_words(fits["net"])
        assert fit_dicts(fits)["net"].items() >= fits["net"].to_dict().items()
    assert told["temperature"].startswith("T = 2.8")
    assert told["temperature"].endswith(" of the average, fitted on 400 labels")
    assert told["vector"] == "VectorScaling of 4 classes"
    assert "fitted on 400 labels" in told["isotonic"]
    with pytest.warns(mcbn.TemperatureBoundWarning):
        sure = mcbn.TemperatureScaling.fit(held.scored, held.scored.prediction, prior=0.0)
    assert fit_dicts({"net": sure})["net"]["at_bound"] == "lower"


def test_every_method_is_fitted_on_its_own_held_out_predictions():
    tested = [classes(0, method="a"), classes(0, temperature=6.0, method="b")]
    held = [classes(1, temperature=6.0, method="b"), classes(1, method="a")]
    fits = fitted(tested, held, "temperature")
    # Twice the logits have twice the temperature, but for the prior.
    assert fits["b"].temperature == pytest.approx(2 * fits["a"].temperature, rel=0.02)
    shown = before_and_after(tested, fits, "temperature")
    assert [each.method for each in shown] == ["a", "a + temperature", "b", "b + temperature"]
    torch.testing.assert_close(nll(shown[1]), nll(shown[3]), rtol=1e-3, atol=0)
    # The fits go for predictions of other inputs by the same method.
    outside = before_and_after([classes(2, method="b")], fits, "temperature")[1]
    expected = fits["b"](classes(2, method="b").scored)
    torch.testing.assert_close(outside.scored.entropy, expected.entropy, rtol=0, atol=0)


def test_a_single_method_may_have_other_names():
    test, held = classes(0, method="test_file"), classes(1, method="held_out_file")
    assert fitted([test], [held], "temperature")["test_file"].temperature > 2


def test_what_does_not_fit_is_refused():
    test, held = classes(0), classes(1)
    with pytest.raises(ValueError, match="of other examples, got those of 'net' that are to be"):
        fitted([test], [classes(0)], "temperature")
    with pytest.raises(ValueError, match="expected held-out predictions by 'a' once, got those of"):
        fitted([replace(test, method="a"), test], [held], "temperature")
    with pytest.raises(ValueError, match="for predictions of classes, got 'variance'"):
        fitted([test], [held], "variance")
    with pytest.raises(ValueError, match=r"expected one of \['variance'\] .* of real values"):
        fitted([reals(0)], [reals(1)], "vector")
    with pytest.raises(ValueError, match="expected targets with the predictions of 'net'"):
        fitted([test], [replace(held, targets=None)], "temperature")


NAMES = ("a", "b", "c", "d")


def in_order(predictions, order):
    """The same predictions with their classes in another order."""
    given = predictions.predictive
    changed = {
        "log_probabilities": given.log_probabilities[:, order],
        "variance": given.variance[:, order],
        "draws": given.draws[:, :, order],
    }
    places = {name: place for place, name in enumerate(order)}
    return replace(
        predictions,
        predictive=replace(given, **changed),
        targets=torch.tensor([places[int(k)] for k in predictions.targets]),
        classes=tuple(NAMES[k] for k in order),
    )


@pytest.mark.parametrize("by", ["temperature", "temperature-per-draw", "vector", "isotonic"])
def test_held_out_classes_are_aligned_by_name(by):
    test, held = (replace(classes(seed), classes=NAMES) for seed in (0, 1))
    other = in_order(held, [2, 0, 3, 1])
    expected = before_and_after([test], fitted([test], [held], by), by)[1]
    actual = before_and_after([test], fitted([test], [other], by), by)[1]
    torch.testing.assert_close(
        actual.scored.log_probabilities, expected.scored.log_probabilities, rtol=1e-6, atol=1e-6
    )
    assert set_coverages([test], [other])[1] == set_coverages([test], [held])[1]


def test_held_out_classes_of_other_names_are_refused():
    test, held = (replace(classes(seed), classes=NAMES) for seed in (0, 1))
    with pytest.raises(ValueError, match="'a', 'b', 'c', 'e' in the held-out predictions by 'net'"):
        fitted([test], [replace(held, classes=("a", "b", "c", "e"))], "vector")
    with pytest.raises(ValueError, match="or in neither, got them in one; write both in the same"):
        fitted([test], [replace(held, classes=())], "vector")
    with pytest.raises(ValueError, match="of the same kind by 'net', got classes and real values"):
        fitted([test], [reals(1)], "vector")


def test_held_out_examples_in_another_order_are_still_the_same():
    test = classes(0)
    given = test.predictive
    order = torch.arange(len(given)).flip(0)
    again = replace(
        given,
        **{name: getattr(given, name)[order]
           for name in ("log_probabilities", "variance", "expected_entropy", "variation_ratio")},
        draws=given.draws[:, order],
    )  # fmt: skip
    held = replace(test, predictive=again, targets=test.targets[order])
    with pytest.raises(ValueError, match=r"\(400 examples with equal predictions\)"):
        fitted([test], [held], "temperature")


def test_sets_as_predicted_and_conformal():
    test, held = classes(0, count=2000), classes(1, count=2000)
    plain, conformal = set_coverages([test], [held], level=0.9)
    # Written out: classes are taken, the most probable first, until they reach the level.
    sizes, inside = [], []
    for row, target in zip(test.scored.probabilities.numpy(), test.targets, strict=True):
        order, total, members = np.argsort(-row), 0.0, set()
        for each in order:
            if total >= 0.9:
                break
            members.add(int(each))
            total += row[each]
        sizes.append(len(members))
        inside.append(int(target) in members)
    assert plain.mean_size == pytest.approx(np.mean(sizes))
    assert plain.coverage.value == pytest.approx(np.mean(inside))
    assert plain.coverage.high < 0.9  # over-confident
    made = mcbn.ConformalSets.fit(held.scored, held.targets, level=0.9)(test.scored)
    assert conformal.coverage == made.coverage(test.targets)
    assert abs(conformal.coverage.value - 0.9) < DEVIATIONS * np.sqrt(2 * 0.09 / 2000)
    assert (plain.rule, conformal.rule) == ("as predicted", "conformal")


def test_intervals_as_predicted_and_conformal():
    test, held = reals(0, count=2000), reals(1, count=2000)
    plain, conformal = set_coverages([test], [held], level=0.9)
    low, high = test.scored.interval(0.9)
    inside = (test.targets >= low) & (test.targets <= high)
    assert plain.coverage.value == pytest.approx(float(inside.double().mean()))
    assert plain.mean_size == pytest.approx(float((high - low).mean()))
    assert plain.coverage.high < 0.9
    made = mcbn.ConformalIntervals.fit(held.scored, held.targets, level=0.9)(test.scored)
    assert conformal.coverage == made.coverage(test.targets)
    # Both the examples and the held-out ones have their chance: four standard errors.
    assert abs(conformal.coverage.value - 0.9) < DEVIATIONS * np.sqrt(2 * 0.09 / 2000)


@pytest.mark.parametrize(("made", "by"), [(classes, "temperature"), (reals, "variance")])
def test_the_report_has_both(tmp_path, made, by, capsys):
    for name, each in (("test", made(0)), ("held", made(1))):
        write_predictions(tmp_path / f"{name}.st", each)
    files = ["--predictions", f"{tmp_path}/test.st", "--out", f"{tmp_path}/page"]
    options = ["--recalibrate", by, "--resamples", "20"]
    with pytest.raises(SystemExit):
        main(["report", *files, *options])
    assert "expected --held-out with --recalibrate" in capsys.readouterr().err
    main(["report", *files, *options, "--held-out", f"{tmp_path}/held.st"])
    numbers = json.loads((tmp_path / "page" / "report.json").read_text())
    assert list(numbers["comparison"]["methods"]) == ["net", f"net + {by}"]
    score = "nll" if made is classes else "pll"
    better = -1 if made is classes else 1
    assert better * numbers["comparison"]["differences"][f"net + {by}"][score]["value"] > 0.05
    plain, conformal = (numbers["sets"]["net"][rule] for rule in ("as predicted", "conformal"))
    assert plain["coverage"]["value"] < conformal["coverage"]["value"]
    page = (tmp_path / "page" / "report.html").read_text()
    assert f">{100 * conformal['coverage']['value']:.1f}%<" in page
    assert 'id="sets"' in page


SITES = np.array([f"site {k % 3}" for k in range(900)])


def in_sites(predictions):
    return replace(predictions, columns={"site": SITES[: len(predictions.scored)]})


@pytest.mark.parametrize("made", [classes, reals])
def test_sets_of_each_subgroup(made):
    test, held = in_sites(made(0, count=900)), in_sites(made(1, count=900))
    rows = set_coverages([test], [held], by="site")
    assert [(row.rule, row.part) for row in rows] == [
        (rule, part) for rule in ("as predicted", "conformal", "conformal by site")
        for part in ("", "site 0", "site 1", "site 2")
    ]  # fmt: skip
    assert rows[:8:4] == set_coverages([test], [held])
    options = {"by": SITES, "level": 0.9}
    kind = mcbn.ConformalSetsBySubgroup if made is classes else mcbn.ConformalIntervalsBySubgroup
    sets = kind.fit(held.scored, held.targets, **options)(test.scored, by=SITES)
    assert rows[8].coverage == sets.coverage(test.targets)
    for row, site in zip(rows[9:], ("site 0", "site 1", "site 2"), strict=True):
        chosen = torch.from_numpy(site == SITES)
        if made is classes:
            few = mcbn.PredictionSets(sets.members[chosen])
        else:
            few = mcbn.PredictionIntervals(sets.low[chosen], sets.high[chosen])
        assert row.coverage == few.coverage(test.targets[chosen])
        assert (row.mean_size, row.groups) == (few.mean_size, None)
    filed = coverage_dicts(rows)["net"]
    assert filed["conformal by site"]["parts"]["site 1"]["mean_size"] == rows[10].mean_size
    assert "parts" not in coverage_dicts(set_coverages([test], [held]))["net"]["conformal"]


def test_sets_of_each_class():
    names = ("a", "b", "c", "d")
    test, held = (replace(classes(seed, count=900), classes=names) for seed in (0, 1))
    test.targets[test.targets == 2] = 1  # a class that does not happen has no coverage
    rows = set_coverages([test], [held], by="target")[8:]
    assert [row.part for row in rows] == ["", "a", "b", "d"]
    sets = mcbn.ConformalSetsByClass.fit(held.scored, held.targets, level=0.9)(test.scored)
    chosen = test.targets == 3
    expected = mcbn.PredictionSets(sets.members[chosen]).coverage(test.targets[chosen])
    assert rows[-1].coverage == expected
    unnamed = set_coverages([classes(0)], [classes(1)], by="target")
    assert [row.part for row in unnamed[:5]] == ["", "0", "1", "2", "3"]


def test_sets_of_subgroups_are_for_new_patients_as_well():
    test, held = in_sites(classes(0, count=900)), in_sites(classes(1, count=900))
    patients = {
        "scored": [f"p{k // 5}" for k in range(900)], "held": [f"q{k // 5}" for k in range(900)]
    }  # fmt: skip
    # The only patient of a site says nothing of others.
    patients["scored"] = ["p" if k % 3 == 0 else name for k, name in enumerate(patients["scored"])]
    sides = Sides(patients["scored"], {"net": patients["held"]})
    rows = set_coverages([test], [held], by="site", sides=sides)
    fit = mcbn.ConformalSetsBySubgroup.fit(
        held.scored, held.targets, by=SITES, group=patients["held"]
    )
    sets = fit(test.scored, by=SITES)
    assert rows[8].coverage == sets.coverage(test.targets, group=patients["scored"])
    assert (rows[9].groups, rows[9].coverage.low, rows[9].coverage.high) == (1, 0.0, 1.0)
    chosen = torch.from_numpy(SITES == "site 1")
    within = [name for name, inside in zip(patients["scored"], chosen, strict=True) if inside]
    few = mcbn.PredictionSets(sets.members[chosen]).coverage(test.targets[chosen], group=within)
    assert (rows[10].coverage, rows[10].groups) == (few, len(set(within)))


def test_sets_by_what_is_not_there_are_refused():
    test, held = in_sites(classes(0)), in_sites(classes(1))
    with pytest.raises(ValueError, match="expected a column 'age'"):
        set_coverages([test], [held], by="age")
    with pytest.raises(ValueError, match="expected a column 'site'"):
        set_coverages([test], [classes(1)], by="site")
    with pytest.raises(ValueError, match="to make sets by 'target', got real values; leave"):
        set_coverages([reals(0)], [reals(1)], by="target")
    with pytest.raises(ValueError, match="expected held-out predictions with sets_by"):
        mcbn.Report.from_predictions([test], sets_by="site")


def test_the_report_has_the_sets_of_each_subgroup(tmp_path, capsys):
    for name, each in (("test", in_sites(classes(0))), ("held", in_sites(classes(1)))):
        write_predictions(tmp_path / f"{name}.st", each)
    line = ["report", f"{tmp_path}/test.st", "--out", f"{tmp_path}/page", "--resamples", "20",
            "--sets-by", "site"]  # fmt: skip
    with pytest.raises(SystemExit):
        main(line)
    assert "expected --held-out with --sets-by site" in capsys.readouterr().err
    main([*line, "--held-out", f"{tmp_path}/held.st"])
    sets = json.loads((tmp_path / "page" / "report.json").read_text())["sets"]["net"]
    rows = set_coverages([in_sites(classes(0))], [in_sites(classes(1))], by="site")
    found = sets["conformal by site"]["parts"]["site 2"]["coverage"]["value"]
    assert found == rows[-1].coverage.value
    page = (tmp_path / "page" / "report.html").read_text()
    assert page.count(">conformal by site<") == 4
    assert page.count(">site 2<") == 3
    report = mcbn.Report.from_predictions(
        [in_sites(classes(0))], held_out=[in_sites(classes(1))], sets_by="site", resamples=0
    )
    assert report.content.sets == rows


def test_coverages_of_too_many_parts_are_in_the_numbers_alone():
    rows = set_coverages([in_sites(classes(0))], [in_sites(classes(1))], by="site")
    many = [*rows, *(replace(rows[-1], part=f"part {k}") for k in range(60))]
    assert len(tables.set_coverages(many, "classes").rows) == 3
    shown = tables.set_coverages(rows, "classes")
    assert len(shown.rows) == 12
    assert all(len(cells) + 1 == len(shown.headings) for _, cells in shown.rows)
    assert len(tables.set_coverages(rows[::4], "classes").headings) == 4
