"""A network and its draws as one module: what is exported, and runs where there is no mcbn.

Draws lie along the axis of examples, those of one example side by side: (batch * draws, ...). Read
as (batch, draws * channels, ...), the same memory is what one batch norm of draws * channels
channels normalises: every draw by its own statistics, in PyTorch's own kernel, at no copy.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module, functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from mcbn.network.inputs import Inputs, forward
from mcbn.samplers.outputs import Output, tensor_output


class Unfolding(TorchFunctionMode):
    """Carries T draws along the axis of examples.

    A tensor that depends on the inputs is the same for all draws until it meets the first batch
    norm that has draws. From there on the axis of examples is T times as long, and what is not yet
    so long is repeated where the two meet.

    Args:
        draws: T.
    """

    def __init__(self, draws: int) -> None:
        super().__init__()
        self.draws = draws
        self.same, self.drawn = WeakTensorKeyDictionary(), WeakTensorKeyDictionary()

    def repeated(self, values: Tensor) -> Tensor:
        """All examples T times over, each beside itself, unless they are so already."""
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
            found = self._normalized(*args, **kwargs)
            self.drawn[found] = True
            return found
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        drawn = any(value in self.drawn for value in given)
        same = any(value in self.same for value in given)
        if drawn and same:
            args, kwargs = tree_map(self._met, (args, kwargs))
        found = func(*args, **kwargs)
        if drawn or same:
            marks = self.drawn if drawn else self.same
            for value in tree_leaves(found):
                if isinstance(value, Tensor):
                    marks[value] = True
        return found

    def _met(self, value: Any) -> Any:
        known = isinstance(value, Tensor) and value in self.same
        return self.repeated(value) if known else value

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
        """The names and order are those of `torch.nn.functional.batch_norm`."""
        values = self.repeated(input)
        draws, channels = running_mean.shape
        wide = values.reshape(-1, draws * channels, *values.shape[2:])
        weight, bias = (None if own is None else own.repeat(draws) for own in (weight, bias))
        found = functional.batch_norm(
            wide, running_mean.flatten(), running_var.flatten(), weight, bias, eps=eps
        )
        return found.reshape(-1, channels, *values.shape[2:])


def _stacked(_: Tensor, running_mean: Tensor | None, *__: Any, **___: Any) -> bool:
    """Whether the statistics of a call of batch norm are those of several draws."""
    return running_mean is not None and running_mean.ndim == 2


class DrawnNetwork(Module):
    """A network under every draw of a bank: its weights once, the statistics T times.

    Args:
        model: the network, in eval mode; its own tensors are used, not copied.
        statistics: buffer names to (draws, channels).
        output: picks the output tensor.
        shared: whether what is before the first batch norm with draws runs once for all draws,
            which takes a network that keeps examples along the first axis.
        chunk: how many draws go through the network together; all of them if None.
    """

    def __init__(
        self,
        model: Module,
        statistics: Mapping[str, Tensor],
        *,
        output: Output | None,
        shared: bool = True,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.output, self.shared = model, output, shared
        self.draws = len(next(iter(statistics.values())))
        self.chunk = self.draws if chunk is None else chunk
        buffers = dict(model.named_buffers())
        # No name of a buffer may have a dot in it.
        self.names = {name: f"bank_{name.replace('.', '_')}" for name in statistics}
        for name, rows in statistics.items():
            self.register_buffer(self.names[name], rows.detach().to(buffers[name]))

    def forward(self, inputs: Inputs) -> Tensor:
        """All outputs of each example: (batch, draws, ...)."""
        stacks = {name: self.get_buffer(own) for name, own in self.names.items()}
        if self.chunk >= self.draws:
            return self._pass(stacks, inputs)
        return torch.cat(
            [
                self._pass({n: rows[i : i + self.chunk] for n, rows in stacks.items()}, inputs)
                for i in range(0, self.draws, self.chunk)
            ],
            1,
        )

    def _pass(self, stacks: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        draws = len(next(iter(stacks.values())))
        with Unfolding(draws) as unfolding:
            for value in tree_leaves(inputs):
                if isinstance(value, Tensor):
                    unfolding.same[value] = True
            if not self.shared:
                inputs = tree_map(unfolding._met, inputs)
            raw = tensor_output(forward(self.model, stacks, inputs), self.output)
            # A network may answer with what no draw has touched.
            rows: Tensor = unfolding.repeated(raw).unflatten(0, (-1, draws))
        return rows


class Members(Module):
    """Several networks, or one, each with its running statistics: a draw is a network.

    Args:
        models: the networks, in eval mode; their own tensors are used, not copied.
        output: picks the output tensor.
    """

    def __init__(self, models: Sequence[Module], *, output: Output | None) -> None:
        super().__init__()
        self.models, self.output = nn.ModuleList(models), output

    def forward(self, inputs: Inputs) -> Tensor:
        """All outputs of each example: (batch, draws, ...)."""
        raw = [tensor_output(forward(model, {}, inputs), self.output) for model in self.models]
        return torch.stack(raw, 1)


class Answer(Module):
    """A module that answers with draws, and what is made of them.

    Args:
        network: inputs to (batch, draws, ...).
        summary: those to named tensors.
    """

    def __init__(self, network: Module, summary: Callable[[Tensor], dict[str, Tensor]]) -> None:
        super().__init__()
        self.network, self.summary = network, summary

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """The named outputs."""
        return self.summary(self.network(inputs))


def categorical_answer(draws: Tensor) -> dict[str, Tensor]:
    """Probabilities, entropy and mutual information of logits (batch, draws, classes, ...).

    Safe in float32: logarithms throughout. The mutual information is the mean divergence of the
    draws from their average, `mean_t KL(p_t || p)`; its rounding error is some 1e-7 nats.
    """
    logits = _wide(draws)
    # Logits that are finite can be further apart than a float is long; 0 times -inf is no number.
    logs = logits.log_softmax(2).clamp_min(torch.finfo(logits.dtype).min)
    mean = logs.logsumexp(1) - math.log(draws.shape[1])
    probabilities = mean.exp()
    divergence = (logs.exp() * (logs - mean.unsqueeze(1))).sum(2).mean(1)
    return {
        "probabilities": probabilities,
        "entropy": -(probabilities * mean).sum(1),
        "mutual_information": divergence.clamp_min(0),
    }


def gaussian_answer(precision: float | None, draws: Tensor) -> dict[str, Tensor]:
    """Mean, total and epistemic variance of outputs (batch, draws, ...).

    Args:
        precision: tau; without it the outputs are means and as many log-variances.
        draws: outputs of the network.
    """
    means = _wide(draws)
    if precision is None:
        means, logs = means.chunk(2, 2)
        noise: Tensor | float = logs.exp().mean(1)
    else:
        noise = 1 / precision
    mean = means.mean(1)
    epistemic = (means - mean.unsqueeze(1)).square().mean(1)
    return {"mean": mean, "variance": epistemic + noise, "epistemic_variance": epistemic}


def _wide(draws: Tensor) -> Tensor:
    return draws if draws.dtype == torch.float64 else draws.float()
