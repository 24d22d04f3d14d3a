"""The verbs of the command line for studies."""

import argparse
import difflib
import pkgutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mcbn.cli.arguments import pairs, require_known, require_once
from mcbn.cli.options import StudyReportOptions, StudyStatusOptions, StudyTableOptions
from mcbn.io.atomic import write_whole
from mcbn.study import declaration
from mcbn.study.executors import named_executor
from mcbn.study.plan import Plan
from mcbn.study.results import Study, to_csv, to_markdown, to_parquet
from mcbn.study.run import default_jobs, run_study
from mcbn.study.store import Store

RUN = """Train and score every cell of a study, in processes of this machine or on a cluster.

Finished networks and cells are kept in the folder: however a run ends, the same command resumes it.
Every key of the file can be overridden, as in --training.epochs 5 or --seeds '[0, 1]'."""
SWITCHES = ("retry", "print-config")
EXAMPLE = "Example: mcbn study run experiments/studies/digits.yaml --out digits --jobs 2"


def run(arguments: Sequence[str]) -> None:
    """Train and score every cell of a study, or resume it."""
    options, overrides = _split(arguments)
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
            f"expected to write to {options.out}, got {error.strerror or error}; free space or "
            "choose another folder and run the same command again, which keeps finished cells"
        ) from error
    finally:
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
    print(_summary(study))
    if study.failures:
        cell, reason = next(iter(study.failures.items()))
        print(
            f"mcbn: error: {len(study.failures)} cells failed; the first, {cell}: {reason}\n"
            "Remove the cause and run the same command with --retry.",
            file=sys.stderr,
        )
        sys.exit(1)
    if not study.missing:
        print(f"Report: mcbn report {options.out}")


def status(options: StudyStatusOptions) -> None:
    """Show how many cells of a study are finished, failed and running."""
    study, store = Study.load(options.study), Store.open(options.study)
    networks = {n.key for c in study.plan.cells() for n in c.networks if not n.published}
    done, failed = len(study.results), len(study.failures)
    print(f"{study.plan.title}")
    print(f"  cells     {done} of {done + failed + study.missing} done, {failed} failed, "
          f"{study.missing} to do")  # fmt: skip
    print(f"  networks  {len(networks & store.keys('networks'))} of {len(networks)} trained")
    print(f"  running   {len(store.running())}")
    for cell, error in study.failures.items():
        print(f"  failed    {cell}: {error}")


def table(options: StudyTableOptions) -> None:
    """Print the results of a study, or write them to a file."""
    study, out = Study.load(options.study), options.out
    if options.format == "parquet":
        if out is None:
            raise ValueError("expected --out FILE with --format parquet, got none; name a file")
        write_whole(out, to_parquet(study, cost=options.cost))
        return
    to_text = to_csv if options.format == "csv" else to_markdown
    text = to_text(study, cost=options.cost)
    if out is None:
        sys.stdout.write(text)
    else:
        write_whole(out, text.encode())


def report(options: StudyReportOptions) -> None:
    """Write the report of a study."""
    # Imported here, since the other verbs do not need figures and torch.
    report_class = pkgutil.resolve_name("mcbn.report.report:Report")
    page = report_class.from_study(Study.load(options.study))
    print(f"Report: {page.write(options.out or options.study)}")


def _split(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of the verb, and those that override keys of the study."""
    parser = _run_parser()
    if {"-h", "--help"} & set(arguments):
        parser.parse_args(["--help"])
    own = {word for action in parser._actions for word in action.option_strings}
    given = pairs(arguments, SWITCHES)
    require_once(given)
    words: list[str] = []
    overrides: list[str] = []
    for name, value in given:
        if name in (*declaration.SECTIONS, "config"):
            raise ValueError(
                f"expected single keys of a study, such as --training.epochs 5, got --{name}; "
                "write one option per key"
            )
        option = f"--{name}"
        if difflib.get_close_matches(option, own, cutoff=0.8):
            require_known(option, own, "mcbn study run")
        text = option if name in SWITCHES and value == "true" else f"{option}={value}"
        if not name:
            words.append(str(value))
        else:
            (words if option in own else overrides).append(text)
    return parser.parse_args(words), overrides


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mcbn study run", description=RUN, epilog=f"{EXAMPLE}\n\n{_keys()}",
        allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("study", help="YAML file of the study")
    parser.add_argument("--out", required=True, help="folder of the results; runs may share it")
    add = parser.add_argument
    jobs = "cells to run at once on this machine; by default as many as fill the cores"
    add("--jobs", type=_count, metavar="N", help=jobs)
    executor = "processes, ray, ray://host:port, ray:auto or dask://host:port"
    add("--executor", default="processes", metavar="NAME", help=executor)
    shard = "run only the i-th of n shares of the cells, as in an array of batch jobs"
    add("--shard", type=_shard, metavar="i/n", help=shard)
    add("--retry", action="store_true", help="run failed networks and cells again")
    model = "function that builds the networks, instead of network.names; its code is run"
    add("--model", metavar="module:function", help=model)
    add("--traceback", action="store_true", help="print where an error was raised")
    return parser


def _keys() -> str:
    """The help of the keys of a study."""
    text = declaration.make_parser().format_help()
    start = "The plan of a batch-size study"
    return (
        "--print-config prints the resulting file of the study, and ends.\n\n"
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
          "Run the same command again to resume.", file=sys.stderr)  # fmt: skip
    sys.exit(stop.code if isinstance(stop, SystemExit) else 130)


def _summary(study: Study) -> str:
    total = len(study.results) + len(study.failures) + study.missing
    missing = f", {study.missing} left to other shards" if study.missing else ""
    return f"{len(study.results)} of {total} cells done, {len(study.failures)} failed{missing}"
