"""An error raised at a chosen instant of a call, where Python really lets an interrupt in.

CPython 3.11 and later handle a signal at the start of a function, after a call, and where a loop
goes back; never between two other steps. So these are the instants, of frames of this package, of
torch and of contextlib. After a call the error belongs to the call itself, which a tracer cannot
raise at: an instant is left out where the next step is guarded by another handler.
"""

import contextlib
import dis
import functools
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import mcbn

PACKAGE, TORCH = str(Path(mcbn.__file__).parent), str(Path(torch.__file__).parent)
TRACED = (PACKAGE, TORCH, contextlib.__file__)
# Of the compiler and the exporter: hundreds of thousands of steps that know no model of the user's.
LEFT_OUT = tuple(
    f"{TORCH}/{name}/" for name in ("_dynamo", "_export", "_inductor", "_subclasses", "_decomp",
                                    "_refs", "_prims_common", "_prims", "_higher_order_ops",
                                    "fx/experimental", "onnx", "utils/_sympy", "export", "testing")
)  # fmt: skip


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
    return path.startswith(TRACED) and not path.startswith(LEFT_OUT)


class Injector:
    """Counts the instants of a call; raises `error` at number `target`, from 1 on.

    Frames of files under `left_out` have none.
    """

    def __init__(
        self,
        target: int | None = None,
        error: type[BaseException] = Exception,
        left_out: tuple[str, ...] = (),
    ):
        self.target, self.error, self.left_out = target, error, left_out
        self.count, self.where = 0, ""

    def __call__(self, call: Callable):
        before = sys.gettrace()
        sys.settrace(self._entered)
        try:
            return call()
        finally:
            sys.settrace(before)

    def _entered(self, frame, event, _):
        path = frame.f_code.co_filename
        if not is_traced(path) or path.startswith(self.left_out):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._instant(frame)
        return self._step

    def _step(self, frame, event, _):
        if event == "opcode" and frame.f_lasti in instants(frame.f_code):
            self._instant(frame)
        return self._step

    def _instant(self, frame):
        self.count += 1
        if self.count == self.target:
            code = frame.f_code
            self.where = f"{code.co_filename}:{frame.f_lineno} {code.co_name} @{frame.f_lasti}"
            raise self.error(f"injected at {self.where}")
