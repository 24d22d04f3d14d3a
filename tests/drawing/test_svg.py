"""Small SVG draws what matplotlib drew, where it drew it, and says nothing else."""

import itertools
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from mcbn.drawing import figures, svg
from mcbn.drawing.figures import Curve
from mcbn.drawing.margins import text_width, ticks_of
from mcbn.drawing.rendering import render
from mcbn.evaluation.reliability import Reliability
from mcbn.report import study_panels

SIZE = (3.6, 2.9)
NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)")
CURVES = [
    Curve("a", (4.0, 16.0, 64.0), (0.6, 0.4, 0.3), (0.5, 0.35, 0.2), (0.7, 0.45, 0.4), 0,
          ((0.58, 0.62), (0.41,), ())),
    Curve("b", (4.0, 16.0, 64.0), (0.5, math.nan, 0.25), *[(math.nan,) * 3] * 2, 7),
]  # fmt: skip


def rendered(draw, size=SIZE):
    """A figure of one draw call, read back."""
    text = render(lambda figure: draw(figure.subplots()), name="n", label="l", size=size)
    return ElementTree.fromstring(text)


def drawn_curves(ax):
    figures.draw_curves(CURVES, ax)
    figures.doubling_axis((4, 16, 64), ax, label="M")
    figures.value_axis((0.1, 0.8), ax, label="NLL (nats)", log=False)


def corners(path):
    """The absolute points of the lines of a path: an independent reading of relative ones."""
    at, start, points = np.zeros(2), np.zeros(2), []
    for command, rest in re.findall(r"([A-Za-z])([^A-Za-z]*)", path):
        numbers = [float(n) for n in NUMBER.findall(rest)]
        if command == "z":
            at = start.copy()
            continue
        width = {"M": 2, "m": 2, "l": 2, "h": 1, "v": 1, "c": 6, "q": 4}[command]
        for step in itertools.batched(numbers, width) if hasattr(itertools, "batched") else zip(
            *[iter(numbers)] * width, strict=True
        ):  # fmt: skip
            if command == "M":
                at = np.array(step)
            else:
                at = at + {"h": lambda s: (s[0], 0), "v": lambda s: (0, s[0])}.get(
                    command, lambda s: s[-2:]
                )(step)
            if command in "Mm":
                start = at.copy()
            points.append(at.copy())
    return np.array(points)


def places(root, points):
    """Where values lie on a figure, by its `data-frame`."""
    left, right, x0, x1, x_log, bottom, top, y0, y1, y_log = map(
        float, root.get("data-frame").split()
    )

    def share(value, low, high, log):
        value, low, high = (np.log(v) if log else np.asarray(v) for v in (value, low, high))
        return (value - low) / (high - low)

    x, y = np.transpose(points)
    return np.stack([left + share(x, x0, x1, x_log) * (right - left),
                     bottom + share(y, y0, y1, y_log) * (top - bottom)], 1)  # fmt: skip


def of_series(root, style):
    return [path for group in root.iter("g") if group.get("data-series") == str(style)
            for path in group.iter("path")]  # fmt: skip


def test_points_of_a_line_lie_where_its_numbers_are():
    root = rendered(drawn_curves)
    band, line, _, dots = of_series(root, 0)
    wanted = places(root, list(zip(CURVES[0].x, CURVES[0].y, strict=True)))
    np.testing.assert_allclose(corners(line.get("d")), wanted, atol=0.11)
    ends = places(root, [(x, y) for side in (CURVES[0].low, CURVES[0].high)
                         for x, y in zip(CURVES[0].x, side, strict=True)])  # fmt: skip
    for end in ends:
        assert np.abs(corners(band.get("d")) - end).max(1).min() < 0.11
    single = places(root, [(4, 0.58), (4, 0.62), (16, 0.41)])
    np.testing.assert_allclose(corners(dots.get("d"))[::2], single, atol=0.11)
    assert dots.get("stroke-linecap") == "round"


def test_a_value_that_is_not_known_is_a_gap_and_series_have_their_own_groups():
    root = rendered(drawn_curves)
    line, *_ = of_series(root, 7)
    assert len(corners(line.get("d"))) == 2
    assert line.get("d").count("M") + line.get("d").count("m") == 2
    assert {group.get("data-series") for group in root.iter("g")} - {None} == {"0", "7"}


def test_ticks_and_labels_are_those_of_matplotlib():
    """The grid of a page is drawn without matplotlib's ticks, at the places that it gives them."""
    root = rendered(drawn_curves)
    texts = {each.text: (float(each.get("x")), float(each.get("y"))) for each in root.iter("text")}
    assert list(texts)[-5:] == ["4", "16", "64", "M", "NLL (nats)"]
    for x in (4, 16, 64):
        ((wanted, _),) = places(root, [(x, 0.1)])
        assert texts[str(x)][0] == pytest.approx(wanted, abs=0.11)
    heights = [float(name) for name in texts if name.startswith("0.")]
    assert heights == sorted(heights)
    assert len(heights) >= 4
    wanted = places(root, [(4, y) for y in heights])[:, 1] + 0.36 * figures.LETTERS
    np.testing.assert_allclose(
        [texts[name][1] for name in texts if name.startswith("0.")], wanted, atol=0.11
    )
    grid = next(p for p in root.iter("path") if p.get("stroke") == "var(--grid)")
    lines = corners(grid.get("d")).reshape(-1, 2, 2)
    assert len(lines) == 3 + len(heights)


def test_ticks_without_their_artists_are_those_with_them():
    ax = Figure().subplots()
    drawn_curves(ax)
    for axis, labels in ((ax.xaxis, ax.get_xticklabels()), (ax.yaxis, ax.get_yticklabels())):
        low, high = sorted(axis.get_view_interval())
        wanted = [label.get_text() for place, label in zip(axis.get_ticklocs(), labels, strict=True)
                  if low <= place <= high]  # fmt: skip
        assert [text for _, text in ticks_of(axis)] == wanted


def test_what_reaches_beyond_the_frame_is_cut_and_nothing_else_is():
    def beyond(ax):
        ax.plot([0, 1, 2], [0, 90, 0], color=figures.SERIES[0])
        ax.set(xlim=(0, 2), ylim=(0, 1))

    root = rendered(beyond)
    (frame,) = root.iter("clipPath")
    cut = [group for group in root.iter("g") if group.get("clip-path")]
    assert [group.get("clip-path") for group in cut] == [f"url(#{frame.get('id')})"]
    assert not list(rendered(drawn_curves).iter("clipPath"))
    box = [float(frame[0].get(side)) for side in ("x", "y", "width", "height")]
    left, right, *_ = map(float, root.get("data-frame").split())
    assert box[0] == pytest.approx(left, abs=0.11)
    assert box[0] + box[2] == pytest.approx(right, abs=0.11)


def test_bins_of_few_examples_are_faint_and_notes_stand_off_the_points():
    confidence = torch.cat([torch.full((1,), 0.31), torch.full((100,), 0.95)]).double()
    reliability = Reliability.from_predictions(confidence, torch.arange(101) % 2 == 0)
    gap = figures.mean_gap(reliability)
    assert gap == pytest.approx(float(confidence.mean()) - 51 / 101)
    root = rendered(lambda ax: figures.draw_reliability(reliability, ax, notes=("ECE 4.4%", "x")))
    dots = [path for path in root.iter("path") if path.get("stroke-linecap") == "round"]
    assert [dot.get("stroke-opacity") for dot in dots] == ["0.33", None]  # 0.25 + 0.75 / 10
    notes = {each.text: each for each in root.iter("text") if each.text in ("ECE 4.4%", "x")}
    left, right, *_ = map(float, root.get("data-frame").split())
    assert float(notes["ECE 4.4%"].get("x")) < left + 0.1 * (right - left)  # over-confident
    assert float(notes["ECE 4.4%"].get("y")) < float(notes["x"].get("y"))


def test_every_text_is_inside_and_a_figure_is_small():
    text = render(lambda figure: drawn_curves(figure.subplots()), name="n", label="", size=SIZE)
    assert len(text) < 4000
    root = ElementTree.fromstring(text)
    width = float(root.get("viewBox").split()[2])
    for each in root.iter("text"):
        if each.get("transform") is None:
            assert 0 <= float(each.get("x")) <= width
    assert text_width("iii", 10) < text_width("abc", 10) < text_width("WWW", 10)


def test_a_round_marker_is_a_dot_and_an_empty_one_a_circle():
    def draw(ax):
        ax.plot([1, 2], [1, 2], "o", color=figures.SERIES[0], markersize=6)
        ax.plot([1], [2], "o", color=figures.SERIES[1], markersize=6, fillstyle="none")

    root = rendered(draw)
    paths = [path for path in root.iter("path") if "series" in (path.get("stroke") or "")]
    dot, circle = paths
    assert dot.get("stroke-linecap") == "round"
    assert float(dot.get("stroke-width")) == pytest.approx(7)  # its edge is one point wide
    assert "c" in circle.get("d")
    assert circle.get("fill") is None
    np.testing.assert_allclose(
        corners(dot.get("d"))[::2], places(root, [(1, 1), (2, 2)]), atol=0.11
    )


@pytest.mark.parametrize("columns", [3, 7, 8, 12])
@pytest.mark.parametrize("value", [0.3456, 0.00047, 12.34, -2.5])
def test_cells_of_a_heat_map_all_have_their_numbers_or_none_has(columns, value):
    texts = study_panels._cell_texts(np.full((2, columns), value))
    words = {text for row in texts for text in row}
    assert len(words) == 1
    (word,) = words
    assert text_width(word, figures.LETTERS) < 210 / columns
    if word:
        found = float(word.replace("\N{MINUS SIGN}", "-"))
        assert found == pytest.approx(value, rel=0.25)  # a single digit, at least
    assert word or columns > 7


def test_a_closed_part_ends_where_it_began():
    square = (("M", (1.0, 1.0)), ("L", (3.0, 1.0)), ("L", (3.0, 4.0)), ("z", ()))
    assert svg._written((*square, ("M", (6.0, 2.0)), ("L", (7.0, 3.0)))) == "M1 1h2v3zm5 1l1 1"


def test_ticks_at_the_ends_of_an_axis_are_drawn():
    ax = Figure().subplots()
    ax.set(xlim=(0, 1))
    assert [text for _, text in ticks_of(ax.xaxis)] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]


STEP = st.tuples(st.integers(-3000, 3000), st.integers(-3000, 3000))


@given(st.lists(st.lists(STEP, min_size=1, max_size=6), min_size=1, max_size=4))
def test_relative_coordinates_do_not_add_up_their_rounding(parts):
    path = tuple(
        ("L" if index else "M", (x / 7, y / 7))
        for part in parts
        for index, (x, y) in enumerate(part)
    )
    written = corners(svg._written(path))
    wanted = [np.round(np.array(numbers), 1) for _, numbers in path]
    # Points that do not move are left out, but for the second of a line.
    kept = [w for w in wanted if np.abs(written - w).max(1).min() < 1e-6]
    assert len(kept) == len(wanted)
    np.testing.assert_allclose(written[-1], wanted[-1], atol=1e-6)
