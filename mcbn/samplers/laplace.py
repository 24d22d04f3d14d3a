"""Last-layer Laplace as a sampler: features once, then draws of the last layer's weights."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

import torch
from jaxtyping import Float64, Shaped
from scipy.optimize import brentq
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import linear

from mcbn import validation
from mcbn.inspection.layers import class_name
from mcbn.io.display import Display, Displayed
from mcbn.io.progress import progress_bar
from mcbn.network.batchnorm import require_finite_weights, unwrapped
from mcbn.network.inputs import Inputs, Select
from mcbn.network.isolation import derived_seed
from mcbn.network.labelled_batches import labelled_batches
from mcbn.network.loaders import Data
from mcbn.network.targets import Targets
from mcbn.samplers.curvature import (
    Curvature,
    CurvatureSum,
    LastLayerLikelihood,
    OutputLikelihood,
    Structure,
    with_ones,
)
from mcbn.samplers.last_layer import LastLayer
from mcbn.samplers.outputs import Output, stacked
from mcbn.samplers.sampler import require_draw

# Lowest prior precision that is searched, relative to the largest that the marginal likelihood can
# choose: there, less than a millionth of the weights are determined by the data.
LOWEST_PRECISION = 1e-6
# Weights of all draws that are kept between calls; of more, each is drawn when it is needed.
MAX_KEPT = 2**24


@dataclass(frozen=True, eq=False, repr=False)
class LastLayerLaplace(Displayed):
    """A Gaussian posterior of the last dense layer's weights, by Laplace's method after training.

    The network before that layer runs once for all draws, so T draws cost about one pass. The
    posterior has the trained weights as its mean, and as precision the curvature of the
    log-likelihood, summed over the training data, plus that of a Gaussian prior around 0. Make it
    by `fit`.

    Attributes:
        model: the trained network.
        mean: the weights of the layer, and its bias as the last column.
        curvature: of the log-likelihood at these weights.
        prior_precision: of the prior of each weight.
        log_likelihood: of the training data, at the trained weights.
        draws: T.
        seed: of the draws; draw t depends on it and on t alone.
        layer: name of the layer.
        output: picks the output tensor where the network returns something else.
        structure: of the curvature.

    Reference:
        MacKay 1992, "A practical Bayesian framework for backpropagation networks"; of the last
        layer alone, Kristiadi, Hein and Hennig 2020, "Being Bayesian, even just a bit, fixes
        overconfidence in ReLU networks". Factors: Ritter, Botev and Barber 2018, "A scalable
        Laplace approximation for neural networks", with the curvature and the prior added up as in
        Daxberger et al. 2021, "Laplace redux: effortless Bayesian deep learning".
    """

    model: Module
    mean: Float64[Tensor, "outputs inputs"]
    curvature: Curvature
    prior_precision: float
    log_likelihood: float
    draws: int = field(default=64, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    layer: str = field(kw_only=True)
    output: Output | None = field(default=None, kw_only=True)
    structure: Structure = field(default="kronecker", kw_only=True)

    def __post_init__(self) -> None:
        _require(self.draws, self.prior_precision)
        object.__setattr__(self, "model", unwrapped(self.model))
        require_finite_weights(self.model)

    @classmethod
    def fit(
        cls,
        model: Module,
        data: Data,
        targets: Targets | None = None,
        *,
        likelihood: LastLayerLikelihood = "categorical",
        structure: Structure = "kronecker",
        prior_precision: float | None = None,
        draws: int = 64,
        seed: int = 0,
        layer: str | None = None,
        output: Output | None = None,
        batch_size: int | None = None,
        select: Select | None = None,
        progress: bool = True,
    ) -> "LastLayerLaplace":
        """Fit the posterior to the training data, in one pass over them.

        Args:
            model: the trained network; its outputs are those of its last dense layer.
            data: the training data, as a data set or loader of pairs, or the inputs alone. A part
                of them gives the posterior of that part, which is wider.
            targets: of the inputs, where they are not in the data.
            likelihood: "categorical" for logits of classes, "bernoulli" for logits of several
                labels an example, `mcbn.Gaussian(precision=...)` for real targets.
            structure: "kronecker" for the product of a matrix over outputs and one over features,
                with weights and bias independent; "full" for all covariances, of up to some
                thousand weights.
            prior_precision: of the Gaussian prior, such as N times the weight decay. By default the
                one that maximises the marginal likelihood of the training data.
            draws: T, the number of draws.
            seed: of the draws.
            layer: name of the layer; by default the last dense one in `named_modules`.
            output: picks the output tensor where the network returns something else.
            batch_size: examples per pass where the data are no loader; 256 by default.
            select: picks the network's inputs out of a batch where the default rule does not apply.
            progress: show a progress bar, on a terminal only.

        Raises:
            TypeError: the model is not a module, or the data or targets are of another kind.
            ValueError: the network does not end in a dense layer, that layer is called several
                times or is not what the network returns; or the data do not fit it.

        Warns:
            UserWarning: no prior precision within bounds maximises the marginal likelihood.
        """
        _require(draws, prior_precision)
        if structure not in get_args(Structure):
            raise ValueError(
                f"expected a structure among {get_args(Structure)}, got {structure!r}; leave it out"
            )
        model = unwrapped(model)
        require_finite_weights(model)
        last = LastLayer.of(model, layer, output)
        biased = last.layer.bias is not None
        total = CurvatureSum(OutputLikelihood.of(likelihood), structure, biased=biased)
        batches = labelled_batches(data, targets, batch_size=batch_size, select=select)
        for inputs, known in progress_bar(batches, label="fit", unit="batch", shown=progress):
            with torch.no_grad():
                total.add(*last(inputs), known)
        if total.count == 0:
            raise ValueError("expected at least one example to fit to, got none; check the data")
        mean, curvature = last.weights(), total.curvature()
        chosen = best_precision(curvature, mean) if prior_precision is None else prior_precision
        return cls(
            model, mean, curvature, float(chosen), total.log_likelihood,
            draws=draws, seed=seed, layer=last.name, output=output, structure=structure,
        )  # fmt: skip

    def __len__(self) -> int:
        return self.draws

    @property
    def log_marginal_likelihood(self) -> float:
        r"""Log-evidence of the training data under the prior, by Laplace's method, in nats.

        $$\log p(D \mid \hat\theta) - \frac{1}{2} \left( \sum_k \log\left(1 +
        \frac{\lambda_k}{\delta}\right) + \delta \|\hat\theta\|^2 \right)$$

        with the eigenvalues $\lambda_k$ of the curvature and the prior precision $\delta$. Higher
        is better. The prior precision that `fit` chooses maximises it.
        """
        ratio = (self.curvature.eigenvalues / self.prior_precision).log1p().sum()
        scatter = self.prior_precision * self.mean.square().sum()
        return self.log_likelihood - float(ratio + scatter) / 2

    def display(self) -> Display:
        """What it is made of, in one line."""
        return Display(
            f"LastLayerLaplace of {class_name(self.model)}: T = {self.draws}, seed {self.seed}, "
            f"{self.structure} posterior of {self.mean.numel()} weights of {self.layer}, prior "
            f"precision {self.prior_precision:.3g}"
        )

    def weights(self, index: int) -> Float64[Tensor, "outputs inputs"]:
        """The layer's weights in draw `index`, with its bias as the last column."""
        require_draw(index, self.draws)
        # Drawn on the CPU, so that a draw is the same on every device.
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "laplace", index))
        noise = torch.randn(self.mean.shape, generator=generator, dtype=torch.float64)
        # The symmetric root: it does not hang on the signs of the eigenvectors.
        return self.mean + self.curvature.apply(
            lambda values: self._variances(values).sqrt(), noise
        )

    def output_covariance(self, inputs: Inputs) -> Float64[Tensor, "batch outputs outputs"]:
        """The posterior covariance of the outputs of each example, without draws."""
        features, _ = self._last(inputs)
        inputs = with_ones(features.detach().double().cpu(), biased=self._biased)
        return self.curvature.output_covariance(self._variances, inputs)

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the outputs for all inputs, one draw at a time."""
        features, outputs = self._last(inputs)
        kept = self._kept
        for index in range(self.draws):
            weights = self.weights(index) if kept is None else kept[index]
            yield self._product(features, weights).to(outputs.dtype)

    def draw(self, index: int, inputs: Inputs) -> Tensor:
        """The outputs for all inputs under draw `index` of the weights."""
        require_draw(index, self.draws)
        features, outputs = self._last(inputs)
        return self._product(features, self.weights(index)).to(outputs.dtype)

    def __call__(self, inputs: Inputs) -> Shaped[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return stacked(self.passes(inputs), inputs)

    @property
    def _biased(self) -> bool:
        return self._layer.layer.bias is not None

    @property
    def _layer(self) -> LastLayer:
        return LastLayer.of(self.model, self.layer, self.output)

    def _last(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The features and the outputs, of the network that the posterior was fitted to."""
        last = self._layer
        weights = last.weights()
        limit = 1e-2 * float(self.mean.abs().max())  # of a network moved to half precision since
        if weights.shape != self.mean.shape or float((weights - self.mean).abs().max()) > limit:
            raise ValueError(
                f"expected the weights of {self.layer!r} that the posterior was fitted to, got "
                "others; fit it anew after training"
            )
        return last(inputs)

    def _variances(self, eigenvalues: Tensor) -> Tensor:
        """Of the weights along the eigenvectors of the curvature."""
        return 1 / (eigenvalues + self.prior_precision)

    @cached_property
    def _kept(self) -> Tensor | None:
        """The weights of all draws, unless they are many."""
        if self.draws * self.mean.numel() > MAX_KEPT:
            return None
        return torch.stack([self.weights(index) for index in range(self.draws)])

    def _product(self, features: Tensor, weights: Tensor) -> Tensor:
        weights = weights.to(features)
        if not self._biased:
            return linear(features, weights)
        return linear(features, weights[:, :-1], weights[:, -1])


def best_precision(curvature: Curvature, mean: Float64[Tensor, "outputs inputs"]) -> float:
    r"""The prior precision that maximises the marginal likelihood.

    It has a single maximum, where $\delta \|\hat\theta\|^2 = \sum_k \lambda_k / (\lambda_k +
    \delta)$, the effective number of weights: the left side grows with $\delta$, the right side
    falls.

    Raises:
        ValueError: all weights are 0.

    Warns:
        UserWarning: the maximum lies beyond the lowest precision that is searched.

    Reference:
        MacKay 1992, "Bayesian interpolation", equation 4.
    """
    values, square = curvature.eigenvalues, float(mean.square().sum())
    if square == 0:
        raise ValueError(
            "expected trained weights of the last layer, got zeros, which fit an infinite prior "
            "precision best; train the network, or give prior_precision=1.0"
        )

    def excess(log_precision: float) -> float:
        precision = math.exp(log_precision)
        return precision * square - float((values / (values + precision)).sum())

    high = math.log(values.numel() / square)
    low = high + math.log(LOWEST_PRECISION)
    if excess(low) >= 0:
        validation.warn(
            f"the marginal likelihood is largest at the lowest prior precision searched, "
            f"{math.exp(low):.3g}, since the training data hardly curve it: the network is sure of "
            "all of them; give prior_precision=, such as the number of examples times the weight "
            "decay, or one chosen on held-out data"
        )
        return math.exp(low)
    return math.exp(float(brentq(excess, low, high, xtol=1e-12)))


def _require(draws: int, prior_precision: float | None) -> None:
    if validation.integer(draws, "draws") < 1:
        raise ValueError(f"expected at least 1 draw, got {draws}; give draws=64 or so")
    if prior_precision is not None and not 0 < prior_precision < math.inf:
        raise ValueError(
            f"expected a positive, finite prior_precision, got {prior_precision}; leave it out for "
            "the one of the largest marginal likelihood"
        )
