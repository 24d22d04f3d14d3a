"""The documentation site: built once without warnings, complete, self-contained, and responsive."""

import html
import inspect
import pkgutil
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
    pages = {page.relative_to(DOCS) for page in DOCS.rglob("*.md")}
    assert len(pages) > 50
    for page in pages:
        assert (site / page).with_suffix(".html").is_file(), page
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


ENTRY = re.compile(r'<dt class="sig[^"]*" id="([^"]*)">')
ROW = re.compile(
    r'<td><p><a class="reference internal" href="([^"#]*)#([^"]*)">'
    r"<code[^>]*>(.*?)</code></a></p></td>"
    r"\s*<td><p>(.*?)</p>",
    flags=re.DOTALL,
)


def plain(text):
    """The words of marked text."""
    return re.sub(r"\W+", "", html.unescape(re.sub(r"<[^>]*>", "", text)))


def summaries(page):
    """Address, name and sentence of each row of the summaries of a page."""
    tables = re.findall(r'<table class="summary[^"]*">(.*?)</table>', page.read_text(), re.DOTALL)
    return [
        (page.parent / file if file else page, anchor, plain(name), sentence)
        for table in tables
        for file, anchor, name, sentence in ROW.findall(re.sub(r"</?span[^>]*>", "", table))
    ]


def test_each_page_of_the_reference_begins_with_all_of_its_entries(site):
    """Those that stand in no other, each with the first paragraph of its docstring."""
    overview = {(file.resolve(), anchor) for file, anchor, *_ in summaries(site / "api.html")}
    pages = sorted((site / "api").glob("*.html"))
    for page in pages:
        rows = summaries(page)
        entries = {each for each in ENTRY.findall(page.read_text()) if is_top(each)}
        assert {anchor for _, anchor, *_ in rows} == entries != set()
        assert {anchor for file, anchor in overview if file == page} == entries
        for file, anchor, name, sentence in rows:
            assert file == page
            assert plain(anchor).endswith(name)
            documented = inspect.getdoc(pkgutil.resolve_name(anchor)).split("\n\n")[0]
            if "$" not in documented and ":math:" not in documented:
                assert plain(sentence) == plain(documented), anchor
    assert len(overview) > 200


def is_top(name):
    """Whether a name is that of a function or class, not of what is in one."""
    return not inspect.isclass(pkgutil.resolve_name(name.rpartition(".")[0]))


def test_every_link_inside_the_site_leads_to_something(site):
    pages = [page for page in site.rglob("*.html") if "_modules" not in page.parts]
    anchors = {page: set(re.findall(r'\bid="([^"]*)"', page.read_text())) for page in pages}
    checked = 0
    for page in pages:
        for link in set(re.findall(r'<a [^>]*href="([^"]*)"', page.read_text())):
            file, _, anchor = html.unescape(link).partition("#")
            target = (page.parent / file).resolve() if file else page
            if "://" in link or target not in anchors:
                assert "://" in link or link == "#" or target.exists(), (page.name, link)
            elif anchor:
                assert anchor in anchors[target], (page.name, link)
                checked += 1
    assert checked > 1000


def test_names_in_code_are_links_to_their_entries(site):
    def linked(page, code):
        text = re.sub(r"</?span[^>]*>", "", (site / page).read_text())
        return set(re.findall(rf'href="([^"]*)"><code[^>]*>{re.escape(code)}</code>', text))

    assert linked("what_to_pick.html", "MCBatchNorm") == {"api/samplers.html#mcbn.MCBatchNorm"}
    assert linked("tutorial.html", "choose_abstention") == set()  # could be a word of a command
    assert linked("api/samplers.html", "Sampler") == {"#mcbn.Sampler"}
    assert linked("api/evaluation.html", "compare") == {"#mcbn.compare"}
    assert linked("recipes/graphs.html", "mcbn.Task") == {"../api/tasks.html#mcbn.Task"}


def test_a_tab_of_the_landing_page_says_how_to_install(site):
    page = (site / "index.html").read_text()
    tabs = re.findall(r'<input type="radio" name="install" id="([\w-]+)"', page)
    assert re.findall(r'<label for="(install-[\w-]+)">', page) == tabs
    assert len(tabs) == page.count('<div class="tab">') >= 3
    assert page.count('<div class="card">') == 4
    assert 'href="gallery.html"' in page


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_load_nothing_from_other_hosts_and_fit_a_phone(site, browser, theme):  # noqa: F811
    requested, too_wide = [], {}
    with browser.new_page(viewport={"width": 360, "height": 800}, color_scheme=theme) as page:
        page.on("request", lambda request: requested.append(request.url))
        for path in sorted(site.rglob("*.html")):
            page.goto(path.as_uri())
            if elements := page.evaluate(TOO_WIDE):
                too_wide[path.name] = elements
    external = [url for url in requested if not url.startswith((site.as_uri(), "data:"))]
    assert external == []
    assert too_wide == {}


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize(("width", "layout"), [(360, "narrow"), (1280, "wide")])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_landing_page_shows_the_figure_of_its_width_and_theme(
    site,
    browser,  # noqa: F811
    width,
    layout,
    theme,
):
    with browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme) as page:
        page.goto((site / "index.html").as_uri())
        figures = page.locator(".landing img:visible")
        assert figures.count() == 1
        shown = figures.evaluate("image => [image.currentSrc, image.naturalWidth]")
        assert shown[0].endswith(f"landing-{layout}-{theme}.svg")
        assert shown[1] > 0
        for tab in page.locator(".tabs label").all():
            tab.click()
            commands = page.locator(".tab:visible")
            assert commands.count() == 1
            assert re.match("(pip|uv|make) ", commands.inner_text().strip())
