"""Figures of a page in Chromium: legible on a phone, with values, legends that hide, and files."""

import csv
import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from browser import CHROMIUM, browser  # noqa: F401 - a fixture
from PIL import Image
from reports import comparison, report
from synthetic_studies import classification_plan, classification_scores, made_study

from mcbn.report.report import Report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]

HOSTILE = "</svg><script>x=1</script>'\"&=MCBN"
MEASURE = """() => [...document.querySelectorAll(".panels svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect(), unit = frame.width / svg.viewBox.baseVal.width;
  return [...svg.querySelectorAll("text")].map(text => {
    const box = text.getBoundingClientRect();
    return [text.textContent, parseFloat(getComputedStyle(text).fontSize) * unit,
            Math.max(frame.left - box.left, box.right - frame.right,
                     frame.top - box.top, box.bottom - frame.bottom)];
  });
})"""


@pytest.fixture(scope="module", params=["report", "study", "hostile"])
def address(request, tmp_path_factory):
    if request.param == "report":
        made = report()
    elif request.param == "study":
        made = Report.from_study(made_study(classification_plan(seeds=(0, 1)),
                                            classification_scores))  # fmt: skip
    else:
        made = Report.from_comparison(replace(comparison(names=(HOSTILE, "=b"))))
    return made.write(tmp_path_factory.mktemp(request.param)).as_uri()


@pytest.fixture
def opened(browser, address):  # noqa: F811
    contexts, messages = [], []

    def open_page(width=1100, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(address)
        page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert messages == []


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_text_of_figures_is_large_enough_and_inside(opened, width):
    found = opened(width).evaluate(MEASURE)
    assert len(found) > 50
    assert min(size for _, size, _ in found) >= 11
    assert [text for text, _, beyond in found if beyond > 1] == []


@pytest.mark.parametrize("width", [768, 1280])
def test_figures_of_a_group_are_of_one_size_and_fill_the_width(opened, width):
    page = opened(width)
    groups = page.evaluate("""() => [...document.querySelectorAll(".panels")].map(group => [
        group.getBoundingClientRect().width,
        [...group.querySelectorAll("figure")].map(f => f.getBoundingClientRect().width)])""")
    for whole, widths in groups:
        assert max(widths) - min(widths) < 1
        if len(widths) > 3:
            assert whole / widths[0] < 4.2  # no column is left empty


def first(page, kind="g[data-series]"):
    """The first group of figures with a legend, and a figure of it."""
    group = page.locator(f".group:has(.key):has({kind})").first
    return group, group.locator("figure").first


def test_values_are_shown_by_pointer_and_by_keyboard(opened):
    page = opened()
    _, figure = first(page)
    svg, tip = figure.locator("svg").first, figure.locator(".tip")
    assert tip.inner_text() == ""
    svg.focus()
    page.keyboard.press("ArrowRight")
    by_key = tip.inner_text()
    assert len(by_key.split("\n")) >= 2
    page.keyboard.press("Escape")
    assert tip.inner_text() == ""
    ring = figure.locator("circle").last
    page.keyboard.press("ArrowRight")
    box, place = svg.bounding_box(), [float(ring.get_attribute(n) or 0) for n in ("cx", "cy")]
    unit = box["width"] / float(svg.get_attribute("viewBox").split()[2])
    page.keyboard.press("Escape")
    page.mouse.move(box["x"] + place[0] * unit, box["y"] + place[1] * unit)
    assert tip.inner_text() != ""
    page.mouse.move(box["x"] - 30, box["y"] - 30)
    assert tip.inner_text() == ""


def test_a_name_of_the_legend_hides_and_shows_its_method_in_all_figures_of_the_group(opened):
    group, _ = first(opened())
    toggle = group.locator(".key button").last
    style = toggle.locator("xpath=..").get_attribute("data-series")
    parts = group.locator(f'figure g[data-series="{style}"]')
    others = group.locator(f'figure g[data-series]:not([data-series="{style}"])')
    count = others.count()
    assert parts.count() > 0
    toggle.click()
    assert toggle.get_attribute("aria-pressed") == "false"
    assert {part.get_attribute("display") for part in parts.all()} == {"none"}
    assert {part.get_attribute("display") for part in others.all()} <= {None}
    toggle.click()
    assert {part.get_attribute("display") for part in parts.all()} == {None}
    assert others.count() == count


def saved(page, figure, kind):
    with page.expect_download() as download:
        figure.get_by_role("button", name=kind, exact=True).click()
    return download.value


def test_a_figure_is_saved_with_its_colours_heading_and_legend(opened):
    page = opened()
    group, figure = first(page)
    download = saved(page, figure, "SVG")
    text = download.path().read_text("utf-8")
    assert re.fullmatch(r"[a-z0-9-]+\.svg", download.suggested_filename)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in re.sub('aria-label="[^"]*"', "", text)
    assert not re.search("<script|onclick", text.replace("&lt;script", ""))
    texts = [each.text.strip() for each in root.iter() if each.tag.endswith("text")]
    for name in group.locator(".key > span").all_inner_texts():
        assert name.strip() in texts
    width, height = map(float, (root.get("width"), root.get("height")))
    with Image.open(saved(page, figure, "PNG").path()) as picture:
        assert picture.size == pytest.approx((2 * width, 2 * height), abs=2)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_numbers_are_copied_as_csv(opened):
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    group, figure = first(page)
    figure.get_by_role("button", name="CSV").click()
    figure.get_by_role("button", name="Copied").wait_for()
    rows = list(csv.DictReader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
    names = {name.strip() for name in group.locator(".key > span").all_inner_texts()}
    assert {row["series"].removeprefix("'") for row in rows} <= names
    assert len(rows) >= len(names)


def test_a_page_without_the_right_to_copy_saves_the_csv(opened):
    page = opened()
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    _, figure = first(page)
    assert saved(page, figure, "CSV").path().read_text("utf-8").startswith("series,")


def test_one_figure_is_printed_alone(opened):
    page = opened()
    page.evaluate("window.print = () => {}")
    group, figure = first(page)
    figure.get_by_role("button", name="PDF").click()
    page.emulate_media(media="print")
    assert page.locator("figure:visible").count() == 1
    assert group.locator(".key").is_visible()
    assert not page.locator("h1").first.is_visible()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("figure:visible").count() > 1


def test_without_scripts_there_are_no_buttons_and_all_figures(opened):
    page = opened(java_script_enabled=False)
    assert page.locator(".actions, .tip, .key button").count() == 0
    assert page.locator(".panels svg:visible").count() > 3
