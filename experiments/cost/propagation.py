"""Does passing on the bank's covariance, at the price of about 2.5 passes, rank inputs as draws do?

Plan, written before the run. Per network one bank of T = 256 draws at M = 32 (seed 0). Each method
gets that bank and gives, for every test example, the mutual information (regression: the variance
over draws). The measure is Spearman's correlation over the examples with that of the 256 draws
passed exactly, and with that of 256 others (seed 1), for which the bank's own 256 draws are the
ceiling. A method is kept if the first is above .97 on all networks at a price of about 2.5 plain
passes: CPU time of one thread, median of paired rounds. Networks: the published ResNet20 and the
conv net on 500 test images each, the dense ones on their test examples (seeds as in
`fewer_draws.py`). Added when the plain entropy was seen to rank at .97 by itself: the partial
correlation given the ranks of that entropy (field `beyond_entropy`). Added when the tangents were
seen to miss a part of the spread: one covariance for the rest ("and rest"). Methods:

- Without propagation, one pass: the entropy at the centre of the bank; one covariance of the
  logits for all inputs, that of exact draws averaged over 64 training examples.
- Variances of activations, layer by layer as in Wieczorek et al. 2026 (arXiv 2606.16214): elements
  independent, ReLU as a gate; ReLU matching moments; positions of a channel moving together; each
  also with a factor per channel and layer, fitted on the 64 examples.
- Tangents along K = 1, 2, 4, 8 directions of the bank: random signs of the deviations; the leading
  principal directions of standardised deviations; those that explain most of the variance of the
  64 examples' outputs, weighted by the softmax's curvature.
- One backward pass: the exact first-order variance of one number per example, log-odds of
  the most probable class, or the margin between the two most probable.
- For comparison: 2 to 16 exact draws, and all draws to first order.

Covariances of logits become mutual information by 256 quasi-random normal points, the same for all
inputs, or by the second-order term tr(diag(p) - pp') C / 2 (field `taylor`).

Run: python -m experiments.cost.propagation [resnet20] [convnet] [concrete] [energy]
(about 15 minutes on one core for all; data root in MCBN_DATA)
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor, fx, nn

import mcbn
from experiments.cost.fewer_draws import CASES, Case
from experiments.cost.propagation_rules import (
    Spread,
    Tangents,
    Variances,
    channel_variances,
    gradients,
    spreads,
    state_at,
    walk,
)
from experiments.record import RESULTS, rounded
from mcbn.io.atomic import write_whole
from mcbn.tasks.datasets import cifar10_images, mnist, normalize_cifar10

BATCH_SIZE, DRAWS = 32, 256
EXAMPLES, FITTED = 500, 64  # test images; training examples that factors and directions see
PIECE = 125  # examples in a pass
DIRECTIONS = (1, 2, 4, 8)
FEW = (2, 3, 4, 8, 16)
POINTS = 256
ROUNDS = 5
ENTROPY = "entropy at the centre"
RESULT = RESULTS / "propagation.json"


@dataclass(frozen=True, eq=False)
class Normal:
    """Outputs of each example as a normal: its centre, and a factor of its covariance."""

    center: Float[Tensor, "batch outputs"]
    factor: Float[Tensor, "batch outputs terms"]


Method = Callable[[Tensor], Normal | Tensor]  # of draws, where a tensor


@dataclass(frozen=True, eq=False)
class Setting:
    """A network, its bank, and what was fitted on training examples."""

    case: Case
    bank: mcbn.Bank
    spread: dict[str, Spread]
    graph: fx.GraphModule
    head: nn.Linear
    training: Tensor

    @staticmethod
    def of(case: Case) -> "Setting":
        """Collect the bank."""
        case.network.eval()
        bank = case.bank(BATCH_SIZE, DRAWS, seed=0)
        batch = next(iter(mcbn.minibatches(case.dataset, batch_size=FITTED, draws=1, seed=2)))
        training = batch[0] if isinstance(batch, (tuple, list)) else batch
        head = [m for m in case.network.modules() if isinstance(m, nn.Linear)][-1]
        graph = fx.symbolic_trace(case.network)
        return Setting(case, bank, spreads(bank), graph, head, training)

    @property
    def classes(self) -> bool:
        """Whether the outputs are logits."""
        return self.case.noise is None

    def plain(self, inputs: Tensor) -> Tensor:
        """Outputs at the centre of the bank."""
        state = state_at(self.case.network, self.spread)
        return torch.func.functional_call(self.case.network, state, (inputs,))

    def exact(self, inputs: Tensor, draws: int = DRAWS) -> Tensor:
        """Outputs of the first draws of the bank."""
        return mcbn.MCBatchNorm(self.case.network, self.bank.first(draws))(inputs)


def constant(setting: Setting) -> Method:
    """One covariance for all inputs."""
    rows = setting.exact(setting.training)
    moved = (rows - rows.mean(0)).flatten(0, 1)
    factor = root(moved.T @ moved / len(moved))

    def method(inputs: Tensor) -> Normal:
        center = setting.plain(inputs)
        return Normal(center, factor.expand(len(center), -1, -1))

    return method


def variances(setting: Setting, truth: dict[str, Tensor] | None, **how: bool) -> Method:
    """Variances of the features, and the covariance of the logits that follows from them."""
    rules = Variances(setting.spread, **how)
    if truth is not None:
        walk(setting.graph, setting.training, replace(rules, truth=truth))

    def method(inputs: Tensor) -> Normal:
        features = walk(setting.graph, inputs, rules)
        factor = setting.head.weight * features.change.sqrt()[:, None]
        return Normal(setting.head(features.value), factor)

    return method


def tangents(setting: Setting, weights: Float[Tensor, "directions draws"]) -> Method:
    """Derivatives along combinations of the deviations."""
    rules = Tangents({name: each.mixed(weights) for name, each in setting.spread.items()})

    def method(inputs: Tensor) -> Normal:
        features = walk(setting.graph, inputs, rules)
        change = features.change.unflatten(0, (len(weights), -1)) @ setting.head.weight.T
        return Normal(setting.head(features.value), change.permute(1, 2, 0))

    return method


def with_rest(setting: Setting, weights: Float[Tensor, "directions draws"]) -> Method:
    """Tangents, and for what they leave out one covariance, averaged over training examples."""
    method, draws = tangents(setting, weights), all_linear(setting, setting.training).factor
    left = (draws - draws @ weights.T @ weights).transpose(0, 1).flatten(1)
    rest = root(left @ left.T / len(draws))

    def whole(inputs: Tensor) -> Normal:
        found = method(inputs)
        terms = (found.factor, rest.expand(len(inputs), -1, -1))
        return Normal(found.center, torch.cat(terms, 2))

    return whole


def root(covariance: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """A matrix R with R R' = covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0.0).sqrt()[..., None, :]


def random_signs(count: int) -> Float[Tensor, "directions draws"]:
    """Directions of which each has the bank's covariance in expectation."""
    generator = torch.Generator().manual_seed(3)
    signs = torch.randint(2, (count, DRAWS), generator=generator) * 2.0 - 1
    return signs / count**0.5


def principal(setting: Setting) -> Float[Tensor, "directions draws"]:
    """Directions of the bank, largest first; statistics in units of their standard deviation."""
    parts = [x for s in setting.spread.values() for x in (s.mean_deviations, s.log_deviations)]
    rows = torch.cat([x / x.square().sum(0).sqrt().clamp_min(1e-12) for x in parts], 1)
    return torch.linalg.eigh(rows @ rows.T).eigenvectors.T.flip(0)


def leading(setting: Setting) -> tuple[Float[Tensor, "directions draws"], Tensor]:
    """Directions by the curvature of the outputs on training examples, and the share of each."""
    moved = all_linear(setting, setting.training)
    draws = moved.factor
    if setting.classes:
        p = moved.center.softmax(1)[:, :, None]
        # A root of diag(p) - pp'.
        draws = p.sqrt() * (draws - (p * draws).sum(1, keepdim=True))
    rows = draws.flatten(0, 1)
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    return vectors.T.flip(0), values.flip(0).cumsum(0) / values.sum()


def backward(setting: Setting, *, margin: bool = False) -> Method:
    """One gradient per example; the most probable class alone moves."""

    def method(inputs: Tensor) -> Normal:
        center, steps = gradients(
            setting.case.network, setting.spread, partial(scalar, margin=margin), inputs
        )
        factor = torch.zeros_like(center)
        factor[torch.arange(len(center)), center.argmax(1)] = steps.square().sum(1).sqrt()
        return Normal(center, factor[:, :, None])

    return method


def scalar(outputs: Tensor, *, margin: bool) -> Tensor:
    """Log-odds of the most probable class, or its margin; a single output as it is."""
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    top, index = outputs.topk(2, dim=1)
    if margin:
        return top[:, 0] - top[:, 1]
    rest = outputs.scatter(1, index[:, :1], -torch.inf)
    return top[:, 0] - rest.logsumexp(1)


def all_linear(setting: Setting, inputs: Tensor) -> Normal:
    """Every draw to first order, by one backward pass per output."""
    columns = []
    for number in range(setting.head.out_features):
        center, steps = gradients(
            setting.case.network, setting.spread, lambda z, k=number: z[:, k], inputs
        )
        columns.append(steps)
    return Normal(center, torch.stack(columns, 1))


def methods(setting: Setting) -> Iterator[tuple[str, Method]]:
    """All of them, by name."""
    if setting.classes:
        yield ENTROPY, setting.plain
        yield "one covariance", constant(setting)
    kinds = {"": {}, ", moments": {"matched": True}, ", together": {"together": True}}
    if not setting.classes:
        kinds.pop(", together")  # there are no positions
    states = (setting.bank.state(draw) for draw in range(DRAWS))
    truth = channel_variances(setting.case.network, states, setting.spread, setting.training)
    for name, how in kinds.items():
        yield f"variances{name}", variances(setting, None, **how)
        yield f"variances{name}, fitted", variances(setting, truth, **how)
    of_bank, of_outputs = principal(setting), leading(setting)[0]
    for count in DIRECTIONS:
        yield f"{count} random", tangents(setting, random_signs(count))
        yield f"{count} principal", tangents(setting, of_bank[:count])
        yield f"{count} leading", tangents(setting, of_outputs[:count])
        if setting.classes:
            yield f"{count} leading and rest", with_rest(setting, of_outputs[:count])
    yield "one gradient", backward(setting)
    if setting.classes:
        yield "one gradient, margin", backward(setting, margin=True)
    for count in FEW:
        yield f"{count} draws", partial(setting.exact, draws=count)
    yield "all linear", partial(all_linear, setting)


def points(outputs: int) -> Float[Tensor, "points outputs"]:
    """Quasi-random normal points, symmetric about 0."""
    uniform = torch.quasirandom.SobolEngine(outputs, scramble=True, seed=4).draw(POINTS // 2)
    normal = torch.special.ndtri(uniform.double().clamp(1e-7, 1 - 1e-7)).float()
    return torch.cat([normal, -normal])


def sampled(normal: Normal) -> Float[Tensor, "points batch outputs"]:
    """Outputs at the points."""
    factor = normal.factor
    if factor.shape[2] > factor.shape[1]:
        factor = root(factor @ factor.mT)
    return normal.center + torch.einsum("nck,pk->pnc", factor, points(factor.shape[2]))


def summary(setting: Setting, found: Normal | Tensor) -> dict[str, Tensor]:
    """Uncertainty and NLL of each example."""
    case = setting.case
    if not setting.classes:
        if isinstance(found, Tensor):
            mean, variance = found.mean(0), found.var(0)
        else:
            mean, variance = found.center, found.factor.square().sum(2)
        total = variance + case.noise
        squares = (case.targets.reshape(mean.shape) - mean).square()
        nll = (squares / total + (2 * torch.pi * total).log()) / 2
        return {"uncertainty": variance[:, 0], "nll": nll[:, 0]}
    if isinstance(found, Tensor) and found.ndim == 2:
        entropy = torch.distributions.Categorical(logits=found.double()).entropy()
        nll = -found.log_softmax(1).gather(1, case.targets[:, None])[:, 0]
        return {"uncertainty": entropy, "nll": nll}
    rows = found if isinstance(found, Tensor) else sampled(found)
    logs = rows.double().log_softmax(2)
    mean = logs.exp().mean(0)
    # The mean divergence from the mean: no difference of nearly equal entropies.
    information = (logs.exp() * (logs - mean.log())).sum(2).mean(0)
    nll = -mean.log().gather(1, case.targets[:, None])[:, 0]
    return {"uncertainty": information, "nll": nll} | taylor(found)


def taylor(found: Normal | Tensor) -> dict[str, Tensor]:
    """The second-order term of the mutual information."""
    if isinstance(found, Tensor):
        return {}
    p = found.center.double().softmax(1)[:, :, None]
    moved = found.factor - (p * found.factor).sum(1, keepdim=True)
    return {"taylor": (p * moved.square()).sum((1, 2)) / 2}


def correlation(values: Tensor, reference: Tensor) -> float:
    """Spearman's."""
    return float(spearmanr(values, reference).statistic)


def in_pieces(method: Method, inputs: Tensor) -> Normal | Tensor:
    """The method's answer for all inputs."""
    pieces = [method(piece) for piece in inputs.split(PIECE)]
    if isinstance(pieces[0], Normal):
        return Normal(torch.cat([x.center for x in pieces]), torch.cat([x.factor for x in pieces]))
    return torch.cat(pieces, dim=pieces[0].ndim - 2)


def measured(case: Case) -> dict:
    """Correlations and price of every method."""
    setting = Setting.of(case)
    exact = summary(setting, setting.exact(case.inputs))
    other = summary(setting, case.rows(case.bank(BATCH_SIZE, DRAWS, seed=1)))
    center = in_pieces(setting.plain, case.inputs)
    entropy = summary(setting, center)["uncertainty"] if setting.classes else None
    rows = [scores("256 draws", exact, exact, other, entropy)]
    for name, method in methods(setting):
        found = summary(setting, in_pieces(method, case.inputs))
        rows.append(scores(name, found, exact, other, entropy) | {"passes": price(setting, method)})
        print(rounded(rows[-1]), flush=True)
    shares = leading(setting)[1]
    return {
        "batch_size": BATCH_SIZE,
        "draws": DRAWS,
        "examples": len(case.inputs),
        "plain_nll": float(summary_of_plain(setting)),
        "shares_of_leading": {str(count): float(shares[count - 1]) for count in DIRECTIONS},
        "methods": rows,
    }


def summary_of_plain(setting: Setting) -> Tensor:
    """NLL without uncertainty."""
    center = setting.plain(setting.case.inputs)
    found = center if setting.classes else Normal(center, torch.zeros(*center.shape, 1))
    return summary(setting, found)["nll"].mean()


def scores(name: str, found: dict, exact: dict, other: dict, entropy: Tensor | None) -> dict:
    """How well the uncertainty ranks and how large it is, and the NLL."""
    values, whole = found["uncertainty"], exact["uncertainty"]
    row = {
        "method": name,
        "spearman": correlation(values, whole),
        "other_bank": correlation(values, other["uncertainty"]),
        "ratio": float(values.mean() / whole.mean()),
        "nll": float(found["nll"].mean()),
    }
    if "taylor" in found:
        row["taylor"] = correlation(found["taylor"], whole)
    # The bank's own draws are judged by the other bank.
    truth = other["uncertainty"] if values is whole else whole
    if entropy is not None and row["method"] != ENTROPY:
        row["beyond_entropy"] = partial_correlation(values, truth, entropy)
    return row


def partial_correlation(values: Tensor, reference: Tensor, given: Tensor) -> float:
    """Spearman's, of what the ranks of a third variable leave unexplained."""
    both, first, second = (
        correlation(*pair) for pair in ((values, reference), (values, given), (reference, given))
    )
    return (both - first * second) / ((1 - first**2) * (1 - second**2)) ** 0.5


def price(setting: Setting, method: Method) -> float:
    """CPU time in plain passes, median over rounds; the same examples, repeated if they are few."""
    inputs = setting.case.inputs[:PIECE]
    if not setting.classes:
        inputs = inputs.repeat(20, 1)

    def seconds(call: Callable[[Tensor], object]) -> float:
        start = time.process_time()
        call(inputs)
        return time.process_time() - start

    method(inputs)
    pairs = [(seconds(setting.case.network), seconds(method)) for _ in range(ROUNDS)]
    return median(whole / unit for unit, whole in pairs)


def enlarged(name: str, case: Case) -> Case:
    """The case with more test images, if it has images."""
    if name == "resnet20":
        test = cifar10_images()[1]
        inputs, targets = normalize_cifar10(test.inputs[:EXAMPLES]), test.targets[:EXAMPLES]
        return replace(case, inputs=inputs, targets=targets)
    if name == "convnet":
        test = mnist(train_size=4096).test.rows(torch.arange(EXAMPLES))
        return replace(case, inputs=test.inputs, targets=test.targets)
    return case


def main(names: list[str]) -> None:
    """Measure the named cases, all by default; other results are kept."""
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    torch.set_num_threads(1)
    for name in names or list(CASES):
        print(name, flush=True)
        case = enlarged(name, CASES[name]())
        with torch.no_grad():
            result = rounded(measured(case))
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        write_whole(RESULT, (json.dumps({**kept, name: result}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
