"""What the overview and the paper say is in the results that they link."""

import json
import re
from pathlib import Path

import pytest
from result_numbers import decimals, intervals, unknown_decimals, unknown_intervals

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"


def overview():
    """The part of the list of experiments that is before the list."""
    text = (ROOT / "experiments" / "README.md").read_text()
    return text.partition("## What the papers show")[0]


def paper():
    """The paper without its references."""
    return (ROOT / "docs" / "paper.md").read_text().partition("## References")[0]


def blocks(text):
    """List items and paragraphs; a table belongs to the paragraph before it."""
    text = re.sub(r"\n+(?=\|)", "\n", text)
    return [block for block in re.split(r"\n\n|\n(?=\d+\. |- |#)", text) if decimals(block)]


def linked(block):
    """The results of the pages that a block links."""
    names = re.findall(r"/(\w+)\.md\)", block)
    paths = [RESULTS / f"{name}.json" for name in names]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


TEXTS = {"overview": overview, "paper": paper}


@pytest.mark.parametrize("name", TEXTS)
def test_every_number_is_one_of_the_results_that_are_linked_beside_it(name):
    parts = blocks(TEXTS[name]())
    assert len(parts) >= 8
    for block in parts:
        results = linked(block)
        assert results, block
        assert not unknown_decimals(block, results), block
        assert not unknown_intervals(block, results), block


def test_there_are_ten_things_that_are_known_each_with_an_interval():
    items = [block for block in blocks(overview()) if re.match(r"\d+\. ", block)]
    assert [int(item.partition(".")[0]) for item in items] == list(range(1, 11))
    assert all(intervals(item) for item in items)


def test_the_paper_is_of_four_to_six_pages():
    """Of some 600 words, or 400 words and a figure."""
    text = paper()
    pages = len(text.split()) / 600 + text.count("](../experiments/results/") / 3
    assert 4 <= pages <= 6
