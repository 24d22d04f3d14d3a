"""The verbs of the command line that run a network, each on files."""

import os
import sys

import torch
from torch.nn import Module

from mcbn.bank.bank import Bank
from mcbn.bank.collect import collect as collect_bank
from mcbn.cli import messages
from mcbn.cli.data import read_data
from mcbn.cli.demo import run_demo
from mcbn.cli.examples import Examples
from mcbn.cli.options.network import (
    CollectOptions,
    DemoOptions,
    DoctorOptions,
    DriftOptions,
    ExportOptions,
    PredictOptions,
)
from mcbn.cli.options.parts import NetworkOptions
from mcbn.cli.repeat import command
from mcbn.cli.values import names_of
from mcbn.deployment.export import export as export_file
from mcbn.inspection.inspect import inspect
from mcbn.io.plain import to_json
from mcbn.network.builders import is_published
from mcbn.network.checkpoints import load
from mcbn.predictive.bernoulli import Bernoulli
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.gaussian import Gaussian
from mcbn.samplers.batch_norm import MCBatchNorm

INSPECTED_EXAMPLES = 64
EXPORT_EXAMPLES = 4  # on which an exported file is compared with the network
Reading = DoctorOptions | CollectOptions | PredictOptions | DriftOptions | ExportOptions


def demo(options: DemoOptions) -> None:
    """Train networks on real data and write a report."""
    if options.data != "cifar10":
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
        examples = read_examples(options, options.data, part="train")
        count = min(len(examples), INSPECTED_EXAMPLES)
        inputs = examples.minibatches(batch_size=count, draws=1)[0]
    network = load_said(options.network)
    inspection = inspect(network, inputs, batch_size=options.batch_size)
    print(to_json(inspection.to_dict(), indent=2) if options.json else inspection)
    if not inspection.servable:
        sys.exit(1)


def collect(options: CollectOptions) -> None:
    """Collect a bank of batch-norm statistics."""
    batches = read_examples(options, options.data, part="train").minibatches(
        batch_size=options.batch_size, draws=options.draws, seed=options.seed
    )
    bank = collect_bank(load_said(options.network), batches)
    bank.save(options.out)
    messages.show(
        f"{bank} written to {options.out}",
        {"out": options.out, "draws": len(bank), "batch_size": bank.batch_size},
        json=options.json,
    )


def export(options: ExportOptions) -> None:
    """Write a network and its bank as one file."""
    inputs = read_examples(options, options.data, part="test").first(EXPORT_EXAMPLES)
    network = load_said(options.network)
    sampler = MCBatchNorm(network, Bank.load(options.bank))
    artifact = export_file(
        sampler, inputs, options.out, likelihood=_likelihood(options), chunk=options.chunk
    )
    gap = max(artifact.differences.values())
    messages.show(
        f"{artifact.draws} draws written to {options.out}: {artifact.size:,} bytes, including "
        f"{artifact.weights:,} of weights and {artifact.bank:,} of the bank; differs by at most "
        f"{gap:.2g} from mcbn.predict",
        {"out": options.out, "draws": artifact.draws, "bytes": artifact.size,
         "weights_bytes": artifact.weights, "bank_bytes": artifact.bank, "max_difference": gap},
        json=options.json,
    )  # fmt: skip


def _likelihood(options: ExportOptions) -> Categorical | Bernoulli | Gaussian:
    taus = [float(text) for text in names_of(options.precision)]
    if taus or options.likelihood == "gaussian":
        return Gaussian(taus[0] if len(taus) == 1 else tuple(taus) or None)
    if options.likelihood == "bernoulli":
        return Bernoulli(options.outputs)
    return Categorical(options.outputs)


def read_examples(options: Reading, path: str, *, part: str) -> Examples:
    """The examples of --data; of the part that is asked for, or else of this one."""
    reading = options.reading
    return read_data(path, reading, options.network.model, part=reading.part or part)


def load_said(options: NetworkOptions) -> Module:
    """The network of a verb; says where its weights were read."""
    loaded = load(options.model, options.weights, key=options.key, prefix=options.prefix)
    reading = loaded.reading
    if reading is not None:
        doubtful = reading.unread and options.prefix is None
        confirm = f"; confirm by --prefix {reading.prefix}" if doubtful else ""
        messages.tell(f"{reading}{confirm} ({options.weights})")
    elif is_published(options.model):
        messages.tell(f"published weights of {options.model}")
    return loaded.network
