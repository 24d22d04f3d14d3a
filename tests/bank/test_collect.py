"""Collecting a bank: draws are exact, reproducible, and leave everything else unchanged."""

import inspect
import itertools
import warnings
from collections import Counter

import pytest
import scipy.stats
import timm
import torch
import torchvision
from law import DEVIATIONS, holds
from models import (
    CASES,
    Frozen,
    Jittered,
    dense,
    examples,
    make_network,
    train_mode_output,
    without_seed,
)
from snapshots import assert_same, snapshot
from torch import nn
from torch.nn.utils.parametrize import register_parametrization
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import mcbn

# Random running statistics fit no data, so most of these banks are inconsistent.
pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_own_statistics_give_the_train_mode_output(name, dtype, training):
    model, batch = make_network(name, dtype).train(training), examples(name, 7, dtype)
    sampler = mcbn.MCBatchNorm(model, mcbn.collect(model, [batch]))
    tolerance = TOLERANCE[dtype]
    expected = train_mode_output(model, batch)
    assert_close(sampler(batch)[0], expected, rtol=tolerance, atol=tolerance)


PUBLISHED = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
    "efficientnet_b0": lambda: timm.create_model("efficientnet_b0", num_classes=10),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_obey_the_identity_law(name, dtype):
    model = without_seed(PUBLISHED[name]).to(dtype).eval()
    # Enough values per channel in float32; few in float64, whose depthwise convolutions are slow.
    shape = (8, 3, 64, 64) if dtype == torch.float32 else (4, 3, 32, 32)
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    # The loop rounds as train mode does; tests of the engines hold the others to the loop.
    sampler = mcbn.MCBatchNorm(model, mcbn.collect(model, [batch]), engine="loop")
    expected = train_mode_output(model, batch)
    # Relative to the largest logit: a small one is a difference of large activations.
    tolerance = TOLERANCE[dtype] * float(expected.abs().max())
    assert_close(sampler(batch)[0], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_a_bank_of_the_running_statistics_reproduces_eval(name):
    model, batch = make_network(name), examples(name, 7)
    drawn = mcbn.collect(model, [batch])
    bank = mcbn.Bank(
        {key: value[None] for key, value in drawn.trained.items()}, drawn.trained, batch_size=7
    )
    with torch.no_grad():
        expected = model(batch)
    exact = mcbn.MCBatchNorm(model, bank, engine="loop")
    assert_close(exact(batch)[0], expected, rtol=0, atol=0)
    assert_close(mcbn.MCBatchNorm(model, bank)(batch)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frozen", ["torchvision", "transformers", "timm"])
def test_frozen_layers_agree_with_batch_norm_and_warn(frozen):
    model, twin = Frozen.pair(frozen)
    batch = examples("2d", 6, torch.float32)
    with pytest.warns(UserWarning, match="frozen in training"):
        bank = mcbn.collect(model, [batch])
    expected = train_mode_output(twin, batch)
    assert_close(mcbn.MCBatchNorm(model, bank)(batch)[0], expected, rtol=1e-5, atol=1e-5)


def wrong_data():
    """Mini-batches that are not what the network of `make_network("1d of 2-D")` was trained on."""
    return mcbn.minibatches(10 * examples("1d of 2-D", 400), batch_size=32, draws=8)


@pytest.mark.parametrize("reason", ["frozen", "inconsistent"])
def test_warnings_name_the_line_of_the_caller(reason):
    if reason == "frozen":
        model, batches = Frozen.pair("torchvision")[0], [examples("2d", 6, torch.float32)]
    else:
        model, batches = make_network("1d of 2-D"), wrong_data()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = inspect.currentframe().f_lineno + 1
        mcbn.collect(model, batches)
    assert [(each.filename, each.lineno) for each in caught] == [(__file__, line)]


def test_warnings_through_another_function_of_the_package_name_the_line_of_its_caller():
    package = {"__name__": "mcbn.other", "collect": mcbn.collect}
    exec("def verb(*arguments):\n    return collect(*arguments)", package)
    model, batches = make_network("1d of 2-D"), wrong_data()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = inspect.currentframe().f_lineno + 1
        package["verb"](model, batches)
    assert [(each.filename, each.lineno) for each in caught] == [(__file__, line)]


def test_half_precision_networks_have_float32_statistics():
    model = make_network("1d of 2-D", torch.bfloat16)
    batch = examples("1d of 2-D", 64, torch.bfloat16)
    bank = mcbn.collect(model, [batch])
    assert {rows.dtype for rows in bank.statistics.values()} == {torch.float32}
    activations = model[0](batch).float()
    assert_close(bank.state(0)["1.running_var"], activations.var(0, correction=0))
    assert mcbn.MCBatchNorm(model, bank)(batch).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["1d of 2-D", "2d"])
def test_parametrised_layers_are_collected(name):
    """A parametrised weight is not among the layer's own parameters."""

    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    model, x = make_network(name), examples(name, 24)
    for layer in list(model.modules()):
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            register_parametrization(layer, "weight", Doubled())
    bank = mcbn.collect(model, [x[:8], x[8:16], x[16:]])
    drawn = mcbn.MCBatchNorm(model, bank)(x[8:16])[1]
    assert_close(drawn, train_mode_output(model, x[8:16]), rtol=0, atol=1e-10)


def test_draws_hold_the_biased_variance_of_the_batch():
    model = nn.Sequential(nn.BatchNorm1d(3)).double()
    batch = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    state = mcbn.collect(model, [batch]).state(0)
    assert_close(state["0.running_mean"], batch.mean(0))
    assert_close(state["0.running_var"], batch.var(0, correction=0))


@pytest.mark.parametrize("draws", [4_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_one_layer_obeys_the_non_central_t_law(draws):
    """The distribution of (x - mean) / sd at a fixed x; fixed seed."""
    size, x = 4, 0.7
    data = torch.randn(draws * size, 1, dtype=torch.float64,
                       generator=torch.Generator().manual_seed(3))  # fmt: skip
    model = nn.Sequential(nn.BatchNorm1d(1, eps=1e-12, affine=False)).double()
    bank = mcbn.collect(model, data.split(size))
    # Not through a sampler, since the law is about the statistics themselves.
    mean, variance = (bank.statistics[f"0.running_{name}"][:, 0] for name in ("mean", "var"))
    values = ((x - mean) / variance.sqrt()).numpy()
    # (x - mean) / (sd / sqrt(M)) has the noncentral t law when sd divides by M - 1.
    law = scipy.stats.nct(size - 1, x * size**0.5)
    biased = scipy.stats.kstest(values * (size - 1) ** 0.5, law.cdf)
    assert holds(biased.pvalue)
    unbiased = scipy.stats.kstest(values * ((size - 1) ** 2 / size) ** 0.5, law.cdf)
    assert unbiased.pvalue < 1e-9, "the test has no power against the unbiased variance"


@pytest.mark.parametrize("draws", [6_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_every_batch_of_a_small_population_is_equally_likely(draws):
    """N = 4, M = 2: six batches; chi-square, fixed seed."""
    batches = mcbn.minibatches(torch.arange(4.0), batch_size=2, draws=draws, seed=5)
    counts = Counter(tuple(sorted(batches.indices(t))) for t in range(len(batches)))
    assert set(counts) == set(itertools.combinations(range(4), 2))
    assert holds(scipy.stats.chisquare(list(counts.values())).pvalue)


@pytest.mark.parametrize("size", [2, 8, 32])
def test_variance_of_the_means_falls_as_one_over_m_with_the_finite_factor(size):
    """Standard errors of a sample variance, fixed seed."""
    data = torch.randn(64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batches = mcbn.minibatches(data, batch_size=size, draws=1000, seed=1)
    bank = mcbn.collect(nn.Sequential(nn.BatchNorm1d(1)).double(), batches)
    variance = bank.statistics["0.running_mean"].var().item()
    expected = data.var(correction=0).item() / size * (64 - size) / 63
    assert abs(variance / expected - 1) < DEVIATIONS * (2 / 1000) ** 0.5


def test_batches_of_all_examples_have_no_spread():
    model, data = make_network("1d of 2-D"), examples("1d of 2-D", 32)
    bank = mcbn.collect(model, mcbn.minibatches(data, batch_size=32, draws=8))
    predictive = mcbn.predict(mcbn.MCBatchNorm(model, bank), data)
    assert_close(predictive.mutual_information, torch.zeros(32, dtype=torch.float64),
                 rtol=0, atol=1e-12)  # fmt: skip


def test_first_draws_are_those_of_a_shorter_bank():
    model, data = make_network("2d"), examples("2d", 40)
    long = mcbn.collect(model, mcbn.minibatches(data, batch_size=8, draws=9, seed=4))
    short = mcbn.collect(model, mcbn.minibatches(data, batch_size=8, draws=3, seed=4))
    assert_close(dict(long.first(3).statistics), dict(short.statistics), rtol=0, atol=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_draws_do_not_depend_on_the_number_of_workers(workers):
    model, data = make_network("2d"), Jittered(examples("2d", 40))
    plain, parallel = (
        mcbn.collect(model, mcbn.minibatches(data, batch_size=8, draws=5, num_workers=count))
        for count in (0, workers)
    )
    assert_close(dict(plain.statistics), dict(parallel.statistics), rtol=0, atol=0)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("failure", [None, RuntimeError, KeyboardInterrupt])
def test_the_model_is_left_unchanged(training, failure):
    model = make_network("1d of 2-D").train(training)
    model[3].eval()
    before = snapshot(model)

    class Bomb(torch.utils.data.Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, index):
            if failure and index == 17:
                raise failure("in the middle")
            return examples("1d of 2-D", 1, seed=index)[0]

    batches = mcbn.minibatches(Bomb(), batch_size=32, draws=4)
    if failure:
        with pytest.raises(failure):
            mcbn.collect(model, batches)
    else:
        mcbn.collect(model, batches)
    assert_same(before, snapshot(model))


def test_an_error_in_the_network_leaves_the_model_unchanged():
    model = make_network("1d of 2-D")
    before = snapshot(model)
    with pytest.raises(RuntimeError):
        mcbn.collect(model, [torch.zeros(4, 9, dtype=torch.float64)])
    assert_same(before, snapshot(model))


class Stream(IterableDataset):
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


DATA = examples("1d of 2-D", 20, torch.float32)
LABELS = torch.arange(20)
LOADERS = {
    "tensors": lambda: [DATA[:8], DATA[8:16]],
    "pairs": lambda: DataLoader(TensorDataset(DATA, LABELS), batch_size=8),
    "triples": lambda: DataLoader(TensorDataset(DATA, LABELS, LABELS), batch_size=8),
    "dicts": lambda: DataLoader([{"x": x, "label": y} for x, y in zip(DATA, LABELS, strict=True)],
                                batch_size=8),
    "stream": lambda: DataLoader(Stream(DATA), batch_size=8),
    "batch sampler": lambda: DataLoader(
        TensorDataset(DATA, LABELS), batch_sampler=[list(range(8)), list(range(8, 16))]),
    "collate": lambda: DataLoader(list(range(20)), batch_size=8,
                                  collate_fn=lambda rows: DATA[torch.tensor(rows)]),
    "generator": lambda: (part for part in (DATA[:8], DATA[8:16])),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOADERS)
def test_any_loader_gives_the_same_draws_in_its_own_order(kind):
    model = make_network("1d of 2-D", torch.float32)
    bank = mcbn.collect(model, LOADERS[kind]())
    expected = mcbn.collect(model, [DATA[:8], DATA[8:16]])
    assert (len(bank), bank.batch_size) == (2, 8), "a ragged last batch is never a draw"
    assert_close(dict(bank.statistics), dict(expected.statistics), rtol=0, atol=0)


def test_several_inputs_and_keyword_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, left, right):
            return self.norm(left + right)

    model = Two()
    nested = [((DATA[:8], DATA[8:16]), LABELS[:8])]
    named = [{"left": DATA[:8], "right": DATA[8:16], "labels": LABELS[:8]}]
    chosen = mcbn.collect(model, [{"all": DATA}],
                          select=lambda b: (b["all"][:8], b["all"][8:16]))  # fmt: skip
    for batches in (nested, named):
        bank = mcbn.collect(model, batches)
        assert_close(dict(bank.statistics), dict(chosen.statistics), rtol=0, atol=0)


def test_a_shuffling_loader_goes_on_past_an_epoch():
    loader = DataLoader(TensorDataset(DATA), batch_size=8, shuffle=True)
    bank = mcbn.collect(make_network("1d of 2-D", torch.float32), loader, draws=7)
    rows = bank.statistics["1.running_mean"]
    assert len(bank) == len(rows.unique(dim=0)) == 7


def test_a_single_tensor_of_two_examples_is_not_a_pair():
    model = make_network("1d of 2-D", torch.float32)
    assert mcbn.collect(model, [DATA[:2]]).batch_size == 2


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.norm(x) + 1)


class DeadLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return x


NAN = DATA.clone()
NAN[3, 2] = float("nan")
REFUSED = {
    "no batch norm": (lambda: nn.Linear(4, 3), [DATA], ValueError, "Linear with none"),
    "instance norm only": (
        lambda: nn.InstanceNorm1d(4, track_running_stats=True), [DATA], ValueError, "with none"),
    "called twice": (Twice, [DATA], ValueError, "'norm' called again"),
    "no statistics": (lambda: nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False)),
                      [DATA], ValueError, "track_running_stats=False"),
    "lazy": (lambda: nn.Sequential(nn.LazyBatchNorm1d()), [DATA], ValueError, "lazy layer '0'"),
    "one value": (lambda: dense(nn.BatchNorm1d(6)), [DATA[:1]], ValueError, "in layer '1'"),
    "NaN inputs": (lambda: dense(nn.BatchNorm1d(6)), [NAN], ValueError, r"1 NaN .* \(3, 2\)"),
    "no batches": (lambda: nn.BatchNorm1d(4), [], ValueError, "at least one batch"),
    "layer not reached": (DeadLayer, [DATA], ValueError, "calls none of them, 'norm' first"),
    "repeating loader": (lambda: dense(nn.BatchNorm1d(6)),
                         DataLoader(TensorDataset(DATA), batch_size=8), ValueError, "shuffle=True"),
    "too few": (lambda: dense(nn.BatchNorm1d(6)), [DATA], ValueError, "expected 5 full"),
    "no tensors": (lambda: nn.BatchNorm1d(4), [("a", "b")], TypeError, "select="),
    "fused": (lambda: torch.ao.nn.intrinsic.qat.ConvBn1d(
        4, 4, 1, qconfig=torch.ao.quantization.default_qat_qconfig), [DATA], ValueError, "fus"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_invalid_networks_and_batches_are_refused_with_the_reason(kind):
    build, batches, error, reason = REFUSED[kind]
    draws = 5 if kind in ("repeating loader", "too few") else None
    with pytest.raises(error, match=reason):
        mcbn.collect(without_seed(build), batches, draws=draws)


def test_weights_that_are_not_finite_are_named():
    model = make_network("1d of 2-D")
    with torch.no_grad():
        model[4].weight[2, 1] = float("inf")
    with pytest.raises(ValueError, match=r"4\.weight.*\(2, 1\)"):
        mcbn.collect(model, [DATA])


@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("batch_size", 21), ("draws", 0),
                                               ("seed", -1)])  # fmt: skip
def test_impossible_mini_batches_are_refused_before_any_work(option, value):
    with pytest.raises(ValueError, match="expected"):
        mcbn.minibatches(DATA, **{option: value})


def test_replacement_allows_batches_larger_than_the_data():
    batches = mcbn.minibatches(DATA, batch_size=50, draws=2, replacement=True)
    assert batches[0].shape == (50, 4)


def test_batches_of_a_seed_are_a_golden():
    batches = mcbn.minibatches(torch.arange(10), batch_size=4, draws=2, seed=7)
    assert [batches.indices(t) for t in range(2)] == GOLDEN


GOLDEN = [[1, 4, 2, 5], [6, 0, 2, 4]]


def test_rows_taken_at_once_are_those_taken_one_by_one():
    at_once = mcbn.minibatches(TensorDataset(DATA, torch.arange(len(DATA))), batch_size=8, draws=3)
    one_by_one = mcbn.minibatches(list(DATA), batch_size=8, draws=3)
    for first, second in zip(at_once, one_by_one, strict=True):
        assert_close(first, second, rtol=0, atol=0)


def test_a_bank_that_disagrees_with_the_network_raises_a_warning():
    model = nn.Sequential(nn.BatchNorm1d(4)).train()
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(2000, 4, generator=generator)
    with torch.no_grad():
        for _ in range(200):
            model(data[torch.randint(2000, (32,), generator=generator)])
    batches = mcbn.minibatches(data, batch_size=32, draws=64)
    assert mcbn.consistency(mcbn.collect(model, batches)).passed
    with pytest.warns(mcbn.InconsistentBankWarning, match="training transform"):
        bank = mcbn.collect(model, mcbn.minibatches(1.3 * data + 0.2, batch_size=32, draws=64))
    assert mcbn.consistency(bank).variance_ratio == pytest.approx(1.69, rel=0.1)
