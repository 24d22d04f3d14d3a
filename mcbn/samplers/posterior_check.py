"""Whether draws of a fitted posterior give the uncertainty of the bank that it was fitted to."""

from dataclasses import dataclass

from torch.nn import Module

from mcbn import validation
from mcbn.bank.posteriors import FactorizedPosterior, JointPosterior
from mcbn.network.inputs import Inputs
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.outputs import Output
from mcbn.samplers.uncertainty_ratio import (
    Uncertainty,
    UncertaintyRatio,
    chosen_uncertainty,
    parts,
    ratio_to,
    require_uncertainty,
)


@dataclass(frozen=True)
class PosteriorCheck:
    """How the epistemic uncertainty of a posterior compares with that of its bank.

    Attributes:
        ratio: that of the posterior, divided by that of all draws of the bank.
        draws: how many were sampled.
        batch_size: M, the mini-batch size of the bank.
    """

    ratio: UncertaintyRatio
    draws: int
    batch_size: float

    @property
    def trusted(self) -> bool:
        """Whether the posterior may be used in place of its bank: an error of at most 15%."""
        return self.ratio.trusted

    def __str__(self) -> str:
        found = (
            f"{self.ratio.verdict}: {self.draws} sampled draws have {self.ratio} of the bank they "
            f"were fitted to, at M = {self.batch_size:g}."
        )
        return f"{found} {ADVICE[self.ratio.verdict]}".strip()


ADVICE = {
    "Trusted": "",
    "Undecided": "Sample more, as draws=4000, or use the bank itself.",
    "Not to be trusted": "Use the bank itself, with more draws collected, or a larger batch size.",
}


def check_posterior(
    model: Module,
    posterior: JointPosterior | FactorizedPosterior,
    inputs: Inputs,
    *,
    draws: int = 1000,
    seed: int = 0,
    of: Uncertainty | None = None,
    output: Output | None = None,
) -> PosteriorCheck:
    """Compare predictions by draws of a posterior with those by the bank it was fitted to.

    A posterior is Gaussian, and the draws of a small batch size are not. It has the covariance of
    its bank or a part of it, but what a network makes of the tails may be far from the bank's. All
    draws of the bank are used, so the cost is one pass of the inputs for each of them and `draws`.

    Args:
        model: the network of the bank.
        posterior: from `from_bank`.
        inputs: some of those to predict; a hundred are enough.
        draws: how many to sample; with 1000 the error is known to some 6%, with 250 to 12%.
        seed: of the posterior's draws.
        of: the uncertainty to compare, "mutual information" of logits or "variance" of the outputs.
            If left out, mutual information for two outputs or more that do not look like
            probabilities; give "variance" for a regression of several targets.
        output: picks the output tensor where the network returns something else.

    Raises:
        ValueError: `draws` is below 2, there is no such uncertainty, or the bank belongs to another
            model.
        TypeError: the posterior is none, or the network's output is not a tensor.
    """
    if not isinstance(posterior, JointPosterior | FactorizedPosterior):
        raise TypeError(
            f"expected a posterior, got {type(posterior).__name__}; fit one by "
            "JointPosterior.from_bank(bank)"
        )
    if validation.integer(draws, "draws") < 2:
        raise ValueError(f"expected at least 2 draws, got {draws}; give 1000, say")
    require_uncertainty(of)
    reference = MCBatchNorm(model, posterior.bank, output=output)(inputs).detach()
    of = chosen_uncertainty(of, reference[0])
    sampled = posterior.sample(draws, seed=seed)
    outputs = MCBatchNorm(model, sampled, output=output)(inputs).detach()
    return PosteriorCheck(
        ratio=ratio_to(parts(outputs, of), parts(reference, of), of),
        draws=draws,
        batch_size=posterior.bank.size,
    )
