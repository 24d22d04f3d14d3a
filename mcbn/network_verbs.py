"""The verbs of the command line that run a network: each is one library call on files."""

import os
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Module

from mcbn.bank import Bank
from mcbn.batches import minibatches
from mcbn.checkpoints import load_network
from mcbn.collection import collect as collect_bank
from mcbn.demo import run_demo
from mcbn.predictions import Predictions
from mcbn.predictive import Sampler
from mcbn.predictive import predict as predict_data
from mcbn.samplers import Deterministic, MCBatchNorm, MCDropout


def demo(
    out: str = "demo", data: Literal["digits", "mnist"] = "digits", root: str | None = None
) -> None:
    """Train on real data, wrap, compare, study batch sizes, write a report.

    Example: mcbn demo --out demo

    Args:
        out: folder that report.html, report.json and the bank are written to.
        data: digits (bundled with scikit-learn) or mnist (from the data root).
        root: data root; else the environment's MCBN_DATA, else ./data.
    """
    # The demo's networks are so small that a second thread only waits for the first.
    torch.set_num_threads(1)
    if root is not None:
        os.environ["MCBN_DATA"] = root  # for the processes that train, too
    run_demo(out, data=data)


def collect(
    model: str,
    data: str,
    out: str,
    weights: str | None = None,
    batch_size: int = 32,
    draws: int = 64,
    seed: int = 0,
) -> None:
    """Draw a bank of batch-norm statistics from training data.

    Example: mcbn collect --model nets.py:build --weights w.pt --data train.npz --out bank.st

    Args:
        model: module:function or file.py:function that builds the network; its code is run.
        data: .npz or .safetensors file with "inputs", as the network saw them in training.
        out: file the bank is written to.
        weights: checkpoint of the network, .pt or .safetensors.
        batch_size: M, examples in a mini-batch.
        draws: T, the number of mini-batches.
        seed: chooses the mini-batches.
    """
    inputs, _ = _data(data)
    batches = minibatches(inputs, batch_size=batch_size, draws=draws, seed=seed)
    bank = collect_bank(load_network(model, weights), batches)
    bank.save(out)
    print(f"{bank} written to {out}")


def predict(
    model: str,
    data: str,
    out: str,
    weights: str | None = None,
    method: Literal["mcbn", "dropout", "deterministic"] = "mcbn",
    bank: str | None = None,
    draws: int = 64,
    seed: int = 0,
    batch_size: int = 256,
) -> None:
    """Predict class probabilities and their uncertainty.

    Example: mcbn predict --model nets.py:build --weights w.pt --bank bank.st --data test.npz
    --out mcbn.st

    Args:
        model: module:function or file.py:function that builds the network; its code is run.
        data: .npz or .safetensors file with "inputs", and "targets" where they are known.
        out: file the predictions are written to.
        weights: checkpoint of the network, .pt or .safetensors.
        method: mcbn (needs a bank), dropout or deterministic.
        bank: file written by mcbn collect.
        draws: T of dropout; MCBN uses every draw of its bank.
        seed: of dropout's masks.
        batch_size: examples in a pass.
    """
    inputs, targets = _data(data)
    sampler, name = _sampler(load_network(model, weights), method, bank, draws, seed)
    predictive = predict_data(sampler, inputs, batch_size=batch_size)
    Predictions(name, predictive, targets, Path(data).stem).save(out)
    print(
        f"{len(predictive)} predictions of {name} (T = {predictive.draw_count}) written to {out}; "
        f"mean mutual information {float(predictive.mutual_information.mean()):.4g} nats"
    )


def _sampler(
    network: Module, method: str, bank: str | None, draws: int, seed: int
) -> tuple[Sampler, str]:
    if method == "dropout":
        return MCDropout(network, draws=draws, seed=seed), "MC Dropout"
    if method == "deterministic":
        return Deterministic(network), "Deterministic"
    if bank is None:
        raise ValueError("expected --bank FILE with --method mcbn, got none; run mcbn collect")
    return MCBatchNorm(network, Bank.load(bank)), "MCBN"


def _data(path: str) -> tuple[Tensor, Tensor | None]:
    """Inputs and, where there are any, targets of a data file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a data file at {path}, got none; check --data")
    try:
        if path.endswith(".safetensors"):
            arrays = load_file(path)
        else:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    except (SafetensorError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"expected .npz or .safetensors data, got {path} ({error})") from error
    if "inputs" not in arrays:
        raise ValueError(f"expected an array 'inputs' in {path}, got {sorted(arrays)}; name it so")
    targets = arrays.get("targets")
    return arrays["inputs"], None if targets is None else targets.long()
