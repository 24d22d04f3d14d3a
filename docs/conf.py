"""Sphinx configuration, used by `make docs`. The pages load nothing from other hosts."""

import contextlib
import io
import re
import sys
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from sphinx.util import logging

import mcbn

project = "mcbn"
author = "The mcbn authors"
version = release = mcbn.__version__

sys.path.insert(0, str(Path(__file__).parent))  # for `reference`, an extension of our own
extensions = [
    "myst_parser",
    "reference",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Shapes in annotations are documentation; names without their modules keep signatures short.
add_module_names = False
python_use_unqualified_type_names = True
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the types are in the signature
default_role = "literal"  # docstrings use `name` for code, as in Markdown

# No inventories of other packages are downloaded, so only names of this package are links; of these
# not the ones below, types in signatures that users do not construct.
INTERNAL = (
    "CheckResult|ClassImages|ComparisonContent|Curvature|Executor|Features|FittedLaplace|"
    "Forecasts|HeldOut|P|Plotted|PrecisionChoice|RealContent|RoundingError|ScoredImages|ScoredRows|Store|StudyContent|"
    "UncertainImages|WithPrecision|_Crops|_Flips|_Shifts"
)
nitpick_ignore_regex = [
    ("py:.*", r"(?!mcbn\.).*"),
    ("py:class", rf"mcbn\.[\w.]+\.({INTERNAL})"),
]

html_theme = "furo"
html_title = f"mcbn {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
html_math_renderer = "paths"

logger = logging.getLogger(__name__)
PATHS = MathTextParser("path")
LETTERS = {
    Outline.MOVETO: "M",
    Outline.LINETO: "L",
    Outline.CURVE3: "Q",
    Outline.CURVE4: "C",
    Outline.CLOSEPOLY: "Z",
}

# Files outside this folder that pages link to, and the pages that include them.
INCLUDED_FILES = {
    "../experiments/README.md": "experiments/index.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changes.md",
}

# Short forms of LaTeX that matplotlib does not accept, and their full forms.
FULL_FORMS = (
    (r"\\[lr]vert", r"\\vert"),
    (r"\\(sqrt|mathcal|mathbb) ?(\w)", r"\\\1{\2}"),
    (r"\\frac ?(\w) ?(\w)", r"\\frac{\1}{\2}"),
)


# The page whose code is run when it is read, to show the pictures that it draws.
GALLERY = "gallery"
CODE = re.compile(r"^```python\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def draw_gallery(_app: Any, page: str, source: list[str]) -> None:
    """Run the code of the gallery, and put under each block the picture that it draws."""
    if page != GALLERY:
        return
    names: dict[str, Any] = {}

    def with_picture(block: re.Match[str]) -> str:
        exec(compile(block[1], f"docs/{page}.md", "exec"), names)  # noqa: S102 - our own page
        axes = names.pop("ax", None)
        if axes is None:
            return block[0]
        label = ", ".join(dict.fromkeys(re.findall(r"mcbn\.plot\.\w+", block[1])))
        return f"{block[0]}\n\n<p>{picture(axes.figure, f'What {label} draws')}</p>\n"

    # What a sweep says of its progress is not of interest here.
    with matplotlib.rc_context({"svg.hashsalt": "mcbn"}), contextlib.redirect_stderr(io.StringIO()):
        source[0] = CODE.sub(with_picture, source[0])


def picture(figure: Any, label: str) -> str:
    """A figure as an image inside the page itself."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    content = b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(label)}" src="data:image/svg+xml;base64,{content}">'


def outdated_pages(*_: Any) -> list[str]:
    """Pages to read again though they are the same: the package that draws may have changed."""
    return [GALLERY]


def redirect_links(_app: Any, _page: str, source: list[str]) -> None:
    """Replace links to files of the repository by links to the pages that include them."""
    for file, page in INCLUDED_FILES.items():
        source[0] = source[0].replace(f"]({file}", f"]({page}")


def protect_property(
    _app: Any, what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Keep napoleon from taking the words before a colon in a property's docstring for its type."""
    if what == "property":
        lines[:0] = ["..", ""]  # an empty comment


def equation_svg(equation: str) -> str:
    """Render an equation as SVG in the colour and size of the surrounding text.

    Browsers display it without scripts and without additional fonts.
    """
    size, text = 100, "$" + " ".join(equation.split()) + "$"
    font = FontProperties(size=size, math_fontfamily="stix")
    width, height, depth, _, _ = PATHS.parse(text, dpi=72, prop=font)
    outline = TextPath((0, 0), text, size=size, prop=font)
    steps = [
        LETTERS[code] + " ".join(f"{value:.0f}" for value in points if code != Outline.CLOSEPOLY)
        for points, code in outline.iter_segments(simplify=False)
    ]
    # An em is the size of the surrounding text; depth is the height below the baseline.
    return (
        f'<svg class="equation" role="img" aria-label="{escape(text, quote=True)}" '
        f'style="height:{(height + depth) / size:.3f}em;vertical-align:{-depth / size:.3f}em" '
        f'viewBox="0 {-height:.0f} {width:.0f} {height + depth:.0f}">'
        f'<path transform="scale(1,-1)" d="{"".join(steps)}"/></svg>'
    )


def math(writer: Any, node: nodes.math | nodes.math_block) -> None:
    """Write an equation, within a line or on a separate line."""
    block = isinstance(node, nodes.math_block)
    equation = node.astext()
    for short, full in FULL_FORMS:
        equation = re.sub(short, full, equation)
    try:
        picture = equation_svg(equation.replace(r"\frac", r"\dfrac") if block else equation)
    except ValueError as error:
        logger.warning("equation that matplotlib cannot draw: %s", error, location=node)
        raise nodes.SkipNode from error
    writer.body.append(f'<div class="equation">{picture}</div>' if block else picture)
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer of equations, the rewriting of links and the drawing of pictures."""
    app.add_html_math_renderer("paths", (math, None), (math, None))
    app.connect("source-read", redirect_links)
    app.connect("source-read", draw_gallery)
    app.connect("env-get-outdated", outdated_pages)
    app.connect("autodoc-process-docstring", protect_property, priority=1)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
