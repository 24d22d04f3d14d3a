"""Banks: files, rescaling, and the models that they fit."""

import hashlib
import json
import math
import re
import struct

import pytest
import torch
from law import DEVIATIONS
from models import examples, make_network, randomized, without_seed
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

import mcbn
from mcbn.io.tensors import read_tensors, write_tensors

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
PAIR = ("running_mean", "running_var")
EPS = 1e-5
MEAN, VARIANCE = (f"1.{name}" for name in PAIR)


@pytest.fixture
def model():
    return make_network("1d of 2-D")


@pytest.fixture
def bank(model):
    data = examples("1d of 2-D", 400)
    return mcbn.collect(model, mcbn.minibatches(data, batch_size=16, draws=32))


def test_a_bank_is_a_dictionary_with_a_leading_axis_of_draws(bank):
    assert len(bank) == 32
    assert bank.batch_size == 16
    assert bank.population == 400
    assert_close(bank.state(3)[MEAN], bank.statistics[MEAN][3], rtol=0, atol=0)
    assert_close(bank.state(-32)[MEAN], bank.statistics[MEAN][0], rtol=0, atol=0)
    for draw in (32, -33):
        with pytest.raises(IndexError, match=f"^expected a draw from 0 to 31, got {draw}$"):
            bank.state(draw)


def test_the_first_draws_are_a_bank(bank):
    for count in (1, 32):
        first = bank.first(count)
        assert_close(dict(first.statistics), {k: v[:count] for k, v in bank.statistics.items()})
        assert (first.batch_size, first.model) == (16, "Sequential")
    for count in (0, 33):
        with pytest.raises(ValueError, match=f"from 1 to 32 draws, got {count}; collect more"):
            bank.first(count)


def test_the_repr_of_a_bank_has_its_main_attributes(bank):
    expected = "Bank(32 draws of 2 layers, batch_size=16, model='Sequential')"
    assert repr(bank).splitlines()[0] == expected
    assert repr(mcbn.Bank(bank.statistics, bank.trained, torch.tensor(2.5))).count("=2.5,") == 1


def test_a_saved_bank_is_loaded_unchanged(bank, model, tmp_path):
    bank.save(tmp_path / "bank.safetensors")
    loaded = mcbn.Bank.load(tmp_path / "bank.safetensors")
    assert_close(dict(loaded.statistics), dict(bank.statistics), rtol=0, atol=0)
    assert_close(dict(loaded.trained), dict(bank.trained), rtol=0, atol=0)
    assert_close(dict(loaded.bias), dict(bank.bias), rtol=0, atol=0)
    assert bank.bias.keys() == bank.statistics.keys()
    fields = ("batch_size", "population", "model", "weights", "source", "epsilon", "replacement")
    assert [getattr(loaded, f) for f in fields] == [getattr(bank, f) for f in fields]
    x = examples("1d of 2-D", 5, seed=9)
    expected = mcbn.MCBatchNorm(model, bank)(x)
    assert_close(mcbn.MCBatchNorm(model, loaded)(x), expected, rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["bank.safetensors"]


def test_the_bytes_of_a_file_are_a_golden(tmp_path):
    mean, variance = torch.tensor([[0.5], [1.5]]), torch.tensor([[1.0], [2.0]])
    statistics = {"running_mean": mean, "running_var": variance}
    bank = mcbn.Bank(statistics, {k: v[0] for k, v in statistics.items()}, batch_size=4,
                     population=9, model="Net", weights="ab", source="by hand",
                     epsilon={"running_var": 1e-5}, bias={"running_mean": mean[0] / 4},
                     replacement=False)  # fmt: skip
    bank.save(tmp_path / "bank")
    content = (tmp_path / "bank").read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    assert json.loads(header.pop("__metadata__")["mcbn"]) == {
        "kind": "bank", "version": 2, "batch_size": 4.0, "population": 9, "model": "Net",
        "weights": "ab", "source": "by hand", "replacement": False,
    }  # fmt: skip
    assert sorted(header) == ["bias/running_mean", "epsilon/running_var", "running_mean",
                              "running_var", "trained/running_mean",
                              "trained/running_var"]  # fmt: skip
    assert hashlib.sha256(content).hexdigest() == GOLDEN


GOLDEN = "7893fcbeed05cdb9c8238338684e980e5d518b98302d81ae49391dc197b500d1"


def test_a_file_of_version_1_is_read(tmp_path):
    """It says neither epsilon nor the bias, and not whether examples were drawn twice."""
    rows = {"running_mean": torch.tensor([[0.5], [1.5]]), "running_var": torch.ones(2, 1)}
    trained = {f"trained/{name}": values[0] for name, values in rows.items()}
    header = {"batch_size": 4.0, "population": 9, "model": "Net", "weights": "ab", "source": ""}
    write_tensors(tmp_path / "bank", {**rows, **trained}, kind="bank", header=header)
    bank = mcbn.Bank.load(tmp_path / "bank")
    assert (bank.epsilon, bank.bias, bank.replacement, len(bank)) == ({}, {}, None, 2)
    with pytest.warns(mcbn.RescalingWarning, match="not between"):
        assert_close(
            bank.rescale(64).statistics["running_var"][:, 0], torch.full((2,), 1.25 ** (15 / 16))
        )


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("epsilon/" + VARIANCE, torch.ones(2), "of shape"),
        ("bias/" + MEAN, torch.ones(5), "of shape"),
        ("bias/2.running_mean", torch.ones(6), "of shape"),
        ("bias/" + MEAN, torch.full((6,), torch.nan), "finite"),
        ("epsilon/" + VARIANCE, torch.tensor(torch.inf), "finite"),
    ],
)
def test_what_a_file_says_beside_the_statistics_has_to_fit(bank, tmp_path, name, value, told):
    path = tmp_path / "bank"
    bank.save(path)
    tensors, header = read_tensors(path, kind="bank", versions=[2])
    write_tensors(path, {**tensors, name: value}, kind="bank", header=header)
    with pytest.raises(ValueError, match=told):
        mcbn.Bank.load(path)


def cut(content):
    return content[:-3]


def flipped(content):
    return content[:40] + b"\xff" + content[41:]


def other_format(content):
    return b"PK\x03\x04 not a bank"


@pytest.mark.parametrize("damage", [cut, flipped, other_format, lambda c: b"", lambda c: c[:6]])
def test_damaged_files_are_refused(bank, tmp_path, damage):
    path = tmp_path / "bank"
    bank.save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="expected"):
        mcbn.Bank.load(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'\\"version\\": 2', b'\\"version\\": 9'), (b'\\"kind\\": \\"bank', b'\\"kind\\": \\"cash')],
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


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def reshaped(name, change):
    return lambda tensors: {**tensors, name: change(tensors[name])}


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {},
        without(MEAN),
        without(VARIANCE),
        without("trained/" + MEAN),
        lambda tensors: {**tensors, "trained/2.running_mean": torch.ones(6)},
        reshaped(MEAN, lambda rows: rows[:-1]),
        reshaped(MEAN, lambda rows: rows[:, :-1]),
        reshaped(VARIANCE, lambda rows: rows[0]),
        reshaped("trained/" + VARIANCE, lambda row: row[:-1]),
        lambda tensors: {**tensors, VARIANCE: tensors[VARIANCE][:, :-1],
                         "trained/" + VARIANCE: tensors["trained/" + VARIANCE][:-1]},
        # Mean and variance changed alike, so that they agree with each other and with nothing else.
        lambda tensors: {name: v[None] if v.ndim == 2 else v for name, v in tensors.items()},
        lambda tensors: {**tensors, **{f"2.{n}": torch.ones(8, 6) for n in PAIR},
                         **{f"trained/2.{n}": torch.ones(6) for n in PAIR}},
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_together_are_refused(bank, tmp_path, change):
    path = tmp_path / "bank"
    bank.save(path)
    tensors, header = read_tensors(path, kind="bank", versions=[2])
    write_tensors(path, change(tensors), kind="bank", header=header)
    message = r"expected a mean and a variance of shape \(draws, channels\) for each layer, got "
    with pytest.raises(ValueError, match=f"{message}.*bank with .*; collect again"):
        mcbn.Bank.load(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("batch_size", size) for size in ("16", None, [16], True)],
        *[("population", count) for count in ("9", 9.5, True, 2**70)],
        *[(name, 3) for name in ("model", "weights", "source", "replacement")],
    ],
)
def test_a_header_of_other_types_is_refused_by_name(bank, tmp_path, field, value):
    path = tmp_path / "bank"
    bank.save(path)
    tensors, header = read_tensors(path, kind="bank", versions=[2])
    write_tensors(path, tensors, kind="bank", header={**header, field: value})
    got = re.escape(repr(value))
    message = rf"'{field}' in the header of a bank, got {got} in .*bank; collect again$"
    with pytest.raises(ValueError, match=message):
        mcbn.Bank.load(path)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_that_is_not_positive_is_refused(bank, tmp_path, size):
    mcbn.Bank(bank.statistics, bank.trained, size).save(tmp_path / "bank")
    with pytest.raises(ValueError, match="collect again"):
        mcbn.Bank.load(tmp_path / "bank")


def test_fractional_batch_sizes_and_dead_channels_are_saved(bank, tmp_path):
    rows = bank.statistics[VARIANCE].clone()
    rows[:, 0] = 0
    mcbn.Bank({**bank.statistics, VARIANCE: rows}, bank.trained, 0.5).save(tmp_path / "bank")
    loaded = mcbn.Bank.load(tmp_path / "bank")
    assert loaded.batch_size == 0.5
    assert loaded.statistics[VARIANCE][:, 0].eq(0).all()


@pytest.mark.parametrize(
    "field", ["batch_size", "population", "model", "weights", "source", "replacement"]
)
def test_a_header_without_a_field_is_refused_by_name(bank, tmp_path, field):
    path = tmp_path / "bank"
    bank.save(path)
    tensors, header = read_tensors(path, kind="bank", versions=[2])
    write_tensors(path, tensors, kind="bank", header={k: header[k] for k in header if k != field})
    with pytest.raises(
        ValueError, match=f"'{field}' in the header of a bank, got nothing in .*bank; "
    ):
        mcbn.Bank.load(path)


@pytest.mark.parametrize("metadata", [None, {"other": "x"}, {"mcbn": "[]"}, {"mcbn": "3"}])
def test_a_file_of_another_program_is_refused(bank, tmp_path, metadata):
    path = tmp_path / "other"
    save_file({MEAN: bank.statistics[MEAN].clone()}, path, metadata)
    message = "expected an mcbn bank file at .*other, got a file that mcbn did not write; give"
    with pytest.raises(ValueError, match=message):
        mcbn.Bank.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mcbn.Bank.load(tmp_path / "nowhere")


def test_models_that_a_bank_does_not_fit_are_refused_by_name(bank, model):
    message = (
        r"expected a model with the buffer '1\.running_mean', as Sequential has, got BatchNorm1d "
        "without it; collect a bank from this model$"
    )
    with pytest.raises(ValueError, match=message):
        bank.require_model(nn.BatchNorm1d(6))
    with pytest.raises(ValueError, match=r"expected a model with the buffer '1\.running_mean'"):
        mcbn.MCBatchNorm(make_network("2d"), bank)
    wider = randomized(without_seed(lambda: nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7))))
    with pytest.raises(ValueError, match="6 channels"):
        mcbn.MCBatchNorm(wider.double(), bank)
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-9
    with pytest.raises(ValueError, match="other weights"):
        mcbn.MCBatchNorm(model, bank)


def test_rescaling_to_its_own_size_changes_nothing(bank):
    assert_close(dict(bank.rescale(batch_size=16).statistics), dict(bank.statistics))


@pytest.fixture(scope="module")
def with_replacement():
    data = examples("1d of 2-D", 400)
    batches = mcbn.minibatches(data, batch_size=16, draws=32, replacement=True)
    return mcbn.collect(make_network("1d of 2-D"), batches, limit=None)


@pytest.mark.parametrize("size", [4, 7.5, 256])
def test_rescaling_multiplies_deviations_by_the_root_of_the_ratio(with_replacement, size):
    bank, factor = with_replacement, (16 / size) ** 0.5
    scaled = bank.rescale(batch_size=size)
    assert scaled.batch_size == size
    require_deviations(bank, scaled, factor)


@pytest.mark.parametrize("size", [4, 7.5, 256, 399])
def test_draws_without_replacement_have_the_finite_population_factor(bank, size):
    scaled = bank.rescale(batch_size=size)
    require_deviations(bank, scaled, (16 / size * (400 - size) / (400 - 16)) ** 0.5)


def require_deviations(bank, scaled, factor):
    means, logs = bank.statistics[MEAN], (bank.statistics[VARIANCE] + EPS).log()
    before, after = means - means.mean(0), scaled.statistics[MEAN]
    assert_close(after - after.mean(0), factor * before)
    after = (scaled.statistics[VARIANCE] + EPS).log()
    assert_close(after - after.mean(0), factor * (logs - logs.mean(0)))


@pytest.mark.parametrize("size", [400, 1e6, 400 * (1 - 1e-12), torch.tensor(400.0).log().exp()])
def test_draws_of_all_examples_are_equal(bank, size):
    for rows in bank.rescale(batch_size=size).statistics.values():
        assert torch.equal(rows, rows[:1].expand_as(rows))


def activations_of(model, batches):
    return torch.cat([model[0](batch) for batch in batches]).detach()


def test_an_infinite_batch_has_the_pooled_statistics_where_no_limit_is_known(model):
    batches = mcbn.minibatches(
        examples("1d of 2-D", 400), batch_size=16, draws=32, replacement=True
    )
    pooled = mcbn.collect(model, batches, limit=None).rescale(batch_size=1e20).state(0)
    activations = activations_of(model, batches)
    assert_close(pooled[MEAN], activations.mean(0), rtol=1e-8, atol=1e-8)
    assert_close(pooled[VARIANCE], activations.var(0, correction=0), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("limit", "together"), [("all", 32), (100, 6), (5, 2)])
def test_the_bias_leads_to_the_statistics_of_all_that_is_put_together(model, limit, together):
    """In the first layer, where all that the larger pass changes is the number of examples."""
    batches = mcbn.minibatches(examples("1d of 2-D", 400), batch_size=16, draws=32)
    bank = mcbn.collect(model, batches, limit=limit)
    activations = activations_of(model, [batches[draw] for draw in range(together)])
    first = bank.first(together).coordinates()
    found = {n: rows.mean(0) - bank.bias[n] * (1 - 1 / together) for n, rows in first.items()}
    assert_close(found[MEAN], activations.mean(0), rtol=1e-8, atol=1e-8)
    whole = (activations.var(0, correction=0) + EPS).log()
    assert_close(found[VARIANCE], whole, rtol=1e-8, atol=1e-8)


@pytest.mark.unchecked
@pytest.mark.parametrize("limit", [0, -1, "some"])
def test_impossible_limits_are_refused(model, limit):
    batches = mcbn.minibatches(examples("1d of 2-D", 400), batch_size=16, draws=4)
    with pytest.raises(ValueError, match="expected limit"):
        mcbn.collect(model, batches, limit=limit)


def test_rescaled_draws_match_draws_collected_at_that_size():
    """Spread and mean of a bank rescaled from M = 8 to 32; 4 standard errors."""
    model = nn.Sequential(nn.BatchNorm1d(1)).double()
    data = torch.randn(20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    banks = [
        mcbn.collect(model, mcbn.minibatches(data, batch_size=size, draws=1000, seed=size))
        for size in (8, 32)
    ]
    rescaled, real = banks[0].rescale(batch_size=32).statistics, banks[1].statistics
    for name, rows in real.items():
        expected, actual = (s[name].log() if "var" in name else s[name] for s in (real, rescaled))
        error = rows.std().item() * (2 / 1000) ** 0.5
        assert abs(actual.mean() - expected.mean()).item() < DEVIATIONS * max(error, 0.01)
        # Second order: the log-variance of 8 values is skewed, so its spread is 10 % off.
        assert actual.std().item() == pytest.approx(expected.std().item(), rel=0.15)


def test_rescaling_is_differentiable_in_the_batch_size(with_replacement):
    bank = with_replacement
    size = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)

    def spread(value):
        return bank.rescale(batch_size=value).statistics[MEAN].var(0).sum()

    (gradient,) = torch.autograd.grad(spread(size), size)
    # The variance is proportional to 1 / M', so its derivative is -variance / M'.
    assert_close(gradient, -(spread(size) / size).detach())


def test_rescaling_keeps_the_type_and_is_accurate_for_any_positive_size(with_replacement):
    bank = with_replacement
    moved = bank.rescale(batch_size=1.1)
    assert moved.statistics[MEAN].dtype == torch.float64
    rows, center = bank.statistics[MEAN], bank.statistics[MEAN].mean(0)
    # In float64 throughout: 1.1 in float32 would be off by 2e-8.
    expected = center + (rows - center) * math.sqrt(16 / 1.1)
    assert_close(moved.statistics[MEAN], expected, rtol=1e-14, atol=1e-14)
    narrow = {name: rows.float() for name, rows in bank.statistics.items()}
    half = mcbn.Bank(narrow, bank.trained, 16).rescale(batch_size=2)
    assert {rows.dtype for rows in half.statistics.values()} == {torch.float32}


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "size", [0, -3, math.nan, math.inf, torch.tensor(math.inf), torch.ones(2), "32", None]
)
def test_impossible_sizes_are_refused(bank, size):
    with pytest.raises(ValueError, match="expected a positive and finite batch_size"):
        bank.rescale(batch_size=size)


@pytest.mark.parametrize("size", [1e-8, 1e-12])
def test_a_size_at_which_draws_overflow_is_refused(bank, size):
    with pytest.raises(ValueError, match="at which they overflow"):
        bank.rescale(batch_size=size)


def test_rescaling_keeps_a_channel_without_variance_finite():
    model = nn.Sequential(nn.BatchNorm1d(2)).double()
    data = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data[:, 1] = 3.0
    bank = mcbn.collect(model, mcbn.minibatches(data, batch_size=8, draws=4))
    rows = bank.rescale(batch_size=2).statistics["0.running_var"]
    assert torch.isfinite(rows).all()
    assert rows[:, 1].max() < 1e-9
