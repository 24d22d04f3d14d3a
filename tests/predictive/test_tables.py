"""Predictions as CSV, Parquet and NPZ: written and read, of other tools, and refused."""

import csv
import gzip
import json
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from torch.testing import assert_close

import mcbn
from mcbn.cli.evaluate import evaluate
from mcbn.cli.options.predictions import EvaluateOptions, ReportOptions
from mcbn.cli.report import report
from mcbn.predictive.gaussian import Moments
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import read_predictions, write_predictions

SUFFIXES = (".csv", ".parquet", ".npz", ".tsv", ".csv.gz")
# Rows are divided by their sums and logarithms taken again: a few roundings of float64.
ROUNDING = {"rtol": 1e-13, "atol": 1e-13}


def classes(names=(), draws=6, columns=True, targets=True):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((draws, 40, 3), generator=generator)
    answers = torch.randint(3, (40,), generator=generator) if targets else None
    extra = {"sex": np.array(list("fm") * 20), "site": np.arange(40) % 4} if columns else {}
    return Predictions("M", mcbn.Categorical().summarize(logits), answers, "forty", names, extra)


def reals(outputs=(), keep_draws=False):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn((6, 40, *outputs), generator=generator).double()
    mixture = mcbn.Gaussian(precision=4.0).summarize(draws)
    stored = mixture if keep_draws else Moments.from_predictive(mixture)
    return Predictions("M", stored, torch.randn((40, *outputs), generator=generator).double(), "x")


def scores(predictions, **options):
    evaluation = mcbn.evaluate(predictions.scored, predictions.targets, resamples=5, **options)
    return {name: (s.value, s.low, s.high) for name, s in evaluation.items()}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("names", [(), ("cat", "<b>dog", 'a,"b"')])
def test_classes_are_read_back_and_score_the_same(suffix, names, tmp_path):
    saved = classes(names)
    write_predictions(tmp_path / f"m{suffix}", saved)
    loaded = read_predictions(tmp_path / f"m{suffix}")
    assert (loaded.method, loaded.classes, loaded.predictive.draw_count) == ("m", names, 6)
    assert_close(loaded.targets, saved.targets, rtol=0, atol=0)
    for name in ("probabilities", "entropy", "mutual_information", "variation_ratio"):
        assert_close(getattr(loaded.predictive, name), getattr(saved.predictive, name), **ROUNDING)
    assert [str(value) for value in loaded.columns["site"]] == [str(k % 4) for k in range(40)]
    assert set(loaded.columns) == {"sex", "site"}
    actual, expected = scores(loaded), scores(saved)
    assert actual.keys() == expected.keys()
    for name in actual:
        assert actual[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("outputs", [(), (1,), (2,)])
@pytest.mark.parametrize("keep_draws", [True, False])
def test_reals_are_read_back_with_the_parts_of_their_variance(
    suffix, outputs, keep_draws, tmp_path
):
    saved = reals(outputs, keep_draws)
    write_predictions(tmp_path / f"m{suffix}", saved)
    loaded = read_predictions(tmp_path / f"m{suffix}")
    assert isinstance(loaded.predictive, Moments)
    assert loaded.predictive.draw_count == 6
    for name in ("mean", "variance", "epistemic_variance", "aleatoric_variance"):
        value = getattr(saved.predictive, name).reshape(getattr(loaded.predictive, name).shape)
        assert_close(getattr(loaded.predictive, name), value, **ROUNDING)
    assert_close(loaded.targets, saved.targets.reshape(loaded.targets.shape), rtol=0, atol=0)
    assert not loaded.columns


UNUSUAL = [
    ("01", "1", "1.0"), ("value", "adj", "growth"), ("cat", "Cat", "CAT"), ("yes", "no", "not no"),
    ("a;b", "a\tb", "a,b"), ("0,5", "50%", "#1"), ("true", "false", "0"), ("0", "1", "other"),
    ("mean", "sd", "index"), ("not b", "b ", "x\r"), ("nan", "", "inf"), ("class1", "class2", "2"),
]  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("names", UNUSUAL, ids=map(str, UNUSUAL))
def test_any_names_of_classes_come_back(suffix, names, tmp_path):
    for saved in (classes(names), classes(names, targets=False)):
        write_predictions(tmp_path / f"m{suffix}", saved)
        loaded = read_predictions(tmp_path / f"m{suffix}")
        assert loaded.classes == names
        assert_close(loaded.predictive.probabilities, saved.predictive.probabilities, **ROUNDING)
        if saved.targets is not None:
            assert loaded.targets.tolist() == saved.targets.tolist()


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".st"])
def test_the_index_comes_back(suffix, tmp_path):
    index = np.array([f"{k}.png" for k in range(40, 0, -1)], dtype=object)
    write_predictions(tmp_path / f"m{suffix}", replace(classes(), index=index))
    loaded = read_predictions(tmp_path / f"m{suffix}")
    assert list(map(str, loaded.index)) == index.tolist()
    assert set(loaded.columns) == {"sex", "site"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_small_probability_of_a_class_that_sounds_like_a_statistic_comes_back(suffix, tmp_path):
    logits = torch.tensor([[[2.0, 1.0, -9.0]] * 4])
    saved = Predictions("M", mcbn.Categorical().summarize(logits), None, "x", ("0", "1", "value"))
    write_predictions(tmp_path / f"m{suffix}", saved)
    assert read_predictions(tmp_path / f"m{suffix}").classes == ("0", "1", "value")


def test_a_moment_matched_forecast_has_the_moment_matched_score(tmp_path):
    mixture = reals(keep_draws=True)
    write_predictions(tmp_path / "m.csv", reals())
    loaded = read_predictions(tmp_path / "m.csv")
    actual = loaded.scored.crps(loaded.targets)
    assert_close(actual, mixture.predictive.crps_moment_matched(mixture.targets), **ROUNDING)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_predictions_are_equal_bytes(suffix, tmp_path):
    for name in ("one", "two"):
        write_predictions(tmp_path / f"{name}{suffix}", classes(("a", "b", "c")))
    one, two = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_csv_holds_every_digit(tmp_path):
    saved = classes()
    write_predictions(tmp_path / "m.csv", saved)
    with (tmp_path / "m.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "index", "target", "prediction", "confidence", "p_0", "p_1", "p_2", "entropy",
        "expected_entropy", "mutual_information", "variation_ratio", "draws", "sex", "site",
    ]  # fmt: skip
    for name, values in (("p_1", saved.predictive.probabilities[:, 1]),
                         ("entropy", saved.predictive.entropy)):  # fmt: skip
        assert [float(row[name]) for row in rows] == values.tolist()


def test_without_targets_there_is_no_column_of_them(tmp_path):
    write_predictions(tmp_path / "m.csv", classes(targets=False))
    assert "target" not in (tmp_path / "m.csv").read_text().splitlines()[0].split(",")
    assert read_predictions(tmp_path / "m.csv").targets is None


def test_positions_go_into_npz_and_nowhere_else(tmp_path):
    draws = torch.randn((4, 5, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    saved = Predictions("M", mcbn.Categorical().summarize(draws), None, "x")
    write_predictions(tmp_path / "m.npz", saved)
    loaded = read_predictions(tmp_path / "m.npz")
    assert_close(loaded.predictive.probabilities, saved.predictive.probabilities, **ROUNDING)
    for suffix in (".csv", ".parquet"):
        with pytest.raises(ValueError, match=r"write \.npz instead"):
            write_predictions(tmp_path / f"m{suffix}", saved)
        assert not (tmp_path / f"m{suffix}").exists()


@pytest.mark.parametrize("name", ["entropy", "p_value", "mean_0", "draws", "label", "y_1", "index"])
def test_reserved_column_names_are_refused(name, tmp_path):
    saved = Predictions("M", classes().predictive, None, "x", (), {name: np.arange(40)})
    with pytest.raises(ValueError, match="expected other names"):
        write_predictions(tmp_path / "m.csv", saved)


FOREIGN = {
    "id": list(range(6)),
    "p_cat": [0.5, 0.25, 0.125, 0.0, 1.0, 0.1],
    "p_dog": [0.25, 0.5, 0.125, 0.5, 0.0, 0.2],
    "p_<script>": [0.25, 0.25, 0.75, 0.5, 0.0, 0.7],
    "label": ["cat", "dog", "dog", "<script>", "cat", "<script>"],
    "site": ["a", "a", "b", "b", "b", "a"],
}


def written(path, columns):
    """Columns as another tool writes them."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(written(path.with_suffix(""), columns).read_bytes()))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: np.array(values) for name, values in columns.items()})
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_predictions_of_another_tool(suffix, tmp_path):
    actual = read_predictions(written(tmp_path / f"net{suffix}", FOREIGN))
    assert (actual.method, actual.data) == ("net", "net")
    assert actual.classes == ("cat", "dog", "<script>")
    assert actual.targets.tolist() == [0, 1, 1, 2, 0, 2]
    expected = [-np.log(p) for p in (0.5, 0.5, 0.125, 0.5, 1.0, 0.7)]
    assert scores(actual)["nll"][0] == pytest.approx(np.mean(expected))
    # What is not known is not there, and the entropy is not parted.
    assert actual.predictive.draw_count == 0
    assert bool(actual.predictive.variation_ratio.isnan().all())
    assert_close(actual.predictive.expected_entropy, actual.predictive.entropy, rtol=0, atol=0)
    assert [str(value) for value in actual.columns["site"]] == FOREIGN["site"]


def test_parquet_and_csv_of_another_tool_are_the_same(tmp_path):
    one, two = (read_predictions(written(tmp_path / f"net{s}", FOREIGN)) for s in SUFFIXES[:2])
    assert_close(one.predictive.log_probabilities, two.predictive.log_probabilities, rtol=0, atol=0)
    assert json.dumps(scores(one)) == json.dumps(scores(two))
    assert {k: list(map(str, v)) for k, v in one.columns.items()} == {
        k: list(map(str, v)) for k, v in two.columns.items()
    }


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (("p_0", "p_1"), (0, 1, 1), [0, 1, 1]),
        (("p_1", "p_2"), (1, 2, 2), [0, 1, 1]),  # numbers are names of classes, not places
        (("p_1", "p_0"), (0, 1, 1), [0, 1, 1]),  # and are put in order
        (("p_1", "p_2"), ("1.0", "2.0", "2"), [0, 1, 1]),
        (("p_no", "p_yes"), (0, 1, 1), [0, 1, 1]),  # among words they are places
        (("p_no", "p_yes"), ("no", "yes", "yes"), [0, 1, 1]),
        (("p_10", "p_9"), (9, 10, 10), [0, 1, 1]),
    ],
)
def test_labels_name_classes(names, labels, expected, tmp_path):
    columns = {names[0]: [0.8, 0.3, 0.4], names[1]: [0.2, 0.7, 0.6], "y": list(labels)}
    actual = read_predictions(written(tmp_path / "net.csv", columns))
    assert actual.targets.tolist() == expected
    chosen = [f"p_{k}" for k in (actual.classes or ("0", "1"))]
    for place, name in enumerate(chosen):
        assert actual.predictive.probabilities[:, place].tolist() == pytest.approx(columns[name])


def test_rounded_probabilities_are_divided_by_their_sum(tmp_path):
    path = written(tmp_path / "net.csv", {"p_0": [0.5, 0.332], "p_1": [0.495, 0.667]})
    with pytest.warns(UserWarning, match=r"differ from 1 by up to 0\.005: each row is divided"):
        actual = read_predictions(path).predictive.probabilities
    expected = torch.tensor([[0.5 / 0.995, 0.495 / 0.995], [0.332 / 0.999, 0.667 / 0.999]])
    assert_close(actual, expected.double(), rtol=1e-6, atol=0)
    assert_close(actual.sum(1), torch.ones(2).double(), rtol=1e-15, atol=0)


def test_columns_can_be_named(tmp_path):
    columns = {"no": [0.8, 0.3], "yes": [0.2, 0.7], "p_value": [3.0, 4.0], "truth": ["no", "yes"]}
    path = written(tmp_path / "net.csv", columns)
    actual = read_predictions(path, probabilities=["no", "yes"], target="truth")
    assert actual.classes == ("no", "yes")
    assert actual.targets.tolist() == [0, 1]
    with pytest.raises(ValueError, match="did you mean 'truth'"):
        read_predictions(path, probabilities=["no", "yes"], target="thruth")
    with pytest.raises(ValueError, match="did you mean 'yes'"):
        read_predictions(path, probabilities=["no", "yess"])
    classes().save(tmp_path / "m.st")
    with pytest.raises(ValueError, match="names of columns"):
        read_predictions(tmp_path / "m.st", target="truth")


def test_mutual_information_of_another_tool_is_taken(tmp_path):
    information = [0.1, 0.0, 0.2, 0.05, 0.0, 0.3]
    path = written(tmp_path / "net.csv", {**FOREIGN, "mutual_information": information})
    actual = read_predictions(path).predictive.mutual_information
    assert actual.tolist() == pytest.approx(information, abs=1e-12)
    path = written(tmp_path / "net.csv", {**FOREIGN, "mutual_information": [9.0] * 6})
    with pytest.raises(ValueError, match=r"expected entropy from 0 to the entropy.*row 1"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_dog": [0.25, 0.5, 0.125, 0.7, 0.0, 0.2]}, r"sum to 1 .* got 1\.2 in row 4"),
        ({"p_dog": [0.25, 0.5, 0.125, -0.5, 0.0, 0.2]}, r"got -0\.5 in row 4 of 'p_dog'"),
        ({"p_dog": [0.25, 0.5, float("nan"), 0.5, 0.0, 0.2]}, r"'nan' in row 3"),
        ({"p_dog": [0.25, 0.5, "", 0.5, 0.0, 0.2]}, r"'' in row 3"),
        ({"p_dog": [0.25, "1e999", 0.1, 0.5, 0.0, 0.2]}, r"'1e999' in row 2"),
        ({"p_dog": [0.25, "1_0", 0.1, 0.5, 0.0, 0.2]}, r"'1_0' in row 2"),
        ({"label": ["cat", "dgo", "dog", "cat", "cat", "cat"]}, r"'dgo' in row 2.*mean 'dog'"),
        ({"label": ["cat", "", "dog", "cat", "cat", "cat"]}, r"got '' in row 2"),
        ({"label": [0, 1, 2, 3, 0, 0]}, r"got '3' in row 4"),
        ({"y": ["cat"] * 6}, r"one column of targets .* \['label', 'y'\]"),
        ({"draws": [5, 5, 5, 4, 5, 5]}, r"one whole number of draws"),
        ({"p_cat": None, "p_dog": None}, "at least 2 classes|sum to 1"),
        ({"p_cat": None, "p_dog": None, "p_<script>": None}, r"expected columns of probabilities"),
    ],
)
def test_mistakes_are_named_with_their_row(change, message, tmp_path):
    columns = {name: values for name, values in {**FOREIGN, **change}.items() if values is not None}
    with pytest.raises(ValueError, match=message):
        read_predictions(written(tmp_path / "net.csv", columns))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"sd": [1.0, 0.0, 1.0]}, r"'sd' above 0.* got 0 in row 2"),
        ({"sd": [1.0, -1.0, 1.0]}, r"'sd' above 0.* got -1 in row 2"),
        ({"sd": [1.0, 1e200, 1.0]}, r"got 1e\+200 in row 2"),
        ({"sd": None}, "beside the mean"),
        ({"y": [1.0, "x", 2.0]}, r"'y' .* 'x' in row 2"),
        ({"sd": None, "sd_0": [1.0] * 3, "sd_1": [1.0] * 3}, "as many columns"),
    ],
)
def test_regression_of_another_tool(change, message, tmp_path):
    columns = {"mean": [1.0, 2.0, 3.0], "sd": [1.0, 2.0, 0.5], "y": [1.5, 1.0, 3.0], **change}
    columns = {name: values for name, values in columns.items() if values is not None}
    path = written(tmp_path / "net.csv", columns)
    if message is not None:
        with pytest.raises(ValueError, match=message):
            read_predictions(path)
        return
    actual = read_predictions(path)
    assert actual.predictive.epistemic_variance is None
    assert actual.scored.variance.tolist() == [1.0, 4.0, 0.25]
    assert scores(actual)["rmse"][0] == pytest.approx((1.25 / 3) ** 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "at least one row"),
        (b"p_0,p_1,y\n", "at least one row"),
        (b"\n\n", "at least one row"),
        (b"p_0,p_1,y\n0.5,0.5,1\n0.5,0.5\n", "got 2 in line 3"),
        (b"p_0,p_1,y\n0.5,0.5,1,2\n", "got 4 in line 2"),
        (b"p_0,p_0,y\n0.5,0.5,1\n", "'p_0' more than once"),
        (b"p_0,,y\n0.5,0.5,1\n", "without a name"),
        (b"p_0,p_1,y\n0.5,0.5,\xff\n", "UTF-8"),
        (b'p_0,p_1,y\n0.5,0.5,"1\n', "truncated"),
        (b"p_0,p_1,y\n0.5,0.5,1" + b"0" * 200_000 + b"\n", "truncated"),
        (b"p_0,p_1,y\n0.5,0.5,\x00\n", "row 1|truncated"),
        (b"p_0,p_1,y\n0.5,0.5," + b"9" * 5000 + b"\n", "row 1"),
    ],
)
def test_malformed_text_is_refused(content, message, tmp_path):
    path = tmp_path / "net.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_predictions(path)


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.97, 0.999])
def test_truncated_files_are_refused(suffix, share, tmp_path):
    path = tmp_path / f"m{suffix}"
    write_predictions(path, classes())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="truncated, corrupted or different"):
        read_predictions(path)


@pytest.mark.filterwarnings("ignore:.* rounded probabilities")
@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_flipped_bytes_give_predictions_or_a_value_error(suffix, tmp_path):
    """Every 37th byte in turn: nothing but ValueError ever comes out."""
    path = tmp_path / f"m{suffix}"
    write_predictions(path, classes(columns=False))
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read_predictions(path)
        except ValueError:
            refused += 1
    assert refused > 0


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "m.npz", probabilities=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="plain arrays"):
        read_predictions(tmp_path / "m.npz")


def test_a_huge_array_in_a_small_file_is_refused(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000), }"
    content = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("probabilities.npy", content)
    with pytest.raises(ValueError, match="plain arrays"):
        read_predictions(tmp_path / "m.npz")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfp_0,p_1,y\r\n0.5,0.5,1\r\n\r\n0.25,0.75,0\r\n",
        b",p_0,p_1,y\n0,0.5,0.5,1\n1,0.25,0.75,0\n",
    ],
)
def test_a_byte_order_mark_and_the_index_of_pandas_are_accepted(content, tmp_path):
    path = tmp_path / "net.csv"
    path.write_bytes(content)
    actual = read_predictions(path)
    assert actual.targets.tolist() == [1, 0]
    assert actual.predictive.probabilities.tolist() == [[0.5, 0.5], [0.25, 0.75]]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_predictions(tmp_path / "nowhere.csv")


def test_the_commands_take_columns(tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(90, 3, generator=generator).softmax(1)
    y = torch.multinomial(p, 1, generator=generator)[:, 0].tolist()
    columns = {f"p_{k}": p[:, k].tolist() for k in range(3)} | {"y": y, "site": ["a", "b"] * 45}
    path = written(tmp_path / "net.csv", columns)
    out = tmp_path / "scores.json"
    evaluate(EvaluateOptions(str(path), str(out), resamples=5, by="site"))
    assert "Groups by site" in capsys.readouterr().out
    numbers = json.loads(out.read_text())
    assert numbers["groups"]["site"]["a"]["size"] == 45
    with pytest.raises(ValueError, match="did you mean 'site'"):
        evaluate(EvaluateOptions(str(path), by="sites", resamples=5))
    images = tmp_path / "images.npz"
    np.savez(images, inputs=np.random.default_rng(0).random((90, 1, 4, 4)))
    report(
        ReportOptions(
            [str(path)], str(tmp_path / "r"), by=["site"], images=str(images), resamples=5
        )
    )
    page = json.loads((tmp_path / "r" / "report.json").read_text())
    method = page["comparison"]["methods"]["net"]
    assert method["mean_mutual_information"] is None
    assert method["draws"] is None
    assert "mutual_information" not in page["groups"]["site"]["net"]["a"]["scores"]
    text = (tmp_path / "r" / "report.html").read_text()
    assert "net (not known)" in text
    assert text.count("data:image/png") == 16


def test_a_file_of_mcbn_and_one_of_another_tool_are_compared(tmp_path):
    saved = classes()
    saved.save(tmp_path / "saved.st")
    columns = {f"p_{name}": saved.predictive.probabilities[:, k].tolist()
               for k, name in enumerate(("x", "y", "z"))}  # fmt: skip
    columns["truth"] = [("x", "y", "z")[k] for k in saved.targets]
    paths = [str(tmp_path / "saved.st"), str(written(tmp_path / "theirs.csv", columns))]
    report(ReportOptions(paths, str(tmp_path / "r"), target="truth", resamples=3))
    numbers = json.loads((tmp_path / "r" / "report.json").read_text())["comparison"]
    assert numbers["classes"] == ["x", "y", "z"]
    assert numbers["differences"]["theirs"]["nll"]["value"] == pytest.approx(0, abs=1e-12)
    # Targets in another order of the classes are other targets.
    columns["truth"] = columns["truth"][::-1]
    paths[1] = str(written(tmp_path / "other.csv", columns))
    with pytest.raises(ValueError, match=r"other targets in .*other\.csv"):
        report(ReportOptions(paths, str(tmp_path / "r"), target="truth"))


def test_ood_predictions_of_an_unknown_method_are_refused(tmp_path):
    for name in ("one", "two", "far"):
        write_predictions(tmp_path / f"{name}.csv", classes(targets=name != "far"))
    paths = [str(tmp_path / f"{name}.csv") for name in ("one", "two")]
    far = [str(tmp_path / "far.csv")]
    with pytest.raises(ValueError, match="predictions in --outside by one of"):
        report(ReportOptions(paths, str(tmp_path / "r"), outside=far, resamples=2))
    report(ReportOptions(paths[:1], str(tmp_path / "r"), outside=far, resamples=2))
    numbers = json.loads((tmp_path / "r" / "report.json").read_text())
    assert list(numbers["comparison"]["methods"]["one"]["outside"]) == ["far"]
