"""Figures as files of their own: all of them, each under a safe name, with its legend, for good."""

import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import regression_reports
import reports
from matplotlib.figure import Figure
from PIL import Image
from synthetic_studies import classification_study

import mcbn
from mcbn.cli import messages
from mcbn.drawing import figures
from mcbn.report import figure_files
from mcbn.report.figure_files import FOLDER
from mcbn.report.figure_formats import FORMATS, figure_formats
from mcbn.report.panels import Panel, PanelGroup

REPORTS = {
    "comparison": reports.report(),
    "regression": regression_reports.report(),
    "study": mcbn.Report.from_study(classification_study(seeds=(0,))),
}
HEADS = {"csv": b"series,", "pdf": b"%PDF-", "svg": b"<?xml", "png": b"\x89PNG"}


def panel(title, width=3.6):
    return Panel(title, "", lambda ax: ax.plot([1, 2], [3, 4]), {}, (width, 2.0))


def files_of(*titles, section="scores", formats=("svg",), heading="", key=()):
    group = PanelGroup(heading, key, tuple(panel(title) for title in titles))
    return figure_files.figure_files({section: [group]}, formats)


def texts_of(svg):
    return [each.text for each in ElementTree.fromstring(svg).iter() if each.tag.endswith("}text")]


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_every_figure_of_the_page_is_a_file(report, tmp_path, monkeypatch):
    drawn = []

    def savefig(figure, file, *, format, **_):
        drawn.append([ax.get_xlabel() for ax in figure.axes])
        file.write(format.encode())

    monkeypatch.setattr(Figure, "savefig", savefig)
    page = report.write(tmp_path, figures="pdf")
    shown = reports.figures_below(page.read_text("utf-8"))
    files = sorted((tmp_path / FOLDER).glob("*.pdf"))
    assert len(files) == len(drawn) == shown > 0
    assert {file.stem for file in (tmp_path / FOLDER).glob("*.csv")} <= {f.stem for f in files}
    for file in files:
        assert re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]\.pdf", file.name), file.name
    assert page.read_text("utf-8") == report.to_html()


def test_files_are_of_their_formats_and_the_same_each_time(tmp_path, monkeypatch):
    first = {}
    for folder in ("a", "b"):
        with matplotlib.rc_context({"font.size": 8 + 9 * (folder == "b"), "svg.hashsalt": None}):
            before = dict(matplotlib.rcParams)
            REPORTS["regression"].write(tmp_path / folder, figures=FORMATS)
            assert dict(matplotlib.rcParams) == before
        files = {file.name: file.read_bytes() for file in (tmp_path / folder / FOLDER).iterdir()}
        assert {name.rpartition(".")[2] for name in files} == {*FORMATS, "csv"}
        for name, content in files.items():
            assert content.startswith(HEADS[name.rpartition(".")[2]])
            assert not re.search(rb"CreationDate|ModDate|<dc:date>|Software", content)
        assert first == (files if folder == "b" else {})
        first = files
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")  # as if on another day


def test_a_png_can_be_printed_on_white_paper():
    (content,) = files_of("a", formats=("png",)).values()
    picture = Image.open(io.BytesIO(content))
    assert picture.size == (round(3.6 * 300), round((2.0 + figure_files.LINE) * 300))
    pixels = np.asarray(picture)
    assert (pixels[0, 0] == 255).all()
    # The placeholders of the page's colours are not left in: a grid of INK would hide the lines.
    gray = (np.abs(pixels[..., :3].astype(int) - 0xD9) <= 2).all(-1)
    assert gray.sum() > 1000


def test_fonts_of_a_pdf_are_truetype():
    (content,) = files_of("a", formats=("pdf",)).values()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_a_file_has_the_heading_and_the_legend_that_a_page_has_around_it():
    key = (("MCBN", 1), ("_$x_$", 0), ("<b>", 2))
    (svg,) = files_of("trained at 8", heading="NLL", key=key).values()
    texts = texts_of(svg)
    assert texts[-5:] == ["NLL", "trained at 8", "MCBN", "_$x_$", "<b>"]
    legend = svg.decode()[svg.decode().index('id="legend_1"') :]
    colors = re.findall(r'id="line2d_\d+">\s*<path [^>]*style="[^"]*stroke: (#\w+)', legend)
    assert colors == [figures.SERIES[1], figures.SERIES[0], figures.SERIES[2]]


def test_long_names_stay_inside_the_figure(monkeypatch):
    name = "Monte Carlo Batch Normalisation, M = 128, WRN-28-10, MIXUP on CIFAR-100"
    key = tuple((f"{name} {number}", number) for number in range(3))
    boxes = []

    def savefig(figure, *_, **__):
        figure.draw_without_rendering()
        boxes.append((figure.get_tightbbox(), figure.axes[0].bbox.height / figure.dpi))

    monkeypatch.setattr(Figure, "savefig", savefig)
    files_of(name, heading=f"{name} of {name}", key=key)
    (box, height), width = boxes[0], 3.6
    assert 0 <= box.x0 < box.x1 <= width
    assert box.y0 >= 0
    assert height > 1  # of the 2 inches: what was added holds the heading and the legend


@pytest.mark.parametrize(
    ("titles", "stems"),
    [
        (("MCBN", "mcbn", "M C B N"), ("scores-mcbn", "scores-mcbn-2", "scores-m-c-b-n")),
        (("北京", "../..", ""), ("scores", "scores-2", "scores-3")),
        (("../etc/passwd\x00",), ("scores-etc-passwd",)),
        (("a", "A-2", "a", "A"), ("scores-a", "scores-a-2", "scores-a-3", "scores-a-4")),
        (("x" * 400,), ("scores-" + "x" * 143,)),
    ],
)
def test_names_of_files_are_safe_and_different(titles, stems):
    files = files_of(*titles)
    assert tuple(files) == tuple(f"{stem}.svg" for stem in stems)


def test_names_of_sections_say_what_they_show():
    assert list(files_of("MCBN", section="outside")) == ["out-of-distribution-mcbn.svg"]
    assert list(files_of("MCBN", section="heat N = 5")) == ["heat-map-n-5-mcbn.svg"]


@pytest.mark.parametrize("given", ["jpg", ("pdf", "PNG"), [""], "pdf,png"])
def test_other_formats_are_refused_before_anything_is_written(given, tmp_path):
    with pytest.raises(ValueError, match="expected figures as pdf, svg or png, got"):
        REPORTS["comparison"].write(tmp_path / "r", figures=given)
    assert not (tmp_path / "r").exists()


def test_formats_are_one_or_several():
    assert figure_formats("svg") == ("svg",)
    assert figure_formats(["png", "pdf", "png"]) == ("png", "pdf")
    assert figure_formats(()) == ()
    assert set(figure_files.METADATA) == set(FORMATS)
    assert messages.FIGURES == FOLDER


def test_nothing_is_written_where_a_figure_cannot_be_drawn(tmp_path, monkeypatch):
    report = REPORTS["comparison"]
    report.write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(*_, **__):
        raise RuntimeError("no pen")

    monkeypatch.setattr(Figure, "savefig", broken)
    content = replace(report.content, title="another")
    with pytest.raises(RuntimeError, match="no pen"):
        mcbn.Report(content).write(tmp_path, figures="png")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_formats_no_figure_is_written(tmp_path):
    REPORTS["regression"].write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.json"}
