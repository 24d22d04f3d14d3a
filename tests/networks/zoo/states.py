"""Networks with attributes that change what they compute, and with a memory of their own."""

import types

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from zoo.stranger import CLASSES, FEATURES, Stranger, dense, network, rows


def _trunk():
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU())


def _set(name, value, of=""):
    """A switch of one attribute, of the network or of a part."""
    return lambda net: setattr(net.get_submodule(of), name, value)


def _multi_task(net, x):
    return net.heads[net.task](net.trunk(x))


def _to_depth(net, x):
    h = net.first(x)
    for norm, layer in list(zip(net.norms, net.layers, strict=True))[: net.depth]:
        h = layer(norm(h)).relu()
    return net.head(h)


def _tempered(net, x):
    return net.head(net.trunk(x)) / net.temperature


def _configured(net, x):
    return net.head(net.trunk(x)) * net.config["scale"] ** len(net.config["steps"])


def _low_rank(net, x):
    h = net.trunk[0](x)
    if net.adapted:
        h = h + net.up(net.down(x)) * 2.0
    return net.head(net.trunk[1](h).relu())


def _teacher(net, x):
    return (net.teacher if net.use_teacher else net.student)(x)


def _domains(net, x):
    return net.head(net.norms[net.domain](net.first(x)).relu())


def _slim(net, x):
    width = net.width
    h = functional.linear(x, net.first.weight[:width], net.first.bias[:width])
    h = net.norms[str(width)](h).relu()
    return functional.linear(h, net.head.weight[:, :width], net.head.bias)


def _with_tensor(net, x):
    return net.head(net.trunk(x * net.scale))


def _with_function(net, x):
    return net.head(net.activation(net.trunk(x)))


def _mixed(net, x):
    return net.head(net.trunk(x) if net.alpha == 0 else (1 - net.alpha) * net.trunk(x))


def _counted(net, x):
    net.calls += 1
    return net.head(net.trunk(x))


def _counted_in_a_buffer(net, x):
    net.calls += 1
    return net.head(net.trunk(x))


def _annealed(net, x):
    net.calls += 1
    return net.head(net.trunk(x)) * (1 + 0.1 * net.calls)


def _cached(net, x):
    net.hidden = net.trunk(x)
    return net.head(net.hidden)


def _listed(net, x):
    h = net.trunk(x)
    net.seen.append(h.detach().mean())
    return net.head(h)


def _averaged_in_eval(net, x):
    h = net.trunk(x)
    net.average.mul_(0.9).add_(0.1 * h.detach().mean(0))
    return net.head(h)


def _built_lazily(net, x):
    h = net.trunk(x)
    if net.head is None:
        net.head = nn.Linear(h.shape[1], CLASSES)
    return net.head(h)


def _table_by_length(net, x):
    """Keeps the table of positions of the last length that it saw."""
    if net.table is None or net.table.shape[0] != x.shape[1]:
        net.table = torch.arange(x.shape[1]).sin()[:, None]
    return net.head(net.trunk((x + net.table).flatten(0, 1)).view(len(x), x.shape[1], -1).mean(1))


def _remembers_inputs(net, x):
    """Does not compute again what it was asked the last time."""
    key = (x.shape, float(x.sum()))
    if net.known.get("key") != key:
        net.known = {"key": key, "value": net.trunk(x)}
    return net.head(net.known["value"])


def _with_global(net, x):
    return net.head(net.trunk(x)) * SETTINGS["scale"]


def _of_class(net, x):
    return net.head(net.trunk(x)) * type(net).factor


def _is_training(net, x):
    h = net.first(x)
    norm = net.norm
    if net.is_training:
        h = functional.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias,
                                  training=True)  # fmt: skip
    else:
        h = norm(h)
    return net.head(h.relu())


SETTINGS = {"scale": 1.0}


def _made(forward, **parts):
    return network(forward, trunk=_trunk(), head=nn.Linear(8, CLASSES), **parts)


def _with_object(net, x):
    return net.head(net.trunk(x)) * net.config.scale


def _with_array(net, x):
    return net.head(net.trunk(x)) * float(net.scale[0])


def _closed_over():
    """A setting that only the closure of a function holds."""
    setting = {"scale": 1.0}

    def forward(net, x):
        return net.head(net.trunk(x)) * setting["scale"]

    net = _made(forward)
    net.set_scale = lambda value: setting.update(scale=value)
    return net


def _another_array(net):
    net.scale[:] = 3.0


def _deep(depth):
    return network(
        _to_depth, first=nn.Linear(FEATURES, 8), depth=depth, head=nn.Linear(8, CLASSES),
        norms=nn.ModuleList(nn.BatchNorm1d(8) for _ in range(3)),
        layers=nn.ModuleList(nn.Linear(8, 8) for _ in range(3)),
    )  # fmt: skip


def _with_buffer(forward, name, value):
    net = _made(forward)
    net.register_buffer(name, value)
    return net


def _with_settings():
    SETTINGS["scale"] = 1.0
    return _made(_with_global)


def _factored():
    net = _made(_of_class)
    type(net).factor = 1.0
    return net


def _half_scale(net):
    net.config["scale"] = 0.5


def _another_step(net):
    net.config["steps"].append("more")


def _another_forward(net):
    net.forward = types.MethodType(lambda self, x: 3 * type(self).forward(self, x), net)


def _another_factor(net):
    type(net).factor = 3.0


def _another_epsilon(net):
    net.trunk[1].eps = 0.5


def _scale_in_place(net):
    net.scale.mul_(3)


def _another_hook(net):
    net.trunk.register_forward_hook(lambda _module, _args, answer: 2 * answer)


class Rated(nn.Module):
    """Leaky by an attribute of its own."""

    slope = 0.1

    def forward(self, x):
        return functional.leaky_relu(x, self.slope)


def _rated():
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), Rated(), nn.Linear(8, CLASSES))


KEPT = {"all": "exact or refused or warned"}
STRANGERS = (
    Stranger("the active head of several", lambda: _made(
        _multi_task, task="age",
        heads=nn.ModuleDict({"age": nn.Linear(8, 5), "sex": nn.Linear(8, 2)})),
        switch=_set("task", "sex"),
        expected={"compare": "exact or refused"}),
    Stranger("depth of the exit", lambda: _deep(2), switch=_set("depth", 1),
             expected={"collect": "warned or exact"}, words="norms.2"),
    Stranger("a deeper exit than that of the bank", lambda: _deep(1), switch=_set("depth", 3),
             expected={"collect": "warned or exact"}, words=r"norms\.[12]"),
    Stranger("temperature", lambda: _made(_tempered, temperature=1.0),
             switch=_set("temperature", 3.0)),
    Stranger("a setting in a dict", lambda: _made(_configured, config={"scale": 1.0, "steps": []}),
             switch=lambda net: (_half_scale(net), _another_step(net))),
    Stranger("a setting in an object", lambda: _made(
        _with_object, config=types.SimpleNamespace(scale=1.0)),
        switch=lambda net: setattr(net.config, "scale", 3.0)),
    Stranger("a NumPy array that is written", lambda: _made(_with_array, scale=np.ones(1)),
             switch=_another_array),
    Stranger("a setting in a closure", _closed_over, switch=lambda net: net.set_scale(3.0)),
    Stranger("a list of a dict", lambda: _made(_configured, config={"scale": 0.5, "steps": []}),
             switch=_another_step),
    Stranger("an adapter of low rank", lambda: _made(
        _low_rank, adapted=False, down=nn.Linear(FEATURES, 2), up=nn.Linear(2, 8)),
        switch=_set("adapted", True)),
    Stranger("teacher and student", lambda: network(
        _teacher, student=dense(), teacher=dense(), use_teacher=False),
        expected={"collect": "warned or exact"}, words="teacher"),
    Stranger("a layer per domain", lambda: network(
        _domains, first=nn.Linear(FEATURES, 8), head=nn.Linear(8, CLASSES), domain=0,
        norms=nn.ModuleList(nn.BatchNorm1d(8) for _ in range(2))),
        expected={"collect": "warned or exact"}, words=r"norms\.1"),
    Stranger("slimmed to half its width", lambda: network(
        _slim, first=nn.Linear(FEATURES, 8), head=nn.Linear(8, CLASSES), width=4,
        norms=nn.ModuleDict({"4": nn.BatchNorm1d(4), "8": nn.BatchNorm1d(8)})),
        expected={"collect": "warned or exact"}, words=r"norms\.8"),
    Stranger("a tensor that is no buffer, replaced", lambda: _made(
        _with_tensor, scale=torch.tensor(1.0)), switch=_set("scale", torch.tensor(2.0))),
    Stranger("a tensor that is no buffer, written", lambda: _made(
        _with_tensor, scale=torch.tensor(1.0)), switch=_scale_in_place),
    Stranger("an activation that is a function", lambda: _made(
        _with_function, activation=torch.tanh), switch=_set("activation", torch.sin)),
    Stranger("an attribute of a part", _rated, switch=_set("slope", 0.9, of="2")),
    Stranger("an epsilon that is raised", lambda: _made(_tempered, temperature=1.0),
             switch=_another_epsilon),
    Stranger("a mixture that is off", lambda: _made(_mixed, alpha=0), switch=_set("alpha", 0.5)),
    Stranger("a forward that is replaced", lambda: _made(_tempered, temperature=1.0),
             switch=_another_forward),
    Stranger("an attribute of the class", lambda: _factored(), switch=_another_factor),
    Stranger("a global setting", lambda: _with_settings(),
             switch=lambda net: SETTINGS.update(scale=2.0)),
    Stranger("a hook that is added", lambda: _made(_tempered, temperature=1.0),
             switch=_another_hook),
    Stranger("a flag of its own for training", lambda: network(
        _is_training, first=nn.Linear(FEATURES, 8), norm=nn.BatchNorm1d(8),
        head=nn.Linear(8, CLASSES), is_training=False)),
    Stranger("counts its calls", lambda: _made(_counted, calls=0), expected=KEPT, words="calls"),
    Stranger("counts its calls in a buffer", lambda: _with_buffer(
        _counted_in_a_buffer, "calls", torch.tensor(0)), expected=KEPT, words="calls"),
    Stranger("answers differently at every call", lambda: _made(_annealed, calls=0),
             expected=KEPT, words="calls|twice|differ"),
    Stranger("keeps its hidden values", lambda: _made(_cached, hidden=None), expected=KEPT,
             words="hidden"),
    Stranger("keeps a list of what it saw", lambda: _made(_listed, seen=[]), expected=KEPT,
             words="seen"),
    Stranger("a running average that goes on in eval mode", lambda: _with_buffer(
        _averaged_in_eval, "average", torch.zeros(8)), expected=KEPT, words="average"),
    Stranger("builds its head at the first call", lambda: network(
        _built_lazily, trunk=_trunk(), head=None)),
    Stranger("keeps the table of the last length", lambda: _made(_table_by_length, table=None),
             rows(5, FEATURES)),
    Stranger("keeps its answer to the last inputs", lambda: _made(
        _remembers_inputs, known={}), expected={"all": "exact or refused or warned",
                                                "collect": "exact or refused or warned"},
        words="known|twice|equal"),
)  # fmt: skip
