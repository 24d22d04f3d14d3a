"""The command line: chooses the verb, reads its options, runs it, and prints errors.

The code of a verb is imported when the verb runs, so that help and `mcbn study status` do not wait
for torch. Exit codes: 0 for success, 1 for what a verb found (a network to which MCBN cannot be
applied, cells that failed), 2 for an error, 70 for a bug of mcbn, 130 for Ctrl-C.
"""

import inspect
import pkgutil
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser

from mcbn.cli import options

BUG_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h, an internal software error
TRACEBACK = "--traceback"


class Verb(NamedTuple):
    """A verb of the command line.

    Attributes:
        place: module and function of its code, in this package.
        options: class of its options; None if it parses its arguments itself.
        summary: one line for the list of verbs.
        positional: whether required options are positional.
    """

    place: str
    options: type | None
    summary: str
    positional: bool = False


VERBS: Mapping[str, Verb] = {
    "demo": Verb("network:demo", options.DemoOptions,
                 "train on real data, compare methods, study batch sizes, write a report"),
    "doctor": Verb("network:doctor", options.DoctorOptions,
                   "report what MCBN finds in a network and what is wrong"),
    "collect": Verb("network:collect", options.CollectOptions,
                    "collect a bank of batch-norm statistics from training data"),
    "predict": Verb("network:predict", options.PredictOptions,
                    "predict classes or real values, with their uncertainty"),
    "export": Verb("network:export", options.ExportOptions,
                   "write a network and its bank as one .onnx or .pt2 file"),
    "evaluate": Verb("predictions:evaluate", options.EvaluateOptions,
                     "score predictions against their targets"),
    "report": Verb("predictions:report", options.ReportOptions,
                   "write a calibration report; of a study: mcbn report DIR"),
    "study run": Verb("study:run", None, "train and score every cell of a study, or resume it"),
    "study status": Verb("study:status", options.StudyStatusOptions,
                         "show how many cells of a study are finished", positional=True),
    "study table": Verb("study:table", options.StudyTableOptions,
                        "print the results of a study", positional=True),
}  # fmt: skip
# Instead of "report" where its first argument is the folder of a study.
STUDY_REPORT = Verb("study:report", options.StudyReportOptions, "", positional=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line; errors are printed in one line and exit with a code other than 0."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with_traceback = TRACEBACK in words
    name, rest = _split([_with_hyphens(word) for word in words if word != TRACEBACK])
    verb = VERBS[name]
    if name == "report" and rest and not rest[0].startswith("-"):
        verb = STUDY_REPORT
    try:
        # Options come first: help and errors in them do not wait for the code of the verb.
        given = rest if verb.options is None else _parse(f"mcbn {name}", verb, rest)
        pkgutil.resolve_name(f"mcbn.cli.{verb.place}")(given)
    except Exception as error:
        bug = not is_refusal(error)
        if bug or with_traceback:
            traceback.print_exc()
        print(f"mcbn: error: {_bug_message(error) if bug else error}", file=sys.stderr)
        sys.exit(BUG_EXIT_CODE if bug else 2)
    except KeyboardInterrupt:
        print("mcbn: interrupted; no incomplete file was left behind", file=sys.stderr)
        sys.exit(130)


def is_refusal(error: Exception) -> bool:
    """Whether an error is about the user's command or machine, so that it is not a bug of mcbn.

    mcbn says what it expected in every error that it raises on purpose. The machine may lack a
    file, a package or memory.
    """
    if isinstance(error, (OSError, ImportError, MemoryError)):
        return True
    # Of torch, by its name: the command line does not import torch.
    return type(error).__name__ == "OutOfMemoryError" or str(error).startswith("expected ")


def _bug_message(error: Exception) -> str:
    return (
        f"{type(error).__name__}: {error}\nThis is a bug of mcbn, unless the traceback above ends "
        "in your own code. Please report it with the command and the traceback."
    )


def _with_hyphens(word: str) -> str:
    """Spell an option with hyphens, as in the help; underscores are accepted as well."""
    return re.sub("^--[^=]+", lambda option: option[0].replace("_", "-"), word)


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The verb's name and its arguments; ends the process if there is no such verb."""
    if words and words[0] in ("--version", "-V"):
        print(f"mcbn {version('mcbn')}")
        sys.exit(0)
    for count in (2, 1):
        if (name := " ".join(words[:count])) in VERBS and len(words) >= count:
            return name, words[count:]
    asked = bool(words) and words[-1] in ("--help", "-h")
    print(_help(), file=sys.stdout if asked or not words else sys.stderr)
    if words and not asked:
        print(f"mcbn: error: expected a verb, got {' '.join(words[:2])!r}", file=sys.stderr)
    sys.exit(0 if asked else 2)


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        ["usage: mcbn VERB [options]", "", "Bayesian uncertainty from batch normalisation.", "",
         *lines, "",
         "mcbn VERB --help lists the options of a verb, mcbn --version prints the version.",
         f"With any verb, {TRACEBACK} prints where an error was raised."]
    )  # fmt: skip


def _parse(program: str, verb: Verb, words: Sequence[str]) -> Any:
    """The options of a verb, parsed from its arguments."""
    kind: Any = verb.options
    summary, example = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[:2]
    parser = ArgumentParser(
        prog=program, description=summary, epilog=example, allow_abbrev=False,
        print_config="--print-config",
    )  # fmt: skip
    parser.add_argument("--config", action="config", help="YAML file of these options")
    parser.add_argument(TRACEBACK, action="store_true", help="print where an error was raised")
    parser.add_class_arguments(kind, as_positional=verb.positional)
    for action in parser._actions:  # fields have underscores, options hyphens
        action.option_strings = [_with_hyphens(word) for word in action.option_strings]
        parser._option_string_actions |= dict.fromkeys(action.option_strings, action)
    values = parser.parse_args(list(words)).as_dict()
    return kind(**{name: values[name] for name in kind.__dataclass_fields__})
