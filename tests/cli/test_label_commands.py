"""Several labels an example on the command line: predictions, scores, reports and a sweep."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import failing, run
from torch.nn.functional import binary_cross_entropy_with_logits

import mcbn
from mcbn.predictive.predictions import Predictions

MINE = """
import torch, mcbn
from torch import nn

def build():
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

def ending():
    return nn.Sequential(build(), nn.Sigmoid())

def part(count, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, generator=generator)
    return x, (x[:, :3] + 0.5 * torch.randn(count, 3, generator=generator) > 0.3).float()

def task():
    x, y = part(60, 2)
    y[::9, 1] = -1
    return mcbn.Task(part(60, 0), part(40, 1), (x, y), classes=("cat", "dog", "cow"),
                     outside={"far": 4 * x[:20]}, multilabel=True, ignore_index=-1, name="farm")

def masks():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(24, 3, 8, 6, generator=generator)
    return x, (x[:, :1] > 0.6).long()

def dense():
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
                         nn.Conv2d(6, 1, 1))
"""
NETWORK = "--model mine.py:build --weights w.pt --data mine.py:task"
pytestmark = [
    pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning"),
    pytest.mark.filterwarnings("ignore::mcbn.RescalingWarning"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    namespace = {}
    exec(MINE, namespace)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = namespace["build"]()
        torch.save(network.state_dict(), "w.pt")
        torch.save({f"0.{name}": value for name, value in network.state_dict().items()}, "s.pt")
        torch.save(namespace["dense"]().state_dict(), "d.pt")
    return namespace


def test_from_labels_to_a_report(folder, capsys):
    run(f"collect {NETWORK} --batch-size 8 --draws 4 --out bank.st")
    run(f"predict {NETWORK} --bank bank.st --likelihood bernoulli --out mcbn.st")
    run(f"predict {NETWORK} --method deterministic --likelihood bernoulli --out plain.npz")
    given = Predictions.load("mcbn.st")
    assert (given.classes, given.ignore_index) == (("cat", "dog", "cow"), -1)
    capsys.readouterr()
    run("evaluate mcbn.st --resamples 10 --json")
    printed = json.loads(capsys.readouterr().out)
    expected = mcbn.evaluate(given.scored, given.targets, ignore_index=-1, resamples=10)
    for name, score in expected.items():
        assert printed["scores"][name]["value"] == pytest.approx(score.value), name
    run("report plain.npz mcbn.st --resamples 10 --out report")
    page = (Path() / "report" / "report.html").read_text()
    numbers = json.loads((Path() / "report" / "report.json").read_text())
    classes = mcbn.class_scores(given.scored, given.targets, ignore_index=-1, resamples=0)
    shown = numbers["classes"]["MCBN"]["classes"]["dog"]["auroc"]["value"]
    assert shown == pytest.approx(classes.by_class["1"]["auroc"].value)
    text = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "Scores of each label" in text
    assert "share of labels that are there" in text or "of the labels are there" in text
    assert "confidence minus accuracy" not in text
    gap = numbers["calibration"]["MCBN"]["gap"]
    known = given.targets != -1
    mean = given.predictive.probabilities[known].mean() - given.targets[known].double().mean()
    assert gap == pytest.approx(float(mean))


def test_a_network_that_ends_in_a_sigmoid_has_the_same_scores(folder):
    ending = "--model mine.py:ending --weights s.pt --data mine.py:task --method deterministic"
    several = "--likelihood bernoulli --outputs probabilities"
    run(f"predict {ending} {several} --out s.st")
    run(f"predict {NETWORK} --method deterministic --likelihood bernoulli --out w.st")
    one, two = (Predictions.load(path).predictive for path in ("s.st", "w.st"))
    torch.testing.assert_close(one.log_odds, two.log_odds, rtol=1e-5, atol=1e-6)


def test_a_file_of_labels_or_of_several_precisions(folder, capsys):
    run(f"collect {NETWORK} --batch-size 8 --draws 4 --out bank.st")
    line = f"export {NETWORK} --bank bank.st"
    run(f"{line} --likelihood bernoulli --out labels.pt2")
    run(f"{line} --precision 1,4,25 --out reals.pt2")
    run(f"{line} --precision 4 --likelihood gaussian --out same.pt2")
    x = folder["part"](7, 2)[0]
    with torch.random.fork_rng():
        model = folder["build"]()
    model.load_state_dict(torch.load("w.pt", weights_only=True))
    sampler = mcbn.MCBatchNorm(model.eval(), mcbn.Bank.load("bank.st"))
    for name, likelihood in (("labels", "bernoulli"), ("reals", mcbn.Gaussian((1.0, 4.0, 25.0))),
                             ("same", mcbn.Gaussian(4.0))):  # fmt: skip
        expected = mcbn.predict(sampler, x, likelihood, progress=False)
        with torch.no_grad():
            found = torch.export.load(f"{name}.pt2").module()(x)
        for output, values in found.items():
            torch.testing.assert_close(
                values.double(), getattr(expected, output), rtol=1e-6, atol=2e-6
            )
    line += " --out other.pt2"
    for options, said in (
        (
            "--likelihood bernoulli --precision 4",
            "with --likelihood gaussian only, got it for bern",
        ),
        ("--precision 4 --outputs logits", "expected --outputs for classes or labels only"),
        ("--precision 4,x", "expected a positive number for --precision, got 'x'"),
        ("--precision -4", "expected a positive number for --precision, got '-4'"),
    ):
        assert said in failing(f"{line} {options}", capsys)


def test_wrong_likelihoods_are_refused_with_what_to_give(folder, capsys):
    method = "--method deterministic --out p.st"
    said = failing(f"predict {NETWORK} {method}", capsys)
    assert "expected --likelihood bernoulli" in said
    ending = "--model mine.py:ending --weights s.pt --data mine.py:task"
    said = failing(f"predict {ending} {method} --likelihood bernoulli", capsys)
    assert "--outputs probabilities" in said
    said = failing(
        f"predict {NETWORK} {method} --likelihood gaussian --precision 1 --outputs logits", capsys
    )
    assert "expected --outputs for classes or labels only" in said


def test_targets_of_a_table_have_their_names(folder):
    x, y = folder["part"](30, 3)
    rows = np.concatenate([x.numpy(), y.numpy()], axis=1)
    header = "a,b,c,d,e,wet,hot,late"
    np.savetxt("rows.csv", rows, delimiter=",", header=header, comments="")
    network = "--model mine.py:build --weights w.pt --data rows.csv --target wet,hot,late"
    run(f"predict {network} --method deterministic --likelihood bernoulli --out p.st")
    given = Predictions.load("p.st")
    assert given.classes == ("wet", "hot", "late")
    assert torch.equal(given.targets, y.long())


def test_one_label_of_every_pixel_has_maps(folder, capsys):
    network = "--model mine.py:dense --weights d.pt --data mine.py:masks"
    run(f"collect {network} --batch-size 6 --draws 3 --out bank.st")
    run(f"predict {network} --bank bank.st --likelihood bernoulli --out mcbn.st")
    run("report mcbn.st --resamples 5 --maps maps --out report")
    assert len(list(Path().glob("maps/MCBN/*-mutual-information.png"))) == 24
    assert 'id="maps"' in (Path() / "report" / "report.html").read_text()


def test_a_sweep_scores_labels(folder):
    run(
        "sweep --model mine.py:build --weights w.pt --task mine.py:task --batch-sizes 8,16 "
        "--draws 4 --out sweep"
    )
    study = mcbn.Study.load("sweep")
    task = folder["task"]()
    with torch.random.fork_rng():  # from which initial weights are drawn
        model = folder["build"]()
    model.load_state_dict(torch.load("w.pt", weights_only=True))
    with torch.no_grad():
        logits = model.eval()(task.test.inputs).double()
    known = task.test.targets != -1
    expected = binary_cross_entropy_with_logits(logits[known], task.test.targets[known].double())
    plain = next(each for each in study.results if each.cell.method == "Deterministic")
    assert plain.scores["nll"] == pytest.approx(float(expected), rel=1e-6)
    assert {"f1_macro", "auroc_macro", "auroc_far_by_entropy"} <= plain.scores.keys()
    assert "auroc_macro" in study.plan.shown
    best = study.recommendation["best"]
    assert 8 <= best <= 16
    # The curve of the choice is that of the scores.
    sampler = mcbn.MCBatchNorm(
        model, mcbn.collect(model, mcbn.minibatches(task.train.inputs, batch_size=16, draws=4))
    )
    choice = mcbn.choose_batch_size(
        model, sampler.bank, task.validation.inputs, task.validation.targets,
        likelihood="bernoulli", bounds=(8, 16), points=3, progress=False,
    )  # fmt: skip
    predictive = mcbn.predict(sampler, task.validation.inputs, "bernoulli", progress=False)
    scored = mcbn.evaluate(predictive, task.validation.targets, resamples=0)["nll"].value
    assert float(choice.values[-1]) == pytest.approx(scored, rel=1e-6)
