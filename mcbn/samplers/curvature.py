"""Curvature of the log-likelihood in the weights of a last dense layer, and its eigenvectors."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from mcbn import validation
from mcbn.network.targets import Targets, as_targets

Structure = Literal["kronecker", "full"]
# Weights of a layer whose full curvature is kept: a square of so many float64, 0.5 GB.
MAX_FULL = 8192


@runtime_checkable
class WithPrecision(Protocol):
    """A likelihood of real targets with constant Gaussian noise, such as `mcbn.Gaussian(2.0)`."""

    @property
    def precision(self) -> float | Sequence[float] | None:
        """Tau, one over the noise variance: one number, or one for each output."""
        ...


LastLayerLikelihood = Literal["categorical", "bernoulli"] | WithPrecision


@dataclass(frozen=True)
class OutputLikelihood:
    """How likely targets are given a network's outputs, with the curvature in the outputs.

    Attributes:
        kind: of classes, of several labels an example, or of real targets.
        precision: tau of each output of real targets, or one for all.
    """

    kind: Literal["categorical", "bernoulli", "gaussian"]
    precision: tuple[float, ...] = ()

    @classmethod
    def of(cls, likelihood: LastLayerLikelihood) -> "OutputLikelihood":
        """The likelihood that is given by name, or by an object with a precision.

        Raises:
            ValueError: it is another one.
        """
        if likelihood == "categorical" or likelihood == "bernoulli":
            return cls(likelihood)
        precision = getattr(likelihood, "precision", None)
        if isinstance(likelihood, type) or precision is None:
            raise ValueError(
                "expected the likelihood 'categorical', 'bernoulli' or mcbn.Gaussian(precision=2.0)"
                f", got {likelihood!r:.80}; fit the precision of real targets on held-out data by "
                "mcbn.fit_precision"
            )
        values = torch.as_tensor(precision, dtype=torch.float64).reshape(-1)
        return cls("gaussian", tuple(values.tolist()))

    def targets(
        self, targets: Targets, outputs: Float64[Tensor, "batch outputs"]
    ) -> Float64[Tensor, "batch outputs"] | Tensor:
        """The targets of a batch, as they are compared with its outputs.

        Raises:
            TypeError: classes that are not integers.
            ValueError: they do not fit the outputs.
        """
        given = as_targets(targets).cpu()
        if self.kind == "categorical":
            if outputs.shape[1] < 2:
                raise ValueError(
                    "expected logits of at least 2 classes, got one output per example; give "
                    "likelihood='bernoulli' for a logit, or mcbn.Gaussian(precision=...)"
                )
            return validation.labels(given, outputs.shape[1], outputs.shape[:1]).long()
        if given.ndim == 1 and outputs.shape[1] == 1:
            given = given[:, None]
        validation.require_same_shape(given, outputs, ("targets", "the network's outputs"))
        values = validation.finite(given.double(), "targets")
        if self.kind == "bernoulli" and not bool(((values == 0) | (values == 1)).all()):
            raise ValueError(
                f"expected labels that are 0 or 1, got {values.flatten()[:4].tolist()}; leave out "
                "examples with labels that are not known"
            )
        return values

    def log_likelihood(self, outputs: Float64[Tensor, "batch outputs"], targets: Tensor) -> float:
        """Sum over a batch of the log-density of its targets, in nats."""
        if self.kind == "categorical":
            return float(log_softmax(outputs, 1).gather(1, targets[:, None]).sum())
        if self.kind == "bernoulli":
            return float(logsigmoid(outputs * (2 * targets - 1)).sum())
        precision = self._precisions(outputs)
        squares = precision * (targets - outputs).square()
        return float(((precision / (2 * math.pi)).log() - squares).sum()) / 2

    def hessians(
        self, outputs: Float64[Tensor, "batch outputs"]
    ) -> Float64[Tensor, "batch outputs outputs"]:
        """Minus the second derivatives of the log-density in the outputs of each example."""
        if self.kind == "categorical":
            chances = outputs.softmax(1)
            return chances.diag_embed() - chances[:, :, None] * chances[:, None, :]
        if self.kind == "bernoulli":
            chances = outputs.sigmoid()
            return (chances * (1 - chances)).diag_embed()
        return self._precisions(outputs).diag_embed()

    def _precisions(self, outputs: Tensor) -> Tensor:
        """The precision of each output of each example."""
        if len(self.precision) not in (1, outputs.shape[1]):
            raise ValueError(
                f"expected a precision for each of {outputs.shape[1]} outputs, got "
                f"{len(self.precision)}; give as many, or one number for all"
            )
        return outputs.new_tensor(self.precision).expand_as(outputs)


@runtime_checkable
class Curvature(Protocol):
    """A symmetric matrix over the weights of a layer, as what it does to functions of itself."""

    @property
    def eigenvalues(self) -> Float64[Tensor, "outputs inputs"]:
        """All of them, at least 0."""
        ...

    def apply(
        self, function: Callable[[Tensor], Tensor], weights: Float64[Tensor, "outputs inputs"]
    ) -> Float64[Tensor, "outputs inputs"]:
        """The product of a function of the matrix, given by its eigenvalues, and some weights."""
        ...

    def output_covariance(
        self, function: Callable[[Tensor], Tensor], inputs: Float64[Tensor, "batch inputs"]
    ) -> Float64[Tensor, "batch outputs outputs"]:
        """The covariance of each example's outputs, if a function of the matrix is the weights'."""
        ...


@dataclass(frozen=True, eq=False)
class KroneckerCurvature:
    """A product of a matrix over outputs and one over inputs, by the eigenvectors of both.

    Attributes:
        output_values: eigenvalues of the summed curvature in the outputs.
        output_vectors: their eigenvectors, in columns.
        input_values: eigenvalues of the mean outer product of the inputs.
        input_vectors: their eigenvectors, in columns.
    """

    output_values: Float64[Tensor, " outputs"]
    output_vectors: Float64[Tensor, "outputs outputs"]
    input_values: Float64[Tensor, " inputs"]
    input_vectors: Float64[Tensor, "inputs inputs"]

    @property
    def eigenvalues(self) -> Float64[Tensor, "outputs inputs"]:
        """All products of the eigenvalues of both."""
        return self.output_values[:, None] * self.input_values

    def apply(
        self, function: Callable[[Tensor], Tensor], weights: Float64[Tensor, "outputs inputs"]
    ) -> Float64[Tensor, "outputs inputs"]:
        """See `Curvature`."""
        turned = self.output_vectors.T @ weights @ self.input_vectors
        scaled = function(self.eigenvalues) * turned
        return self.output_vectors @ scaled @ self.input_vectors.T

    def output_covariance(
        self, function: Callable[[Tensor], Tensor], inputs: Float64[Tensor, "batch inputs"]
    ) -> Float64[Tensor, "batch outputs outputs"]:
        """See `Curvature`."""
        variances = (inputs @ self.input_vectors).square() @ function(self.eigenvalues).T
        return (self.output_vectors * variances[:, None]) @ self.output_vectors.T


@dataclass(frozen=True, eq=False)
class FullCurvature:
    """A matrix over all weights, by its eigenvectors.

    Attributes:
        eigenvalues: as a matrix of the shape of the weights.
        vectors: eigenvectors, in columns, over the weights output by output.
    """

    eigenvalues: Float64[Tensor, "outputs inputs"]
    vectors: Float64[Tensor, "weights weights"]

    def apply(
        self, function: Callable[[Tensor], Tensor], weights: Float64[Tensor, "outputs inputs"]
    ) -> Float64[Tensor, "outputs inputs"]:
        """See `Curvature`."""
        scaled = function(self.eigenvalues).flatten() * (self.vectors.T @ weights.flatten())
        return (self.vectors @ scaled).reshape(weights.shape)

    def output_covariance(
        self, function: Callable[[Tensor], Tensor], inputs: Float64[Tensor, "batch inputs"]
    ) -> Float64[Tensor, "batch outputs outputs"]:
        """See `Curvature`."""
        shape = (*self.eigenvalues.shape, -1)
        roots = (self.vectors * function(self.eigenvalues).flatten().sqrt()).reshape(shape)
        jacobians = torch.einsum("bi,oiw->bow", inputs, roots)
        return jacobians @ jacobians.mT


class CurvatureSum:
    """Curvatures and log-likelihoods of a layer's inputs, summed over batches.

    Args:
        likelihood: of the targets.
        structure: what is kept: two factors, or all.
        biased: whether the layer has a bias, which is the weight of an input that is 1.
    """

    def __init__(self, likelihood: OutputLikelihood, structure: Structure, *, biased: bool) -> None:
        self.likelihood, self.structure, self.biased = likelihood, structure, biased
        self.count, self.log_likelihood = 0, 0.0
        self.sums: list[Any] = []

    def add(
        self,
        features: Float[Tensor, "batch features"],
        outputs: Float[Tensor, "batch outputs"],
        targets: Any,
    ) -> None:
        """Add the examples of a batch."""
        inputs = with_ones(features.detach().double().cpu(), biased=self.biased)
        outputs = validation.finite(outputs.detach().double().cpu(), "the network's outputs")
        known = self.likelihood.targets(targets, outputs)
        self.log_likelihood += self.likelihood.log_likelihood(outputs, known)
        self.count += len(outputs)
        hessians = self.likelihood.hessians(outputs)
        if self.structure == "full":
            _require_few(outputs.shape[1] * inputs.shape[1])
            self._sum(_outer_products(inputs, hessians))
        else:
            self._sum(hessians.sum(0), inputs.T @ inputs)

    def curvature(self) -> Curvature:
        """The curvature of all examples so far."""
        if self.structure == "full":
            (whole,) = self.sums
            shape = whole.shape[:2]
            weights = shape.numel()
            values, vectors = _decomposed(whole.reshape(weights, weights))
            return FullCurvature(values.reshape(shape), vectors)
        output, inputs = self.sums[0], self.sums[1] / self.count
        if self.biased:
            # Weights and bias have a curvature each, and none in common.
            inputs[-1, :-1] = inputs[:-1, -1] = 0
        return KroneckerCurvature(*_decomposed(output), *_decomposed(inputs))

    def _sum(self, *terms: Tensor) -> None:
        sums = self.sums or [0.0] * len(terms)
        self.sums = [one + other for one, other in zip(sums, terms, strict=True)]


def with_ones(
    features: Float64[Tensor, "batch features"], *, biased: bool
) -> Float64[Tensor, "batch inputs"]:
    """The inputs of a layer, with a further one that is 1 where it has a bias."""
    ones = features.new_ones(len(features), 1)
    return torch.cat([features, ones], 1) if biased else features


def _outer_products(
    inputs: Float64[Tensor, "batch inputs"], hessians: Float64[Tensor, "batch outputs outputs"]
) -> Float64[Tensor, "outputs inputs outputs inputs"]:
    """The sum over examples of the outer product of each one's curvature and inputs."""
    outputs, size = hessians.shape[1], inputs.shape[1]
    total = inputs.new_zeros(outputs, size, outputs, size)
    for one in range(outputs):
        for other in range(one + 1):
            block = inputs.T @ (hessians[:, one, other, None] * inputs)
            total[one, :, other] = total[other, :, one] = block
    return total


def _decomposed(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, those below zero by rounding as zero, and eigenvectors."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp(min=0), vectors


def _require_few(weights: int) -> None:
    if weights > MAX_FULL:
        raise ValueError(
            f"expected at most {MAX_FULL} weights of the last layer for their full curvature, got "
            f"{weights}; give structure='kronecker'"
        )
