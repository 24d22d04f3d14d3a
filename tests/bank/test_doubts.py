"""What in the draws of a bank speaks against rescaling them, said by layer."""

import warnings

import pytest
import torch

import mcbn

EPSILON = 1e-5


def bank(*, draws=200, size=32.0, spread=0.1, bias=0.0, dead=0, layers=2):
    """Log-normal variances and normal means in some layers of 40 channels; the last is special."""
    generator, means = torch.Generator().manual_seed(0), 32**-0.5
    statistics, biases, epsilon = {}, {}, {}
    for layer in range(layers):
        last = layer == layers - 1
        normal = torch.randn(2, draws, 40, dtype=torch.float64, generator=generator)
        mean, variance = f"{layer}.running_mean", f"{layer}.running_var"
        statistics[mean] = means * normal[0]
        statistics[variance] = ((spread if last else 0.1) * normal[1]).exp()
        if last and dead:
            statistics[variance][::2, :dead] = 0.0
        epsilon[variance] = EPSILON
        biases[mean] = torch.full((40,), bias * means if last else 0.0, dtype=torch.float64)
        biases[variance] = torch.zeros(40, dtype=torch.float64)
    return mcbn.Bank(statistics, {}, size, epsilon=epsilon, bias=biases)


def reasons(a_bank, size):
    found = a_bank.doubts(size)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        a_bank.rescale(size)
    assert [str(each.message) for each in said] == [f"{each} (MCBN127)" for each in found]
    assert {each.category for each in said} <= {mcbn.RescalingWarning}
    for each in found:
        assert f"collect a bank at {size:g} to be sure" in each
    return " ".join(found)


@pytest.mark.parametrize("size", [16, 20, 31, 64, 128])
def test_nothing_is_said_where_nothing_speaks_against_it(size):
    assert reasons(bank(), size) == ""


@pytest.mark.parametrize("size", [4, 15, 130, 1000])
def test_a_size_far_from_its_own_is_told(size):
    assert "not between 0.5 and 4 times as many" in reasons(bank(), size)


@pytest.mark.parametrize("size", [16, 64])
def test_variances_that_spread_widely_are_told_by_layer(size):
    assert "the variances of '1' spread widely" in reasons(bank(spread=0.8), size)
    assert reasons(bank(spread=0.8), 33) == ""


def test_downwards_it_is_the_spread_of_the_smaller_batches_that_counts():
    assert reasons(bank(spread=0.25), 64) == ""
    assert "over draws of 16, by about 0.3" in reasons(bank(spread=0.25), 16)


def test_dead_channels_are_told_with_their_number():
    """Upwards, where they are merged, only if they are more than a tenth of a layer."""
    assert "3 channels, of '1', are dead in some draws" in reasons(bank(dead=3), 20)
    assert reasons(bank(dead=3), 64) == ""
    assert "8 channels, of '1', are dead in some draws" in reasons(bank(dead=8), 64)


def test_means_off_their_limit_are_told_downwards():
    said = reasons(bank(bias=0.5), 20)
    assert "the means of '1' are 0.5 standard deviations of a draw off their limit" in said
    assert reasons(bank(bias=0.5), 64) == ""
    assert reasons(bank(bias=0.2), 20) == ""


def test_draws_that_do_not_survive_merging_and_back_are_told_downwards():
    """A spread that is all in a few draws does not come back from their averages."""
    whole = bank()
    rows = whole.statistics["1.running_var"]
    rows[:] = 1.0
    rows[::20] = 0.2
    assert "merged and rescaled back" in reasons(whole, 20)


@pytest.mark.parametrize(("layers", "told"), [(1, False), (3, True)])
def test_an_unknown_limit_is_told_where_there_are_deep_layers(layers, told):
    plain = bank(layers=layers)
    unknown = mcbn.Bank(plain.statistics, {}, 32, epsilon=plain.epsilon)
    assert ("collect with limit=512" in reasons(unknown, 64)) == told


def test_others_are_counted_and_a_nameless_layer_is_the_network():
    wide = bank(spread=0.8, layers=1)
    three = {f"{i}{name[1:]}": rows for i in range(3) for name, rows in wide.statistics.items()}
    both = mcbn.Bank(three, {}, 32, bias={"0.running_mean": torch.zeros(40)})
    assert "and 2 others" in " ".join(both.doubts(64))
    alone = {name[2:]: rows for name, rows in wide.statistics.items()}
    assert "'the network'" in " ".join(mcbn.Bank(alone, {}, 32).doubts(64))


def test_warnings_can_be_left_to_the_caller():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bank().rescale(1000, warn=False)


def test_a_size_with_gradients_is_doubted_as_a_number():
    size = torch.tensor(1000.0, dtype=torch.float64, requires_grad=True)
    assert bank().doubts(size) == bank().doubts(1000)
