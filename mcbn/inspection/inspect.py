"""Inspect a network for MCBN: its batch-norm layers, their noise, problems and remedies."""

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch.jit import ScriptModule
from torch.nn import Module
from torch.utils.data import DataLoader, Dataset

from mcbn import validation
from mcbn.bank.minibatches import minibatches
from mcbn.inspection.findings import Finding, diagnose
from mcbn.inspection.layers import (
    BatchNormLayer,
    SkippedLayer,
    class_name,
    drawable_layers,
    has_lazy_layers,
    skipped_layers,
)
from mcbn.inspection.noise import MIN_EXAMPLES, Observation, observe
from mcbn.inspection.trial import NO_TRIAL, tried
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import unwrapped
from mcbn.network.dropout import dropout_layers
from mcbn.network.inputs import Inputs, as_rows, count, require_finite, select_inputs, tensors
from mcbn.network.isolation import model_lock, random_streams

MAX_LINE_CHARACTERS = 100
EXAMPLES = 64  # drawn from a data set
# Columns of text, which are left-aligned, and shortened where a line would be too long.
TEXT_COLUMNS = ("layer", "class", "note")


@dataclass(frozen=True, repr=False)
class Inspection(Displayed):
    """Result of inspecting a network; `print` it to read it.

    Attributes:
        model: class name of the network.
        batch_size: batch size M that the noise is estimated for.
        layers: all layers whose statistics can be drawn, in the order of the network.
        skipped: all other normalisation layers, and why their statistics are not drawn.
        dropout: rates of the dropout layers of positive rate, by name.
        observation: what a pass of the inputs showed; None without inputs.
        findings: problems and notes, the most serious first.
    """

    model: str
    batch_size: int
    layers: tuple[BatchNormLayer, ...]
    skipped: tuple[SkippedLayer, ...]
    dropout: Mapping[str, float]
    observation: Observation | None
    findings: tuple[Finding, ...]

    def display(self) -> Display:
        """Whether MCBN is possible, and each layer; `print` says more."""
        verdict = "compatible" if self.servable else "incompatible"
        found = f"layers: {len(self.layers)}, findings: {len(self.findings)}"
        heading = (
            f"{self.model} is {verdict} with MCBN at M = {self.batch_size}; {found}; print it to "
            "read them"
        )
        shares = self.shares
        return Display(heading, ("layer", "class", "channels", "share of noise"), [
            (layer.name or "(itself)", layer.kind, f"{layer.channels:,}",
             f"{100 * shares[layer.name]:.0f}%" if layer.name in shares else "-")
            for layer in self.layers
        ], words=2)  # fmt: skip

    @property
    def servable(self) -> bool:
        """Whether no problem was found that keeps MCBN from this network."""
        return not any(finding.blocking for finding in self.findings)

    @property
    def shares(self) -> dict[str, float]:
        """Each layer's share of the noise that draws add to normalised outputs; they sum to 1.

        The noise counts where it enters, not as what remains of it at the network's output.
        """
        noise = {} if self.observation is None else self.observation.noise
        total = sum(each.variance for each in noise.values())
        return {name: each.variance / total for name, each in noise.items() if total > 0}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; None where something is not known."""
        return {
            "model": self.model,
            "batch_size": self.batch_size,
            "servable": self.servable,
            "findings": [asdict(finding) for finding in self.findings],
            "layers": [asdict(layer) for layer in self.layers],
            "skipped": [asdict(layer) for layer in self.skipped],
            "dropout": dict(self.dropout),
            "observation": None if self.observation is None else asdict(self.observation),
            "shares": self.shares,
        }

    def __str__(self) -> str:
        verdict = "compatible" if self.servable else "incompatible"
        channels = sum(layer.channels for layer in self.layers)
        summary = f"Compatible batch-norm layers: {len(self.layers)}, with {channels:,} channels. "
        lines = [
            f"{self.model} is {verdict} with MCBN.",
            *_wrapped(summary, _basis(self)),
            *_table(_rows(self)),
            *_others(self),
        ]
        for finding in self.findings:
            lines += _wrapped("", str(finding))
        return "\n".join(lines)


def inspect(
    model: Module,
    inputs: Inputs | Dataset[Any] | DataLoader[Any] | None = None,
    *,
    batch_size: int = 32,
) -> Inspection:
    """Check whether a network is compatible with MCBN, and how noisy its batch statistics are.

    An incompatible network raises no error; the result says why, and what to do. With inputs, one
    pass (two from 16 examples on) estimates the noise of each layer's statistics in mini-batches of
    M examples. The model, its modes, hooks and buffers and the global random streams are left
    unchanged.

    Args:
        model: the network, in train or eval mode.
        inputs: a batch as the network is called with: a tensor, a tuple of arguments or a dict of
            keyword arguments; a data set, of which 64 examples are drawn at random; or a loader,
            of which the first batch is taken. One example shows the number of positions; noise
            needs 4, and 16 or more training examples, in random order, estimate it better.
        batch_size: batch size M to estimate the noise for.

    Raises:
        TypeError: `model` is not a module, or `inputs` hold no tensor.
        ValueError: the inputs are not finite, or `batch_size` is not positive.

    See docs/inspecting.md for the estimator and an example.
    """
    inputs = _as_batch(inputs)
    _require(inputs, batch_size)
    given, model = model, unwrapped(model)
    with model_lock(model):  # else another thread's call may have replaced the forward of a layer
        layers, skipped = drawable_layers(model), skipped_layers(model)
    observation, trial = None, NO_TRIAL
    # A pass would give lazy layers their weights, and so change the network.
    if inputs is not None and not (isinstance(model, ScriptModule) or has_lazy_layers(model)):
        modules = {layer.name: model.get_submodule(layer.name) for layer in layers}
        observation = observe(model, modules, inputs, batch_size=batch_size)
        if modules and not observation.failure and not _is_meta(model, inputs):
            trial = tried(model, inputs, batch_size)
    return Inspection(
        class_name(model),
        batch_size,
        layers,
        skipped,
        _dropout_rates(model),
        observation,
        diagnose(
            given, layers, skipped, observation=observation, trial=trial, batch_size=batch_size
        ),
    )


def _as_batch(inputs: Any) -> Inputs | None:
    """A batch as the network is called with, of whatever holds the examples."""
    if isinstance(inputs, DataLoader):
        with random_streams(0, "inspect"):  # from which a loader takes a seed
            return select_inputs(next(iter(inputs)))
    if isinstance(inputs, Dataset):
        few = minibatches(inputs, batch_size=1, draws=1)
        return replace(few, batch_size=min(few.population, EXAMPLES))[0]
    batch: Inputs = as_rows(inputs)
    return batch


def _require(inputs: Inputs | None, batch_size: int) -> None:
    if validation.integer(batch_size, "batch_size") < 1:
        raise ValueError(
            f"expected a batch_size of at least 1, got {batch_size}; give the mini-batch size M"
        )
    if inputs is None:
        return
    if next(tensors(inputs), None) is None:
        raise TypeError(
            f"expected a tensor, a tuple or a dict of tensors, got {type(inputs).__name__}; give "
            "one batch, as the network is called with"
        )
    count(inputs)
    if not any(tensor.is_meta for tensor in tensors(inputs)):
        require_finite(inputs, "the inputs")


def _is_meta(model: Module, inputs: Inputs) -> bool:
    """Whether there are only shapes to look at."""
    return any(t.is_meta for t in (*model.parameters(), *model.buffers(), *tensors(inputs)))


def _dropout_rates(model: Module) -> dict[str, float]:
    try:
        return {name: float(layer.p) for name, layer in dropout_layers(model).items()}
    except ValueError:  # there is none, which is not an error here
        return {}


def _basis(inspection: Inspection) -> str:
    """What the noise was estimated from."""
    observation = inspection.observation
    if not inspection.layers or (observation is not None and not observation.values):
        return ""
    if observation is None:
        return "Give inputs to estimate their noise."
    if not observation.noise:
        few = observation.examples < MIN_EXAMPLES
        why = f"noise needs {MIN_EXAMPLES} examples" if few else "noise not known for these inputs"
        return f"At M = {inspection.batch_size}; {why}."
    how = "drawn from" if observation.drawn else "from the spread of"
    return f"Noise at M = {inspection.batch_size}, {how} {observation.examples} examples."


def _rows(inspection: Inspection) -> list[dict[str, str]]:
    """The cells of each layer, by column."""
    observation, shares = inspection.observation, inspection.shares
    return [
        {
            **_structure_cells(layer),
            **_noise_cells(observation, shares, layer.name),
            "note": _note(layer, observation),
        }
        for layer in inspection.layers
    ]


def _structure_cells(layer: BatchNormLayer) -> dict[str, str]:
    return {
        "layer": layer.name or "(itself)",
        "class": layer.kind,
        "channels": f"{layer.channels:,}",
        "eps": "-" if layer.eps is None else f"{layer.eps:g}",
        "momentum": "-" if layer.momentum is None else f"{layer.momentum:g}",
    }


def _noise_cells(
    observation: Observation | None, shares: Mapping[str, float], name: str
) -> dict[str, str]:
    if observation is None or not observation.values:
        return {}
    values, noise = observation.values.get(name), observation.noise.get(name)
    return {
        "values": "-" if values is None else f"{values:,}",
        "independent": "-" if noise is None else f"{noise.independent:,.0f}",
        "mean": "-" if noise is None else f"{noise.mean_sd:.3f}",
        "log var": "-" if noise is None else f"{noise.log_variance_sd:.3f}",
        "share": f"{shares[name]:.1%}" if name in shares else "-",
    }


def _note(layer: BatchNormLayer, observation: Observation | None) -> str:
    calls = 1 if observation is None or observation.failure else observation.calls[layer.name]
    notes = {
        "frozen": layer.frozen,
        "own forward": not layer.plain and not layer.frozen,
        "no affine": not layer.affine,
        "not called": calls == 0,
        f"called {calls} times": calls > 1,
    }
    return ", ".join(note for note, holds in notes.items() if holds)


def _table(rows: list[dict[str, str]]) -> list[str]:
    """Aligned lines of limited width; what all rows have in common stands once, above them."""
    if not rows:
        return []
    shared = [
        name
        for name in ("class", "eps", "momentum", "note")
        if len({row[name] for row in rows}) == 1
    ]
    names = [name for name in rows[0] if name not in shared]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    while sum(widths.values()) + 2 * (len(names) - 1) > MAX_LINE_CHARACTERS:
        widths[max(set(TEXT_COLUMNS) & set(names), key=widths.__getitem__)] -= 1
    lines = [{name: name for name in names}, *rows]
    common = ", ".join(f"{name} {rows[0][name]}" for name in shared if rows[0][name])
    return [
        *_wrapped("all layers: ", common),
        "",
        *("  ".join(_cell(line[n], widths[n], n) for n in names).rstrip() for line in lines),
        "",
    ]


def _cell(text: str, width: int, column: str) -> str:
    if column not in TEXT_COLUMNS:
        return text.rjust(width)
    # Names of layers differ at their end more than at their beginning.
    return text.ljust(width) if len(text) <= width else f"..{text[len(text) - width + 2 :]}"


def _others(inspection: Inspection) -> list[str]:
    groups = Counter((layer.kind, layer.refused) for layer in inspection.skipped)
    lines = []
    for (kind, refused), number in groups.items():
        first = next(s for s in inspection.skipped if (s.kind, s.refused) == (kind, refused))
        lines += _wrapped(
            f"skipped: {number} {kind} ", f"(the first is {first.name!r}): {first.reason}"
        )
    rates = inspection.dropout.values()
    if rates:
        low, high = f"{min(rates):g}", f"{max(rates):g}"
        span = low if low == high else f"{low} to {high}"
        return [*lines, f"dropout: {len(rates)} of rate {span}, for MC Dropout"]
    return [*lines, "dropout: none of positive rate, so MC Dropout is not possible"]


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        head + text, MAX_LINE_CHARACTERS, subsequent_indent="  ", break_on_hyphens=False
    )
