"""The check of every network: a draw answers as the network does in train mode."""

import copy
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from case import TOLERANCE, Case
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import mcbn

EXACT, NOTED, REFUSED, WRONG = "exact", "exact, with a note", "refused", "wrong"
# Modules that do something of their own in train mode, by a part of their class's name.
TRAIN_ONLY = ("Drop", "StochasticDepth")
MORE_IN_TRAINING = "train mode does more; compared with its batch norm alone in train mode"
DEEP = "float32 rounds to more than the bound in this depth, float64 agrees"
# Layers that know no train mode, or none on a CPU, by a part of their class's name.
STAND_INS = {
    "Frozen": "frozen in training, which `collect` warns of; compared with batch norm in its place",
    "SyncBatchNorm": "compared with plain batch norm, since it has no train mode on a CPU",
}
# What affine parameters and running statistics are drawn from.
RANGES = (("weight", 0.5, 1.5), ("running_var", 0.5, 1.5), ("bias", -0.2, 0.2),
          ("running_mean", -0.2, 0.2))  # fmt: skip
# Relative difference in float64 beyond which it is no rounding.
ROUNDING = 1e-9
# Draws that differ by less than this, relative to the largest output, show nothing.
SPREAD = 1e-5


@dataclass(frozen=True)
class Outcome:
    """The result of one row; `deviation` and `engines` are relative to the largest output."""

    package: str
    family: str
    name: str
    status: str
    detail: str = ""
    layers: str = ""
    deviation: float = 0.0
    engines: float = 0.0


class MismatchError(Exception):
    """The network is accepted, but the answers are not those of its train mode."""


def outcome(case: Case) -> Outcome:
    """Run one row; whatever is neither exact nor refused as expected is wrong."""
    key = (case.package, case.family, case.name)
    try:
        result = _compared(case, torch.float32)
        if max(result.deviation, result.engines) > case.tolerance:
            result = _without_rounding(case, result)
        if case.refused:
            raise MismatchError(f"expected an error that says {case.refused!r}, got an answer")
        return result
    except (TypeError, ValueError) as error:
        message = str(error)
        if case.refused and case.refused in message and "expected " in message:
            return Outcome(*key, REFUSED, message.split("; ")[0])
        return Outcome(*key, WRONG, f"{type(error).__name__}: {message}"[:400])
    except Exception as error:  # whatever another library's network raises is a result
        return Outcome(*key, WRONG, f"{type(error).__name__}: {error}"[:400])


def _without_rounding(case: Case, rounded: Outcome) -> Outcome:
    """The same row in float64, where rounding is out of the question."""
    if case.tolerance > TOLERANCE:
        raise MismatchError(f"differs by {rounded.deviation:.1e}, engines by {rounded.engines:.1e}")
    exact = _compared(case, torch.float64)
    if max(exact.deviation, exact.engines) > ROUNDING:
        raise MismatchError(
            f"differs by {rounded.deviation:.1e}, engines by {rounded.engines:.1e}; in float64 by "
            f"{exact.deviation:.1e}, engines by {exact.engines:.1e}"
        )
    details = "; ".join(filter(None, (exact.detail, DEEP)))
    return Outcome(exact.package, exact.family, exact.name, NOTED, details, exact.layers,
                   rounded.deviation, rounded.engines)  # fmt: skip


def _compared(case: Case, dtype: torch.dtype) -> Outcome:
    """Collect from two mini-batches, predict the first with both draws, and compare."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = case.build()
        if not case.refused:
            _randomize(model)
    generator = Generator().manual_seed(1)
    batches = [case.inputs(generator), case.inputs(generator)]
    if dtype == torch.float64:
        model, batches = model.double(), [_cast(batch) for batch in batches]
    inside = case.inside(model) if case.inside else model
    observed = case.observed(model) if case.observed else model
    # The answer first: some networks put hooks on themselves when they are first called.
    answer = None if case.refused else _answer(model, batches[0], case)
    before = None if case.refused else (_snapshot(model), answer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bank = _near(mcbn.collect(observed, batches, select=_unchanged, progress=False))
        loop = mcbn.MCBatchNorm(model, bank, output=case.output, engine="loop")(batches[0])
        auto = mcbn.MCBatchNorm(model, bank, output=case.output)(batches[0])
        if case.inside:
            _require_exchange(case, model, inside, batches, bank)
        expected, notes = _expected(case, observed if case.observed else inside, batches[0])
    _require_unchanged(before, (_snapshot(model), _answer(model, batches[0], case)))
    if _relative(loop[1], loop[0]) < SPREAD:
        raise MismatchError("the draws do not differ, so their comparison shows nothing")
    notes = [*filter(None, (case.note,)), *notes]
    return Outcome(
        case.package, case.family, case.name, NOTED if notes else EXACT, "; ".join(notes),
        _census(inside), _relative(loop[0], expected), _relative(auto, loop),
    )  # fmt: skip


def _near(bank: mcbn.Bank) -> mcbn.Bank:
    """The bank with its second draw moved to near the first.

    In a deep network with random weights, the first mini-batch under the statistics of another few
    images grows from layer to layer until nothing but rounding is left.
    """
    moved = {k: torch.stack([v[0], v[0].lerp(v[1], 0.01)]) for k, v in bank.statistics.items()}
    return replace(bank, statistics=moved)


def _unchanged(batch: Any) -> Any:
    return batch


def _require_exchange(
    case: Case, model: nn.Module, inside: nn.Module, batches: list[Any], bank: mcbn.Bank
) -> None:
    """A bank of the wrapped network fits the network inside, bit for bit, and the reverse."""
    other = mcbn.collect(inside, batches, select=_unchanged, progress=False)
    if other.statistics.keys() != bank.statistics.keys():
        raise MismatchError(f"the bank's names are {list(bank.statistics)[:2]} ...")
    expected = _near(other).statistics
    if any(_relative(bank.statistics[k], v) > case.tolerance for k, v in expected.items()):
        raise MismatchError("the bank differs from the one of the network inside")
    for network, fitting in ((inside, bank), (model, other)):
        mcbn.MCBatchNorm(network, fitting, output=case.output)(batches[0])


def _expected(case: Case, model: nn.Module, batch: Any) -> tuple[Tensor, list[str]]:
    """The oracle: the network's own train mode, without dropout.

    Where train mode does more (losses, other heads, more randomness), only batch norm is in it.
    """
    twin, notes = _with_train_modes(model)
    narrow = _answer(_in_train_mode(twin, _owns_statistics), batch, case, keep_modes=True)
    try:
        wide = _answer(_in_train_mode(twin, _is_deterministic), batch, case, keep_modes=True)
    except Exception:  # a network in train mode may want targets, or answer with losses
        return narrow, [*notes, MORE_IN_TRAINING]
    if wide.shape != narrow.shape or _relative(wide, narrow) > case.tolerance:
        return narrow, [*notes, MORE_IN_TRAINING]
    return wide, notes


def _in_train_mode(twin: nn.Module, chosen: Callable[[nn.Module], bool]) -> nn.Module:
    for module in twin.modules():
        module.training = chosen(module)
    return twin


def _is_deterministic(module: nn.Module) -> bool:
    return not any(part in type(module).__name__ for part in TRAIN_ONLY) or _owns_statistics(module)


def _owns_statistics(module: nn.Module) -> bool:
    return (
        module._buffers.get("running_mean") is not None
        and module._buffers.get("running_var") is not None
        and "Instance" not in type(module).__name__
    )


class AnyBatchNorm(_BatchNorm):
    """PyTorch's batch norm for any number of axes."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def _with_train_modes(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy with PyTorch's batch norm for layers without a train mode, and notes of why."""
    twin, notes = copy.deepcopy(model), []
    for name, layer in model.named_modules():
        kind = next((part for part in STAND_INS if part in type(layer).__name__), None)
        if kind is not None and _owns_statistics(layer):
            norm = AnyBatchNorm(len(layer.running_mean), eps=getattr(layer, "eps", 1e-5))
            norm.load_state_dict(layer.state_dict(), strict=False)
            twin.set_submodule(name, norm)
            notes.append(STAND_INS[kind])
    return twin, list(dict.fromkeys(notes))


def _answer(model: nn.Module, batch: Any, case: Case, *, keep_modes: bool = False) -> Tensor:
    """The network's output in its present modes if `keep_modes`, else in eval mode."""
    positional, named = ((), batch) if isinstance(batch, dict) else (batch, {})
    positional = positional if isinstance(positional, tuple) else (positional,)
    modes = {module: module.training for module in model.modules()}
    for module in modes if not keep_modes else ():
        module.training = False
    with torch.no_grad():
        raw = model(*positional, **named)
    for module, mode in modes.items():
        module.training = mode
    return raw if case.output is None else case.output(raw)


@torch.no_grad()
def _randomize(model: nn.Module) -> None:
    """Draw affine parameters and running statistics, so that none is 0 or 1 and each counts."""
    for module in filter(_owns_statistics, model.modules()):
        for name, low, high in RANGES:
            value = getattr(module, name, None)
            if isinstance(value, Tensor):
                value.uniform_(low, high)


def _snapshot(model: nn.Module) -> Any:
    """Everything of a network that a call must leave as it was."""
    hooks = [
        (
            len(m._forward_hooks),
            len(m._forward_pre_hooks),
            len(m._backward_hooks),
            "forward" in vars(m),
        )
        for m in model.modules()
    ]
    state = {k: v.clone() for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    identities = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    return state, identities, [m.training for m in model.modules()], hooks


def _require_unchanged(before: Any, after: Any) -> None:
    for what, old, new in zip(
        ("tensors", "identities", "modes", "hooks"), before[0], after[0], strict=True
    ):
        same = (
            old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)
            if isinstance(old, Mapping)
            else old == new
        )
        if not same:
            raise MismatchError(f"the network's {what} were changed")
    # An untrained detector may find nothing, and the mean of nothing is NaN.
    if not torch.equal(before[1].nan_to_num(), after[1].nan_to_num()):
        raise MismatchError("the network gives other outputs than before")


def _relative(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where one is not finite."""
    actual, expected = actual.detach().double(), expected.detach().double()
    largest = float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return largest if math.isfinite(largest) else math.inf


def _cast(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.double() if inputs.is_floating_point() else inputs
    if isinstance(inputs, Mapping):
        return {key: _cast(value) for key, value in inputs.items()}
    return tuple(map(_cast, inputs))


def _census(model: nn.Module) -> str:
    kinds = Counter(type(m).__name__ for m in model.modules() if _owns_statistics(m))
    return ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
