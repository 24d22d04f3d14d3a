"""Test-time augmentation: each draw by hand, rows that depend on nothing else, inverses."""

import random
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from models import examples, make_network, randomized, without_seed
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torchvision.transforms import v2

import mcbn
from mcbn.network.isolation import random_streams
from mcbn.samplers import engines
from mcbn.samplers.augmented import example_digests
from mcbn.tasks.transforms import ExampleStreams

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
EQUAL = "ignore:all .* draws gave the same outputs"
CROP_AND_FLIP = mcbn.Compose(mcbn.RandomShift(2, fill=-1.0), mcbn.RandomFlip())


def pictures():
    """A network for pictures of 3 classes."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(1), nn.Linear(4 * 35, 3)
    )


@pytest.fixture
def model():
    return randomized(without_seed(pictures)).double().eval()


@pytest.fixture
def x():
    return torch.randn(11, 2, 7, 9, generator=torch.Generator().manual_seed(3)).double()


def bank(model, x, draws=5):
    return mcbn.collect(model, mcbn.minibatches(x, batch_size=4, draws=draws))


def noisy(example):
    """Draws from all three streams, so that each has to be seeded."""
    scale = 1 + 0.1 * torch.rand(()).double() + 0.1 * np.random.rand() + 0.1 * random.random()  # noqa: NPY002
    return example * scale


WAYS = {
    "a function": noisy,
    "torchvision": v2.Compose([v2.RandomCrop((7, 9), padding=2), v2.RandomHorizontalFlip()]),
    "a batch at once": CROP_AND_FLIP,
}


@pytest.fixture(params=WAYS)
def transform(request):
    return WAYS[request.param]


def test_a_row_depends_on_its_example_alone(transform, model, x):
    sampler = mcbn.Augmented(model, transform, draws=4, seed=5)
    whole = sampler(x)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
    assert_close(sampler(x[order]), whole[:, order], rtol=1e-12, atol=1e-12)
    for size in (1, 4):
        pieces = torch.cat([sampler(part) for part in x.split(size)], dim=1)
        assert_close(pieces, whole, rtol=1e-12, atol=1e-12)
    assert_close(sampler(torch.cat([x[:2], x[:2]])), whole[:, [0, 1, 0, 1]], rtol=1e-12, atol=1e-12)


def test_draws_examples_and_seeds_have_transforms_of_their_own(transform, x):
    same = nn.Identity()
    first, other = (mcbn.Augmented(same, transform, draws=30, seed=seed)(x) for seed in (0, 1))
    # A batch of the same picture with one number changed: other examples, so other transforms.
    twins = x[:1].repeat(30, 1, 1, 1)
    twins[:, 0, 0, 0] += 1e-9 * torch.arange(30)
    across = mcbn.Augmented(same, transform, draws=1)(twins)[0]
    for rows in (first[:, 0], across, torch.stack([first[:, 0], other[:, 0]], 1).flatten(0, 1)):
        distinct = len({tuple(row.flatten().mul(1e6).round().long().tolist()) for row in rows})
        assert distinct >= 15
    assert_close(mcbn.Augmented(same, transform, draws=30, seed=0)(x), first, rtol=0, atol=0)
    assert_close(mcbn.Augmented(same, transform, draws=7, seed=0)(x), first[:7], rtol=0, atol=0)


def test_a_function_sees_one_example_under_streams_of_seed_draw_and_content(model, x):
    """Against a loop by hand over draws and examples."""
    actual = mcbn.Augmented(model, noisy, draws=3, seed=7)(x)
    for draw in range(3):
        rows = []
        for row, digest in zip(x, example_digests(x), strict=True):
            with random_streams(7, "transform", draw, int(digest)):
                rows.append(noisy(row))
        expected = model(torch.stack(rows)).detach()
        assert_close(actual[draw], expected, rtol=1e-12, atol=1e-12)


def test_digests_depend_on_values_shape_and_type_alone(x):
    whole = example_digests(x)
    assert len(set(whole.tolist())) == 11
    np.testing.assert_array_equal(example_digests(x[3:5].clone()), whole[3:5])
    np.testing.assert_array_equal(example_digests(x.flip(0)), whole[::-1])
    strided = x.transpose(2, 3).contiguous().transpose(2, 3)
    np.testing.assert_array_equal(example_digests(strided), whole)
    for other in (x.float(), x.flatten(1), x.bfloat16(), (x, x), x > 0):
        assert not set(example_digests(other).tolist()) & set(whole.tolist())
    assert len(set(example_digests(torch.arange(5)).tolist())) == 5
    pairs = {"a": x, "b": torch.arange(11)}
    assert len(set(example_digests(pairs).tolist())) == 11


def test_inputs_that_a_transform_writes_into_are_left_as_they_are(model, x):
    before = x.clone()

    def double(example):
        assert example.shape == (2, 7, 9)
        return example.mul_(2)

    with warnings.catch_warnings():
        warnings.filterwarnings(*EQUAL.split(":", 1))
        actual = mcbn.Augmented(model, double, draws=2)(x)
    assert_close(x, before, rtol=0, atol=0)
    assert_close(actual[0], model(2 * x).detach(), rtol=1e-12, atol=1e-12)


def test_flip_of_two_passes_is_the_mean_by_hand(model, x):
    sampler = mcbn.Augmented(model, [nn.Identity(), mcbn.RandomFlip(p=1.0)])
    assert len(sampler) == 2
    with torch.no_grad():
        expected = (model(x).softmax(1) + model(v2.functional.horizontal_flip(x)).softmax(1)) / 2
    for size in (None, 4):
        actual = mcbn.predict(sampler, x, batch_size=size, progress=False).probabilities
        assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("engine", ["auto", "loop", "folded", "batched"])
def test_mcbn_with_augmentation_is_a_loop_of_functional_call(engine, model, x):
    drawn = bank(model, x)
    sampler = mcbn.Augmented(mcbn.MCBatchNorm(model, drawn, engine=engine), CROP_AND_FLIP, seed=2)
    actual = sampler(x)
    assert len(sampler) == 5
    for draw in range(5):
        streams = ExampleStreams.of_draw(example_digests(x), 2, draw)
        transformed, _ = CROP_AND_FLIP.apply(x, streams)
        with torch.no_grad():
            expected = functional_call(model, dict(drawn.state(draw)), (transformed,))
        assert_close(actual[draw], expected, rtol=1e-9, atol=1e-9)


def test_mcbn_with_augmentation_costs_one_pass_a_draw(model, x):
    sampler = mcbn.Augmented(mcbn.MCBatchNorm(model, bank(model, x), engine="loop"), CROP_AND_FLIP)
    sampler(x)
    rows = []
    with model.register_forward_hook(lambda module, args, outputs: rows.append(len(outputs))):
        sampler(x)  # the network is another one with the hook, so it is tried first
        del rows[:]
        sampler(x)
    assert rows == [11] * 5


def test_the_engine_stays_in_use_underneath(model, x, monkeypatch):
    used = []

    def noted(model, plan, *others):
        used.append(plan.engine)
        return planned(model, plan, *others)

    planned = engines.planned_outputs
    monkeypatch.setattr(engines, "planned_outputs", noted)
    mcbn.Augmented(mcbn.MCBatchNorm(model, bank(model, x), engine="folded"), CROP_AND_FLIP)(x)
    assert used == ["folded"] * 5


SAMPLERS = {
    "MCBatchNorm": lambda m, x: mcbn.MCBatchNorm(m, bank(m, x)),
    "of one layer": lambda m, x: mcbn.MCBatchNorm(m, bank(m, x), layers=1),
    "LinearizedBatchNorm": lambda m, x: mcbn.LinearizedBatchNorm(m, bank(m, x), exact=2),
    "MCDropout": lambda m, x: mcbn.MCDropout(nn.Sequential(m, nn.Dropout(0.4)), draws=4, seed=1),
    "MCDropout put in": lambda m, x: mcbn.MCDropout(m, draws=4, seed=1, insert=0.3),
    "DeepEnsemble": lambda m, x: mcbn.DeepEnsemble([m, nn.Sequential(m, nn.Softmax(1))]),
    "Deterministic": lambda m, x: mcbn.Deterministic(m),
    "Augmented": lambda m, x: mcbn.Augmented(m, mcbn.RandomFlip(axis=-2), draws=4),
}


@pytest.mark.parametrize("kind", SAMPLERS)
def test_one_draw_is_that_of_all(kind, model, x):
    """And draw t of the whole is draw t of the sampler on inputs under transform t."""
    sampler = SAMPLERS[kind](model, x)
    every = sampler(x)
    for draw in range(len(sampler)) if hasattr(sampler, "draw") else ():
        assert_close(sampler.draw(draw, x), every[draw], rtol=1e-9, atol=1e-9)
    augmented = mcbn.Augmented(sampler, CROP_AND_FLIP, draws=len(sampler))
    actual = augmented(x)
    for draw in range(len(sampler)):
        transformed, _ = CROP_AND_FLIP.apply(x, ExampleStreams.of_draw(example_digests(x), 0, draw))
        assert_close(actual[draw], sampler(transformed)[draw], rtol=1e-9, atol=1e-9)
        assert_close(augmented.draw(draw, x), actual[draw], rtol=1e-9, atol=1e-9)


class Noise(nn.Module):
    """Noise of its own in every pass, in eval mode too."""

    def forward(self, x):
        return x + torch.rand((), dtype=x.dtype)


@pytest.mark.filterwarnings("ignore:The network's outputs are random")
@pytest.mark.parametrize("kind", ["MCBatchNorm", "MCDropout put in"])
def test_one_draw_of_a_network_with_noise_has_the_noise_of_that_draw(kind, model, x):
    sampler = SAMPLERS[kind](nn.Sequential(Noise(), *model).eval(), x)
    every = sampler(x)
    for draw in range(len(sampler)):
        assert_close(sampler.draw(draw, x), every[draw], rtol=1e-9, atol=1e-9)


def test_a_plan_is_tested_on_several_draws_even_where_one_is_run(model, x, monkeypatch):
    """It is kept for runs of all draws, in which one draw may show in the next."""
    seen = []

    def noted(model, statistics, *others):
        seen.append(len(next(iter(statistics.values()))))
        return tested(model, statistics, *others)

    tested = engines._tested_plan
    monkeypatch.setattr(engines, "_tested_plan", noted)
    mcbn.MCBatchNorm(model, bank(model, x), engine="folded").draw(3, x)
    assert seen == [5]


@pytest.mark.parametrize("kind", [kind for kind in SAMPLERS if kind != "LinearizedBatchNorm"])
@pytest.mark.parametrize("index", [-1, 9])
def test_a_draw_that_is_not_there_is_refused(kind, index, model, x):
    with pytest.raises(ValueError, match=r"expected a draw from 0 to \d, got"):
        SAMPLERS[kind](model, x).draw(index, x)


class Foreign:
    """A sampler of the three methods alone."""

    def __init__(self, count=3, promised=3):
        self.count, self.promised, self.asked = count, promised, 0

    def __len__(self):
        return self.promised

    def passes(self, inputs):
        for draw in range(self.count):
            self.asked += 1
            yield inputs.mean((2, 3)) * (draw + 1)

    def __call__(self, inputs):
        return torch.stack(list(self.passes(inputs)))


def test_a_foreign_sampler_gets_the_same_at_a_higher_cost(x):
    foreign = Foreign()
    actual = mcbn.Augmented(foreign, noisy, seed=1)(x)
    assert foreign.asked == 1 + 2 + 3
    plain = mcbn.Augmented(nn.Flatten(2), noisy, draws=3, seed=1)(x)
    for draw in range(3):
        assert_close(actual[draw], plain[draw].mean(-1) * (draw + 1), rtol=1e-12, atol=1e-12)


def test_a_foreign_sampler_of_fewer_draws_than_it_says_is_refused(x):
    with pytest.raises(ValueError, match=r"expected 3 draws, as len\(\) of the Foreign says"):
        mcbn.Augmented(Foreign(count=2), noisy)(x)


def test_a_multiple_of_the_draws_goes_round(model, x):
    ensemble = SAMPLERS["DeepEnsemble"](model, x)
    actual = mcbn.Augmented(ensemble, CROP_AND_FLIP, draws=6)(x)
    alone = [mcbn.Augmented(member, CROP_AND_FLIP, draws=6)(x) for member in ensemble.models]
    for draw in range(6):
        assert_close(actual[draw], alone[draw % 2][draw], rtol=1e-9, atol=1e-9)


# Inverses.


def dense(padding_mode="zeros", size=1):
    """Scores of 3 classes for each position; of size 1 it is equivariant to all that moves."""
    build = partial(nn.Conv2d, 2, 3, size, padding=size // 2, padding_mode=padding_mode)
    return randomized(without_seed(build)).double().eval()


MOVES = {
    "flip": mcbn.RandomFlip(),
    "flip up and down": mcbn.RandomFlip(axis=-2),
    "shift": mcbn.RandomShift((3, 4), border="circular"),
    "all": mcbn.Compose(
        mcbn.RandomShift(3, border="circular"), mcbn.RandomFlip(), mcbn.RandomFlip(0.3, axis=-2)
    ),
}


@pytest.mark.filterwarnings(EQUAL)
@pytest.mark.parametrize("name", MOVES)
def test_an_equivariant_network_gives_equal_draws(name, x):
    """And one that is not gives others, so the draws are not the plain outputs in any case."""
    model = dense()
    expected = mcbn.Deterministic(model)(x).expand(8, -1, -1, -1, -1)
    sampler = mcbn.Augmented(model, MOVES[name], draws=8)
    assert_close(sampler(x), expected, rtol=1e-12, atol=1e-12)
    kept = mcbn.Augmented(model, MOVES[name], draws=8, inverse=lambda outputs, parameters: outputs)
    assert (kept(x) - expected).abs().max() > 0.1
    other = mcbn.Augmented(dense(size=3), MOVES[name], draws=8)(x)
    assert (other - other[:1]).abs().max() > 0.1


def test_a_circular_convolution_is_equivariant_to_circular_shifts(x):
    model = dense("circular", 3)
    sampler = mcbn.Augmented(model, MOVES["shift"], draws=8)
    expected = mcbn.Deterministic(model)(x).expand(8, -1, -1, -1, -1)
    with warnings.catch_warnings():
        warnings.filterwarnings(*EQUAL.split(":", 1))
        assert_close(sampler(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings(EQUAL)
def test_an_inverse_of_one_example_gets_its_parameters(x):
    def turn(example):
        quarters = random.randrange(4)
        return torch.rot90(example, 2 * quarters, (-2, -1)), quarters

    def turn_back(outputs, quarters):
        assert outputs.shape == (3, 7, 9)
        return torch.rot90(outputs, -2 * quarters, (-2, -1))

    model = dense()
    expected = mcbn.Deterministic(model)(x).expand(8, -1, -1, -1, -1)
    actual = mcbn.Augmented(model, turn, draws=8, inverse=turn_back)(x)
    assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    kept = mcbn.Augmented(model, turn, draws=8, inverse=lambda outputs, quarters: outputs)(x)
    assert (kept - expected).abs().max() > 0.1


@pytest.mark.filterwarnings(EQUAL)
def test_a_real_target_changes_its_sign_with_a_flip(x):
    class Steering(nn.Module):
        """An odd function of left and right."""

        def forward(self, pictures):
            return (pictures - pictures.flip(-1)).cumsum(-1).pow(3).sum((1, 2))[:, :2]

    def flip(example):
        flipped = bool(torch.rand(()) < 0.5)
        return (example.flip(-1) if flipped else example), flipped

    odd = mcbn.Augmented(
        Steering(), flip, draws=8, inverse=lambda angle, flipped: -angle if flipped else angle
    )
    even = mcbn.Augmented(nn.Sequential(Steering()), lambda example: flip(example)[0], draws=8)
    plain = Steering()(x)
    # The picture as it is or flipped: the angle, or that of the mirror image with its sign changed.
    mirrored = -Steering()(x.flip(-1))
    for row in odd(x):
        near = [(row - choice).abs().amax(1) < 1e-9 for choice in (plain, mirrored)]
        assert bool((near[0] | near[1]).all())
    assert (even(x) - odd(x)).abs().max() > 0.1


def test_the_parameters_of_torchvision_reach_the_inverse(x):
    crop = v2.RandomCrop((7, 9), padding=2)
    seen = []

    def transform(example):
        parameters = crop.make_params([example])
        return crop.transform(example, parameters), parameters

    def inverse(outputs, parameters):
        seen.append((parameters["top"], parameters["left"]))
        return outputs

    paired = mcbn.Augmented(nn.Flatten(1), transform, draws=3, inverse=inverse)(x)
    assert_close(paired, mcbn.Augmented(nn.Flatten(1), crop, draws=3)(x), rtol=0, atol=0)
    assert len(set(seen)) > 5


def test_pictures_may_be_given_as_bytes_and_normalised_in_the_transform():
    stored = torch.randint(256, (5, 3, 6, 6), generator=torch.Generator().manual_seed(0)).byte()
    scaled = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.2] * 3)]
    sampler = mcbn.Augmented(nn.Flatten(1), v2.Compose([v2.RandomHorizontalFlip(), *scaled]))
    plain = ((stored / 255 - 0.5) / 0.2).flatten(1)
    mirrored = ((stored.flip(-1) / 255 - 0.5) / 0.2).flatten(1)
    found = sampler(stored)
    flipped = (found - mirrored).abs().amax(-1) < 1e-5
    assert bool((flipped | ((found - plain).abs().amax(-1) < 1e-5)).all())
    assert 20 < int(flipped.sum()) < 60


def test_several_inputs_are_transformed_together(x):
    class Sum(nn.Module):
        def forward(self, left, right):
            return left.flatten(1) - right.flatten(1)

    def scaled(example):
        left, right = example
        factor = random.random()
        return left * factor, right * factor

    with pytest.warns(UserWarning, match="same outputs"):
        found = mcbn.Augmented(Sum(), scaled, draws=2)((x, x))
    assert_close(found, torch.zeros_like(found), rtol=0, atol=0)
    assert (mcbn.Augmented(Sum(), scaled, draws=2)((x, 0 * x)) != 0).any()


def test_equal_draws_are_told(model, x):
    with pytest.warns(UserWarning, match="all 3 draws gave the same outputs.*the transforms leave"):
        mcbn.Augmented(model, nn.Identity(), draws=3)(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mcbn.Augmented(model, nn.Identity(), draws=1)(x)


def test_wrappers_and_data_are_those_of_predict(model, x):
    """The networks underneath are known to predict, which asks how they treat a batch."""
    sampler = mcbn.Augmented(mcbn.MCBatchNorm(model, bank(model, x)), CROP_AND_FLIP)
    assert sampler.models == (model,)
    ensemble = mcbn.DeepEnsemble([model, model])
    assert mcbn.Augmented(ensemble, CROP_AND_FLIP).models == (model, model)
    assert mcbn.Augmented(Foreign(), CROP_AND_FLIP).models == ()
    sigmoid = nn.Sequential(model, nn.Sigmoid())
    with pytest.raises(ValueError, match="the outputs of a sigmoid"):
        mcbn.predict(mcbn.Augmented(sigmoid, CROP_AND_FLIP, draws=2), x, progress=False)


def test_a_task_tells_what_training_examples_went_through(model, x):
    task = replace(TASK, augmentation=CROP_AND_FLIP)
    found = mcbn.Augmented(model, task, draws=3, seed=4)
    assert found.transform is CROP_AND_FLIP
    assert_close(found(x), mcbn.Augmented(model, CROP_AND_FLIP, draws=3, seed=4)(x))


def mixed(example):
    return example[:, : 5 + random.randrange(2)]


TASK = mcbn.Task(*[(examples("2d", 4), torch.arange(4))] * 3)
REFUSED = {
    "a task": (lambda m, x: mcbn.Augmented(m, TASK), TypeError, "the Task 'task', which does not"),
    "no transform": (lambda m, x: mcbn.Augmented(m, None), TypeError, "got NoneType; give a f"),
    "a name": (lambda m, x: mcbn.Augmented(m, "flip"), TypeError, "got str; give a function"),
    "one of a list": (
        lambda m, x: mcbn.Augmented(m, [noisy, 3]), TypeError, "got int; give a function"),
    "no sampler": (
        lambda m, x: mcbn.Augmented("net.pt", noisy), TypeError, "a sampler or a network, got str"),
    "no draws": (lambda m, x: mcbn.Augmented(m, noisy, draws=0), ValueError, "got 0; give draws=1"),
    "draws between": (
        lambda m, x: mcbn.Augmented(Foreign(), noisy, draws=4), ValueError,
        "draws up to the 3 of the sampler, or a multiple, got 4; give draws=3"),
    "a list of another length": (
        lambda m, x: mcbn.Augmented(Foreign(), [noisy] * 2), ValueError,
        "for each of 3 draws, got a list of 2; repeat"),
    "an empty list": (
        lambda m, x: mcbn.Augmented(m, []), ValueError, "of 16 draws, got a list of 0"),
    "an inverse that is none": (
        lambda m, x: mcbn.Augmented(m, noisy, inverse=1), TypeError, "expected inverse= to be a"),
    "no pair": (
        lambda m, x: mcbn.Augmented(m, noisy, inverse=lambda o, p: o)(x), TypeError,
        "the example and its parameters, since there is an inverse, got Tensor; return"),
    "other shapes": (
        lambda m, x: mcbn.Augmented(m, mixed)(x), ValueError,
        r"of one shape, got \(2, [56], 9\) and \(2, [56], 9\); end the"),
    "no tensors": (
        lambda m, x: mcbn.Augmented(m, lambda e: e.numpy())(x), TypeError,
        "a transform that returns tensors, got ndarray; end it"),
    "no rows": (
        lambda m, x: mcbn.Augmented(m, noisy)((x, x[:3])), TypeError, "one row per example"),
    "not finite": (
        lambda m, x: mcbn.Augmented(m, noisy)(x / 0), ValueError, "finite numbers in the inputs"),
    "several inputs at once": (
        lambda m, x: mcbn.Augmented(m, CROP_AND_FLIP)((x, x)), ValueError,
        "in one tensor with 2 or more axes behind the first, got tuple; give transform= a"),
    "outputs of all": (
        lambda m, x: mcbn.Augmented(
            nn.Flatten(0), lambda e: (e, None), inverse=lambda o, p: o)(x),
        ValueError, r"one output per example, .* got shape \(1386,\) for 11 examples"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.unchecked
def test_mistakes_are_refused_in_words(name, model, x):
    call, error, reason = REFUSED[name]
    with pytest.raises(error, match=reason):
        call(model, x)


def test_weights_of_a_network_are_checked():
    model = make_network("2d")
    with torch.no_grad():
        model.mix.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"mix\.bias"):
        mcbn.Augmented(model, noisy)
