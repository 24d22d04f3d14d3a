"""Predictions as a file: saved and loaded, and refused."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import examples, make_network
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import mcbn
from mcbn.cli.main import main
from mcbn.io.tensors import draws_file, read_draws
from mcbn.predictive.gaussian import Moments
from mcbn.predictive.joining import joined_parts
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.recording import parts_for_file
from mcbn.predictive.stored import CATEGORICAL_TENSORS
from mcbn.predictive.tables import read_predictions

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


def predictions(targets=True, positions=()):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn((5, 7, 3, *positions), generator=generator)
    answers = torch.randint(3, (7, *positions), generator=generator) if targets else None
    return Predictions(
        "MCBN, M = 8", mcbn.Categorical().summarize(draws), answers, "seven in three"
    )


@pytest.mark.parametrize("targets", [True, False])
@pytest.mark.parametrize("positions", [(), (2, 2)])
def test_saved_and_loaded_is_the_same(targets, positions, tmp_path):
    saved = predictions(targets, positions)
    saved.save(tmp_path / "deep" / "file")
    loaded = Predictions.load(tmp_path / "deep" / "file")
    assert (loaded.method, loaded.data) == (saved.method, saved.data)
    assert loaded.predictive.draw_count == 5
    for name in (*CATEGORICAL_TENSORS, "mutual_information", "entropy", "confidence"):
        assert_close(
            getattr(loaded.predictive, name), getattr(saved.predictive, name), rtol=0, atol=0
        )
    if targets:
        assert_close(loaded.targets, saved.targets, rtol=0, atol=0)
    else:
        assert loaded.targets is None
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_the_scores_of_a_file_are_those_of_the_predictions(tmp_path):
    saved = predictions()
    saved.save(tmp_path / "file")
    loaded = Predictions.load(tmp_path / "file")
    scores = [
        mcbn.evaluate(p.predictive, p.targets, resamples=20).to_dict() for p in (saved, loaded)
    ]
    assert json.dumps(scores[0]) == json.dumps(scores[1])


def test_the_same_predictions_are_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        predictions().save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-3],
        lambda content: content[:40] + b"\xff" + content[41:],
        lambda content: b"PK\x03\x04 not ours",
        lambda content: content[:6],
        lambda content: b"",
    ],
    ids=["cut", "flipped", "foreign", "six bytes", "empty"],
)
def test_damaged_files_are_refused(damage, tmp_path):
    path = tmp_path / "file"
    predictions().save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="mcbn predictions file"):
        Predictions.load(path)


def test_a_bank_is_refused_by_name(tmp_path):
    batches = mcbn.minibatches(examples("1d of 2-D", 40), batch_size=8, draws=3)
    mcbn.collect(make_network("1d of 2-D"), batches).save(tmp_path / "bank")
    with pytest.raises(ValueError, match="of kind 'bank'"):
        Predictions.load(tmp_path / "bank")


def test_predictions_are_refused_as_a_bank(tmp_path):
    predictions().save(tmp_path / "file")
    with pytest.raises(ValueError, match="of kind 'predictions'"):
        mcbn.Bank.load(tmp_path / "file")


def test_a_safetensors_file_of_another_program_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "file")
    with pytest.raises(ValueError, match="that mcbn did not write"):
        Predictions.load(tmp_path / "file")


def test_another_version_is_refused_by_name(tmp_path):
    path = tmp_path / "file"
    predictions().save(path)
    content = path.read_bytes()
    assert b'\\"version\\": 1' in content
    path.write_bytes(content.replace(b'\\"version\\": 1', b'\\"version\\": 9'))
    with pytest.raises(ValueError, match="version 9"):
        Predictions.load(path)


def rewritten(path, tensors=None, **header):
    """The file again, with some tensors or header entries exchanged or (None) left out."""
    whole = {"kind": "predictions", "version": 1, "method": "a", "data": "b", "draws": 5, **header}
    kept = {**load_file(path), **(tensors or {})}
    line = json.dumps({key: value for key, value in whole.items() if value is not None})
    save_file({key: value for key, value in kept.items() if value is not None}, path,
              {"mcbn": line})  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        *({"tensors": {name: None}} for name in CATEGORICAL_TENSORS),
        {"tensors": {"variance": torch.zeros(7, 4, dtype=torch.float64)}},
        {"tensors": {"expected_entropy": torch.zeros(6, dtype=torch.float64)}},
        {"tensors": {"variation_ratio": torch.zeros(7)}},
        {"tensors": {"log_probabilities": torch.zeros(7, dtype=torch.float64)}},
        {"draws": None},
        {"draws": "5"},
        {"method": None},
        {"data": 3},
    ],
    ids=str,
)
def test_files_that_lack_a_part_are_refused(change, tmp_path):
    path = tmp_path / "file"
    predictions().save(path)
    rewritten(path)
    Predictions.load(path)
    rewritten(path, **change)
    with pytest.raises(ValueError, match="expected the tensors"):
        Predictions.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Predictions.load(tmp_path / "nowhere")


def regression(keep_draws, precision=4.0, outputs=(2,)):
    generator = torch.Generator().manual_seed(0)
    width = outputs if precision else tuple(2 * each for each in outputs)
    draws = torch.randn((5, 7, *width), generator=generator)
    mixture = mcbn.Gaussian(precision=precision).summarize(draws)
    stored = mixture if keep_draws else Moments.from_predictive(mixture)
    answers = torch.randn((7, *outputs), generator=generator).double()
    return Predictions("R", stored, answers, "seven")


@pytest.mark.parametrize("keep_draws", [True, False])
@pytest.mark.parametrize("precision", [4.0, None])
def test_regression_is_saved_and_loaded(keep_draws, precision, tmp_path):
    saved = regression(keep_draws, precision)
    saved.save(tmp_path / "file")
    loaded = Predictions.load(tmp_path / "file")
    assert type(loaded.predictive) is type(saved.predictive)
    assert loaded.predictive.draw_count == 5
    for name in ("mean", "variance", "epistemic_variance", "aleatoric_variance"):
        assert_close(
            getattr(loaded.predictive, name), getattr(saved.predictive, name), rtol=0, atol=0
        )
    one, two = (
        mcbn.evaluate(p.scored, p.targets, resamples=3).to_dict() for p in (saved, loaded)
    )  # fmt: skip
    assert json.dumps(one) == json.dumps(two)


def test_regression_without_targets_is_loaded_without(tmp_path):
    saved = regression(True)
    replace(saved, targets=None).save(tmp_path / "file")
    loaded = Predictions.load(tmp_path / "file")
    assert loaded.targets is None
    assert "target" not in loaded.to_xarray()
    assert_close(loaded.predictive.means, saved.predictive.means, rtol=0, atol=0)


def test_moments_are_those_of_the_mixture_and_not_the_mixture():
    mixture, moments = regression(True), regression(False)
    for name in ("mean", "variance", "epistemic_variance", "aleatoric_variance"):
        assert_close(getattr(moments.predictive, name), getattr(mixture.predictive, name),
                     rtol=1e-14, atol=1e-14)  # fmt: skip
    expected = mixture.predictive.crps_moment_matched(mixture.targets)
    assert_close(moments.scored.crps(moments.targets), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(AssertionError):
        assert_close(moments.scored.log_prob(moments.targets),
                     mixture.scored.log_prob(mixture.targets), rtol=1e-6, atol=1e-6)  # fmt: skip


def test_kept_draws_names_and_columns_are_read_back(tmp_path):
    draws = torch.randn((5, 7, 3), generator=torch.Generator().manual_seed(0))
    actual = mcbn.Categorical().summarize(draws, keep_draws=True)
    columns = {"sex": np.array(list("fmfmfmx")), "site": np.arange(7) % 2}
    Predictions("a", actual, None, "b", ("x", "y", "<z>"), columns).save(tmp_path / "file")
    loaded = Predictions.load(tmp_path / "file")
    assert_close(loaded.predictive.draws, draws, rtol=0, atol=0)
    assert loaded.classes == ("x", "y", "<z>")
    assert {name: "".join(values) for name, values in loaded.columns.items()} == {
        "sex": "fmfmfmx", "site": "0101010"
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": {"means": None}},
        {"tensors": {"variances": None}},
        {"tensors": {"variances": torch.zeros(3, dtype=torch.float64)}},
        {"likelihood": "poisson"},
        {"likelihood": "moments"},
    ],
    ids=str,
)
def test_files_of_regression_that_lack_a_part_are_refused(change, tmp_path):
    path = tmp_path / "file"
    regression(True).save(path)
    rewritten(path, **{"likelihood": "gaussian"})
    Predictions.load(path)
    rewritten(path, **{"likelihood": "gaussian", **change})
    with pytest.raises(ValueError, match="expected the tensors"):
        Predictions.load(path)


def test_columns_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "file"
    predictions().save(path)
    rewritten(path, columns={"sex": ["f"]}, tensors={"columns.sex": torch.ones(7).long()})
    with pytest.raises(ValueError, match="corrupted"):
        Predictions.load(path)


def test_xarray_has_the_dimensions_that_arviz_takes():
    """`arviz.from_dict({"posterior_predictive": {...}})` wants (chain, draw, *shape)."""
    draws = torch.randn((5, 7, 3), generator=torch.Generator().manual_seed(0))
    kept = mcbn.Categorical().summarize(draws, keep_draws=True)
    answers, columns = torch.arange(7) % 3, {"sex": np.array(list("fmfmfmf"))}
    actual = Predictions("a", kept, answers, "b", ("x", "y", "z"), columns).to_xarray()
    assert actual["logits"].dims == ("chain", "draw", "case", "class")
    assert actual["logits"].values.tolist() == [draws.tolist()]
    assert actual["probability"].dims == ("case", "class")
    assert actual["mutual_information"].dims == actual["target"].dims == ("case",)
    # What ArviZ would do: a mean over chain and draw of what it takes apart by name.
    softmax = torch.from_numpy(actual["logits"].values).double().softmax(-1)
    averaged = actual["logits"].copy(data=softmax.numpy()).mean(("chain", "draw"))
    difference = abs(averaged - actual["probability"])
    assert float(difference.max()) < 1e-15
    assert float(actual["probability"].sel({"class": "y"})[3]) == float(kept.probabilities[3, 1])
    assert actual.where(actual.sex == "m", drop=True).sizes["case"] == 3
    assert actual.attrs == {"method": "a", "data": "b", "draws": 5}
    assert "logits" not in predictions().to_xarray()


@pytest.mark.parametrize("outputs", [(), (2,)])
def test_xarray_of_regression(outputs):
    actual = regression(True, outputs=outputs).to_xarray() if outputs else Predictions(
        "R", mcbn.Gaussian(precision=1.0).summarize(torch.zeros(5, 7)), torch.zeros(7), "x"
    ).to_xarray()  # fmt: skip
    ends = ("output",) * len(outputs)
    assert actual["means"].dims == ("chain", "draw", "case", *ends)
    assert actual["sd"].dims == actual["target"].dims == ("case", *ends)


def test_xarray_of_positions():
    actual = predictions(positions=(2, 3)).to_xarray()
    assert actual["probability"].dims == ("case", "class", "position_0", "position_1")
    assert actual["entropy"].dims == actual["target"].dims == ("case", "position_0", "position_1")


@pytest.mark.parametrize("sizes", [(7,), (3, 4), (1,) * 7])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_draws_written_in_batches_are_the_draws(sizes, precision, tmp_path):
    draws = torch.randn((5, 7, 3, 2), generator=torch.Generator().manual_seed(0))
    with draws_file(tmp_path / "file", examples=7, precision=precision, header={"a": 1}) as add:
        for batch in draws.split(sizes, dim=1):
            add(batch)
    actual, header = read_draws(tmp_path / "file")
    assert header["a"] == 1
    assert_close(actual, draws.to(getattr(torch, precision)), rtol=0, atol=0)
    # To the last byte what safetensors itself would write, and so any reader reads it.
    assert_close(load_file(tmp_path / "file")["draws"], actual, rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([torch.zeros(5, 3, 2)], {}, "got 3"),
        ([torch.zeros(5, 8, 2)], {}, "after 0 examples"),
        ([torch.zeros(5, 3, 2), torch.zeros(4, 4, 2)], {}, "after 3 examples"),
        ([torch.full((5, 7, 2), 1e6)], {"precision": "float16"}, "as float32"),
        ([torch.full((5, 7, 2), torch.nan)], {}, "as float32"),
        ([], {"precision": "float8"}, "float32 or float16"),
    ],
)
def test_draws_that_do_not_fit_leave_the_old_file(batches, options, message, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    options = {"precision": "float32", **options}

    def write():
        with draws_file(path, examples=7, header={}, **options) as add:
            for batch in batches:
                add(batch)

    with pytest.raises(ValueError, match=message):
        write()
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_writing_draws_takes_the_memory_of_a_batch(tmp_path):
    """32 MB of draws in batches of 1 MB: no more than some batches are ever held."""
    batch = torch.zeros(16, 128, 128)
    tracemalloc.start()
    try:
        with draws_file(tmp_path / "file", examples=32 * 128, header={}) as add:
            for _ in range(32):
                add(batch)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * 2**20
    assert (tmp_path / "file").stat().st_size > 32 * 2**20


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:20], lambda b: b""])
def test_damaged_draws_are_refused(damage, tmp_path):
    path = tmp_path / "file"
    with draws_file(path, examples=2, header={}) as add:
        add(torch.zeros(3, 2, 2))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="truncated, corrupted or different"):
        read_draws(path)
    predictions().save(path)
    with pytest.raises(ValueError, match="of kind 'predictions'"):
        read_draws(path)


class Fixed:
    """A sampler whose draws are known: the inputs plus the number of the draw."""

    def __len__(self):
        return 4

    def passes(self, inputs):
        return (inputs * (1 + draw) for draw in range(4))

    def __call__(self, inputs):
        return torch.stack(list(self.passes(inputs)))


@pytest.mark.parametrize("likelihood", [mcbn.Categorical(), mcbn.Gaussian(2.0), mcbn.Gaussian()])
@pytest.mark.parametrize("keep_draws", [True, False])
def test_parts_for_a_file_are_predicted_and_their_draws_handed_on(likelihood, keep_draws, tmp_path):
    inputs = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    whole = mcbn.predict(Fixed(), inputs, likelihood, keep_draws=True)
    with draws_file(tmp_path / "file", examples=10, header={}) as add:
        parts = parts_for_file(
            Fixed(), inputs, likelihood, batch_size=3, keep_draws=keep_draws, add=add
        )
        actual = joined_parts(list(parts))
    # Means are kept in float64 and log-variances have been through an exponential.
    assert_close(read_draws(tmp_path / "file")[0], Fixed()(inputs), rtol=1e-6, atol=1e-6)
    if isinstance(likelihood, mcbn.Categorical):
        assert_close(actual.log_probabilities, whole.log_probabilities, rtol=0, atol=0)
        assert (actual.draws is not None) == keep_draws
    else:
        assert isinstance(actual, Moments) == (not keep_draws)
        assert_close(actual.variance, whole.variance, rtol=1e-14, atol=1e-14)


NETS = """
from torch import nn
def build():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    generator = torch.Generator().manual_seed(0)
    np.savez(
        tmp_path / "test.npz",
        inputs=torch.randn(30, 4, generator=generator).numpy(),
        targets=np.arange(30) % 2,
        sex=np.array(list("fm") * 15),
        classes=np.array(["no", "yes"]),
        other=np.zeros((30, 2)),
    )
    return tmp_path


def command(folder, *words):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the network's weights
        main(["predict", "--model", f"{folder}/nets.py:build", "--data", f"{folder}/test.npz",
              "--method", "dropout", "--draws", "5", *words])  # fmt: skip


def test_predict_writes_what_the_name_asks_for(folder, capsys):
    for suffix in (".csv", ".parquet", ".npz", ".st"):
        command(folder, "--out", f"{folder}/m{suffix}", "--draws-out", f"{folder}/draws.st",
                "--draws-type", "float16", "--force")  # fmt: skip
        actual = read_predictions(folder / f"m{suffix}")
        assert actual.classes == ("no", "yes")
        assert actual.targets.tolist() == [0, 1] * 15
        assert "".join(actual.columns["sex"]) == "fm" * 15
        assert set(actual.columns) == {"sex"}
        assert actual.predictive.draw_count == 5
        draws, header = read_draws(folder / "draws.st")
        assert header["method"] == "MC Dropout"
        averaged = draws.double().softmax(2).mean(0)
        # Half precision keeps 11 bits of a logit of a few units.
        assert_close(averaged, actual.predictive.probabilities, rtol=0, atol=2e-3)


def test_predict_of_regression_keeps_moments_or_the_mixture(folder, capsys):
    options = ("--likelihood", "gaussian", "--precision", "4")
    targets = np.zeros((30, 2))
    with np.load(folder / "test.npz") as file:
        np.savez(folder / "test.npz", inputs=file["inputs"], targets=targets)
    command(folder, "--out", f"{folder}/m.csv", *options)
    command(folder, "--out", f"{folder}/m.st", *options, "--keep-draws", "true")
    moments, mixture = (read_predictions(folder / f"m{suffix}") for suffix in (".csv", ".st"))
    assert isinstance(moments.predictive, Moments)
    assert mixture.predictive.means.shape == (5, 30, 2)
    assert_close(moments.predictive.variance, mixture.predictive.variance, rtol=1e-12, atol=1e-12)
    assert moments.targets.dtype == torch.float64
    assert "mean epistemic sd" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "m.csv", "--keep-draws", "true"), "--draws-out"),
        (("--out", "m.st", "--precision", "4"), "leave it out"),
        (("--out", "m.st", "--likelihood", "gaussian", "--precision", "-1"), "precision tau"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_any_work(folder, capsys, words, message):
    with pytest.raises(SystemExit):
        command(folder, *words)
    assert message in capsys.readouterr().err


def test_a_reserved_column_name_is_refused_for_tables_alone(folder, capsys):
    with np.load(folder / "test.npz") as file:
        np.savez(folder / "test.npz", inputs=file["inputs"], index=np.arange(30))
    command(folder, "--out", f"{folder}/m.st")
    assert len(read_predictions(folder / "m.st").columns["index"]) == 30
    with pytest.raises(SystemExit):
        command(folder, "--out", f"{folder}/m.csv")
    assert "expected other names" in capsys.readouterr().err
