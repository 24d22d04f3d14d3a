"""The small networks of demo and studies, and published ResNet20 weights."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from mcbn.tasks import datasets, networks

real = pytest.mark.skipif(not os.environ.get("MCBN_DATA"), reason="MCBN_DATA is not set")
WEIGHTS = "cifar10_resnet_weights/resnet20-12fca82f.th"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    # On a busy machine, threads that wait for each other are many times slower.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parameters(model):
    return sum(values.numel() for values in model.parameters())


def build(builder):
    # Tests leave the global stream alone, as the library does.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return builder()


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


CASES = [
    (lambda: networks.mlp(5, 3), (4, 5), (4, 3)),
    (lambda: networks.convnet(1, 10), (4, 1, 8, 8), (4, 10)),
    (lambda: networks.convnet(1, 10), (4, 1, 28, 28), (4, 10)),
    (lambda: networks.convnet(3, 2), (4, 3, 13, 9), (4, 2)),
    (lambda: networks.unet(3, 11), (2, 3, 12, 20), (2, 11, 12, 20)),
    (lambda: networks.resnet20(), (2, 3, 32, 32), (2, 10)),
]


@pytest.mark.parametrize(("builder", "inputs", "outputs"), CASES)
def test_outputs_have_the_right_shape_and_every_weight_counts(builder, inputs, outputs):
    model = build(builder)
    with torch.random.fork_rng(devices=[]):
        scores = model(normal(*inputs))
    assert scores.shape == outputs
    scores.square().sum().backward()
    for name, values in model.named_parameters():
        assert values.grad is not None, name
        assert values.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("builder", "inputs", "outputs"), CASES)
def test_no_layer_before_a_batch_norm_has_a_bias(builder, inputs, outputs):
    model = build(builder)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, *norms))]
    for layer, after in pairwise(layers):
        if isinstance(after, norms):
            assert layer.bias is None
    assert any(isinstance(layer, norms) for layer in layers)


@pytest.mark.parametrize(("builder", "inputs", "outputs"), CASES[:5])
def test_dropout_is_in_modules_with_the_given_probability(builder, inputs, outputs):
    drops = (nn.Dropout, nn.Dropout2d)
    model = build(builder)
    probabilities = [module.p for module in model.modules() if isinstance(module, drops)]
    assert len(probabilities) == 2
    assert set(probabilities) == {0.1}


def test_mlp_has_as_many_blocks_as_its_depth():
    model = build(lambda: networks.mlp(5, 3, width=7, depth=3, dropout=0.0))
    # Three blocks (weights and two batch norm vectors each) and a head with bias.
    assert parameters(model) == (5 * 7 + 14) + 2 * (7 * 7 + 14) + (7 * 3 + 3)
    assert [type(layer).__name__ for layer in model[:4]] == [
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Dropout",
    ]


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (lambda: networks.mlp(0, 1), "inputs of at least 1, got 0"),
        (lambda: networks.mlp(1, 1, depth=0), "depth of at least 1, got 0"),
        (lambda: networks.convnet(1, 2, width=-1), "width of at least 1, got -1"),
        (lambda: networks.convnet(1, 2, dropout=1.0), r"dropout in \[0, 1\), got 1.0"),
        (lambda: networks.unet(1, 0), "classes of at least 1, got 0"),
        (lambda: networks.resnet20(0), "classes of at least 1, got 0"),
    ],
)
def test_sizes_out_of_range_are_refused(builder, message):
    with pytest.raises(ValueError, match=message):
        builder()


def test_unet_refuses_sizes_it_cannot_halve_twice():
    model = build(lambda: networks.unet(1, 2))
    with pytest.raises(ValueError, match="divisible by 4, got 12x10"):
        model(normal(1, 1, 12, 10))


def test_unet_sees_detail_and_surroundings():
    """One pixel moves the scores beside it, and some too far off for a convolution alone."""
    model = build(lambda: networks.unet(1, 2)).eval()
    images = normal(1, 1, 32, 32)
    changed = images.clone()
    changed[0, 0, 16, 16] += 5
    with torch.no_grad():
        moved = (model(changed) - model(images)).abs().sum((0, 1))
    assert moved[16, 16] > 1e-3
    assert moved[16, 24] > 0
    assert moved[0, 0] == 0


def test_unet_hands_fine_detail_past_the_coarse_levels():
    model = build(lambda: networks.unet(1, 2)).eval()
    model.to_full.register_forward_hook(lambda module, inputs, outputs: outputs * 0)
    images = normal(1, 1, 8, 8)
    with torch.no_grad():
        assert (model(images) - model(images.flip(3))).abs().max() > 1e-3


def test_resnet20_has_the_published_size():
    """He et al., table 6: 0.27 million parameters, 20 weighted layers."""
    model = build(networks.resnet20)
    assert parameters(model) == 269_722
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules()) == 20
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 19


def test_resnet20_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides():
    block = build(networks.resnet20).layer2[0].eval()
    nn.init.zeros_(block.bn2.weight)
    images = normal(1, 16, 8, 8).abs()
    outputs = block(images)
    assert outputs.shape == (1, 32, 4, 4)
    assert torch.equal(outputs[:, 8:24], images[:, :, ::2, ::2])
    assert outputs[:, :8].abs().sum() + outputs[:, 24:].abs().sum() == 0


def checkpoint(model):
    state = {f"module.{name}": values for name, values in model.state_dict().items()}
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def test_load_resnet20_restores_what_was_saved(tmp_path):
    model = build(lambda: networks.resnet20(classes=4))
    torch.save({"state_dict": checkpoint(model), "best_prec1": 1.0}, tmp_path / "net.th")
    loaded = networks.load_resnet20(tmp_path / "net.th")
    images = normal(2, 3, 32, 32)
    assert not loaded.training
    assert torch.equal(loaded(images), model.eval()(images))


class Program:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_load_resnet20_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"net.th.*pytorch_resnet_cifar10"):
        networks.load_resnet20(tmp_path / "net.th")
    state = build(lambda: checkpoint(networks.resnet20()))
    del state["module.layer3.2.bn2.running_var"]
    torch.save({"state_dict": state}, tmp_path / "less.th")
    (tmp_path / "text.th").write_text("no weights")
    torch.save({"state_dict": Program(tmp_path / "ran")}, tmp_path / "code.th")
    for name in ("less.th", "text.th", "code.th"):
        with pytest.raises(ValueError, match=f"ResNet20 in .*{name}"):
            networks.load_resnet20(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.unchecked
@real
def test_real_resnet20_reaches_its_published_accuracy():
    """README of the data: 0.915 and 0.384 on the first 1,000 lossless test images."""
    model = networks.load_resnet20(datasets.data_root() / WEIGHTS)
    train, test = datasets.cifar10_images()
    with torch.no_grad():
        logits = model(datasets.normalize_cifar10(test.inputs))
        # The network was trained on these: high accuracy needs tiles, labels and order right.
        seen = torch.arange(0, 50_000, 250)
        known = model(datasets.normalize_cifar10(train.inputs[seen])).argmax(1)
    assert float((logits.argmax(1) == test.targets).float().mean()) == pytest.approx(0.915)
    assert float(functional.cross_entropy(logits, test.targets)) == pytest.approx(0.384, abs=5e-4)
    assert float((known == train.targets[seen]).float().mean()) > 0.97
    assert train.inputs.shape == (50_000, 3, 32, 32)
    assert torch.equal(datasets.cifar10_labels()[1][:1_000], test.targets)
    assert train.targets.bincount().tolist() == [5_000] * 10
