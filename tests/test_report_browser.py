import shutil

import pytest
from playwright.sync_api import sync_playwright
from test_report import report

CHROMIUM = shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]  # fmt: skip
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return report().write(tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


@pytest.fixture
def opened(browser, address):
    """Open the page; afterwards it must have asked for nothing and complained of nothing."""
    pages, asked, said = [], [], []

    def open_page(*, width=1100, scheme="light", scripts=True):
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            java_script_enabled=scripts,
        )
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        pages.append(context)
        return page

    yield open_page
    for context in pages:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address] * len(pages)


@pytest.mark.parametrize("width", [360, 1100])
def test_every_figure_is_seen_and_nothing_scrolls_sideways(opened, width):
    page = opened(width=width)
    boxes = [figure.bounding_box() for figure in page.locator("figure svg[role=img]").all()]
    assert len(boxes) > 10
    for box in boxes:
        assert box["width"] > 200
        assert box["height"] > 150
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_words_of_figures_stay_inside_them(opened):
    outside = opened().evaluate("""() =>
      [...document.querySelectorAll("figure svg")].flatMap(svg => {
        const frame = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text")].filter(text => {
            const box = text.getBoundingClientRect();
            return box.left < frame.left - 2 || box.right > frame.right + 2
                || box.top < frame.top - 2 || box.bottom > frame.bottom + 2;
        }).map(text => text.textContent);
    })""")
    assert outside == []


def test_table_sorts_both_ways(opened):
    page = opened()
    table = page.locator("#scores table").first
    heading = table.locator("thead th", has_text="NLL")
    column = heading.evaluate("cell => cell.cellIndex")

    def values():
        return table.evaluate(
            "(table, c) => [...table.tBodies[0].rows].map(row => +row.cells[c].dataset.value)",
            column,
        )

    before = values()
    heading.locator("button").click()
    assert values() == sorted(before)
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").click()
    assert values() == sorted(before, reverse=True)


def test_dark_is_followed_and_can_be_chosen(opened):
    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = opened(), opened(scheme="dark")
    day, night = background(light), background(dark)
    assert day != night
    light.locator("#theme").click()
    assert background(light) == night
    ink = "getComputedStyle(document.querySelector('figure svg text')).fill"
    assert light.evaluate(ink) == dark.evaluate(ink) != opened().evaluate(ink)


def test_page_reads_without_scripts(opened):
    page = opened(scripts=False)
    assert page.locator("#verdict li").count() >= 3
    assert not page.locator("#theme").is_visible()
    assert page.locator("#scores table").first.is_visible()
