"""Where the results go: marked parts of docs/performance.md, and the forms of their tables."""

from pathlib import Path

from mcbn.io.atomic import write_whole

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def put(part: str, text: str) -> None:
    """Write a text into the page, between the marks of its part."""
    write_whole(PAGE, with_part(PAGE.read_text(), part, text).encode())


def with_part(page: str, part: str, text: str) -> str:
    """A page with one of its parts made anew."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{text}\n{end}{rest.split(end)[1]}"


def judged(value: float | None, bar: float | None) -> str:
    """A value, its target and whether it is met."""
    if value is None:
        return "-"
    if bar is None:
        return f"{value:.2f}"
    met = value <= bar
    # With as many digits as it takes to see on which side it is.
    shown = f"{value:.2f}" if met or f"{value:.2f}" != f"{bar:.2f}" else f"{value:.3f}"
    return f"{shown}, bar {bar:.2f}: {'met' if met else 'not met'}"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
