"""Networks of unusual structure: what is reached, shared, or only there in training."""

import torch
from torch import nn
from torch.nn import functional
from zoo.own_forward import Tokens
from zoo.stranger import CLASSES, FEATURES, Stranger, batch_norm_alone, dense, network, rows

IMAGE = rows(2, 6, 6)


def _plain(net, x):
    return net.head(net.norm(net.first(x)).relu())


def _parts(norm=None, **more):
    return {"first": nn.Linear(FEATURES, 8), "norm": norm or nn.BatchNorm1d(8),
            "head": nn.Linear(8, CLASSES), **more}  # fmt: skip


class KeptStill(nn.Module):
    """Keeps its batch norm in eval mode while it trains."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(FEATURES, 8), nn.BatchNorm1d(8)
        self.last, self.head = nn.BatchNorm1d(8), nn.Linear(8, CLASSES)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.head(self.last(self.norm(self.first(x)).relu()))


class Auxiliary(nn.Module):
    """A second head with batch norm of its own, in training alone."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8)), dense()
        self.head = nn.Linear(8, CLASSES)
        self.aside = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, CLASSES))

    def forward(self, x):
        h = self.body(x).relu()
        return (self.head(h), self.aside(h)) if self.training else self.head(h)


class Unregistered(nn.Module):
    """Layers in a plain list, which eval() does not reach."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(FEATURES, 8), nn.BatchNorm1d(8)
        self.others, self.head = [nn.BatchNorm1d(8)], nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.others[0](self.norm(self.first(x))).relu())


class OtherNames(nn.Module):
    """Batch norm written out, with buffers of other names."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("mu", torch.zeros(channels))
        self.register_buffer("sigma2", torch.ones(channels))

    def forward(self, x):
        mu, sigma2 = self.mu, self.sigma2
        if self.training:
            mu, sigma2 = x.mean(0), x.var(0, correction=0)
            self.mu.lerp_(mu.detach(), 0.1)
            self.sigma2.lerp_(sigma2.detach(), 0.1)
        return (x - mu) / (sigma2 + 1e-5).sqrt()


class Experts(nn.Module):
    """Each example goes to one of two experts, so a layer sees some of the batch."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU()) for _ in range(2)
        )
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        chosen = (x[:, 0] > 0.5).long()
        h = x.new_zeros(len(x), 8)
        for number, expert in enumerate(self.experts):
            mine = (chosen == number).nonzero()[:, 0]
            if len(mine) > 1 or not self.training:
                h = h.index_copy(0, mine, expert(x[mine]))
        return self.head(h)


class SeldomExpert(Experts):
    """The second expert is reached by few batches."""

    def forward(self, x):
        h = self.experts[0](x)
        far = (x[:, 0] > 2.0).nonzero()[:, 0]
        if len(far) > 1:
            h = h.index_copy(0, far, self.experts[1](x[far]))
        return self.head(h)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels),
        )  # fmt: skip
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 2, 1), nn.ReLU(),
                                     nn.Conv2d(2, channels, 1), nn.Sigmoid())  # fmt: skip

    def forward(self, x):
        h = self.body(x)
        return x + h * self.squeeze(h)


def _with_default(net, x, scale=None, *, training=False):
    h = net.norm(net.first(x))
    return net.head(h.relu() if scale is None else h * scale)


def _grows(net, x):
    """A dense block: every layer sees what all before it made."""
    made = [x]
    for layer in net.layers:
        made.append(layer(torch.cat(made, 1)))
    return net.head(torch.cat(made, 1))


def _by_row(net, x):
    h = net.norm(net.first(x))
    return torch.stack([net.head(row.relu() if row.sum() > 0 else row.tanh()) for row in h])


def _until_small(net, x):
    h = net.norm(net.first(x))
    while float(h.abs().max()) > 1.0:
        h = h / 2
    return net.head(h)


def _gradient(net, x):
    """A force: the derivative of an energy, taken inside the forward."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (force,) = torch.autograd.grad(net.first(x).sin().sum(), x)
    return net.head(net.norm(functional.pad(force, (0, 2))).relu())


def _per_example_gradient(net, x):
    h = net.norm(net.first(x))
    return net.head(torch.func.vmap(torch.func.grad(lambda row: row.sin().sum()))(h))


def _without_gradients(net, x):
    with torch.inference_mode():
        return net.head(net.norm(net.first(x)).relu())


def _called_inside(net, x):
    h = net.norm(net.first(x)).relu()
    weights = {"weight": net.head.weight * 2, "bias": net.head.bias}
    return torch.func.functional_call(net.head, weights, (h,))


def _gathered(net, x):
    h = net.norm(net.first(x)).relu()
    best = h.topk(3, 1).indices
    return net.head(h.scatter(1, best, 0.0))


def _unet(net, x):
    down = net.down(x)
    up = net.up(down)
    return net.head(torch.cat([up, x], 1)).mean((2, 3))


def _einsum(net, x):
    h = net.norm(net.first(x).flatten(0, 1)).view(len(x), x.shape[1], 8).relu()
    mixed = torch.einsum("nlc,nmc->nlm", h, h).softmax(-1)
    return net.head(torch.einsum("nlm,nmc->nc", mixed, h))


def _recurrent(net, x):
    h, _ = net.rnn(net.norm(x.mT).mT)
    return net.head(h[:, -1])


def _transformer(net, x):
    h = net.norm(net.first(x).mT).mT
    return net.head(net.encoder(h).mean(1))


def _transformer_of_batch_norm():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    layer.norm1, layer.norm2 = Tokens(8), Tokens(8)
    return network(lambda net, x: net.head(net.encoder(net.first(x)).mean(1)),
                   first=nn.Linear(FEATURES, 8), encoder=layer,
                   head=nn.Linear(8, CLASSES))  # fmt: skip


def _encoder():
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True), 1
    )


def _two_names():
    net = network(lambda net, x: net.again(net.norm(net.first(x))), **_parts())
    net.again = nn.Sequential(nn.ReLU(), net.head)
    net.alias = net.norm
    return net


def _named_attributes(net, *, pixels, weight):
    return _plain(net, pixels) * weight[:, None]


def _with_weight(generator):
    return {"pixels": rows()(generator), "weight": torch.rand((), generator=generator) + 0.5}


def _two_inputs(net, pair):
    left, right = pair
    return _plain(net, left + right)


def _nested(generator):
    return ((rows()(generator), rows()(generator)),)


def _with_constant(examples):
    return torch.stack(examples), 2.0


def _scaled(net, x, factor):
    return _plain(net, x) * factor


def _convolutions(*layers, head=None):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(CLASSES))


STRANGERS = (
    Stranger("a norm that training keeps in eval mode", KeptStill,
             expected={"collect": "warned or refused or exact", "all": "exact or refused"},
             words="'norm'"),
    Stranger("an auxiliary head in training", Auxiliary,
             output=lambda answer: answer[0] if isinstance(answer, tuple) else answer,
             expected={"collect": "warned or exact"}, words="aside"),
    Stranger("layers in a plain list, which eval() misses", Unregistered,
             expected={"all": "refused or warned"}, words="others|batch|neighbour|training"),
    Stranger("statistics by other names", lambda: nn.Sequential(OtherNames(FEATURES), *dense()),
             expected={"collect": "warned or refused", "all": "exact or warned or refused"},
             words="'0'|mu|train mode"),
    # A mini-batch that reaches both experts shows nothing of others that do not.
    Stranger("two experts", Experts, expected=dict.fromkeys(("all", "inspect", "doctor"),
                                                            "exact or refused"),
             words="experts|'1'|path|values"),
    Stranger("an expert that few batches reach", SeldomExpert,
             expected={"collect": "refused or warned", "all": "exact or refused or warned"}
             | dict.fromkeys(("inspect", "doctor"), "exact or warned"),
             words=r"experts\.1|same layers|never trained"),
    Stranger("a norm that is never used", lambda: network(_plain, **_parts(),
             spare=nn.BatchNorm1d(8)), expected={"collect": "warned or exact"}, words="spare"),
    Stranger("a norm under two names", _two_names),
    Stranger("a frozen norm, by requires_grad", lambda: dense(
        nn.BatchNorm1d(8).requires_grad_(False))),
    Stranger("batch norm alone", lambda: nn.BatchNorm1d(FEATURES), gaussian=True),
    Stranger("batch norm last", lambda: nn.Sequential(nn.Linear(FEATURES, CLASSES),
                                                      nn.BatchNorm1d(CLASSES, affine=False))),
    Stranger("batch norm first", lambda: nn.Sequential(nn.BatchNorm1d(FEATURES),
                                                       nn.Linear(FEATURES, CLASSES))),
    Stranger("arguments with defaults", lambda: network(_with_default, **_parts())),
    Stranger("keyword arguments alone", lambda: network(_named_attributes, **_parts()),
             _with_weight),
    Stranger("a pair as one argument", lambda: network(_two_inputs, **_parts()), _nested),
    Stranger("a number among the arguments", lambda: network(_scaled, **_parts()), rows(),
             _with_constant),
    Stranger("residual blocks with squeeze and excitation", lambda: _convolutions(
        nn.Conv2d(2, 4, 3, padding=1), Block(4), Block(4)), IMAGE),
    Stranger("a dense block", lambda: network(
        _grows, head=nn.Linear(FEATURES + 8, CLASSES),
        layers=nn.ModuleList(nn.Sequential(nn.BatchNorm1d(FEATURES + 4 * i), nn.ReLU(),
                                           nn.Linear(FEATURES + 4 * i, 4)) for i in range(2)))),
    Stranger("depthwise and pixel shuffle", lambda: _convolutions(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(),
        nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.PixelShuffle(2)), IMAGE),
    Stranger("a U-Net with a transposed convolution", lambda: network(
        _unet, down=nn.Sequential(nn.Conv2d(2, 4, 2, stride=2), nn.BatchNorm2d(4), nn.ReLU()),
        up=nn.Sequential(nn.ConvTranspose2d(4, 4, 2, stride=2), nn.BatchNorm2d(4)),
        head=nn.Conv2d(6, CLASSES, 1)), IMAGE),
    Stranger("a convolution in three dimensions", lambda: nn.Sequential(
        nn.Conv3d(1, 4, 2), nn.BatchNorm3d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(CLASSES)),
        rows(1, 3, 3, 3)),
    Stranger("a derivative inside the forward", lambda: network(_gradient, **_parts())),
    Stranger("a derivative of each example by vmap", lambda: network(
        _per_example_gradient, **_parts())),
    Stranger("inference mode inside the forward", lambda: network(_without_gradients, **_parts())),
    Stranger("functional_call inside the forward", lambda: network(_called_inside, **_parts())),
    Stranger("each row takes its own path", lambda: network(_by_row, **_parts()),
             expected={"predict regrouped": "exact or refused"}),
    Stranger("halves until the batch is small", lambda: network(_until_small, **_parts()),
             whole=True, expected={"predict regrouped": "exact or refused"}),
    Stranger("drops its largest values by topk", lambda: network(_gathered, **_parts())),
    Stranger("attention by einsum within an example", lambda: network(_einsum, **_parts()),
             rows(5, FEATURES)),
    Stranger("a GRU after batch norm", lambda: network(
        _recurrent, rnn=nn.GRU(FEATURES, 8, batch_first=True), norm=nn.BatchNorm1d(FEATURES),
        head=nn.Linear(8, CLASSES)), rows(5, FEATURES)),
    Stranger("a transformer after batch norm", lambda: network(
        _transformer, **_parts(encoder=_encoder())), rows(5, FEATURES), training=batch_norm_alone),
    Stranger("a transformer whose norms are batch norm", _transformer_of_batch_norm,
             rows(5, FEATURES), words="norm[12]|equal",
             expected={"collect": "warned or refused", "all": "exact or warned or refused"}),
)  # fmt: skip
