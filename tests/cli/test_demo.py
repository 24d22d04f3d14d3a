"""The demo, at a size that takes seconds."""

import json
from dataclasses import replace

import pytest
import torch
from tiny import Here

import mcbn
from mcbn.cli.demo import SETTINGS, DemoSettings, run_demo
from mcbn.cli.demo_methods import Tempered, with_labels
from mcbn.study.results import Study
from mcbn.tasks.files import data_root, files

pytestmark = pytest.mark.filterwarnings(
    "ignore::mcbn.InconsistentBankWarning", "ignore::mcbn.RescalingWarning"
)
TINY = DemoSettings(training_batch_sizes=(64, 128), batch_sizes=(8, 64), seeds=(0,), members=2,
                    epochs=1, width=4, draws=8, augmented_draws=4, study_draws=4, resamples=10,
                    labels=20, test_size=60, outside_size=20)  # fmt: skip


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr("mcbn.study.run.Processes", Here)


def numbers_of(folder):
    """The report, without the times."""
    report = json.loads((folder / "report.json").read_text())
    for method in report["comparison"]["methods"].values():
        method.pop("seconds")
    for result in report["study"]["results"]:
        result.pop("seconds")
    return report


@pytest.mark.usefixtures("in_this_process")
def test_the_demo_writes_a_report_of_real_data(tmp_path):
    lines = []
    page = run_demo(tmp_path, settings=TINY, say=lines.append)
    assert page.name == "report.html"
    report = numbers_of(tmp_path)
    methods = list(report["comparison"]["methods"])
    chosen = int(methods[3].removeprefix("MCBN, M = "))
    assert methods == [
        "Deterministic", "Temperature, 20 labels", "MCBN, M = 64", f"MCBN, M = {chosen}",
        "MC Dropout", "Augmentation", f"MCBN, M = {chosen}, augmented", "Deep ensemble",
    ]  # fmt: skip
    bank = mcbn.Bank.load(tmp_path / "bank.safetensors")
    assert (len(bank), bank.batch_size) == (8, 64)
    assert len(Study.load(tmp_path / "study").results) == 10
    assert any(line.startswith("Data: Handwritten digits") for line in lines)
    said = [
        f"  {claim['code']} {claim['topic']}: {claim['sentence']}"
        for claim in report["verdict"]
        if claim["status"] != "passed"
    ]
    assert lines[-2 - len(said) :] == [report["headline"], *said, f"Report: {page}"]
    with pytest.raises(ValueError, match="expected data of"):
        run_demo(tmp_path, data="cats")


@pytest.mark.usefixtures("in_this_process")
def test_a_second_run_says_the_same(tmp_path):
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        run_demo(folder, settings=TINY, say=lambda _: None)
    first, second = map(numbers_of, folders)
    assert first == second


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("data", ["mnist", "cifar10"])
def test_other_data_are_compared_alike(tmp_path, data):
    needed = [data, "notmnist", "fashion_mnist"]
    needed += {"mnist": ["usps"], "cifar10": ["resnet20"]}[data]
    if not all(path.is_file() for name in needed for path in files(name, data_root())):
        pytest.skip(f"{data} is not in the data root")
    usual = SETTINGS[data]
    settings = replace(TINY, architecture=usual.architecture, train_size=usual.train_size)
    if usual.published:
        settings = replace(settings, batch_sizes=(32,), draws=4, augmented_draws=2, study_draws=2)
    run_demo(tmp_path, data=data, settings=settings, say=lambda _: None)
    methods = numbers_of(tmp_path)["comparison"]["methods"]
    assert len(methods) == (6 if usual.published else 8)
    assert all(set(each["outside"]) >= {"notmnist", "fashion_mnist"} for each in methods.values())


def test_every_demo_takes_labels_that_are_not_scored():
    def task(size, value):
        return torch.full((size, 2), value) + torch.arange(size)[:, None] / size, torch.zeros(size)

    whole = mcbn.Task(task(30, 0.0), task(30, 1.0), task(30, 2.0))
    trained = with_labels(whole, replace(TINY, labels=10))
    assert torch.equal(trained.validation.inputs, whole.validation.inputs[:10])
    assert torch.equal(trained.test.inputs, whole.test.inputs)
    # What is published was trained on the validation part, so the labels are test examples.
    published = with_labels(whole, replace(TINY, labels=10, architecture="resnet20"))
    assert (len(published.validation), len(published.test)) == (10, 20)
    both = torch.cat([published.validation.inputs, published.test.inputs])
    assert torch.equal(both[both[:, 0].argsort()], whole.test.inputs)


def test_a_temperature_divides_every_draw():
    with torch.random.fork_rng():
        network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).eval()
    inputs = torch.linspace(-1, 1, 12).view(4, 3)
    sampler = mcbn.DeepEnsemble([network, network])
    tempered = Tempered(sampler, 2.0)
    expected = sampler(inputs) / 2
    assert len(tempered) == 2
    assert torch.equal(tempered(inputs), expected)
    assert torch.equal(torch.stack(list(tempered.passes(inputs))), expected)
    assert torch.equal(tempered.draw(1, inputs), expected[1])
