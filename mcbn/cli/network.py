"""The verbs of the command line that run a network, each on files."""

import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.bank.bank import Bank
from mcbn.bank.collect import collect as collect_bank
from mcbn.cli import messages
from mcbn.cli.data import read_data
from mcbn.cli.demo import run_demo
from mcbn.cli.examples import Examples
from mcbn.cli.noise import LogVariances, fitted_precision
from mcbn.cli.options.network import (
    CollectOptions,
    DemoOptions,
    DoctorOptions,
    ExportOptions,
    PredictOptions,
)
from mcbn.cli.options.parts import NetworkOptions
from mcbn.cli.repeat import command
from mcbn.deployment.export import export as export_file
from mcbn.deployment.predictor import PredictorMethod, make_sampler
from mcbn.inspection.inspect import inspect
from mcbn.io.plain import to_json
from mcbn.io.tables import is_table
from mcbn.io.tensors import draws_file
from mcbn.network.builders import is_published
from mcbn.network.checkpoints import load
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive
from mcbn.predictive.labelled import TargetReader, predict_labelled
from mcbn.predictive.predictions import Predictions, StoredPredictive
from mcbn.predictive.recording import disagreement, predict_for_file
from mcbn.predictive.tables import require_unreserved, write_predictions
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.sampler import Sampler

METHODS: Mapping[PredictorMethod, str] = {
    "mcbn": "MCBN",
    "dropout": "MC Dropout",
    "deterministic": "Deterministic",
}
INSPECTED_EXAMPLES = 64
EXPORT_EXAMPLES = 4  # on which an exported file is compared with the network
Reading = DoctorOptions | CollectOptions | PredictOptions | ExportOptions


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
        examples = _examples(options, options.data, part="train")
        count = min(len(examples), INSPECTED_EXAMPLES)
        inputs = examples.minibatches(batch_size=count, draws=1)[0]
    network = load_said(options.network)
    inspection = inspect(network, inputs, batch_size=options.batch_size)
    print(to_json(inspection.to_dict(), indent=2) if options.json else inspection)
    if not inspection.servable:
        sys.exit(1)


def collect(options: CollectOptions) -> None:
    """Collect a bank of batch-norm statistics."""
    batches = _examples(options, options.data, part="train").minibatches(
        batch_size=options.batch_size, draws=options.draws, seed=options.seed
    )
    bank = collect_bank(load_said(options.network), batches)
    bank.save(options.out)
    messages.show(
        f"{bank} written to {options.out}",
        {"out": options.out, "draws": len(bank), "batch_size": bank.batch_size},
        json=options.json,
    )


def predict(options: PredictOptions) -> None:
    """Write a file of predictions."""
    if options.keep_draws and is_table(options.out):
        raise ValueError(
            f"expected a safetensors file in --out with --keep-draws, got {options.out}; name it "
            ".st, or write the draws to another file with --draws-out"
        )
    examples = _examples(options, options.data, part="test")
    held_out = _held_out(options)
    if is_table(options.out):  # before the work, not after it
        require_unreserved(examples.columns)
    network = load_said(options.network)
    sampler = make_sampler(
        network, options.method, bank=options.bank, draws=options.draws, seed=options.seed
    )
    _require_outputs(sampler, examples, options)
    likelihood = _likelihood(options, sampler, held_out)
    if options.likelihood == "gaussian" and options.noise != "log-variance":
        sampler = LogVariances(sampler, options.noise)
    method = METHODS[options.method]
    predictive, targets = _predicted(options, sampler, examples, likelihood)
    predictions = Predictions(method, predictive, targets, examples.name, examples.classes,
                              examples.columns, examples.index)  # fmt: skip
    write_predictions(options.out, predictions)
    numbers = {"out": options.out, "method": method, "examples": len(predictive),
               "draws": predictive.draw_count or None}  # fmt: skip
    fitted = ""
    if isinstance(likelihood, Gaussian) and held_out is not None:
        numbers["precision"] = likelihood.precision
        fitted = f"; tau = {likelihood.precision:.4g}, fitted on {len(held_out)} held-out examples"
    messages.show(
        f"{len(predictive)} predictions of {method} (T = {predictive.draw_count}) written to "
        f"{options.out}; {disagreement(predictive)}{fitted}",
        numbers,
        json=options.json,
    )


def _held_out(options: PredictOptions) -> Examples | None:
    """The examples to fit the precision on, if it is to be fitted."""
    if options.precision != "auto":
        return None
    examples = read_data(
        str(options.held_out), options.reading, options.network.model, part="validation",
        beside=options.data,
    )  # fmt: skip
    if examples.targets is None and not examples.labeled:
        raise ValueError(
            f"expected targets in --held-out to fit the precision on, got none in "
            f"{options.held_out}; add them, or give a number for --precision"
        )
    return examples


def _likelihood(
    options: PredictOptions, sampler: Sampler, held_out: Examples | None
) -> Categorical | Gaussian:
    if options.likelihood == "categorical":
        return Categorical()
    if held_out is None:
        return Gaussian(None if options.precision is None else float(options.precision))
    predictive, targets = predict_labelled(
        sampler, held_out.loader(options.batch_size), held_out.targets, Gaussian(1.0),
        batch_size=options.batch_size,
    )  # fmt: skip
    return Gaussian(fitted_precision(predictive, targets))


def _predicted(
    options: PredictOptions,
    sampler: Sampler,
    examples: Examples,
    likelihood: Categorical | Gaussian,
) -> tuple[StoredPredictive, Tensor | None]:
    """The predictions, and the targets that are known or loaded with the inputs."""
    reader = TargetReader() if examples.labeled else None
    with (
        nullcontext()
        if options.draws_out is None
        else draws_file(
            options.draws_out,
            examples=len(examples),
            precision=options.draws_type,
            header={"method": METHODS[options.method], "data": examples.name},
        ) as add_batch
    ):
        predictive = predict_for_file(
            sampler, examples.loader(options.batch_size), likelihood,
            batch_size=options.batch_size, select=reader, keep_draws=options.keep_draws,
            add=add_batch,
        )  # fmt: skip
    targets = examples.targets if reader is None else reader.targets
    if targets is None:
        return predictive, None
    if not isinstance(predictive, CategoricalPredictive):
        mean = (
            predictive.means[0] if isinstance(predictive, GaussianPredictive) else predictive.mean
        )
        # One output may have an axis of its own in the network, and none in the targets.
        return predictive, targets.double().reshape(mean.shape)
    if targets.is_floating_point() and bool((targets != targets.round()).any()):
        raise ValueError(
            f"expected class indices as targets in {options.data}, got real values; give "
            "--likelihood gaussian for a regression"
        )
    return predictive, targets.long()


def _require_outputs(sampler: Sampler, examples: Examples, options: PredictOptions) -> None:
    """Check on the first example that the network has the outputs of the data, before all are run.

    Raises:
        ValueError: it has other classes than a folder or a task, or other real outputs than there
            are targets.
    """
    real = options.likelihood == "gaussian"
    target = examples.first_target() if real else None
    if target is None and (real or not examples.classes):
        return
    with torch.no_grad():
        outputs = next(sampler.passes(examples.first(1)))
    if target is None:
        count = outputs.shape[1] if outputs.ndim > 1 else 1
        if count != len(examples.classes):
            raise ValueError(
                f"expected a network with the {len(examples.classes)} classes of {options.data}, "
                f"got {count} outputs of {options.network.model}; give --weights of a network that "
                "was trained on these classes"
            )
        return
    forms = 2 if options.precision is None else 1  # of each output: its mean, and its noise
    if outputs.numel() != forms * target.numel():
        noise = "the mean and the noise of each target; give --precision for a network without"
        raise ValueError(
            f"expected {forms * target.numel()} outputs of {options.network.model} for an example "
            f"of {options.data}, got {outputs.numel()}; "
            f"{'check its targets' if options.precision is not None else f'they are {noise}'}"
        )


def export(options: ExportOptions) -> None:
    """Write a network and its bank as one file."""
    inputs = _examples(options, options.data, part="test").first(EXPORT_EXAMPLES)
    network = load_said(options.network)
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


def _examples(options: Reading, path: str, *, part: str) -> Examples:
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
