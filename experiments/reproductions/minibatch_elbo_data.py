"""Data sets of the experiment, one split for each seed, standardised on the training examples."""

from typing import Literal

import torch
from torch import Tensor

from experiments.reproductions.minibatch_elbo_model import Data
from mcbn.tasks.datasets import LabeledData, digits, uci

SetName = Literal["toy", "yacht", "concrete", "digits"]
# Of the noise, the same for every form; in standardised targets, of the toy set as drawn.
NOISE_SD = {"toy": 0.3, "yacht": 0.2, "concrete": 0.3}


def data_of(name: SetName, examples: int, seeds: int) -> Data:
    """The first `examples` of each seed's training part, and its test part."""
    parts = [split(name, seed, examples) for seed in range(seeds)]
    x, y, test_x, test_y = (torch.stack(column) for column in zip(*parts, strict=True))
    precision = NOISE_SD[name] ** -2 if name in NOISE_SD else None
    return Data(x, y, test_x, test_y, precision)


def split(name: SetName, seed: int, examples: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs and targets of training and test of one seed."""
    if name == "toy":
        train, test = toy(examples, 2 * seed), toy(1000, 2 * seed + 1)
    elif name == "digits":
        task = digits(seed)
        train, test = (
            LabeledData(part.inputs.flatten(1), part.targets) for part in (task.train, task.test)
        )
    else:
        task = uci(name, split=seed)
        pair = zip((task.train.inputs, task.train.targets),
                   (task.validation.inputs, task.validation.targets), strict=True)  # fmt: skip
        train, test = LabeledData(*(torch.cat(each) for each in pair)), task.test
    x, y = train.inputs[:examples], train.targets[:examples]
    if len(x) < examples:
        raise ValueError(f"expected at least {examples} training examples, got {len(x)}")
    test_x, test_y = test.inputs, test.targets
    if name in ("yacht", "concrete"):
        y, test_y = y.flatten(), test_y.flatten()
        y, test_y = (y - y.mean()) / y.std(), (test_y - y.mean()) / y.std()
        spread = x.std(0) + 1e-6  # a column may be constant
        x, test_x = (x - x.mean(0)) / spread, (test_x - x.mean(0)) / spread
    return x, y, test_x, test_y


def toy(count: int, seed: int) -> LabeledData:
    """A smooth function of one input, with noise; the variance of the targets is about 1."""
    generator = torch.Generator().manual_seed(seed)
    x = 4 * torch.rand(count, 1, generator=generator) - 2
    noise = torch.randn(count, 1, generator=generator)
    return LabeledData(x, (1.2 * torch.sin(2 * x) + x / 2 + NOISE_SD["toy"] * noise)[:, 0])
