"""Faults of a disk, at any step of a writer."""

import errno
import os

FAULTS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)


class Fault:
    """Makes the n-th step of a kind fail, and counts the steps."""

    def __init__(self, monkeypatch, name, at, error):
        self.steps, self.at, self.error = 0, at, error
        self.call = getattr(os, name)
        monkeypatch.setattr(os, name, self)

    def __call__(self, *args, **options):
        self.steps += 1
        if self.steps == self.at:
            raise self.error
        return self.call(*args, **options)


def faults_of(act, monkeypatch, step, error):
    """What an act raised for every place at which a step can fail, and at which it did."""
    at = 0
    while True:
        at += 1
        with monkeypatch.context() as patch:
            fault = Fault(patch, step, at, error)
            try:
                act()
                told = None
            except (OSError, KeyboardInterrupt) as found:
                told = found
        if fault.steps < at:  # it went through: there was no such step
            return
        yield told
