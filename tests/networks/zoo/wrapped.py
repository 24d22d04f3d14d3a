"""Networks that a tool has changed: compiled, scripted, traced, parametrised, cast, and hooked."""

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint
from zoo.stranger import CLASSES, FEATURES, Stranger, dense, network, rows

IMAGE = rows(2, 6, 6)


def _activation(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def _image(**options):
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, **options), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))  # fmt: skip


def _parts(norm=None, **more):
    return {"first": nn.Linear(FEATURES, 8), "norm": norm or nn.BatchNorm1d(8),
            "head": nn.Linear(8, CLASSES), **more}  # fmt: skip


def _plain(net, x):
    return net.head(net.norm(net.first(x)).relu())


def _with_scripted(net, x):
    return net.head(net.activation(net.norm(net.first(x))))


def _checkpointed(net, x):
    return net.head(checkpoint(lambda y: net.norm(net.first(y)).relu(), x, use_reentrant=False))


def _cast_inside(net, x):
    return net.head(net.norm(net.first(x.float() / 255)).relu())


def _embedded(net, tokens):
    return net.head(net.norm(net.table(tokens).mean(1)).relu())


def _of_complex(net, x):
    return net.head(net.norm(torch.view_as_real(x).flatten(1)).relu())


def _autocast(net, x):
    with torch.autocast("cpu", torch.bfloat16):
        return net.head(net.norm(net.first(x)).relu()).float()


def _keyword(net, x):
    return net.head(net.norm(input=net.first(x)).relu())


def _weight_norm():
    net = dense()
    parametrizations.weight_norm(net[0])
    return net


def _orthogonal():
    net = dense()
    parametrizations.orthogonal(net[3])
    return net


def _norm_parametrised():
    net = dense()
    parametrize.register_parametrization(net[1], "weight", Doubled())
    return net


def _pruned():
    net = dense()
    prune.l1_unstructured(net[0], "weight", amount=0.3)
    return net


def _hooked():
    net = dense()
    net[1].register_forward_hook(lambda _module, _args, answer: answer * 2)
    net[0].register_forward_pre_hook(lambda _module, args: (args[0] + 1,))
    return net


def _norm_hooked_before():
    net = dense()
    net[1].register_forward_pre_hook(lambda _module, args: (args[0].clamp(-1, 1),))
    return net


def _traced():
    return torch.fx.symbolic_trace(dense())


def _graph_of_functions():
    """A graph module whose norm was replaced after tracing."""
    traced = torch.fx.symbolic_trace(network(_plain, **_parts()))
    traced.norm = nn.BatchNorm1d(8)
    return traced


def _compiled():
    return torch.compile(dense(), backend="eager")


def _quantised_after():
    """Batch norm in float, and a head in eight bits."""
    net = dense()
    net[3] = torch.ao.quantization.quantize_dynamic(nn.Sequential(net[3]), {nn.Linear})
    return net


def _forward_of_instance():
    net = dense()
    norm = net[1]
    norm.forward = lambda x: nn.BatchNorm1d.forward(norm, x) * 2
    return net


def _lazy():
    return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(CLASSES))


def _half_but_norm():
    net = _image().half()
    net[1].float()
    return net


def _bytes(generator):
    return torch.randint(0, 256, (FEATURES,), generator=generator, dtype=torch.uint8)


def _tokens(generator):
    return torch.randint(0, 10, (5,), generator=generator)


def _complex_row(generator):
    return torch.randn(4, generator=generator, dtype=torch.complex64)


def _cast(dtype, *shape):
    return lambda generator: rows(*shape)(generator).to(dtype)


def _channels_last(examples):
    return torch.stack(examples).to(memory_format=torch.channels_last)


def _expanded(examples):
    """All channels are one in memory: who writes into it fails, or writes all of them."""
    return torch.stack(examples)[:, :1].expand(-1, 2, -1, -1)


def _strided(examples):
    return torch.stack(examples, -1).movedim(-1, 0)[..., ::2]


def _in_inference_mode(examples):
    with torch.inference_mode():
        return torch.stack(examples)


def _as_parameter(examples):
    return nn.Parameter(torch.stack(examples))


HALF = {"tolerance": 2e-2}
STRANGERS = (
    Stranger("compiled", _compiled),
    Stranger("a scripted activation", lambda: network(
        _with_scripted, **_parts(activation=torch.jit.script(_activation)))),
    Stranger("a scripted head", lambda: nn.Sequential(
        *dense()[:3], torch.jit.script(nn.Linear(8, CLASSES)))),
    Stranger("a scripted norm", lambda: nn.Sequential(
        nn.Linear(FEATURES, 8), torch.jit.script(nn.BatchNorm1d(8)), nn.Linear(8, CLASSES)),
        expected={"all": "refused", "ensemble": "exact", "deterministic": "exact"},
        words="TorchScript"),
    Stranger("a graph module of fx", _traced),
    Stranger("a graph module with another norm", _graph_of_functions),
    Stranger("checkpointed", lambda: network(_checkpointed, **_parts())),
    Stranger("weight norm", _weight_norm),
    Stranger("an orthogonal head", _orthogonal),
    Stranger("a norm whose scale is parametrised", _norm_parametrised),
    Stranger("pruned", _pruned),
    Stranger("hooks of its own", _hooked),
    Stranger("a hook that clamps what a norm gets", _norm_hooked_before),
    Stranger("a forward set on the norm itself", _forward_of_instance),
    Stranger("a head in eight bits", _quantised_after, tolerance=1e-3, whole=True,
             expected={"all": "exact or refused"}),
    Stranger("lazy layers", _lazy),
    Stranger("activations given by keyword", lambda: network(_keyword, **_parts())),
    Stranger("data parallel", lambda: nn.DataParallel(dense())),
    Stranger("float64", lambda: dense().double(), _cast(torch.float64)),
    Stranger("float16", lambda: _image().half(), _cast(torch.float16, 2, 6, 6), **HALF),
    Stranger("bfloat16", lambda: _image().bfloat16(), _cast(torch.bfloat16, 2, 6, 6),
             tolerance=1e-1),
    Stranger("float16 but for the norm", _half_but_norm, _cast(torch.float16, 2, 6, 6),
             expected={"all": "exact or refused"}, **HALF),
    Stranger("autocast inside", lambda: network(_autocast, **_parts()), tolerance=5e-2),
    Stranger("float64 inputs of a float32 network", lambda: network(
        lambda net, x: _plain(net, x.float()), **_parts()), _cast(torch.float64)),
    Stranger("bytes that it casts itself", lambda: network(_cast_inside, **_parts()), _bytes),
    Stranger("tokens", lambda: network(
        _embedded, table=nn.Embedding(10, 8), norm=nn.BatchNorm1d(8), head=nn.Linear(8, CLASSES)),
        _tokens),
    Stranger("complex inputs", lambda: network(
        _of_complex, norm=nn.BatchNorm1d(8), head=nn.Linear(8, CLASSES)), _complex_row),
    Stranger("channels last", lambda: _image().to(memory_format=torch.channels_last), IMAGE,
             _channels_last),
    Stranger("expanded inputs", _image, IMAGE, _expanded),
    Stranger("inputs with strides", _image, rows(2, 6, 12), _strided),
    Stranger("inputs made in inference mode", _image, IMAGE, _in_inference_mode),
    Stranger("inputs that want gradients", dense, rows(), _as_parameter),
    Stranger("dropout as modules", lambda: nn.Sequential(
        nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.AlphaDropout(0.1), nn.Linear(8, 8),
        nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, CLASSES))),
    Stranger("dropout of channels", lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout2d(0.3), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(64, CLASSES)), IMAGE),
)  # fmt: skip
