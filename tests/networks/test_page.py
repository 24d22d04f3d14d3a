"""The compatibility page shows the results of the matrix."""

import json
from collections import Counter

from page import PAGE, RESULTS, STATUSES, rendered

RECORD = json.loads(RESULTS.read_text())


def test_the_page_is_rendered_from_the_results():
    assert PAGE.read_text() == rendered(RECORD)


def test_no_network_is_wrong_and_no_status_is_unknown():
    counts = Counter(outcome["status"] for outcome in RECORD["outcomes"].values())
    assert set(counts) <= set(STATUSES) - {"wrong"}
    assert counts["exact"] > 100


def test_the_counts_on_the_page_are_those_of_the_results():
    total = next(line for line in PAGE.read_text().splitlines() if line.startswith("| all |"))
    assert sum(int(cell) for cell in total.split("|")[3:-1]) == len(RECORD["outcomes"])


def test_every_package_has_its_version():
    packages = {outcome["package"] for outcome in RECORD["outcomes"].values()}
    assert packages == set(RECORD["versions"])
    for package, version in RECORD["versions"].items():
        assert f"| {package} | {version} |" in PAGE.read_text()
