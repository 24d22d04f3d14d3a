"""A network as a graph cut in two: what no draw changes, and what every draw goes through."""

import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument
from torch.nn import Module, functional

from mcbn.folding import Fold, multiplied, scaled
from mcbn.isolation import eval_mode

CONVOLUTIONS: dict[type, Callable[..., Tensor]] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}
# Their forward is batch norm and nothing else; a subclass may add an activation.
PLAIN_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
RECTIFIERS = (functional.relu, torch.relu, "relu", nn.ReLU)


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced network.

    Attributes:
        trunk: inputs to the tuple of values that the branch needs; the same for every draw.
        branch: those values to the network's answer, with folded tensors as buffers.
        folds: what a draw sets in the branch, besides statistics under their own names.
        modules: those inside the network when it was traced, kept so that none is taken for
            another; not the network itself, which may go.
    """

    trunk: fx.GraphModule
    branch: fx.GraphModule
    folds: tuple[Fold, ...]
    modules: tuple[Module, ...]

    @property
    def dense(self) -> bool:
        """Whether draws can be stacked as matrices: nothing folded is a convolution."""
        return not any(type(fold.mixer) in CONVOLUTIONS for fold in self.folds)


def traced(model: Module, layers: Mapping[str, Module]) -> Graph:
    """Trace `model` in eval mode and cut it at its stochastic `layers`.

    Raises:
        Exception: whatever tracing meets in a network whose path depends on values, that is hooked
            or that takes more than one tensor; such a network has to run as it is.
    """
    modules = tuple(model.modules())
    if any(module._forward_hooks or module._forward_pre_hooks for module in modules):
        raise ValueError("expected a network without hooks, got some; run it as it is")
    with eval_mode(model):
        whole = _Tracer(layers.values()).trace(model, concrete_args=_defaults(model))
    names = {id(layer): name for name, layer in layers.items()}
    found: dict[fx.Node, str] = {}
    stochastic: set[fx.Node] = set()
    for node in whole.nodes:
        if node.op == "call_module" and id(model.get_submodule(node.target)) in names:
            found[node] = names[id(model.get_submodule(node.target))]
        if node in found or stochastic.intersection(node.all_input_nodes):
            stochastic.add(node)
    cut = _Cut(model, whole, stochastic, found)
    return Graph(cut.trunk(), cut.branch(), tuple(cut.folds), modules[1:])


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
    ) -> None:
        self.model, self.whole, self.stochastic, self.layers = model, whole, stochastic, layers
        self.folds: list[Fold] = []
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
        """The node in the branch: folded, rectified in place, or as it was."""
        source = node.args[0] if node.args else None
        mixed = self._folded_into(node)
        if mixed is not None:
            folded.add(node)
            return _convolved(graph, copies[mixed.args[0]], self._fold(node, mixed))  # type: ignore[index]
        layer = self.model.get_submodule(str(node.target)) if node in self.layers else None
        if type(layer) in PLAIN_BATCH_NORM and isinstance(source, fx.Node):
            folded.add(node)
            fold = self._fold(node, None)
            names = (fold.weight, fold.bias)
            return graph.call_function(
                scaled, (copies[source], *(graph.get_attr(name) for name in names))
            )
        if source in folded and len(source.users) == 1 and self._rectifies(node):  # type: ignore[union-attr]
            # What was folded is a new tensor, and nobody else reads it.
            return graph.call_function(functional.relu, (copies[source], True))  # type: ignore[index]
        return graph.node_copy(node, copies.__getitem__)

    def _folded_into(self, node: fx.Node) -> fx.Node | None:
        """The convolution or dense layer that feeds this plain batch norm and nothing else."""
        source = node.args[0] if node.args else None
        if (
            node not in self.layers
            or type(self.model.get_submodule(str(node.target))) not in PLAIN_BATCH_NORM
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
        layer = self.model.get_submodule(str(node.target))
        mixer = self.model.get_submodule(str(mixed.target)) if mixed is not None else None
        stem = f"folded_{len(self.folds)}"
        fold = Fold(self.layers[node], layer, mixer, f"{stem}_weight", f"{stem}_bias")  # type: ignore[arg-type]
        self.folds.append(fold)
        return fold

    def _rectifies(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return type(self.model.get_submodule(str(node.target))) is nn.ReLU
        return node.target in RECTIFIERS

    def _module(self, graph: fx.Graph) -> fx.GraphModule:
        module = fx.GraphModule(self._attributes(graph), graph)
        # The layers that were folded into others are still there, read by nobody.
        module.graph.eliminate_dead_code()
        module.recompile()
        return module

    def _attributes(self, graph: fx.Graph) -> dict[str, Any]:
        """What the graph's names stand for: the network's own modules and tensors."""
        folded = {name for fold in self.folds for name in (fold.weight, fold.bias)}
        found: dict[str, Any] = {}
        for node in graph.nodes:
            target = str(node.target)
            if node.op == "call_module":
                found[target] = self.model.get_submodule(target)
            elif node.op == "get_attr" and target in folded:
                found[target] = torch.empty(0)
            elif node.op == "get_attr":
                found[target] = operator.attrgetter(target)(self.model)
        return found


def _convolved(graph: fx.Graph, source: fx.Node, fold: Fold) -> fx.Node:
    """A convolution or product with the folded weights."""
    weights: tuple[Argument, ...] = (graph.get_attr(fold.weight), graph.get_attr(fold.bias))
    mixer = fold.mixer
    if isinstance(mixer, nn.Linear):
        return graph.call_function(multiplied, (source, *weights))
    options = (mixer.stride, mixer.padding, mixer.dilation, mixer.groups)  # type: ignore[union-attr]
    return graph.call_function(CONVOLUTIONS[type(mixer)], (source, *weights, *options))  # type: ignore[arg-type]
