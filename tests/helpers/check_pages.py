"""Pages of the documentation on the checks; run as a script it writes them.

The page of each check, and the tables of the overview, say what the catalogue says.
"""

import re
from pathlib import Path

from mcbn.checks.catalogue import CODES

DOCS = Path(__file__).parents[2] / "docs"
OVERVIEW = DOCS / "checks.md"
# What is code in plain sentences: options, and names with what they are called with.
CODE = re.compile(
    r"--[a-z][\w-]*(?: temperature)?|\b(?:mcbn|bank|model|torch)\.\w[\w.]*\w"
    r"(?:\((?:[^()]|\([^()]*\))*\))?|\b[a-z_]+=(?:None)?"
)
FIRST = {"Methods and studies": "MCBN0", "Networks and banks": "MCBN1"}  # of codes, by heading

PAGE = """\
# {code}: {name}

{what}

## What it looks at

{looks_at}

## Threshold

{threshold}

## Why

{source}

## What to do

{remedy}

## Ignoring it

{ignoring}
"""


def marked(text):
    """A plain sentence in Markdown, with what is code in it marked as such."""
    return CODE.sub(lambda found: f"`{found[0]}`", text)


def page(check):
    """The page of a check, in Markdown."""
    what = "A check of methods or of a study, which `mcbn check` and every report make."
    ignoring = (
        f"`mcbn check FILE... --ignore {check.code}` leaves it out, where a person has looked and "
        "decided otherwise."
    )
    if check.judge is None:
        what = "A check of a network or of its bank, which `mcbn doctor` and `collect` make."
        ignoring = (
            "What `mcbn doctor` finds is always shown. A warning is switched off as any other of "
            f'Python: `warnings.filterwarnings("ignore", r".*\\({check.code}\\)")`.'
        )
    parts = ("looks_at", "threshold", "source", "remedy")
    return PAGE.format(
        code=check.code, name=check.name, what=what, ignoring=ignoring,
        **{part: marked(getattr(check, part)) for part in parts},
    )  # fmt: skip


def table(start):
    """The rows of the overview of the checks whose codes begin so."""
    rows = [
        f"| [{check.code}](checks/{check.code}.md) | {check.name} | {marked(check.looks_at)} |"
        for check in CODES.values()
        if check.code.startswith(start)
    ]
    return "\n".join(["| code | name | what it looks at |", "|---|---|---|", *rows])


def overview(text):
    """The overview with its tables as the catalogue has them."""
    for heading, start in FIRST.items():
        pattern = rf"(## {heading}\n.*?)\n\|.*?\n\n"
        text = re.sub(
            pattern,
            lambda found, start=start: f"{found[1]}\n{table(start)}\n\n",
            text,
            flags=re.DOTALL,
        )
    return text


if __name__ == "__main__":
    (DOCS / "checks").mkdir(exist_ok=True)
    for old in (DOCS / "checks").glob("*.md"):
        old.unlink()
    for code, check in CODES.items():
        (DOCS / "checks" / f"{code}.md").write_text(page(check), "utf-8")
    OVERVIEW.write_text(overview(OVERVIEW.read_text("utf-8")), "utf-8")
