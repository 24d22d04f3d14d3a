"""SVG as matplotlib writes it, made small: what is drawn, in the colours of the page.

Lines of one style are one path, coordinates are rounded to what can be seen, and what is not
visible is left out. What a series draws stands in groups with its index, so that it can be hidden.
"""

import html
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from xml.etree import ElementTree

SERIES = "series-"  # what the ids of the artists of a series begin with
PER_UNIT = 10  # coordinates are whole tenths of a point
SEGMENT = re.compile(r"([A-Za-z])([^A-Za-z]*)")
# What elements have without saying so, here or by the outermost element.
USUAL = {
    "stroke-linecap": "butt", "stroke-linejoin": "round", "stroke-width": "1", "opacity": "1",
    "stroke-dashoffset": "0", "text-anchor": "start", "stroke-miterlimit": "4",
}  # fmt: skip

Style = tuple[tuple[str, str], ...]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shape:
    """One visible element.

    Attributes:
        tag: "path", "use" or "text".
        style: attributes that say how it looks.
        content: coordinates of a path, place of a marker, or text.
        clip: the frame that it is cut at, if it reaches beyond it.
        series: index of its series, or nothing.
    """

    tag: str
    style: Style
    content: str
    clip: Box | None = None
    series: str = ""


def compacted(text: str, *, name: str, label: str, colors: Mapping[str, str], size: float,
              extra: str = "") -> str:  # fmt: skip
    """An SVG of matplotlib as a small one for a page.

    Args:
        text: what matplotlib wrote.
        name: prefix of every id, unique on the page.
        label: what the figure shows, for screen readers; any text.
        colors: what stands on the page for each colour.
        size: of letters, in points.
        extra: further attributes of the outermost element.
    """
    root = ElementTree.fromstring(text)  # noqa: S314 - our own text
    markers: dict[tuple[str, Style], str] = {}
    shapes = _merged(_Reader(root, colors, f"{size:g}px").shapes())
    body = "".join(_groups(shapes, name, markers))
    marks = "".join(
        f'<path id="{mark}" d="{path}"{_attributes(style)}/>'
        for (path, style), mark in markers.items()
    )
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" viewBox="{root.get("viewBox", "")}" '
        f'font-size="{size:g}" font-family="var(--figure-font)" fill="none" '
        f'stroke-linejoin="round"{extra}>'
        f"{f'<defs>{marks}</defs>' if marks else ''}{body}</svg>"
    )


@dataclass(frozen=True)
class _Reader:
    """The visible elements of an SVG of matplotlib."""

    root: ElementTree.Element
    colors: Mapping[str, str]
    letters: str

    def shapes(self) -> Iterator[Shape]:
        """In the order in which they are drawn."""
        known = {each.get("id", ""): each for each in self.root.iter() if each.get("id")}
        uses: dict[str, int] = {}
        for each in self.root.iter():
            if _tag(each) == "use":
                uses[_reference(each)] = uses.get(_reference(each), 0) + 1
        yield from self._within(self.root, known, uses, None, "")

    def _within(
        self,
        parent: ElementTree.Element,
        known: Mapping[str, ElementTree.Element],
        uses: Mapping[str, int],
        clip: Box | None,
        series: str,
    ) -> Iterator[Shape]:
        for each in parent:
            tag = _tag(each)
            cut = _frame(each, known) or clip
            if tag == "g":
                found = each.get("id", "")
                inner = found.removeprefix(SERIES) if found.startswith(SERIES) else series
                yield from self._within(each, known, uses, cut, inner)
            elif tag == "path" and (path := _points(each.get("d", ""))):
                yield from self._path(path, self._style(each), cut, series)
            elif tag == "use":
                yield from self._use(each, known[_reference(each)], uses, cut, series)
            elif tag == "text":
                place = "".join(f' {name}="{_rounded(each.get(name, "0"))}"' for name in "xy")
                turn = re.match(r"rotate\((-?[\d.]+)", each.get("transform", ""))
                if turn and float(turn[1]):
                    x, y = (_rounded(each.get(name, "0")) for name in "xy")
                    place += f' transform="rotate({float(turn[1]):g} {x} {y})"'
                content = f"{place}\n{html.escape(each.text or '')}"
                yield Shape("text", self._style(each), content, None, series)

    def _use(
        self,
        each: ElementTree.Element,
        mark: ElementTree.Element,
        uses: Mapping[str, int],
        clip: Box | None,
        series: str,
    ) -> Iterator[Shape]:
        """A path that is drawn somewhere: as a path of its own, but for filled markers."""
        x, y = float(each.get("x", 0)), float(each.get("y", 0))
        style = self._style(each)
        path = _points(mark.get("d", ""))
        if dict(style).get("fill") and uses[_reference(each)] > 1 and len(path) > 2:
            inside = clip is None or _is_inside([("M", [x, y])], clip, 0.5)
            # A marker is drawn whole or not at all, not cut in half by the frame.
            if inside:
                content = f"{_written(path)}\n{_rounded(str(x))} {_rounded(str(y))}"
                yield Shape("use", style, content, None, series)
            return
        moved = [(command, [n + (x, y)[i % 2] for i, n in enumerate(numbers)])
                 for command, numbers in path]  # fmt: skip
        if len(path) < 3:  # a tick, which has no inside
            style = tuple(pair for pair in style if pair[0] != "fill")
        yield from self._path(moved, style, clip, series)

    def _path(
        self, path: list[tuple[str, list[float]]], style: Style, clip: Box | None, series: str
    ) -> Iterator[Shape]:
        if not {"fill", "stroke"} & set(dict(style)):
            return
        cut = None if clip is None or _is_inside(path, clip, 1.0) else clip
        yield Shape("path", style, _written(path), cut, series)

    def _style(self, each: ElementTree.Element) -> Style:
        """The attributes that are not the usual ones, with the colours of the page."""
        pairs = (part.split(":", 1) for part in each.get("style", "").split(";") if ":" in part)
        found = {key.strip(): value.strip() for key, value in pairs}
        if _tag(each) != "text":
            found = {"fill": "#000000", **found}
        kept = {}
        for key, value in found.items():
            plain = key in ("font-family", "font-style") or value == USUAL.get(key)
            if plain or value in ("none", self.letters):
                continue
            text = self.colors.get(value, value)
            kept[key] = ",".join(text.replace(",", " ").split()) if "dash" in key else text
        if "stroke" not in kept:
            kept = {key: value for key, value in kept.items() if not key.startswith("stroke")}
        return tuple(sorted(kept.items()))


def _merged(shapes: Iterable[Shape]) -> list[Shape]:
    """Shapes with the lines of one style, such as those of the grid, joined into one path.

    Text comes last, by style, so that nothing covers it.
    """
    merged: dict[object, Shape] = {}
    for index, shape in enumerate(shapes):
        # Where lines are translucent, or filled, it matters which of them are one path.
        style = dict(shape.style)
        is_line = shape.tag == "path" and not {"fill", "opacity", "stroke-opacity"} & set(style)
        key = (shape.style, shape.clip, shape.series) if is_line else index
        if key in merged:
            merged[key] = replace(shape, content=merged[key].content + shape.content)
        else:
            merged[key] = shape
    return sorted(merged.values(), key=lambda shape: (shape.tag == "text", shape.tag == "text"
                                                      and (shape.series, shape.style)))  # fmt: skip


def _groups(
    shapes: Sequence[Shape], name: str, markers: dict[tuple[str, Style], str]
) -> Iterator[str]:
    """Neighbours of one series and one frame together, with what they share said once."""
    frames: dict[Box, str] = {}
    for (clip, series), each in itertools.groupby(shapes, lambda s: (s.clip, s.series)):
        attributes = f' data-series="{series}"' if series else ""
        if clip is not None:
            if clip not in frames:
                frames[clip] = f"{name}-frame-{len(frames)}"
                x, y, width, height = clip
                yield (f'<clipPath id="{frames[clip]}"><rect x="{x:g}" y="{y:g}" '
                       f'width="{width:g}" height="{height:g}"/></clipPath>')  # fmt: skip
            attributes += f' clip-path="url(#{frames[clip]})"'
        text = "".join(_alike(list(each), name, markers))
        yield f"<g{attributes}>{text}</g>" if attributes else text


def _alike(
    shapes: Sequence[Shape], name: str, markers: dict[tuple[str, Style], str]
) -> Iterator[str]:
    for (tag, style), each in itertools.groupby(shapes, lambda s: (s.tag, s.style)):
        contents = [shape.content for shape in each]
        if tag == "path":
            yield "".join(f'<path d="{content}"{_attributes(style)}/>' for content in contents)
            continue
        if tag == "use":
            inner = []
            for content in contents:
                path, place = content.split("\n")
                mark = markers.setdefault((path, ()), f"{name}-{len(markers)}")
                x, y = place.split()
                inner.append(f'<use href="#{mark}" x="{x}" y="{y}"/>')
        else:
            inner = ["<text{}>{}</text>".format(*content.split("\n", 1)) for content in contents]
        yield f"<g{_attributes(style)}>{''.join(inner)}</g>"


def _attributes(style: Style) -> str:
    return "".join(f' {key}="{html.escape(value)}"' for key, value in style)


def _tag(each: ElementTree.Element) -> str:
    return each.tag.rpartition("}")[2]


def _reference(each: ElementTree.Element) -> str:
    return each.get("{http://www.w3.org/1999/xlink}href", "").removeprefix("#")


def _frame(each: ElementTree.Element, known: Mapping[str, ElementTree.Element]) -> Box | None:
    """The rectangle that an element is clipped by."""
    found = re.match(r"url\(#(.*)\)", each.get("clip-path", ""))
    if not found:
        return None
    x, y, width, height = (
        round(float(known[found[1]][0].get(side, 0)), 1) for side in ("x", "y", "width", "height")
    )
    return x, y, width, height


def _points(text: str) -> list[tuple[str, list[float]]]:
    return [(command, [float(n) for n in rest.split()]) for command, rest in SEGMENT.findall(text)]


def _is_inside(path: Sequence[tuple[str, list[float]]], box: Box, margin: float) -> bool:
    left, top, width, height = box
    numbers = [numbers for _, numbers in path]
    return all(
        left - margin <= x <= left + width + margin for each in numbers for x in each[::2]
    ) and all(top - margin <= y <= top + height + margin for each in numbers for y in each[1::2])


def _rounded(text: str) -> str:
    return _number(round(PER_UNIT * float(text)))


def _number(units: int) -> str:
    """A coordinate of so many units, as short as it can be written."""
    text = f"{units / PER_UNIT:g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _written(path: Sequence[tuple[str, list[float]]]) -> str:
    """Coordinates of a path relative to the point before, without sums of rounding errors."""
    parts: list[str] = []
    at = start = (0, 0)
    last = ""
    for command, numbers in path:
        if command in "zZ":
            parts.append("z")
            at, last = start, "z"
            continue
        units = [round(PER_UNIT * n) for n in numbers]
        steps = [n - at[i % 2] for i, n in enumerate(units)]
        letter, shown = command.lower(), steps
        if command == "M":
            letter, shown = "M", units
        elif command == "L" and steps == [0, 0] and last not in "M":
            continue  # a point that is where the last one was cannot be seen
        elif command == "L" and 0 in steps:
            letter, shown = ("h", steps[:1]) if steps[1] == 0 else ("v", steps[1:])
        words = [_number(n) for n in shown]
        joined = words[0] + "".join(w if w.startswith("-") else f" {w}" for w in words[1:])
        repeats = letter == last and letter != "M"
        parts.append(joined if repeats and joined.startswith("-")
                     else f" {joined}" if repeats else letter + joined)  # fmt: skip
        at, last = (units[-2], units[-1]), letter
        start = at if command == "M" else start
    return "".join(parts)
