"""The documentation site: built once without warnings, complete, self-contained, and responsive."""

import html
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from xml.etree import ElementTree

import pytest
from browser import CHROMIUM, browser  # noqa: F401 - a fixture

import mcbn

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the pages, with warnings as errors; return their folder."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-n", "-W", "--keep-going", "-q"]
    build = subprocess.run([*command, DOCS, target], capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    return target


def test_site_is_complete_and_its_equations_are_rendered(site):
    assert {page.stem for page in DOCS.glob("*.md")} <= {page.stem for page in site.glob("*.html")}
    method = (site / "method.html").read_text()
    assert method.count('class="equation"') > 150
    assert "$" not in re.sub(r'aria-label="[^"]*"|<script.*?</script>', "", method, flags=re.DOTALL)


def test_every_plot_is_shown_by_the_code_that_draws_it(site):
    """Pictures are drawn as the pages are built, so that none can be of an older version."""
    page = (site / "gallery.html").read_text()
    parts = re.split(r'<img alt="What (.*?) draws" src="data:image/svg\+xml;base64,([^"]*)">', page)
    codes = [html.unescape(re.sub(r"<[^>]*>", "", text)) for text in parts[::3]]
    names, pictures = parts[1::3], [b64decode(each).decode() for each in parts[2::3]]
    assert {f"mcbn.plot.{name}" for name in mcbn.plot.__all__} == set(names)
    assert len(set(pictures)) == len(pictures) == len(names)
    for code, name, picture in zip(codes, names, pictures, strict=False):
        assert f"ax = {name}(" in code or f"{name}(discs, 0, quantity, ax=ax)" in code
        drawn = ElementTree.fromstring(picture)
        kinds = [each.get("id", "").rpartition("_")[0] for each in drawn.iter()]
        assert set(kinds) & {"line2d", "patch", "image"}
        assert "axes" in kinds
    assert "mcbn.plot" not in codes[-1]  # no block of code without its picture


# Elements that make the whole page scroll sideways; tables and code with scroll bars do not.
TOO_WIDE = """() => [...document.querySelectorAll("article *")].filter(element => {
    if (element.getBoundingClientRect().right <= innerWidth + 1) return false;
    for (let up = element; up.tagName !== "ARTICLE"; up = up.parentElement)
        if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return false;
    return true;
}).map(element => element.tagName)"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_pages_load_nothing_from_other_hosts_and_fit_a_phone(site, browser):  # noqa: F811
    requested, too_wide = [], {}
    with browser.new_page(viewport={"width": 360, "height": 800}) as page:
        page.on("request", lambda request: requested.append(request.url))
        for path in sorted(site.glob("*.html")):
            page.goto(path.as_uri())
            if elements := page.evaluate(TOO_WIDE):
                too_wide[path.name] = elements
    external = [url for url in requested if not url.startswith((site.as_uri(), "data:"))]
    assert external == []
    assert too_wide == {}
