import re

import pytest
from browser import CHROMIUM, browser  # noqa: F401 - a fixture
from reports import report
from synthetic_studies import classification_plan, classification_scores, made_study

from mcbn.report.report import Report
from mcbn.study.plan import DataAxes, InferenceAxes, TrainingAxes

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


def wide_study():
    """Many batch sizes, which crowd axes and heat maps, and some failed cells."""
    plan = classification_plan(
        data=DataAxes(train_sizes=(8192,), outside=("rotated",)),
        training=TrainingAxes(batch_sizes=(8, 64, 512, 4096)),
        inference=InferenceAxes(batch_sizes=(2, 8, 32, 128, 512, 1024, 2048, 4096)),
        methods=("Deterministic", "MCBN", "MC Dropout"),
        scores=("nll", "accuracy", "mutual_information"),
        seeds=(0, 1),
    )
    return made_study(plan, classification_scores, failed=lambda cell: cell.batch_size == 32)


@pytest.fixture(scope="module", params=["report", "study", "parts"])
def address(request, tmp_path_factory):
    """The page of a report, of a study, and of a study that is cut into folded parts."""
    if request.param == "report":
        made = report()
    elif request.param == "study":
        made = Report.from_study(wide_study())
    else:
        plan = classification_plan(
            data=DataAxes(names=("digits", "mnist")), scores=("nll", "epistemic_sd"), seeds=(0,),
            inference=InferenceAxes(batch_sizes=(8, 64), draws=(4, 16)),
        )  # fmt: skip
        made = Report.from_study(made_study(plan, classification_scores))
    return made.write(tmp_path_factory.mktemp(request.param)).as_uri()


@pytest.fixture
def opened(browser, address):  # noqa: F811
    """Open the page; in the end it must have requested nothing and logged nothing."""
    pages, requested, messages = [], [], []

    def open_page(*, width=1100, scheme="light", scripts=True, unfolded=True):
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            java_script_enabled=scripts,
        )
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        page.goto(address)
        if unfolded:
            page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
        pages.append(context)
        return page

    yield open_page
    for context in pages:
        context.close()
    assert messages == []
    assert [url for url in requested if not url.startswith("data:")] == [address] * len(pages)


@pytest.mark.parametrize("width", [360, 1100])
def test_every_figure_is_visible_and_nothing_scrolls_sideways(opened, width):
    page = opened(width=width)
    boxes = [figure.bounding_box() for figure in page.locator("figure svg[role=img]").all()]
    assert len(boxes) > 10
    for box in boxes:
        assert box["width"] > 200
        assert box["height"] > 150
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_text_of_figures_stays_inside_them(opened):
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


def test_text_of_figures_does_not_overlap(opened):
    over = opened().evaluate("""() =>
      [...document.querySelectorAll("figure svg")].flatMap(svg => {
        const words = [...svg.querySelectorAll("text")].map(text =>
            [text.textContent, text.getBoundingClientRect()]);
        return words.flatMap(([one, a], i) => words.slice(i + 1).filter(([, b]) =>
            a.left < b.right - 1 && b.left < a.right - 1
            && a.top < b.bottom - 2 && b.top < a.bottom - 2
        ).map(([other]) => `${one} over ${other}`));
    })""")
    assert over == []


def test_table_sorts_both_ways(opened):
    page = opened()
    table = page.locator("[id$=scores] table").first
    heading = table.locator("thead th", has_text=re.compile("^NLL(?!,)"))
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


def test_dark_scheme_is_followed_and_can_be_chosen(opened):
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
    page = opened(scripts=False, unfolded=False)
    assert page.locator(".checks li").count() >= 3
    assert not page.locator("#theme").is_visible()
    assert page.locator(".methods table, #cost table").last.is_visible()


def test_parts_are_folded_until_opened(opened, address):
    page = opened(unfolded=False)
    folded = page.locator("section[id$='-part'] > details:has(figure)")
    assert folded.count() == (4 if "parts" in address else 0)
    for part in folded.all():
        figure = part.locator("figure").first
        assert not figure.is_visible()
        part.locator("summary").first.click()
        assert figure.is_visible()
