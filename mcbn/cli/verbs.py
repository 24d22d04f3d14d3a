"""The verbs of the command line: a new one is a class of options, a function, and a line here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mcbn.cli.declarations import Option, options_of
from mcbn.cli.options import general, network, predictions, study

WRITING = ("output", "report")  # roles of options whose files are replaced only if asked for


class Verb(NamedTuple):
    """A verb of the command line.

    Attributes:
        place: module and function of its code, in this package.
        options: class of its options.
        summary: one line for the list of verbs.
        positional: option of which a word without a name is a value, if there is one.
        metavar: what stands for it in the help.
    """

    place: str
    options: Any
    summary: str
    positional: str = ""
    metavar: str = ""

    def declared(self) -> dict[str, Option]:
        """The options of this verb alone, by name; without that of all others."""
        return {name: each for name, each in options_of(self.options).items() if not each.others}

    def others(self) -> Option | None:
        """The option that holds all options that are not declared, if there is one."""
        return next((each for each in options_of(self.options).values() if each.others), None)

    def general(self) -> dict[str, Option]:
        """The options that this verb has in common with others, by name."""
        kinds: list[Any] = [general.GeneralOptions]
        if any(each.role in WRITING for each in self.declared().values()):
            kinds.insert(0, general.ForceOptions)
        if self.others() is None:
            kinds.insert(1, general.FileOptions)
        declared = self.declared()
        return {
            name: each
            for kind in kinds
            for name, each in options_of(kind).items()
            if name not in declared
        }


VERBS: Mapping[str, Verb] = {
    "demo": Verb("network:demo", network.DemoOptions,
                 "train on real data, compare methods, study batch sizes, write a report"),
    "doctor": Verb("network:doctor", network.DoctorOptions,
                   "report what MCBN finds in a network and what is wrong"),
    "collect": Verb("network:collect", network.CollectOptions,
                    "collect a bank of batch-norm statistics from training data"),
    "predict": Verb("predict:predict", network.PredictOptions,
                    "predict classes or real values, with their uncertainty"),
    "drift": Verb("drift:drift", network.DriftOptions,
                  "test whether data are drawn from what a bank was drawn from"),
    "export": Verb("network:export", network.ExportOptions,
                   "write a network and its bank as one .onnx or .pt2 file"),
    "evaluate": Verb("evaluate:evaluate", predictions.EvaluateOptions,
                     "score predictions against their targets", "predictions", "FILE"),
    "report": Verb("report:report", predictions.ReportOptions,
                   "write a calibration report; of a study: mcbn report DIR", "predictions",
                   "FILE..."),
    "check": Verb("check:check", predictions.CheckOptions,
                  "check predictions as a linter does; of a study: mcbn check DIR", "predictions",
                  "FILE..."),
    "sweep": Verb("sweep:sweep", study.SweepOptions,
                  "compare a trained network over batch sizes, and recommend one"),
    "study run": Verb("study_run:run", study.StudyRunOptions,
                      "train and score every cell of a study, or resume it", "study", "FILE"),
    "study status": Verb("study:status", study.StudyStatusOptions,
                         "show how many cells of a study are finished", "study", "DIR"),
    "study table": Verb("study:table", study.StudyTableOptions,
                        "print the results of a study", "study", "DIR"),
    "completion": Verb("completion:completion", general.CompletionOptions,
                       "print the script that completes commands in a shell", "shell", "SHELL"),
}  # fmt: skip
# Instead of these where what they are given is the folder of a study.
STUDY_VERBS: Mapping[str, Verb] = {
    "report": Verb("study:report", study.StudyReportOptions, "", "study", "DIR"),
    "check": Verb("check:check_study", study.StudyCheckOptions, "", "study", "DIR"),
}
# Words before several verbs.
GROUPS: Mapping[str, str] = {"study": "run a study of batch sizes, and show its results"}
