"""A user's own task, network and training, in files of their own."""

from pathlib import Path

import torch

from mcbn.study.plan import InferenceAxes, Plan, TrainingAxes

MINE = """
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import mcbn
from parts import layers


class Examples(Dataset):
    def __init__(self, rows, noise=0.0):
        self.rows, self.noise = rows, noise

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = torch.from_numpy(self.rows[index])
        return row[:4].float() + self.noise * torch.randn(4), int(row[4])


def task():
    rows = np.loadtxt("data.csv", delimiter=",")
    far = torch.full((6, 4), 5.0)
    return mcbn.Task(
        Examples(rows[:40], noise=0.1), Examples(rows[40:50]), Examples(rows[50:]),
        classes=("low", "high"), outside={"far": far}, name="mine",
    )


def build():
    return layers()


def fit(model, task, *, batch_size, seed):
    with open("fits.txt", "a") as file:
        print(batch_size, seed, file=file)
    loader = DataLoader(task.train.dataset(), batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for inputs, targets in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def broken(model, task, **_):
    raise RuntimeError("no disk for the log")


def diverging(model, task, **_):
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))


def replaced(model, task, **_):
    return nn.Linear(4, 2)


def nothing():
    return 5


def real():
    rows = torch.from_numpy(np.loadtxt("data.csv", delimiter=",")).float()
    pairs = [(part[:, :4], part[:, :1]) for part in (rows[:40], rows[40:50], rows[50:])]
    return mcbn.Task(*pairs, units="m")


def one_output():
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1))


def fit_real(model, task, *, batch_size, seed, epochs):
    for _ in range(epochs):
        inputs, targets = task.train.batch(torch.arange(len(task.train)))
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
"""
PARTS = """
from torch import nn


def layers():
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2)
    )
"""
PLAN = Plan(
    training=TrainingAxes(batch_sizes=(8,), epochs=2),
    inference=InferenceAxes(batch_sizes=(4, 8), draws=(3,), members=2),
    methods=("Deterministic", "MCBN", "MCBN rescaled", "MC Dropout", "Deep ensemble"),
    seeds=(0, 1),
)
CODE = {"task": "mine.py:task", "model": "mine.py:build", "fit": "mine.py:fit"}


def write_own_files(folder: Path) -> None:
    """Write the user's modules and their data."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(70, 4, generator=generator)
    lines = [[*row, float(sum(row) > 0)] for row in rows.tolist()]
    text = "\n".join(",".join(map(str, line)) for line in lines)
    (folder / "data.csv").write_text(text)
    (folder / "mine.py").write_text(MINE)
    (folder / "parts.py").write_text(PARTS)
