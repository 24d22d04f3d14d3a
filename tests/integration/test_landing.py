"""The figure of the README and of the landing page: its numbers are results, and it can be read."""

import itertools
import json
import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import CHROMIUM, browser  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "_static"
NAMES = [
    f"landing-{size}-{theme}.svg" for size in ("wide", "narrow") for theme in ("light", "dark")
]
IMAGES, OTHERS = (
    json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())
    for name in ("images", "alternatives")
)
ROWS = {int(size): row for size, row in IMAGES["sizes"]["rows"].items()}
# What pages of the README and of the site have behind the figure.
BACKGROUNDS = {"light": ("#ffffff", "#ffffff"), "dark": ("#0d1117", "#131416")}
PHONE = 360 - 2 * 16  # the width of a page between its margins


def drawn(name):
    return ElementTree.fromstring((FOLDER / name).read_text())


def elements(name, tag):
    return [each for each in drawn(name).iter() if each.tag.endswith(f"}}{tag}")]


def words(name):
    return [each.text for each in elements(name, "text")]


def test_the_files_are_what_the_script_draws():
    drawings = runpy.run_path(str(ROOT / "docs" / "figures" / "landing.py"))["pictures"]()
    assert sorted(drawings) == sorted(NAMES)
    for name, drawing in drawings.items():
        assert (FOLDER / name).read_text() == drawing, name


@pytest.mark.parametrize("name", NAMES)
def test_its_numbers_are_those_of_the_experiments(name):
    best = min(ROWS, key=lambda size: ROWS[size]["nll"][0])
    methods, information = OTHERS["methods"], [row["mutual information"] for row in ROWS.values()]
    plain, augmented = (methods[each]["nll"] for each in ("plain", "TTA"))
    assert plain["test"][0] == IMAGES["plain"]["nll"][0]
    assert OTHERS["images"]["test"] == IMAGES["settings"]["images"]
    expected = [
        f"plain network {plain['test'][0]:.3f}",
        f"temperature, {OTHERS['images']['test'] // 2} labels {plain['test TS'][0]:.3f}",
        f"test-time augmentation {augmented['test'][0]:.3f}",
        f"MCBN {ROWS[best]['nll'][0]:.3f} at M = {best}",
        f"Epistemic uncertainty falls as 1/M: {information[0]:.2f} to {information[-1]:.3f} nats",
        f"CIFAR-10 ResNet20, {IMAGES['settings']['images']:,} images; bars: 95%, paired",
        *map(str, ROWS),
    ]
    numbered = [each for each in words(name) if re.search(r"\d", each)]
    assert sorted(numbered) == sorted(
        [*expected, *(f"{tick / 100:.2f}" for tick in range(20, 45, 5))]
    )


def test_mutual_information_does_fall_as_one_over_the_batch_size():
    information = [row["mutual information"] for row in ROWS.values()]
    slope = np.polyfit(np.log(list(ROWS)), np.log(information), 1)[0]
    assert -1.1 < slope < -0.9


def test_what_is_said_to_do_more_does_more():
    plain, augmented = (OTHERS["methods"][each]["nll"] for each in ("plain", "TTA"))
    best = min(row["nll"][0] for row in ROWS.values())
    assert augmented["test"][0] < plain["test TS"][0] < best < plain["test"][0]


@pytest.mark.parametrize("name", NAMES)
def test_points_and_bars_are_where_the_axes_say(name):
    """By the places of the axes' own words, from which the scales follow."""
    texts = elements(name, "text")
    ticks = [(float(each.text), float(each.get("y"))) for each in texts if "0." in each.text[:2]]
    heights = np.polyfit(*zip(*ticks, strict=True), 1)
    shift = 4.5  # from the middle of a figure to its baseline
    places = {int(each.text): float(each.get("x")) for each in texts if each.text.isdigit()}
    discs = elements(name, "circle")
    curve, below = discs[: len(ROWS)], discs[len(ROWS) :]
    number = r"([\d.]+)"
    lines = [each.get("d") for each in elements(name, "path")]
    upright = [re.fullmatch(f"M{number} {number}V{number}", line) for line in lines]
    bars = [[float(end) for end in each.groups()] for each in upright if each]
    plain = IMAGES["plain"]["nll"][0]
    for (size, row), point, disc, bar in zip(ROWS.items(), curve, below, bars, strict=True):
        value, low, high = row["nll"][0], *(plain + each for each in row["nll minus plain"][1:])
        assert float(point.get("cx")) == pytest.approx(places[size], abs=0.1)
        assert float(disc.get("cx")) == pytest.approx(places[size], abs=0.1)
        drawn = (float(point.get("cy")), bar[1], bar[2])
        assert drawn == pytest.approx(np.polyval(heights, (value, low, high)) - shift, abs=0.2)
        assert bar[0] == pytest.approx(places[size], abs=0.1)
    areas = [float(each.get("r")) ** 2 for each in below]
    shares = np.array(areas) / [row["mutual information"] for row in ROWS.values()]
    assert shares == pytest.approx(shares[0], rel=0.02)


def luminance(color):
    """Of WCAG 2.2."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    ]
    return np.dot((0.2126, 0.7152, 0.0722), linear)


@pytest.mark.parametrize("name", NAMES)
def test_its_words_stand_out_and_are_large_enough_on_a_phone(name):
    texts = elements(name, "text")
    for behind in BACKGROUNDS[re.search("light|dark", name)[0]]:
        for text in texts:
            bright, dim = sorted((luminance(text.get("fill")), luminance(behind)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5
    if "narrow" in name:
        scale = PHONE / float(drawn(name).get("width"))
        assert min(float(text.get("font-size")) for text in texts) * scale >= 11


BOXES = """svg => [...svg.querySelectorAll("text")].map(text => {
    const box = text.getBoundingClientRect();
    return [text.textContent, box.left, box.top, box.right, box.bottom];
})"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("name", NAMES)
def test_no_words_are_cut_or_lie_on_others(name, browser):  # noqa: F811
    with browser.new_page() as page:
        page.set_content(f'<body style="margin:0">{(FOLDER / name).read_text()}')
        figure = page.locator("svg")
        boxes, whole = figure.evaluate(BOXES), figure.bounding_box()
    for word, left, top, right, bottom in boxes:
        assert left >= -1, word  # which is the room before a letter
        assert top >= 0, word
        assert right <= whole["width"] + 0.5, word
        assert bottom <= whole["height"] + 0.5, word
    slack = 3  # boxes have room above and below the letters
    for one, other in itertools.combinations(boxes, 2):
        apart = (
            one[3] <= other[1] or other[3] <= one[1]
            or one[4] <= other[2] + slack or other[4] <= one[2] + slack
        )  # fmt: skip
        assert apart, (one, other)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_pages_show_it_by_width_and_theme(page):
    text = (ROOT / page).read_text()
    assert {name for name in NAMES if f"_static/{name}" in text} == set(NAMES)
    assert len(set(re.findall(r'<img alt="([^"]*)"', text))) == 1
