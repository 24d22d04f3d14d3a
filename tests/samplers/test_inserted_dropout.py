"""Dropout put into networks without any, against the same networks with dropout modules."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from snapshots import assert_same, snapshot
from torch import nn
from torch.testing import assert_close

import mcbn
from mcbn.network.dropout import masked
from mcbn.network.insertion import insertion_sites

RATE = 0.3


@pytest.fixture(autouse=True)
def fixed_weights():
    """Networks are built anywhere in the tests."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def made(**parts):
    return nn.Sequential(OrderedDict(parts)).double().eval()


def batch(*shape):
    return torch.randn(6, *shape, generator=torch.Generator().manual_seed(2)).double()


def drawn(model, x, **options):
    return mcbn.MCDropout(model, draws=5, seed=3, insert=RATE, **options)(x)


def with_modules(model, x):
    """Draws of a network that has the dropout as modules; masks go by the name of a module."""
    return mcbn.MCDropout(model.double().eval(), draws=5, seed=3)(x)


BODY = {
    "dense": (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 3), nn.Dropout, (4,)),
    "pictures": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU()), nn.Conv2d(8, 3, 1), nn.Dropout2d,
        (2, 6, 7)),
    "sounds": (
        lambda: nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU()), nn.Conv1d(8, 3, 1), nn.Dropout1d,
        (2, 9)),
    "volumes": (
        lambda: nn.Sequential(nn.Conv3d(2, 8, 3), nn.ReLU()), nn.ConvTranspose3d(8, 3, 1),
        nn.Dropout3d, (2, 4, 5, 6)),
    "tokens": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 3), nn.Dropout, (5, 4)),
    "channels last": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 3), nn.Dropout, (5, 6, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", BODY)
def test_before_the_classifier_is_a_module_there(name):
    """Whole channels of maps, single values of anything else."""
    build, last, dropout, shape = BODY[name]
    body, x = build(), batch(*shape)
    model = made(body=body, head=last)
    actual = drawn(model, x)
    # The dropout has the name of the layer that it goes before, and so its masks.
    expected = with_modules(nn.Sequential(OrderedDict(body=body, head=dropout(RATE), z=last)), x)
    assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert (actual[0] != actual[1]).any()
    assert_close(drawn(model, x, at=["head"]), actual, rtol=0, atol=0)


def test_before_named_modules_is_a_module_there():
    first, second, last = (
        nn.Linear(4, 8),
        nn.Sequential(nn.ReLU(), nn.Linear(8, 6)),
        nn.Linear(6, 2),
    )
    x = batch(4)
    model = made(first=first, second=second, last=last)
    expected = with_modules(
        nn.Sequential(OrderedDict(
            a=first, second=nn.Dropout(RATE), b=second, last=nn.Dropout(RATE), c=last)), x,
    )  # fmt: skip
    actual = drawn(model, x, at=["second", "last"])
    assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert_close(drawn(model, x, at=("last", "second", "last")), actual, rtol=0, atol=0)


def test_before_pooling_drops_whole_channels():
    body = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU())
    rest = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    x = batch(2, 6, 6)
    expected = with_modules(nn.Sequential(OrderedDict(a=body, rest=nn.Dropout2d(RATE), b=rest)), x)
    assert_close(drawn(made(a=body, rest=rest), x, at=["rest"]), expected, rtol=1e-12, atol=1e-12)


class MixedTokens(nn.Module):
    """A block on a map of tokens, whose channels are last."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x):
        return x + torch.relu(self.mix(self.norm(x)))


class LayerNorm2d(nn.LayerNorm):
    """A layer norm over the channels of a map, as in ConvNeXt."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def test_what_is_a_channel_hangs_on_the_first_layer():
    tokens, maps = MixedTokens(), nn.Sequential(LayerNorm2d(4), nn.Flatten(), nn.Linear(4 * 25, 3))
    x = batch(4, 5, 5)
    expected = with_modules(
        nn.Sequential(OrderedDict(a=nn.Identity(), maps=nn.Dropout2d(RATE), b=maps)), x
    )
    assert_close(drawn(made(maps=maps), x, at=["maps"]), expected, rtol=1e-12, atol=1e-12)
    x = x.movedim(1, -1)
    other = MixedTokens()
    expected = with_modules(
        nn.Sequential(OrderedDict(a=tokens, one=nn.Dropout(RATE), b=other, two=nn.Dropout(RATE))), x
    )
    actual = drawn(made(one=tokens, two=other), x, at="blocks")
    assert_close(actual, expected, rtol=1e-12, atol=1e-12)


class Block(nn.Module):
    """A convolution with a short way round, and what it returns."""

    def __init__(self, channels=4, answer=lambda x: x):
        super().__init__()
        self.mix, self.answer = nn.Conv2d(channels, channels, 3, padding=1), answer

    def forward(self, x):
        x = x[0] if isinstance(x, tuple) else x
        return self.answer(torch.relu(self.mix(x)) + x)


def test_after_blocks_is_a_module_there():
    one, two, last = Block(), Block(), nn.Sequential(nn.Flatten(), nn.Linear(4 * 25, 3))
    x = batch(4, 5, 5)
    model = made(one=one, two=two, last=last)
    expected = with_modules(
        nn.Sequential(OrderedDict(
            a=one, one=nn.Dropout2d(RATE), b=two, two=nn.Dropout2d(RATE), c=last)), x,
    )  # fmt: skip
    assert_close(drawn(model, x, at="blocks"), expected, rtol=1e-12, atol=1e-12)


def test_of_a_block_that_returns_several_the_first_is_dropped_from():
    blocks = [Block(answer=lambda x: (x, None)), Block()]
    x = batch(4, 5, 5)
    plain = [Block(), Block()]
    for block, other in zip(plain, blocks, strict=True):
        block.load_state_dict(other.state_dict())
    actual = drawn(made(one=blocks[0], two=blocks[1]), x, at="blocks")
    assert_close(actual, drawn(made(one=plain[0], two=plain[1]), x, at="blocks"), rtol=0, atol=0)
    assert (actual[0] != actual[1]).any()


def test_a_keyword_argument_is_dropped_from():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(input=x)

    x = batch(4)
    model = Named().double().eval()
    expected = with_modules(nn.Sequential(OrderedDict(head=nn.Dropout(RATE), z=model.head)), x)
    assert_close(drawn(model, x), expected, rtol=1e-12, atol=1e-12)


def test_a_layer_called_twice_gets_two_masks():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, 64, bias=False)
            nn.init.eye_(self.head.weight)

        def forward(self, x):
            return torch.stack([self.head(x), self.head(x)], 1)

    found = drawn(Twice().double(), torch.ones(1, 64).double())
    assert (found[:, :, 0] != found[:, :, 1]).any()


def test_the_share_that_is_dropped_is_the_rate():
    """Of 40 x 64 units; 5 standard errors, fixed seed. The others are scaled to the same mean."""
    model = made(head=nn.Linear(64, 64, bias=False))
    with torch.no_grad():
        nn.init.eye_(model.head.weight)
    x = torch.ones(2, 64, dtype=torch.float64)
    found = mcbn.MCDropout(model, draws=40, insert=RATE)(x)
    assert_close(found[:, 0], found[:, 1], rtol=0, atol=0)
    assert_close(
        found.unique(), torch.tensor([0, 1 / (1 - RATE)], dtype=x.dtype), rtol=1e-12, atol=0
    )
    error = 5 * (RATE * (1 - RATE) / (40 * 64)) ** 0.5
    assert abs(float((found[:, 0] == 0).double().mean()) - RATE) < error


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_what_is_kept_is_rounded_once(dtype):
    """Not the factor first, which bfloat16 has to three digits."""
    values = torch.linspace(1, 2, 41, dtype=torch.float64)[None].to(dtype)
    keep = torch.arange(41) % 3 != 0
    exact = (values.double() / (1 - RATE)).to(dtype).where(keep, 0)
    error = torch.finfo(dtype).eps if dtype in (torch.float32, torch.float64) else 0
    assert_close(masked(values, keep[None], RATE), exact, rtol=error, atol=0)


def test_draws_are_those_of_a_shorter_run_and_hang_on_the_seed():
    model, x = made(a=nn.Linear(4, 8), b=nn.Linear(8, 3)), batch(4)
    long = drawn(model, x)
    short = mcbn.MCDropout(model, draws=2, seed=3, insert=RATE)(x)
    assert_close(long[:2], short, rtol=0, atol=0)
    assert (mcbn.MCDropout(model, draws=2, seed=4, insert=RATE)(x) != short).any()


@pytest.mark.parametrize("at", ["classifier", "blocks", ["two"]])
def test_no_hook_stays_and_nothing_is_edited(at):
    model = made(one=Block(), two=Block(), last=nn.Sequential(nn.Flatten(), nn.Linear(100, 3)))
    model.train()
    before = snapshot(model)
    sampler = mcbn.MCDropout(model, draws=3, insert=RATE, at=at)
    run = sampler.passes(batch(4, 5, 5))
    next(run)
    assert_same(before, snapshot(model))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    with pytest.raises(RuntimeError):
        sampler(batch(3, 5, 5))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert_same(before, snapshot(model))


VISION = {
    "resnet18": ("fc", [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]),
    "mobilenet_v3_small": ("classifier.3", [f"features.{i}" for i in range(1, 12)]),
    "googlenet": ("fc", None),
    "vit_b_32": ("heads.head", [f"encoder.layers.encoder_layer_{i}" for i in range(12)]),
    "swin_t": ("head", None),
    "shufflenet_v2_x0_5": ("fc", None),
}


@pytest.mark.parametrize("name", VISION)
def test_the_places_in_published_networks(name):
    classifier, blocks = VISION[name]
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    with torch.device("meta"):
        model = torchvision.models.get_model(name, **options)
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    assert [site.name for site in insertion_sites(model, "classifier")] == [classifier]
    sites = insertion_sites(model, "blocks")
    assert all(site.after for site in sites)
    if blocks is not None:
        assert [site.name for site in sites] == blocks
    else:
        assert len(sites) > 8


def test_the_display_says_where_it_is():
    model = made(one=Block(), two=Block(), last=nn.Conv2d(4, 3, 1))
    shown = {
        "classifier": "dropout 0.3 put in before last",
        "blocks": "dropout 0.3 put in after one, after two",
        ("two",): "dropout 0.3 put in before two",
    }
    for at, text in shown.items():
        assert repr(mcbn.MCDropout(model, insert=RATE, at=at)) == (
            f"MCDropout of Sequential: T = 64, seed 0, {text}"
        )


def dense(*others):
    return nn.Sequential(nn.Linear(4, 8), *others, nn.Linear(8, 3))


def build(*others, **options):
    return lambda: mcbn.MCDropout(dense(*others), **options)


REFUSED = {
    "no dropout": (build(), r"with none; .* put dropout in by MCDropout\(model, insert=0.1\)"),
    "both": (build(nn.Dropout(0.2), insert=0.1), "dropout layers of its own; leave insert= out"),
    "at alone": (build(nn.Dropout(0.2), at="blocks"), "got at='blocks' alone; give insert=0.1"),
    "no rate": (build(insert=0.0), "between 0 and 1, got 0.0; give 0.1"),
    "too high": (build(insert=1.0), "between 0 and 1, got 1.0; give 0.1"),
    "in per cent": (build(insert=30), "between 0 and 1, got 30; give 0.1"),
    "no blocks": (build(insert=0.1, at="blocks"), "expected blocks in Sequential, .* got none; n"),
    "no such name": (build(insert=0.1, at=["1", "9"]), r"'0', '1'\], got \['9'\]; see"),
    "one such name": (build(insert=0.1, at="9"), r"'0', '1'\], got \['9'\]; see"),
    "itself": (build(insert=0.1, at=[""]), r"got \[''\]; see"),
    "nothing": (build(insert=0.1, at=[]), r"got \[\]; see"),
    "no layer": (
        lambda: mcbn.MCDropout(nn.Sequential(nn.BatchNorm1d(3)), insert=0.1),
        "a dense or convolutional layer in Sequential, got none to put dropout before; name"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_are_refused_in_words(name):
    call, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        call()


def test_the_remedies_work():
    """What the messages say to do."""
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert build(insert=0.1)()(x).shape == (64, 3, 3)
    assert build(nn.Dropout(0.2))()(x).shape == (64, 3, 3)
    alone = nn.Sequential(OrderedDict(layer3=nn.BatchNorm1d(4), layer4=nn.ReLU())).eval()
    assert mcbn.MCDropout(alone, insert=0.1, at=["layer3", "layer4"])(x).shape == (64, 3, 4)


def test_indices_are_no_activations():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    tokens = torch.tensor([[1, 2], [3, 4]])
    with pytest.raises(TypeError, match=r"drop from at '0', got torch.int64; name modules"):
        mcbn.MCDropout(model, insert=0.1, at=["0"])(tokens)
    assert mcbn.MCDropout(model, draws=2, insert=0.1)(tokens).shape == (2, 2, 2, 3)


def test_a_place_without_effect_is_told():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.used(x)

    model = Idle()
    with pytest.warns(UserWarning, match="no dropout layer of the network has an effect"):
        mcbn.MCDropout(model, draws=3, insert=0.1)(torch.ones(2, 4))
