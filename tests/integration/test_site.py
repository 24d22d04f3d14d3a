"""The pages as a site: built without a warning, complete, quiet, and readable on a telephone."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import CHROMIUM, QUIET
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parents[2] / "docs"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages; a warning of Sphinx is an error."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-n", "-W", "--keep-going", "-q"]
    done = subprocess.run([*command, DOCS, target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_site_is_built_without_a_warning(site):
    assert {page.stem for page in DOCS.glob("*.md")} <= {page.stem for page in site.glob("*.html")}
    method = (site / "method.html").read_text()
    assert method.count('class="equation"') > 150
    assert "$" not in re.sub(r'aria-label="[^"]*"|<script.*?</script>', "", method, flags=re.DOTALL)


# What makes the whole page scroll sideways; tables and code that scroll by themselves do not.
TOO_WIDE = """() => [...document.querySelectorAll("article *")].filter(element => {
    if (element.getBoundingClientRect().right <= innerWidth + 1) return false;
    for (let up = element; up.tagName !== "ARTICLE"; up = up.parentElement)
        if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return false;
    return true;
}).map(element => element.tagName)"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_pages_ask_for_nothing_from_elsewhere_and_fit_a_telephone(site):
    asked, cut = [], {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 360, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        for path in sorted(site.glob("*.html")):
            page.goto(path.as_uri())
            if found := page.evaluate(TOO_WIDE):
                cut[path.name] = found
        browser.close()
    elsewhere = [url for url in asked if not url.startswith((site.as_uri(), "data:"))]
    assert elsewhere == []
    assert cut == {}
