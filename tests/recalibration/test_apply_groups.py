"""Patients on one side only: recalibration, prediction sets and reports of predictions."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from command_lines import failing, run

import mcbn
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.apply import Sides, fitted
from mcbn.recalibration.coverages import set_coverages

FITS = [
    ("temperature", mcbn.TemperatureScaling),
    ("temperature-per-draw", mcbn.TemperedCategorical),
    ("vector", mcbn.VectorScaling),
    ("isotonic", mcbn.Isotonic),
    ("variance", mcbn.VarianceScaling),
]


def scans(seed, *, first=0, patients=30, method="net", real=False):
    """Predictions of six scans of each patient, in a column of whom each scan is."""
    generator = torch.Generator().manual_seed(seed)
    patient = torch.arange(first, first + patients).repeat_interleave(6)
    hard = torch.randn(patients, generator=generator).double().repeat_interleave(6)
    if real:
        means = torch.randn(8, len(patient), generator=generator).double() * 0.3
        targets = means.mean(0) + 2 * hard
        predictive = mcbn.Gaussian(1.0).summarize(means)
    else:
        logits = 1.5 * torch.randn(1, len(patient), 3, generator=generator).double()
        noise = torch.randn(logits.shape[1:], generator=generator).double()
        targets = (logits[0] + 2 * hard[:, None] * noise).argmax(1)
        predictive = mcbn.Categorical(outputs="logits").summarize(logits, keep_draws=True)
    columns = {"patient": np.array([f"p{k}" for k in patient.tolist()])}
    return Predictions(method, predictive, targets, "scans", columns=columns)


def patients_of(predictions):
    return predictions.columns["patient"].tolist()


@pytest.mark.parametrize(("by", "method"), FITS, ids=[each[0] for each in FITS])
def test_every_fit_refuses_the_patients_that_it_was_fitted_on(by, method):
    test, held = (scans(0, real=by == "variance"), scans(1, first=29, real=by == "variance"))
    # The prior of a temperature counts patients, so the fits differ by it.
    options = {"prior": 0.0} if by.startswith("temperature") else {}
    fit = method.fit(held.scored, held.targets, group=patients_of(held), **options)
    with pytest.raises(ValueError, match="one side only, got 'p29' in the held-out examples"):
        fit(test.scored, group=patients_of(test))
    others = [f"q{k}" for k in range(180)]
    grouped, plain = (
        fit(test.scored, group=others),
        method.fit(held.scored, held.targets, **options),
    )
    values = [each.mean if by == "variance" else each.log_probabilities
              for each in (grouped, plain(test.scored))]  # fmt: skip
    assert torch.equal(*values)
    assert method.from_dict(fit.to_dict()) == fit
    if options:
        assert (fit.labels, plain.labels) == (30, 180)
        plain = replace(plain, labels=30)
    assert fit == plain
    with pytest.raises(ValueError, match="a group for each of 180 examples, got 1 values"):
        method.fit(held.scored, held.targets, group=["p"])


@pytest.mark.parametrize("real", [False, True])
def test_sets_are_those_of_groups(real):
    test, held = scans(0, real=real), scans(1, first=30, real=real)
    sides = Sides.of_column("patient", [test], [held])
    plain, conformal = set_coverages([test], [held], level=0.8, sides=sides)
    method = mcbn.ConformalIntervals if real else mcbn.ConformalSets
    fit = method.fit(held.scored, held.targets, level=0.8, group=patients_of(held))
    expected = fit(test.scored).coverage(test.targets, group=patients_of(test))
    assert conformal.coverage == expected
    assert (plain.groups, conformal.groups) == (30, 30)
    alone = set_coverages([test], [held], level=0.8)
    assert alone[0].groups is None
    # All patients have as many scans: the same share, of which less is known.
    assert plain.coverage.value == pytest.approx(alone[0].coverage.value)
    assert plain.coverage.low < alone[0].coverage.low


@pytest.mark.parametrize("by", [each[0] for each in FITS])
def test_a_patient_on_both_sides_is_refused_before_any_fit(by):
    real = by == "variance"
    test, held = scans(0, real=real), scans(1, first=29, real=real)
    sides = Sides.of_column("patient", [test], [held])
    assert fitted([test], [held], by)  # nothing is known of patients
    for call in (lambda: fitted([test], [held], by, sides=sides),
                 lambda: set_coverages([test], [held], sides=sides)):  # fmt: skip
        with pytest.raises(
            ValueError, match="got 'p29' in the held-out predictions by 'net' and in those to be"
        ):
            call()


def test_a_report_takes_the_name_of_the_column():
    test, held = scans(0), scans(1, first=30)
    far = scans(2, first=60)
    report = mcbn.Report.from_predictions(
        [test], held_out=[held], outside=[far], group="patient", resamples=20
    )
    numbers = report.to_dict()
    sides = Sides.of_column("patient", [test], [held])
    expected = set_coverages([test], [held], sides=sides)[1]
    assert numbers["sets"]["net"]["conformal"]["coverage"]["low"] == expected.coverage.low
    assert "mean over groups" in report.to_html()
    both = mcbn.out_of_distribution(
        test.scored, far.scored, uncertainty="entropy", resamples=20,
        inside_group=patients_of(test), outside_group=patients_of(far),
    )["auroc_out_of_distribution"]  # fmt: skip
    found = numbers["comparison"]["methods"]["net"]["outside"]["scans"]
    assert found["by"]["entropy"]["auroc_out_of_distribution"]["low"] == both.low
    given = mcbn.Report.from_predictions([test], group=patients_of(test), resamples=20)
    named = mcbn.Report.from_predictions([test], group="patient", resamples=20)
    assert given.to_dict() == named.to_dict()


def test_groups_whose_rows_are_not_known_beside_held_out_ones_are_refused():
    test, held = scans(0), scans(1, first=30)
    options = {"held_out": [held], "resamples": 5}
    with pytest.raises(ValueError, match="expected group to be the name of a column"):
        mcbn.Report.from_predictions([test], group=patients_of(test), **options)
    with pytest.raises(ValueError, match="a column 'patent' in the predictions by 'net'"):
        mcbn.Report.from_predictions([test], group="patent", **options)
    held.columns.clear()
    with pytest.raises(ValueError, match="'patient' in the held-out predictions by 'net', got no"):
        mcbn.Report.from_predictions([test], group="patient", **options)


def test_methods_with_rows_in_another_order_are_of_the_same_patients():
    test, held = scans(0), scans(1, first=30)
    order = torch.randperm(180, generator=torch.Generator().manual_seed(0))
    # A patient of 100 scans and 80 of one each, so that it matters which scans are whose.
    patient = np.array([f"q{max(k, 99)}" for k in range(180)])
    columns = {"patient": patient, "id": np.array([str(k) for k in range(180)])}
    first = Predictions("net", test.predictive, test.targets, "scans", columns=columns)
    turned = mcbn.Categorical(outputs="logits").summarize(test.predictive.draws[:, order])
    other = Predictions(
        "twin", turned, test.targets[order], "scans",
        columns={name: values[order.numpy()] for name, values in columns.items()},
    )  # fmt: skip
    twin = Predictions("twin", held.predictive, held.targets, "scans", columns=held.columns)
    sets = mcbn.Report.from_predictions(
        [first, other], held_out=[held, twin], group="patient", resamples=5
    ).to_dict()["sets"]
    for rule in ("as predicted", "conformal"):
        one, two = (sets[name][rule]["coverage"] for name in ("net", "twin"))
        assert two == pytest.approx(one)


# The command line


def write_scans(path, predictions):
    probabilities = predictions.predictive.probabilities.tolist()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["p_0", "p_1", "p_2", "label", "patient"])
        rows = zip(probabilities, predictions.targets.tolist(), patients_of(predictions),
                   strict=True)  # fmt: skip
        writer.writerows([*each, target, patient] for each, target, patient in rows)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, made in (("net", scans(0)), ("held", scans(1, first=30)), ("far", scans(2, first=60)),
                       ("mixed", scans(3, first=29))):  # fmt: skip
        write_scans(tmp_path / f"{name}.csv", made)
    return tmp_path


def test_groups_are_on_one_side_on_the_command_line(folder, capsys):
    line = "report net.csv --group patient --resamples 5"
    run(f"{line} --held-out held.csv --recalibrate temperature --outside far.csv")
    numbers = json.loads((folder / "report" / "report.json").read_text())
    sides = Sides.of_column("patient", [scans(0)], [scans(1, first=30)])
    expected = set_coverages([scans(0)], [scans(1, first=30)], sides=sides)[1]
    found = numbers["sets"]["net"]["conformal"]
    assert found["groups"] == 30
    assert found["coverage"]["low"] == pytest.approx(expected.coverage.low)
    line += " --out other"
    said = failing(f"{line} --held-out mixed.csv", capsys)
    assert "'p29' in the held-out predictions by 'net'" in said
    (folder / "bare.csv").write_text("p_0,p_1,p_2,label\n0.2,0.3,0.5,1\n0.5,0.3,0.2,1\n")
    said = failing(f"{line} --held-out bare.csv", capsys)
    assert "expected a column 'patient' in bare.csv, got none" in said


@pytest.mark.parametrize("by", ["temperature", "temperature-of-average"])
def test_a_temperature_for_new_patients_counts_those_held_out(by):
    test, held = scans(0), scans(1, first=30)
    sides = Sides.of_column("patient", [test], [held])
    fit = fitted([test], [held], by, sides=sides)["net"]
    assert fit == mcbn.TemperatureScaling.fit(held.scored, held.targets, group=patients_of(held))
    assert fit.labels == 30
    assert fitted([test], [held], by)["net"].labels == 180
