"""Folders of pictures, with one subfolder per class, as the three parts of a task."""

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mcbn.network.isolation import derived_seed
from mcbn.tasks.examples import LabeledDataset
from mcbn.tasks.pictures import Transform, reading

# What a picture shares with others, such as its patient, by its path.
Group = Callable[[Path], Any]

# Names of the subfolders of each part.
PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
FRACTIONS = (0.6, 0.15, 0.25)  # of the pictures of a class, for training, validation and testing
HALVES = {"validation": 0.5, "test": 0.5}  # of those held out, where one folder is for both
ROUNDING = 1e-6  # of the sum of fractions


def from_folder(
    path: str | os.PathLike[str],
    *,
    transform: Transform | None,
    train_transform: Transform | None,
    seed: int,
    fractions: Sequence[float],
    num_workers: int,
    group: Group | None = None,
) -> dict[str, Any]:
    """The fields of a task of the pictures in a folder; see `Task.from_folder`."""
    root = Path(path)
    _require_folder(root)
    transforms = {"train": train_transform or transform}
    folders = part_folders(root)
    if folders:
        parts = {
            name: labeled_pictures(folder, transforms.get(name, transform),
                                   only=held_out_half(folders, name, seed, group))
            for name, folder in folders.items()
        }  # fmt: skip
    else:
        chosen = _split(labeled_pictures(root, transform), seed, _shares(fractions), group)
        parts = {name: labeled_pictures(root, transforms.get(name, transform), only=indices)
                 for name, indices in chosen.items()}  # fmt: skip
    _require_same_classes(parts)
    if group is not None:
        _require_other_groups(parts, group)
    return {
        "name": root.resolve().name,
        "description": halves_said(folders),
        "classes": tuple(parts["train"].classes),
        **{name: labeled(part, num_workers) for name, part in parts.items()},
    }


def part_folders(path: str | os.PathLike[str]) -> dict[str, Path]:
    """The folder of each part of a task, by its name; empty if the classes themselves are there.

    Of validation and test one may be missing: then both have the other's folder.

    Raises:
        ValueError: some parts are there and others are not, or one is there twice.
    """
    found = {
        part: [Path(path) / name for name in names if (Path(path) / name).is_dir()]
        for part, names in PARTS.items()
    }
    if not any(found.values()):
        return {}
    one, other = found["validation"], found["test"]
    found |= {"validation": one or other, "test": other or one}
    for part, folders in found.items():
        if len(folders) != 1:
            names, there = " or ".join(PARTS[part]), [each.name for each in folders]
            raise ValueError(
                f"expected one folder {names} in {path}, beside those of the other parts, got "
                f"{' and '.join(there) or 'none'}; add it, or give a folder of classes alone"
            )
    return {part: folders[0] for part, folders in found.items()}


def held_out_half(
    folders: Mapping[str, Path], part: str, seed: int = 0, group: Group | None = None
) -> list[int] | None:
    """The pictures of a part: half of every class where validation and test share a folder.

    Args:
        folders: of each part.
        part: whose pictures they are.
        seed: of the split.
        group: what pictures that stay together share; None to split picture by picture.

    Returns:
        Their places in the folder; None for all.
    """
    if part not in HALVES or folders["validation"] != folders["test"]:
        return None
    return _split(labeled_pictures(folders[part]), seed, HALVES, group)[part]


def group_by_pattern(pattern: str, path: str | os.PathLike[str]) -> Group:
    """What pictures of a folder share, by a pattern in their names.

    Args:
        pattern: a regular expression, searched in the path of a picture inside the folder of its
            class. The first group in parentheses is what pictures share, or else the whole match.
        path: the folder of the classes, or of parts with the classes in each.

    Raises:
        ValueError: it is no regular expression; or, once a picture is asked for, it is not found.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"expected a regular expression for groups, got {pattern!r:.80} ({error}); give such "
            "as '^[^_]+' for what comes before the first _"
        ) from error
    roots = [*part_folders(path).values(), Path(path)]

    def group(picture: Path) -> str:
        root = next(each for each in roots if each in picture.parents)
        inside = Path(*picture.relative_to(root).parts[1:]).as_posix()
        found = compiled.search(inside)
        name = None if found is None else found[1 if compiled.groups else 0]
        if not name:
            raise ValueError(
                f"expected {pattern!r:.80} in the name of every picture, got {inside!r:.80}; give "
                "a pattern that all have"
            )
        return name

    return group


def groups_of_pictures(folder: Any, group: Group) -> list[str]:
    """What each picture of an `ImageFolder` shares with others."""
    return [str(_group_of(path, group)) for path, _ in folder.samples]


def require_groups_in_one_part(folders: Mapping[str, Path], group: Group) -> None:
    """Check that no group has pictures in two folders of parts.

    Raises:
        ValueError: a group has; names it.
    """
    parts = {str(folder): labeled_pictures(folder) for folder in folders.values()}
    _require_other_groups({Path(name).name: part for name, part in parts.items()}, group)


def halves_said(folders: Mapping[str, Path]) -> str:
    """That validation and test are halves of one folder, in words; empty if they are not."""
    if not folders or folders["validation"] != folders["test"]:
        return ""
    return f"half of every class in {folders['test']} is for validation, the other half for testing"


def labeled_pictures(
    path: str | os.PathLike[str],
    transform: Transform | None = None,
    *,
    only: Sequence[int] | None = None,
) -> Any:
    """The pictures in the subfolders of a folder as torchvision's `ImageFolder`.

    Args:
        path: the folder, with a subfolder for each class.
        transform: makes a tensor of a picture in RGB. By default its values are scaled to [0, 1],
            and all pictures have to be of one size.
        only: the pictures to keep, in this order; by default all.

    Raises:
        ValueError: there are no classes, or one without pictures; or the transform makes no
            tensors.
    """
    datasets = importlib.import_module("torchvision.datasets")
    _require_folder(Path(path))
    try:
        folder = datasets.ImageFolder(path, allow_empty=True)
    except FileNotFoundError as error:
        raise ValueError(
            f"expected a subfolder for each class in {path}, got none; put the pictures of each "
            "class into a folder of its name"
        ) from error
    empty = sorted(set(range(len(folder.classes))) - set(folder.targets))
    if empty:
        raise ValueError(
            f"expected pictures in every subfolder of {path}, got none in "
            f"{folder.classes[empty[0]]!r}; remove it, or add pictures of this class"
        )
    if only is not None:
        folder.samples = [folder.samples[index] for index in only]
        folder.targets = [folder.targets[index] for index in only]
        folder.imgs = folder.samples
    if folder.samples:
        folder.loader, folder.transform = reading(folder.samples[0][0], transform)
    return folder


def labeled(folder: Any, num_workers: int = 0) -> LabeledDataset:
    """Examples of an `ImageFolder`, whose targets are known without reading a picture."""
    examples = LabeledDataset(folder, num_workers=num_workers)
    # As if they had been read once already.
    vars(examples)["targets"] = torch.tensor(folder.targets)
    return examples


def _shares(fractions: Sequence[float]) -> dict[str, float]:
    positive = len(fractions) == len(PARTS) and all(each > 0 for each in fractions)
    if not positive or abs(sum(fractions) - 1) > ROUNDING:
        raise ValueError(
            "expected three positive fractions for training, validation and testing, whose sum is "
            f"1, got {tuple(fractions)}; give such as {FRACTIONS}"
        )
    return dict(zip(PARTS, fractions, strict=True))


def _split(
    folder: Any, seed: int, shares: Mapping[str, float], group: Group | None
) -> dict[str, list[int]]:
    """The pictures of each part: shares of every class, drawn by the seed and its name.

    Groups of pictures are drawn whole, each with the class that most of its pictures are of.
    """
    chosen: dict[str, list[int]] = {part: [] for part in shares}
    fractions = tuple(shares.values())
    members, classes = _groups(folder, group)
    for index, name in enumerate(folder.classes):
        generator = np.random.Generator(np.random.Philox(derived_seed(seed, "split", name)))
        drawn = generator.permutation(np.flatnonzero(classes == index))
        ends = [round(len(drawn) * sum(fractions[:count])) for count in range(1, len(shares))]
        for part, share in zip(shares, np.split(drawn, ends), strict=True):
            chosen[part] += sorted(picture for each in share for picture in members[each])
    few = [part for part, indices in chosen.items() if not indices]
    if few:
        what = "pictures" if group is None else f"groups of pictures ({len(members)} in all)"
        raise ValueError(
            f"expected enough {what} in {folder.root} for {len(shares)} parts, got none for "
            f"{few[0]}; add pictures, or give other fractions="
        )
    return chosen


def _groups(folder: Any, group: Group | None) -> tuple[list[list[int]], np.ndarray]:
    """The pictures of each group, in the order of the first ones, and the class of each group."""
    targets = np.array(folder.targets)
    if group is None:
        return [[index] for index in range(len(targets))], targets
    members: dict[Any, list[int]] = {}
    for index, (path, _) in enumerate(folder.samples):
        members.setdefault(_group_of(path, group), []).append(index)
    # Of several classes as frequent it is the first.
    most = [int(np.bincount(targets[each]).argmax()) for each in members.values()]
    return list(members.values()), np.array(most)


def _group_of(path: str, group: Group) -> Any:
    name = group(Path(path))
    if name is None:
        raise ValueError(
            f"expected a group for every picture, got None for {path}; let group= give a picture "
            "that is by itself a name of its own"
        )
    return name


def _require_other_groups(parts: Mapping[str, Any], group: Group) -> None:
    """Check that no group has pictures in two parts."""
    seen: dict[Any, tuple[str, str]] = {}
    for part, folder in parts.items():
        for path, _ in folder.samples:
            name = _group_of(path, group)
            first, other = seen.setdefault(name, (part, path))
            if first != part:
                raise ValueError(
                    f"expected pictures of a group in one part only, got {name!r:.80} in {first} "
                    f"({other}) and in {part} ({path}); split by whole groups"
                )


def _require_folder(path: Path) -> None:
    if not path.is_dir():
        raise ValueError(f"expected a folder of pictures at {path}, got none; check the path")


def _require_same_classes(parts: Mapping[str, Any]) -> None:
    train = parts["train"]
    for part in parts.values():
        odd = sorted(set(part.classes) ^ set(train.classes))
        if odd:
            raise ValueError(
                f"expected the same classes in {train.root} and {part.root}, got {odd[0]!r} in "
                f"{'the first' if odd[0] in train.classes else 'the second'} only; rename or add "
                "its folder"
            )
