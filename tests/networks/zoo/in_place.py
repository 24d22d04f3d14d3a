"""Networks that write into their inputs, or into what all draws share."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from zoo.stranger import CLASSES, FEATURES, Stranger, network, rows, stacked


def _images(change, **modules: nn.Module) -> nn.Module:
    """An image network whose forward begins with a change of its input."""
    return network(
        lambda net, x: net.head(net.drop(net.norm(net.conv(change(x))).relu().mean((2, 3)))),
        conv=nn.Conv2d(2, 5, 3), norm=nn.BatchNorm2d(5), drop=nn.Dropout(0.2),
        head=nn.Linear(5, CLASSES), **modules,
    )  # fmt: skip


def _table(change) -> nn.Module:
    return network(
        lambda net, x: net.head(net.norm(net.first(change(x))).relu()),
        first=nn.Linear(FEATURES, 8), norm=nn.BatchNorm1d(8), head=nn.Linear(8, CLASSES),
    )  # fmt: skip


def _by_channel(x: Tensor) -> Tensor:
    for channel in range(2):
        x[:, channel] -= 0.4
    return x


def _behind_the_counter(x: Tensor) -> Tensor:
    x.data.mul_(1.5)
    return x


def _by_numpy(x: Tensor) -> Tensor:
    x.numpy()[...] *= 1.5
    return x


def _renamed(x: Tensor) -> Tensor:
    x.mul_(2)
    return x


def _stem(call) -> nn.Module:
    """A residual network whose stem comes before every batch norm."""
    return network(
        call, stem=nn.Conv2d(2, 4, 3, padding=1), norm=nn.BatchNorm2d(4),
        block=nn.Conv2d(4, 4, 3, padding=1), last=nn.BatchNorm2d(4), head=nn.Linear(4, CLASSES),
    )  # fmt: skip


def _adds(net, x):
    h = net.stem(x)
    h = h.add_(net.block(net.norm(h).relu()))
    return net.head(net.last(h).relu().mean((2, 3)))


def _adds_twice(net, x):
    h = net.norm(net.stem(x))
    h += net.block(h)
    kept = h
    h = net.last(h)
    h *= 0.5
    kept += h
    return net.head(kept.mean((2, 3)))


def _through_a_view(net, x):
    h = net.stem(x)
    half = h[:, :2]
    body = net.block(net.norm(h))
    half.relu_()
    return net.head(net.last(h + body).mean((2, 3)))


def _activation_over_the_stem(net, x):
    h = net.stem(x)
    g = nn.functional.relu(net.norm(h), inplace=True)
    g = net.block(g)
    nn.functional.silu(h, inplace=True)
    return net.head(net.last(g + h).mean((2, 3)))


def _checkpointed(net, x):
    h = net.stem(x)

    def block(inner):
        return inner.add_(net.block(net.norm(inner).relu()))

    return net.head(net.last(checkpoint(block, h, use_reentrant=False)).mean((2, 3)))


def _scaled_by_keyword(net, *, x, scale):
    x /= scale[:, None]
    return net.head(net.norm(net.first(x)).relu())


def _shifted_tokens(net, tokens):
    tokens += 1
    return net.head(net.norm(net.table(tokens).mean(1)).relu())


def _masked(net, x, keep):
    x.masked_fill_(~keep, 0)
    x[:, 0] += 1
    return net.head(net.norm(net.first(x)).relu())


def _of_another_shape(net, x):
    x.unsqueeze_(1)
    return net.head(net.norm(net.conv(x)).relu().mean(2))


def _turned(net, x):
    x.transpose_(1, 2)
    return net.head(net.norm(net.conv(x)).relu().mean(2))


def _pops(net, table):
    x = table["x"] * table.pop("scale")[:, None]
    return net.head(net.norm(net.first(x)).relu())


def _puts_back(net, table):
    table["x"] = table["x"] * 2 - 1
    return net.head(net.norm(net.first(table["x"])).relu())


def _reverses(net, parts):
    parts.reverse()
    return net.head(net.norm(net.first(torch.cat(parts, 1))).relu())


def _normalises_its_weights(net, x):
    net.head.weight.data = nn.functional.normalize(net.head.weight.data * 2, p=1, dim=1)
    return 5 * net.head(net.norm(net.first(x)).relu())


def _halves_its_weights(net, x):
    net.head.weight.data.mul_(0.5)
    return net.head(net.norm(net.first(x)).relu())


def _dense(**first: nn.Module) -> dict[str, nn.Module]:
    return {**first, "norm": nn.BatchNorm1d(8), "head": nn.Linear(8, CLASSES)}


def _tokens(generator):
    return torch.randint(0, 10, (5,), generator=generator)


def _with_scale(generator):
    return {"x": rows()(generator), "scale": torch.rand((), generator=generator) + 0.5}


def _as_one_dict(examples):
    return (stacked(examples),)


def _as_list(examples):
    both = torch.stack(examples)
    return ([both[:, :2].clone(), both[:, 2:].clone()],)


def _with_mask(generator):
    return rows()(generator), torch.rand(FEATURES, generator=generator) > 0.3


IMAGE = rows(2, 6, 6)
STRANGERS = (
    Stranger("normalises its input by sub_ and div_",
             lambda: _images(lambda x: x.sub_(0.5).div_(0.25)), IMAGE),
    Stranger("normalises its input channel by channel", lambda: _images(_by_channel), IMAGE),
    Stranger("clamps its input", lambda: _images(lambda x: x.clamp_(-0.5, 0.5)), IMAGE),
    Stranger("multiplies x.data, which no counter sees", lambda: _images(_behind_the_counter),
             IMAGE),
    Stranger("multiplies x.numpy(), which no counter sees", lambda: _table(_by_numpy)),
    Stranger("doubles its input with out=", lambda: _table(lambda x: torch.mul(x, 2, out=x))),
    Stranger("doubles its input and answers of it", lambda: _table(_renamed)),
    Stranger("adds a block into its stem", lambda: _stem(_adds), IMAGE),
    Stranger("adds blocks into what comes before", lambda: _stem(_adds_twice), IMAGE),
    Stranger("writes its stem through a view", lambda: _stem(_through_a_view), IMAGE),
    Stranger("an activation in place over the stem", lambda: _stem(_activation_over_the_stem),
             IMAGE),
    Stranger("adds in place inside a checkpoint", lambda: _stem(_checkpointed), IMAGE),
    Stranger("divides a keyword argument",
             lambda: network(_scaled_by_keyword, **_dense(first=nn.Linear(FEATURES, 8))),
             _with_scale),
    Stranger("shifts its tokens by one",
             lambda: network(_shifted_tokens, **_dense(table=nn.Embedding(12, 8))), _tokens),
    Stranger("fills the masked features",
             lambda: network(_masked, **_dense(first=nn.Linear(FEATURES, 8))), _with_mask),
    Stranger("pops an entry of its input",
             lambda: network(_pops, **_dense(first=nn.Linear(FEATURES, 8))), _with_scale,
             _as_one_dict),
    Stranger("puts its result into its input",
             lambda: network(_puts_back, **_dense(first=nn.Linear(FEATURES, 8))), _with_scale,
             _as_one_dict),
    Stranger("reverses the list of its inputs",
             lambda: network(_reverses, **_dense(first=nn.Linear(FEATURES, 8))), rows(), _as_list,
             expected={"predict regrouped": "exact or refused"}),
    Stranger("normalises its weights at every call", lambda: network(
        _normalises_its_weights, **_dense(first=nn.Linear(FEATURES, 8)))),
    Stranger("halves its weights at every call", lambda: network(
        _halves_its_weights, **_dense(first=nn.Linear(FEATURES, 8))),
             expected={"all": "exact or refused or warned"}, words="head|call|weights"),
    Stranger("adds an axis to its input by unsqueeze_",
             lambda: network(_of_another_shape, **_dense(conv=nn.Conv1d(1, 8, 3)))),
    Stranger("turns its input by transpose_",
             lambda: network(_turned, **_dense(conv=nn.Conv1d(4, 8, 3))), rows(5, 4)),
)  # fmt: skip
