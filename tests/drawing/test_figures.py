import math
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from mcbn.drawing import figures
from mcbn.drawing.figures import Curve
from mcbn.drawing.rendering import render
from mcbn.evaluation.detection import risk_coverage
from mcbn.evaluation.reliability import Reliability

CONFIDENCE = torch.linspace(0.05, 1, 40, dtype=torch.float64)
CORRECT = torch.arange(40) % 3 > 0
NAN = (math.nan,) * 3


def rendered(name="a", label="what it shows"):
    return render(
        lambda figure: figures.draw_reliability(
            Reliability.from_predictions(CONFIDENCE, CORRECT), figure.subplots()
        ),
        name=name,
        label=label,
        size=(3.0, 3.0),
    )


def test_reliability_draws_every_bin_once():
    reliability = Reliability.from_predictions(CONFIDENCE, CORRECT, bins=5)
    ax = figures.draw_reliability(reliability, Figure().subplots())
    intervals, points = ax.collections
    expected = torch.stack([reliability.confidence, reliability.accuracy], 1)
    np.testing.assert_allclose(points.get_offsets(), expected)
    ends = np.array(intervals.get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, torch.stack(reliability.interval(), 1), atol=1e-12)
    assert len(ax.patches) == 5
    counts = figures.draw_counts(reliability, Figure().subplots())
    tops = [bar.get_y() + bar.get_height() for bar in counts.patches]
    np.testing.assert_allclose(tops, reliability.counts)


def test_empty_bins_are_not_drawn():
    reliability = Reliability.from_predictions(CONFIDENCE[-3:], CORRECT[-3:])
    ax = figures.draw_reliability(reliability, Figure().subplots())
    assert len(ax.patches) == int((reliability.counts > 0).sum())
    figures.draw_counts(reliability, Figure().subplots())


def test_risk_coverage_keeps_both_ends_of_long_curves():
    count = 5000
    curve = risk_coverage(torch.arange(count) / count, torch.arange(count) % 7 == 0)
    (line,) = figures.draw_risk_coverage([curve], Figure().subplots()).lines
    assert len(line.get_xdata()) == figures.MAX_POINTS
    np.testing.assert_allclose(line.get_xdata()[[0, -1]], [1 / count, 1])
    np.testing.assert_allclose(line.get_ydata()[-1], curve.risk[-1])


@pytest.mark.parametrize(("low", "bands"), [((0.5, 1.5, 2.5), 1), (NAN, 0)])
def test_bands_are_drawn_only_where_known(low, bands):
    curve = Curve("a", (1.0, 2.0, 4.0), (1.0, 2.0, 3.0), low, tuple(2 * x for x in low), 0)
    ax = figures.draw_curves([curve], Figure().subplots())
    assert len(ax.collections) == bands
    assert len(figures.draw_levels([curve], Figure().subplots()).patches) == bands


def test_axes_write_plain_numbers():
    ax = figures.doubling_axis((2, 4, 8), Figure().subplots(), label="M")
    figures.value_axis((0.02, 3), ax, label="nats", log=True)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["2", "4", "8"]
    ax.figure.draw_without_rendering()
    assert "0.05" not in (ax.get_xlabel(), ax.get_ylabel())
    assert "0.1" in [text.get_text() for text in ax.get_yticklabels()]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((2, 4, 8, 16, 32, 64), [2, 4, 8, 16, 32, 64]),
        ((2, 8, 32, 128, 512, 1024, 2048, 4096), [2, 8, 32, 128, 512, 2048]),
        ((7,), [7]),
    ],
)
def test_crowded_axes_leave_numbers_out(values, shown):
    ax = figures.doubling_axis(values, Figure().subplots(), label="M")
    assert [text.get_text() for text in ax.get_xticklabels()] == [str(value) for value in shown]


def test_heat_map_writes_every_value_and_tints_what_is_known():
    shades = np.array([[0.0, 1.0, math.nan], [0.5, 0.25, 0.75]])
    texts = [["a", "b", "c"], ["d", "e", "f"]]
    ax = figures.draw_heat_map(shades, texts, Figure().subplots())
    assert {(text.get_position(), text.get_text()) for text in ax.texts} == {
        ((column, row), texts[row][column]) for row in range(2) for column in range(3)
    }
    tints = {patch.get_xy(): patch.get_alpha() for patch in ax.patches}
    assert len(tints) == 5
    assert tints[0.5, -0.5] == max(tints.values()) < 0.6
    assert tints[-0.5, -0.5] == min(tints.values())


def test_levels_that_are_not_known_are_not_drawn():
    curve = Curve("a", (0.0,), (math.nan,), (math.nan,), (math.nan,), 0)
    assert len(figures.draw_levels([curve], Figure().subplots()).lines) == 0


def test_svg_is_the_same_each_time_whatever_the_user_set():
    first = rendered()
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": None, "text.color": "red"}):
        before = dict(matplotlib.rcParams)
        assert rendered() == first
        assert dict(matplotlib.rcParams) == before


def test_svg_takes_its_colours_from_the_page():
    text = rendered()
    assert "var(--ink)" in text
    assert "var(--series-0)" in text
    assert not {figures.INK, figures.GRID, *figures.SERIES} & set(text.split("'"))
    assert "#010203" not in text
    assert "http://www.w3.org/1999/02/22-rdf" not in text


def test_svg_ids_and_labels_are_kept_apart_and_escaped():
    """Frames alone have ids: of what would reach beyond them."""

    def beyond(figure):
        ax = figure.subplots()
        ax.plot([0, 1, 2], [0, 9, 0])
        ax.set(xlim=(0, 2), ylim=(0, 1))

    for name in "ab":
        text = render(beyond, name=name, label="", size=(3.0, 3.0))
        assert re.findall(' id="(.*?)"', text) == [f"{name}-frame-0"]
        assert f'clip-path="url(#{name}-frame-0)"' in text
    text = rendered(label='<script>"')
    assert 'aria-label="&lt;script&gt;&quot;"' in text
    assert "<script" not in text


HARD_NAMES = (
    "0", "1.0", "$x_2$ \\frac", 'id="a" href="#b" url(#c)', "'DejaVu Sans', x", "#010203 #0072b2",
    "</text><script>x", "a & b", "北京 \N{GRINNING FACE}", "<!-- -- -->", "tab\tend\x00\ud800",
    "a name that is much too long for the axis of a figure",
)  # fmt: skip


def group_figure(names, size=(3.6, 5.0)):
    ones = tuple(float(k) for k in range(len(names)))
    curves = [
        Curve("m", tuple(range(1, len(names) + 1)), ones, tuple(y - 1 for y in ones), ones, style)
        for style in range(2)
    ]
    return render(
        lambda figure: figures.draw_groups(names, curves, figure.subplots()),
        name="g", label="groups", size=size,
    )  # fmt: skip


def test_groups_are_named_on_their_axis_and_not_numbered():
    """Each name as it is, at the height of its own points, whatever it says."""
    ax = figures.draw_groups(["b", "0", "7"], [Curve("m", (1, 2, 3), *[(0.0, 1.0, 2.0)] * 3, 0)],
                             Figure().subplots())  # fmt: skip
    assert [(text.get_text(), text.get_position()[1]) for text in ax.get_yticklabels()] == [
        ("b", 1), ("0", 2), ("7", 3),
    ]  # fmt: skip
    assert ax.lines[0].get_ydata().tolist() == [1, 2, 3]
    assert ax.get_ylabel() == ""
    texts = {element.text for element in ElementTree.fromstring(group_figure(HARD_NAMES)).iter()}
    assert set(HARD_NAMES[:-2]) <= texts
    assert "tab\N{REPLACEMENT CHARACTER}end" + 2 * "\N{REPLACEMENT CHARACTER}" in texts
    assert "a name that is m\N{HORIZONTAL ELLIPSIS} figure" in texts


def test_the_figure_of_infinite_scores_is_drawn():
    parts = ((1.0, math.inf, -math.inf), (0.5, 0.5, -math.inf), (2.0, math.inf, math.nan))
    curve = Curve("m", (1, 2, 3), *parts, 0)
    text = render(
        lambda figure: figures.draw_groups("abc", [curve], figure.subplots()),
        name="g", label="groups", size=(3.6, 3.0),
    )  # fmt: skip
    assert "nan" not in text.lower()
    assert "inf" not in text.lower()
