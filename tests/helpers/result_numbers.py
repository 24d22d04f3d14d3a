"""Which numbers of a page are not those of the results that it reports."""

import re

FIGURE = r"[-+]?\d*\.?\d+"


def numbers(value):
    """Every number in a result, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def sibling_numbers(value):
    """The numbers of each list or mapping in a result."""
    if isinstance(value, (dict, list)):
        inside = list(value.values()) if isinstance(value, dict) else value
        yield [n for n in inside if isinstance(n, (int, float)) and not isinstance(n, bool)]
        for each in inside:
            yield from sibling_numbers(each)


def rounds_to(number, figure):
    decimals = len(figure.partition(".")[2])
    return abs(number - abs(float(figure))) <= 0.5000001 * 10.0**-decimals


def decimals(text):
    """The decimal numbers of a text; those in file names and links are not results."""
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    return re.findall(r"(?<![\w.])[-+]?\d*\.\d+(?![\w.]*\d)", prose)


def unknown_decimals(text, result):
    """Those that are no number of the result, rounded to as many digits."""
    known = numbers(result)
    return [
        figure
        for figure in decimals(text)
        if not any(rounds_to(abs(number), figure) for number in known)
    ]


def intervals(text):
    """Every mean with its interval."""
    return re.findall(rf"({FIGURE})(?:\\\*)*\s\[({FIGURE}), ({FIGURE})\]", text)


def unknown_intervals(text, result):
    """Those whose three numbers are not next to each other in the result.

    In a long result one number may occur by chance; three next to each other do not.
    """
    together = [group for group in sibling_numbers(result) if 3 <= len(group) <= 12]
    return [
        figures
        for figures in intervals(text)
        if not any(
            all(any(rounds_to(abs(number), figure) for number in group) for figure in figures)
            for group in together
        )
    ]
