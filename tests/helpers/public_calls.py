"""A call of every public name, on small networks and examples that may lie on any device."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from random import random
from typing import Any

import as_found
import torch
import torch.distributed as dist
from models import examples, make_network
from posteriors import Posterior
from tiny import Here, smallest
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import mcbn

NAME = "1d of 2-D"


@dataclass(frozen=True)
class Place:
    """Where the networks of a call lie, and where its examples do."""

    networks: str | torch.device = "cpu"
    examples: str | torch.device = "cpu"

    @cached_property
    def x(self) -> Tensor:
        return examples(NAME, 24, seed=8).to(self.examples)

    @cached_property
    def y(self) -> Tensor:
        return (torch.arange(24) % 3).to(self.examples)

    @cached_property
    def training(self) -> TensorDataset:
        pairs = examples(NAME, 60), torch.arange(60) % 3
        return TensorDataset(*(each.to(self.examples) for each in pairs))

    def network(self) -> nn.Module:
        """In train mode, one part in eval mode, with gradients and hooks of the user's."""
        model = plain().to(self.networks)
        model[3].eval()
        model[0].weight.requires_grad_(False)
        model[4].weight.grad = torch.ones_like(model[4].weight)
        model[2].register_forward_hook(lambda module, args, answer: answer)
        model[1].register_forward_pre_hook(lambda module, args: args)
        model[6].register_full_backward_hook(lambda module, given, got: None)
        return model

    def plain(self) -> nn.Module:
        """Without hooks: tracing and folding take it."""
        return plain().to(self.networks)

    def without_dropout(self) -> nn.Module:
        """With hooks of the user's, and none of its own dropout."""
        return nn.Sequential(*(m for m in self.network() if not isinstance(m, nn.Dropout)))

    def bank(self, model: nn.Module, draws: int = 5) -> mcbn.Bank:
        return mcbn.collect(model, mcbn.minibatches(self.training, batch_size=8, draws=draws))

    def classes(self) -> mcbn.CategoricalPredictive:
        return mcbn.predict(mcbn.MCDropout(self.network(), draws=3), self.x)

    def labels(self) -> mcbn.BernoulliPredictive:
        return mcbn.predict(mcbn.MCDropout(self.network(), draws=3), self.x, "bernoulli")

    def real(self) -> tuple[mcbn.GaussianPredictive, Tensor]:
        """Predictions of real values, and targets."""
        sampler = mcbn.MCDropout(self.network(), draws=3, output=lambda answer: answer[:, :1])
        return mcbn.predict(sampler, self.x, mcbn.Gaussian(precision=2.0)), self.x[:, :1].clone()


# A call of no arguments, and the networks that it is to leave as they were.
Case = Callable[[Path, Place], tuple[Callable[[], Any], list[nn.Module]]]
Builder = Callable[[Place], nn.Module]


def plain() -> nn.Module:
    return make_network(NAME).train()


class OddsOf:
    """A detector of another library, which needs gradients and leaves its network in train mode."""

    def __init__(self, model):
        self.model = model

    def predict(self, x):
        answer = -self.model(x).amax(1)
        answer.sum().backward()
        self.model.train()
        return answer


def with_network(call: Callable[..., Any], build: Builder = Place.network) -> Case:
    """A case of a call with one network and a bank of it."""

    def case(folder, at):
        model = build(at)
        drawn = at.bank(model)
        return lambda: call(model, drawn, at), [model]

    return case


def sampled(engine: str, build: Builder = Place.plain) -> Case:
    return with_network(
        lambda m, b, at: mcbn.predict(mcbn.MCBatchNorm(m, b, engine=engine), at.x), build
    )


def ensemble(folder, at):
    models = [at.network(), at.plain()]
    return lambda: mcbn.predict(mcbn.DeepEnsemble(models), at.x), models


def without_network(call: Callable[[Place], Any]) -> Case:
    def case(folder, at):
        return lambda: call(at), []

    return case


def fitted(kind: Any, **options: Any) -> Case:
    """A case of a recalibration: fitted, then applied to other predictions."""

    def call(found, other, targets):
        return kind.fit(found, targets, **options)(other)

    def case(folder, at):
        found, other = at.classes(), at.classes()
        return lambda: call(found, other, at.y), []

    return case


def fitted_real(kind: Any, **options: Any) -> Case:
    def case(folder, at):
        (found, targets), (other, _) = at.real(), at.real()
        return lambda: kind.fit(found, targets, **options)(other), []

    return case


def fitted_labels(kind: Any, **options: Any) -> Case:
    def case(folder, at):
        found, other = at.labels(), at.labels()
        targets = (found.log_odds > 0.1).long()
        return lambda: kind.fit(found, targets, **options)(other), []

    return case


def regressed(call: Callable[..., Any]) -> Case:
    """A case of a call with predictions of real values and their targets."""

    def case(folder, at):
        found, targets = at.real()
        return lambda: call(found, targets, at), []

    return case


def classified(call: Callable[..., Any]) -> Case:
    """A case of a call with predictions of classes."""

    def case(folder, at):
        found = at.classes()
        return lambda: call(found, at), []

    return case


def filed(call: Callable[..., Any]) -> Case:
    """A case of a call with predictions of classes and a folder."""

    def case(folder, at):
        found = mcbn.Predictions("m", at.classes(), at.y, "data")
        return lambda: call(found, folder), []

    return case


def of_networks(folder, at):
    found = mcbn.predict(mcbn.MCDropout(at.network(), draws=3), at.x, keep_draws=True)
    return lambda: mcbn.ensemble_equivalents({"a": found}, found, at.y, resamples=5), []


def from_files(folder, at):
    path = folder / "nets.py"
    path.write_text("from public_calls import plain as build\n")
    at.bank(at.plain()).save(folder / "bank.st")
    (folder / "x").mkdir(exist_ok=True)
    names = {"bank": str(folder / "bank.st"), "device": str(at.networks)}
    return lambda: mcbn.Predictor(f"{path}:build", **names)({"x": at.x.cpu().numpy()}), []


def study(folder, at):
    def call():
        found = mcbn.run_study(smallest(), folder / "study", executor=Here(), progress=False)
        return [dict(result.scores) for result in found.results]

    return call, []


def study_read(folder, at):
    run, _ = study(folder, at)
    return lambda: (run(), mcbn.Study.load(folder / "study"))[0], []


def swept(folder, at):
    model = at.network()
    pairs = at.x, at.x[:, 0].long() % 2
    task = mcbn.Task(pairs, pairs, pairs, outside={"far": at.x + 1})

    def call():
        found = mcbn.sweep(
            model, task, batch_sizes=(4, 6), draws=3, folder=folder / "sweep", progress=False
        )
        return [dict(result.scores) for result in found.results]

    return call, [model]


def shared_out(folder, at):
    model = at.network()
    sampler = mcbn.MCBatchNorm(model, at.bank(model))

    if not dist.is_initialized():
        place = f"file://{folder / 'meeting'}"
        dist.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    return lambda: mcbn.predict_distributed(sampler, at.x), [model]


def compared(folder, at):
    model = at.network()
    samplers = {"a": mcbn.Deterministic(model), "b": mcbn.MCDropout(model, draws=2)}
    return lambda: mcbn.compare(samplers, at.x, at.y, resamples=5), [model]


def sharded(folder, at):
    shard = mcbn.ShardScores.of
    return lambda: shard([(at.classes(), at.y)], shard="a").evaluation(resamples=5).to_dict(), []


def by_batches(folder, at):
    model = at.network()
    data = TensorDataset(at.x, at.y[:, None, None].expand(-1, 3, 2))
    sampler = mcbn.Deterministic(
        model, output=lambda answer: answer[:, :, None, None].expand(-1, -1, 3, 2)
    )
    return lambda: mcbn.evaluate_batches(sampler, data, resamples=5).to_dict(), [model]


def carded(folder, at):
    scored = {"MCBN": mcbn.evaluate(at.classes(), at.y, resamples=5)}
    return lambda: mcbn.to_model_card(scored, name="net", data="data"), []


def tempered(folder, at):
    found = mcbn.predict(mcbn.MCDropout(at.plain(), draws=3), at.x, keep_draws=True)
    return lambda: mcbn.TemperedCategorical.fit(found, at.y).temperature, []


def tempered_or_not(folder, at):
    found = mcbn.predict(mcbn.MCDropout(at.plain(), draws=3), at.x, keep_draws=True)
    return lambda: mcbn.fit_temperature(found, at.y).to_dict(), []


def watched(model, drawn, at):
    monitor = mcbn.DriftMonitor(model, drawn, alpha=0.4)
    return [monitor.update(batch) for batch in at.x.split(8)]


def exported(folder, at):
    model = at.plain()
    sampler = mcbn.MCBatchNorm(model, at.bank(model))
    return lambda: mcbn.export(sampler, at.x, folder / "net.pt2"), [model]


def round_trip(found, folder):
    mcbn.write_predictions(folder / "p.csv", found)
    return mcbn.read_predictions(folder / "p.csv").predictive


def kept(found, folder):
    found.save(folder / "p.st")
    return mcbn.Predictions.load(folder / "p.st").predictive


def transformed(transform: Any, copies: int = 1) -> Case:
    """A case of a transform of a whole batch, in a draw of the plain network."""
    return with_network(
        lambda m, _, at: mcbn.predict(mcbn.Augmented(m, transform, draws=3), at.x.repeat(1, copies))
    )


def noisy(example):
    return example.mul_(1 + 0.1 * torch.rand(()) + 0.1 * random())  # writes into its example


# What takes a model, a loader or data: each public name with a call of it.
CALLS = {
    "Augmented": with_network(lambda m, b, at: mcbn.predict(
        mcbn.Augmented(mcbn.MCBatchNorm(m, b), noisy), at.x)),
    "RandomCrop": transformed(mcbn.RandomCrop((4,)), copies=2),
    "RandomFlip": transformed(mcbn.RandomFlip()),
    "RandomShift": transformed(mcbn.RandomShift((2,))),
    "Compose": transformed(mcbn.Compose(mcbn.RandomShift((2,), "circular"), mcbn.RandomFlip())),
    "MCBatchNorm": sampled("auto"),
    "MCBatchNorm loop": sampled("loop", Place.network),
    "MCBatchNorm folded": sampled("folded"),
    "MCBatchNorm batched": sampled("batched"),
    "MCDropout": with_network(lambda m, _, at: mcbn.predict(mcbn.MCDropout(m, draws=3), at.x)),
    "MCDropout put in": with_network(lambda m, _, at: mcbn.predict(
        mcbn.MCDropout(m, draws=3, insert=0.2), at.x), Place.without_dropout),
    "DeepEnsemble": ensemble,
    "Deterministic": with_network(lambda m, _, at: mcbn.predict(mcbn.Deterministic(m), at.x)),
    "LastLayerLaplace": with_network(lambda m, _, at: mcbn.predict(
        mcbn.LastLayerLaplace.fit(m, at.training, draws=3), at.x)),
    "LaplaceSampler": with_network(lambda m, _, at: mcbn.predict(
        mcbn.LaplaceSampler(Posterior(m), draws=3), at.x)),
    "LinearizedBatchNorm": with_network(
        lambda m, b, at: mcbn.LinearizedBatchNorm(m, b, exact=2)(at.x)),
    "Linearity": with_network(
        lambda m, b, at: mcbn.LinearizedBatchNorm(m, b).linearity(at.x, draws=3)),
    "collect": with_network(lambda m, _, at: at.bank(m)),
    "collect loader": with_network(lambda m, _, at: mcbn.collect(
        m, DataLoader(at.training, batch_size=8, shuffle=True), draws=9)),
    "minibatches": without_network(lambda at: list(mcbn.minibatches(
        list(at.training), batch_size=8, draws=2))),
    "predict": with_network(lambda m, b, at: mcbn.predict(
        mcbn.MCBatchNorm(m, b), DataLoader(at.training, batch_size=16), keep_draws=True)),
    "predict_batches": with_network(lambda m, b, at: list(mcbn.predict_batches(
        mcbn.MCBatchNorm(m, b), at.x, batch_size=9))),
    "predict_distributed": shared_out,
    "evaluate": classified(lambda p, at: mcbn.evaluate(p, at.y, resamples=5).to_dict()),
    "evaluate real": regressed(lambda p, y, at: mcbn.evaluate(p, y, resamples=5).to_dict()),
    "evaluate_batches": by_batches,
    "ShardScores": sharded,
    "class_scores": classified(lambda p, at: mcbn.class_scores(p, at.y, resamples=5).support),
    "out_of_distribution": classified(lambda p, at: mcbn.out_of_distribution(p, p, resamples=5)),
    "ensemble_equivalents": of_networks,
    "compare": compared,
    "compare detectors": with_network(lambda m, _, at: mcbn.compare(
        {"plain": mcbn.Deterministic(m)}, at.x, at.y, outside={"far": at.x + 1}, resamples=3,
        detectors=[mcbn.NearestNeighbors.fit(m, at.x, k=2)],
    ).to_dict()["detectors"]["knn"]["outside"]),
    "NearestNeighbors": with_network(
        lambda m, _, at: mcbn.NearestNeighbors.fit(m, at.x, k=2)(at.x + 1)),
    "ExternalDetector": with_network(lambda m, _, at: mcbn.ExternalDetector(OddsOf(m))(at.x)),
    "plot": classified(lambda p, at: mcbn.plot.reliability(
        mcbn.Predictions("m", p, at.y, "data")).get_xlim()),
    "consistency": with_network(lambda m, b, at: mcbn.consistency(b).passed),
    "drift_test": with_network(
        lambda m, b, at: mcbn.drift_test(m, b, at.training, alpha=0.4).to_dict()),
    "DriftMonitor": with_network(watched),
    "choose_batch_size": with_network(lambda m, b, at: mcbn.choose_batch_size(
        m, b, at.x, at.y, points=3, resamples=3).to_dict()),
    "choose_layers": with_network(lambda m, b, at: mcbn.choose_layers(
        m, b, at.x, at.y, resamples=3).to_dict()),
    "draw_choice": with_network(lambda m, b, at: mcbn.draw_choice(mcbn.choose_batch_size(
        m, b, at.x, at.y, points=3, resamples=3)).get_xlim()),
    "ELBO": with_network(lambda m, b, at: mcbn.choose_batch_size(
        m, b, at.x, at.y, points=3, resamples=3, criterion=mcbn.ELBO()).to_dict()),
    "choose_abstention": without_network(lambda at: mcbn.choose_abstention(
        at.x[:, 0].float(), at.y == 0, risk=0.9)),
    "inspect": with_network(lambda m, _, at: str(mcbn.inspect(m, at.x))),
    "export": exported,
    "Bank": with_network(lambda m, b, at: b.rescale(batch_size=3.5)),
    "JointPosterior": with_network(lambda m, b, at: mcbn.JointPosterior.from_bank(b).sample(3)),
    "FactorizedPosterior": with_network(
        lambda m, b, at: mcbn.FactorizedPosterior.from_bank(b).sample(3)),
    "CurvaturePosterior": with_network(
        lambda m, b, at: mcbn.CurvaturePosterior.fit(m, b, at.x, batch_size=9).sample(3)),
    "check_posterior": with_network(lambda m, b, at: mcbn.check_posterior(
        m, mcbn.JointPosterior.from_bank(b), at.x, draws=3)),
    "Predictor": from_files,
    "run_study": study,
    "sweep": swept,
    "to_model_card": carded,
    "read_predictions": filed(round_trip),
    "write_predictions": filed(round_trip),
    "Predictions": filed(kept),
    "fit_precision": regressed(lambda p, y, at: mcbn.fit_precision(p, y)),
    "TemperatureScaling": fitted(mcbn.TemperatureScaling),
    "VectorScaling": fitted(mcbn.VectorScaling),
    "Isotonic": fitted(mcbn.Isotonic),
    "PlattScaling": fitted_labels(mcbn.PlattScaling),
    "IsotonicByLabel": fitted_labels(mcbn.IsotonicByLabel),
    "ConformalLabels": fitted_labels(mcbn.ConformalLabels, level=0.6),
    "ConformalSets": fitted(mcbn.ConformalSets, level=0.6),
    "ConformalSetsByClass": fitted(mcbn.ConformalSetsByClass, level=0.6),
    "ConformalSetsBySubgroup": classified(lambda p, at: mcbn.ConformalSetsBySubgroup.fit(
        p, at.y, by=at.y % 2, level=0.6).to_dict()),
    "TemperedCategorical": tempered,
    "fit_temperature": tempered_or_not,
    "VarianceScaling": fitted_real(mcbn.VarianceScaling),
    "ConformalIntervals": fitted_real(mcbn.ConformalIntervals, level=0.6),
    "ConformalIntervalsBySubgroup": regressed(
        lambda p, y, at: mcbn.ConformalIntervalsBySubgroup.fit(
            p, y, by=at.y % 2, level=0.6).to_dict()),
    "Study": study_read,
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


def plainly(answer: Any) -> Any:
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
