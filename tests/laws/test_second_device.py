"""A second device: every public call works there, and gives the processor's numbers to the bit.

The device is made in Python, with the kernels of the processor (tests/helpers/second_device.py).
"""

import copy
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch
import torch.distributed as dist
from command_lines import run
from models import CASES, examples, make_network, without_seed
from public_calls import CALLS, VALUES, Place, plainly, with_network
from second_device import BACKEND, DEVICE
from tiny import Here, smallest
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.predictive.gaussian import Moments
from mcbn.tasks import networks

HERE = Place()
# All on the device, as after `x.cuda()`; or the network alone, as with a loader of the processor's.
PLACES = {"all": Place(DEVICE, DEVICE), "network": Place(DEVICE)}
# What asks for the processor, with the message that says so.
REFUSED = {"export": "expected a network on the CPU, got one on toy:0; move it with model.cpu()"}

pytestmark = [
    pytest.mark.unchecked,
    pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning"),
]


@pytest.fixture(autouse=True)
def no_group_left():
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def segmented(at):
    """A U-Net, images and a map of classes with pixels that are not labelled."""
    model = without_seed(lambda: networks.unet(2, 3, width=4)).double().to(at.networks)
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(12, 2, 8, 8, dtype=torch.float64, generator=generator)
    targets = torch.randint(-1, 3, (12, 8, 8), generator=generator)
    bank = mcbn.collect(model, mcbn.minibatches(images, batch_size=6, draws=4))
    return model, bank, images.to(at.examples), targets.to(at.examples)


def images_by(engine):
    def call(at):
        model, bank, images, targets = segmented(at)
        found = mcbn.predict(mcbn.MCBatchNorm(model, bank, engine=engine), images)
        return found, mcbn.evaluate(found, targets, ignore_index=-1, resamples=4).to_dict()

    return call


def some_layers(at):
    model, bank, images, _ = segmented(at)
    return mcbn.MCBatchNorm(model, bank, layers=2)(images)


def linearized_images(at):
    model, bank, images, _ = segmented(at)
    sampler = mcbn.LinearizedBatchNorm(model, bank, output=lambda maps: maps.mean((2, 3)))
    return sampler(images), sampler.linearity(images, draws=2)


def by_batches(at):
    model, bank, images, targets = segmented(at)
    pairs = DataLoader(TensorDataset(images, targets), batch_size=5)
    return mcbn.evaluate_batches(
        mcbn.MCBatchNorm(model, bank), pairs, ignore_index=-1, resamples=4
    ).to_dict()


def regression(at, outputs=2):
    """Predictions of real values by a network that gives its own noise, and targets."""
    model = without_seed(lambda: networks.mlp(4, 2 * outputs, width=5)).double().to(at.networks)
    bank = at.bank(model)
    found = mcbn.predict(mcbn.MCBatchNorm(model, bank), at.x, mcbn.Gaussian())
    return found, at.x[:, :outputs].clone()


def real_values(at):
    found, targets = regression(at)
    moments = Moments.from_predictive(found)
    return (
        mcbn.evaluate(found, targets, resamples=4, group=at.y).to_dict(),
        found.crps(targets), found.crps_moment_matched(targets), found.cdf(targets),
        found.log_prob(targets), found.interval(0.9), found.in_units(1.0, 2.0),
        moments.variance, found.output(0), mcbn.fit_precision(found.output(0), targets[:, 0]),
    )  # fmt: skip


def real_recalibrated(at):
    (found, targets), (other, _) = at.real(), at.real()
    intervals = mcbn.ConformalIntervals.fit(found, targets, level=0.5)(other)
    scaled = mcbn.VarianceScaling.fit(found, targets)(other)
    return intervals, intervals.coverage(targets), scaled


def real_values_by_samplers(at):
    model = without_seed(lambda: networks.mlp(4, 1, width=5)).double().to(at.networks)
    samplers = mcbn.Deterministic(model), mcbn.MCDropout(model, draws=3)
    targets = at.x[:, :1].clone()
    likelihood = mcbn.Gaussian(precision=2.0)
    return [mcbn.evaluate(mcbn.predict(each, at.x, likelihood), targets, resamples=3)
            for each in samplers]  # fmt: skip


def labelled(at):
    found, other = at.labels(), at.labels()
    targets = (found.log_odds > 0.1).long()
    scored = mcbn.evaluate(found, targets, resamples=4).to_dict()
    sets = mcbn.ConformalLabels.fit(found, targets, level=0.6)(other)
    return scored, found.log_prob(targets), found.as_classes, sets, sets.coverage(targets)


def grouped(at):
    found, other = at.classes(), at.classes()
    sets = mcbn.ConformalSets.fit(found, at.y, level=0.6)
    kinds = mcbn.ConformalSetsBySubgroup.fit(found, at.y, by=at.y % 2, level=0.6)
    return (
        mcbn.evaluate(found, at.y, group=at.y // 2, resamples=4).to_dict(),
        mcbn.choose_abstention(found, found.prediction != at.y.to(found.prediction.device),
                               risk=0.95, group=torch.arange(24).to(at.examples)),
        sets(other).coverage(at.y, group=at.y), kinds(other, by=at.y % 2),
    )  # fmt: skip


def bank_in_hand(model, bank, at):
    states = [bank.state(1), bank.pooled(), bank.points(), bank.coordinates()]
    return states, bank.thin(2), bank.merge(2), bank.first(2), bank.rescale(batch_size=4)


def bank_of_file(folder, at):
    """A bank that was stored: its numbers lie on the processor, whatever the network does."""
    model = at.plain()
    at.bank(model).save(folder / "bank.st")
    bank = mcbn.Bank.load(folder / "bank.st")
    return [mcbn.MCBatchNorm(model, bank)(at.x), mcbn.LinearizedBatchNorm(model, bank)(at.x),
            mcbn.drift_test(model, bank, at.training, alpha=0.4).to_dict(),
            mcbn.choose_batch_size(model, bank, at.x, at.y, points=3, resamples=3)]  # fmt: skip


def reported(folder, at):
    found = {"MCBN": at.classes(), "plain": mcbn.predict(mcbn.Deterministic(at.plain()), at.x)}
    every = [mcbn.Predictions(name, each, at.y, "data") for name, each in found.items()]
    report = mcbn.Report.from_predictions(every, resamples=3)
    report.write(folder / "report")
    return [(claim.code, claim.sentence) for claim in report.verdict]


def reported_maps(folder, at):
    model, bank, images, targets = segmented(at)
    found = mcbn.predict(mcbn.MCBatchNorm(model, bank), images)
    every = [mcbn.Predictions("MCBN", found, targets, "data", ignore_index=-1)]
    mcbn.Report.from_predictions(every, resamples=3).write(folder / "report")
    return sorted(path.name for path in (folder / "report").iterdir())


def exported_here(folder, at):
    """A network is brought to the processor for the file, and its bank may stay where it is."""
    model = at.plain()
    bank = at.bank(model)
    sampler = mcbn.MCBatchNorm(model.cpu(), bank)
    return mcbn.export(sampler, at.x.cpu(), folder / "net.pt2").differences


def swept_there(folder, at):
    """A sweep of a network that lies there, over a task that lies on the processor."""
    pairs = HERE.x, HERE.x[:, 0].long() % 2
    found = mcbn.sweep(at.plain(), mcbn.Task(pairs, pairs, pairs), batch_sizes=(4, 6), draws=3,
                       folder=folder / "sweep", progress=False)  # fmt: skip
    return [dict(result.scores) for result in found.results]


def commands(folder, at):
    """The verbs that run a network, which its function puts on the device."""
    (folder / "nets.py").write_text(
        f"from public_calls import plain\n\n\ndef build():\n"
        f"    return plain().float().to('{at.networks}')\n"
    )
    np.savez(folder / "data.npz", inputs=HERE.training.tensors[0].float().numpy())
    model, data = f"--model {folder}/nets.py:build", f"--data {folder}/data.npz"
    run(f"collect {model} {data} --batch_size 8 --draws 4 --out {folder}/b.st")
    run(f"predict {model} {data} --bank {folder}/b.st --out {folder}/p.csv")
    with redirect_stdout(StringIO()) as said:
        run(f"drift {model} {data} --bank {folder}/b.st --alpha 0.4 --json --quiet")
    return mcbn.Bank.load(folder / "b.st"), (folder / "p.csv").read_bytes(), said.getvalue()


def own_study(folder, at):
    """A study whose networks are built, trained and scored on the device, from its own files."""
    (folder / "own.py").write_text(
        f"from mcbn.tasks.networks import convnet\n\n\ndef build():\n"
        f"    return convnet(1, 10, width=4).to('{at.networks}')\n"
    )
    found = mcbn.run_study(smallest(), folder / "study", model=f"{folder}/own.py:build",
                           executor=Here(), progress=False)  # fmt: skip
    assert not found.failures
    return [dict(result.scores) for result in found.results]


def one_by_one(model, bank, at):
    """Single draws of the samplers, and what the posterior of the last layer gives besides."""
    laplace = mcbn.LastLayerLaplace.fit(model, at.training, draws=2)
    samplers = (mcbn.MCBatchNorm(model, bank), mcbn.MCDropout(model, draws=2), laplace,
                mcbn.DeepEnsemble([model, model]), mcbn.Augmented(model, torch.neg, draws=2),
                mcbn.MCBatchNorm(model, bank, layers=1))  # fmt: skip
    draws = [each.draw(1, at.x) for each in samplers]
    return draws, laplace.output_covariance(at.x), laplace.weights(0)


def in_bfloat16(at):
    """A network in bfloat16, and passes of another under autocast."""
    half, model = at.plain().bfloat16(), at.plain().float()
    bank = at.bank(model)
    samplers = [mcbn.MCBatchNorm(model, bank, engine=name, precision="bfloat16")
                for name in ("loop", "auto")]  # fmt: skip
    samplers.append(mcbn.MCDropout(model, draws=2, precision="bfloat16"))
    return mcbn.MCBatchNorm(half, at.bank(half))(at.x), [each(at.x) for each in samplers]


def deep_copies(at):
    model = at.plain()
    twin = copy.deepcopy(model)
    twin.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    return mcbn.DeepEnsemble([model, twin])(at.x)


def arrays(at):
    """Inputs and targets as NumPy holds them."""
    model = at.plain()
    found = mcbn.predict(mcbn.MCDropout(model, draws=3), at.x.cpu().numpy())
    return found, mcbn.evaluate(found, at.y.cpu().numpy(), resamples=3).to_dict()


def of_folder(call):
    return lambda folder, at: (lambda: call(folder, at), [])


def of_place(call):
    return lambda folder, at: (lambda: call(at), [])


# What the table of public calls has no example of.
MORE = {
    **{f"images by {name}": of_place(images_by(name))
       for name in ("auto", "loop", "batched", "folded")},
    "some layers": of_place(some_layers),
    "linearized images": of_place(linearized_images),
    "images in batches": of_place(by_batches),
    "real values": of_place(real_values),
    "real values, recalibrated": of_place(real_recalibrated),
    "real values by samplers": of_place(real_values_by_samplers),
    "labels": of_place(labelled),
    "groups": of_place(grouped),
    "bank in hand": with_network(bank_in_hand),
    "one by one": with_network(one_by_one),
    "bank of a file": of_folder(bank_of_file),
    "report": of_folder(reported),
    "report of maps": of_folder(reported_maps),
    "export from the processor": of_folder(exported_here),
    "sweep of a task of the processor": of_folder(swept_there),
    "commands": of_folder(commands),
    "own study": of_folder(own_study),
    "bfloat16": of_place(in_bfloat16),
    "deep copies": of_place(deep_copies),
    "arrays": of_place(arrays),
}  # fmt: skip
EVERY = CALLS | MORE


def answer(name, folder, at):
    """What a call gives, in a form that can be compared."""
    folder.mkdir()
    call, models = EVERY[name](folder, at)
    try:
        found = plainly(call())
        assert all(each.device == torch.device(at.networks)
                   for model in models for each in model.parameters())  # fmt: skip
        return found
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def test_every_public_name_is_called_on_the_device():
    assert {name.split()[0] for name in CALLS} | VALUES == set(mcbn.__all__)
    assert not CALLS.keys() & MORE.keys()


@pytest.mark.parametrize("name", EVERY)
def test_a_call_on_the_device_gives_the_numbers_of_the_processor(name, tmp_path):
    expected = answer(name, tmp_path / "here", HERE)
    for place, at in PLACES.items():
        if name in REFUSED:
            with pytest.raises(ValueError, match=REFUSED[name]):
                answer(name, tmp_path / place, at)
        else:
            assert answer(name, tmp_path / place, at) == expected, place


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_batch_norm_draws_there_as_here(name, engine):
    found = []
    for device in ("cpu", DEVICE):
        model = make_network(name).to(device)
        batches = mcbn.minibatches(examples(name, 30), batch_size=10, draws=3)
        bank = mcbn.collect(model, batches)
        outputs = mcbn.MCBatchNorm(model, bank, engine=engine)(examples(name, 5).to(device))
        assert outputs.device == torch.device(device)
        found.append((plainly(bank), plainly(outputs)))
    assert found[0] == found[1]


class Noisy(nn.Module):
    """A network that draws random numbers of its own, on the device of its inputs."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x + torch.randn_like(x))


@pytest.mark.filterwarnings("ignore")
def test_a_network_that_draws_numbers_there_repeats_them_and_moves_no_stream():
    at = PLACES["all"]
    model = Noisy(at.plain())
    bank = at.bank(model)
    first = mcbn.MCBatchNorm(model, bank)(at.x)
    BACKEND.manual_seed_all(7)
    before = BACKEND.get_rng_state()
    assert plainly(mcbn.MCBatchNorm(model, bank)(at.x)) == plainly(first)
    assert plainly(at.bank(model)) == plainly(bank)
    torch.testing.assert_close(BACKEND.get_rng_state(), before, rtol=0, atol=0)
    assert not torch.equal(first[0], first[1])


def test_draws_and_predictives_lie_where_the_network_does(tmp_path_factory):
    for at in PLACES.values():
        model = at.plain()
        bank = at.bank(model)
        assert {each.device for each in bank.statistics.values()} == {DEVICE}
        assert mcbn.MCBatchNorm(model, bank)(at.x).device == DEVICE
        assert at.classes().log_probabilities.device == DEVICE
        assert mcbn.NearestNeighbors.fit(model, at.x, k=2)(at.x).device.type == "cpu"
        whole, _ = CALLS["predict_distributed"](tmp_path_factory.mktemp("group"), at)
        assert whole().log_probabilities.device.type == "cpu"
        dist.destroy_process_group()
        for sampler in (mcbn.MCDropout(model, draws=2), mcbn.Deterministic(model),
                        mcbn.LinearizedBatchNorm(model, bank), mcbn.DeepEnsemble([model]),
                        mcbn.LastLayerLaplace.fit(model, at.training, draws=2)):  # fmt: skip
            assert sampler(at.x).device == DEVICE


def test_a_bank_on_either_device_serves_a_network_on_the_other():
    here, there = HERE, PLACES["all"]
    expected = mcbn.MCBatchNorm(here.plain(), here.bank(here.plain()))(here.x)
    for owner, user in ((here, there), (there, here)):
        bank, model = owner.bank(owner.plain()), user.plain()
        outputs = mcbn.MCBatchNorm(model, bank)(owner.x)
        assert outputs.device == torch.device(user.networks)
        assert plainly(outputs) == plainly(expected)


def test_no_precision_is_chosen_where_units_for_it_are_not_known():
    at = PLACES["all"]
    model = at.plain().float()
    sampler = mcbn.MCBatchNorm(model, at.bank(model), precision="auto")
    assert plainly(sampler(at.x)) == plainly(mcbn.MCBatchNorm(model, at.bank(model))(at.x))
    assert "there are no units for bfloat16 here" in repr(sampler)


def test_files_hold_no_device(tmp_path):
    there = PLACES["all"]
    there.bank(there.plain()).save(tmp_path / "bank.st")
    assert {each.device.type for each in mcbn.Bank.load(tmp_path / "bank.st").statistics.values()
            } == {"cpu"}  # fmt: skip
    mcbn.Predictions("m", there.classes(), there.y, "data").save(tmp_path / "p.st")
    loaded = mcbn.Predictions.load(tmp_path / "p.st")
    assert loaded.predictive.log_probabilities.device.type == loaded.targets.device.type == "cpu"


# What the device itself is held to, as a GPU would be.


def test_tensors_of_two_devices_do_not_mix():
    there, here = torch.ones(3, 2, device=DEVICE), torch.ones(3, 2)
    for mixed in (lambda: there + here, lambda: here @ there.T, lambda: torch.cat([there, here]),
                  lambda: torch.equal(there, here), lambda: here[torch.tensor([0], device=DEVICE)],
                  lambda: there.index_select(0, torch.tensor([0])), lambda: here.mul_(there),
                  lambda: torch.where(there > 0, there, here),
                  lambda: nn.functional.linear(there, here)):  # fmt: skip
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(TypeError, match="can't convert toy:0 device type tensor to numpy"):
        there.numpy()
    with pytest.raises(TypeError, match="can't convert toy:0 device type tensor to numpy"):
        np.asarray(there)
    with pytest.raises(RuntimeError, match="Expected a generator of toy:0"):
        torch.randn(3, device=DEVICE, generator=torch.Generator())


def test_what_a_gpu_allows_is_allowed_there():
    there = torch.arange(6.0, device=DEVICE).view(3, 2)
    for made in (there * torch.tensor(2.0), there[torch.tensor([2, 0])], there.clone().T,
                 torch.zeros(2).to(there), torch.tensor([1.0], device=DEVICE),
                 torch.empty_strided((2, 2), (1, 2), device=DEVICE), torch.zeros_like(there),
                 torch.ones_like(torch.ones(2), device=DEVICE), there.new_full((2,), 3.0),
                 copy.deepcopy(there), torch.vmap(torch.sin)(there),
                 torch.randperm(4, device=DEVICE)):  # fmt: skip
        assert made.device == DEVICE
    here = torch.zeros(3, 2).copy_(there)
    assert here.device.type == there.cpu().device.type == there.to("cpu").device.type == "cpu"
    assert here.tolist() == there.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert f"{there.sum():.1f}" == "15.0"
    there[torch.tensor([0])] = torch.tensor(7.0)
    assert there[0].tolist() == [7, 7]
    assert there[:1].squeeze_(0).shape == (2,)


def test_networks_move_there_learn_there_and_come_back():
    model = without_seed(lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    twin = copy.deepcopy(model).to(DEVICE)
    x = torch.arange(8.0).view(4, 2)
    for net, inputs in ((model, x), (twin, x.to(DEVICE))):
        optimizer = torch.optim.AdamW(net.parameters(), 0.1)
        net(inputs)[:, 0].sum().backward()
        optimizer.step()
    state = twin.state_dict()
    assert {each.device for each in state.values()} == {DEVICE}
    assert copy.deepcopy(twin).double()(x.double().to(DEVICE)).dtype == torch.float64
    torch.testing.assert_close(copy.deepcopy(twin).cpu().state_dict(), model.state_dict(),
                               rtol=0, atol=0)  # fmt: skip
    model.load_state_dict(state)
    assert next(model.parameters()).device.type == "cpu"


def test_a_tensor_of_the_device_is_stored_and_read_there(tmp_path):
    torch.save({"x": torch.ones(2, device=DEVICE)}, tmp_path / "x.pt")
    found = torch.load(tmp_path / "x.pt", weights_only=True)["x"]
    assert (found.device, found.tolist()) == (DEVICE, [1, 1])


def test_random_numbers_there_come_from_a_stream_of_their_own():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        here = torch.get_rng_state()
        first = torch.randn(4, device=DEVICE)
        assert torch.equal(torch.get_rng_state(), here)
        assert torch.equal(first.cpu(), torch.randn(4))
        assert not torch.equal(first, torch.randn(4, device=DEVICE))
