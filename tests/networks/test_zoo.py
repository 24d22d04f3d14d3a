"""Strangers' networks: each entry answers each network exactly, refuses in words, or warns."""

import pytest
from zoo.known import KNOWN
from zoo.law import ENTRIES, verdict
from zoo.listed import STRANGERS


def known_to_fail(name):
    """Entries that are not right yet, of those named or of whole families."""
    named = {*KNOWN.get(name, "").split(", ")}
    return {entry for entry in ENTRIES if {entry, entry.split()[0]} & named}


@pytest.mark.parametrize("name", STRANGERS)
def test_every_entry_is_exact_or_refuses_or_warns(name):
    stranger = STRANGERS[name]
    verdicts = {entry: verdict(stranger, entry) for entry in ENTRIES}
    asked = {entry: found for entry, found in verdicts.items() if found.kind != "absent"}
    wrong = {
        entry: f"expected {' or '.join(stranger.allowed(entry))}, got {found.kind}: {found.text}"
        for entry, found in asked.items()
        if found.kind not in stranger.allowed(entry)
    }
    known = known_to_fail(name) & set(asked)
    right = sorted(known - set(wrong))
    assert not right, f"these are right now, so take them out of zoo/known.py: {right}"
    assert set(wrong) <= known, {entry: wrong[entry] for entry in wrong if entry not in known}
    if wrong:
        pytest.xfail(str(wrong))


def test_what_is_known_to_fail_is_in_the_zoo():
    names = {*ENTRIES, *(entry.split()[0] for entry in ENTRIES)}
    assert set(KNOWN) <= set(STRANGERS)
    assert all({*entries.split(", ")} <= names for entries in KNOWN.values())


def test_there_are_many_networks():
    assert len(STRANGERS) >= 90
