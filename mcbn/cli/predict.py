"""The verb of the command line that predicts examples with a network."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from mcbn.cli import messages
from mcbn.cli.data import read_data
from mcbn.cli.examples import Examples
from mcbn.cli.network import load_said, read_examples
from mcbn.cli.noise import LogVariances, fitted_likelihood, precision_text
from mcbn.cli.options.network import PredictOptions
from mcbn.cli.values import names_of
from mcbn.deployment.predictor import PredictorMethod, make_sampler
from mcbn.io.suffixes import is_table
from mcbn.io.tensors import draws_file
from mcbn.network.targets import joined_targets
from mcbn.predictive.bernoulli import Bernoulli, BernoulliPredictive
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian
from mcbn.predictive.joining import join_predictives
from mcbn.predictive.labelled import TargetReader, predict_labelled
from mcbn.predictive.positions import positions
from mcbn.predictive.predict import require_some
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.recording import Recorded, parts_for_file, write_parts
from mcbn.predictive.reserved_columns import require_unreserved
from mcbn.predictive.stored import StoredPredictive, require_names_of_outputs
from mcbn.predictive.tables import write_predictions
from mcbn.samplers.sampler import Sampler

METHODS: Mapping[PredictorMethod, str] = {
    "mcbn": "MCBN",
    "dropout": "MC Dropout",
    "deterministic": "Deterministic",
}


def predict(options: PredictOptions) -> None:
    """Write a file of predictions."""
    examples = read_examples(options, options.data, part="test")
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
    parts = _parts(options, sampler, examples, likelihood)
    predictive, targets = require_some(next(parts, None))
    names = _label_names(examples) if options.likelihood == "bernoulli" else examples.classes
    about = Predictions(
        method, predictive, targets, examples.name, names, examples.columns, examples.index,
        examples.outputs if options.likelihood == "gaussian" else (), _units(options, examples),
        _ignored(options, examples),
    )  # fmt: skip
    recorded = _written(options, about, chain([(predictive, targets)], parts), len(examples))
    numbers = {"out": options.out, "method": method, "examples": recorded.examples,
               "draws": recorded.draw_count or None}  # fmt: skip
    fitted = ""
    if isinstance(likelihood, Gaussian) and held_out is not None:
        numbers["precision"] = likelihood.precision
        tau = precision_text(likelihood, examples.outputs)
        fitted = f"; tau = {tau}, fitted on {len(held_out)} held-out examples"
    messages.show(
        f"{recorded.examples} predictions of {method} (T = {recorded.draw_count}) written to "
        f"{options.out}; {recorded.disagreement}{fitted}",
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
) -> Categorical | Bernoulli | Gaussian:
    if options.likelihood == "categorical":
        return Categorical(options.outputs)
    if options.likelihood == "bernoulli":
        return Bernoulli(options.outputs)
    if held_out is None:
        return Gaussian(None if options.precision is None else float(options.precision))
    predictive, targets = predict_labelled(
        sampler, held_out.loader(options.batch_size), held_out.targets, Gaussian(1.0),
        batch_size=options.batch_size,
    )  # fmt: skip
    return fitted_likelihood(predictive, targets, held_out.outputs)


def _written(
    options: PredictOptions,
    about: Predictions,
    parts: Iterable[tuple[StoredPredictive, Tensor | None]],
    examples: int,
) -> Recorded:
    """Write predictions, those of positions part by part, and return them in short."""
    recorded = Recorded()

    def seen() -> Iterator[tuple[StoredPredictive, Tensor | None]]:
        for predictive, targets in parts:
            recorded.add(predictive)
            yield predictive, targets

    if positions(about.predictive) and not is_table(options.out) and not options.keep_draws:
        write_parts(options.out, about, seen(), examples)
        return recorded
    known: list[Tensor] = []

    def predictives() -> Iterator[StoredPredictive]:
        for predictive, targets in seen():
            known.extend([] if targets is None else [targets])
            yield predictive

    whole = require_some(join_predictives(predictives(), examples))
    every = joined_targets(known) if known else None
    write_predictions(options.out, replace(about, predictive=whole, targets=every))
    return recorded


def _parts(
    options: PredictOptions,
    sampler: Sampler,
    examples: Examples,
    likelihood: Categorical | Bernoulli | Gaussian,
) -> Iterator[tuple[StoredPredictive, Tensor | None]]:
    """Yield the predictions of each batch, and its targets, known or loaded with the inputs.

    Of a regression both are in the original units of the targets.
    """
    known = examples.targets
    reader = TargetReader(None, [] if known is None or examples.labeled else [known])
    has_targets = known is not None or examples.labeled
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
        parts = parts_for_file(
            sampler, examples.loader(options.batch_size), likelihood,
            batch_size=options.batch_size, select=reader if examples.labeled else None,
            keep_draws=options.keep_draws,
            add=add_batch,
        )  # fmt: skip
        for part in parts:
            targets = reader.take(len(part)) if has_targets else None
            yield _as_written(part, targets, options, examples)


def _as_written(
    predictive: StoredPredictive, targets: Tensor | None, options: PredictOptions,
    examples: Examples,
) -> tuple[StoredPredictive, Tensor | None]:  # fmt: skip
    """Predictions and their targets as a file holds them."""
    if isinstance(predictive, BernoulliPredictive):
        if targets is not None:  # checked before they are written
            predictive.aligned(targets, ignore_index=_ignored(options, examples))
            targets = targets.long()
        return predictive, targets
    if not isinstance(predictive, CategoricalPredictive):
        shift, scale = examples.target_mean, examples.target_scale
        if targets is not None:
            # One output may have an axis of its own in the network, and none in the targets.
            targets = shift + scale * targets.double().reshape(predictive.mean.shape)
        return predictive.in_units(shift, scale), targets
    if targets is None:
        return predictive, None
    if targets.is_floating_point() and bool((targets != targets.round()).any()):
        raise ValueError(
            f"expected class indices as targets in {options.data}, got real values; give "
            "--likelihood gaussian for a regression"
        )
    return predictive, targets.long()


def _ignored(options: PredictOptions, examples: Examples) -> int | None:
    return examples.ignore_index if options.ignore_index is None else options.ignore_index


def _label_names(examples: Examples) -> tuple[str, ...]:
    """The names of labels: given as such, or those of the columns of their targets."""
    return examples.classes or examples.outputs


def _units(options: PredictOptions, examples: Examples) -> tuple[str, ...]:
    return names_of(options.units) or examples.units


def _require_outputs(sampler: Sampler, examples: Examples, options: PredictOptions) -> None:
    """Check on the first example that the network has the outputs of the data, before all are run.

    Raises:
        ValueError: it has other classes than a folder or a task, or other real outputs than there
            are targets, names or units.
    """
    real = options.likelihood == "gaussian"
    if examples.multilabel and options.likelihood != "bernoulli":
        raise ValueError(
            f"expected --likelihood bernoulli for the several labels an example of {options.data}, "
            f"got {options.likelihood}; give it"
        )
    if not real and not _label_names(examples):
        return
    with torch.no_grad():
        outputs = next(sampler.passes(examples.first(1)))
    (_require_real if real else _require_classes)(outputs, examples, options)


def _require_classes(outputs: Tensor, examples: Examples, options: PredictOptions) -> None:
    count = outputs.shape[1] if outputs.ndim > 1 else 1
    names = _label_names(examples) if options.likelihood == "bernoulli" else examples.classes
    if names and count != len(names):
        raise ValueError(
            f"expected a network with the {len(names)} classes of {options.data}, got "
            f"{count} outputs of {options.network.model}; give --weights of a network that was "
            "trained on these classes"
        )


def _require_real(outputs: Tensor, examples: Examples, options: PredictOptions) -> None:
    target = examples.first_target()
    forms = 2 if options.precision is None else 1  # of each output: its mean, and its noise
    if target is not None and outputs.numel() != forms * target.numel():
        noise = "the mean and the noise of each target; give --precision for a network without"
        raise ValueError(
            f"expected {forms * target.numel()} outputs of {options.network.model} for an example "
            f"of {options.data}, got {outputs.numel()}; "
            f"{'check its targets' if options.precision is not None else f'they are {noise}'}"
        )
    count = outputs.shape[1] // forms if outputs.ndim > 1 else 1
    require_names_of_outputs(examples.outputs, _units(options, examples), (1, count))
