"""A network and all its draws as one module, which is exported and runs without mcbn.

Draws lie along the axis of examples, those of one example side by side: (batch * draws, ...). Read
as (batch, draws * channels, ...), the same memory is what one batch norm of draws * channels
channels normalises: every draw by its own statistics, in PyTorch's own kernel, without a copy.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import Module, functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from mcbn.deployment.lookups import GuardedLookups
from mcbn.network.inputs import Inputs, map_inputs, tensors
from mcbn.network.passes import call
from mcbn.predictive.gaussian import Precision
from mcbn.samplers.outputs import Output, tensor_output
from mcbn.samplers.vmap import batched_answer

# How a network runs for several draws: as rows of a larger batch, with what is before the first
# draw once; by `torch.vmap`; or as often as there are draws, each pass written down.
Way = Literal["rows", "batched", "unrolled"]


class DrawsInBatch(TorchFunctionMode):
    """Runs a network for T draws at once, as rows of a T times larger batch.

    A tensor that depends on the inputs is the same for all draws until the first batch norm with
    draws. From there on the axis of examples is T times as long; a tensor that is the same for all
    draws is repeated where it is used together with one of those.

    Args:
        draws: T.
    """

    def __init__(self, draws: int) -> None:
        super().__init__()
        self.draws = draws
        self.same, self.drawn = WeakTensorKeyDictionary(), WeakTensorKeyDictionary()

    def repeated(self, values: Tensor) -> Tensor:
        """Each example repeated T times in a row, unless the tensor is so already."""
        if values in self.drawn:
            return values
        repeated = values[:, None].expand(-1, self.draws, *values.shape[1:]).flatten(0, 1)
        self.drawn[repeated] = True
        return repeated

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm and _stacked(*args, **kwargs):
            result = self._normalized(*args, **kwargs)
            self.drawn[result] = True
            return result
        given = list(tensors((args, kwargs)))
        drawn = any(tensor in self.drawn for tensor in given)
        same = any(tensor in self.same for tensor in given)
        if drawn and same:
            args, kwargs = self.matched(args), self.matched(kwargs)
        result = func(*args, **kwargs)
        if drawn or same:
            marks = self.drawn if drawn else self.same
            for tensor in tensors(result):
                marks[tensor] = True
        return result

    def matched(self, values: Any) -> Any:
        """The values with every tensor repeated that is known to be the same for all draws."""
        if isinstance(values, Tensor):
            return self.repeated(values) if values in self.same else values
        if isinstance(values, Mapping):
            return {key: self.matched(value) for key, value in values.items()}
        if isinstance(values, list):
            return [self.matched(value) for value in values]
        if isinstance(values, tuple) and not isinstance(values, torch.Size):
            return tuple(self.matched(value) for value in values)
        return values

    def _normalized(
        self,
        input: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,  # noqa: ARG002
        momentum: float = 0.1,  # noqa: ARG002
        eps: float = 1e-5,
    ) -> Tensor:
        """Batch norm with the parameters of `torch.nn.functional.batch_norm`."""
        values = self.repeated(input)
        draws, channels = running_mean.shape
        wide = values.reshape(-1, draws * channels, *values.shape[2:])
        weight, bias = (None if each is None else each.repeat(draws) for each in (weight, bias))
        result = functional.batch_norm(
            wide, running_mean.flatten(), running_var.flatten(), weight, bias, eps=eps
        )
        return result.reshape(-1, channels, *values.shape[2:])


def _stacked(_: Tensor, running_mean: Tensor | None, *__: Any, **___: Any) -> bool:
    """Whether batch norm is called with the statistics of several draws."""
    return running_mean is not None and running_mean.ndim == 2


class MCBatchNormModule(Module):
    """A network with all draws of a bank: its weights once, the statistics T times.

    Args:
        model: the network, in eval mode; its tensors are used, not copied.
        statistics: buffer names to (draws, channels).
        output: picks the output tensor.
        way: how several draws go through the network. "rows" is the fastest, and wrong for a
            network that moves other axes into that of examples before batch norm, or compares
            examples; "unrolled" takes any network, and writes it T times.
        chunk: how many draws go through the network together; all of them if None.
    """

    def __init__(
        self,
        model: Module,
        statistics: Mapping[str, Tensor],
        *,
        output: Output | None,
        way: Way = "rows",
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.output, self.way = model, output, way
        self.draws = len(next(iter(statistics.values())))
        self.chunk = self.draws if chunk is None else chunk
        buffers = dict(model.named_buffers())
        # The name of a buffer must not contain a dot.
        self.names = {name: f"bank_{name.replace('.', '_')}" for name in statistics}
        for name, rows in statistics.items():
            self.register_buffer(self.names[name], rows.detach().to(buffers[name]))

    def forward(self, inputs: Inputs) -> Tensor:
        """Return all draws of the outputs: (batch, draws, ...)."""
        stacks = {name: self.get_buffer(buffer) for name, buffer in self.names.items()}
        run = {"rows": self._rows, "batched": self._batched, "unrolled": self._unrolled}[self.way]
        if self.chunk >= self.draws:
            return run(stacks, inputs)
        return torch.cat(
            [
                run({n: rows[i : i + self.chunk] for n, rows in stacks.items()}, inputs)
                for i in range(0, self.draws, self.chunk)
            ],
            1,
        )

    def _rows(self, stacks: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        draws = len(next(iter(stacks.values())))
        inputs = copied(inputs)
        with DrawsInBatch(draws) as mode:
            for tensor in tensors(inputs):
                mode.same[tensor] = True
            raw = answer(self.model, stacks, inputs, self.output)
            # A network may return what no draw has changed.
            outputs: Tensor = mode.repeated(raw).unflatten(0, (-1, draws))
        return outputs

    def _batched(self, stacks: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        run = partial(answer, self.model, inputs=copied(inputs), output=self.output)
        outputs: Tensor = batched_answer(run, stacks)
        return outputs.transpose(0, 1)

    def _unrolled(self, stacks: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        states = (
            {name: rows[draw] for name, rows in stacks.items()}
            for draw in range(len(next(iter(stacks.values()))))
        )
        return torch.stack(
            [answer(self.model, state, copied(inputs), self.output) for state in states], 1
        )


def answer(
    model: Module, state: Mapping[str, Tensor], inputs: Inputs, output: Output | None
) -> Tensor:
    """Return the output tensor of a network under a state."""
    with GuardedLookups():
        return tensor_output(call(model, state, inputs), output)


def copied(inputs: Inputs) -> Inputs:
    """Return copies of all inputs: a network may write to its own."""
    copies: Inputs = map_inputs(torch.clone, inputs)
    return copies


class EnsembleModule(Module):
    """One or more networks with their running statistics, each of which is a draw.

    Args:
        models: the networks, in eval mode; their tensors are used, not copied.
        output: picks the output tensor.
    """

    def __init__(self, models: Sequence[Module], *, output: Output | None) -> None:
        super().__init__()
        self.models, self.output = nn.ModuleList(models), output

    def forward(self, inputs: Inputs) -> Tensor:
        """Return all draws of the outputs: (batch, draws, ...)."""
        return torch.stack(
            [answer(model, {}, copied(inputs), self.output) for model in self.models], 1
        )


class SummaryModule(Module):
    """A module that returns draws, and the summary of them that is the exported output.

    Args:
        network: from inputs to draws, (batch, draws, ...).
        summary: from draws to named tensors.
    """

    def __init__(self, network: Module, summary: Callable[[Tensor], dict[str, Tensor]]) -> None:
        super().__init__()
        self.network, self.summary = network, summary

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return the named outputs."""
        return self.summary(self.network(inputs))


def categorical_summary(given_probabilities: bool, outputs: Tensor) -> dict[str, Tensor]:
    """Return the probabilities, entropy and mutual information.

    Computed in float64 from the network's numbers, as by `predict`: draws that differ little have
    a mutual information below the rounding of float32. It is the mean divergence of the draws from
    their average, `mean_t KL(p_t || p)`.

    Args:
        given_probabilities: whether the network gives these, and not logits.
        outputs: of the network, for all draws: (batch, draws, classes, ...).
    """
    logits = outputs.double()
    if given_probabilities:
        logits = logits.clamp_min(torch.finfo(_type(outputs)).tiny).log()
    return _cast(_summary_of_classes(logits), _type(outputs))


def bernoulli_summary(given_probabilities: bool, outputs: Tensor) -> dict[str, Tensor]:
    """Return the probability, entropy and mutual information of each label.

    They are those of `categorical_summary` over two classes, absent and present.

    Args:
        given_probabilities: whether the network gives these, and not logits.
        outputs: of the network, for all draws: (batch, draws, labels, ...), or (batch, draws) of
            one label.
    """
    values = outputs.double()
    if values.ndim == 2:
        values = values.unsqueeze(2)
    if given_probabilities:
        rounding = torch.finfo(outputs.dtype)
        # As `mcbn.predictive.bernoulli.log_odds`.
        absent = (1 - values).clamp_min(rounding.eps / 4)
        values = values.clamp_min(rounding.tiny).log() - absent.log()
    summary = _summary_of_classes(torch.stack([torch.zeros_like(values), values], 2))
    summary["probabilities"] = summary["probabilities"][:, 1]
    return _cast(summary, _type(outputs))


def _summary_of_classes(logits: Tensor) -> dict[str, Tensor]:
    """The summary of logits in float64, (batch, draws, classes, ...)."""
    # The difference of two finite logits may overflow, and 0 * -inf is NaN.
    logs = logits.log_softmax(2).clamp_min(torch.finfo(logits.dtype).min)
    # Not logsumexp less log T, a constant that ONNX rounds to float32.
    top = logs.amax(1, keepdim=True)
    mean = (logs - top).exp().mean(1).log() + top.squeeze(1)
    probabilities = mean.exp()
    divergence = (logs.exp() * (logs - mean.unsqueeze(1))).sum(2).mean(1)
    return {
        "probabilities": probabilities,
        "entropy": -(probabilities * mean).sum(1),
        "mutual_information": divergence.clamp_min(0),
    }


def gaussian_summary(precision: Precision | None, outputs: Tensor) -> dict[str, Tensor]:
    """Return the mean, total and epistemic variance of outputs (batch, draws, ...).

    Computed in float64 from the network's numbers, as by `predict`: the rounding of a mean of
    float32 may be larger than what the draws differ by.

    Args:
        precision: tau, one number or one per output; without it the outputs are means and as many
            log-variances.
        outputs: of the network, for all draws.
    """
    means = outputs.double()
    if precision is None:
        means, logs = means.chunk(2, 2)
        noise: Tensor | float = logs.exp().mean(1)
    elif isinstance(precision, (int, float)):
        noise = 1 / precision
    else:
        noise = 1 / torch.tensor(precision, dtype=torch.float64, device=means.device)
        noise = noise.reshape(-1, *(1 for _ in means.shape[3:]))
    mean = means.mean(1)
    epistemic = (means - mean.unsqueeze(1)).square().mean(1)
    summary = {"mean": mean, "variance": epistemic + noise, "epistemic_variance": epistemic}
    return _cast(summary, _type(outputs))


def _cast(summary: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: values.to(dtype) for name, values in summary.items()}


def _type(outputs: Tensor) -> torch.dtype:
    """The type of what a file returns."""
    return torch.float64 if outputs.dtype == torch.float64 else torch.float32
