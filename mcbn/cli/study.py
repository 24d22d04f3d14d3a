"""The verbs of the command line for studies."""

import argparse
import pkgutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

from mcbn.io.atomic import write_whole
from mcbn.study import declaration
from mcbn.study.executors import named_executor
from mcbn.study.plan import Plan
from mcbn.study.results import Study, to_csv, to_markdown, to_parquet
from mcbn.study.run import default_jobs, run_study
from mcbn.study.store import ERROR, Store

RUN = """Train and score every cell of a study, in processes of this machine or on a cluster.

What is finished is kept in the folder at once and never done again: however a run ends, the same
command goes on where it stopped. Every key of the declaration can be given on top of the file, as
--training.epochs 5 or --seeds '[0, 1]'."""
EXAMPLE = "Example: mcbn study run experiments/studies/digits.yaml --out digits --jobs 2"


def run(arguments: Sequence[str]) -> None:
    """Train and score every cell of a study, or resume it."""
    options, overrides = _run_parser().parse_known_args(list(arguments))
    plan = declaration.read(options.study, overrides, model=options.model)
    jobs = options.jobs or default_jobs(plan)
    signal.signal(signal.SIGTERM, _terminated)
    executor = None
    try:
        if options.executor != "processes":
            executor = named_executor(options.executor, jobs)
        study = run_study(
            plan, options.out, jobs=jobs, executor=executor, shard=options.shard,
            retry=options.retry,
        )  # fmt: skip
    except (KeyboardInterrupt, SystemExit) as stop:
        _interrupted(options.out, plan, stop)
    except OSError as error:
        raise OSError(
            f"expected to write to {options.out}, got {error.strerror or error}; free or choose a "
            "place and run the same command again: what is finished is kept"
        ) from error
    finally:
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
    print(_summary(study))
    if study.failures:
        cell, reason = next(iter(study.failures.items()))
        print(f"mcbn: error: {len(study.failures)} cells failed; the first, {cell}: {reason}\n"
              "Mend the cause and run the same command with --retry.", file=sys.stderr)  # fmt: skip
        sys.exit(1)
    if not study.missing:
        print(f"Report: mcbn report {options.out}")


def status(study: str) -> None:
    """Say how far a study is, also while it runs.

    Example: mcbn study status digits

    Args:
        study: folder of the study.
    """
    store = Store.open(study)
    plan = declaration.read_stored(store.declaration)
    cells = plan.cells()
    keys = {cell.key for cell in cells}
    networks = {n.key for cell in cells for n in cell.networks if not n.published}
    done, failed = keys & store.keys("cells"), keys & store.keys("failures")
    print(f"{plan.title}")
    print(f"  cells     {len(done)} of {len(keys)} done, {len(failed)} failed, "
          f"{len(keys) - len(done) - len(failed)} to do")  # fmt: skip
    print(f"  networks  {len(networks & store.keys('networks'))} of {len(networks)} trained")
    print(f"  running   {len(store.in_work())}")
    for cell in (cell for cell in cells if cell.key in failed):
        error = store.read_json("failures", cell.key, ERROR).get("error")
        print(f"  failed    {cell}: {error}")


def table(
    study: str,
    format: Literal["csv", "parquet", "md"] = "csv",
    out: str | None = None,
    cost: bool = False,
) -> None:
    """Print the results of a study, a row a cell, also while it runs.

    Example: mcbn study table digits --format md

    Args:
        study: folder of the study.
        format: csv and parquet have every score in full; md is to read.
        out: file to write instead of printing; parquet needs one.
        cost: add the seconds of each cell, which differ from run to run.
    """
    found = Study.load(study)
    if format == "parquet":
        if out is None:
            raise ValueError("expected --out FILE with --format parquet, got none; name a file")
        write_whole(out, to_parquet(found, cost=cost))
        return
    text = to_csv(found, cost=cost) if format == "csv" else to_markdown(found, cost=cost)
    if out is None:
        sys.stdout.write(text)
    else:
        write_whole(out, text.encode())


def report(study: str, out: str | None = None) -> None:
    """Write the report of a study.

    Example: mcbn report digits

    Args:
        study: folder of the study.
        out: folder that report.html and report.json are written to; the study's own if not given.
    """
    # Figures and their packages are for this verb alone.
    made = pkgutil.resolve_name("mcbn.report.report:Report").from_study(Study.load(study))
    print(f"Report: {made.write(out or study)}")


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mcbn study run", description=RUN, epilog=f"{EXAMPLE}\n\n{_keys()}",
        allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("study", help="YAML file of the declaration")
    parser.add_argument("--out", required=True, help="folder of the results; runs may share it")
    add = parser.add_argument
    few = "cells at once on this machine; by default as many as the cores have room for"
    add("--jobs", type=_count, metavar="N", help=few)
    where = "processes, ray, ray://host:port, ray:auto or dask://host:port"
    add("--executor", default="processes", metavar="NAME", help=where)
    share = "do only the i-th of n shares, as in an array of batch jobs"
    add("--shard", type=_shard, metavar="i/n", help=share)
    add("--retry", action="store_true", help="do again what failed before")
    own = "builds the networks, in place of network.names; its code is run"
    add("--model", metavar="module:function", help=own)
    return parser


def _keys() -> str:
    """The keys of a declaration with their meanings, as help."""
    text = declaration.parser().format_help()
    start = "A batch-size study as declared"
    return (
        "--print_config prints the declaration with all that is given, and ends.\n\n"
        f"{start}{text.partition(start)[2]}"
    )


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected i/n with 1 <= i <= n, got {text!r}")
    return int(index), int(count)


def _terminated(*_: object) -> NoReturn:
    sys.exit(143)


def _interrupted(out: str, plan: Plan, stop: BaseException) -> NoReturn:
    done = Store(Path(out)).keys("cells")
    cells = plan.cells()
    count = sum(cell.key in done for cell in cells)
    print(f"\nmcbn: interrupted; {count} of {len(cells)} cells are finished and kept in {out}. "
          "Run the same command again to go on.", file=sys.stderr)  # fmt: skip
    sys.exit(stop.code if isinstance(stop, SystemExit) else 130)


def _summary(study: Study) -> str:
    total = len(study.results) + len(study.failures) + study.missing
    rest = f", {study.missing} left to other shards" if study.missing else ""
    return f"{len(study.results)} of {total} cells done, {len(study.failures)} failed{rest}"
