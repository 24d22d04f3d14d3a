"""Layers with a forward of their own: most are batch norm, some only look like it."""

import torch
from torch import nn
from torch.nn import functional
from zoo.stranger import CLASSES, FEATURES, Stranger, batch_norm_alone, dense, network, rows

LENGTH = 7
LEFT_OUT = {"all": "exact or warned or refused"}


class Masked(nn.BatchNorm1d):
    """Moments over what is not padding."""

    def forward(self, x, mask):
        if not self.training:
            return super().forward(x)
        count = mask.sum()
        mean = (x * mask).sum((0, 2)) / count
        var = ((x - mean[:, None]).square() * mask).sum((0, 2)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        normal = (x - mean[:, None]) / (var[:, None] + self.eps).sqrt()
        return normal * self.weight[:, None] + self.bias[:, None]


class MaskedRows(nn.BatchNorm1d):
    """Takes the rows that count out of (N, L, C), and puts them back."""

    def forward(self, x, mask):
        out = x.clone()
        out[mask] = super().forward(x[mask])
        return out


class Tokens(nn.BatchNorm1d):
    """Batch norm of (N, L, C)."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ChannelsLast(nn.Module):
    """The same, as a module that holds one."""

    def __init__(self, channels):
        super().__init__()
        self.inner = nn.BatchNorm1d(channels)

    def forward(self, x):
        return self.inner(x.flatten(0, -2)).view_as(x)


class Ghost(nn.BatchNorm1d):
    """Statistics of every part of a batch, in buffers of all parts."""

    parts = 4

    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("running_mean", torch.zeros(channels * self.parts))
        self.register_buffer("running_var", torch.ones(channels * self.parts))

    def forward(self, x):
        if not self.training:
            mean, var = (
                v.view(self.parts, -1).mean(0) for v in (self.running_mean, self.running_var)
            )
            return functional.batch_norm(x, mean, var, self.weight, self.bias, False, 0.1, self.eps)
        weight, bias = self.weight.repeat(self.parts), self.bias.repeat(self.parts)
        together = x.view(-1, x.shape[1] * self.parts)
        return functional.batch_norm(
            together, self.running_mean, self.running_var, weight, bias, True, 0.1, self.eps
        ).view_as(x)


class GhostOfPieces(nn.BatchNorm1d):
    """Calls its own forward on pieces of the batch in training."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        return torch.cat([super(GhostOfPieces, self).forward(piece) for piece in x.split(4)])


class Virtual(nn.Module):
    """Calls a plain layer on pieces of the batch, in both modes."""

    def __init__(self, channels, size):
        super().__init__()
        self.inner, self.size = nn.BatchNorm1d(channels), size

    def forward(self, x):
        return torch.cat([self.inner(piece) for piece in x.split(self.size)])


class Renorm(nn.BatchNorm1d):
    """Batch renormalisation: train mode corrects towards the running statistics."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        mean, var = x.mean(0), x.var(0, correction=0)
        deviation, running = (var + self.eps).sqrt(), (self.running_var + self.eps).sqrt()
        ratio = (deviation / running).clamp(1 / 3, 3).detach()
        shift = ((mean - self.running_mean) / running).clamp(-5, 5).detach()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var, self.momentum)
        return ((x - mean) / deviation * ratio + shift) * self.weight + self.bias


class Unbiased(nn.BatchNorm1d):
    """Normalises by the variance divided by n - 1, as many hand-written ones do."""

    def forward(self, x):
        if self.training:
            mean, var = x.mean(0), x.var(0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, 0.1)
                self.running_var.lerp_(var, 0.1)
        else:
            mean, var = self.running_mean, self.running_var
        return (x - mean) / (var + self.eps).sqrt() * self.weight + self.bias


class ByHand(nn.Module):
    """Batch norm written out, of no class of PyTorch."""

    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels) + 0.5)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean(0), x.var(0, correction=0)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean.detach()
            self.running_var = 0.9 * self.running_var + 0.1 * var.detach()
        return self.gamma * (x - mean) / torch.sqrt(var + 1e-3)


class MeanDeviation(ByHand):
    """Divides by the mean absolute deviation, and calls it running_var."""

    def forward(self, x):
        mean, deviation = self.running_mean, self.running_var
        if self.training:
            mean = x.mean(0)
            deviation = (x - mean).abs().mean(0)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean.detach()
            self.running_var = 0.9 * self.running_var + 0.1 * deviation.detach()
        return self.gamma * (x - mean) / (deviation + 1e-3)


class MeanOnly(nn.BatchNorm1d):
    """Centres by the batch, and divides by the running deviation in both modes."""

    def forward(self, x):
        mean = x.mean(0) if self.training else self.running_mean
        if self.training:
            with torch.no_grad():
                self.running_mean.lerp_(mean, 0.1)
                self.running_var.lerp_(x.var(0), 0.1)
        return (x - mean) / (self.running_var + self.eps).sqrt() * self.weight + self.bias


class RunningNormaliser(nn.Module):
    """Normalises observations by statistics of all that it has seen, in train mode too."""

    def __init__(self, features):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("count", torch.tensor(1e-4))

    def forward(self, x):
        if self.training:
            total = self.count + len(x)
            gap = x.mean(0) - self.running_mean
            both = self.running_var * self.count + x.var(0, correction=0) * len(x)
            self.running_mean += gap * len(x) / total
            self.running_var.copy_(both / total + gap.square() * self.count * len(x) / total**2)
            self.count.copy_(total)
        return (x - self.running_mean) / (self.running_var + 1e-8).sqrt()


class Standardise(nn.Module):
    """Statistics of the training set, set once; no mode changes them."""

    def __init__(self, features):
        super().__init__()
        self.register_buffer("running_mean", torch.full((features,), 0.4))
        self.register_buffer("running_var", torch.full((features,), 1.3))

    def forward(self, x):
        return (x - self.running_mean) / self.running_var.sqrt()


class PerType(nn.Module):
    """One row of statistics per type of example."""

    def __init__(self, types, features):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(types, features))
        self.register_buffer("running_var", torch.ones(types, features))

    def forward(self, x, kind):
        if self.training:
            for each in kind.unique():
                part = x[kind == each]
                self.running_mean[each].lerp_(part.mean(0), 0.1)
                self.running_var[each].lerp_(part.var(0, correction=0), 0.1)
        return (x - self.running_mean[kind]) / (self.running_var[kind] + 1e-5).sqrt()


class PerStep(nn.Module):
    """Statistics for each time step, as rows of one table."""

    def __init__(self, steps, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.register_buffer("running_mean", torch.zeros(steps, channels))
        self.register_buffer("running_var", torch.ones(steps, channels))

    def forward(self, x, step):
        return functional.batch_norm(
            x, self.running_mean[step], self.running_var[step], self.weight, None, self.training
        )


class Switchable(nn.BatchNorm2d):
    """A learned mixture of batch and instance statistics, in one pair of buffers."""

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, 0.1)
                self.running_var.lerp_(var, 0.1)
        own = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, correction=0)
        mean = 0.7 * mean[:, None, None] + 0.3 * own[0]
        var = 0.7 * var[:, None, None] + 0.3 * own[1]
        return (x - mean) / (var + self.eps).sqrt() * self.weight[:, None, None]


class Floored(nn.BatchNorm1d):
    """Never divides by less than a tenth."""

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean(0), x.var(0, correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, 0.1)
                self.running_var.lerp_(var, 0.1)
        return (x - mean) / var.sqrt().clamp(min=0.1)


class FilterResponse(nn.Module):
    """Filter response norm with a running mean square; only a variance."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("running_var", torch.ones(1, channels, 1, 1))

    def forward(self, x):
        square = self.running_var
        if self.training:
            square = x.square().mean((0, 2, 3), keepdim=True)
            self.running_var.lerp_(square.detach(), 0.1)
        return x / (square + 1e-6).sqrt()


class EvoNorm(nn.Module):
    """EvoNorm-B0: the larger of a batch deviation and one within the example."""

    def __init__(self, channels):
        super().__init__()
        self.v = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("running_var", torch.ones(1, channels, 1, 1))

    def forward(self, x):
        var = self.running_var
        if self.training:
            var = x.var((0, 2, 3), keepdim=True, correction=0)
            self.running_var.lerp_(var.detach(), 0.1)
        within = x.var((2, 3), keepdim=True).add(1e-5).sqrt() + self.v * x
        return x / torch.maximum((var + 1e-5).sqrt(), within)


class Conditional(nn.Module):
    """Scale and shift by class, after a plain layer without them."""

    def __init__(self, channels, classes):
        super().__init__()
        self.inner = nn.BatchNorm1d(channels, affine=False)
        self.scales = nn.Embedding(classes, 2 * channels)

    def forward(self, x, kind):
        scale, shift = self.scales(kind).chunk(2, 1)
        return self.inner(x) * (1 + scale) + shift


class FloatInside(nn.BatchNorm1d):
    """Computes in float32, whatever comes."""

    def forward(self, x):
        return super().forward(x.float()).to(x.dtype)


class WithActivation(nn.BatchNorm2d):
    """Batch norm and a leaky ReLU in one, in place."""

    def forward(self, x):
        return functional.leaky_relu_(super().forward(x), 0.01)


class TwoHalves(nn.Module):
    """Instance norm of half of the channels, batch norm of the others."""

    def __init__(self, channels):
        super().__init__()
        self.half = channels // 2
        self.within, self.across = (
            nn.InstanceNorm2d(self.half),
            nn.BatchNorm2d(channels - self.half),
        )

    def forward(self, x):
        return torch.cat([self.within(x[:, : self.half]), self.across(x[:, self.half :])], 1)


class Complex(nn.Module):
    """Two plain layers for the real and the imaginary part."""

    def __init__(self, channels):
        super().__init__()
        self.real, self.imaginary = nn.BatchNorm1d(channels), nn.BatchNorm1d(channels)

    def forward(self, x):
        return torch.complex(self.real(x.real), self.imaginary(x.imag))


class StandardisedWeights(nn.Conv2d):
    """A convolution whose weights are standardised at every call."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class ThroughTensors(nn.Module):
    """Uses the tensors of a plain layer, whose forward is never called in eval mode."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(FEATURES, 8), nn.BatchNorm1d(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        if self.training:
            return self.head(self.norm(self.first(x)).relu())
        scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        shift = self.norm.bias - self.norm.running_mean * scale
        h = functional.linear(
            x, self.first.weight * scale[:, None], self.first.bias * scale + shift
        )
        return self.head(h.relu())


def _through_functional(net, x):
    norm = net.norm
    h = functional.batch_norm(net.first(x), norm.running_mean, norm.running_var, norm.weight,
                              norm.bias, net.training, 0.1, norm.eps)  # fmt: skip
    return net.head(h.relu())


def _sequence(net, x, lengths):
    mask = (torch.arange(LENGTH) < lengths[:, None])[:, None].float()
    h = net.norm(net.conv(x), mask).relu() * mask
    return net.head(h.sum(-1) / lengths[:, None])


def _sentence(net, x, lengths):
    mask = torch.arange(LENGTH) < lengths[:, None]
    h = net.norm(net.first(x), mask).relu() * mask[..., None]
    return net.head(h.sum(1) / lengths[:, None])


def _tokens(net, x):
    return net.head(net.norm(net.first(x)).relu().mean(1))


def _typed(net, x, kind):
    return net.head(net.norm(net.first(x), kind).relu())


def _typed_inputs(net, x, kind):
    return net.body(net.scaler(x, kind))


def _by_step(net, x):
    h = x.new_zeros(len(x), 8)
    for step in range(x.shape[1]):
        h = torch.tanh(net.norm(net.first(x[:, step]), step) + net.again(h))
    return net.head(h)


def _layer_per_step(net, x):
    h = x.new_zeros(len(x), 8)
    for step, norm in enumerate(net.norms):
        h = torch.tanh(norm(net.first(x[:, step])) + net.again(h))
    return net.head(h)


def _one_layer_per_step(net, x):
    h = x.new_zeros(len(x), 8)
    for step in range(x.shape[1]):
        h = torch.tanh(net.norm(net.first(x[:, step])) + net.again(h))
    return net.head(h)


def _spectrum(net, x):
    return net.head(net.norm(torch.fft.rfft(net.first(x))).abs())


def _padded(generator):
    length = int(torch.randint(2, LENGTH + 1, (), generator=generator))
    x = torch.randn(4, LENGTH, generator=generator) + 1
    return x * (torch.arange(LENGTH) < length), torch.tensor(length)


def _padded_tokens(generator):
    x, length = _padded(generator)
    return x.mT.contiguous(), length


def _with_kind(generator):
    return rows()(generator), torch.randint(0, 2, (), generator=generator)


def _parts(norm, first=None, **more):
    return {"first": first or nn.Linear(FEATURES, 8), "norm": norm,
            "head": nn.Linear(8, CLASSES), **more}  # fmt: skip


def _image(norm, conv=None):
    return nn.Sequential(conv or nn.Conv2d(2, 8, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(8, CLASSES))  # fmt: skip


def _beside(norm):
    """A layer that is no batch norm, before one that is."""
    return nn.Sequential(norm, *dense())


def _ramped(generator):
    return torch.randn(8, 4, generator=generator) + torch.linspace(0, 2, 8)[:, None]


STEPS = rows(4, FEATURES)
IMAGE = rows(2, 6, 6)
STRANGERS = (
    Stranger("masked batch norm of (N, C, L)",
             lambda: network(_sequence, **_parts(Masked(8), conv=nn.Conv1d(4, 8, 3, padding=1))),
             _padded, expected=LEFT_OUT, words="norm.*train mode|train mode.*norm"),
    Stranger("masked rows of (N, L, C)",
             lambda: network(_sentence, **_parts(MaskedRows(8), nn.Linear(4, 8))), _padded_tokens),
    Stranger("batch norm of (N, L, C)",
             lambda: network(_tokens, **_parts(Tokens(8), nn.Linear(4, 8))), rows(5, 4)),
    Stranger("batch norm of (N, L, C) with L = C",
             lambda: network(_tokens, **_parts(Tokens(8), nn.Linear(4, 8))), _ramped),
    Stranger("a module around a layer for (N, L, C)",
             lambda: network(_tokens, **_parts(ChannelsLast(8), nn.Linear(4, 8))), rows(5, 4)),
    Stranger("ghost batch norm with buffers of all parts", lambda: dense(Ghost(8)),
             expected=LEFT_OUT,
             words="'1'.*train mode|train mode.*'1'"),
    Stranger("ghost batch norm that calls itself on pieces", lambda: dense(GhostOfPieces(8)),
             expected=LEFT_OUT,
             words="'1'.*train mode|train mode.*'1'"),
    Stranger("virtual batch norm of pieces of 8", lambda: dense(Virtual(8, 8)),
             expected={"inspect": "exact", "doctor": "exact"}),
    Stranger("virtual batch norm of pieces of 4", lambda: dense(Virtual(8, 4)),
             expected={"collect": "refused or warned", "all": "exact or refused"}, words="inner"),
    Stranger("batch renormalisation", lambda: dense(Renorm(8)), expected=LEFT_OUT,
             words="'1'.*train mode|train mode.*'1'"),
    Stranger("the variance divided by n - 1", lambda: dense(Unbiased(8)),
             expected={"collect": "exact or warned or refused", "all": "exact or refused"},
             words="'1'.*train mode|train mode.*'1'"),
    Stranger("written out, of no class of PyTorch", lambda: dense(ByHand(8))),
    Stranger("mean absolute deviation called running_var", lambda: dense(MeanDeviation(8)),
             expected=LEFT_OUT, words="'1'.*train mode|train mode.*'1'"),
    Stranger("centred by the batch, scaled by the running deviation", lambda: dense(MeanOnly(8)),
             expected=LEFT_OUT, words="'1'.*train mode|train mode.*'1'"),
    Stranger("a running normaliser before batch norm", lambda: _beside(RunningNormaliser(FEATURES)),
             expected=LEFT_OUT, training=batch_norm_alone, words="'0'"),
    Stranger("a standardiser before batch norm", lambda: _beside(Standardise(FEATURES)),
             expected=LEFT_OUT, words="'0'"),
    Stranger("statistics per type of example, before batch norm",
             lambda: network(_typed_inputs, scaler=PerType(2, FEATURES), body=dense()), _with_kind,
             expected=LEFT_OUT, training=batch_norm_alone, words="scaler"),
    Stranger("a table of statistics per time step",
             lambda: network(_by_step, **_parts(PerStep(4, 8), again=nn.Linear(8, 8))), STEPS,
             expected={"all": "refused or exact"}, words="norm"),
    Stranger("a layer per time step",
             lambda: network(_layer_per_step, **_parts(nn.Identity(), again=nn.Linear(8, 8),
                             norms=nn.ModuleList(nn.BatchNorm1d(8) for _ in range(4)))), STEPS),
    Stranger("one layer for all time steps",
             lambda: network(_one_layer_per_step,
                             **_parts(nn.BatchNorm1d(8), again=nn.Linear(8, 8))), STEPS,
             expected={"collect": "refused", "all": "exact or refused"}, words="norm"),
    Stranger("filter response norm with a running square",
             lambda: nn.Sequential(_image(nn.BatchNorm2d(8), nn.Sequential(
                 nn.Conv2d(2, 8, 3), FilterResponse(8)))), IMAGE, training=batch_norm_alone),
    Stranger("EvoNorm-B0 beside batch norm",
             lambda: nn.Sequential(_image(nn.BatchNorm2d(8), nn.Sequential(
                 nn.Conv2d(2, 8, 3), EvoNorm(8)))), IMAGE, training=batch_norm_alone),
    Stranger("switchable norm", lambda: _image(Switchable(8)), IMAGE),
    Stranger("a deviation of at least a tenth", lambda: dense(Floored(8))),
    Stranger("conditional batch norm", lambda: network(_typed, **_parts(Conditional(8, 2))),
             _with_kind),
    Stranger("computes in float32 inside", lambda: dense(FloatInside(8))),
    Stranger("batch norm with an activation in place", lambda: _image(WithActivation(8)), IMAGE),
    Stranger("instance and batch norm by halves", lambda: _image(TwoHalves(8)), IMAGE),
    Stranger("complex batch norm", lambda: network(_spectrum, **_parts(Complex(5)) | {
        "head": nn.Linear(5, CLASSES)})),
    Stranger("standardised weights",
             lambda: _image(nn.BatchNorm2d(8), StandardisedWeights(2, 8, 3)), IMAGE),
    Stranger("spectral norm", lambda: nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(FEATURES, 8)), nn.BatchNorm1d(8),
        nn.ReLU(), nn.Linear(8, CLASSES)), training=batch_norm_alone),
    Stranger("spectral norm of the old kind", lambda: nn.Sequential(
        nn.utils.spectral_norm(nn.Linear(FEATURES, 8)), nn.BatchNorm1d(8),
        nn.ReLU(), nn.Linear(8, CLASSES)), training=batch_norm_alone),
    Stranger("instance norm with running statistics beside", lambda: _image(nn.BatchNorm2d(8),
             nn.Sequential(nn.Conv2d(2, 8, 3), nn.InstanceNorm2d(8, track_running_stats=True))),
             IMAGE, training=batch_norm_alone),
    Stranger("a layer used through its tensors", ThroughTensors,
             expected={"all": "exact", "collect": "refused"}, words="norm|reach"),
    Stranger("a layer used by F.batch_norm", lambda: network(
        _through_functional, **_parts(nn.BatchNorm1d(8))),
             expected={"all": "exact", "collect": "refused"}, words="norm|reach"),
    Stranger("momentum=None", lambda: dense(nn.BatchNorm1d(8, momentum=None))),
    Stranger("SyncBatchNorm", lambda: dense(nn.SyncBatchNorm(8)), expected={}),
)  # fmt: skip
