"""Real targets on the command line: a fitted precision, noise that a network returns, a report."""

import json

import numpy as np
import pytest
import torch
from command_lines import failing, run

import mcbn
from mcbn.cli.noise import fitted_likelihood
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import read_predictions

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")

MINE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

class Noisy(nn.Module):
    def __init__(self, form, outputs=1):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, outputs))
        self.form = form
    def forward(self, x):
        mean = self.body(x)
        sd = 1 + x[:, :1].square().expand(mean.shape)
        noise = {"sd": sd, "variance": sd.square(), "log-variance": 2 * sd.log(), "zero": 0 * sd}
        return torch.cat([mean, noise[self.form]], dim=1)

def sd():
    return Noisy("sd")

def variance():
    return Noisy("variance")

def log_variance():
    return Noisy("log-variance")

def zero():
    return Noisy("zero")

def two():
    return Noisy("sd", 2)

def two_means():
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Tables of two inputs and a real target, a network and its weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    generator = np.random.Generator(np.random.Philox(1))
    for name, count in (("train", 120), ("val", 60), ("test", 50)):
        x = generator.standard_normal((count, 2))
        y = x[:, 0] + 0.5 * generator.standard_normal(count)
        rows = np.column_stack([x, y])
        np.savetxt(f"{name}.csv", rows, delimiter=",", header="a,b,strength", comments="")
    namespace = {}
    exec(MINE, namespace)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(namespace["build"]().state_dict(), "w.pt")
        torch.save(namespace["sd"]().state_dict(), "noisy.pt")
        torch.save(namespace["two"]().state_dict(), "two.pt")
    return tmp_path


NETWORK = "--model mine.py:build --weights w.pt"
TABLES = "--target strength --likelihood gaussian"


def test_from_a_table_of_real_targets_to_a_report(folder, capsys):
    run(f"collect {NETWORK} --data train.csv --target strength --draws 8 --out bank.st")
    for method, more in (("mcbn", "--bank bank.st"), ("deterministic", "")):
        run(f"predict {NETWORK} --method {method} {more} --data test.csv {TABLES} "
            f"--precision auto --held-out val.csv --out {method}.st")  # fmt: skip
    assert "fitted on 60 held-out examples" in capsys.readouterr().out
    run("evaluate mcbn.st --resamples 20")
    assert "crps" in capsys.readouterr().out
    run("report deterministic.st mcbn.st --resamples 20")
    report = json.loads((folder / "report" / "report.json").read_text())
    assert list(report["comparison"]["methods"]) == ["Deterministic", "MCBN"]
    given = np.loadtxt("test.csv", delimiter=",", skiprows=1)[:, 2]
    np.testing.assert_array_equal(Predictions.load("mcbn.st").targets[:, 0].numpy(), given)


def test_the_precision_is_that_of_the_library(folder, capsys):
    line = f"predict {NETWORK} --method deterministic --data test.csv {TABLES} --precision auto"
    run(f"{line} --held-out val.csv --out auto.st --json")
    printed = json.loads(capsys.readouterr().out)["precision"]
    namespace = {}
    exec(MINE, namespace)
    with torch.random.fork_rng():
        network = namespace["build"]()
    network.load_state_dict(torch.load("w.pt", weights_only=True))
    rows = np.loadtxt("val.csv", delimiter=",", skiprows=1)
    held_out = mcbn.predict(mcbn.Deterministic(network), rows[:, :2], mcbn.Gaussian(1.0))
    assert printed == pytest.approx(mcbn.fit_precision(held_out, rows[:, 2]).precision, rel=1e-6)
    # Without draws, tau is one over the mean squared residual.
    residuals = held_out.mean[:, 0].numpy() - rows[:, 2]
    assert printed == pytest.approx(1 / np.mean(residuals**2), rel=1e-4)
    run(f"predict {NETWORK} --method deterministic --data test.csv {TABLES} --precision {printed} "
        "--out number.csv")  # fmt: skip
    spread = read_predictions("number.csv").predictive.variance
    torch.testing.assert_close(spread, Predictions.load("auto.st").predictive.variance[:, 0])


@pytest.mark.parametrize(("spread", "said"), [(0.1, ""), (100.0, "upper bound of its search")])
def test_a_precision_at_a_bound_of_its_search_is_told(capsys, spread, said):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(200, generator=generator, dtype=torch.float64)
    # Pairs of draws of which one is near the target, and whose mean is far off.
    means = torch.stack([targets, targets + spread])
    if not said:
        means += torch.randn(200, generator=generator, dtype=torch.float64)
    noise = torch.tensor(1.0, dtype=torch.float64)
    fitted_likelihood(GaussianPredictive(means, noise), targets, ())
    told = capsys.readouterr().err
    assert said in told
    assert bool(told) == bool(said)


@pytest.mark.parametrize("noise", ["log-variance", "variance", "sd"])
def test_noise_in_every_form_is_the_same(folder, noise):
    model = f"--model mine.py:{noise.replace('-', '_')} --weights noisy.pt --method deterministic"
    run(f"predict {model} --data test.csv {TABLES} --noise {noise} --out noise.st")
    rows = np.loadtxt("test.csv", delimiter=",", skiprows=1)
    actual = Predictions.load("noise.st").predictive.variance[:, 0].sqrt().numpy()
    np.testing.assert_allclose(actual, 1 + rows[:, 0] ** 2, rtol=1e-5)


PREDICT = "predict --method deterministic --data test.csv"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{NETWORK} {TABLES} --precision auto", "expected --held-out with --precision auto"),
        (f"{NETWORK} {TABLES} --precision -2", "expected a positive precision tau, got -2; give"),
        (f"{NETWORK} {TABLES} --precision atuo", "expected a number or auto for --precision"),
        (f"{NETWORK} --target strength --precision auto", "--likelihood gaussian only, got auto"),
        (f"{NETWORK} {TABLES} --precision auto --held-out no.csv", "got none; check --held-out"),
        (f"{NETWORK} {TABLES} --precision auto --held-out inputs.npy", "targets in --held-out to"),
        (f"{NETWORK} {TABLES} --precision 2 --noise sd", "expected --noise sd of a network"),
        (f"{NETWORK} {TABLES}", "2 outputs of mine.py:build for an example of test.csv, got 1"),
        ("--model mine.py:two --weights two.pt --target strength --likelihood gaussian --noise sd",
         "expected 2 outputs of mine.py:two for an example of test.csv, got 4"),
        (f"--model mine.py:zero --weights noisy.pt {TABLES} --noise variance",
         "expected a positive variance from the network, got 0 (50 of 50 are not positive)"),
    ],
)  # fmt: skip
def test_options_of_noise_that_do_not_fit_are_refused(folder, capsys, line, reason):
    np.save("inputs.npy", np.zeros((5, 2)))
    assert reason in failing(f"{PREDICT} {line} --out o.st", capsys)
    assert not (folder / "o.st").exists()


def test_held_out_data_may_have_another_form(folder, capsys):
    rows = np.loadtxt("val.csv", delimiter=",", skiprows=1)
    np.savez("val.npz", inputs=rows[:, :2], targets=rows[:, 2])
    (folder / "tasks.py").write_text(
        "import numpy as np, mcbn\n"
        "def task():\n"
        "    read = lambda name: np.loadtxt(f'{name}.csv', delimiter=',', skiprows=1)\n"
        "    parts = [(rows[:, :2], rows[:, 2]) for rows in map(read, ('train', 'val', 'test'))]\n"
        "    return mcbn.Task(*parts)\n"
    )
    found = []
    for held_out in ("val.csv", "val.npz", "tasks.py:task"):
        capsys.readouterr()
        run(f"predict {NETWORK} --method deterministic --data test.csv {TABLES} --precision auto "
            f"--held-out {held_out} --out {len(found)}.st --json")  # fmt: skip
        found.append(json.loads(capsys.readouterr().out)["precision"])
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)


def test_held_out_data_without_targets_are_refused(folder, capsys):
    rows = np.loadtxt("test.csv", delimiter=",", skiprows=1)
    np.savez("test.npz", inputs=rows[:, :2], targets=rows[:, 2])
    np.save("inputs.npy", rows[:, :2])
    line = f"predict {NETWORK} --method deterministic --data test.npz --likelihood gaussian"
    said = failing(f"{line} --precision auto --held-out inputs.npy --out o.st", capsys)
    assert "expected targets in --held-out to fit the precision on, got none in inputs.npy" in said


def test_options_without_effect_are_told(folder, capsys):
    line = f"predict {NETWORK} --method deterministic --data test.csv {TABLES} --precision 1"
    run(f"{line} --held-out val.csv --out o.st")
    assert "--held-out has no effect without --precision auto" in capsys.readouterr().err


TWO = "--model mine.py:two_means --weights two_means.pt --method deterministic"
BOTH = "--target strength,weight --likelihood gaussian"


@pytest.fixture
def two(folder):
    """Tables of two targets, the second in other units, and a network of two means."""
    for name in ("train", "val", "test"):
        rows = np.loadtxt(f"{name}.csv", delimiter=",", skiprows=1)
        np.savetxt(f"{name}2.csv", np.column_stack([1000 * rows[:, 0], rows]), delimiter=",",
                   comments="", header="weight,a,b,strength")  # fmt: skip
    namespace = {}
    exec(MINE, namespace)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.save(namespace["two_means"]().state_dict(), "two_means.pt")
    return folder


def test_several_columns_of_targets(two):
    run("predict --model mine.py:two --weights two.pt --method deterministic --data test2.csv "
        f"{BOTH} --noise sd --out o.st")  # fmt: skip
    rows = np.loadtxt("test2.csv", delimiter=",", skiprows=1)
    predictions = Predictions.load("o.st")
    np.testing.assert_array_equal(predictions.targets.numpy(), rows[:, [3, 0]])
    assert (predictions.outputs, predictions.units) == (("strength", "weight"), ())
    run("evaluate o.st --resamples 5")


def test_several_targets_in_their_units_to_a_report(two, capsys):
    run(f"predict {TWO} --data test2.csv {BOTH} --units MPa,kg --precision auto "
        "--held-out val2.csv --out two.st --json")  # fmt: skip
    printed = json.loads(capsys.readouterr().out)["precision"]
    predictions = Predictions.load("two.st")
    assert (predictions.outputs, predictions.units) == (("strength", "weight"), ("MPa", "kg"))
    # Without draws, tau is one over the mean squared residual of its own output.
    namespace = {}
    exec(MINE, namespace)
    with torch.random.fork_rng():
        network = namespace["two_means"]()
    network.load_state_dict(torch.load("two_means.pt", weights_only=True))
    rows = np.loadtxt("val2.csv", delimiter=",", skiprows=1)
    with torch.no_grad():
        means = network.eval()(torch.from_numpy(rows[:, 1:3]).float()).double().numpy()
    assert printed == pytest.approx(1 / np.mean((means - rows[:, [3, 0]]) ** 2, 0), rel=1e-4)
    np.testing.assert_allclose(predictions.predictive.variance[0], 1 / np.array(printed))

    run("evaluate two.st --resamples 5")
    said = capsys.readouterr().out
    assert "100 values of 2 outputs" in said
    together = said[: said.index("Output strength:")]
    assert "pll" in together
    assert "rmse" not in together  # of MPa and kg
    for name, unit in (("strength", "MPa"), ("weight", "kg")):
        part = said[said.index(f"Output {name}:") :]
        rmse = next(line for line in part.splitlines() if line.split()[0] == "rmse")
        assert rmse.endswith(f"{unit}   (lower is better)")
        pll = next(line for line in part.splitlines() if line.split()[0] == "pll")
        assert unit not in pll
    run("evaluate two.st --resamples 5 --json")
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["units"] == ["MPa", "kg"]
    k = list(numbers["outputs"]).index("weight")
    error = (predictions.predictive.mean - predictions.targets)[:, k].square().mean().sqrt()
    assert numbers["outputs"]["weight"]["scores"]["rmse"]["value"] == pytest.approx(float(error))

    run("report two.st --resamples 5 --json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["report"] == "report/report.html"
    assert (
        printed["headline"] == json.loads((two / "report" / "report.json").read_text())["headline"]
    )
    assert {"topic", "mark", "sentence", "code", "remedy"} < set(printed["verdict"][0])
    report = json.loads((two / "report" / "report.json").read_text())
    assert printed["headline"] == report["headline"]
    assert report["outputs"]["Deterministic"]["weight"] == numbers["outputs"]["weight"]
    page = (two / "report" / "report.html").read_text()
    assert "only scores without a unit" in page
    assert ">kg<" in page


def test_one_unit_stands_in_every_heading(folder, capsys):
    run(f"predict {NETWORK} --method deterministic --data test.csv {TABLES} --precision 2 "
        "--units MPa --out one.csv")  # fmt: skip
    run("report one.csv --units MPa --resamples 5")  # a table has no place for units
    page = (folder / "report" / "report.html").read_text()
    assert page.count("RMSE (MPa)") == page.count("RMSE (") >= 2
    assert "outputs together" not in page
    run("evaluate one.csv --units MPa --resamples 5")
    assert " MPa   (lower is better)" in capsys.readouterr().out


def test_outputs_may_have_the_same_unit(two):
    run(f"predict {TWO} --data test2.csv {BOTH} --units MPa,MPa --precision 1 --out o.st")
    assert Predictions.load("o.st").units == ("MPa", "MPa")
    run("report o.st --resamples 5")
    page = (two / "report" / "report.html").read_text()
    assert "RMSE (MPa)" in page
    assert "scores without a unit" not in page


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{TWO} --data test2.csv {BOTH} --precision 1 --units a,b,c --out o.st",
         "one unit for all 2 outputs, or one for each, got ['a', 'b', 'c']"),
        (f"{NETWORK} --method deterministic --data test2.csv --target strength,weight "
         "--likelihood gaussian --precision auto --held-out val2.csv --out o.st",
         "expected 2 outputs of mine.py:build for an example of test2.csv, got 1"),
    ],
)  # fmt: skip
def test_names_and_units_that_do_not_fit_are_refused_before_the_work(two, capsys, line, reason):
    assert reason in failing(f"predict {line}", capsys)
    assert not (two / "o.st").exists()


def test_a_standardised_task_is_predicted_in_its_own_units(folder, capsys):
    (folder / "tasks.py").write_text(
        "import numpy as np, mcbn\n"
        "def make(scale, shift):\n"
        "    read = lambda name: np.loadtxt(f'{name}.csv', delimiter=',', skiprows=1)\n"
        "    parts = [(rows[:, :2], (rows[:, 2] - shift) / scale)\n"
        "             for rows in map(read, ('train', 'val', 'test'))]\n"
        "    return mcbn.Task(*parts, units='MPa', target_mean=shift, target_scale=scale)\n"
        "def plain(): return make(1.0, 0.0)\n"
        "def scaled(): return make(1.0 / 8, 3.0)\n"
    )
    rows = np.loadtxt("test.csv", delimiter=",", skiprows=1)
    outputs = {}
    for name in ("plain", "scaled"):
        run(f"predict {NETWORK} --method deterministic --data tasks.py:{name} "
            f"--likelihood gaussian --precision 4 --out {name}.st")  # fmt: skip
        given = Predictions.load(f"{name}.st")
        assert given.units == ("MPa",)
        np.testing.assert_allclose(given.targets[:, 0], rows[:, 2], rtol=1e-12)
        outputs[name] = given.predictive
    torch.testing.assert_close(outputs["scaled"].mean, 3 + outputs["plain"].mean / 8)
    torch.testing.assert_close(outputs["scaled"].variance, outputs["plain"].variance / 64)
