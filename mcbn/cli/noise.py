"""The noise of real targets on the command line: what a network returns of it, or tau fitted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mcbn.cli import messages
from mcbn.network.inputs import Inputs
from mcbn.predictive.gaussian import SEARCH_RANGE, Gaussian, GaussianPredictive, fit_precision
from mcbn.samplers.outputs import stacked
from mcbn.samplers.sampler import Sampler

Noise = Literal["log-variance", "variance", "sd"]
AT_BOUND = 1.001  # the factor within which a search ends at its bound


@dataclass(frozen=True, eq=False)
class LogVariances:
    """A sampler whose outputs are means and log-variances, of one whose noise is in another form.

    Attributes:
        sampler: its outputs are, along axis 1, means and as many values of their noise.
        noise: what these values are.
    """

    sampler: Sampler
    noise: Noise

    def __len__(self) -> int:
        return len(self.sampler)

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the outputs for all inputs, one draw at a time."""
        return (self._changed(outputs) for outputs in self.sampler.passes(inputs))

    def __call__(self, inputs: Inputs) -> Tensor:
        """All draws stacked."""
        return stacked(self.passes(inputs), inputs)

    def _changed(self, outputs: Tensor) -> Tensor:
        if outputs.ndim < 2 or outputs.shape[1] % 2:
            raise ValueError(
                f"expected means and as many values of their noise along axis 1, got outputs of "
                f"shape {tuple(outputs.shape)}; give --precision if the network returns means alone"
            )
        means, noise = outputs.chunk(2, dim=1)
        bad = noise[~(noise > 0)]
        if len(bad):
            raise ValueError(
                f"expected a positive {self.noise} from the network, got {float(bad[0]):g} "
                f"({len(bad)} of {noise.numel()} are not positive); end its noise with a softplus, "
                "or give --noise log-variance if it returns that"
            )
        logs = noise.log() if self.noise == "variance" else 2 * noise.log()
        return torch.cat([means, logs], dim=1)


def fitted_likelihood(
    predictive: GaussianPredictive, targets: Tensor, outputs: Sequence[str]
) -> Gaussian:
    """Fit tau on held-out predictions, one for each output.

    Says if the best one is at an end of the search.

    Args:
        predictive: of the held-out examples.
        targets: of them.
        outputs: names of the outputs, if they have any.
    """
    several = predictive.means.ndim == 3 and predictive.means.shape[2] > 1  # no positions
    likelihood = fit_precision(predictive, targets, each_output=several)
    errors = (predictive.mean - predictive.aligned(targets)).square()
    residuals = errors.mean(0).tolist() if several else [float(errors.mean())]
    for tau, residual, name in zip(
        _precisions(likelihood), residuals, _called(outputs, len(residuals)), strict=True
    ):
        _tell_bounds(tau, residual, name)
    return likelihood


def precision_text(likelihood: Gaussian, outputs: Sequence[str]) -> str:
    """The precision, or that of each output with its name."""
    taus = _precisions(likelihood)
    pairs = zip(taus, _called(outputs, len(taus)), strict=True)
    return ", ".join(f"{tau:.4g}{name}" for tau, name in pairs)


def _precisions(likelihood: Gaussian) -> tuple[float, ...]:
    given = likelihood.precision
    return (given,) if isinstance(given, (int, float)) else tuple(given or ())


def _called(outputs: Sequence[str], count: int) -> list[str]:
    """What follows the precision of each output: nothing if there is one."""
    return [f" of {name}" for name in outputs or range(count)] if count > 1 else [""]


def _tell_bounds(precision: float, residual: float, name: str) -> None:
    low, high = (factor / residual for factor in SEARCH_RANGE)
    if precision < low * AT_BOUND:
        messages.note(
            f"tau = {precision:.4g}{name} is the lower bound of its search, where the noise is a "
            "thousand times the squared residuals; check the held-out targets"
        )
    elif precision > high / AT_BOUND:
        messages.note(
            f"tau = {precision:.4g}{name} is the upper bound of its search, so the draws alone "
            "spread more than the held-out targets; collect a bank with a larger --batch-size"
        )
