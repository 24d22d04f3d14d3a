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
