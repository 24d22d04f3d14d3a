"""Networks whose answer for an example depends on the batch, or whose batches may not be cut."""

import torch
from torch import nn
from torch.nn import functional
from zoo.stranger import CLASSES, COUNTED, FEATURES, Stranger, dense, network, rows


class AlwaysBatch(nn.BatchNorm1d):
    """Normalises by the batch at hand in eval mode too, as few-shot learners do."""

    def forward(self, x):
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum,
            self.eps,
        )  # fmt: skip


class BatchUnlessStill(nn.BatchNorm1d):
    """Uses the running statistics only where a flag of its own says so."""

    still = False

    def forward(self, x):
        training = not self.still
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training,
            self.momentum, self.eps,
        )  # fmt: skip


class HalfOfTheBatch(nn.BatchNorm1d):
    """Normalises by a mixture of running statistics and those of the batch, in eval mode too."""

    def forward(self, x):
        if self.training:
            return super().forward(x)
        mean = 0.8 * self.running_mean + 0.2 * x.mean(0)
        var = 0.8 * self.running_var + 0.2 * x.var(0, correction=0)
        return functional.batch_norm(x, mean, var, self.weight, self.bias, False, 0.1, self.eps)


def _adapted_at_test_time():
    """As test-time adaptation sets layers up: their running statistics are taken away."""
    net = dense()
    net[1].track_running_stats = False
    net[1].running_mean = net[1].running_var = None
    return net


def _sets_training(net, x):
    net.norm.training = True
    return _plain(net, x)


def _with(forward, /, **parts):
    """A dense network with one batch norm, and a forward of its own."""
    return network(
        forward, first=nn.Linear(FEATURES, 8), norm=nn.BatchNorm1d(8), head=nn.Linear(8, CLASSES),
        **parts,
    )  # fmt: skip


def _plain(net, x):
    return net.head(net.norm(net.first(x)).relu())


def _turns_it_on(net, x):
    net.norm.train()
    return _plain(net, x)


def _turns_all_on(net, x):
    net.train()
    return _plain(net, x)


def _without_buffers(net, x):
    h = functional.batch_norm(net.first(x), None, None, training=True)
    return net.head(net.norm(h).relu())


def _centred(net, x):
    h = net.first(x)
    return net.head(net.norm(h - h.mean(0)).relu())


def _by_largest(net, x):
    return _plain(net, x / x.abs().max())


def _attends_across(net, x):
    h = net.norm(net.first(x)).relu()
    return net.head(h + (h @ h.mT / 8).softmax(1) @ h)


def _deviation_of_the_batch(net, x):
    h = net.norm(net.first(x)).relu()
    spread = h.std(0).mean().expand(len(h), 1)
    return net.head(torch.cat([h[:, :7], spread], 1))


def _divides_by_their_number(net, x):
    return _plain(net, x) / x.shape[0] ** 0.5


def _decides_for_all(net, x):
    h = net.norm(net.first(x))
    h = h.relu() if x.mean() > 0.5 else h.tanh()
    return net.head(h)


def _sorts(net, x):
    order = x[:, 0].argsort()
    return _plain(net, x[order])[order.argsort()]


def _returns_sorted(net, x):
    return _plain(net, x[x[:, 0].argsort()])


def _pads(net, x):
    missing = -len(x) % 8
    padded = torch.cat([x, x.new_zeros(missing, x.shape[1])])
    return _plain(net, padded)[: len(x)]


def _flips_and_averages(net, x):
    both = torch.cat([x, x.flip(-1)])
    first, second = _plain(net, both).chunk(2)
    return (first + second) / 2


def _crops_and_averages(net, x):
    crops = torch.stack([x, x + 0.1, x - 0.1], 1)
    return _plain(net, crops.flatten(0, 1)).view(len(x), 3, -1).mean(1)


def _one_for_all(net, x):
    return _plain(net, x).mean(0, keepdim=True)


def _without_the_last(net, x):
    return _plain(net, x)[:-1]


def _frames(net, x):
    length, count, _ = x.shape
    return net.head(net.norm(net.first(x).flatten(0, 1)).relu().view(length, count, -1).mean(0))


def _frames_of_images(net, x):
    length, count = x.shape[:2]
    h = net.norm(net.conv(x.reshape(-1, *x.shape[2:]))).relu().mean((2, 3))
    return net.head(h.view(length, count, -1).amax(0))


def _recurrent(net, x):
    h, _ = net.rnn(x)
    return net.head(net.norm(h[-1]))


def _channels_in_front(net, x):
    return net.head(net.norm(net.first(x.mT)).relu())


def _halves(net, x):
    if not net.training:
        return _plain(net, x)
    clean, hard = x.chunk(2)
    h = torch.cat([net.norm(net.first(clean)), net.aside(net.first(hard))])
    return net.head(h.relu())


def _remembers(net, x):
    net.memory = 0.5 * net.memory + 0.5 * net.first(x).mean(0)
    return net.head(net.norm(net.first(x) + net.memory).relu())


def _queues(net, x):
    h = net.norm(net.first(x)).relu()
    out = net.head(h + net.queue.mean(0))
    net.queue.copy_(torch.cat([net.queue, h.detach()])[-len(net.queue) :])
    return out


def _remembering():
    net = _with(_remembers)
    net.register_buffer("memory", torch.zeros(8))
    return net


def _queueing():
    net = _with(_queues)
    net.register_buffer("queue", torch.zeros(16, 8))
    return net


def _frames_first(examples):
    return torch.stack(examples, 1)


def _in_columns(examples):
    return torch.stack(examples, 1)


WHOLE = {"whole": True, "expected": {"predict regrouped": "refused or exact"}}
REFUSED_OR_TOLD = {"all": "refused", "ensemble": "refused or warned",
                   "deterministic": "refused or warned"}  # fmt: skip
STRANGERS = (
    Stranger("F.batch_norm(training=True) in a layer", lambda: dense(AlwaysBatch(8)),
             expected=REFUSED_OR_TOLD, words="'1'"),
    Stranger("batch statistics unless a flag is set", lambda: dense(BatchUnlessStill(8)),
             expected=REFUSED_OR_TOLD, words="'1'"),
    Stranger("norm.train() in forward", lambda: _with(_turns_it_on),
             expected=REFUSED_OR_TOLD, words="norm"),
    Stranger("self.train() in forward", lambda: _with(_turns_all_on),
             expected=REFUSED_OR_TOLD, words="norm|train"),
    Stranger("norm.training = True in forward", lambda: _with(_sets_training),
             expected=REFUSED_OR_TOLD, words="norm"),
    Stranger("a mixture of running and batch statistics", lambda: dense(HalfOfTheBatch(8)),
             expected={"all": "refused or warned"}, words="'1'|batch|neighbour"),
    Stranger("adapted at test time", _adapted_at_test_time, expected=REFUSED_OR_TOLD,
             words="track_running_stats|running statistics"),
    Stranger("F.batch_norm without buffers", lambda: _with(_without_buffers),
             expected={"all": "refused or warned"}, words="batch|neighbour"),
    Stranger("track_running_stats=False",
             lambda: dense(nn.BatchNorm1d(8, track_running_stats=False)),
             expected=REFUSED_OR_TOLD, words="track_running_stats|running statistics"),
    Stranger("track_running_stats=False beside a plain layer",
             lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(),
                                   nn.BatchNorm1d(8, track_running_stats=False),
                                   nn.Linear(8, CLASSES)),
             expected=REFUSED_OR_TOLD, words="track_running_stats|running statistics"),
    Stranger("centres by the batch", lambda: _with(_centred), **WHOLE),
    Stranger("divides by the largest of the batch", lambda: _with(_by_largest), **WHOLE),
    Stranger("attends across the batch", lambda: _with(_attends_across), **WHOLE),
    Stranger("deviation of the batch as a feature", lambda: _with(_deviation_of_the_batch),
             **WHOLE),
    Stranger("divides by the number of examples", lambda: _with(_divides_by_their_number), **WHOLE),
    Stranger("takes one path for the whole batch", lambda: _with(_decides_for_all), **WHOLE),
    Stranger("sorts and puts back", lambda: _with(_sorts)),
    Stranger("answers in sorted order", lambda: _with(_returns_sorted), **WHOLE),
    Stranger("pads the batch to a multiple of 8", lambda: _with(_pads)),
    Stranger("flips inside and averages", lambda: _with(_flips_and_averages)),
    Stranger("three crops inside and averages", lambda: _with(_crops_and_averages)),
    Stranger("one answer for the whole batch", lambda: _with(_one_for_all), whole=True,
             expected=COUNTED,
             words=r"rows|outputs|examples"),
    Stranger("leaves the last example out", lambda: _with(_without_the_last), whole=True,
             expected=COUNTED,
             words=r"rows|outputs|examples"),
    Stranger("frames first", lambda: _with(_frames), rows(9, FEATURES), _frames_first, **WHOLE),
    Stranger("frames of images first",
             lambda: network(_frames_of_images, conv=nn.Conv2d(2, 4, 3), norm=nn.BatchNorm2d(4),
                             head=nn.Linear(4, CLASSES)),
             rows(3, 2, 6, 6), _frames_first, **WHOLE),
    Stranger("a GRU of frames first, as many as examples",
             lambda: network(_recurrent, rnn=nn.GRU(FEATURES, 8), norm=nn.BatchNorm1d(8),
                             head=nn.Linear(8, CLASSES)),
             rows(8, FEATURES), _frames_first, **WHOLE),
    Stranger("examples in columns", lambda: _with(_channels_in_front), rows(FEATURES), _in_columns,
             **WHOLE),
    Stranger("a second norm for half of the batch in training",
             lambda: _with(_halves, aside=nn.BatchNorm1d(8)),
             expected={"all": "exact or warned", "collect": "warned or refused"},
             words="aside|train mode"),
    Stranger("carries a state from call to call", _remembering, whole=True,
             expected={"all": "exact or refused or warned"}, words="memory|call|others"),
    Stranger("a queue of earlier batches", _queueing,
             expected={"all": "exact or refused or warned"}, words="queue|call|others"),
)  # fmt: skip
