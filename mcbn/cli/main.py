"""The command line: chooses the verb, reads its options, runs it, and prints errors.

The code of a verb is imported when the verb runs, so that help and `mcbn study status` do not wait
for torch. Exit codes: 0 for success, 1 for what a verb found (a network to which MCBN cannot be
applied, cells that failed), 2 for an error, 70 for a bug of mcbn, 130 for Ctrl-C.
"""

import os
import pkgutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from mcbn.cli import options
from mcbn.cli.arguments import (
    converted,
    options_of,
    pairs,
    require_clear,
    require_known,
    require_once,
)
from mcbn.cli.configuration import print_options, read_texts
from mcbn.cli.effects import require_other_files, require_places, say_without_effect
from mcbn.cli.usage import usage

BUG_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h, an internal software error
TRACEBACK = "--traceback"
CONFIG, PRINT_CONFIG = GENERAL = ("config", "print-config")  # options of every verb


class Verb(NamedTuple):
    """A verb of the command line.

    Attributes:
        place: module and function of its code, in this package.
        options: class of its options; None if it parses its arguments itself.
        summary: one line for the list of verbs.
        positional: option of which a word without a name is a value, if there is one.
        metavar: what stands for it in the help.
    """

    place: str
    options: Any
    summary: str
    positional: str = ""
    metavar: str = ""


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
                     "score predictions against their targets", "predictions", "FILE"),
    "report": Verb("predictions:report", options.ReportOptions,
                   "write a calibration report; of a study: mcbn report DIR", "predictions",
                   "FILE..."),
    "study run": Verb("study:run", None, "train and score every cell of a study, or resume it"),
    "study status": Verb("study:status", options.StudyStatusOptions,
                         "show how many cells of a study are finished", "study", "DIR"),
    "study table": Verb("study:table", options.StudyTableOptions,
                        "print the results of a study", "study", "DIR"),
}  # fmt: skip
# Instead of "report" where what it is given is the folder of a study.
STUDY_REPORT = Verb("study:report", options.StudyReportOptions, "", "study", "DIR")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line; errors are printed in one line and exit with a code other than 0."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with_traceback = TRACEBACK in words
    name, rest = _split([word for word in words if word != TRACEBACK])
    verb = VERBS[name]
    try:
        if name == "report" and _is_of_study(rest):
            verb = STUDY_REPORT
        # Options come first: help and errors in them do not wait for the code of the verb.
        given = rest if verb.options is None else parse(f"mcbn {name}", verb, rest)
        pkgutil.resolve_name(f"mcbn.cli.{verb.place}")(given)
    except BrokenPipeError:  # whoever reads the output, such as `head`, wants no more of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except Exception as error:
        bug = not is_refusal(error)
        if bug or with_traceback:
            traceback.print_exc()
        print(f"mcbn: error: {(_bug_message if bug else _refusal)(error)}", file=sys.stderr)
        sys.exit(BUG_EXIT_CODE if bug else 2)
    except KeyboardInterrupt:
        print("mcbn: interrupted; no incomplete file was left behind", file=sys.stderr)
        sys.exit(130)


def parse(program: str, verb: Verb, words: Sequence[str]) -> Any:
    """The options of a verb from its arguments; prints help and ends the process if asked to.

    Raises:
        FileNotFoundError: there is no such file of options.
        ValueError: an argument is unknown, missing, ambiguous, given twice or not of its kind.
    """
    if {"-h", "--help"} & set(words):
        print(usage(program, verb.options, positional=verb.positional, metavar=verb.metavar))
        sys.exit(0)
    program += " DIR" if verb is STUDY_REPORT else ""
    options = options_of(verb.options)
    switches = [name for name, option in options.items() if option.kind is bool]
    given = pairs(words, [*switches, PRINT_CONFIG])
    for name in (name for name, _ in given if name):
        require_known(f"--{name}", [f"--{each}" for each in (*options, *GENERAL)], program)
    require_once(given, [name for name, option in options.items() if option.kind is list])
    require_clear(words, options, verb.positional, program)
    texts: dict[str, list[str]] = {}
    for name, value in given:
        texts.setdefault(name or verb.positional, []).append(value or "")
    to_print = texts.pop(PRINT_CONFIG, ["false"]) == ["true"]
    if CONFIG in texts:
        texts = read_texts(texts.pop(CONFIG)[0], options, program) | texts
    values = {
        option.field: converted(option, texts[name]) if name in texts else option.default
        for name, option in options.items()
    }
    if to_print:
        print_options(values)
        sys.exit(0)
    missing = [name for name, option in options.items() if values[option.field] is MISSING]
    if missing:
        names = " and ".join(verb.metavar if n == verb.positional else f"--{n}" for n in missing)
        raise ValueError(f"expected {names} of {program}, got none; {program} --help explains it")
    say_without_effect([options[name] for name in texts], values)
    require_other_files(options.values(), values)
    require_places(options.values(), values)
    return verb.options(**values)


def _is_of_study(words: Sequence[str]) -> bool:
    """Whether what `mcbn report` is given is the folder of a study."""
    given = pairs(words, [PRINT_CONFIG])
    bare = [value for name, value in given if not name and value]
    if len(bare) != 1 or any(name == "predictions" for name, _ in given):
        return False
    return Path(bare[0]).is_dir()


def is_refusal(error: Exception) -> bool:
    """Whether an error is about the user's command or machine, so that it is not a bug of mcbn.

    mcbn says what it expected in every error that it raises on purpose. The machine may lack a
    file, a package or memory.
    """
    if isinstance(error, (OSError, ImportError, MemoryError)):
        return True
    # Of torch, by its name: the command line does not import torch.
    return type(error).__name__ == "OutOfMemoryError" or str(error).startswith("expected ")


def _refusal(error: Exception) -> str:
    """What is said of an error about the user's command or machine, also if Python raised it."""
    text = " ".join(str(error).split())
    if str(error).startswith("expected "):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"expected to read or write {error.filename}, got: {error.strerror}; check the path, "
            "its permissions and the space on the disk"
        )
    if isinstance(error, ImportError):
        return f"expected modules that can be imported, got: {text}; check --model, or install it"
    if isinstance(error, OSError):
        return f"expected files that can be read and written, got: {text}; check their disk"
    return (
        f"expected enough memory, got too little ({text or 'no more'}); give fewer examples, or a "
        "smaller --batch-size or --chunk where there is one"
    )


def _bug_message(error: Exception) -> str:
    return (
        f"{type(error).__name__}: {error}\nThis is a bug of mcbn, unless the traceback above ends "
        "in your own code. Please report it with the command and the traceback."
    )


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
