"""What --data may be: files, tables, folders of pictures, code; and where weights are read."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from command_lines import failing, run
from PIL import Image
from torchvision.models import ResNet18_Weights, get_model

import mcbn
from mcbn.predictive.predictions import Predictions

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")

MINE = """
import mcbn
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms

def build():
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

def real():
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 1))

def pictures():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, 2))

def rows(count, seed):
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long()

def dataset():
    return TensorDataset(*rows(30, 0))

class Inputs(torch.utils.data.Dataset):
    def __len__(self):
        return 30
    def __getitem__(self, index):
        return rows(30, 0)[0][index]

def unlabeled():
    return Inputs()

class Pairs(Inputs):
    def __getitem__(self, index):
        return tuple(each[index] for each in rows(30, 0))

def pairs():
    return Pairs()

def loader():
    return DataLoader(Pairs(), batch_size=7, shuffle=True)

def pair():
    return rows(30, 0)

def tensor():
    return rows(30, 0)[0]

def task():
    return mcbn.Task(rows(40, 1), rows(10, 2), rows(30, 0), classes=("low", "high"), name="mine")

def wrong():
    return "data"

def fails():
    raise RuntimeError("no disk")

def random(picture):
    return transforms.Compose([transforms.RandomCrop(6), transforms.ToTensor()])(picture)

def crop():
    return transforms.Compose([transforms.CenterCrop(6), transforms.ToTensor()])

def no_transform():
    return 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the user's, with code, weights and data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    namespace = {}
    exec(MINE, namespace)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in ("build", "real", "pictures"):
            torch.save(namespace[name]().state_dict(), f"{name}.pt")
    inputs, targets = (each.numpy() for each in namespace["rows"](30, 0))
    np.savez("rows.npz", inputs=inputs, targets=targets)
    np.save("rows.npy", inputs)
    frame = pd.DataFrame(inputs, columns=["a", "b", "c"])
    frame["kind"] = targets
    frame.to_csv("rows.csv", index=False)
    frame.to_parquet("rows.parquet")
    return tmp_path


@pytest.fixture
def pictures(folder):
    """Folders of pictures of two classes, in three parts, and one without classes."""
    generator = np.random.Generator(np.random.Philox(0))
    for place in ("train/ant", "train/bee", "val/ant", "val/bee", "test/ant", "test/bee", "flat"):
        (folder / "pics" / place).mkdir(parents=True)
        for index in range(8 if "train" in place else 3):
            values = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(values).save(folder / "pics" / place / f"{index}.png")
    (folder / "pics" / "flat").rename(folder / "flat")
    return folder


NETWORK = "--model mine.py:build --weights build.pt"
CONVOLUTIONS = "--model mine.py:pictures --weights pictures.pt"


def predicted(data, network=NETWORK, *, out="out.st", **more):
    words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in more.items())
    run(f"predict {network} --method deterministic --data {data} --out {out} --force {words}")
    return Predictions.load(out)


@pytest.mark.parametrize(
    ("data", "known"),
    [
        ("rows.npy", False),
        ("rows.csv", True),
        ("rows.parquet", True),
        ("mine.py:dataset", True),
        ("mine.py:unlabeled", False),
        ("mine.py:pairs", True),
        ("mine.py:loader", True),
        ("mine.py:pair", True),
        ("mine.py:tensor", False),
        ("mine.py:task", True),
    ],
)
def test_the_same_examples_have_the_same_predictions_in_every_form(folder, data, known):
    expected = predicted("rows.npz")
    more = {"target": "kind"} if data.startswith("rows.") and known else {}
    actual = predicted(data, batch_size=8, **more)
    torch.testing.assert_close(
        actual.predictive.log_probabilities, expected.predictive.log_probabilities,
        rtol=1e-6, atol=1e-6,
    )  # fmt: skip
    assert (actual.targets is not None) == known
    if known:
        assert actual.targets.tolist() == expected.targets.tolist()
    assert actual.classes == (("low", "high") if data == "mine.py:task" else ())


def test_parts_of_a_task_are_those_of_the_verb(folder):
    assert len(predicted("mine.py:task", part="train").predictive) == 40
    assert len(predicted("mine.py:task", part="validation").predictive) == 10
    run(f"collect {NETWORK} --data mine.py:task --batch-size 40 --draws 2 --out task.st")
    namespace = {}
    exec(MINE, namespace)
    with torch.random.fork_rng():
        network = namespace["build"]()
    network.load_state_dict(torch.load("build.pt", weights_only=True))
    batches = mcbn.minibatches(namespace["rows"](40, 1)[0], batch_size=40, draws=2)
    expected = mcbn.collect(network, batches).statistics
    actual = mcbn.Bank.load("task.st").statistics
    torch.testing.assert_close(dict(actual), dict(expected), rtol=0, atol=0)


def test_every_verb_takes_a_data_set(folder, capsys):
    run(f"doctor {NETWORK} --data mine.py:pairs --batch-size 8 --json")
    assert json.loads(capsys.readouterr().out)
    run(f"collect {NETWORK} --data mine.py:pairs --batch-size 8 --draws 4 --out bank.st")
    run(f"export {NETWORK} --bank bank.st --data mine.py:pairs --out net.pt2")
    assert (folder / "net.pt2").is_file()


def test_pictures_are_predicted_with_their_names_and_classes(pictures):
    data = predicted("pics", CONVOLUTIONS, batch_size=4)
    assert data.classes == ("ant", "bee")
    assert data.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.index.tolist() == [f"{name}/{k}.png" for name in ("ant", "bee") for k in range(3)]
    assert len(predicted("pics", CONVOLUTIONS, part="train").predictive) == 16
    alone = predicted("pics/test/ant", CONVOLUTIONS)
    assert alone.targets is None
    torch.testing.assert_close(
        alone.predictive.log_probabilities, data.predictive.log_probabilities[:3], rtol=0, atol=1e-6
    )
    (pictures / "flat" / ".hidden").mkdir()  # as an editor leaves them
    assert len(predicted("flat", CONVOLUTIONS).predictive) == 3


def test_processes_that_read_pictures_change_no_bit(pictures, capsys):
    here = predicted("pics", CONVOLUTIONS)
    there = predicted("pics", CONVOLUTIONS, workers=2)
    assert torch.equal(there.predictive.log_probabilities, here.predictive.log_probabilities)
    assert there.targets.tolist() == here.targets.tolist()
    banks = []
    for workers in (0, 2):
        run(f"collect {CONVOLUTIONS} --data pics --transform mine.py:random --batch-size 4 "
            f"--draws 3 --workers {workers} --out bank{workers}.st")  # fmt: skip
        banks.append(dict(mcbn.Bank.load(f"bank{workers}.st").statistics))
    torch.testing.assert_close(*banks, rtol=0, atol=0)
    said = failing(f"collect {CONVOLUTIONS} --data pics --workers -1 --out b.st", capsys)
    assert "expected --workers of at least 0, got -1" in said


def test_without_a_test_folder_half_of_the_other_is_predicted(pictures, capsys):
    shutil.rmtree("pics/test")
    for name in ("ant", "bee"):
        shutil.copy(f"pics/val/{name}/0.png", f"pics/val/{name}/3.png")
    capsys.readouterr()
    data = predicted("pics", CONVOLUTIONS)
    assert "note: half of every class in pics/val is for validation" in capsys.readouterr().err
    held_out = predicted("pics", CONVOLUTIONS, part="validation")
    names = [f"{name}/{k}.png" for name in ("ant", "bee") for k in range(4)]
    assert sorted([*data.index, *held_out.index]) == names
    assert data.targets.tolist() == held_out.targets.tolist() == [0, 0, 1, 1]
    task = mcbn.Task.from_folder("pics")
    expected = [f"pics/val/{name}" for name in data.index]
    assert [task.test.source.samples[k][0] for k in range(4)] == expected


@pytest.mark.parametrize(
    ("data", "network", "told"),
    [
        ("rows.npz", NETWORK, True),
        ("mine.py:pair", NETWORK, True),
        ("flat", CONVOLUTIONS, True),
        ("pics/test", CONVOLUTIONS, True),
        ("pics", CONVOLUTIONS, False),
        ("mine.py:task", NETWORK, False),
    ],
)
def test_a_part_of_what_has_none_is_told(pictures, capsys, data, network, told):
    predicted(data, network, part="test")
    assert (f"--part has no effect on {data}" in capsys.readouterr().err) == told


def test_a_bank_of_pictures_has_the_random_transforms_of_training(pictures):
    def collected(name, **more):
        words = " ".join(f"--{key} {value}" for key, value in more.items())
        run(f"collect {CONVOLUTIONS} --data pics {words} --batch-size 16 --draws 3 --out {name} "
            "--force")  # fmt: skip
        return mcbn.Bank.load(name).statistics["1.running_mean"]

    # Draws of all training examples differ only by what is random in their transforms.
    with pytest.raises(SystemExit):
        collected("plain.st", transform="mine.py:no_transform")
    plain, random = (
        collected(f"{name}.st", transform=f"mine.py:{name}") for name in ("crop", "random")
    )
    torch.testing.assert_close(plain[0], plain[1], rtol=1e-5, atol=1e-6)
    assert float((random[0] - random[1]).abs().max()) > 1e-4
    again = collected("random.st", transform="mine.py:random")
    torch.testing.assert_close(again, random, rtol=0, atol=0)


def test_pictures_for_a_known_network_have_its_published_transform(pictures, capsys):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_model("resnet18", num_classes=2).eval()
    torch.save(model.state_dict(), "resnet.pt")
    network = "--model torchvision:resnet18 --weights resnet.pt"
    actual = predicted("pics/test", network)
    said = capsys.readouterr().err
    assert "note: pictures are transformed as for the published weights of torchvision" in said
    assert "mcbn: weights read from the whole file (resnet.pt)" in said
    picture = Image.open("pics/test/ant/0.png")
    with torch.no_grad():
        logits = model(ResNet18_Weights.DEFAULT.transforms()(picture)[None])
    torch.testing.assert_close(
        actual.predictive.log_probabilities[:1],
        logits.double().log_softmax(1),
        rtol=1e-5,
        atol=1e-5,
    )


def test_where_weights_are_read_is_told_unless_quiet(folder, capsys):
    state = torch.load("build.pt", weights_only=True)
    other = {name: value + 1 for name, value in state.items()}
    torch.save({"last": {f"net.{name}": value for name, value in state.items()}, "best": other},
               "run.ckpt")  # fmt: skip
    network = "--model mine.py:build --weights run.ckpt"
    assert "choose by --key last or --key best" in failing(
        f"predict {network} --method deterministic --data rows.npy --out o.st", capsys
    )
    expected = predicted("rows.npy").predictive.log_probabilities
    capsys.readouterr()
    for choice in ("--key last", "--prefix net", "--key last --prefix net."):
        actual = predicted("rows.npy", f"{network} {choice}").predictive.log_probabilities
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
        said = capsys.readouterr().err
        assert said == (
            "mcbn: weights read from the entry 'last' without the prefix 'net.' of the names "
            "(run.ckpt)\n"
        )
    predicted("rows.npy", f"{network} --key last --quiet")
    assert capsys.readouterr().err == ""
    line = "predict --model mine.py:build --key last --method deterministic --data rows.npy --out o"
    assert "--key and --prefix with --weights only" in failing(line, capsys)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("--data rows.csv --target knd", "a column 'knd' in rows.csv, got none; did you mean"),
        ("--data rows.csv --target a,b,c,kind", "expected columns of inputs in rows.csv"),
        ("--data text.csv --target kind", "the text column 'city' with values such as 'Rome'"),
        (
            "--data gap.csv --target kind",
            "finite numbers in column 'b' of gap.csv, got '' in row 2",
        ),
        ("--data rows.csv --target a", "class indices as targets in rows.csv, got real values"),
        ("--data rows.npz --target kind", "expected --target with a table"),
        ("--data rows.npz --transform mine.py:crop", "expected --transform with a folder"),
        ("--data mine.py:wrong", "the data of mine.py:wrong as inputs in a tensor"),
        ("--data mine.py:fails", "expected mine.py to run, got RuntimeError: 'no disk' in line"),
        ("--data mine.py:absent", "expected a function 'absent' in mine.py"),
        ("--data absent.py:data", "expected a Python file in --data, got 'absent.py'"),
        ("--data mine.py", "got the code mine.py; add the name of its function"),
        ("--data bad.npy", "expected an .npy file of a plain array in bad.npy"),
        ("--data words.npy", "expected an array of numbers"),
    ],
)
def test_data_that_do_not_fit_are_refused(folder, capsys, change, reason):
    text = (folder / "rows.csv").read_text().splitlines()
    (folder / "text.csv").write_text("\n".join(
        ["city," + text[0], *("Rome," + line for line in text[1:])]))  # fmt: skip
    gap = text[2].split(",")
    gap[1] = ""
    (folder / "gap.csv").write_text("\n".join([*text[:2], ",".join(gap), *text[3:]]))
    (folder / "bad.npy").write_text("no array")
    np.save(folder / "words.npy", np.array(["a", "b"]))
    line = f"predict {NETWORK} --method deterministic --out o.st {change}"
    assert reason in failing(line, capsys)
    assert not (folder / "o.st").exists()


def different_sizes(folder):
    Image.new("RGB", (9, 9)).save(folder / "pics" / "test" / "bee" / "2.png")


def stray_picture(folder):
    Image.new("RGB", (8, 8)).save(folder / "pics" / "test" / "stray.png")


def damaged_picture(folder):
    (folder / "pics" / "test" / "ant" / "1.png").write_bytes(b"no picture")


def three_classes(folder):
    (folder / "pics" / "test" / "cow").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "pics" / "test" / "cow" / "0.png")


@pytest.mark.parametrize(
    ("make", "change", "reason"),
    [
        (different_sizes, "", "pictures of one size without a transform, got 9 x 9"),
        (stray_picture, "", "or in its subfolders, got both; move stray.png"),
        (damaged_picture, "", "expected a picture in pics/test/ant/1.png"),
        (three_classes, "", "a network with the 3 classes of pics/test, got 2 outputs"),
        (None, "--transform mine.py:no_transform", "to take a picture, or to return a function"),
        (None, "--transform none.py:crop", "a Python file in --transform, got 'none.py'"),
        (None, "--transform crop", "that makes a tensor of a picture after a colon"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(pictures, capsys, make, change, reason):
    if make is not None:
        make(pictures)
    line = f"predict {CONVOLUTIONS} --method deterministic --data pics/test --out o.st {change}"
    assert reason in failing(line, capsys)
    assert not (pictures / "o.st").exists()


def test_pictures_of_different_sizes_are_read_with_a_transform(pictures):
    different_sizes(pictures)
    data = predicted("pics", CONVOLUTIONS, transform="mine.py:crop")
    assert len(data.predictive) == 6


def test_halves_of_a_folder_are_of_whole_groups(folder):
    """Six patients of four pictures each: none is on both sides, in any order of the names."""
    generator = np.random.Generator(np.random.Philox(0))
    for place in ("train", "test"):
        for index in range(48 if place == "test" else 8):
            kind, patient = ("ant", "bee")[index % 2], index % (12 if place == "test" else 2)
            values = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            (folder / "scans" / place / kind).mkdir(parents=True, exist_ok=True)
            name = f"{place[1]}{patient}_{index}.png"
            Image.fromarray(values).save(folder / "scans" / place / kind / name)
    options = {"network": CONVOLUTIONS, "group": "'^([^_]+)_'"}
    halves = [predicted("scans", part=part, **options) for part in ("validation", "test")]
    sides = [set(each.columns["group"].tolist()) for each in halves]
    assert sides[0].isdisjoint(sides[1])
    assert sides[0] | sides[1] == {f"e{k}" for k in range(12)}
    assert [len(each.predictive) for each in halves] == [24, 24]
    assert all(name.split("/")[1].startswith(f"{group}_")
               for each in halves
               for name, group in zip(each.index, each.columns["group"], strict=True))  # fmt: skip
    plain = [predicted("scans", network=CONVOLUTIONS, part=part) for part in ("validation", "test")]
    whose = [{name.split("/")[1].split("_")[0] for name in each.index} for each in plain]
    assert whose[0] & whose[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--data pics --group [", "expected a regular expression for groups, got '['"),
        ("--data pics --group x", "expected 'x' in the name of every picture, got '0.png'"),
        ("--data pics --group ^.", "expected pictures of a group in one part only, got '0'"),
        ("--data flat --group ^.", "expected --group with pictures in folders of their classes"),
        ("--data rows.npy --group ^.", "expected --group with a folder of pictures only"),
    ],
)
def test_groups_of_pictures_that_do_not_fit(pictures, capsys, words, said):
    line = f"predict {CONVOLUTIONS} --method deterministic {words} --out o.st"
    assert said in failing(line, capsys)
