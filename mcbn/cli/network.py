"""The verbs of the command line that run a network, each on files."""

import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext

import torch

from mcbn.bank.bank import Bank
from mcbn.bank.collect import collect as collect_bank
from mcbn.bank.minibatches import minibatches
from mcbn.cli import messages
from mcbn.cli.demo import run_demo
from mcbn.cli.examples import Examples
from mcbn.cli.options import (
    CollectOptions,
    DemoOptions,
    DoctorOptions,
    ExportOptions,
    PredictOptions,
)
from mcbn.cli.repeat import command
from mcbn.deployment.export import export as export_file
from mcbn.deployment.predictor import Predictor, PredictorMethod
from mcbn.inspection.inspect import inspect
from mcbn.io.plain import to_json
from mcbn.io.tables import is_table
from mcbn.io.tensors import draws_file
from mcbn.network.checkpoints import load_network
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.gaussian import Gaussian
from mcbn.predictive.predictions import Predictions, disagreement, predict_for_file
from mcbn.predictive.tables import require_unreserved, write_predictions
from mcbn.samplers.batch_norm import MCBatchNorm

METHODS: Mapping[PredictorMethod, str] = {
    "mcbn": "MCBN",
    "dropout": "MC Dropout",
    "deterministic": "Deterministic",
}
INSPECTED_EXAMPLES = 64
EXPORT_EXAMPLES = 4  # on which an exported file is compared with the network


def demo(options: DemoOptions) -> None:
    """Train networks on real data and write a report."""
    # The networks are too small to gain from a second thread.
    torch.set_num_threads(1)
    if options.root is not None:
        os.environ["MCBN_DATA"] = options.root  # the training processes inherit it
    run_demo(options.out, data=options.data, repeat=command("mcbn demo", options),
             say=messages.say)  # fmt: skip


def doctor(options: DoctorOptions) -> None:
    """Report what MCBN finds in a network; exit 1 if MCBN cannot be applied."""
    inputs = None
    if options.data is not None:
        rows = Examples.from_file(options.data).inputs
        inputs = minibatches(rows, batch_size=min(len(rows), INSPECTED_EXAMPLES), draws=1)[0]
    network = load_network(options.model, options.weights)
    inspection = inspect(network, inputs, batch_size=options.batch_size)
    print(to_json(inspection.to_dict(), indent=2) if options.json else inspection)
    if not inspection.servable:
        sys.exit(1)


def collect(options: CollectOptions) -> None:
    """Collect a bank of batch-norm statistics."""
    inputs = Examples.from_file(options.data).inputs
    batches = minibatches(
        inputs, batch_size=options.batch_size, draws=options.draws, seed=options.seed
    )
    bank = collect_bank(load_network(options.model, options.weights), batches)
    bank.save(options.out)
    messages.show(
        f"{bank} written to {options.out}",
        {"out": options.out, "draws": len(bank), "batch_size": bank.batch_size},
        json=options.json,
    )


def predict(options: PredictOptions) -> None:
    """Write a file of predictions."""
    likelihood = _likelihood(options)
    examples = Examples.from_file(options.data)
    if is_table(options.out):  # before the work, not after it
        require_unreserved(examples.columns)
    predictor = Predictor(
        options.model, weights=options.weights, bank=options.bank, method=options.method,
        draws=options.draws, seed=options.seed,
    )  # fmt: skip
    method = METHODS[options.method]
    with (
        nullcontext()
        if options.draws_out is None
        else draws_file(
            options.draws_out,
            examples=len(examples.inputs),
            precision=options.draws_type,
            header={"method": method, "data": examples.name},
        ) as add_batch
    ):
        predictive = predict_for_file(
            predictor.sampler,
            examples.inputs,
            likelihood,
            batch_size=options.batch_size,
            keep_draws=options.keep_draws,
            add=add_batch,
        )
    targets = examples.targets
    if targets is not None:
        targets = targets.double() if options.likelihood == "gaussian" else targets.long()
    predictions = Predictions(method, predictive, targets, examples.name, examples.classes,
                              examples.columns)  # fmt: skip
    write_predictions(options.out, predictions)
    messages.show(
        f"{len(predictive)} predictions of {method} (T = {predictive.draw_count}) written to "
        f"{options.out}; {disagreement(predictive)}",
        {"out": options.out, "method": method, "examples": len(predictive),
         "draws": predictive.draw_count or None},
        json=options.json,
    )  # fmt: skip


def _likelihood(options: PredictOptions) -> Categorical | Gaussian:
    """The likelihood; checks the options that depend on each other before any work."""
    if options.keep_draws and is_table(options.out):
        raise ValueError(
            f"expected a safetensors file in --out with --keep-draws, got {options.out}; name it "
            ".st, or write the draws to another file with --draws-out"
        )
    if options.likelihood == "gaussian":
        return Gaussian(options.precision)
    if options.precision is not None:
        raise ValueError(
            f"expected --precision with --likelihood gaussian only, got {options.precision} for "
            "classes; leave it out"
        )
    return Categorical()


def export(options: ExportOptions) -> None:
    """Write a network and its bank as one file."""
    inputs = Examples.from_file(options.data).inputs[:EXPORT_EXAMPLES]
    network = load_network(options.model, options.weights)
    sampler = MCBatchNorm(network, Bank.load(options.bank))
    precision = options.precision
    likelihood = Categorical() if precision is None else Gaussian(precision=precision)
    artifact = export_file(
        sampler, inputs, options.out, likelihood=likelihood, chunk=options.chunk
    )  # fmt: skip
    gap = max(artifact.differences.values())
    messages.show(
        f"{artifact.draws} draws written to {options.out}: {artifact.size:,} bytes, including "
        f"{artifact.weights:,} of weights and {artifact.bank:,} of the bank; differs by at most "
        f"{gap:.2g} from mcbn.predict",
        {"out": options.out, "draws": artifact.draws, "bytes": artifact.size,
         "weights_bytes": artifact.weights, "bank_bytes": artifact.bank, "max_difference": gap},
        json=options.json,
    )  # fmt: skip
