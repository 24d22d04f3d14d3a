"""An error raised at a chosen instant of a call, where Python really lets an interrupt in.

CPython 3.11 and later handle a signal at the start of a function, after a call, and where a loop
goes back; never between two other steps. These are the instants, in functions of this package and
of the network's own modules. Left out is what tidies up: context managers and the calls that end
them, where an interrupt can keep something from being given back. After a call the error belongs to
the call itself, which a tracer cannot raise at: an instant is left out where the next step is
guarded by another handler.
"""

import dis
import functools
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import mcbn
from mcbn.network import isolation

PACKAGE = str(Path(mcbn.__file__).parent)
TRACED = (PACKAGE, str(Path(torch.nn.__file__).parent))
TIDYING = str(Path(isolation.__file__))


@functools.lru_cache(None)
def instants(code) -> frozenset[int]:
    """Offsets of the steps of a function before which an interrupt may land."""
    table = dis._parse_exception_table(code)

    def handler(offset):
        return next((e.target for e in table if e.start <= offset < e.end), None)

    steps = list(dis.get_instructions(code))
    after_calls = {
        step.offset
        for before, step in itertools.pairwise(steps)
        if before.opname.startswith("CALL") and handler(before.offset) == handler(step.offset)
    }
    return frozenset(after_calls | {s.offset for s in steps if s.opname == "JUMP_BACKWARD"})


@functools.lru_cache(None)
def is_traced(path: str) -> bool:
    return path.startswith(TRACED) and path != TIDYING


def tidies_up(frame, caller) -> bool:
    """Whether a context manager of ours is at work below `caller`, and not merely a hook of it."""
    while frame is not None and frame is not caller:
        if frame.f_code.co_filename == TIDYING and frame.f_code.co_name != "chosen":
            return True
        frame = frame.f_back
    return False


class Injector:
    """Counts the instants of a call; raises `error` at number `target`, from 1 on."""

    def __init__(self, target: int | None = None, error: type[BaseException] = Exception):
        self.target, self.error = target, error
        self.count, self.where = 0, ""

    def __call__(self, call: Callable):
        before = sys.gettrace()
        self.caller = sys._getframe()
        sys.settrace(self._entered)
        try:
            return call()
        finally:
            sys.settrace(before)

    def _entered(self, frame, event, _):
        if not is_traced(frame.f_code.co_filename) or tidies_up(frame, self.caller):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._instant(frame)
        offsets = instants(frame.f_code)

        def step(frame, event, _):
            if event == "opcode" and frame.f_lasti in offsets:
                self._instant(frame)
            return step

        return step

    def _instant(self, frame):
        self.count += 1
        if self.count == self.target:
            code = frame.f_code
            self.where = f"{code.co_filename}:{frame.f_lineno} {code.co_name} @{frame.f_lasti}"
            raise self.error(f"injected at {self.where}")
