"""The command line: finds the verb, reads its options, and ends in one line when something fails.

A verb's module is imported when the verb is chosen, so that `mcbn study status` and the help do not
wait for torch.
"""

import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from jsonargparse import ArgumentParser

# Where each verb is, and what it is for.
VERBS: Mapping[str, tuple[str, str]] = {
    "demo": ("network:demo", "train on real data, wrap, compare, study batch sizes, report"),
    "doctor": ("network:doctor", "say what MCBN finds in a network, before any work"),
    "collect": ("network:collect", "draw a bank of batch-norm statistics from training data"),
    "predict": ("network:predict", "predict classes or real values, and their uncertainty"),
    "export": ("network:export", "write a network and its bank as one .onnx or .pt2 file"),
    "evaluate": ("predictions:evaluate", "score predictions against their targets"),
    "report": (
        "predictions:report",
        "write a calibration report, or that of a study: report DIR",
    ),
    "study run": ("study:run", "train and score every cell of a study, or resume it"),
    "study status": ("study:status", "say how far a study is"),
    "study table": ("study:table", "print the results of a study"),
}
# Of the study of a folder, where `report` is given one.
STUDY_REPORT = "study:report"
# The verb that reads its own command line, since every key of a study is an option of it.
OWN_OPTIONS = "study run"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit 0 only on success, with one line of error else."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name, rest = _verb(given)
    place, _ = VERBS[name]
    if name == "report" and rest and not rest[0].startswith("-"):
        place = STUDY_REPORT
    try:
        verb = pkgutil.resolve_name(f"mcbn.cli.{place}")
        if name == OWN_OPTIONS:
            verb(rest)
        else:
            # A study is named by its folder alone; what a network needs is named by options.
            positional = place.startswith("study:")
            verb(**_options(f"mcbn {name}", verb, rest, positional=positional))
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        print(f"mcbn: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("mcbn: interrupted; nothing half-written was left", file=sys.stderr)
        sys.exit(130)


def _verb(given: list[str]) -> tuple[str, list[str]]:
    """The verb's name and what follows it; ends the process where there is none to run."""
    if given and given[0] in ("--version", "-V"):
        print(f"mcbn {version('mcbn')}")
        sys.exit(0)
    for words in (2, 1):
        if (name := " ".join(given[:words])) in VERBS and len(given) >= words:
            return name, given[words:]
    asked = bool(given) and given[-1] in ("--help", "-h")
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in VERBS.items()]
    text = "\n".join(
        ["usage: mcbn VERB [options]", "", "Uncertainty from batch normalisation.", "", *lines, "",
         "mcbn VERB --help lists the options of a verb; mcbn --version the version."]
    )  # fmt: skip
    print(text, file=sys.stdout if asked or not given else sys.stderr)
    if given and not asked:
        print(f"mcbn: error: expected a verb, got {' '.join(given[:2])!r}", file=sys.stderr)
    sys.exit(0 if asked else 2)


def _options(
    program: str, verb: Callable[..., None], rest: Sequence[str], *, positional: bool
) -> dict[str, Any]:
    """The verb's arguments, read by a parser that is made of its signature and docstring."""
    summary, example = inspect.cleandoc(verb.__doc__ or "").split("\n\n")[:2]
    parser = ArgumentParser(prog=program, description=summary, epilog=example, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file of these options")
    parser.add_function_arguments(verb, as_positional=positional)
    options: dict[str, Any] = parser.parse_args(list(rest)).as_dict()
    options.pop("config", None)
    return options
