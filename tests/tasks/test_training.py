"""Training: repeatable, on whole batches, with clear errors."""

import inspect
import io
import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from mcbn.tasks import datasets, networks, training


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    # On a busy machine, threads that wait for each other are many times slower.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def points(count=64):
    stream = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 4, generator=stream)
    return datasets.LabeledData(inputs, (inputs[:, 0] > 0).long())


def small(seed=0, outputs=2):
    return training.build(lambda: networks.mlp(4, outputs, width=8), seed=seed)


def state(model):
    return torch.cat([values.flatten().double() for values in model.state_dict().values()])


def accuracy(model, part):
    with torch.no_grad():
        return float((model(part.inputs).argmax(1) == part.targets).float().mean())


def test_build_gives_weights_of_the_seed():
    assert torch.equal(state(small(1)), state(small(1)))
    assert not torch.equal(state(small(1)), state(small(2)))


def test_build_returns_what_the_builder_returns():
    made = nn.Identity()
    assert training.build(lambda: made, seed=0) is made


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_equal_seeds_give_equal_weights_whatever_the_global_stream(loss):
    points_ = points()
    if loss == "mse":
        points_ = datasets.LabeledData(points_.inputs, points_.inputs[:, :2])

    def run(seed, stream):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream)
            model = training.train(small(), points_, epochs=2, batch_size=8, seed=seed, loss=loss)
        return state(model)

    assert torch.equal(run(0, stream=1), run(0, stream=2))
    assert not torch.equal(run(0, stream=1), run(1, stream=1))


def test_the_seed_moves_the_order():
    def run(seed):
        model = training.build(lambda: networks.mlp(4, 2, width=8, dropout=0.0), seed=0)
        return state(training.train(model, points(), epochs=1, batch_size=8, seed=seed))

    assert (run(0) - run(1)).abs().max() > 1e-4


def test_the_seed_moves_the_dropout_masks():
    # Examples that are all alike have no order.
    alike = datasets.LabeledData(torch.ones(16, 4), torch.ones(16).long())

    def run(seed):
        model = training.build(
            lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)), seed=0
        )
        return state(training.train(model, alike, epochs=2, batch_size=4, seed=seed))

    assert (run(0) - run(1)).abs().max() > 1e-4


def test_train_leaves_the_global_streams_and_returns_the_same_model_in_eval_mode():
    before = torch.get_rng_state()
    model = small().train()
    assert training.train(model, points(), epochs=1, batch_size=8) is model
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before)


class Recorder(nn.Module):
    """Keeps the batches it is trained on."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)
        self.seen = []

    def forward(self, inputs):
        if self.training:
            self.seen.append(inputs[:, 0].int().tolist())
        return self.head(inputs)


def test_batches_are_whole_and_shuffled_anew_each_epoch():
    part = datasets.LabeledData(torch.arange(11.0)[:, None], torch.zeros(11).long())
    model = training.build(Recorder, seed=0)
    training.train(model, part, epochs=30, batch_size=4)
    assert [len(batch) for batch in model.seen] == [4] * 60
    epochs = [one + two for one, two in zip(model.seen[::2], model.seen[1::2], strict=True)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 30
    # The examples left over differ between epochs, so all are seen.
    assert {example for epoch in epochs for example in epoch} == set(range(11))


def test_a_linear_fit_is_that_of_least_squares():
    stream = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 3, generator=stream, dtype=torch.float64)
    noise = torch.randn(256, 1, generator=stream, dtype=torch.float64)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + noise
    model = training.build(lambda: nn.Linear(3, 1, bias=False).double(), seed=0)
    pairs = datasets.LabeledData(inputs, targets)
    training.train(
        model,
        pairs,
        epochs=300,
        batch_size=256,
        learning_rate=0.1,
        weight_decay=0.0,
        loss="mse",
    )
    exact = torch.linalg.lstsq(inputs, targets).solution
    torch.testing.assert_close(model.weight.T, exact, rtol=0, atol=1e-4)


def test_weight_decay_shrinks_the_weights():
    def size(decay):
        model = training.train(small(), points(), epochs=20, batch_size=16, weight_decay=decay)
        return float(sum(values.detach().square().sum() for values in model.parameters()))

    assert size(10.0) < 0.5 * size(0.0)


def test_digits_are_learnt_in_a_few_epochs():
    task = datasets.digits()
    model = training.build(lambda: networks.convnet(1, 10), seed=0)
    training.train(model, task.train, epochs=8, batch_size=32)
    assert accuracy(model, task.test) >= 0.97


@pytest.mark.parametrize("batch_size", [8, 256])
def test_small_and_large_batches_learn_the_digits(batch_size):
    task = datasets.digits()
    parts = [datasets.LabeledData(p.inputs.flatten(1), p.targets) for p in (task.train, task.test)]
    model = training.build(lambda: networks.mlp(64, 10), seed=0)
    training.train(model, parts[0], epochs=20 if batch_size > 8 else 6, batch_size=batch_size)
    assert accuracy(model, parts[1]) >= 0.95


def test_unlabelled_positions_are_left_out():
    stream = torch.Generator().manual_seed(0)
    images = torch.randn(16, 1, 8, 8, generator=stream)
    targets = (images[:, 0] > 0).long()
    marked = targets.clone()
    marked[:, :4] = training.IGNORED
    model = training.build(lambda: networks.unet(1, 2, width=4), seed=0)
    training.train(model, datasets.LabeledData(images, marked), epochs=20, batch_size=4)
    assert accuracy(model, datasets.LabeledData(images[:, :, 4:], targets[:, 4:])) > 0.9


def test_a_diverging_run_names_the_epoch_and_the_remedy():
    class Exploding(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.calls = nn.Linear(4, 2), 0

        def forward(self, inputs):
            self.calls += self.training
            return self.head(inputs) * (math.nan if self.calls == 17 else 1)

    model = training.build(Exploding, seed=0)
    with pytest.raises(ValueError, match="in epoch 3; lower learning_rate"):
        training.train(model, points(), epochs=5, batch_size=8)
    assert not model.training


def test_a_loss_that_overflows_is_refused_though_the_weights_stay_finite():
    """Adam divides by the squared gradient, so an infinite one moves nothing."""
    huge = datasets.LabeledData(points().inputs, torch.full((64, 2), 1e30))
    with pytest.raises(ValueError, match="in epoch 1; lower learning_rate"):
        training.train(small(), huge, epochs=1, batch_size=64, loss="mse")


def test_weights_that_overflow_in_the_last_step_are_refused():
    with pytest.raises(ValueError, match="in epoch 1; lower learning_rate"):
        training.train(
            small(), points(), epochs=1, batch_size=64, learning_rate=1e38, weight_decay=1e38
        )


def with_nan(part):
    inputs = part.inputs.clone()
    inputs[3, 2] = math.nan
    return datasets.LabeledData(inputs, part.targets)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "at least 1 epoch, got 0"),
        ({"batch_size": 65}, ValueError, "from 1 to the 64 examples, got 65"),
        ({"batch_size": 0}, ValueError, "from 1 to the 64 examples, got 0"),
        ({"learning_rate": 0.0}, ValueError, "positive learning_rate, got 0"),
        ({"learning_rate": math.nan}, ValueError, "positive learning_rate, got nan"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay of at least 0, got -1"),
        ({"seed": -1}, ValueError, "seed"),
        ({"loss": "hinge"}, ValueError, "expected loss to be one of .*got 'hinge'"),
        ({"loss": "mse"}, ValueError, "same shape, got"),
        ({"data": with_nan(points())}, ValueError, r"data.inputs.*index \(3, 2\)"),
        (
            {"data": datasets.LabeledData(points().inputs, points().targets + 1)},
            ValueError,
            "labels from 0 to 1, got 2",
        ),
        (
            {"data": datasets.LabeledData(points().inputs, points().inputs[:, 0])},
            TypeError,
            r"Int|integer",
        ),
        (
            {"data": datasets.LabeledData(points().inputs, points().targets[:, None])},
            ValueError,
            r"shape \(1,\) for one example, got \(1, 1\)",
        ),
    ],
)
def test_bad_arguments_are_refused_before_a_step(change, error, message):
    model = small()
    before = state(model)
    # Unwrapped, because the type checks of the test run would refuse some of it first.
    plain = inspect.unwrap(training.train)
    arguments = {"data": points(), "epochs": 1, "batch_size": 8} | change
    with pytest.raises(error, match=message):
        plain(model, **arguments)
    assert torch.equal(state(model), before)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "stream", "shown"),
    [(True, Terminal, True), (False, Terminal, False), (True, io.StringIO, False)],
)
def test_the_bar_is_shown_on_request_on_a_terminal(monkeypatch, progress, stream, shown):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr("mcbn.io.progress.DELAY_SECONDS", 0)
    training.train(small(), points(), epochs=2, batch_size=32, progress=progress)
    assert ("training" in sys.stderr.getvalue()) == shown


def test_train_mode_statistics_are_those_of_batches_of_the_given_size():
    """One step from fresh statistics: running mean = momentum times the mean of the only batch."""
    model = small()
    part = points()
    weight = model[0].weight.detach().clone()
    training.train(model, part, epochs=1, batch_size=64)
    expected = 0.1 * functional.linear(part.inputs, weight).mean(0)
    torch.testing.assert_close(model[1].running_mean, expected)
    assert int(model[1].num_batches_tracked) == 1
