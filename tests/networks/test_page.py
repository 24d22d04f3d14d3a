"""The page of the compatibility matrix is what its results say."""

import json
import re
from collections import Counter

from page import PAGE, RESULTS, STATUSES, rendered

RECORD = json.loads(RESULTS.read_text())


def test_the_page_is_the_one_of_the_results():
    assert PAGE.read_text() == rendered(RECORD)


def test_nothing_is_wrong_and_nothing_unknown():
    found = Counter(outcome["status"] for outcome in RECORD["outcomes"].values())
    assert set(found) <= set(STATUSES) - {"wrong"}
    assert found["exact"] > 100


def test_the_counts_on_the_page_are_those_of_the_results():
    total = next(line for line in PAGE.read_text().splitlines() if line.startswith("| all |"))
    assert sum(int(cell) for cell in total.split("|")[3:-1]) == len(RECORD["outcomes"])


def test_every_package_has_its_version():
    packages = {outcome["package"] for outcome in RECORD["outcomes"].values()}
    assert packages == set(RECORD["versions"])
    for package, version in RECORD["versions"].items():
        assert f"| {package} | {version} |" in PAGE.read_text()


def test_the_lock_of_the_matrix_names_no_host_and_pins_the_same_network_library():
    lock, ordinary = (
        (PAGE.parents[1] / name).read_text()
        for name in ("requirements-compat.lock", "requirements.lock")
    )
    assert "://" not in lock
    for package in ("torch", "torchvision", "timm", "transformers"):
        pin = re.search(rf"^{package}==\S+", lock, flags=re.MULTILINE).group()
        assert f"\n{pin} " in ordinary
