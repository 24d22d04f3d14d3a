"""Networks that draw at random in eval mode too."""

import random
from itertools import count

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from zoo.stranger import CLASSES, FEATURES, Stranger, batch_norm_alone, network, rows

CLOCK = count()


def _with(change, **parts):
    """A dense network whose hidden values are changed at random."""

    def forward(net, x):
        return net.head(change(net, net.norm(net.first(x)).relu()))

    return network(forward, first=nn.Linear(FEATURES, 8), norm=nn.BatchNorm1d(8),
                   head=nn.Linear(8, CLASSES), **parts)  # fmt: skip


def _dropped(_net, h):
    return functional.dropout(h, 0.3)


def _dropped_in_training(net, h):
    return functional.dropout(h, 0.3, training=net.training)


def _depth(net, h):
    return h if torch.rand(()) < 0.2 else h + net.block(h).relu()


def _depth_by_python(net, h):
    return h if random.random() < 0.3 else h + net.block(h).relu()


def _noise(_net, h):
    return h + 0.1 * torch.randn_like(h)


def _noise_by_numpy(_net, h):
    return h + torch.as_tensor(np.random.normal(0, 0.1, tuple(h.shape)), dtype=h.dtype)  # noqa: NPY002


def _own_generator(net, h):
    return h + 0.1 * torch.randn(h.shape, generator=net.generator)


def _fixed_generator(_net, h):
    """The same numbers at every call, so nothing is random."""
    return h + 0.1 * torch.randn(h.shape, generator=torch.Generator().manual_seed(3))


def _sampled(_net, h):
    mean, deviation = h.chunk(2, 1)
    z = mean + deviation.exp().clamp(max=3) * torch.randn_like(mean)
    return torch.cat([z, z], 1)


def _gumbel(_net, h):
    return functional.gumbel_softmax(h, hard=True)


def _cropped(net, x):
    start = int(torch.randint(0, 3, ()))
    h = net.norm(net.conv(x[..., start : start + 4, start : start + 4])).relu()
    return net.head(h.mean((2, 3)))


def _by_a_clock(_net, h):
    """A clock that moves at every call; no attribute of the network holds it."""
    return h + 0.1 * (next(CLOCK) % 7)


def _rarely(_net, h):
    """Leaves its block out once in 16 calls, so two calls seldom differ."""
    return torch.zeros_like(h) if torch.rand(()) < 1 / 16 else h


def _drawn(net, h):
    """Random features that are drawn anew at every call."""
    return torch.cat([h[:, :4], torch.rand(len(h), 4)], 1)


RANDOM = {"expected": {"all": "warned or refused"}, "words": r"random|twice|chance"}
STRANGERS = (
    Stranger("functional dropout that is always on", lambda: _with(_dropped), **RANDOM),
    Stranger("functional dropout in training alone", lambda: _with(_dropped_in_training),
             training=batch_norm_alone),
    Stranger("stochastic depth by hand", lambda: _with(_depth, block=nn.Linear(8, 8)), **RANDOM),
    Stranger("stochastic depth by Python's random", lambda: _with(
        _depth_by_python, block=nn.Linear(8, 8)), **RANDOM),
    Stranger("Gaussian noise", lambda: _with(_noise), **RANDOM),
    Stranger("Gaussian noise by NumPy", lambda: _with(_noise_by_numpy), **RANDOM),
    Stranger("noise of a generator of its own", lambda: _with(
        _own_generator, generator=torch.Generator().manual_seed(0)), **RANDOM),
    Stranger("noise that is the same at every call", lambda: _with(_fixed_generator),
             whole=True, expected={"predict regrouped": "exact or refused"}),
    Stranger("samples its latent values", lambda: _with(_sampled), **RANDOM),
    Stranger("Gumbel-softmax in the middle", lambda: _with(_gumbel), **RANDOM),
    Stranger("crops at random", lambda: network(
        _cropped, conv=nn.Conv2d(2, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Linear(4, CLASSES)),
        rows(2, 6, 6), **RANDOM),
    Stranger("depends on the time", lambda: _with(_by_a_clock), **RANDOM),
    Stranger("random once in sixteen calls", lambda: _with(_rarely), **RANDOM),
    Stranger("random features", lambda: _with(_drawn), **RANDOM),
)  # fmt: skip
