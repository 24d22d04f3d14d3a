"""Strangers' networks: each entry answers each network exactly, refuses in words, or warns."""

import pytest
import zoo_page
from zoo.known import KNOWN
from zoo.law import ALL_ENTRIES, ENTRIES, SLOW_ENTRIES, faults, verdict
from zoo.listed import STRANGERS
from zoo.stranger import ABSENT


def known_to_fail(name):
    """Entries that are not right yet, of those named or of whole families."""
    named = {*KNOWN.get(name, "").split(", ")}
    return {entry for entry in ALL_ENTRIES if {entry, entry.split()[0]} & named}


def hold(name, entries):
    """Ask these entries of a network; all that is not right has to be known."""
    verdicts = {entry: verdict(STRANGERS[name], entry) for entry in entries}
    wrong = faults(STRANGERS[name], verdicts)
    asked = {entry for entry, found in verdicts.items() if found.kind != ABSENT}
    known = known_to_fail(name) & asked
    right = sorted(known - set(wrong))
    assert not right, f"these are right now, so take them out of zoo/known.py: {right}"
    assert set(wrong) <= known, {entry: wrong[entry] for entry in wrong if entry not in known}
    if wrong:
        pytest.xfail(str(wrong))


@pytest.mark.parametrize("name", STRANGERS)
def test_every_entry_is_exact_or_refuses_or_warns(name):
    hold(name, ENTRIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", STRANGERS)
def test_every_slow_entry_is_exact_or_refuses_or_warns(name):
    hold(name, SLOW_ENTRIES)


def test_what_is_known_to_fail_is_in_the_zoo():
    names = {*ALL_ENTRIES, *(entry.split()[0] for entry in ALL_ENTRIES)}
    assert set(KNOWN) <= set(STRANGERS)
    assert all({*entries.split(", ")} <= names for entries in KNOWN.values())


def test_there_are_many_networks():
    assert len(STRANGERS) >= 90


def test_the_page_lists_every_network():
    assert zoo_page.listed() - {"---"} == set(STRANGERS)
