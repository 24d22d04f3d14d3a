"""Which layers are meant: by number, place, name, stage."""

import pytest
import torch
from models import examples, make_network
from torch.testing import assert_close

import mcbn
from mcbn.network.layer_names import chosen_layers, layers_text, stages

NAMES = ["bn1", "layer1.0.bn1", "layer1.0.bn2", "layer1.1.bn1", "layer2.0.bn1", "layer10.bn"]

CHOICES = {
    "all": (None, NAMES),
    "a number": (2, NAMES[-2:]),
    "first": ("first 2", NAMES[:2]),
    "last": ("last 4", NAMES[-4:]),
    "first of all": ("first 6", NAMES),
    "a name": ("bn1", ["bn1"]),
    "a stage": ("layer1", NAMES[1:4]),
    "a block": ("layer1.0", NAMES[1:3]),
    "names in another order": (["layer2", "bn1"], ["bn1", "layer2.0.bn1"]),
    "a name inside its stage": (("layer1", "layer1.0.bn2"), NAMES[1:4]),
}


@pytest.mark.parametrize("how", CHOICES)
def test_layers_are_chosen_in_the_order_of_the_network(how):
    choice, expected = CHOICES[how]
    assert chosen_layers(NAMES, choice) == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (0, "a number of last layers from 1 to 6, got 0"),
        ("first 7", "a number of first layers from 1 to 6, got 7"),
        ("last 0", "a number of last layers from 1 to 6, got 0"),
        ("first", r"batch-norm layers among \['bn1'.* got \['first'\]"),
        ("layer", r"got \['layer'\]"),
        ("", r"got \[''\]"),
        (["layer1", "layer3"], r"got \['layer3'\]; name some of these, or the modules"),
        ([], "got none"),
    ],
)
def test_layers_that_are_not_there_are_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        chosen_layers(NAMES, choice)


def test_a_layer_may_be_named_as_a_place():
    assert chosen_layers(["first 2", "b"], "first 2") == ["first 2"]


def test_stages_are_the_outermost_modules_that_tell_layers_apart():
    found = stages(NAMES)
    assert found == {
        "bn1": NAMES[:1], "layer1": NAMES[1:4], "layer2": NAMES[4:5], "layer10": NAMES[5:]
    }  # fmt: skip
    inside = stages([f"net.body.{name}" for name in NAMES])
    assert inside == {
        f"net.body.{part}": [f"net.body.{name}" for name in names] for part, names in found.items()
    }
    assert stages(["a.b.c"]) == {"a.b.c": ["a.b.c"]}
    assert stages(["a", "a.b"]) == {"a": ["a", "a.b"]}
    for part, names in {**found, **inside}.items():
        every = NAMES if part in found else [f"net.body.{name}" for name in NAMES]
        assert chosen_layers(every, part) == names


def test_a_choice_is_said_in_words():
    words = {
        None: "all layers", 1: "the last layer", 3: "the last 3 layers",
        "first 1": "the first layer", "first 5": "the first 5 layers",
        "last 2": "the last 2 layers", "layer1": "layers layer1", ("a", "b"): "layers a, b",
    }  # fmt: skip
    assert {choice: layers_text(choice) for choice in words} == words


@pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
def test_the_first_layers_are_drawn_and_the_others_are_not():
    name = "1d of 2-D"
    model, x = make_network(name), examples(name, 9)
    bank = mcbn.collect(model, mcbn.minibatches(examples(name, 60), batch_size=8, draws=5))
    kept = {key: rows if key.startswith("1.") else bank.trained[key].expand(len(rows), -1)
            for key, rows in bank.statistics.items()}  # fmt: skip
    expected = mcbn.MCBatchNorm(model, mcbn.Bank(kept, bank.trained, bank.size), engine="loop")(x)
    for choice in ("first 1", "1", ["1"]):
        sampler = mcbn.MCBatchNorm(model, bank, layers=choice)
        assert_close(sampler(x), expected, rtol=1e-12, atol=1e-12)
    whole = mcbn.MCBatchNorm(model, bank)(x)
    assert not torch.allclose(expected, whole)  # noqa: TID251
    assert "the first layer" in repr(mcbn.MCBatchNorm(model, bank, layers="first 1"))
