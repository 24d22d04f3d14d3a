"""The verbs of the command line that run a network: each is one library call on files."""

import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from json import dumps
from typing import Literal

import torch

from mcbn.bank.bank import Bank
from mcbn.bank.collect import collect as collect_bank
from mcbn.bank.minibatches import minibatches
from mcbn.cli.demo import run_demo
from mcbn.cli.examples import Examples
from mcbn.deployment.export import export as export_file
from mcbn.deployment.predictor import Method, Predictor
from mcbn.inspection.inspect import inspect
from mcbn.io.tables import is_table
from mcbn.io.tensors import DrawType, draws_file
from mcbn.network.checkpoints import load_network
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.gaussian import Gaussian
from mcbn.predictive.predictions import Predictions, disagreement, record
from mcbn.predictive.tables import require_free, write_predictions
from mcbn.samplers.batch_norm import MCBatchNorm

METHODS: Mapping[Method, str] = {
    "mcbn": "MCBN",
    "dropout": "MC Dropout",
    "deterministic": "Deterministic",
}
# Examples that an exported file is tried on.
EXAMPLES = 4


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
    inputs = Examples.from_file(data).inputs
    batches = minibatches(inputs, batch_size=batch_size, draws=draws, seed=seed)
    bank = collect_bank(load_network(model, weights), batches)
    bank.save(out)
    print(f"{bank} written to {out}")


def doctor(
    model: str,
    weights: str | None = None,
    data: str | None = None,
    batch_size: int = 32,
    json: bool = False,
) -> None:
    """Say what MCBN finds in a network and what is amiss; exit 1 if it cannot serve it.

    Example: mcbn doctor --model nets.py:build --weights w.pt --data train.npz

    Args:
        model: module:function or file.py:function that builds the network; its code is run.
        weights: checkpoint of the network, .pt or .safetensors.
        data: .npz or .safetensors file with "inputs"; 64 of them, drawn at random, are
            looked at.
        batch_size: M that the noise is told for.
        json: print JSON in place of the table.
    """
    inputs = None
    if data is not None:
        rows = Examples.from_file(data).inputs
        inputs = minibatches(rows, batch_size=min(len(rows), 64), draws=1)[0]
    found = inspect(load_network(model, weights), inputs, batch_size=batch_size)
    print(dumps(found.to_dict(), indent=2) if json else found)
    if not found.servable:
        sys.exit(1)


def predict(
    model: str,
    data: str,
    out: str,
    weights: str | None = None,
    method: Method = "mcbn",
    bank: str | None = None,
    draws: int = 64,
    seed: int = 0,
    batch_size: int = 256,
    likelihood: Literal["categorical", "gaussian"] = "categorical",
    precision: float | None = None,
    keep_draws: bool = False,
    draws_out: str | None = None,
    draws_type: DrawType = "float32",
) -> None:
    """Predict class probabilities, or real values, and their uncertainty.

    Example: mcbn predict --model nets.py:build --weights w.pt --bank bank.st --data test.npz
    --out mcbn.csv

    Args:
        model: module:function or file.py:function that builds the network; its code is run.
        data: .npz or .safetensors file with "inputs", and "targets" where they are known; other
            arrays of one text or whole number an example are kept as groups to score apart.
        out: file of the predictions: .csv, .parquet or .npz, else safetensors.
        weights: checkpoint of the network, .pt or .safetensors.
        method: mcbn (needs a bank), dropout or deterministic.
        bank: file written by mcbn collect.
        draws: T of dropout; MCBN uses every draw of its bank.
        seed: of dropout's masks.
        batch_size: examples in a pass.
        likelihood: categorical for classes, gaussian for real values.
        precision: tau of gaussian, one over the noise variance; without it the network gives
            means, then as many log-variances.
        keep_draws: keep every draw in --out (safetensors only); else a regression keeps its
            moments alone.
        draws_out: file that the raw outputs of every draw are written to, batch by batch.
        draws_type: of the numbers in it, float32 or float16.
    """
    family = _family(likelihood, precision, out, keep_draws)
    examples = Examples.from_file(data)
    if is_table(out):  # before the work, not after it
        require_free(examples.columns)
    predictor = Predictor(model, weights=weights, bank=bank, method=method, draws=draws, seed=seed)
    name = METHODS[method]
    with (
        nullcontext()
        if draws_out is None
        else draws_file(
            draws_out,
            examples=len(examples.inputs),
            precision=draws_type,
            header={"method": name, "data": examples.name},
        ) as add
    ):
        predictive = record(
            predictor.sampler,
            examples.inputs,
            family,
            batch_size=batch_size,
            keep_draws=keep_draws,
            add=add,
        )
    targets = examples.targets
    if targets is not None:
        targets = targets.double() if likelihood == "gaussian" else targets.long()
    write_predictions(out, Predictions(name, predictive, targets, examples.name,
                                       examples.classes, examples.columns))  # fmt: skip
    print(
        f"{len(predictive)} predictions of {name} (T = {predictive.draw_count}) written to {out}; "
        f"{disagreement(predictive)}"
    )


def _family(
    likelihood: str, precision: float | None, out: str, keep_draws: bool
) -> Categorical | Gaussian:
    """The likelihood, with all options that hang together checked before any work."""
    if keep_draws and is_table(out):
        raise ValueError(
            f"expected a safetensors file in --out with --keep_draws, got {out}; name it .st, or "
            "write the draws apart by --draws_out"
        )
    if likelihood == "gaussian":
        return Gaussian(precision)
    if precision is not None:
        raise ValueError(
            f"expected --precision with --likelihood gaussian only, got {precision} for classes; "
            "leave it out"
        )
    return Categorical()


def export(
    model: str,
    data: str,
    bank: str,
    out: str,
    weights: str | None = None,
    precision: float | None = None,
    chunk: int | None = None,
) -> None:
    """Write a network and its bank as one file that answers without mcbn.

    Example: mcbn export --model nets.py:build --weights w.pt --bank bank.st --data example.npz
    --out net.onnx

    Args:
        model: module:function or file.py:function that builds the network; its code is run.
        data: .npz or .safetensors file with "inputs"; the shape of an example is what counts.
        bank: file written by mcbn collect.
        out: file to write, .onnx or .pt2.
        weights: checkpoint of the network, .pt or .safetensors.
        precision: tau of a regression network; without it the outputs are logits of classes.
        chunk: draws that go through the network together, to bound memory; all if left out.
    """
    inputs = Examples.from_file(data).inputs
    sampler = MCBatchNorm(load_network(model, weights), Bank.load(bank))
    likelihood = Gaussian(precision=precision) if precision is not None else Categorical()
    artifact = export_file(sampler, inputs[:EXAMPLES], out, likelihood=likelihood, chunk=chunk)
    gap = max(artifact.differences.values())
    print(
        f"{artifact.draws} draws written to {out}: {artifact.size:,} bytes, of them "
        f"{artifact.weights:,} weights and {artifact.bank:,} bank; "
        f"differs by at most {gap:.2g} from mcbn.predict"
    )
