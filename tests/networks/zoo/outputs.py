"""Networks whose answer is no plain table of logits."""

from collections import OrderedDict, UserDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from zoo.stranger import CLASSES, COUNTED, FEATURES, Stranger, dense, network, rows


@dataclass
class Answer:
    logits: Tensor
    hidden: Tensor
    loss: Tensor | None = None


class Pair(NamedTuple):
    logits: Tensor
    hidden: Tensor


class Named(OrderedDict):
    """A dict whose entries are attributes too, as some libraries return."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Opaque:
    """A result class that keeps its tensors to itself."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


def _returning(make: Callable[[Tensor, Tensor, Tensor], Any], last: int = CLASSES) -> nn.Module:
    """A network that packs inputs, hidden values and logits into an answer."""

    def forward(net, x):
        h = net.norm(net.first(x)).relu()
        return make(x, h, net.head(h))

    return network(forward, first=nn.Linear(FEATURES, 8), norm=nn.BatchNorm1d(8),
                   head=nn.Linear(8, last))  # fmt: skip


def _boxes(_x: Tensor, h: Tensor, logits: Tensor) -> list[dict[str, Tensor]]:
    """Detections: as many per example as scores pass a threshold."""
    return [{"boxes": row[:4].expand(int((row > 0).sum()), 4), "scores": score}
            for row, score in zip(h, logits, strict=True)]  # fmt: skip


def _exits(net, x):
    h = net.norm(net.first(x)).relu()
    g = net.last(net.second(h)).relu()
    return [net.head(h), net.head(g)]


def _leaves_early(net, x):
    """Confident examples leave at the first head; the others go on."""
    h = net.norm(net.first(x)).relu()
    out = net.head(h)
    going = (out.softmax(1).amax(1) < 0.5).nonzero()[:, 0]
    if len(going) > 0:
        g = net.second(h[going]).relu()
        out = out.index_copy(0, going, net.head(g))
    return out


def _classes_only(_x: Tensor, _h: Tensor, logits: Tensor) -> Tensor:
    return logits.argmax(1)


def _segments(net, x):
    return net.head(net.norm(net.first(x)).relu())


def _own_probabilities(generator):
    return rows()(generator)


TOLD = {"expected": {"predict": "warned or refused", "compare": "warned or refused",
                     "inspect": "warned", "doctor": "warned"}}  # fmt: skip
UNMISTAKEN = r"softmax|probabilit|sigmoid|Bernoulli"
STRANGERS = (
    Stranger("ends in softmax", lambda: dense(None, nn.Softmax(1)), words=UNMISTAKEN, **TOLD),
    Stranger("ends in log-softmax", lambda: dense(None, nn.LogSoftmax(1))),
    Stranger("ends in softmax, in forward",
             lambda: _returning(lambda x, h, y: torch.softmax(y, -1)), words=UNMISTAKEN, **TOLD),
    Stranger("ends in softmax inside a dict", lambda: _returning(
        lambda x, h, y: {"probs": y.softmax(1)}), output=lambda a: a["probs"], words=UNMISTAKEN,
        expected={"predict": "warned or refused", "compare": "warned or refused",
                  "inspect": "warned", "doctor": "exact or warned"}),
    Stranger("ends in a clamped softmax", lambda: _returning(
        lambda x, h, y: y.softmax(1).clamp(1e-3, 1 - 1e-3)), words=UNMISTAKEN, **TOLD),
    Stranger("a map of probabilities", lambda: network(
        lambda net, x: _segments(net, x).softmax(1), first=nn.Conv2d(2, 4, 3, padding=1),
        norm=nn.BatchNorm2d(4), head=nn.Conv2d(4, CLASSES, 1)), rows(2, 5, 5), words=UNMISTAKEN,
        **TOLD),
    Stranger("p and 1 - p", lambda: _returning(
        lambda x, h, y: torch.cat([1 - y.sigmoid(), y.sigmoid()], 1), 1), words=UNMISTAKEN, **TOLD),
    Stranger("a map of sigmoid outputs", lambda: network(
        lambda net, x: _segments(net, x).sigmoid(), first=nn.Conv2d(2, 4, 3, padding=1),
        norm=nn.BatchNorm2d(4), head=nn.Conv2d(4, CLASSES, 1)), rows(2, 5, 5), words=UNMISTAKEN,
        **TOLD),
    Stranger("classes that are ruled out", lambda: _returning(
        lambda x, h, y: y.masked_fill(torch.tensor([False, False, True]), -torch.inf)),
        expected={"all": "exact or refused", "collect": "exact", "inspect": "exact or refused"},
        words="finite|infinite"),
    Stranger("ends in sigmoid", lambda: dense(None, nn.Sigmoid()), words=UNMISTAKEN, **TOLD),
    Stranger("ends in a scaled sigmoid", lambda: _returning(lambda x, h, y: 10 * y.sigmoid())),
    Stranger("one sigmoid output", lambda: _returning(lambda x, h, y: y.sigmoid(), 1),
             words=UNMISTAKEN + "|class", expected={"predict": "warned or refused",
             "compare": "warned or refused", "inspect": "warned", "doctor": "warned"}),
    Stranger("one logit", lambda: _returning(lambda x, h, y: y, 1), words="class|Bernoulli|outputs",
             expected={"predict": "refused", "compare": "refused"}),
    Stranger("one logit without its axis", lambda: _returning(lambda x, h, y: y[:, 0], 1),
             words="class|Bernoulli|outputs|axis|axes",
             expected={"predict": "refused", "compare": "refused"}),
    Stranger("ends in ReLU", lambda: dense(None, nn.ReLU())),
    Stranger("ends in normalised embeddings", lambda: _returning(
        lambda x, h, y: nn.functional.normalize(y)), gaussian=True),
    Stranger("a value per example", lambda: _returning(lambda x, h, y: y.squeeze(1), 1),
             gaussian=True),
    Stranger("a mean and a log-variance", lambda: _returning(
        lambda x, h, y: (y[:, :1], y[:, 1:].clamp(-3, 3)), 2), output=lambda a: a[0],
        gaussian=True),
    Stranger("a tuple", lambda: _returning(lambda x, h, y: (y, h)), output=lambda a: a[0]),
    Stranger("a tuple with None, numbers and text", lambda: _returning(
        lambda x, h, y: (None, y, 3, "text", 0.5)), output=lambda a: a[1]),
    Stranger("a dict", lambda: _returning(lambda x, h, y: {"logits": y, "hidden": [h, {"x": x}]}),
             output=lambda a: a["logits"]),
    Stranger("a dict without output=", lambda: _returning(lambda x, h, y: {"logits": y}),
             expected={"all": "refused", "collect": "exact", "inspect": "exact or refused",
                       "doctor": "exact or refused"}, words="logits"),
    Stranger("a dataclass", lambda: _returning(lambda x, h, y: Answer(y, h)),
             output=lambda a: a.logits),
    Stranger("a named tuple", lambda: _returning(lambda x, h, y: Pair(y, h)),
             output=lambda a: a.logits),
    Stranger("a dict with attributes", lambda: _returning(
        lambda x, h, y: Named(logits=y, hidden=h)), output=lambda a: a.logits),
    Stranger("a UserDict", lambda: _returning(lambda x, h, y: UserDict(logits=y)),
             output=lambda a: a["logits"]),
    Stranger("an object of a class of its own", lambda: _returning(lambda x, h, y: Opaque(y)),
             output=lambda a: a.logits),
    Stranger("a NumPy array", lambda: _returning(lambda x, h, y: y.detach().numpy()),
             output=torch.as_tensor),
    Stranger("its input beside the logits", lambda: _returning(lambda x, h, y: [x, x[:, :2], y]),
             output=lambda a: a[-1]),
    Stranger("a view of its input as the answer", lambda: _returning(
        lambda x, h, y: torch.cat([x.new_zeros(0, CLASSES), x[:, :CLASSES] + 0 * y])),
        expected={"all": "warned or exact"}, words="equal|differ"),
    Stranger("detections of varying number", lambda: _returning(_boxes),
             output=lambda a: torch.cat([each["boxes"] for each in a]),
             expected=COUNTED, words="rows|outputs|examples"),
    Stranger("detections, their scores", lambda: _returning(_boxes),
             output=lambda a: torch.stack([each["scores"] for each in a])),
    Stranger("a list of exits", lambda: network(
        _exits, first=nn.Linear(FEATURES, 8), norm=nn.BatchNorm1d(8), second=nn.Linear(8, 8),
        last=nn.BatchNorm1d(8), head=nn.Linear(8, CLASSES)), output=lambda a: a[-1]),
    Stranger("confident examples leave early", lambda: network(
        _leaves_early, first=nn.Linear(FEATURES, 8), norm=nn.BatchNorm1d(8),
        second=nn.Linear(8, 8), head=nn.Linear(8, CLASSES))),
    Stranger("class numbers", lambda: _returning(_classes_only),
             expected={"all": "refused or exact", "collect": "exact", "predict": "refused",
                       "compare": "refused"}, words="outputs|logits|classes|float"),
    Stranger("a map of classes", lambda: network(
        _segments, first=nn.Conv2d(2, 4, 3, padding=1), norm=nn.BatchNorm2d(4),
        head=nn.Conv2d(4, CLASSES, 1)), rows(2, 5, 5),
        expected={"compare": "exact or refused"}),
    Stranger("class scores in front of the examples", lambda: _returning(lambda x, h, y: y.T),
             expected=COUNTED, whole=True, words="rows|outputs|examples"),
    Stranger("complex answers", lambda: _returning(lambda x, h, y: torch.complex(y, y.sin())),
             expected={"predict": "refused", "compare": "refused", "all": "exact or refused",
                       "collect": "exact"}, words="expected.*complex"),
    Stranger("half-precision answers", lambda: _returning(lambda x, h, y: y.half()),
             tolerance=2e-3),
)  # fmt: skip
