"""A network as a graph cut in two: what no draw changes, and what every draw goes through."""

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
from mcbn.network.isolation import eval_mode
from mcbn.samplers.folding import DenseStack, Fold, multiplied_stack, scaled, scaled_stack

CONVOLUTIONS: dict[type, Callable[..., Tensor]] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}
# In eval mode they hand on what they are given.
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
RECTIFIERS = (functional.relu, torch.relu, "relu", nn.ReLU)


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced network.

    Attributes:
        trunk: inputs to the tuple of values that the branch needs; the same for every draw.
        branch: those values, and folded tensors by name, to the network's answer.
        folds: the layers that are folded; statistics of any other go in under their own names.
        modules: those inside the network when it was traced, kept so that none is taken for
            another; not the network itself, which may go.
    """

    trunk: fx.GraphModule
    branch: fx.GraphModule
    folds: tuple[Fold, ...]
    modules: tuple[Module, ...]

    def answer(
        self, values: tuple[Any, ...], own: Mapping[str, Tensor], rest: Mapping[str, Tensor]
    ) -> Any:
        """The branch's answer to the trunk's values, given folded tensors and other statistics."""
        if rest:
            return functional_call(self.branch, dict(rest), values, dict(own))
        return self.branch(*values, **own)

    def rooms(self, draws: int, examples: int) -> dict[str, Tensor]:
        """Memory for stacked layers: their scaled weights, and their answers."""
        found = {}
        for fold in self.folds:
            mean = fold.layer.get_buffer("running_mean")
            found[fold.room] = mean.new_empty(draws * examples * len(mean))
            if fold.mixer is not None:
                found[fold.weight] = mean.new_empty(
                    draws * fold.mixer.get_parameter("weight").numel()
                )
        return found


def traced(model: Module, layers: Mapping[str, Module], *, stacked: bool) -> Graph:
    """Trace `model` in eval mode and cut it at its stochastic `layers`.

    Args:
        model: the network.
        layers: names to the batch norm that a draw changes.
        stacked: write the branch for many draws at once, in tensors (draws, features, rows), as
            dense networks allow; else for one draw.

    Raises:
        Exception: whatever tracing meets in a network whose path depends on values, that is hooked
            or that takes more than one tensor; such a network has to run as it is.
    """
    modules = tuple(model.modules())
    if any(module._forward_hooks or module._forward_pre_hooks for module in modules):
        raise ValueError("expected a network without hooks, got some; run it as it is")
    with eval_mode(model):
        whole = _whole(model, layers)
    names = {id(layer): name for name, layer in layers.items()}
    found: dict[fx.Node, str] = {}
    stochastic: set[fx.Node] = set()
    for node in whole.nodes:
        if node.op == "call_module" and id(model.get_submodule(node.target)) in names:
            found[node] = names[id(model.get_submodule(node.target))]
        if node in found or stochastic.intersection(node.all_input_nodes):
            stochastic.add(node)
    cut = _Cut(model, whole, stochastic, found, stacked)
    return Graph(cut.trunk(), cut.branch(), tuple(cut.folds), modules[1:])


def _whole(model: Module, layers: Mapping[str, Module]) -> fx.Graph:
    """The graph of the whole network; no patch of the tracing is left if an interrupt lands."""
    call, attribute = Module.__call__, Module.__getattr__
    names = getattr(type(model).forward, "__globals__", {})
    found = dict(names)
    try:
        return _Tracer(layers.values()).trace(model, concrete_args=_defaults(model))
    except BaseException:
        Module.__call__, Module.__getattr__ = call, attribute  # type: ignore[method-assign]
        names.update(found)
        raise


def _defaults(model: Module) -> dict[str, Any]:
    """Arguments of the forward that are left at their defaults: constants of the trace.

    A traced stand-in would answer `mask is None` with no.
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    rest = parameters[1:]
    if any(each.default is inspect.Parameter.empty for each in rest):
        raise ValueError("expected a network of one input, got more; run it as it is")
    return {each.name: each.default for each in rest}


class _Tracer(fx.Tracer):
    """Sees through a network's own modules, not into those of torch nor into batch norm."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.kept = {id(layer) for layer in layers}
        self.thread = threading.get_ident()

    # Tracing patches `Module` itself; what other threads do with theirs is no part of the graph.
    def call_module(self, m: Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: Module, module_qualified_name: str) -> bool:
        return id(m) in self.kept or super().is_leaf_module(m, module_qualified_name)


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
        # The branch's own modules by name: the other names are the network's.
        self.own: dict[str, Module] = {}
        needed = {before for node in stochastic for before in node.all_input_nodes}
        last = next(node for node in reversed(whole.nodes) if node.op == "output")
        needed.update(last.all_input_nodes)
        self.border = [
            node
            for node in whole.nodes
            if node in needed and node not in stochastic and node.op != "get_attr"
        ]

    def trunk(self) -> fx.GraphModule:
        """The part that no draw changes."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in self.whole.nodes:
            if node not in self.stochastic and node.op != "output":
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(tuple(copies[node] for node in self.border))
        return self._module(graph)

    def branch(self) -> fx.GraphModule:
        """The part that every draw goes through, its batch norm folded where that can be."""
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
        """The node in the branch: folded, rectified in place, stacked, or as it was."""
        source = node.args[0] if node.args else None
        mixed = self._folded_into(node)
        layer = self.model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if mixed is not None:
            folded.add(node)
            return self._mixed(graph, copies[mixed.args[0]], self._fold(node, mixed))  # type: ignore[index]
        plain = node in self.layers and is_plain(self.model.get_submodule(str(node.target)))
        if plain and isinstance(source, fx.Node):
            folded.add(node)
            fold = self._fold(node, None)
            return graph.call_function(
                scaled_stack if self.stacked else scaled, (copies[source], *self._set(graph, fold))
            )
        if source in folded and len(source.users) == 1 and _rectifies(node, layer):  # type: ignore[union-attr]
            # What was folded is a new tensor, and nobody else reads it.
            return graph.call_function(functional.relu, (copies[source], True))  # type: ignore[index]
        if type(layer) in IDENTITIES:
            return copies[source]  # type: ignore[index]
        if self.stacked and type(layer) is nn.Linear:
            name = f"stack_{len(self.own)}"
            self.own[name] = DenseStack(layer)
            return graph.call_module(name, (copies[source],))  # type: ignore[index]
        return graph.node_copy(node, copies.__getitem__)

    def _mixed(self, graph: fx.Graph, source: fx.Node, fold: Fold) -> fx.Node:
        """A convolution or product with the folded weights."""
        weights, mixer = self._set(graph, fold), fold.mixer
        if isinstance(mixer, nn.Linear):
            product = multiplied_stack if self.stacked else functional.linear
            return graph.call_function(product, (source, *weights))
        options = (mixer.stride, mixer.padding, mixer.dilation, mixer.groups)  # type: ignore[union-attr]
        return graph.call_function(CONVOLUTIONS[type(mixer)], (source, *weights, *options))  # type: ignore[arg-type]

    def _set(self, graph: fx.Graph, fold: Fold) -> tuple[Argument, ...]:
        """What a draw sets of this layer: keyword arguments of the branch."""
        names = (fold.weight, fold.bias, *([fold.room] if self.stacked else []))
        return tuple(graph.placeholder(name) for name in names)

    def _folded_into(self, node: fx.Node) -> fx.Node | None:
        """The convolution or dense layer that feeds this plain batch norm and nothing else."""
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
        mixer = self.model.get_submodule(str(source.target))
        plain = type(mixer) is nn.Linear or (
            type(mixer) in CONVOLUTIONS and getattr(mixer, "padding_mode", "") == "zeros"
        )
        parametrised = hasattr(mixer, "parametrizations")
        return source if plain and not parametrised else None

    def _fold(self, node: fx.Node, mixed: fx.Node | None) -> Fold:
        layer: Any = self.model.get_submodule(str(node.target))
        mixer = self.model.get_submodule(str(mixed.target)) if mixed is not None else None
        stem = f"folded_{len(self.folds)}"
        names = (f"{stem}_{part}" for part in ("weight", "bias", "room"))
        fold = Fold(self.layers[node], layer, mixer, *names)
        self.folds.append(fold)
        return fold

    def _module(self, graph: fx.Graph) -> fx.GraphModule:
        # The layers that were folded into others are still there, read by nobody.
        graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
        names = {node.target for node in graph.nodes if node.op in ("call_module", "get_attr")}
        held = {
            name: self.own[name] if name in self.own else operator.attrgetter(name)(self.model)
            for name in names
        }
        module = fx.GraphModule(held, graph)
        # Its class is its own, with a call that prints the code when a try of it fails.
        type(module).__call__ = Module.__call__  # type: ignore[method-assign]
        return module


def _rectifies(node: fx.Node, layer: Module | None) -> bool:
    return type(layer) is nn.ReLU if layer is not None else node.target in RECTIFIERS
