"""A bank as a value: its file, its rescaling, and the models it refuses."""

import hashlib
import json
import struct

import pytest
import torch
from models import examples, made, shaken, without_seed
from torch import nn
from torch.testing import assert_close

import mcbn

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
MEAN, VARIANCE = "1.running_mean", "1.running_var"


@pytest.fixture
def model():
    return made("1d of 2-D")


@pytest.fixture
def bank(model):
    data = examples("1d of 2-D", 400)
    return mcbn.collect(model, mcbn.minibatches(data, batch_size=16, draws=32))


def test_a_bank_is_a_dictionary_with_a_leading_axis_of_draws(bank):
    assert len(bank) == 32
    assert bank.batch_size == 16
    assert bank.population == 400
    assert_close(bank.state(3)[MEAN], bank.statistics[MEAN][3], rtol=0, atol=0)
    with pytest.raises(IndexError, match="expected a draw"):
        bank.state(32)


def test_saved_and_loaded_is_the_same_bank(bank, model, tmp_path):
    bank.save(tmp_path / "bank.safetensors")
    loaded = mcbn.Bank.load(tmp_path / "bank.safetensors")
    assert_close(dict(loaded.statistics), dict(bank.statistics), rtol=0, atol=0)
    assert_close(dict(loaded.trained), dict(bank.trained), rtol=0, atol=0)
    fields = ("batch_size", "population", "model", "weights", "source")
    assert [getattr(loaded, f) for f in fields] == [getattr(bank, f) for f in fields]
    x = examples("1d of 2-D", 5, seed=9)
    expected = mcbn.MCBatchNorm(model, bank)(x)
    assert_close(mcbn.MCBatchNorm(model, loaded)(x), expected, rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["bank.safetensors"]


def test_the_bytes_of_a_file_are_a_golden(tmp_path):
    mean, variance = torch.tensor([[0.5], [1.5]]), torch.tensor([[1.0], [2.0]])
    statistics = {"running_mean": mean, "running_var": variance}
    bank = mcbn.Bank(statistics, {k: v[0] for k, v in statistics.items()}, batch_size=4,
                     population=9, model="Net", weights="ab", source="by hand")  # fmt: skip
    bank.save(tmp_path / "bank")
    content = (tmp_path / "bank").read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    assert json.loads(header.pop("__metadata__")["mcbn"]) == {
        "kind": "bank", "version": 1, "batch_size": 4.0, "population": 9, "model": "Net",
        "weights": "ab", "source": "by hand",
    }  # fmt: skip
    assert sorted(header) == ["running_mean", "running_var", "trained/running_mean",
                              "trained/running_var"]  # fmt: skip
    assert hashlib.sha256(content).hexdigest() == GOLDEN


GOLDEN = "3ce4cf345d139f4ccb28fcafc28e926a041004f6ccc5d98f7a599f6557a6f9f6"


def cut(content):
    return content[:-3]


def flipped(content):
    return content[:40] + b"\xff" + content[41:]


def foreign(content):
    return b"PK\x03\x04 not a bank"


@pytest.mark.parametrize("damage", [cut, flipped, foreign, lambda c: b"", lambda c: c[:6]])
def test_damaged_files_are_refused(bank, tmp_path, damage):
    path = tmp_path / "bank"
    bank.save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="expected"):
        mcbn.Bank.load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'\\"version\\": 1', b'\\"version\\": 9'), (b'\\"kind\\": \\"bank', b'\\"kind\\": \\"cash')],
)
def test_another_version_or_kind_is_refused_by_name(bank, tmp_path, old, new):
    path = tmp_path / "bank"
    bank.save(path)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=r"version 9|'cash'"):
        mcbn.Bank.load(path)


@pytest.mark.parametrize("bad", [-1.0, float("nan")])
def test_impossible_statistics_are_refused(bank, tmp_path, bad):
    rows = bank.statistics[VARIANCE].clone()
    rows[0, 0] = bad
    broken = mcbn.Bank({**bank.statistics, VARIANCE: rows}, bank.trained, batch_size=16)
    broken.save(tmp_path / "bank")
    with pytest.raises(ValueError, match=VARIANCE):
        mcbn.Bank.load(tmp_path / "bank")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mcbn.Bank.load(tmp_path / "nowhere")


def test_banks_of_other_models_are_refused_by_name(bank, model):
    with pytest.raises(ValueError, match=r"expected a model with the buffer '1\.running_mean'"):
        mcbn.MCBatchNorm(made("2d"), bank)
    wider = shaken(without_seed(lambda: nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7))))
    with pytest.raises(ValueError, match="6 channels"):
        mcbn.MCBatchNorm(wider.double(), bank)
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-9
    with pytest.raises(ValueError, match="other weights"):
        mcbn.MCBatchNorm(model, bank)


def test_rescaling_to_its_own_size_changes_nothing(bank):
    assert_close(dict(bank.rescale(batch_size=16).statistics), dict(bank.statistics))


@pytest.mark.parametrize("size", [4, 7.5, 256])
def test_rescaling_multiplies_deviations_by_the_root_of_the_ratio(bank, size):
    scaled, factor = bank.rescale(batch_size=size), (16 / size) ** 0.5
    assert scaled.batch_size == size
    means, logs = bank.statistics[MEAN], bank.statistics[VARIANCE].log()
    assert_close(scaled.statistics[MEAN] - means.mean(0), factor * (means - means.mean(0)))
    after = scaled.statistics[VARIANCE].log()
    assert_close(after - after.mean(0), factor * (logs - logs.mean(0)))


def test_an_infinite_batch_has_the_pooled_statistics(bank, model):
    pooled = bank.rescale(batch_size=1e20).state(0)
    generator = mcbn.minibatches(examples("1d of 2-D", 400), batch_size=16, draws=32)
    activations = torch.cat([model[0](batch) for batch in generator]).detach()
    assert_close(pooled[MEAN], activations.mean(0), rtol=1e-8, atol=1e-8)
    assert_close(pooled[VARIANCE], activations.var(0, correction=0), rtol=1e-8, atol=1e-8)


def test_rescaled_draws_match_draws_collected_at_that_size():
    """Spread and centre of a bank at M = 32 made from one at M = 8; 4 standard errors."""
    model = nn.Sequential(nn.BatchNorm1d(1)).double()
    data = torch.randn(20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    banks = [
        mcbn.collect(model, mcbn.minibatches(data, batch_size=size, draws=1000, seed=size))
        for size in (8, 32)
    ]
    made_up, real = banks[0].rescale(batch_size=32).statistics, banks[1].statistics
    for name, rows in real.items():
        wanted, found = (s[name].log() if "var" in name else s[name] for s in (real, made_up))
        error = rows.std().item() * (2 / 1000) ** 0.5
        assert abs(found.mean() - wanted.mean()).item() < 4 * max(error, 0.01)
        # Second order: the log-variance of 8 values is skewed, so its spread is 10 % off.
        assert found.std().item() == pytest.approx(wanted.std().item(), rel=0.15)


def test_rescaling_is_differentiable_in_the_batch_size(bank):
    size = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)

    def spread(value):
        return bank.rescale(batch_size=value).statistics[MEAN].var(0).sum()

    (gradient,) = torch.autograd.grad(spread(size), size)
    # The variance is proportional to 1 / M', so its derivative is -variance / M'.
    assert_close(gradient, -(spread(size) / size).detach())


@pytest.mark.parametrize("size", [0, -3, float("nan")])
def test_impossible_sizes_are_refused(bank, size):
    with pytest.raises(ValueError, match="positive"):
        bank.rescale(batch_size=size)


def test_a_channel_without_variance_survives_rescaling():
    model = nn.Sequential(nn.BatchNorm1d(2)).double()
    data = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data[:, 1] = 3.0
    bank = mcbn.collect(model, mcbn.minibatches(data, batch_size=8, draws=4))
    rows = bank.rescale(batch_size=2).statistics["0.running_var"]
    assert torch.isfinite(rows).all()
    assert rows[:, 1].max() < 1e-9
