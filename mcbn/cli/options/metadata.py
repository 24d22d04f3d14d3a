"""Metadata of options: what the fields of their classes say besides a type, a default and a help.

`mcbn.cli.declarations` says what each entry means.
"""

from collections.abc import Mapping
from typing import Any

Metadata = Mapping[str, Any]

# A text may hold several names with commas between them.
NAMES: Metadata = {"commas": True}
# Formats of the files of figures.
FIGURES: Metadata = {"commas": True}
UNITS: Metadata = {**NAMES, "repeats": True}
PRECISIONS: Metadata = {"commas": True, "repeats": True}
# Files to read, and what they are.
MODEL: Metadata = {"role": "model", "noun": "builds the network"}
TASK: Metadata = {"role": "model", "noun": "returns the task"}
FIT: Metadata = {"role": "model", "noun": "trains the network"}
TRANSFORM: Metadata = {"role": "model", "noun": "makes a tensor of a picture"}
DATA: Metadata = {"role": "data", "noun": "a data file"}
EXAMPLES: Metadata = {
    **DATA,
    "forms": 'a .npz or .safetensors file with "inputs", a .npy file of inputs, a table of numbers '
    "(.csv, .tsv or .parquet), a folder of pictures with a subfolder per class or without any, or "
    "file.py:function that returns a Dataset, a DataLoader, a Task or (inputs, targets)",
}
SWEPT: Metadata = {"role": "data", "noun": "a task"}
WEIGHTS: Metadata = {"role": "input", "noun": "a checkpoint"}
BANK: Metadata = {"role": "input", "noun": "a bank"}
PREDICTIONS: Metadata = {"role": "input", "noun": "a file of predictions", "named": True}
DRIFT: Metadata = {"role": "input", "noun": "a result of mcbn drift --json", "named": True}
DECLARATION: Metadata = {"role": "input", "noun": "a study"}
STUDY: Metadata = {"role": "study"}
# Files to write: one, the pages of a report in a folder, or those of the demo in its own.
OUTPUT: Metadata = {"role": "output"}
REPORT: Metadata = {"role": "report"}
DEMO: Metadata = {"role": "demo"}
RESUMED: Metadata = {"role": "resumed"}
# Another option without which, or without one of whose values, this one has no effect.
ONLY_ROOT: Metadata = {"only": ("data", "mnist", "cifar10")}
ONLY_MCBN: Metadata = {"only": ("method", "mcbn")}
ONLY_DROPOUT: Metadata = {"only": ("method", "dropout")}
ONLY_DRAWS_OUT: Metadata = {"only": ("draws_out",)}
ONLY_AUTO: Metadata = {"only": ("precision", "auto")}
ONLY_GAUSSIAN: Metadata = {"only": ("likelihood", "gaussian")}
# Whole numbers, and those from 1.
WHOLE: Metadata = {"least": 0}
POSITIVE: Metadata = {"least": 1}
# All options that the verb does not declare.
OTHERS: Metadata = {"others": True}
