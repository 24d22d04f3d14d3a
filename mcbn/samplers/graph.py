"""A network traced and cut in two: the prefix that no draw changes, and the suffix after it."""

import inspect
import operator
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.fx.node import Argument
from torch.nn import Module, functional

from mcbn.network.batchnorm import is_plain
from mcbn.network.isolation import eval_mode, restored
from mcbn.samplers.folding import DenseStack, Fold, linear_stack, scaled, scaled_stack

CONVOLUTIONS: dict[type, Callable[..., Tensor]] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}
# In eval mode they return their input.
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
RECTIFIERS = (functional.relu, torch.relu, "relu", nn.ReLU)


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced network.

    Attributes:
        prefix: from the inputs to the tuple of values that the suffix needs, for all draws.
        suffix: from those values, and folded tensors by name, to what the network returns.
        folds: the layers that are folded; statistics of any other go in under their own names.
        modules: those inside the network when it was traced. They are held so that their ids
            stay their own; the network itself is not, so that it can be freed.
    """

    prefix: fx.GraphModule
    suffix: fx.GraphModule
    folds: tuple[Fold, ...]
    modules: tuple[Module, ...]

    def answer(
        self,
        values: tuple[Any, ...],
        folded: Mapping[str, Tensor],
        unfolded: Mapping[str, Tensor],
    ) -> Any:
        """What the network returns for the prefix's values, given folded and other statistics."""
        if unfolded:
            return functional_call(self.suffix, dict(unfolded), values, dict(folded))
        return self.suffix(*values, **folded)

    def out_buffers(self, draws: int, examples: int) -> dict[str, Tensor]:
        """Memory for stacked layers: their scaled weights, and their results."""
        buffers = {}
        for fold in self.folds:
            mean = fold.layer.get_buffer("running_mean")
            buffers[fold.out_buffer] = mean.new_empty(draws * examples * len(mean))
            if fold.preceding_linear is not None:
                size = fold.preceding_linear.get_parameter("weight").numel()
                buffers[fold.weight] = mean.new_empty(draws * size)
        return buffers


def traced(model: Module, layers: Mapping[str, Module], *, stacked: bool) -> Graph:
    """Trace `model` in eval mode and cut it at its stochastic `layers`.

    Args:
        model: the network.
        layers: names to the batch norm that a draw changes.
        stacked: write the suffix for many draws at once, in tensors (draws, features, rows), as
            dense networks allow; else for one draw.

    Raises:
        Exception: whatever tracing meets in a network whose path depends on values, that has hooks
            or takes more than one tensor; such a network has to run untraced.
    """
    modules = tuple(model.modules())
    if any(module._forward_hooks or module._forward_pre_hooks for module in modules):
        raise ValueError("expected a network without hooks, got some; run it untraced")
    # A forward that keeps what it computed would leave stand-ins of the trace in the network.
    with eval_mode(model), restored(model, buffers=False):
        whole = _Tracer(layers.values()).trace(model, concrete_args=_defaults(model))
        names = {id(layer): name for name, layer in layers.items()}
        layer_names: dict[fx.Node, str] = {}
        stochastic: set[fx.Node] = set()
        for node in whole.nodes:
            if node.op == "call_module" and id(model.get_submodule(node.target)) in names:
                layer_names[node] = names[id(model.get_submodule(node.target))]
            if node in layer_names or stochastic.intersection(node.all_input_nodes):
                stochastic.add(node)
        cut = _Cut(model, whole, stochastic, layer_names, stacked)
        return Graph(cut.prefix(), cut.suffix(), tuple(cut.folds), modules[1:])


def _defaults(model: Module) -> dict[str, Any]:
    """Arguments of the forward that are left at their defaults: constants of the trace.

    A traced stand-in would answer `mask is None` with no.
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    others = parameters[1:]
    if any(each.default is inspect.Parameter.empty for each in others):
        raise ValueError("expected a network of one input, got more; run it untraced")
    return {each.name: each.default for each in others}


class _Tracer(fx.Tracer):
    """Traces through a network's own modules; those of torch and batch norm stay calls."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.leaves = {id(layer) for layer in layers}
        self.thread = threading.get_ident()

    # Tracing patches `Module` itself; calls of other threads are no part of the graph.
    def call_module(self, m: Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: Module, module_qualified_name: str) -> bool:
        return id(m) in self.leaves or super().is_leaf_module(m, module_qualified_name)


class _Cut:
    """One traced graph written out as two."""

    def __init__(
        self,
        model: Module,
        whole: fx.Graph,
        stochastic: set[fx.Node],
        layers: Mapping[fx.Node, str],
        stacked: bool,
    ) -> None:
        self.model, self.whole, self.stochastic, self.layers = model, whole, stochastic, layers
        self.stacked = stacked
        self.folds: list[Fold] = []
        # Modules of the suffix that the network does not have, by name.
        self.added: dict[str, Module] = {}
        needed = {before for node in stochastic for before in node.all_input_nodes}
        last = next(node for node in reversed(whole.nodes) if node.op == "output")
        needed.update(last.all_input_nodes)
        self.border = [
            node
            for node in whole.nodes
            if node in needed and node not in stochastic and node.op != "get_attr"
        ]

    def prefix(self) -> fx.GraphModule:
        """The part that no draw changes."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in self.whole.nodes:
            if node not in self.stochastic and node.op != "output":
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(tuple(copies[node] for node in self.border))
        return self._module(graph)

    def suffix(self) -> fx.GraphModule:
        """The part that every draw goes through, with its batch norm folded where possible."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {
            node: graph.placeholder(f"value_{index}") for index, node in enumerate(self.border)
        }
        folded: set[fx.Node] = set()
        for node in self.whole.nodes:
            if node in copies:
                continue
            if node.op == "get_attr" or node.op == "output" or node in self.stochastic:
                copies[node] = self._copied(graph, node, copies, folded)
        return self._module(graph)

    def _copied(
        self,
        graph: fx.Graph,
        node: fx.Node,
        copies: dict[fx.Node, fx.Node],
        folded: set[fx.Node],
    ) -> fx.Node:
        """The node in the suffix: folded, rectified in place, stacked, or unchanged."""
        source = node.args[0] if node.args else None
        linear = self._preceding_linear(node)
        layer = self.model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if linear is not None:
            folded.add(node)
            return self._linear(graph, copies[linear.args[0]], self._fold(node, linear))  # type: ignore[index]
        plain = node in self.layers and is_plain(self.model.get_submodule(str(node.target)))
        if plain and isinstance(source, fx.Node):
            folded.add(node)
            fold = self._fold(node, None)
            return graph.call_function(
                scaled_stack if self.stacked else scaled,
                (copies[source], *self._arguments(graph, fold)),
            )
        if source in folded and len(source.users) == 1 and _rectifies(node, layer):  # type: ignore[union-attr]
            # The folded result is a new tensor that nothing else reads.
            return graph.call_function(functional.relu, (copies[source], True))  # type: ignore[index]
        if type(layer) in IDENTITIES:
            return copies[source]  # type: ignore[index]
        if self.stacked and type(layer) is nn.Linear:
            name = f"stack_{len(self.added)}"
            self.added[name] = DenseStack(layer)
            return graph.call_module(name, (copies[source],))  # type: ignore[index]
        return graph.node_copy(node, copies.__getitem__)

    def _linear(self, graph: fx.Graph, source: fx.Node, fold: Fold) -> fx.Node:
        """A convolution or dense layer with the folded weights."""
        weights, layer = self._arguments(graph, fold), fold.preceding_linear
        if isinstance(layer, nn.Linear):
            product = linear_stack if self.stacked else functional.linear
            return graph.call_function(product, (source, *weights))
        options = (layer.stride, layer.padding, layer.dilation, layer.groups)  # type: ignore[union-attr]
        return graph.call_function(CONVOLUTIONS[type(layer)], (source, *weights, *options))  # type: ignore[arg-type]

    def _arguments(self, graph: fx.Graph, fold: Fold) -> tuple[Argument, ...]:
        """The tensors that a draw sets in this layer: keyword arguments of the suffix."""
        names = (fold.weight, fold.bias, *([fold.out_buffer] if self.stacked else []))
        return tuple(graph.placeholder(name) for name in names)

    def _preceding_linear(self, node: fx.Node) -> fx.Node | None:
        """The convolution or dense layer whose output goes to this plain batch norm alone."""
        source = node.args[0] if node.args else None
        if (
            node not in self.layers
            or not is_plain(self.model.get_submodule(str(node.target)))
            or not isinstance(source, fx.Node)
            or source not in self.stochastic
            or source.op != "call_module"
            or len(source.users) > 1
        ):
            return None
        layer = self.model.get_submodule(str(source.target))
        plain = type(layer) is nn.Linear or (
            type(layer) in CONVOLUTIONS and getattr(layer, "padding_mode", "") == "zeros"
        )
        parametrised = hasattr(layer, "parametrizations")
        return source if plain and not parametrised else None

    def _fold(self, node: fx.Node, linear: fx.Node | None) -> Fold:
        layer = self.model.get_submodule(str(node.target))
        preceding = self.model.get_submodule(str(linear.target)) if linear is not None else None
        stem = f"folded_{len(self.folds)}"
        names = (f"{stem}_{part}" for part in ("weight", "bias", "out"))
        fold = Fold(self.layers[node], layer, preceding, *names)
        self.folds.append(fold)
        return fold

    def _module(self, graph: fx.Graph) -> fx.GraphModule:
        # The layers that were folded into others are still there, but nothing reads them.
        graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
        names = {node.target for node in graph.nodes if node.op in ("call_module", "get_attr")}
        targets = {
            name: self.added[name] if name in self.added else operator.attrgetter(name)(self.model)
            for name in names
        }
        module = fx.GraphModule(targets, graph)
        # fx gives it a class whose call prints the code to stderr when it fails: not for a try.
        type(module).__call__ = Module.__call__  # type: ignore[method-assign]
        return module


def _rectifies(node: fx.Node, layer: Module | None) -> bool:
    return type(layer) is nn.ReLU if layer is not None else node.target in RECTIFIERS
