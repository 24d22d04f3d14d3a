"""Formats of the files of figures, known without anything that draws them."""

from collections.abc import Sequence

FORMATS = ("pdf", "svg", "png")


def figure_formats(given: str | Sequence[str]) -> tuple[str, ...]:
    """The formats of figure files, each once.

    Args:
        given: one of "pdf", "svg" and "png", or several.

    Raises:
        ValueError: it is another.
    """
    formats = (given,) if isinstance(given, str) else tuple(given)
    for each in formats:
        if each not in FORMATS:
            raise ValueError(
                f"expected figures as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got {each!r}; "
                "give one of these, or several"
            )
    return tuple(dict.fromkeys(formats))
