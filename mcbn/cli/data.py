"""What --data names: a file, a folder of pictures, or the user's own code that returns examples."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from mcbn.cli import messages
from mcbn.cli.examples import Examples
from mcbn.cli.options.parts import ReadingOptions
from mcbn.cli.paths import is_code
from mcbn.cli.values import names_of
from mcbn.io.suffixes import has_columns
from mcbn.io.tables import objects
from mcbn.network.builders import call_own, own_function, published_transform
from mcbn.network.isolation import random_streams
from mcbn.network.targets import select_targets
from mcbn.tasks.examples import LabeledDataset, as_examples, as_inputs
from mcbn.tasks.folder import (
    group_by_pattern,
    groups_of_pictures,
    halves_said,
    held_out_half,
    labeled,
    labeled_pictures,
    part_folders,
    require_groups_in_one_part,
)
from mcbn.tasks.pictures import UnlabeledPictures, picture_files
from mcbn.tasks.task import Task


def read_data(
    path: str, reading: ReadingOptions, model: str, *, part: str, beside: str | None = None
) -> Examples:
    """The examples that a verb is given.

    Args:
        path: what --data, or another option of its kind, names.
        reading: how they are read.
        model: name of the network, whose transform pictures take by default.
        part: of a task or a folder.
        beside: other data of the verb, which options on how data are read may be for.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: the user's code returns something else.
        ValueError: the data are damaged or not as expected, or an option does not fit them.
    """
    targets = names_of(reading.target)
    if is_code(path):
        examples = _from_code(path, part)
    elif os.path.isdir(path):
        examples = _from_folder(
            path, part, picture_transform(reading.transform, model), reading.group
        )
    elif not has_columns(path):
        examples = Examples.from_file(path)
    else:
        if not targets:
            messages.note(f"all columns of {path} are inputs; give --target for those that are not")
        examples = Examples.from_table(path, targets)
    if reading.part is not None and not examples.is_part and beside is None:
        messages.note(f"--part has no effect on {path}, which has no parts")
    return examples.loaded_by(reading.workers)


def own_transform(name: str) -> Callable[[Any], Any]:
    """The transform that a user's name stands for: the function itself, or what it returns.

    Raises:
        TypeError: it is called without arguments and returns no function.
    """
    with own_function(name) as function:
        if not _takes_nothing(function):
            return function
        made = function()
    if not callable(made):
        raise TypeError(
            f"expected {name} to take a picture, or to return a function that does, got "
            f"{type(made).__name__}; return such as torchvision.transforms.ToTensor()"
        )
    transform: Callable[[Any], Any] = made
    return transform


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a function that is not written in Python
        return False
    return all(
        each.default is not each.empty or each.kind is each.VAR_KEYWORD for each in parameters
    )


def picture_transform(name: str | None, model: str) -> Callable[[Any], Any] | None:
    """The transform of pictures: the user's, or that of the published weights of the network."""
    if name is not None:
        return own_transform(name)
    transform = published_transform(model)
    if transform is not None:
        messages.note(
            f"pictures are transformed as for the published weights of {model}; give --transform "
            "for a network that was trained on others"
        )
    return transform


def _from_folder(
    path: str, part: str, transform: Callable[[Any], Any] | None, pattern: str | None
) -> Examples:
    """Pictures by classes, of one part if there are several, or without classes."""
    name = Path(path).resolve().name
    inner = [each for each in os.scandir(path) if each.is_dir() and not each.name.startswith(".")]
    flat = picture_files(path)
    if flat and inner:
        raise ValueError(
            f"expected pictures in {path} or in its subfolders, got both; move "
            f"{os.path.basename(flat[0])} and the others into a folder of their class"
        )
    if not inner and pattern is not None:
        raise ValueError(
            f"expected --group with pictures in folders of their classes, got {path}, which is not "
            "split; leave it out"
        )
    if not inner:
        pictures = UnlabeledPictures(path, transform)
        names = [os.path.basename(each) for each in pictures.files]
        return Examples(name, LabeledDataset(pictures), index=objects(names))
    folders = part_folders(path)
    root = folders.get(part, Path(path))
    group = None if pattern is None else group_by_pattern(pattern, path)
    if group is not None:
        require_groups_in_one_part(folders, group)
    only = held_out_half(folders, part, group=group) if folders else None
    if only is not None:
        messages.note(halves_said(folders))
    folder = labeled_pictures(root, transform, only=only)
    names = [os.path.relpath(each, root) for each, _ in folder.samples]
    columns = {} if group is None else {"group": objects(groups_of_pictures(folder, group))}
    return Examples.of(name, labeled(folder), classes=tuple(folder.classes), index=objects(names),
                       is_part=bool(folders), columns=columns)  # fmt: skip


def _from_code(name: str, part: str) -> Examples:
    """The examples that a user's function returns."""
    with random_streams(0, "data"):
        made = call_own(name)
    function = name.rpartition(":")[2]
    if isinstance(made, Task):
        return Examples.of(
            made.name, getattr(made, part), classes=made.classes, outputs=made.outputs,
            units=tuple(made.units), target_mean=made.target_mean, target_scale=made.target_scale,
            is_part=True, ignore_index=made.ignore_index, multilabel=made.multilabel,
        )  # fmt: skip
    pair = isinstance(made, (tuple, list)) and len(made) == 2
    if not pair and not isinstance(made, (Dataset, DataLoader)):
        return Examples(function, as_inputs(made, f"the data of {name}"))
    examples = as_examples(made, f"the data of {name}")
    if isinstance(examples, LabeledDataset) and not _has_targets(examples):
        return Examples(function, examples)
    return Examples.of(function, examples)


def _has_targets(examples: LabeledDataset) -> bool:
    """Whether the examples of a data set come with their targets, as the first one does."""
    source: Any = examples.source
    with random_streams(0, "first"):
        batch = examples.collate([source[0]])
    try:
        select_targets(batch)
    except TypeError:
        return False
    return True
