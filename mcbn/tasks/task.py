"""A data set that is split for training and testing, with out-of-distribution inputs beside it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mcbn.io.display import Display, Displayed
from mcbn.network.inputs import tensors
from mcbn.network.isolation import random_streams
from mcbn.tasks.examples import LabeledData, as_examples, as_inputs, count_of
from mcbn.tasks.folder import FRACTIONS, Group, from_folder
from mcbn.tasks.pictures import Transform


@dataclass(frozen=True, eq=False, repr=False)
class Task(Displayed):
    """A data set in three parts, with inputs that are out of distribution (OOD).

    Each part is given as a pair of inputs and targets (tensors, arrays, columns of a data frame),
    a map-style data set or a list of inputs with their targets, or a loader of one, whose order
    does not matter; it becomes `Examples`. Targets are class indices, or real values.

    Attributes:
        train: as the network sees them in training, random transforms included.
        validation: held out from training, to choose and to fit on.
        test: what is scored.
        classes: names of the classes, or of the labels; they may be left out.
        outside: out-of-distribution inputs by name, preprocessed like the test examples; targets
            in them are ignored.
        outputs: names of the real targets, where there are several; they may be left out.
        units: of real targets, such as "MPa": one for all, or one for each.
        ignore_index: the class of positions that are not labelled; None if all are.
        name: what it is called in tables and reports.
        description: where the data come from and how `outside` was made.
        multilabel: whether an example has any number of labels: its target is 1 for each that is
            there, and 0 for the others.
        augmentation: a random transform of preprocessed inputs that training examples went through,
            such as `mcbn.Compose(mcbn.RandomShift(4), mcbn.RandomFlip())`: what
            `mcbn.Augmented(model, task)` applies.
        target_mean: what to add to a real target after multiplying by `target_scale`.
        target_scale: original units per unit of the targets here, where those are standardised.

    Raises:
        TypeError: a part is of another kind.
        ValueError: a part has no examples, or not as many targets as inputs.
    """

    # Examples, once the task is made.
    train: Any
    validation: Any
    test: Any
    classes: tuple[str, ...] = ()
    outside: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    units: str | tuple[str, ...] = ()
    ignore_index: int | None = None
    name: str = "task"
    description: str = ""
    multilabel: bool = False
    augmentation: Any = None
    target_mean: float = 0.0
    target_scale: float = 1.0

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            object.__setattr__(self, part, as_examples(getattr(self, part), part))
        for name in ("classes", "outputs", "units"):
            given = getattr(self, name)
            names = (given,) * bool(given) if isinstance(given, str) else tuple(map(str, given))
            object.__setattr__(self, name, names)
        if self.outputs or self.units:
            self._require_real_names()
        inputs = {name: as_inputs(data, f"outside {name!r}") for name, data in self.outside.items()}
        object.__setattr__(self, "outside", inputs)
        if self.multilabel:
            self._require_labels()
        if self.classes and self.regression:
            raise ValueError(
                "expected class indices as targets of a task with classes, got real values; "
                "convert them, for example with targets.long(), or give multilabel=True for "
                "several labels an example"
            )

    def display(self) -> Display:
        """Its parts, and how many examples each has."""
        parts = {part: getattr(self, part) for part in ("train", "validation", "test")}
        rows = [(part, *_described(examples)) for part, examples in parts.items()]
        rows += [(f"outside: {name}", *_described(inputs)) for name, inputs in self.outside.items()]
        classes = f" of {len(self.classes)} classes" if self.classes else ""
        return Display(f"Task {self.name!r}{classes}", ("part", "examples", "of an example"), rows)

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        *,
        transform: Transform | None = None,
        train_transform: Transform | None = None,
        seed: int = 0,
        fractions: Sequence[float] = FRACTIONS,
        num_workers: int = 0,
        group: Group | None = None,
    ) -> "Task":
        """The pictures in a folder, with one subfolder per class, read when they are needed.

        The parts are its subfolders train, val (also valid, validation) and test, each with the
        same classes; where val or test is missing, the other is split in halves, as `description`
        says. Without any of them the folder holds the classes themselves. A split is one of every
        class at random, which depends on the seed and the names alone.

        Pictures that hang together, such as those of a patient, are told by `group`, and are then
        in one part only: groups are split as pictures are, so the shares are of groups, as in
        scikit-learn's `GroupShuffleSplit`. One with pictures of several classes is split with
        those of the class that it has most of.

        Args:
            path: the folder, after which the task is named.
            transform: makes a tensor of a picture in RGB. By default its values are scaled to
                [0, 1], and all pictures have to be of one size.
            train_transform: the same for the training pictures, random crops included; by default
                that of the others.
            seed: of the split.
            fractions: of each class for training, validation and testing, where it is split.
            num_workers: processes that read the pictures.
            group: tells of the path of a picture what it shares with others, such as
                `lambda path: path.stem.split("_")[0]` for "patient7_03.png".

        Raises:
            TypeError: a transform makes no tensors.
            ValueError: there are no pictures, or parts or classes are missing; a group is in two
                of the folders of parts, or is all there is. What is no picture is refused when it
                is read.
        """
        made = from_folder(
            path, transform=transform, train_transform=train_transform, seed=seed,
            fractions=fractions, num_workers=num_workers, group=group,
        )  # fmt: skip
        return cls(**made)

    @property
    def regression(self) -> bool:
        """Whether the targets are real values, as those of the first test example are."""
        return not self.multilabel and self._first[1].is_floating_point()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input; of several, of the first."""
        return tuple(next(tensors(self._first[0])).shape[1:])

    @property
    def output_count(self) -> int:
        """The number of outputs of a network for this task: classes, labels, or real values."""
        if self.multilabel:
            return len(self.classes) or int(self._first[1][0].shape[0])
        if self.regression:
            return self._first[1][0].numel()
        known = self.train.targets
        if self.ignore_index is not None:
            known = known[known != self.ignore_index]
        return len(self.classes) or int(known.max()) + 1

    def _require_labels(self) -> None:
        """Check that the first target has an entry for each label."""
        target = self._first[1][0]
        count = len(self.classes)
        if target.ndim == 0 or (count and len(target) != count):
            raise ValueError(
                f"expected 1 or 0 for each label in a target of a task with multilabel=True, got "
                f"shape {tuple(target.shape)} and {count} names of labels; give each target an "
                "entry for every label"
            )

    def _require_real_names(self) -> None:
        """Check that names and units of real targets fit them."""
        count = self.output_count if self.regression else 0
        for name, allowed in (("outputs", (0, count)), ("units", (0, 1, count))):
            if (given := getattr(self, name)) and (not count or len(given) not in allowed):
                raise ValueError(
                    f"expected the {name} of {count} real targets of an example, got {given}; give "
                    "one for each, or leave them out"
                )

    @property
    def _first(self) -> tuple[Any, Tensor]:
        with random_streams(0, "first"):  # from which a transform may draw
            first: tuple[Any, Tensor] = self.test.batch(torch.tensor([0]))
        return first


def _described(part: Any) -> tuple[str, str]:
    """The number of examples of a part, and the shape of one where it is at hand."""
    inputs = part.inputs if isinstance(part, LabeledData) else part
    shape = tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else "loaded when needed"
    return f"{count_of(part):,}", str(shape)
