"""Isolation: after any public call, however it ended, the user's model and process are as found."""

import sys
import warnings
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from random import Random, random

import as_found
import pytest
import torch
import torch.distributed as dist
from injection import Injector
from models import examples, make_network
from posteriors import Posterior
from tiny import Here, smallest
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import mcbn

# Importing scikit-learn sets variables of OpenMP, which is no call's doing.
PUBLIC = {name: getattr(mcbn, name) for name in mcbn.__all__}

pytestmark = pytest.mark.filterwarnings(
    # An interrupt may land where Python throws away a generator, which cannot raise.
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
NAME = "1d of 2-D"
X, Y = examples(NAME, 24, seed=8), torch.arange(24) % 3
REAL = X[:, 0].clone()
TRAINING = TensorDataset(examples(NAME, 60), torch.arange(60) % 3)


def network() -> nn.Module:
    """A network in train mode, one part in eval mode, with gradients and hooks of the user's."""
    model = make_network(NAME).train()
    model[3].eval()
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    model[2].register_forward_hook(lambda module, args, answer: answer)
    model[1].register_forward_pre_hook(lambda module, args: args)
    model[6].register_full_backward_hook(lambda module, given, got: None)
    return model


class OddsOf:
    """A detector of another library, which needs gradients and leaves its network in train mode."""

    def __init__(self, model):
        self.model = model

    def predict(self, x):
        answer = -self.model(x).amax(1)
        answer.sum().backward()
        self.model.train()
        return answer


def bank(model, draws=5):
    return mcbn.collect(model, mcbn.minibatches(TRAINING, batch_size=8, draws=draws))


def plain():
    """A network without hooks: tracing and folding take it."""
    return make_network(NAME).train()


def without_dropout():
    """The network with hooks of the user's, and none of its own dropout."""
    return nn.Sequential(*(layer for layer in network() if not isinstance(layer, nn.Dropout)))


def sampled(engine, build=plain):
    model = build()
    drawn = bank(model)
    return lambda: mcbn.predict(mcbn.MCBatchNorm(model, drawn, engine=engine), X), [model]


def with_network(call, build=network):
    """A case of a call on one network."""

    def case(folder):
        model = build()
        drawn = bank(model)
        return lambda: call(model, drawn), [model]

    return case


def ensemble(folder):
    models = [network(), plain()]
    return lambda: mcbn.predict(mcbn.DeepEnsemble(models), X), models


def classes():
    return mcbn.predict(mcbn.MCDropout(network(), draws=3), X)


def real():
    model = network()
    sampler = mcbn.MCDropout(model, draws=3, output=lambda answer: answer[:, :1])
    return mcbn.predict(sampler, X, mcbn.Gaussian(precision=2.0)), REAL[:, None]


def without_network(call):
    def case(folder):
        return lambda: call(folder), []

    return case


def fitted(kind, **options):
    """A case of a recalibration: fitted, then applied to other predictions."""

    def call(found, other, targets):
        return kind.fit(found, targets, **options)(other)

    def case(folder):
        found, other = classes(), classes()
        return lambda: call(found, other, Y), []

    return case


def fitted_real(kind, **options):
    def case(folder):
        (found, targets), (other, _) = real(), real()
        return lambda: kind.fit(found, targets, **options)(other), []

    return case


def fitted_labels(kind, **options):
    def labels():
        return mcbn.predict(mcbn.MCDropout(network(), draws=3), X, "bernoulli")

    def case(folder):
        found, other = labels(), labels()
        targets = (found.log_odds > 0.1).long()
        return lambda: kind.fit(found, targets, **options)(other), []

    return case


def regressed(call):
    def case(folder):
        found, targets = real()
        return lambda: call(found, targets), []

    return case


def classified(call):
    def case(folder):
        found = classes()
        return lambda: call(found, folder), []

    return case


def of_networks(folder):
    found = mcbn.predict(mcbn.MCDropout(network(), draws=3), X, keep_draws=True)
    return lambda: mcbn.ensemble_equivalents({"a": found}, found, Y, resamples=5), []


def from_files(folder):
    path = folder / "nets.py"
    path.write_text("from test_isolation import plain as build\n")
    bank(plain()).save(folder / "bank.st")
    (folder / "x").mkdir(exist_ok=True)
    predictor = lambda: mcbn.Predictor(f"{path}:build", bank=str(folder / "bank.st"))  # noqa: E731
    return lambda: predictor()({"x": X.numpy()}), []


def study(folder):
    def call():
        found = mcbn.run_study(smallest(), folder / "study", executor=Here(), progress=False)
        return [dict(result.scores) for result in found.results]

    return call, []


def swept(folder):
    model = network()
    pairs = X, X[:, 0].long() % 2
    task = mcbn.Task(pairs, pairs, pairs, outside={"far": X + 1})

    def call():
        found = mcbn.sweep(
            model, task, batch_sizes=(4, 6), draws=3, folder=folder / "sweep", progress=False
        )
        return [dict(result.scores) for result in found.results]

    return call, [model]


def shared_out(folder):
    model = network()
    sampler = mcbn.MCBatchNorm(model, bank(model))

    if not dist.is_initialized():
        place = f"file://{folder / 'meeting'}"
        dist.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    return lambda: mcbn.predict_distributed(sampler, X), [model]


def compared(folder):
    model = network()
    samplers = {"a": mcbn.Deterministic(model), "b": mcbn.MCDropout(model, draws=2)}
    return lambda: mcbn.compare(samplers, X, Y, resamples=5), [model]


def by_batches(folder):
    model = network()
    data = TensorDataset(X, Y[:, None, None].expand(-1, 3, 2))
    sampler = mcbn.Deterministic(
        model, output=lambda answer: answer[:, :, None, None].expand(-1, -1, 3, 2)
    )
    return lambda: mcbn.evaluate_batches(sampler, data, resamples=5).to_dict(), [model]


def carded(folder):
    scored = {"MCBN": mcbn.evaluate(classes(), Y, resamples=5)}
    return lambda: mcbn.to_model_card(scored, name="net", data="data"), []


def tempered(folder):
    found = mcbn.predict(mcbn.MCDropout(plain(), draws=3), X, keep_draws=True)
    return lambda: mcbn.TemperedCategorical.fit(found, Y).temperature, []


def tempered_or_not(folder):
    found = mcbn.predict(mcbn.MCDropout(plain(), draws=3), X, keep_draws=True)
    return lambda: mcbn.fit_temperature(found, Y).to_dict(), []


def watched(model, drawn):
    monitor = mcbn.DriftMonitor(model, drawn, alpha=0.4)
    return [monitor.update(batch) for batch in X.split(8)]


def exported(folder):
    model = plain()
    sampler = mcbn.MCBatchNorm(model, bank(model))
    return lambda: mcbn.export(sampler, X, folder / "net.pt2"), [model]


def round_trip(found, folder):
    mcbn.write_predictions(folder / "p.csv", mcbn.Predictions("m", found, Y, "data"))
    return mcbn.read_predictions(folder / "p.csv").predictive


def kept(found, folder):
    mcbn.Predictions("m", found, Y, "data").save(folder / "p.st")
    return mcbn.Predictions.load(folder / "p.st").predictive


def flipped(transform, inputs=X):
    """A case of a transform of a whole batch, in a draw of the plain network."""
    return with_network(lambda m, _: mcbn.predict(mcbn.Augmented(m, transform, draws=3), inputs))


def noisy(example):
    return example.mul_(1 + 0.1 * torch.rand(()) + 0.1 * random())  # writes into its example


# What takes a model, a loader or data: each public name with a call of it.
CALLS = {
    "Augmented": with_network(lambda m, b: mcbn.predict(
        mcbn.Augmented(mcbn.MCBatchNorm(m, b), noisy), X)),
    "RandomCrop": flipped(mcbn.RandomCrop((4,)), X.repeat(1, 2)),
    "RandomFlip": flipped(mcbn.RandomFlip()),
    "RandomShift": flipped(mcbn.RandomShift((2,))),
    "Compose": flipped(mcbn.Compose(mcbn.RandomShift((2,), "circular"), mcbn.RandomFlip())),
    "MCBatchNorm": lambda folder: sampled("auto"),
    "MCBatchNorm loop": lambda folder: sampled("loop", network),
    "MCBatchNorm folded": lambda folder: sampled("folded"),
    "MCBatchNorm batched": lambda folder: sampled("batched"),
    "MCDropout": with_network(lambda m, _: mcbn.predict(mcbn.MCDropout(m, draws=3), X)),
    "MCDropout put in": with_network(
        lambda m, _: mcbn.predict(mcbn.MCDropout(m, draws=3, insert=0.2), X), without_dropout),
    "DeepEnsemble": ensemble,
    "Deterministic": with_network(lambda m, _: mcbn.predict(mcbn.Deterministic(m), X)),
    "LastLayerLaplace": with_network(lambda m, _: mcbn.predict(
        mcbn.LastLayerLaplace.fit(m, TRAINING, draws=3), X)),
    "LaplaceSampler": with_network(lambda m, _: mcbn.predict(
        mcbn.LaplaceSampler(Posterior(m), draws=3), X)),
    "LinearizedBatchNorm": with_network(lambda m, b: mcbn.LinearizedBatchNorm(m, b, exact=2)(X)),
    "Linearity": with_network(
        lambda m, b: mcbn.LinearizedBatchNorm(m, b).linearity(X, draws=3)),
    "collect": with_network(lambda m, _: bank(m)),
    "collect loader": with_network(lambda m, _: mcbn.collect(
        m, DataLoader(TRAINING, batch_size=8, shuffle=True), draws=9)),
    "minibatches": without_network(lambda _: list(mcbn.minibatches(
        list(TRAINING), batch_size=8, draws=2))),
    "predict": with_network(lambda m, b: mcbn.predict(
        mcbn.MCBatchNorm(m, b), DataLoader(TRAINING, batch_size=16), keep_draws=True)),
    "predict_batches": with_network(lambda m, b: list(mcbn.predict_batches(
        mcbn.MCBatchNorm(m, b), X, batch_size=9))),
    "predict_distributed": shared_out,
    "evaluate": classified(lambda p, _: mcbn.evaluate(p, Y, resamples=5).to_dict()),
    "evaluate real": regressed(lambda p, y: mcbn.evaluate(p, y, resamples=5).to_dict()),
    "evaluate_batches": by_batches,
    "class_scores": classified(lambda p, _: mcbn.class_scores(p, Y, resamples=5).support),
    "out_of_distribution": classified(lambda p, _: mcbn.out_of_distribution(p, p, resamples=5)),
    "ensemble_equivalents": of_networks,
    "compare": compared,
    "compare detectors": with_network(lambda m, b: mcbn.compare(
        {"plain": mcbn.Deterministic(m)}, X, Y, outside={"far": X + 1}, resamples=3,
        detectors=[mcbn.NearestNeighbors.fit(m, X, k=2)]).to_dict()["detectors"]["knn"]["outside"]),
    "NearestNeighbors": with_network(lambda m, _: mcbn.NearestNeighbors.fit(m, X, k=2)(X + 1)),
    "ExternalDetector": with_network(lambda m, _: mcbn.ExternalDetector(OddsOf(m))(X)),
    "plot": classified(lambda p, _: mcbn.plot.reliability(
        mcbn.Predictions("m", p, Y, "data")).get_xlim()),
    "consistency": with_network(lambda m, b: mcbn.consistency(b).passed),
    "drift_test": with_network(lambda m, b: mcbn.drift_test(m, b, TRAINING, alpha=0.4).to_dict()),
    "DriftMonitor": with_network(watched),
    "choose_batch_size": with_network(lambda m, b: mcbn.choose_batch_size(
        m, b, X, Y, points=3, resamples=3).to_dict()),
    "choose_layers": with_network(lambda m, b: mcbn.choose_layers(
        m, b, X, Y, resamples=3).to_dict()),
    "draw_choice": with_network(lambda m, b: mcbn.draw_choice(mcbn.choose_batch_size(
        m, b, X, Y, points=3, resamples=3)).get_xlim()),
    "ELBO": with_network(lambda m, b: mcbn.choose_batch_size(
        m, b, X, Y, points=3, resamples=3, criterion=mcbn.ELBO()).to_dict()),
    "choose_abstention": without_network(lambda _: mcbn.choose_abstention(
        X[:, 0].float(), Y == 0, risk=0.9)),
    "inspect": with_network(lambda m, _: str(mcbn.inspect(m, X))),
    "export": exported,
    "Bank": with_network(lambda m, b: b.rescale(batch_size=3.5)),
    "JointPosterior": with_network(lambda m, b: mcbn.JointPosterior.from_bank(b).sample(3)),
    "FactorizedPosterior": with_network(
        lambda m, b: mcbn.FactorizedPosterior.from_bank(b).sample(3)),
    "check_posterior": with_network(lambda m, b: mcbn.check_posterior(
        m, mcbn.JointPosterior.from_bank(b), X, draws=3)),
    "Predictor": from_files,
    "run_study": study,
    "sweep": swept,
    "to_model_card": carded,
    "read_predictions": classified(round_trip),
    "write_predictions": classified(round_trip),
    "Predictions": classified(kept),
    "fit_precision": regressed(lambda p, y: mcbn.fit_precision(p, y)),
    "TemperatureScaling": fitted(mcbn.TemperatureScaling),
    "VectorScaling": fitted(mcbn.VectorScaling),
    "Isotonic": fitted(mcbn.Isotonic),
    "PlattScaling": fitted_labels(mcbn.PlattScaling),
    "IsotonicByLabel": fitted_labels(mcbn.IsotonicByLabel),
    "ConformalLabels": fitted_labels(mcbn.ConformalLabels, level=0.6),
    "ConformalSets": fitted(mcbn.ConformalSets, level=0.6),
    "ConformalSetsByClass": fitted(mcbn.ConformalSetsByClass, level=0.6),
    "ConformalSetsBySubgroup": classified(lambda p, _: mcbn.ConformalSetsBySubgroup.fit(
        p, Y, by=Y % 2, level=0.6).to_dict()),
    "TemperedCategorical": tempered,
    "fit_temperature": tempered_or_not,
    "VarianceScaling": fitted_real(mcbn.VarianceScaling),
    "ConformalIntervals": fitted_real(mcbn.ConformalIntervals, level=0.6),
    "ConformalIntervalsBySubgroup": regressed(
        lambda p, y: mcbn.ConformalIntervalsBySubgroup.fit(p, y, by=Y % 2, level=0.6).to_dict()),
    "Study": lambda folder: (lambda: (study(folder)[0](), mcbn.Study.load(folder / "study"))[0],
                             []),
}  # fmt: skip

# Values that are made of numbers and names, and what the calls above return.
VALUES = {
    "Abstention", "Artifact", "BatchSizeChoice", "Bernoulli", "BernoulliPredictive",
    "Categorical", "CategoricalPredictive", "ClassScores", "Comparison", "Consistency",
    "Coverage", "DataAxes", "DriftTest", "Evaluation", "Gaussian", "GaussianPredictive",
    "InconsistentBankWarning", "InferenceAxes", "Inspection", "LabelSets", "LayerChoice",
    "Likelihood",
    "NetworkAxes", "Plan", "PosteriorCheck", "PredictionIntervals", "PredictionSets", "Report",
    "RescalingWarning", "Sampler", "Score", "Task", "TrainingAxes", "UncertaintyScore",
    "TemperatureBoundWarning",
}  # fmt: skip

ERRORS = (KeyboardInterrupt, RuntimeError)


def plainly(answer):
    """Numbers of an answer, in a form that can be compared bit for bit."""
    if isinstance(answer, Tensor):
        return str(answer.dtype), tuple(answer.shape), as_found.bits(answer)
    if is_dataclass(answer):
        return [
            plainly(getattr(answer, field.name))
            for field in fields(answer)
            if field.name != "seconds"
        ]
    if isinstance(answer, dict):
        return {key: plainly(value) for key, value in answer.items()}
    if isinstance(answer, (list, tuple)):
        return [plainly(value) for value in answer]
    # Each call has a folder of its own.
    return answer.name if isinstance(answer, Path) else repr(answer)


def quiet():
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)


@pytest.fixture(autouse=True)
def no_complaints():
    with warnings.catch_warnings():
        quiet()
        hook = sys.excepthook
        yield
        if dist.is_initialized():
            dist.destroy_process_group()
            sys.excepthook = hook


def folder_of(path: Path, count: int) -> Path:
    made = path / str(count)
    made.mkdir()
    return made


def temporary_files(folder: Path) -> list[str]:
    return [str(p) for p in folder.rglob("*") if p.name.startswith(".") or ".tmp" in p.name]


def ended(call, models, error=None) -> list[str]:
    """Do the call; what is not as it was, be it that the call ended well or in `error`."""
    before = as_found.process(), [as_found.model(m) for m in models]
    try:
        call()
    except BaseException as caught:  # torch may make another error of the one that was raised
        if error is None or not isinstance(caught, (error, Exception)):
            raise
        # Looked at while the traceback is still there, as it is in a notebook.
        return differences(before, models)
    return differences(before, models)


def differences(before, models) -> list[str]:
    process = as_found.moved(before[0], as_found.process())
    pairs = zip(before[1], models, strict=True)
    return process + [name for was, m in pairs for name in as_found.moved(was, as_found.model(m))]


def faults(name: str, folder: Path, *, points: int, seed: int) -> list[str]:
    """Errors at random instants of a call: what is not as found, or goes wrong in the next call."""
    build, chance, counting = CALLS[name], Random(seed), Injector()
    expected = plainly(build(folder_of(folder, 0))[0]())
    counting(build(folder_of(folder, 1))[0])
    found = []
    for point in range(points):
        error = ERRORS[point % 2]
        injector = Injector(chance.randint(1, counting.count), error)
        own = folder_of(folder, point + 2)
        call, models = build(own)
        wrong = ended(partial(injector, call), models, error)
        again = plainly(call())
        # An error that is caught, as of a trial, may send later calls another way.
        if error is KeyboardInterrupt and again != expected:
            wrong.append("the next answer")
        wrong += temporary_files(own)
        found += [f"{error.__name__} at {injector.where}: {wrong}"] if wrong else []
    return found


def test_every_public_name_has_a_call_or_is_a_value():
    called = {name.split()[0] for name in CALLS}
    assert called.isdisjoint(VALUES)
    assert called | VALUES == set(PUBLIC)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_everything_as_found(name, tmp_path):
    call, models = CALLS[name](tmp_path)
    assert ended(call, models) == []


@pytest.mark.unchecked
@pytest.mark.parametrize("name", CALLS)
def test_an_error_at_any_instant_leaves_everything_as_found(name, tmp_path):
    """Two instants of each call, the second an interrupt."""
    assert faults(name, tmp_path, points=2, seed=0) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_an_error_at_any_of_a_hundred_instants_of_each_call_does(name, tmp_path):
    assert faults(name, tmp_path, points=100, seed=1) == []
