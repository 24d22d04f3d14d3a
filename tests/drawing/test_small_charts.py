"""Small charts have the numbers that were given, at their places, and nothing that is not text."""

import html
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcbn.drawing import small_charts
from mcbn.drawing.small_charts import (
    SmallCurve,
    StripRow,
    interval_strip,
    small_histogram,
    small_reliability,
    small_risk_coverage,
    strip_limits,
)

HOSTILE = "</title></svg><script>x</script>\"'&<!-- \x00"
ROWS = [
    StripRow("Plain", 0.87, 0.85, 0.9, 0),
    StripRow("MCBN", 0.92, 0.9, 0.94, 1),
    StripRow("Ensemble", 0.95, math.nan, math.nan, 4),
]
CURVES = [
    SmallCurve("Plain", (0.3, 0.6, 0.9), (0.2, 0.5, 0.7), 0, (1, 4, 16), "+5.1 points"),
    SmallCurve("MCBN", (0.3, 0.6, 1.0), (0.3, 0.6, 0.98), 1, (2, 8, 32)),
]
COVERAGE = tuple(k / 20 for k in range(1, 21))
RISKS = [
    SmallCurve("Plain", COVERAGE, tuple(0.2 * x**2 for x in COVERAGE), 0),
    SmallCurve("MCBN", COVERAGE, tuple(0.1 * x**2 for x in COVERAGE), 1),
]


def parts(chart, tag):
    return [each for each in ElementTree.fromstring(str(chart)).iter() if each.tag == tag]


def numbers(elements, *names):
    return np.array([[float(each.get(name)) for name in names] for each in elements])


def points(element):
    return np.array([[float(n) for n in pair.split(",")] for pair in element.get("points").split()])


def is_affine(places, values):
    """Whether places are a linear map of values, to the rounding of coordinates."""
    fit = np.polynomial.Polynomial.fit(values, places, 1)
    return np.abs(fit(np.asarray(values)) - places).max() <= 0.011


def test_a_strip_has_a_dot_and_an_interval_where_each_row_says():
    chart = interval_strip(ROWS, label="accuracy")
    dots = numbers(parts(chart, "circle"), "cx", "cy")
    lines = numbers(parts(chart, "line"), "x1", "x2", "y1", "y2")
    places = [*dots[:, 0], *lines[:, 0], *lines[:, 1]]
    assert is_affine(places, [0.87, 0.92, 0.95, 0.85, 0.9, 0.9, 0.94])
    np.testing.assert_array_equal(lines[:, 2], dots[:2, 1])
    np.testing.assert_array_equal(lines[:, 3], dots[:2, 1])
    assert (np.diff(dots[:, 1]) > 0).all()
    assert [each.get("fill") for each in parts(chart, "circle")] == [
        "var(--series-0)", "var(--series-1)", "var(--series-4)",
    ]  # fmt: skip
    assert [each.text for each in parts(chart, "title")] == [
        "Plain: 0.870 [0.850, 0.900]", "MCBN: 0.920 [0.900, 0.940]", "Ensemble: 0.950",
    ]  # fmt: skip


def test_strips_of_several_cells_share_their_axis():
    limits = strip_limits(ROWS, zero=True)
    alone = [interval_strip([row], label="", limits=limits, zero=True) for row in ROWS]
    dots = [numbers(parts(chart, "circle"), "cx")[0, 0] for chart in alone]
    zeros = [numbers(parts(chart, "line"), "x1")[0, 0] for chart in alone]
    assert is_affine([*dots, zeros[0]], [0.87, 0.92, 0.95, 0.0])
    assert len(set(zeros)) == 1
    assert limits[0] < 0 < 0.95 < limits[1]


def test_an_axis_holds_every_end_that_is_known():
    wide = [StripRow("a", 2.0, -math.inf, 5.0), StripRow("b", math.nan, math.nan, math.nan)]
    low, high = strip_limits(wide)
    assert low < 2.0 < 5.0 < high
    assert strip_limits([]) == pytest.approx((-0.04, 1.04))
    only = strip_limits([StripRow("a", 3.0)])
    assert only[0] < 3.0 < only[1]


def test_what_is_not_known_is_not_drawn_and_what_is_beyond_the_axis_ends_with_it():
    chart = interval_strip([StripRow("a", math.nan), StripRow("b", 1.0, -math.inf, 2.0),
                            StripRow("c", 1.5)], label="")  # fmt: skip
    assert len(parts(chart, "circle")) == 2
    assert "nan" not in chart
    (line,) = parts(chart, "line")
    assert float(line.get("x1")) == 6.0


@pytest.mark.parametrize("spread", [0.0, 0.001, 0.3, 1.0])
@pytest.mark.parametrize("start", [0.0, 0.5, 0.999])
def test_the_numbers_below_a_strip_are_its_ends_inside_the_chart_and_apart(spread, start):
    rows = [StripRow(str(k), start + k * spread) for k in range(2)]
    texts = parts(interval_strip(rows, label="", limits=(0.0, 2.0), ticks=True), "text")
    assert [each.text for each in texts] == [
        small_charts.glossary.significant(row.value) for row in rows
    ]
    left, right = (float(each.get("x")) for each in texts)
    length = small_charts.LETTER * len(texts[0].text)
    assert length <= left < right - 7
    assert right + length <= small_charts.WIDTH


def test_a_reliability_diagram_has_each_bin_at_its_place_by_area():
    chart = small_reliability(CURVES, label="")
    dots = numbers(parts(chart, "circle"), "cx", "cy", "r")
    diagonal = numbers(parts(chart, "line"), "x1", "x2", "y1", "y2")[0]
    assert is_affine([*dots[:, 0], *diagonal[:2]], [0.3, 0.6, 0.9, 0.3, 0.6, 1.0, 0, 1])
    assert is_affine([*dots[:, 1], *diagonal[2:]], [0.2, 0.5, 0.7, 0.3, 0.6, 0.98, 0, 1])
    assert dots[0, 1] > dots[1, 1]  # upwards
    assert is_affine(dots[:3, 2], np.sqrt([1 / 16, 4 / 16, 1.0]))
    lines = [points(each) for each in parts(chart, "polyline")]
    np.testing.assert_array_equal(lines[0], dots[:3, :2])
    np.testing.assert_array_equal(lines[1], dots[3:, :2])
    assert [each.text for each in parts(chart, "text")] == ["Plain", "+5.1 points", "MCBN"]
    assert parts(chart, "title")[2].text == "Plain: confidence 0.900, accuracy 0.700"


def test_risks_are_drawn_against_coverage_and_marked_at_90_percent():
    chart = small_risk_coverage(RISKS, label="")
    first, second = (points(each) for each in parts(chart, "polyline"))
    assert is_affine([*first[:, 0], *second[:, 0]], 2 * COVERAGE)
    assert is_affine([*first[:, 1], *second[:, 1]], [*RISKS[0].y, *RISKS[1].y])
    dots = numbers(parts(chart, "circle"), "cx", "cy")
    np.testing.assert_array_equal(dots, [first[17], second[17]])
    mark = numbers(parts(chart, "line"), "x1", "x2")[1]
    assert set(mark) == {first[17, 0]}
    assert parts(chart, "title")[0].text == "Plain: 16.2% of errors at 90% answered"
    assert parts(chart, "text")[0].text == "90% answered"


def test_long_curves_are_thinned_but_marked_where_they_are():
    x = np.arange(1, 5001) / 5000
    chart = small_risk_coverage([SmallCurve("a", x.tolist(), (x / 7).tolist())], label="")
    (line,) = parts(chart, "polyline")
    assert len(points(line)) == 80
    assert parts(chart, "title")[0].text == f"a: {0.9 / 7:.1%} of errors at 90% answered"


def test_bars_are_as_high_as_their_values():
    values = (0.5, 1.5, 0.0, 1.0)
    chart = small_histogram(values, label="", band=(0.8, 1.2), level=1.0)
    band, *bars = parts(chart, "rect")
    boxes = numbers(bars, "x", "y", "width", "height")
    assert is_affine(boxes[:, 3], values)
    assert boxes[2, 3] == 0
    np.testing.assert_allclose(boxes[:, 1] + boxes[:, 3], boxes[0, 1] + boxes[0, 3], atol=0.02)
    (line,) = parts(chart, "line")
    assert float(line.get("y1")) == pytest.approx(boxes[3, 1])
    assert float(band.get("height")) == pytest.approx(boxes[3, 3] * 0.4, abs=0.02)
    np.testing.assert_allclose(np.diff(boxes[:, 0]), (boxes[0, 2] + 1), atol=0.02)


@pytest.mark.parametrize(
    "chart",
    [
        interval_strip([StripRow(HOSTILE, 1.0, 0.0, 2.0)], label=HOSTILE),
        interval_strip([StripRow(HOSTILE, 1.0)], label=HOSTILE, ticks=True, write=lambda _: "<b>"),
        small_reliability([SmallCurve(HOSTILE, (0.5,), (0.5,), 0, (3,), HOSTILE)], label=HOSTILE),
        small_risk_coverage([SmallCurve(HOSTILE, (1.0,), (0.5,))], label=HOSTILE),
        small_histogram((1.0,), label=HOSTILE),
    ],
)
def test_names_are_text_whatever_they_say(chart):
    root = ElementTree.fromstring(str(chart).replace("\x00", "?"))
    assert root.get("aria-label").startswith("</title></svg><script>")
    assert root.get("role") == "img"
    assert not re.findall(r"<(?!/?(svg|g|line|rect|circle|polyline|text|title)\b)", chart)
    if titles := [each.text for each in root.iter("title") if each.text.startswith("<")]:
        assert html.escape(titles[0][:12]) in chart


@pytest.mark.parametrize("make", [small_reliability, small_risk_coverage])
def test_no_curves_and_empty_curves_are_an_empty_chart(make):
    for curves in ([], [SmallCurve("a", (), ())], [SmallCurve("a", (math.nan,), (0.5,))]):
        chart = make(curves, label="")
        assert not parts(chart, "circle")
        assert "nan" not in chart
    assert not parts(small_histogram((math.nan,), label=""), "rect")
    assert not parts(interval_strip([], label=""), "circle")


ANY = st.floats(-1e300, 1e300) | st.sampled_from((math.nan, math.inf, -math.inf))


@given(st.lists(ANY, min_size=3, max_size=9))
def test_any_numbers_make_a_chart_inside_its_frame(values):
    """Also where ends are the wrong way around, infinite or not known."""
    rows = [StripRow("a", *values[k : k + 3]) for k in range(0, len(values) - 2, 3)]
    curves = [SmallCurve("a", values, values[::-1])]
    charts = [interval_strip(rows, label="", zero=True), small_reliability(curves, label=""),
              small_risk_coverage(curves, label=""), small_histogram(values, label="")]  # fmt: skip
    for chart in charts:
        root = ElementTree.fromstring(str(chart))
        width, height = map(float, root.get("viewBox").split()[2:])
        for each in root.iter():
            for name, value in each.attrib.items():
                if name in ("x", "x1", "x2", "cx"):
                    assert 0 <= float(value) <= width
                if name in ("y", "y1", "y2", "cy"):
                    assert 0 <= float(value) <= height
