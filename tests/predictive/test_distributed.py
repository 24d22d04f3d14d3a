"""Prediction by two processes: the numbers of one, and no process left waiting."""

import datetime
import inspect
import os
import re
import sys
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from models import examples, make_network, randomized, without_seed
from torch import nn
from torch.testing import assert_close
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
)

import mcbn
from mcbn.predictive.distributed import predict_distributed

pytestmark = pytest.mark.unchecked

NAME = "1d of 2-D"
WORLD = 2
SECONDS = 100


def sampled(model, x, draws=5):
    with warnings.catch_warnings():
        # The running statistics are random on purpose.
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
        bank = mcbn.collect(model, mcbn.minibatches(x, batch_size=8, draws=draws))
    return mcbn.MCBatchNorm(model, bank)


def flat(draws=5):
    return sampled(make_network(NAME), examples(NAME, 60), draws)


def dense():
    """A network that answers at each position."""

    def build():
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))

    return sampled(randomized(without_seed(build)).double().eval(), examples("2d", 40))


def far_apart():
    """Logits so large that probabilities underflow."""
    sampler = flat()
    with torch.no_grad():
        sampler.model[-1].weight.mul_(1000.0)
    return sampled(sampler.model, examples(NAME, 60))


def ensemble():
    return mcbn.DeepEnsemble([randomized(make_network(NAME), seed) for seed in range(3)])


class Augmented(Dataset):
    """Examples whose transform draws from the global stream, as image transforms do."""

    def __len__(self):
        return 37

    def __getitem__(self, index):
        return examples(NAME, 37)[index] + torch.randn(4).double()


class Stream(IterableDataset):
    def __iter__(self):
        return iter(examples(NAME, 8))


def rows(count=37):
    return examples(NAME, count, seed=8)


def batch_sampled(data):
    order = BatchSampler(SequentialSampler(data), 7, drop_last=False)
    return DataLoader(data, batch_sampler=order)


# Each: how to make the sampler, the data, the likelihood and the options.
RUNS = {
    "classes": lambda: (flat(), rows(), "categorical", {"batch_size": 8}),
    "real": lambda: (flat(), rows(), mcbn.Gaussian(precision=2.0), {"batch_size": 8}),
    "own noise": lambda: (sampled(*noisy()), rows(), mcbn.Gaussian(), {"batch_size": 8}),
    "positions": lambda: (dense(), examples("2d", 9, seed=8), "categorical", {"batch_size": 2}),
    "underflow": lambda: (far_apart(), rows(), "categorical", {"batch_size": 8}),
    "one example": lambda: (flat(), rows(1), "categorical", {}),
    "one draw": lambda: (flat(draws=1), rows(), "categorical", {"batch_size": 8}),
    "ensemble": lambda: (ensemble(), rows(), "categorical", {"batch_size": 8}),
    "transforms": lambda: (flat(), Augmented(), "categorical", {"batch_size": 8}),
    "loader": lambda: (flat(), batch_sampled(TensorDataset(rows())), "categorical", {}),
    "inputs": lambda: (flat(), TensorDataset(torch.arange(37), rows()), "categorical",
                       {"select": lambda batch: batch[1], "batch_size": 8}),
}  # fmt: skip


def noisy():
    def build():
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))

    return randomized(without_seed(build)).double().eval(), examples(NAME, 60)


def predicted(run, group=None):
    sampler, data, likelihood, options = RUNS[run]()
    return predict_distributed(sampler, data, likelihood, group=group, **options)


def error_of(call):
    """The error's type and message, as a process reports them."""
    try:
        call()
    except (ValueError, TypeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def broken_on(rank):
    data = rows()
    if dist.get_rank() == rank:
        data[5, 2] = float("nan")
        data[30, 2] = float("nan")
    return predict_distributed(flat(), data, batch_size=8)


def of_other_length():
    return predict_distributed(flat(), rows(37 + dist.get_rank()))


def already_shared():
    data = TensorDataset(rows())
    return predict_distributed(
        flat(), DataLoader(data, sampler=DistributedSampler(data, shuffle=False))
    )


REFUSALS = {
    "second failing": lambda: broken_on(1),
    "first failing": lambda: broken_on(0),
    "other arguments": of_other_length,
    "a stream": lambda: predict_distributed(flat(), Stream()),
    "no batch size": lambda: predict_distributed(
        flat(), DataLoader(TensorDataset(rows()), batch_size=None)
    ),
    "shuffled": lambda: predict_distributed(
        flat(), DataLoader(TensorDataset(rows()), shuffle=True)
    ),
    "already shared": already_shared,
    "no sampler": lambda: inspect.unwrap(predict_distributed)(make_network(NAME), rows()),
    "no data": lambda: predict_distributed(flat(), rows(0)),
}


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def left_unchanged():
    sampler = flat()
    sampler.model.train()
    before, stream = state_of(sampler.model), torch.get_rng_state()
    predict_distributed(sampler, rows())
    assert_close(state_of(sampler.model), before, rtol=0, atol=0)
    assert all(module.training for module in sampler.model.modules())
    assert not any(module._forward_hooks for module in sampler.model.modules())
    assert torch.equal(torch.get_rng_state(), stream)
    return "unchanged"


def subgroup():
    """A group of the second process alone."""
    group = dist.new_group([1])
    if dist.get_rank() == 0:
        return error_of(lambda: predicted("classes", group))
    return predicted("classes", group)


def on_own_device():
    """The rows, predicted by a network on a device of the process, as on one GPU a process."""
    # Names the device for the whole process, so it is left to the last.
    from second_device import DEVICE  # noqa: PLC0415

    sampler = flat()
    sampler.model.to(DEVICE)
    assert sampler(rows(2)).device == DEVICE
    return predict_distributed(sampler, rows(), batch_size=8)


def process(rank, folder):
    """All that one process does; its results go to a file."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(os.path.join(folder, "store"), WORLD),
        rank=rank,
        world_size=WORLD,
        timeout=datetime.timedelta(seconds=SECONDS),
    )
    results = {run: vars(predicted(run)) for run in RUNS}
    results |= {refusal: error_of(call) for refusal, call in REFUSALS.items()}
    results["left"] = left_unchanged()
    alone = subgroup()
    results["subgroup"] = alone if rank == 0 else vars(alone)
    results["device"] = vars(on_own_device())
    torch.save(results, os.path.join(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each of two processes returned."""
    folder = str(tmp_path_factory.mktemp("processes"))
    context = torch.multiprocessing.spawn(process, (folder,), nprocs=WORLD, join=False)
    deadline = datetime.datetime.now() + datetime.timedelta(seconds=2 * SECONDS)
    while not context.join(timeout=5, grace_period=5):
        if datetime.datetime.now() > deadline:
            for each in context.processes:
                each.kill()
            pytest.fail("the processes wait for each other")
    return [torch.load(os.path.join(folder, f"{rank}.pt")) for rank in range(WORLD)]


def same(first, second, tolerance):
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, torch.Tensor):
            assert_close(value, second[name], rtol=tolerance, atol=tolerance)
        else:
            assert value == second[name]


def alone(run):
    sampler, data, likelihood, options = RUNS[run]()
    return vars(mcbn.predict(sampler, data, likelihood, **options))


@pytest.mark.parametrize("run", RUNS)
def test_every_process_gets_the_bits_of_one_process(run, results):
    expected = alone(run)
    for rank in range(WORLD):
        same(results[rank][run], expected, 0.0)


MESSAGES = {
    "second failing": "RuntimeError: expected every .* in process 1: ValueError: .*the inputs",
    "first failing": "RuntimeError: expected every .* in process 0: ValueError: .*the inputs",
    "other arguments": "ValueError: expected the same .* 37.* in process 0 and .* 38.* process 1",
    "a stream": "expected data in a known number of batches",
    "no batch size": "expected data in a known number of batches",
    "shuffled": "error in process 0: ValueError: expected a loader in a fixed order",
    "already shared": "DistributedSampler.*give the data set itself",
    "no sampler": "error in process 0: TypeError: expected a sampler",
    "no data": "ValueError: expected at least one example to predict",
}


@pytest.mark.parametrize("refusal", MESSAGES)
def test_an_error_in_one_process_is_raised_in_all(refusal, results):
    for rank in range(WORLD):
        assert re.search(MESSAGES[refusal], results[rank][refusal])


def test_the_model_its_modes_and_random_streams_are_left_unchanged(results):
    assert all(results[rank]["left"] == "unchanged" for rank in range(WORLD))


def test_a_group_of_some_processes(results):
    assert "expected a process of the group, got one that is not in it" in results[0]["subgroup"]
    same(results[1]["subgroup"], alone("classes"), 0.0)


def test_networks_on_a_device_of_each_process_give_the_bits_of_the_cpu(results):
    for rank in range(WORLD):
        same(results[rank]["device"], alone("classes"), 0.0)
        assert results[rank]["device"]["log_probabilities"].device.type == "cpu"


def test_without_a_process_group_the_remedy_is_named():
    with pytest.raises(ValueError, match=r"got none; .*torchrun.*init_process_group"):
        predict_distributed(flat(), rows())


def test_batches_come_one_by_one_and_join_to_the_whole():
    sampler, x = flat(), rows()
    parts = list(mcbn.predict_batches(sampler, x, batch_size=8))
    assert [len(part) for part in parts] == [8, 8, 8, 8, 5]
    joined = mcbn.Categorical().join(parts)
    same(vars(joined), vars(mcbn.predict(sampler, x, batch_size=8)), 0.0)


def test_a_half_used_iterator_leaves_nothing_switched():
    # The random streams are checked after each test, in conftest.
    sampler = flat()
    sampler.model.train()
    stream = mcbn.predict_batches(sampler, rows(), batch_size=8)
    next(stream)
    assert torch.is_grad_enabled()
    assert sampler.model.training
    stream.close()


def test_batches_are_asked_for_one_at_a_time():
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield rows(1)[0]

    stream = mcbn.predict_batches(flat(), Endless(), batch_size=3)
    assert [len(next(stream)) for _ in range(4)] == [3] * 4
    stream.close()


@pytest.mark.unchecked
def test_an_unknown_kind_of_data_is_refused_at_once():
    with pytest.raises(TypeError, match="expected a tensor, an array, a data frame, a Dataset or"):
        inspect.unwrap(mcbn.predict_batches)(flat(), [1.0])
