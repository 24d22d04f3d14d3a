"""The notebook of the examples: its cells run in order, and each shows no more than a screen.

They are run as a notebook runs them, without one: the last expression of a cell is shown, by its
table if it has one, and the figures of pyplot are shown and closed.
"""

import ast
import builtins
import contextlib
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from matplotlib import pyplot as plt

from mcbn.io.display import Displayed

PATH = Path(__file__).parents[2] / "examples" / "notebook.ipynb"
NOTEBOOK = json.loads(PATH.read_text("utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
LINES, WIDTH = 25, 160  # of a screen


class Shown(NamedTuple):
    """What stands under a cell."""

    printed: str
    value: object
    axes: list


def run_cell(source, names):
    """Run a cell as a notebook does."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        exec(compile(tree, "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    for figure in figures:
        figure.canvas.draw()
    shown = [ax for figure in figures for ax in figure.axes]
    plt.close("all")
    return Shown(printed.getvalue(), None if source.rstrip().endswith(";") else value, shown)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What every cell shows, run one after the other in an empty folder."""
    with pytest.MonkeyPatch.context() as patched, plt.rc_context({"backend": "agg"}):
        patched.chdir(tmp_path_factory.mktemp("notebook"))
        patched.setattr(builtins, "__IPYTHON__", True, raising=False)
        names = {"__name__": "__main__"}
        found = [run_cell(source, names) for source in CELLS]
        files = {path.as_posix() for path in Path().rglob("*") if path.is_file()}
    return found, files


def test_it_has_ten_cells_and_no_output_that_could_be_stale():
    assert len(CELLS) == 10
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])


def test_no_cell_shows_more_than_a_screen(shown):
    for number, cell in enumerate(shown[0], 1):
        lines = cell.printed.splitlines()
        value = cell.value
        if value is not None:
            text = getattr(value, "to_string", value.__repr__)()
            lines += text.splitlines()
            assert len(value._repr_html_()) < 20_000
        # Long lines of what is said of progress are wrapped.
        rows = sum(-(-max(len(line), 1) // WIDTH) for line in lines)
        assert rows <= LINES, f"cell {number}:\n{chr(10).join(lines)}"
        assert lines or cell.axes, f"cell {number} shows nothing"


def test_every_kind_of_result_is_shown(shown):
    kinds = [type(cell.value).__name__ for cell in shown[0] if cell.value is not None]
    assert kinds == ["Task", "CategoricalPredictive", "Evaluation", "Comparison", "DataFrame",
                     "DataFrame", "Report"]  # fmt: skip
    assert sum(isinstance(cell.value, Displayed) for cell in shown[0]) == 5
    # The last digits depend on the processor that trained the network.
    said = re.fullmatch(
        r"(\d\d\.\d)% \[(\d\d\.\d)%, (\d\d\.\d)%\], or as a number 0\.(\d{3})\n",
        shown[0][3].printed,
    )
    value, low, high, number = map(float, said.groups())
    assert 90 < low < value < high < 100
    assert number == pytest.approx(10 * value, abs=0.5)


def test_pictures_are_under_their_cells_and_nowhere_else(shown):
    labels = [[ax.get_xlabel() for ax in cell.axes] for cell in shown[0]]
    assert labels[7] == ["Confidence"]
    assert labels[8] == ["Share of examples answered", "Entropy (nats)"]
    assert all(not each for number, each in enumerate(labels) if number not in (7, 8))


def test_the_report_is_written_with_its_figures(shown):
    assert {"report/report.html", "report/report.json", "report/figures/batch-size.pdf"} <= shown[1]
