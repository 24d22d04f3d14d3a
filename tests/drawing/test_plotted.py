"""The numbers of a figure as CSV and on the page are those drawn, whatever names say."""

import csv
import html
import io
import json
import math
import re
from collections import Counter

import numpy as np
import pytest
import regression_reports
import reports
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic_studies import classification_plan, classification_scores, made_study

import mcbn
from mcbn.drawing.plotted import Plotted, bars_table, csv_text, json_text
from mcbn.report import figure_files, panels, study_panels

HOSTILE = ("</script><script>x</script>", "' onclick='x", "=1+1", 'a,b\n"c"', "&lt;", "\ud800")
STUDY = made_study(classification_plan(), classification_scores)


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_table_has_a_row_per_point_and_the_name_of_its_series():
    rows = read(csv_text([
        Plotted("a", {"x": (1.0, 2.0), "y": (0.1, math.nan)}, ("x", "y")),
        Plotted("b", {"y": (1 / 3,)}, ("", "y"), 1),
    ]))  # fmt: skip
    assert rows == [
        {"series": "a", "x": "1.0", "y": "0.1"},
        {"series": "a", "x": "2.0", "y": ""},
        {"series": "b", "x": "", "y": repr(1 / 3)},
    ]


def test_text_is_no_formula_of_a_spreadsheet_but_numbers_stay_numbers():
    (row,) = read(csv_text([Plotted("=1+1", {"group": ("@x",), "y": (-2.0,)})]))
    assert row == {"series": "'=1+1", "group": "'@x", "y": "-2.0"}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_cannot_leave_the_attribute(name):
    text = json_text([[Plotted(name, {"group": (name,), "y": (1.0,)})]])
    assert not set("<>&'") & set(text)
    (((found, style, place, columns),),) = json.loads(text)
    assert (found, style, place, columns) == (name, 0, [], {"group": [name], "y": [1]})
    (row,) = read(csv_text([Plotted(name, {"y": (1.0,)})]))
    assert row["series"] in (name, f"'{name}")


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True)))
def test_numbers_of_the_page_have_six_digits_or_none(values):
    ((series,),) = json.loads(json_text([[Plotted("a", {"y": values})]]))
    for given_value, found in zip(values, series[3]["y"], strict=True):
        if found is None:
            assert not math.isfinite(float(f"{given_value:.6g}"))
        else:
            assert found == pytest.approx(given_value, rel=1e-5)


def test_bars_have_a_point_in_their_middle():
    table = bars_table("a", np.array([1.0, 100.0, 10000.0]), np.array([0.2, 0.8]), ("u", "share"))
    assert table.columns["u"] == pytest.approx([10.0, 1000.0])
    table = bars_table("a", np.array([0.0, 0.5, 1.0]), np.array([0.2, 0.8]), ("u", "share"))
    assert table.columns["u"] == pytest.approx([0.25, 0.75])


GROUPS = {
    "comparison": reports.report()._figures,
    "regression": regression_reports.report()._figures,
    "study": mcbn.Report.from_study(STUDY)._figures,
}


@pytest.mark.parametrize("name", GROUPS)
def test_every_figure_has_its_numbers_of_equal_length(name):
    for groups in GROUPS[name].values():
        for panel in (panel for group in groups for panel in group.panels):
            if "istances" in panel.label or "criterion" in panel.label:
                continue  # their points are in report.json alone
            assert panel.plotted, panel.label
            for each in panel.plotted:
                lengths = {len(column) for column in each.columns.values()}
                assert len(lengths) == 1, panel.label
                for axis in each.place:
                    assert axis in ("", *each.columns)


def test_numbers_of_a_study_are_those_of_its_curves():
    group = study_panels.score_group(STUDY, "nll")
    for size, panel in zip(STUDY.training_batch_sizes, group.panels, strict=True):
        (mcbn_,) = [each for each in panel.plotted if each.name == "MCBN"]
        values = [STUDY.values("nll", "MCBN", training_batch_size=size, batch_size=m)
                  for m in STUDY.batch_sizes]  # fmt: skip
        means = [np.mean(list(each.values())) for each in values]
        assert mcbn_.columns["NLL (nats)"] == pytest.approx(means)
        assert mcbn_.columns["M"] == STUDY.batch_sizes
        (level,) = [each for each in panel.plotted if each.name == "Deterministic"]
        assert set(level.columns) == {"NLL (nats)", "low", "high"}


def test_numbers_of_the_page_are_those_of_the_files():
    text = reports.report().to_html()
    found = [series for group in re.findall("data-plotted='(.*?)'", text)
             for figure in json.loads(html.unescape(group)) for series in figure]  # fmt: skip
    given_ = [each for groups in GROUPS["comparison"].values() for group in groups
              for panel in group.panels for each in panel.plotted]  # fmt: skip
    # The page shows one of the figures a second time, at its top.
    assert Counter(each.name for each in given_) <= Counter(each[0] for each in found)
    files = figure_files.figure_files(GROUPS["comparison"], ("svg",))
    rows = sum(len(read(file.decode())) for name, file in files.items() if name.endswith(".csv"))
    assert rows == sum(len(next(iter(each.columns.values()))) for each in given_)


@pytest.mark.parametrize("replicates", [1, 2, 10, 11])
def test_few_replicates_are_dots(replicates):
    values = [{(0, seed): float(seed) for seed in range(replicates)}]
    curve = study_panels.curve_of("a", "nll", [4], values, 0)
    assert len(curve.dots[0]) == (replicates if 1 < replicates <= 10 else 0)


def test_a_spread_that_has_vanished_is_left_out_and_its_line_ends():
    values = [{(0, 0): value} for value in (0.1, 0.01, 1e-17)]
    curve = study_panels.curve_of("a", "epistemic_sd", [4, 16, 64], values, 0)
    (kept,) = study_panels.above_noise([curve])
    assert kept.y[:2] == (0.1, 0.01)
    assert math.isnan(kept.y[2])
    assert study_panels.limits_of([kept], log=True)[0] > 1e-3


def test_histograms_begin_with_the_decades_that_hold_all_but_a_thousandth():
    generator = np.random.default_rng(0)
    values = np.exp(generator.normal(np.log(0.1), 0.3, 5000))
    values[:4] = 1e-7  # less than a thousandth
    edges = panels._edges([torch.tensor(values)], "entropy")
    assert edges[-1] == pytest.approx(values.max())
    assert edges[0] > 0.02
    shares = panels._shares(torch.tensor(values), "entropy", edges)
    assert shares.sum() == pytest.approx(1)
    assert (values < edges[0]).mean() <= 0.001
    wide = torch.cat([torch.tensor(values), torch.full((100,), 1e-9).double()])
    low = panels._edges([wide], "entropy")[0]
    assert low == pytest.approx(values.max() / 1e5)
