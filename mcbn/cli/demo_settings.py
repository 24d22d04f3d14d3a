"""The size of the demo for each data set, and the plan of its batch-size study."""

from collections.abc import Mapping
from dataclasses import dataclass

from mcbn.study.names import PUBLISHED, PUBLISHED_BATCH_SIZE, Method
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes
from mcbn.tasks.names import OUTSIDE

DIGITS = "digits"
# Imported by the processes that train, which run the demo's own task.
DIGITS_TASK = "mcbn.tasks.few_digits:few_digits"


@dataclass(frozen=True)
class DemoSettings:
    """The size of the demo.

    Attributes:
        architecture: mlp, convnet, or resnet20, whose published weights are loaded.
        training_batch_sizes: mini-batch sizes of training; methods are compared at the middle one.
        batch_sizes: inference batch sizes M of MCBN.
        seeds: repetitions behind the error bands of the batch-size curves.
        members: networks of the deep ensemble.
        epochs: epochs of training.
        width: units or channels of the network.
        draws: T of MCBN and MC Dropout in the comparison.
        augmented_draws: T of test-time augmentation.
        study_draws: T in the batch-size curves.
        labels: held-out examples that choose M and fit the temperature.
        shift: pixels of test-time augmentation, where the task has none of its own.
        resamples: bootstrap resamples behind each interval.
        train_size: training examples used; all if None.
        test_size: test examples used, evenly spaced; all if None.
        outside_size: examples used of each out-of-distribution set, evenly spaced; all if None.
    """

    architecture: str = "mlp"
    training_batch_sizes: tuple[int, ...] = (32, 64, 256)
    batch_sizes: tuple[int, ...] = (4, 8, 16, 32, 64, 256)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    members: int = 4
    epochs: int = 20
    width: int = 128
    draws: int = 64
    augmented_draws: int = 32
    study_draws: int = 32
    labels: int = 50
    shift: int = 2
    resamples: int = 400
    train_size: int | None = None
    test_size: int | None = None
    outside_size: int | None = None

    @property
    def published(self) -> bool:
        """Whether the network is loaded with its weights, so that there is one of it."""
        return self.architecture == PUBLISHED

    @property
    def batch_size(self) -> int:
        """The batch size of training of the networks that are compared."""
        sizes = sorted(self.training_batch_sizes)
        return PUBLISHED_BATCH_SIZE if self.published else sizes[(len(sizes) - 1) // 2]

    def plan(self, data: str) -> Plan:
        """The study of M on a data set; of the digits, the task is given to the study itself."""
        alone: tuple[Method, ...] = ("Deterministic", "MCBN")
        own = data == DIGITS
        return Plan(
            title=f"mcbn demo: {data}",
            data=DataAxes(
                names=(data,),
                train_sizes=(self.train_size,),
                test_size=self.test_size,
                outside=() if own else OUTSIDE[data],
                outside_size=self.outside_size,
            ),
            network=NetworkAxes(names=(self.architecture,), width=self.width),
            training=TrainingAxes(self.training_batch_sizes, epochs=self.epochs),
            inference=InferenceAxes(
                self.batch_sizes, draws=(self.study_draws,), members=self.members
            ),
            methods=alone if self.published else (*alone, "MC Dropout", "Deep ensemble"),
            seeds=self.seeds,
        )


SETTINGS: Mapping[str, DemoSettings] = {
    DIGITS: DemoSettings(),
    "mnist": DemoSettings(
        architecture="convnet",
        training_batch_sizes=(32, 64),
        batch_sizes=(8, 32, 64, 256),
        seeds=(0, 1, 2),
        members=3,
        epochs=40,
        width=16,
        draws=32,
        augmented_draws=16,
        study_draws=8,
        train_size=300,
        test_size=1_000,
        outside_size=250,
    ),
    "cifar10": DemoSettings(
        architecture=PUBLISHED,
        training_batch_sizes=(PUBLISHED_BATCH_SIZE,),
        batch_sizes=(16, 32, 128, 512),
        seeds=(0,),
        draws=8,
        augmented_draws=8,
        study_draws=4,
        outside_size=150,
    ),
}
