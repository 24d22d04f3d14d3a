"""Checkpoints as trainers write them: read where one reading alone fits, else refused in words."""

import argparse
import copy
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mcbn.network.checkpoints import load, load_network
from mcbn.tasks.networks import load_resnet20

NETS = """
import argparse
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

def build(classes=3):
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, classes))

def part():
    return build()[:2]

def average():
    return torch.optim.swa_utils.AveragedModel(build())

def renaming():
    return nn.Sequential(weight_norm(nn.Linear(4, 3)))

def lazy():
    return nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(3))

class Lenient(nn.Sequential):
    def load_state_dict(self, state, *others):
        return super().load_state_dict(state, strict=False)

def lenient():
    return Lenient(*build())

class OwnNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("num_batches_tracked", torch.tensor(5))
        self.scale = nn.Parameter(torch.ones(3))

class WithExtra(nn.Linear):
    def get_extra_state(self):
        return {"scale": 1.0}
    def set_extra_state(self, state):
        self.scale = state["scale"]

def extra():
    return WithExtra(4, 3)

def own_norm():
    return nn.Sequential(nn.Linear(4, 3), OwnNorm())

def trusting():
    torch.serialization.add_safe_globals([argparse.Namespace])
    return build()

def number():
    return 3
"""
SCOPE = {}
exec(NETS, SCOPE)
COUNTER = "num_batches_tracked"


def state(seed=0, builder="build", **options):
    """The state of a network, all of it at random."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SCOPE[builder](**options)
        for name, values in network.state_dict().items():
            if values.is_floating_point():
                values.copy_(torch.rand_like(values) + 0.5)
            elif COUNTER in name:
                values.fill_(seed + 7)
    return network.state_dict()


def prefixed(prefix, weights):
    return {prefix + name: values for name, values in weights.items()}


def averaged(weights):
    with torch.random.fork_rng():
        network = SCOPE["build"]()
    network.load_state_dict(weights)
    return dict(AveragedModel(network).state_dict())


A, B = state(0), state(1)
NAN = {name: values * torch.nan if values.is_floating_point() else values
       for name, values in A.items()}  # fmt: skip
LIGHTNING = {
    "epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.5.0", "lr_schedulers": [],
    "state_dict": prefixed("model.", A) | {"criterion.weight": torch.ones(3)},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1}]}],
    "hyper_parameters": {"lr": 0.1, "layers": [4, 6]}, "hparams_name": "kwargs",
    "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_stream():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def saved(folder, checkpoint, name="w.pt", **options):
    path = str(folder / name)
    if name.endswith(".safetensors"):
        save_file(checkpoint, path)
    else:
        torch.save(checkpoint, path, **options)
    return path


def loaded(folder, checkpoint, builder="build", **options):
    return load(f"{folder}/nets.py:{builder}", saved(folder, checkpoint), **options)


def refusal(folder, path, builder="build", **options):
    """What is said, in one sentence that says what to do, without PyTorch's own words."""
    with pytest.raises(ValueError, match=r"^expected .*, got .*[;,?] ") as told:
        load(f"{folder}/nets.py:{builder}", path, **options)
    text = str(told.value)
    assert "\n" not in text
    for words in ("weights_only", "Error(s)", "\x1b", "size mismatch", "WeightsUnpickler", "miniz"):
        assert words not in text
    assert Path(path).name in text
    return text


def require_weights(network, wanted):
    """The law: each tensor is that of the file to the last bit; a counter may keep its own."""
    actual = network.state_dict()
    assert actual.keys() >= wanted.keys()
    for name, values in actual.items():
        if name in wanted or COUNTER not in name:
            torch.testing.assert_close(values, wanted[name], rtol=0, atol=0, equal_nan=True)


# The checkpoint, its key, its prefix, and what is left unread; the weights are A.
KINDS = {
    "the weights alone": (A, "", "", ()),
    "without counters": ({k: v for k, v in A.items() if COUNTER not in k}, "", "", ()),
    "Lightning without counters": (
        {"state_dict": {
            **{f"model.{k}": v for k, v in A.items() if COUNTER not in k}, "loss": torch.ones(3)}},
        "state_dict", "model.", ("loss",)),
    "numbers beside them": ({**A, "epoch": 3, "best": 0.5}, "", "", ()),
    **{
        f"under {key}": ({key: A, "epoch": 3, "note": "x"}, key, "", ())
        for key in (
            "state_dict", "model", "model_state_dict", "net", "network", "ema", "model_ema",
            "ema_state_dict", "module", "weights", "state_dict_ema", "my.own",
        )
    },
    "under two keys": ({"model": {"state_dict": A}}, "model.state_dict", "", ()),
    "beside an optimizer": (
        {"model": A, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}, "model", "", ()),
    "beside an optimizer by name": (
        {"model": A, "optimizer": {"state": {k: {"exp_avg": v} for k, v in A.items()}}},
        "model", "", ()),
    "DataParallel": (prefixed("module.", A), "", "module.", ()),
    "torch.compile": (prefixed("_orig_mod.", A), "", "_orig_mod.", ()),
    "compiled in DDP": (prefixed("module._orig_mod.", A), "", "module._orig_mod.", ()),
    "DDP, compiled": (
        {"model": prefixed("_orig_mod.module.", A)}, "model", "_orig_mod.module.", ()),
    "SWA": (averaged(A), "", "module.", ()),
    "SWA of DDP under a key": (
        {"model_ema": {"n_averaged": torch.tensor(3), **prefixed("module.module.", A)}},
        "model_ema", "module.module.", ()),
    "a prefix of one's own": (prefixed("my.backbone.", A), "", "my.backbone.", ()),
    "Lightning": (LIGHTNING, "state_dict", "model.", ("criterion.weight",)),
    "Lightning, net": ({"state_dict": prefixed("net.", A)}, "state_dict", "net.", ()),
    "Lightning, compiled": (
        {"state_dict": prefixed("model._orig_mod.", A)}, "state_dict", "model._orig_mod.", ()),
    "twice the same": ({"model": A, "model_ema": dict(A)}, "model", "", ()),
    "twice the same object": ({"state_dict": A, "model": A}, "state_dict", "", ()),
    "equal copies": (
        {"model": A, "ema": {k: v.clone() for k, v in prefixed("module.", A).items()}},
        "model", "", ()),
    "equal but for counters": (
        {"model": A, "ema": {k: v + 1 if COUNTER in k else v for k, v in A.items()}},
        "model", "", ()),
    "in a list": ([A], "0", "", ()),
    "in lists": ({"members": [{"model": A}], "losses": [0.5, 0.4]}, "members.0.model", "", ()),
    "deep down": ({"a": {"b": {3: {"d": {"e": A}}}}}, "a.b.3.d.e", "", ()),
    "an equal average": (
        {"model": A, "swa": {"n_averaged": torch.tensor(3), **A}}, "model", "", ()),
    "beside a larger one": ({"teacher": state(1, classes=5), "student": A}, "student", "", ()),
    "beside a part": ({"ema": {"0.weight": B["0.weight"]}, "model": A}, "model", "", ()),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_those_of_the_file(kind, folder):
    checkpoint, key, prefix, unread = KINDS[kind]
    answer = loaded(folder, checkpoint)
    counted = "without counters" not in kind
    require_weights(answer.network, {k: v for k, v in A.items() if counted or COUNTER not in k})
    reading = answer.reading
    assert (reading.key, reading.prefix, reading.unread) == (key, prefix, unread)
    assert not any(layer.training for layer in answer.network.modules())
    # What was read can be asked for by name, and is the same.
    again = loaded(folder, checkpoint, key=key, prefix=prefix)
    require_weights(again.network, answer.network.state_dict())


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".th", ".pth.tar", ".bin"])
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_the_name_of_the_file_says_how_it_is_read(suffix, prefix, folder):
    path = saved(folder, prefixed(prefix, A), f"w{suffix}")
    answer = load(f"{folder}/nets.py:build", path)
    require_weights(answer.network, A)
    assert answer.reading.prefix == prefix


def test_a_file_of_an_older_pytorch_is_read(folder):
    path = saved(folder, {"state_dict": A}, _use_new_zipfile_serialization=False)
    require_weights(load_network(f"{folder}/nets.py:build", path), A)


@pytest.mark.parametrize("builder", ["average", "lazy", "extra", "lenient"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_networks_with_a_state_of_their_own_are_filled(builder, prefix, folder):
    if builder == "lazy":
        wanted = A
    elif builder == "average":
        wanted = averaged(A)
    elif builder == "extra":
        wanted = {"weight": torch.rand(3, 4), "bias": torch.rand(3), "_extra_state": {"scale": 2.0}}
    else:
        wanted = A
    answer = loaded(folder, {"net": prefixed(prefix, wanted)}, builder)
    if builder == "extra":
        assert answer.network.scale == 2.0
        wanted = {k: v for k, v in wanted.items() if k != "_extra_state"}
        assert torch.equal(answer.network.weight, wanted["weight"])
    else:
        require_weights(answer.network, wanted)


def test_a_counter_of_a_layer_of_ones_own_may_be_missing(folder):
    wanted = {k: v for k, v in state(0, "own_norm").items() if COUNTER not in k}
    network = loaded(folder, {"net": wanted | {"n_averaged": torch.tensor(2)}}, "own_norm").network
    require_weights(network, wanted)
    assert network[1].num_batches_tracked == 5


def test_a_network_that_renames_what_it_loads_is_filled(folder):
    old = {"0.weight_g": torch.rand(3, 1), "0.weight_v": torch.rand(3, 4), "0.bias": torch.rand(3)}
    network = loaded(folder, {"state_dict": old}, "renaming").network
    assert torch.equal(network[0].parametrizations.weight.original0, old["0.weight_g"])
    assert torch.equal(network[0].parametrizations.weight.original1, old["0.weight_v"])
    two = {"model": old, "ema": {k: v + 1 for k, v in old.items()}}
    told = refusal(folder, saved(folder, two), "renaming")
    assert "--key model or --key ema" in told
    assert "0.parametrizations" in refusal(folder, saved(folder, {"0.bias": old["0.bias"]}),
                                           "renaming")  # fmt: skip


def test_other_precisions_are_cast_as_pytorch_does(folder):
    halves = {name: values.half() for name, values in A.items()}
    require_weights(
        loaded(folder, halves).network,
        {k: v.float() if COUNTER not in k else v.long() for k, v in halves.items()},
    )


def test_weights_that_are_not_numbers_are_equal_to_themselves(folder):
    require_weights(loaded(folder, {"a": NAN, "b": copy.deepcopy(NAN)}).network, NAN)


# The checkpoint, and the options that are offered, each with the weights it stands for.
AMBIGUOUS = {
    "an average": ({"model": A, "model_ema": B}, {("model", None): A, ("model_ema", None): B}),
    "an average in a wrapper": (
        {"model": A, "ema": averaged(B)}, {("model", None): A, ("ema", None): B}),
    "an average deep down": (
        {"model": A, "callbacks": {"ema": [{1: {"weights": prefixed("module.", B)}}]}},
        {("model", None): A, ("callbacks.ema.0.1.weights", None): B}),
    "nested": (
        {"model": A, "ema": {"module": B, "decay": 0.9}},
        {("model", None): A, ("ema.module", None): B}),
    "two networks": (
        {"state_dict": prefixed("model.", A) | prefixed("ema_model.", B)},
        {(None, "model."): A, (None, "ema_model."): B}),
    "a student": (
        prefixed("student.net.", A) | prefixed("teacher.net.", B),
        {(None, "student.net."): A, (None, "teacher.net."): B}),
    "the file and an entry": ({**A, "best": B}, {("", None): A, ("best", None): B}),
    "one number": (
        {"a": A, "b": A | {"3.bias": A["3.bias"] + torch.tensor([0.0, 0.0, 1e-6])}},
        {("a", None): A}),
    "the sign of a zero": (
        {"a": A | {"3.bias": torch.zeros(3)}, "b": A | {"3.bias": -torch.zeros(3)}}, {}),
    "another precision": (
        {"a": A, "b": {k: v.double() for k, v in A.items()}}, {("a", None): A}),
    "the same bits of other types": (
        {"a": A | {"3.bias": torch.full((3,), 0.5).half()},
         "b": A | {"3.bias": torch.full((3,), 0.5).half().view(torch.bfloat16)}}, {}),
    "keys and prefixes": (
        {"x": prefixed("p.", A) | prefixed("q.", B), "y": prefixed("p.", B)},
        {("x", "p."): A, (None, "q."): B}),
}  # fmt: skip


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_two_readings_that_differ_are_refused_with_the_options_that_settle_it(kind, folder):
    checkpoint, choices = AMBIGUOUS[kind]
    told = refusal(folder, saved(folder, checkpoint))
    assert "got 2 that fit and differ; choose by --" in told
    for (key, prefix), weights in choices.items():
        words = [f"--key {key or chr(39) * 2}"] if key is not None else []
        words += [f"--prefix {prefix}"] if prefix is not None else []
        assert " ".join(words) in told.partition("choose by ")[2].split(" or ")
        require_weights(loaded(folder, checkpoint, key=key, prefix=prefix).network, weights)


def test_the_weights_of_a_part_are_read_only_by_consent(folder):
    larger = {"state_dict": prefixed("encoder.", A) | {"head.weight": torch.ones(2)}}
    told = refusal(folder, saved(folder, larger))
    assert "--prefix encoder. if these" in told
    assert "(head.weight)" in told
    for prefix in ("encoder.", "encoder"):
        require_weights(loaded(folder, larger, prefix=prefix).network, A)


def test_a_smaller_network_does_not_take_a_share_of_a_larger_one(folder):
    assert "3.weight is not in the network" in refusal(folder, saved(folder, A), "part")


def test_a_network_that_lets_differences_pass_is_refused_them(folder):
    told = refusal(folder, saved(folder, without("3.bias")), "lenient")
    assert "3.bias is missing" in told


class Options:
    """Stands in a checkpoint for a class of a trainer."""


class Code:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


def without(name):
    return {key: value for key, value in A.items() if key != name}


def scripted(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Sequential(nn.Linear(4, 3))).save(path)


def exported(path):
    program = torch.export.export(nn.Linear(4, 3), (torch.zeros(2, 4),))
    torch.export.save(program, path)


def arrays(path):
    with path.open("wb") as stream:
        np.savez(stream, x=np.ones(3))


# The checkpoint, or what writes it, and words of the refusal.
REFUSED = {
    "other classes": (state(classes=5), ["3.weight has shape (5, 6) instead of (3, 6), 3.b"]),
    "transposed": (
        A | {"0.weight": torch.ones(4, 6)}, ["0.weight has shape (4, 6) instead of (6, 4);"]),
    "one is missing": (without("3.bias"), ["got others: 3.bias is missing; check --model and"]),
    "statistics are missing": (
        without("1.running_var"), ["others: 1.running_var is missing; check"]),
    "one too many": (A | {"4.weight": torch.ones(3)}, ["4.weight is not in the network;"]),
    "in an entry": (
        {"model": prefixed("module.", without("3.bias"))},
        ["under the key 'model' behind the prefix 'module.': 3.bias is missing;"]),
    "the nearest": (
        {"a": {"0.weight": A["0.weight"]}, "b": without("3.bias")}, ["key 'b': 3.bias is missing"]),
    "renamed integers": (
        without("3.bias") | {"3.offset": torch.arange(3)}, ["3.bias is missing"]),
    "none of the names": (
        {"w1": torch.ones(2), "w2": torch.ones(2)},
        ["none of 0.weight, 0.bias, 1.weight and 6 more is among w1, w2;"]),
    "integers": (
        A | {"3.bias": torch.arange(3)}, ["3.bias is of torch.int64 instead of torch.float32"]),
    "sparse": (A | {"3.bias": torch.ones(3).to_sparse()}, ["3.bias is not a dense tensor"]),
    "without values": (
        A | {"3.bias": torch.ones(3, device="meta")}, ["3.bias is not a dense tensor"]),
    "names that are numbers": ({0: torch.ones(2)}, ["(names that are not text); save"]),
    "a list": (list(A.values()), ["(no tensors by name); save a state_dict"]),
    "a tensor": (torch.ones(3), ["(no tensors by name)"]),
    "a number": (3, ["(no tensors by name)"]),
    "nothing": ({}, ["(no tensors by name)"]),
    "a network": (nn.Sequential(nn.Linear(4, 3)), [
        "a network or layers of one (torch.nn.modules.container.Sequential, ",
        'torch.save(model.state_dict(), "weights.pt")']),
    "a network in an entry": ({"model": nn.Linear(4, 3)}, ["a network or layers of one (torch.nn"]),
    "a trainer's options": ({"state_dict": A, "args": argparse.Namespace(lr=1)}, [
        "objects of argparse.Namespace too",
        "add_safe_globals([argparse.Namespace]) in the file that --model names"]),
    "a class of its own": (
        {"state_dict": A, "args": Options()}, [f"objects of {__name__}.Options too", "save the"]),
    "a number of NumPy": ({"state_dict": A, "best": np.float64(1)}, ["objects of numpy._core."]),
    "code": ({"state_dict": Code()}, ["objects of builtins.exec too"]),
    "TorchScript": (scripted, ["a TorchScript archive", "torch.jit.load(path).state_dict()"]),
    "a program": (exported, ["a program of torch.export", "torch.export.load(path).state_dict,"]),
    "text": (lambda path: path.write_text("0.weight"), ["truncated, corrupted or different file;"]),
    "empty": (lambda path: path.write_bytes(b""), ["truncated, corrupted or different file;"]),
    "an archive of others": (arrays, ["corrupted or different file;"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(kind, folder):
    made, words = REFUSED[kind]
    path = folder / "w.pt"
    if callable(made) and not isinstance(made, nn.Module):
        made(path)
    else:
        torch.save(made, path)
    told = refusal(folder, str(path))
    for each in words:
        assert each in told, told


def test_a_network_of_an_older_pytorch_is_refused_too(folder):
    network = nn.Sequential(nn.Linear(4, 3))
    path = saved(folder, network, _use_new_zipfile_serialization=False)
    assert "a network or layers of one (torch.nn.modules.container.Sequential)" in refusal(
        folder, path
    )


def test_a_truncated_file_is_refused(folder):
    for name in ("w.pt", "w.safetensors"):
        path = Path(saved(folder, A, name))
        path.write_bytes(path.read_bytes()[:-60])
        assert "truncated, corrupted or different" in refusal(folder, str(path))


# What a refusal says to do, done.
def test_a_class_that_the_user_trusts_is_read(folder):
    path = saved(folder, {"state_dict": A, "args": argparse.Namespace(lr=1)})
    try:
        require_weights(load_network(f"{folder}/nets.py:trusting", path), A)
    finally:
        torch.serialization.clear_safe_globals()


def test_the_weights_of_programs_can_be_saved_as_told(folder):
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()
    network.load_state_dict(A)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(folder / "script.pt")
        weights = torch.jit.load(folder / "script.pt").state_dict()
    require_weights(loaded(folder, weights).network, A)
    program = torch.export.export(network, (torch.zeros(2, 4),))
    torch.export.save(program, folder / "program.pt2")
    weights = torch.export.load(folder / "program.pt2").state_dict
    require_weights(loaded(folder, weights).network, A)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": "modle"}, "got 'modle'; choose one of 'model', 'ema'"),
        ({"key": ""}, "got ''; choose one of 'model', 'ema'"),
        ({"key": "ema"}, "under the key 'ema': 3.bias is missing"),
        ({"prefix": "net"}, "got none with 'net'; give"),
        ({"key": "model", "prefix": "0."}, "none of 0.weight"),
    ],
)
def test_choices_that_lead_nowhere_are_refused(options, words, folder):
    path = saved(folder, {"model": A, "ema": without("3.bias")})
    assert words in refusal(folder, path, **options)
    assert "leave it out, since" in refusal(folder, saved(folder, A, "a.pt"), key="model")


def test_a_choice_without_a_checkpoint_is_refused(folder):
    for options in ({"key": "model"}, {"prefix": ""}):
        with pytest.raises(ValueError, match="--prefix with --weights only, got no checkpoint"):
            load(f"{folder}/nets.py:build", None, **options)


def test_a_network_without_a_checkpoint_is_as_it_was_built(folder):
    answer = load(f"{folder}/nets.py:build", None)
    assert answer.reading is None
    assert not answer.network.training
    require_weights(load_network(f"{folder}/nets.py:build", None), answer.network.state_dict())


@pytest.mark.unchecked
def test_no_checkpoint_and_no_network_are_refused(folder):
    with pytest.raises(FileNotFoundError, match=r"expected a checkpoint at .*none\.pt, got none;"):
        load(f"{folder}/nets.py:build", f"{folder}/none.pt")
    with pytest.raises(TypeError, match=r"nets\.py:number to return a torch\.nn\.Module, got int;"):
        load(f"{folder}/nets.py:number", None)


def test_what_is_not_read_is_warned_of_unless_it_was_asked_for(folder):
    name, path = f"{folder}/nets.py:build", saved(folder, LIGHTNING)
    with pytest.warns(
        UserWarning, match=r"w\.pt: weights .*'state_dict'.*'model\.'.*: criterion\.weight; confirm"
    ):
        load_network(name, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_network(name, path, prefix="model.")
        load_network(name, saved(folder, {"model": averaged(A)}))


def test_a_reading_is_a_sentence(folder):
    assert str(loaded(folder, A).reading) == "weights read from the whole file"
    assert str(loaded(folder, {"model": prefixed("module.", A)}).reading) == (
        "weights read from the entry 'model' without the prefix 'module.' of the names"
    )


def test_checkpoints_made_to_hang_are_answered_at_once(folder):
    loop = {"state_dict": {}}
    loop["state_dict"]["model"] = loop
    assert "no tensors by name" in refusal(folder, saved(folder, loop))
    wide = {f"k{i}": A for i in range(3000)}
    require_weights(loaded(folder, wide).network, A)
    told = refusal(folder, saved(folder, {**wide, "last": B}))
    assert "--key k0 or --key last" in told
    every = {f"k{i}": {**A, "3.bias": torch.full((3,), float(i))} for i in range(50)}
    told = refusal(folder, saved(folder, every))
    assert "got 50 that fit and differ; choose by --key k0 or --key k1 or --key k2 or one" in told
    deep = A
    for _ in range(150):
        deep = {"k" * 100: [deep]}
    assert "no tensors by name" in refusal(folder, saved(folder, deep))
    shared = {}
    for _ in range(100):
        shared = {f"k{i}": shared for i in range(10)}
    assert "no tensors by name" in refusal(folder, saved(folder, shared))
    many = {f"p{i}.0.weight": torch.ones(1) for i in range(5000)}
    assert len(refusal(folder, saved(folder, many))) < 1000
    long = {"." * 100_000 + "0.weight": torch.ones(1)}
    assert len(refusal(folder, saved(folder, long))) < 1000


ROOT = os.environ.get("MCBN_DATA")


@pytest.mark.skipif(not ROOT, reason="MCBN_DATA is not set")
@pytest.mark.unchecked
def test_a_published_checkpoint_is_read_as_its_own_loader_reads_it():
    path = f"{ROOT}/cifar10_resnet_weights/resnet20-12fca82f.th"
    answer = load("mcbn.tasks.networks:resnet20", path)
    assert (answer.reading.key, answer.reading.prefix) == ("state_dict", "module.")
    require_weights(answer.network, load_resnet20(path).state_dict())
    with pytest.raises(ValueError, match=r"key 'state_dict' behind the prefix 'module\.': .*shape"):
        load(f"{__name__}:fewer_classes", path)


def fewer_classes():
    return load_resnet20.__globals__["resnet20"](classes=4)
