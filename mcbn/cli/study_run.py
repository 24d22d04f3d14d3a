"""The verb of the command line that runs a study."""

import pkgutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mcbn.cli import messages
from mcbn.cli.options.study import StudyRunOptions
from mcbn.study import declaration
from mcbn.study.executors import named_executor, require_executor
from mcbn.study.plan import Plan
from mcbn.study.store import Store


def run(options: StudyRunOptions) -> None:
    """Train and score every cell of a study, or resume it."""
    _require_single_keys(options.keys)
    shard = _shard(options.shard)
    require_executor(options.executor)
    overrides = [*(["--print-config"] if options.print_config else []), *options.keys]
    plan = declaration.read(options.study, overrides, model=options.model)
    study = _run(plan, options, shard)
    messages.show(_summary(study), study_counts(study), json=options.json)
    if study.failures:
        cell, reason = next(iter(study.failures.items()))
        messages.error(
            f"expected every cell to run, got {len(study.failures)} that failed, the first {cell}: "
            f"{reason}; remove the cause and run the same command with --retry"
        )
        sys.exit(1)
    if not study.missing and not options.json:
        messages.say(f"Report: mcbn report {options.out}")


def keys() -> str:
    """The help of the keys of a study."""
    text = declaration.make_parser().format_help()
    start = "The plan of a batch-size study"
    return f"{start}{text.partition(start)[2]}"


def study_counts(study: Any) -> dict[str, int]:
    """How many cells a study has, and how many of them are finished, failed and to do."""
    done, failed = len(study.results), len(study.failures)
    return {"cells": done + failed + study.missing, "done": done, "failed": failed,
            "missing": study.missing}  # fmt: skip


def _run(plan: Plan, options: StudyRunOptions, shard: tuple[int, int] | None) -> Any:
    # Imported here, since help and a wrong key do not need it.
    default_jobs, run_study = (
        pkgutil.resolve_name(f"mcbn.study.run:{name}") for name in ("default_jobs", "run_study")
    )
    jobs = options.jobs or default_jobs(plan)
    signal.signal(signal.SIGTERM, _terminated)
    executor = None
    try:
        if options.executor != "processes":
            executor = named_executor(options.executor, jobs)
        return run_study(
            plan, options.out, task=options.task, model=options.model, fit=options.fit,
            jobs=jobs, executor=executor, shard=shard, retry=options.retry,
        )  # fmt: skip
    except (KeyboardInterrupt, SystemExit) as stop:
        _interrupted(options, plan, stop)
    except OSError as error:
        raise OSError(
            f"expected to write to {options.out}, got {error.strerror or error}; free space or "
            "choose another folder and run the same command again, which keeps finished cells"
        ) from error
    finally:
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)


def _require_single_keys(words: Sequence[str]) -> None:
    """Check that no option names a section of a study, or a file of keys."""
    for word in words:
        name = word.partition("=")[0]
        if name.removeprefix("--") in (*declaration.SECTIONS, "config"):
            raise ValueError(
                f"expected single keys of a study, such as --training.epochs 5, got {name}; "
                "write one option per key"
            )


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise ValueError(
            f"expected i/n with 1 <= i <= n for --shard, got {text!r}; give the i-th of n shares"
        )
    return int(index), int(count)


def _terminated(*_: object) -> NoReturn:
    sys.exit(143)


def _interrupted(options: StudyRunOptions, plan: Plan, stop: BaseException) -> NoReturn:
    done = Store(Path(options.out)).keys("cells")
    cells = plan.cells()
    # Cells of the user's own data and training have keys of their own, by the content of these.
    own = options.task is not None or options.fit is not None
    count = min(len(done), len(cells)) if own else sum(cell.key in done for cell in cells)
    messages.interrupted(
        f"{count} of {len(cells)} cells are finished and kept in {options.out}. Run the same "
        "command again to resume."
    )
    sys.exit(stop.code if isinstance(stop, SystemExit) else 130)


def _summary(study: Any) -> str:
    counts = study_counts(study)
    missing = f", {study.missing} left to other shards" if study.missing else ""
    return f"{counts['done']} of {counts['cells']} cells done, {counts['failed']} failed{missing}"
