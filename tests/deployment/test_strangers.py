"""Exports of unusual networks: the file answers as `predict` does, or is refused with the cause."""

import logging

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

import mcbn
from mcbn.deployment.lookups import GuardedLookups
from mcbn.deployment.modules import MCBatchNormModule

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    """A body that the networks below use in ways of their own."""

    def __init__(self):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def features(self, x):
        return self.norm(self.body(x))

    def forward(self, x):
        return self.head(self.features(x).relu())


class Points(Net):
    def forward(self, x):
        n, length, channels = x.shape
        points = self.features(x.reshape(n * length, channels)).relu()
        return self.head(points.view(n, length, -1).mean(1))


class Tokens(Points):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 4)

    def forward(self, ids):
        return super().forward(self.table(ids))


class Nodes(Points):
    """A graph of 5 nodes, with the edges as an input."""

    def forward(self, x, edges):
        return super().forward(edges @ x)


class AcrossExamples(Net):
    def forward(self, x):
        features = self.features(x)
        return self.head((features @ features.T).softmax(1) @ features)


class BothSides(Net):
    def forward(self, x):
        return self.head(self.features(torch.cat([x, -x])).relu()).view(2, -1, 3).mean(0)


class InPlace(Net):
    def forward(self, x):
        x.sub_(0.5).div_(2.0)
        return super().forward(x)


class Probabilities(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)


class FarFromZero(Net):
    def forward(self, x):
        return 1e6 + super().forward(x)


def ids(n):
    return torch.randint(11, (n, 7))


def reals(*shape):
    return lambda n: torch.randn(n, *shape)


REAL = mcbn.Gaussian(1.0)
STRANGERS = {
    "points": (Points, reals(6, 4), "categorical"),
    "points, real": (Points, reals(6, 4), REAL),
    "tokens": (Tokens, ids, "categorical"),
    "nodes": (Nodes, lambda n: (torch.randn(n, 5, 4), torch.rand(n, 5, 5)), "categorical"),
    "across examples": (AcrossExamples, reals(4), "categorical"),
    "both sides": (BothSides, reals(4), "categorical"),
    "in place": (InPlace, reals(4), "categorical"),
    "probabilities": (Probabilities, reals(4), "categorical"),
    "far from zero": (FarFromZero, reals(4), REAL),
}


def made(kind, data, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, batches = kind().eval(), [(data(16), 0) for _ in range(6)]
        bank = mcbn.collect(model, batches, progress=False)
        return mcbn.MCBatchNorm(model, bank, **options), data(4), [data(n) for n in (1, 9)]


def parts(inputs):
    return inputs if isinstance(inputs, tuple) else (inputs,)


def answers(path, inputs):
    """What a file answers, by a runtime of its own."""
    if path.suffix == ".pt2":
        with torch.no_grad():
            return torch.export.load(path).module()(inputs)
    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    given = {name: x.numpy() for name, x in zip(names, parts(inputs), strict=True)}
    outputs = [each.name for each in session.get_outputs()]
    return dict(zip(outputs, map(torch.from_numpy, session.run(outputs, given)), strict=True))


def require_file_of(sampler, path, others, likelihood):
    family = mcbn.Categorical() if likelihood == "categorical" else likelihood
    for inputs in others:
        expected = family.summarize(sampler.passes(inputs))
        for name, values in answers(path, inputs).items():
            wanted = getattr(expected, name)
            scale = float(wanted.abs().max())
            assert scale > 0
            torch.testing.assert_close(values.double(), wanted, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("name", STRANGERS)
def test_the_program_answers_as_predict(name, tmp_path):
    kind, data, likelihood = STRANGERS[name]
    sampler, example, others = made(kind, data)
    before = [each.clone() for each in parts(example)]
    path = mcbn.export(sampler, example, tmp_path / "net.pt2", likelihood=likelihood).path
    assert all(map(torch.equal, parts(example), before))
    require_file_of(sampler, path, others, likelihood)


@pytest.mark.parametrize("name", ["points, real", "tokens", "in place"])
def test_the_onnx_file_answers_as_predict(name, tmp_path):
    kind, data, likelihood = STRANGERS[name]
    sampler, example, others = made(kind, data)
    path = mcbn.export(sampler, example, tmp_path / "net.onnx", likelihood=likelihood).path
    require_file_of(sampler, path, others, likelihood)


def test_points_are_no_rows_of_a_batch_of_draws():
    """What the checks are for: this form has other draws, whose mean is nearly right."""
    sampler, example, _ = made(Points, reals(6, 4))
    expected = torch.stack(list(sampler.passes(example)))
    for way, right in (("batched", True), ("unrolled", True), ("rows", False)):
        module = MCBatchNormModule(sampler.model, sampler.bank.statistics, output=None, way=way)
        try:
            with torch.no_grad():
                actual = module(example).transpose(0, 1)
        except RuntimeError:
            assert not right
            continue
        same = actual.shape == expected.shape and float((actual - expected).abs().max()) < 1e-5
        assert same == right


def test_negative_ids_are_refused_by_the_file_as_by_predict(tmp_path):
    sampler, example, _ = made(Tokens, ids)
    path = mcbn.export(sampler, example, tmp_path / "net.onnx").path
    for wrong in (-1, 11):
        with pytest.raises(Exception, match="out of data bounds"):
            answers(path, torch.full((1, 7), wrong))


@pytest.mark.parametrize(
    "lookup",
    [
        lambda i: functional.embedding(i, torch.eye(5)),
        lambda i: torch.eye(5).index_select(0, i),
        lambda i: torch.eye(5).gather(dim=0, index=i[:, None]),
        lambda i: torch.zeros(5).scatter(0, i, 1.0),
        lambda i: torch.zeros(5).index_add_(0, i, torch.ones(2)),
        lambda i: functional.one_hot(i, 5),
    ],
)
def test_lookups_refuse_what_pytorch_refuses(lookup):
    known, negative, beyond = torch.tensor([[0, 4], [0, -1], [0, 5]])
    expected = lookup(known)
    with GuardedLookups():
        assert lookup(known).equal(expected)
        for positions in (negative, beyond):
            with pytest.raises((IndexError, RuntimeError)):
                lookup(positions)


class Halving(Net):
    def forward(self, x):
        return super().forward(x) * (1 if len(x) % 2 else -1)


class OneForAll(Net):
    def forward(self, x):
        return super().forward(x).mean(0, keepdim=True)


class Counting(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


class Two(Net):
    def forward(self, entropy, right):
        return super().forward(entropy + right)


class Own:
    """A likelihood of the user's own, with what a file of classes has."""

    def summarize(self, passes, *, keep_draws=False):
        return mcbn.Categorical().summarize(passes)

    def join(self, parts):
        return mcbn.Categorical().join(parts)


def pair(n):
    return torch.randn(n, 4), torch.randn(n, 4)


REFUSED = {
    "by the number": (Halving, reals(4), {}, r"fix the number of examples, such as len\(x\)"),
    "one output": (OneForAll, reals(4), {}, "one output per example"),
    "a state": (Counting, reals(4), {}, "draws at random or remembers its calls"),
    "names": (Two, pair, {}, "other names than the outputs .*'entropy'"),
    "likelihood": (Net, reals(4), {"likelihood": Own()}, "got Own, whose predictive"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_cause(name, tmp_path):
    kind, data, options, words = REFUSED[name]
    sampler, example, _ = made(Net if kind is not Two else Two, data)
    if kind not in (Net, Two):
        with torch.random.fork_rng():
            sampler = mcbn.MCBatchNorm(kind().eval(), mcbn.Bank(sampler.bank.statistics, {}, 16))
    with pytest.raises(ValueError, match=words):
        mcbn.export(sampler, example, tmp_path / "net.onnx", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "example", [torch.zeros(4), torch.zeros(4, 5), {"other": torch.zeros(4, 4)}]
)
def test_inputs_that_the_network_does_not_take(example, tmp_path):
    sampler, _, _ = made(Net, reals(4))
    with pytest.raises(ValueError, match=r"inputs that the network takes, .* for \d; give what"):
        mcbn.export(sampler, example, tmp_path / "net.pt2")


def test_half_precision_that_numpy_lacks_is_refused_for_onnx(tmp_path):
    sampler, example, _ = made(lambda: Net().bfloat16(), lambda n: torch.randn(n, 4).bfloat16())
    with pytest.raises(ValueError, match=r"got torch.bfloat16 for 'inputs'; write a .pt2"):
        mcbn.export(sampler, example, tmp_path / "net.onnx")
    mcbn.export(sampler, example, tmp_path / "net.pt2")


def test_a_form_that_was_dropped_leaves_no_words(tmp_path, capfd):
    sampler, example, _ = made(Points, reals(6, 4))
    level = logging.getLogger("torch").disabled
    mcbn.export(sampler, example, tmp_path / "net.pt2")
    assert logging.getLogger("torch").disabled == level
    assert capfd.readouterr() == ("", "")
