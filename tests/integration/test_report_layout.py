"""Pages of reports at the widths of telephones, tablets and desks: nothing is cut, all is reached.

Boxes are measured in Chromium, in light and dark; axe-core looks for what keeps people out.
"""

import pytest
import regression_reports
import reports
from axe_playwright_python.sync_playwright import Axe
from browser import CHROMIUM, browser  # noqa: F401 - a fixture
from synthetic_studies import classification_study

from mcbn.report import pdf
from mcbn.report.report import Report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]

WIDTHS = (360, 390, 768, 1280, 1440)
MADE = {
    "comparison": reports.report,
    "real values": regression_reports.report,
    "study": lambda: Report.from_study(classification_study(seeds=(0, 1))),
}
# Text that lies outside the window without a region to scroll to it, or is cut by its own box.
CUT = """() => {
  const scrolls = (element) => {
    for (let up = element; up; up = up.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return true;
    return false;
  };
  const cut = [];
  for (const element of document.querySelectorAll("main *, nav *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const box = element.getBoundingClientRect();
    if (box.width === 1) continue;  // for screen readers alone
    const outside = box.left < -1 || box.right > innerWidth + 1;
    if (outside && !scrolls(element)) cut.push(`${element.tagName}: ${element.textContent}`);
    const style = getComputedStyle(element);
    if (style.overflowX === "hidden" && element.scrollWidth > element.clientWidth + 1)
      cut.push(`${element.tagName} hides ${element.textContent}`);
  }
  return cut;
}"""
# Sizes in pixels of the letters of every figure, and of the charts of tiles, as they are shown.
LETTERS = """() => [...document.querySelectorAll(".panels svg text, .tile svg text")]
    .filter((text) => text.checkVisibility())
    .map((text) => {
        const svg = text.ownerSVGElement;
        const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
        return parseFloat(getComputedStyle(text).fontSize) * scale;
    })"""
SCROLLED = """() => [...document.querySelectorAll(".scroll")].map((region) => {
    region.scrollLeft = region.scrollWidth;
    const heading = region.querySelector("tbody th");
    return [region.getBoundingClientRect().left, heading.getBoundingClientRect().left];
})"""


@pytest.fixture(scope="module", params=MADE)
def address(request, tmp_path_factory):
    """A page of each kind."""
    folder = tmp_path_factory.mktemp("page")
    return MADE[request.param]().write(folder).as_uri()


@pytest.fixture
def opened(browser, address):  # noqa: F811
    """Open the page in a window, with everything unfolded."""
    contexts = []

    def open_page(width, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.goto(address)
        page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut(opened, width, scheme):
    page = opened(width, scheme)
    assert page.evaluate(CUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [360, 390])
def test_letters_of_figures_can_be_read_on_a_telephone(opened, width):
    sizes = opened(width).evaluate(LETTERS)
    assert len(sizes) > 20
    assert min(sizes) >= 11


@pytest.mark.parametrize("width", [360, 768])
def test_the_name_of_a_row_stays_while_its_table_is_scrolled(opened, width):
    edges = opened(width).evaluate(SCROLLED)
    assert edges
    assert all(abs(region - name) < 1 for region, name in edges)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened, scheme):
    page = opened(1280, scheme, bypass_csp=True)
    found = Axe().run(page).response["violations"]
    assert [(each["impact"], each["id"], each["nodes"][0]["html"][:80]) for each in found] == []


def test_every_section_is_reached_by_the_keyboard(opened):
    page = opened(1280)
    names = page.evaluate("[...document.querySelectorAll('nav a')].map((link) => link.hash)")
    reached = []
    for _ in names:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.hash"))
    assert reached == names
    page.keyboard.press("Enter")
    top = page.evaluate("document.querySelector(location.hash).getBoundingClientRect().top")
    # The last sections may be too near the end of the page to come to its top.
    assert top < 800


def test_a_heading_is_a_link_to_copy(opened):
    page = opened(1280)
    page.locator("#scores .copy").first.click()
    assert page.evaluate("location.hash") == "#scores"


def test_the_page_is_printed_whole(address, tmp_path):
    made = reports.report().write(tmp_path, pdf=True).with_suffix(".pdf").read_bytes()
    assert made.startswith(b"%PDF-")
    assert len(made) > 50_000


def test_without_a_browser_no_pdf_is_made_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="expected Chromium, Chrome or Edge"):
        reports.report().write(tmp_path / "new", pdf=True)
    assert not (tmp_path / "new").exists()
