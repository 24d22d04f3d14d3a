"""Networks of examples of different sizes: graphs, bags, point clouds, packed sequences."""

import torch
from torch import nn
from torch.nn.utils import rnn
from zoo.stranger import CLASSES, Stranger, network, stacked

CHANNELS = 4


def _sizes(examples):
    return torch.tensor([len(each) for each in examples])


def cloud(generator):
    """A few rows of features: a graph's nodes, a bag's instances, the points of a cloud."""
    count = int(torch.randint(2, 7, (), generator=generator))
    return torch.randn(count, CHANNELS, generator=generator) + 0.5


def with_owner(examples):
    """All rows in one table, and the number of the example that each belongs to."""
    owner = torch.repeat_interleave(torch.arange(len(examples)), _sizes(examples))
    return torch.cat(examples), owner


def with_edges(examples):
    """A graph of graphs: each a ring."""
    x, owner = with_owner(examples)
    starts = _sizes(examples).cumsum(0) - _sizes(examples)
    ring = [torch.stack([torch.arange(len(e)), (torch.arange(len(e)) + 1) % len(e)]) + start
            for e, start in zip(examples, starts, strict=True)]  # fmt: skip
    return x, torch.cat(ring, 1), owner


def with_offsets(examples):
    sizes = _sizes(examples)
    return torch.cat(examples), sizes.cumsum(0) - sizes


def with_sizes(examples):
    return torch.cat(examples), _sizes(examples)


def as_list(examples):
    return (tuple(examples),)


def packed(examples):
    return rnn.pack_sequence(examples, enforce_sorted=False)


def padded(examples):
    return rnn.pad_sequence(examples, batch_first=True), _sizes(examples)


def sizes_first(examples):
    return _sizes(examples), rnn.pad_sequence(examples, batch_first=True)


def as_named(examples):
    x, edges, owner = with_edges(examples)
    return {"x": x, "edges": edges, "owner": owner}


def tokens(generator):
    count = int(torch.randint(2, 7, (), generator=generator))
    return torch.randint(0, 10, (count,), generator=generator)


def _mean_by(owner, h, count):
    total = h.new_zeros(count, h.shape[1]).index_add(0, owner, h)
    return total / torch.bincount(owner, minlength=count)[:, None]


def _pool(net, x, owner):
    h = net.norm(net.first(x)).relu()
    return net.head(_mean_by(owner, h, int(owner.max()) + 1))


def _scatter(net, x, owner):
    h = net.norm(net.first(x)).relu()
    out = h.new_zeros(int(owner[-1]) + 1, 8)
    return net.head(out.scatter_reduce(0, owner[:, None].expand_as(h), h, "amax"))


def _graph(net, x, edges, owner):
    h = net.first(x)
    h = h.index_add(0, edges[1], h[edges[0]])
    return net.head(_mean_by(owner, net.norm(h).relu(), int(owner.max()) + 1))


def _nodes_then_graphs(net, x, edges, owner):
    h = _mean_by(
        owner, net.first(x).index_add(0, edges[1], net.first(x)[edges[0]]), int(owner.max()) + 1
    )
    return net.head(net.norm(h).relu())


def _every_node(net, x, edges, owner):
    h = net.first(x)
    return net.head(net.norm(h.index_add(0, edges[1], h[edges[0]])).relu())


def _bags(net, x, sizes):
    h = net.norm(net.first(x)).relu()
    return torch.stack([net.head((net.gate(part).softmax(0) * part).sum(0))
                        for part in h.split(sizes.tolist())])  # fmt: skip


def _offsets(net, words, offsets):
    return net.head(net.norm(net.table(words, offsets)).relu())


def _list(net, clouds):
    h = net.norm(net.first(torch.cat(list(clouds)))).relu()
    parts = h.split([len(each) for each in clouds])
    return net.head(torch.stack([part.amax(0) for part in parts]))


def _packed(net, sequences):
    h = net.norm(net.first(sequences.data)).relu()
    _, last = net.rnn(rnn.PackedSequence(h, *sequences[1:]))
    return net.head(last[0])


def _packed_and_scaled(net, sequences, scale):
    return _packed(net, sequences) * scale


def _lengths(net, x, lengths):
    h, _ = net.rnn(rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    h = rnn.PackedSequence(net.norm(h.data), *h[1:])
    h, lengths = rnn.pad_packed_sequence(h, batch_first=True)
    return net.head(h.sum(1) / lengths[:, None])


def _lengths_first(net, lengths, x):
    mask = torch.arange(x.shape[1]) < lengths[:, None]
    h = net.norm(net.first(x[mask])).relu()
    owner = mask.nonzero()[:, 0]
    return net.head(_mean_by(owner, h, len(x)))


def _pairs(net, left, right):
    h = net.norm(net.first(torch.cat([left, right])))
    first, second = h.relu().chunk(2)
    return net.head((first - second).abs())


def _node(generator):
    return torch.randn(CHANNELS, generator=generator) + 0.5


def _pair(generator):
    return tuple(torch.randn(CHANNELS, generator=generator) + 0.5 for _ in range(2))


def _neighbours_matrix(examples):
    """One graph of all examples: each is a node, with the two next to it."""
    count = len(examples)
    ring = torch.eye(count) + torch.eye(count).roll(1, 0) + torch.eye(count).roll(-1, 0)
    return torch.stack(examples), ring / 3


def _sparse_matrix(examples):
    x, matrix = _neighbours_matrix(examples)
    return x, matrix.to_sparse()


def _convolved(net, x, matrix):
    return net.head(matrix @ net.norm(matrix @ net.first(x)).relu())


def _siamese(net, left, right):
    return net.head((net.body(left) - net.body(right)).abs())


def _parts(**more):
    return {"first": nn.Linear(CHANNELS, 8), "norm": nn.BatchNorm1d(8),
            "head": nn.Linear(8, CLASSES), **more}  # fmt: skip


WHOLE = {"whole": True, "expected": {"predict regrouped": "refused or exact"}}
STRANGERS = (
    Stranger("pools nodes by index_add", lambda: network(_pool, **_parts()), cloud, with_owner,
             **WHOLE),
    Stranger("pools points by scatter_reduce", lambda: network(_scatter, **_parts()), cloud,
             with_owner, **WHOLE),
    Stranger("a graph convolution", lambda: network(_graph, **_parts()), cloud, with_edges,
             **WHOLE),
    Stranger("a graph as keyword arguments", lambda: network(_graph, **_parts()), cloud, as_named,
             **WHOLE),
    Stranger("batch norm after pooling a graph", lambda: network(_nodes_then_graphs, **_parts()),
             cloud, with_edges, **WHOLE),
    Stranger("bags with attention", lambda: network(_bags, **_parts(gate=nn.Linear(8, 1))), cloud,
             with_sizes, **WHOLE),
    Stranger("an embedding bag with offsets",
             lambda: network(_offsets, table=nn.EmbeddingBag(10, 8), norm=nn.BatchNorm1d(8),
                             head=nn.Linear(8, CLASSES)), tokens, with_offsets, **WHOLE),
    Stranger("a list of clouds", lambda: network(_list, **_parts()), cloud, as_list, **WHOLE),
    Stranger("a packed sequence",
             lambda: network(_packed, **_parts(rnn=nn.GRU(8, 8))), cloud, packed, **WHOLE),
    Stranger("a packed sequence among the arguments",
             lambda: network(_packed_and_scaled, **_parts(rnn=nn.GRU(8, 8))), cloud,
             lambda examples: (packed(examples), torch.ones(len(examples), 1)), **WHOLE),
    Stranger("padded sequences and their lengths",
             lambda: network(_lengths, rnn=nn.GRU(CHANNELS, 8, batch_first=True),
                             norm=nn.BatchNorm1d(8), head=nn.Linear(8, CLASSES)),
             cloud, padded, whole=True),
    Stranger("lengths before the padded sequences", lambda: network(_lengths_first, **_parts()),
             cloud, sizes_first, whole=True),
    Stranger("an answer for every node", lambda: network(_every_node, **_parts()), cloud,
             with_edges, whole=True,
             expected={"all": "refused or exact", "collect": "exact"},
             words="rows|outputs|examples"),
    Stranger("one graph whose nodes are the examples", lambda: network(_convolved, **_parts()),
             _node, _neighbours_matrix, **WHOLE),
    Stranger("one graph with a sparse matrix", lambda: network(_convolved, **_parts()),
             _node, _sparse_matrix, whole=True, expected={"all": "exact or refused"}),
    Stranger("a layer called for each of two inputs", lambda: network(
        _siamese, body=nn.Sequential(nn.Linear(CHANNELS, 8), nn.BatchNorm1d(8), nn.ReLU()),
        head=nn.Linear(8, CLASSES)), _pair, stacked,
        expected={"collect": "refused", "all": "exact or refused"}, words="body"),
    Stranger("two inputs through one layer", lambda: network(_pairs, **_parts()), _pair, stacked),
)  # fmt: skip
