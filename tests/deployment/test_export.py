"""One file that holds a network and its draws: the outputs of `predict`, without mcbn."""

import json
import subprocess
import sys

import onnxruntime
import pytest
import torch
from models import CASES, examples, make_network, randomized, without_seed
from onnx import load_model_from_string
from torch import nn
from torch.nn import functional

import mcbn
from mcbn.deployment import onnx as onnx_files
from mcbn.deployment.modules import (
    EnsembleModule,
    MCBatchNormModule,
    categorical_summary,
    gaussian_summary,
)

DRAWS = 8
BATCHES = (1, 2, 7, 33)
CLASSES = ("probabilities", "entropy", "mutual_information")
REALS = ("mean", "variance", "epistemic_variance")
pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


def banked(model, data, **options):
    batches = mcbn.minibatches(data, batch_size=8, draws=DRAWS, seed=0)
    return mcbn.MCBatchNorm(model, mcbn.collect(model, batches), **options)


def network(build):
    return randomized(without_seed(build)).eval()


class Convolutional(nn.Module):
    """Branches, dropout, batch norm before and after: what exporters trip over."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.one, self.two = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.one(self.first(x)).relu_()
        x = functional.dropout(x + self.two(self.second(x)), 0.5, self.training)
        return self.head(x.amax((2, 3)))


@pytest.fixture(scope="module")
def convolutional():
    data = 2.0 * torch.randn(64, 2, 7, 7, generator=torch.Generator().manual_seed(1)) + 0.5
    return banked(network(Convolutional), data), data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def program(convolutional, folder):
    sampler, data = convolutional
    return mcbn.export(sampler, data[:1], folder / "net.pt2")


@pytest.fixture(scope="module")
def onnx(convolutional, folder):
    sampler, data = convolutional
    return mcbn.export(sampler, data[:5], folder / "net.onnx")


def run_program(path, inputs):
    with torch.no_grad():
        return torch.export.load(path).module()(inputs)


def run_onnx(path, inputs):
    return onnx_files.onnx_outputs(path.read_bytes(), [{"inputs": inputs}])[0]


def require_same(actual, predictive, names, limit=2e-6):
    assert list(actual) == list(names)
    for name in names:
        expected = getattr(predictive, name)
        torch.testing.assert_close(actual[name].double(), expected, rtol=1e-6, atol=limit)


@pytest.mark.parametrize("way", ["rows", "batched", "unrolled"])
@pytest.mark.parametrize("name", CASES)
def test_draws_in_one_module_are_the_draws_of_the_loop(name, way):
    model, data = make_network(name), examples(name, 40)
    sampler = banked(model, data)
    drawn = MCBatchNormModule(model, sampler.bank.statistics, output=None, way=way)
    with torch.no_grad():
        actual = drawn(data[:7]).transpose(0, 1)
    expected = mcbn.MCBatchNorm(model, sampler.bank, engine="loop")(data[:7])
    # Rounding of float64 in another order of summation.
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("chunk", [1, 3, 8, 50])
def test_chunks_of_draws_change_nothing(convolutional, chunk):
    sampler, data = convolutional
    statistics = sampler.bank.statistics
    whole = MCBatchNormModule(sampler.model, statistics, output=None)
    parts = MCBatchNormModule(sampler.model, statistics, output=None, chunk=chunk)
    with torch.no_grad():
        torch.testing.assert_close(parts(data[:3]), whole(data[:3]), rtol=1e-5, atol=1e-5)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return x


def test_layers_before_the_first_draw_run_once():
    before, between = Counting(), Counting()
    model = network(
        lambda: nn.Sequential(before, nn.BatchNorm1d(4), between, nn.BatchNorm1d(4), Counting())
    )
    sampler = banked(model, torch.randn(40, 4, generator=torch.Generator().manual_seed(0)))
    rows = {k: v for k, v in sampler.bank.statistics.items() if k.startswith("3.")}
    for layer in (before, between, model[4]):
        layer.seen.clear()
    with torch.no_grad():
        MCBatchNormModule(model, rows, output=None)(torch.zeros(5, 4))
    assert [layer.seen for layer in (before, between, model[4])] == [[5], [5], [5 * DRAWS]]


@pytest.mark.parametrize("batch", BATCHES)
def test_the_program_gives_the_outputs_of_predict(program, convolutional, batch):
    sampler, data = convolutional
    actual = run_program(program.path, data[:batch])
    require_same(actual, mcbn.predict(sampler, data[:batch]), CLASSES)


@pytest.mark.parametrize("batch", BATCHES)
def test_the_onnx_file_gives_the_outputs_of_predict(onnx, convolutional, batch):
    sampler, data = convolutional
    actual = run_onnx(onnx.path, data[:batch])
    require_same(actual, mcbn.predict(sampler, data[:batch]), CLASSES)


def test_mutual_information_is_large_enough_to_compare(convolutional):
    """A file that gave zeros would pass at a tolerance of 2e-6 if these were as small."""
    sampler, data = convolutional
    assert float(mcbn.predict(sampler, data).mutual_information.min()) > 1e-4


FRESH = """
import json, sys, torch
files = {"mcbn.json": ""}
program = torch.export.load(sys.argv[1], extra_files=files).module()
with torch.inference_mode():
    actual = program(torch.load(sys.argv[2], weights_only=True))
assert "mcbn" not in sys.modules
print(json.dumps([json.loads(files["mcbn.json"]), {k: v.tolist() for k, v in actual.items()}]))
"""


def test_the_program_runs_in_a_process_without_mcbn(program, convolutional, tmp_path):
    sampler, data = convolutional
    torch.save(data[:4], tmp_path / "data.pt")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(program.path), str(tmp_path / "data.pt")],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    header, actual = json.loads(done.stdout)
    assert (header["draws"], header["batch_size"]) == (DRAWS, 8)
    actual = {name: torch.tensor(values) for name, values in actual.items()}
    require_same(actual, mcbn.predict(sampler, data[:4]), CLASSES)


def test_weights_are_there_once_and_draws_add_no_more_than_the_bank(
    convolutional, program, onnx, tmp_path
):
    sampler, data = convolutional
    statistics = sum(rows.nbytes for rows in sampler.bank.statistics.values())
    tensors = [*sampler.model.parameters(), *sampler.model.buffers()]
    assert program.bank == onnx.bank == statistics
    assert program.weights == onnx.weights == sum(tensor.nbytes for tensor in tensors)
    # The steps of the network; measured at 3,400 bytes.
    assert onnx.size < onnx.weights + onnx.bank + 6_000
    few = mcbn.MCBatchNorm(sampler.model, sampler.bank.first(2))
    smaller = mcbn.export(few, data[:1], tmp_path / "few.pt2")
    # Numbers of more digits in the text of the graph.
    assert program.size - smaller.size <= program.bank - smaller.bank + 500


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_a_file_is_reproducible_and_tells_nothing_of_its_maker(
    convolutional, program, onnx, tmp_path, suffix
):
    sampler, data = convolutional
    first = {"pt2": program, "onnx": onnx}[suffix].path.read_bytes()
    again = mcbn.export(sampler, data[:2], tmp_path / f"other.{suffix}").path.read_bytes()
    assert again == first
    for telling in (b"test_export", b"Convolutional/", b'File "', data[0].numpy().tobytes()):
        assert telling not in first


def test_the_network_is_left_unchanged(convolutional, tmp_path):
    sampler, data = convolutional
    model = sampler.model.train()

    def state():
        return [
            (module.training, sorted(vars(module)), len(module._forward_hooks),
             [(name, id(value), value._version, value.requires_grad)
              for name, value in (*module._parameters.items(), *module._buffers.items())])
            for module in model.modules()
        ]  # fmt: skip

    before = state()
    mcbn.export(sampler, data[:2], tmp_path / "net.pt2")
    assert state() == before
    model.eval()


@pytest.mark.parametrize(
    ("likelihood", "outputs"),
    [(mcbn.Gaussian(4.0), 1), (mcbn.Gaussian(), 4), (mcbn.Gaussian((4.0, 25.0)), 2)],
)
def test_regression_gives_the_outputs_of_predict(likelihood, outputs, tmp_path):
    model = network(
        lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, outputs))
    )
    data = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    sampler = banked(model, data)
    artifact = mcbn.export(sampler, data[:1], tmp_path / "net.pt2", likelihood=likelihood)
    predictive = mcbn.predict(sampler, data[:7], likelihood)
    assert float(predictive.epistemic_variance.min()) > 1e-4
    require_same(run_program(artifact.path, data[:7]), predictive, REALS)


def test_regression_in_onnx(tmp_path):
    model = network(lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)))
    data = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    sampler, likelihood = banked(model, data), mcbn.Gaussian(precision=4.0)
    artifact = mcbn.export(sampler, data[:1], tmp_path / "net.onnx", likelihood=likelihood)
    actual = run_onnx(artifact.path, data[:7])
    require_same(actual, mcbn.predict(sampler, data[:7], likelihood), REALS)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e38])
def test_extreme_logits_in_float32(scale):
    """At 1e38 they are finite, but further apart than a float32 is long."""
    logits = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0)).clamp(-3, 3) * scale
    actual = categorical_summary(False, logits)
    expected = mcbn.Categorical().summarize(list(logits.transpose(0, 1)))
    require_same(actual, expected, CLASSES)


def test_variances_far_from_zero():
    means = 1e4 + torch.randn(5, 9, 2, generator=torch.Generator().manual_seed(0))
    actual = gaussian_summary(2.0, means)
    expected = mcbn.Gaussian(precision=2.0).summarize(list(means.transpose(0, 1)))
    # The mean in float32 is off by 1e-3, half a unit in the last place; its square is not seen.
    for name in REALS[1:]:
        torch.testing.assert_close(
            actual[name].double(), getattr(expected, name), rtol=0, atol=2e-6
        )


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, left, right):
        return {"logits": self.head(self.norm(left) * right)}


@pytest.mark.parametrize("kind", [tuple, dict])
def test_several_inputs_and_an_output_to_pick(kind, tmp_path):
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 40, 4, generator=generator)
    model = network(TwoInputs)
    both = (left, right) if kind is tuple else {"right": right, "left": left}
    bank = mcbn.collect(model, [(both, 0)] * 4)
    sampler = mcbn.MCBatchNorm(model, bank, output=lambda answer: answer["logits"])
    artifact = mcbn.export(sampler, both, tmp_path / "net.pt2")
    assert artifact.inputs == (("left", "right") if kind is tuple else ("right", "left"))
    actual = run_program(artifact.path, both)
    torch.testing.assert_close(
        actual["probabilities"].double(),
        mcbn.Categorical().summarize(sampler.passes(both)).probabilities,
        rtol=0, atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, 3])
def test_networks_with_running_statistics(count, tmp_path):
    models = [make_network("1d of 2-D", torch.float32) for _ in range(count)]
    for seed, model in enumerate(models):
        randomized(model, seed)
    data = examples("1d of 2-D", 7, torch.float32)
    sampler = mcbn.Deterministic(models[0]) if count == 1 else mcbn.DeepEnsemble(models)
    artifact = mcbn.export(sampler, data[:1], tmp_path / "net.pt2")
    assert (artifact.draws, artifact.bank) == (count, 0)
    require_same(run_program(artifact.path, data), mcbn.predict(sampler, data), CLASSES)
    with torch.no_grad():
        assert EnsembleModule(models, output=None)(data).shape == (7, count, 3)


class Remembering(nn.Module):
    """Takes the number of examples from before the first draw, and uses it after."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.norm(x).view(x.shape[0], -1))


class Overwriting(nn.Module):
    """Writes draws into a tensor that was the same for all of them."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x):
        rest = x * 2
        rest.add_(self.norm(x))
        return self.head(rest)


class OwnArithmetic(nn.BatchNorm1d):
    def forward(self, x):
        return (x - self.running_mean) / (self.running_var + self.eps).sqrt()


class Home(Remembering):
    """Batch norm that does not call PyTorch's."""

    def __init__(self):
        super().__init__()
        self.norm = OwnArithmetic(4)


@pytest.mark.parametrize("kind", [Remembering, Overwriting, Home])
def test_a_network_whose_draws_cannot_be_rows_of_its_batch_is_written_otherwise(kind, tmp_path):
    data = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    rows = banked(network(Remembering), data).bank.statistics
    sampler = mcbn.MCBatchNorm(network(kind), mcbn.Bank(rows, {}, 8))
    artifact = mcbn.export(sampler, data[:2], tmp_path / "net.pt2")
    require_same(run_program(artifact.path, data[:7]), mcbn.predict(sampler, data[:7]), CLASSES)


class Branching(Remembering):
    def forward(self, x):
        return self.head(self.norm(x)) if x.sum() > 0 else self.head(-self.norm(x))


class Noisy(Remembering):
    def forward(self, x):
        return self.head(functional.dropout(self.norm(x), 0.5, training=True))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Branching, "that torch.export can trace.*data-dependent.*steps that depend on values"),
        (Noisy, "answers are fixed in eval mode, got one that draws at random"),
    ],
)
def test_networks_that_cannot_be_exported(kind, reason, tmp_path):
    data = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    whole = banked(network(Remembering), data)
    model = network(kind)
    sampler = mcbn.MCBatchNorm(model, whole.bank.__class__(whole.bank.statistics, {}, 16))
    path = tmp_path / "net.pt2"
    path.write_bytes(b"what was there")
    with pytest.raises(ValueError, match=f"expected a network .*{reason}"):
        mcbn.export(sampler, data[:2], path)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"what was there"]


def test_an_output_that_is_not_a_tensor_is_named():
    left, right = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(0))
    model = network(TwoInputs)
    sampler = mcbn.MCBatchNorm(model, mcbn.collect(model, [((left, right), 0)] * 4))
    with pytest.raises(TypeError, match=r"keys \['logits'"):
        mcbn.export(sampler, (left, right), "net.pt2")


def dropout():
    return mcbn.MCDropout(make_network("1d of 2-D", torch.float32), draws=2)


def augmented():
    return mcbn.Augmented(make_network("1d of 2-D", torch.float32), mcbn.RandomFlip())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"path": "net.pth"}, "file .pt2 or .onnx, got 'net.pth'"),
        ({"sampler": dropout}, "got MCDropout"),
        ({"sampler": augmented}, "got Augmented"),
        ({"chunk": 0}, "chunk of at least 1"),
        ({"example": torch.zeros(0, 2, 7, 7)}, "at least one"),
        ({"example": {"x": 3}}, "tensor, a tuple or a dict"),
        ({"example": (torch.zeros(2, 2), torch.zeros(3, 2))}, "as many in each"),
        ({"example": torch.full((1, 2, 7, 7), torch.nan)}, "finite"),
        ({"example": (torch.zeros(1, 2, 7, 7), 3)}, "takes tensors alone"),
    ],
)
def test_mistakes_are_refused_before_any_work(convolutional, tmp_path, change, reason):
    sampler, data = convolutional
    change = {"sampler": lambda: sampler, "example": data[:1], "path": "net.pt2", **change}
    make_sampler, example, name = (change.pop(key) for key in ("sampler", "example", "path"))
    with pytest.raises(ValueError, match=reason):
        mcbn.export(make_sampler(), example, tmp_path / name, **change)
    assert not list(tmp_path.iterdir())


def test_a_file_too_large_for_onnx_is_refused(convolutional, tmp_path, monkeypatch):
    sampler, data = convolutional
    monkeypatch.setattr(onnx_files, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="less than 2 GB"):
        mcbn.export(sampler, data[:1], tmp_path / "net.onnx")


def test_a_file_with_other_outputs_is_not_written(convolutional, tmp_path, monkeypatch):
    sampler, data = convolutional

    def wrong(content, batches):
        return [
            {"probabilities": torch.full((len(each["inputs"]), 3), 1 / 3),
             "entropy": torch.zeros(len(each["inputs"])),
             "mutual_information": torch.zeros(len(each["inputs"]))}
            for each in batches
        ]  # fmt: skip

    monkeypatch.setattr("mcbn.deployment.export.onnx_outputs", wrong)
    monkeypatch.setattr("mcbn.deployment.export.onnx_bytes", lambda *_: b"not a network")
    with pytest.raises(ValueError, match="to equal those"):
        mcbn.export(sampler, data[:1], tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_the_onnx_file_says_what_it_holds(onnx):
    session = onnxruntime.InferenceSession(onnx.path)
    assert session.get_inputs()[0].shape == ["batch", 2, 7, 7]
    header = json.loads(session.get_modelmeta().custom_metadata_map["mcbn"])
    assert header["outputs"] == list(CLASSES)
    assert header["draws"] == DRAWS
    held = load_model_from_string(onnx.path.read_bytes()).graph.initializer
    # As the bank has them: worked out beforehand they would be filed beside the layer's repeats.
    rows = [tuple(each.dims) for each in held if each.name.startswith("network.bank_")]
    assert rows == [(DRAWS, 6)] * 4
    assert not [each.name for each in held if each.dims == [DRAWS * 6]]
