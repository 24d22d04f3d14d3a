"""Names that are code: whatever something is named, a page shows it and never runs it."""

import re
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from browser import CHROMIUM, QUIET, browser  # noqa: F401 - a fixture
from readers import classes, reals
from reports import ParsedPage
from synthetic_studies import classification_plan, classification_scores, made_study

from mcbn.cli.options.predictions import ReportOptions
from mcbn.cli.report import report
from mcbn.predictive.tables import write_predictions
from mcbn.report.report import Report
from mcbn.study.plan import InferenceAxes, TrainingAxes

pytestmark = pytest.mark.unchecked

RUN = "window.ran=1"  # shows that a payload was run
PAYLOADS = (
    f"<script>{RUN}</script>", f'"><img src=x onerror={RUN}>', f"'><svg onload={RUN}>",
    f"</style><script>{RUN}</script>", f"</title><script>{RUN}</script>",
    f"--><script>{RUN}</script>", f"]]><script>{RUN}</script>", f'" onmouseover="{RUN}" x="',
    f"javascript:{RUN}", "{{ 7 * 7 }}{% raise %}", "${7*7} $x_", f"&lt;script&gt;{RUN}",
    "<base href=//evil.example>", "<meta http-equiv=refresh content=0;url=//evil.example>",
    "</svg><iframe src=//evil.example>",
)  # fmt: skip
EVIL = " ".join(PAYLOADS)
# Names of files cannot hold a slash.
FILE = f'"><img src=x onerror={RUN}> <svg onload={RUN}>'


def methods(folder, made):
    """Files of predictions by two methods with hostile names."""
    paths = [folder / f"{letter} {FILE}.npz" for letter in "ab"]
    for path in paths:
        write_predictions(path, made)
    return [str(path) for path in paths]


def of_classes(folder):
    names = tuple(f"{letter} {EVIL}" for letter in "abc")
    groups = np.array([f"{EVIL} one", f"{EVIL} two"] * 3)
    made = replace(classes(), classes=names, columns={EVIL: groups})
    np.savez(folder / "images.npz", inputs=np.random.default_rng(0).random((6, 1, 8, 8)))
    paths = methods(folder, made)
    others = [str(folder / f"far {FILE}.npz")]
    write_predictions(others[0], made)
    report(ReportOptions(
        paths[:1], str(folder), outside=others, title=EVIL, resamples=3, by=[EVIL],
        images=str(folder / "images.npz"),
    ))  # fmt: skip


def of_methods(folder):
    names = tuple(f"{letter} {EVIL}" for letter in "abc")
    made = replace(classes(), classes=names, columns={})
    report(ReportOptions(methods(folder, made), str(folder), title=EVIL, resamples=3))


def of_reals(folder):
    made = replace(reals(keep_draws=False), columns={EVIL: np.array([EVIL, "b"] * 3)})
    paths = methods(folder, made)
    report(ReportOptions(paths, str(folder), title=EVIL, resamples=3, by=[EVIL]))


def of_study(folder):
    plan = classification_plan(
        title=EVIL, seeds=(0, 1), training=TrainingAxes(batch_sizes=(32,)),
        inference=InferenceAxes(batch_sizes=(4, 16, 64)), methods=("Deterministic", "MCBN"),
    )  # fmt: skip
    study = made_study(plan, classification_scores, failed=lambda cell: cell.batch_size == 16)
    failures = dict.fromkeys(study.failures, EVIL)
    # A study folder from elsewhere may name networks that no declaration can.
    network = replace(plan.network, names=(f"{EVIL}:net",))
    results = tuple(
        replace(each, cell=replace(
            each.cell, network=replace(each.cell.network, architecture=f"{EVIL}:net")
        ))
        for each in study.results
    )  # fmt: skip
    changed = replace(study, plan=replace(plan, network=network), results=results)
    Report.from_study(replace(changed, failures=failures)).write(folder)


PAGES = {"classes": of_classes, "methods": of_methods, "reals": of_reals, "study": of_study}


@pytest.fixture(scope="module", params=PAGES)
def page(request, tmp_path_factory):
    """The path of a page of each kind, full of hostile names."""
    folder = tmp_path_factory.mktemp(request.param)
    with redirect_stdout(StringIO()):
        PAGES[request.param](folder)
    return folder / "report.html"


def test_hostile_names_are_shown_and_escaped(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("&lt;script&gt;window.ran=1&lt;/script&gt;") > 3
    assert text.count("<script>") == 1
    assert "<script>window" not in text
    tags = ParsedPage(text).tags
    assert [tag for tag, _ in tags].count("script") == 1
    assert not [name for _, names in tags for name in names if name.startswith("on")]
    assert "49" not in re.findall(r"<title>(.*?)</title>", text)[0]


LOOK = """() => ({
    ran: window.ran === undefined ? 0 : 1,
    scripts: document.scripts.length,
    frames: document.querySelectorAll("iframe, object, embed, base, [content*=url]").length,
    handlers: [...document.querySelectorAll("*")].filter(element => [...element.attributes]
        .some(each => each.name.startsWith("on")
            || /href|src|action/.test(each.name) && /^\\s*javascript:/i.test(each.value))).length,
    pictures: [...document.images].filter(image => !image.src.startsWith("data:")).length,
})"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("policy", [True, False], ids=["as it is", "without its policy"])
def test_nothing_runs_and_nothing_is_asked_for(page, policy, browser, tmp_path):  # noqa: F811
    text = page.read_text(encoding="utf-8")
    if not policy:
        # Escaping alone must suffice.
        text, count = re.subn(r"<meta[^>]*Content-Security-Policy[^>]*>", "", text)
        assert count == 1
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    address, requested, messages = (tmp_path / "page.html").as_uri(), [], []
    context = browser.new_context()
    try:
        opened = context.new_page()
        opened.on("dialog", lambda dialog: messages.append(dialog.message))
        opened.on("pageerror", lambda error: messages.append(str(error)))
        opened.on("request", lambda request: requested.append(request.url))
        opened.goto(address)
        opened.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
        for button in opened.locator("thead th button").all()[:3]:
            button.click()
        opened.mouse.move(300, 300)
        seen = opened.evaluate(LOOK)
        assert opened.url == address
    finally:
        context.close()
    assert seen == {"ran": 0, "scripts": 1, "frames": 0, "handlers": 0, "pictures": 0}
    assert messages == []
    assert [url for url in requested if not url.startswith("data:")] == [address]
