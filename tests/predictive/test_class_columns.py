"""Columns of probabilities: found by their names, checked, divided by their sums, or refused."""

import numpy as np
import pytest
from given_files import probabilities, read

PAIR = "0.9,0.1,{}\n0.2,0.8,{}\n"
MATRIX = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        ("p_0,p_1", "{},{}"),
        ("0,1", "{},{}"),
        (",0,1", "7,{},{}"),
        ("p0,p1", "{},{}"),
        ("prob_0,prob_1", "{},{}"),
        ("p_0,p_1,p_value", "{},{},0.03"),
        ("p_value,p_0,p_1,p_adj", "0.4,{},{},0.5"),
        ("p_0,p_1,p_value", "{},{},0.0"),
        ("p_0,p_1,p_quality", "{},{},0.4"),
        ("p_0,p_1,p_max", "{},{},0.004"),
        ("p_0,p_1,prob_other", "{},{},1"),
        ("p_0,p_1,logit_0", "{},{},3"),
    ],
)
def test_columns_of_classes_are_found_and_strays_are_not(names, rows, tmp_path):
    lines = [rows.format(0.9, 0.1), rows.format(0.2, 0.8)]
    found = read(tmp_path, f"{names},label\n{lines[0]},0\n{lines[1]},1\n")
    assert (found.classes, probabilities(found)) == ((), MATRIX.tolist())
    assert found.targets.tolist() == [0, 1]


@pytest.mark.parametrize("names", ["cat,dog", "p.cat,p.dog", "P(cat),P(dog)", "p-cat,p-dog"])
def test_columns_named_after_classes_in_other_ways(names, tmp_path):
    found = read(tmp_path, f"{names},label,site\n0.9,0.1,cat,a\n0.2,0.8,dog,b\n")
    assert (probabilities(found), list(found.columns)) == (MATRIX.tolist(), ["site"])
    assert found.targets.tolist() == [0, 1]


def test_a_stray_beside_words(tmp_path):
    content = "p_cat,p_dog,p_value,p_quality,label\n0.91,0.09,0.03,0.2,cat\n0.2,0.8,0.5,0.6,dog\n"
    found = read(tmp_path, content.replace("p_quality", "quality"))
    assert (found.classes, list(found.columns)) == (("cat", "dog"), ["quality"])
    assert read(tmp_path, content).classes == ("cat", "dog")
    # A statistic that the labels name is a class.
    named = "p_value,p_growth,label\n0.91,0.09,value\n0.2,0.8,growth\n"
    assert read(tmp_path, named).classes == ("value", "growth")
    # So is a class that is never a label.
    assert len(read(tmp_path, "p_a,p_b,p_c,label\n0.5,0.25,0.25,a\n").classes) == 3


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"probs": MATRIX, "y_true": [0, 1]}, None),
        ({"softmax": MATRIX, "y": [0, 1]}, None),
        ({"preds": MATRIX, "labels": [0, 1]}, None),
        ({"y_prob": MATRIX[:, 1], "y_true": [0, 1]}, None),
        ({"probabilities": MATRIX[:, 1:], "target": [0, 1]}, None),
        ({"probs": MATRIX, "preds": [0, 1], "logits": MATRIX, "labels": [0, 1]}, None),
        ({"logits": np.log(MATRIX), "y": [0, 1]}, "got the logits 'logits'; write p_<class> = sci"),
        ({"probs": MATRIX, "y": [0, 1, 1]}, r"one target per prediction, shape \(2,\)"),
        ({"p_0": MATRIX[:, 0], "p_1": [0.1]}, "of probabilities with one value per example"),
        ({"probs": MATRIX.T, "y": [0, 1]}, "transpose the array, whose first axis is that of"),
        ({"probs": np.full((5, 4, 2), 0.5), "y": [0] * 5}, "axis of classes to the second place"),
    ],
)
def test_arrays_of_other_names(arrays, reason, tmp_path):
    if reason:
        with pytest.raises(ValueError, match=reason):
            read(tmp_path, arrays, "net.npz")
        return
    found = read(tmp_path, arrays, "net.npz")
    assert (probabilities(found), found.targets.tolist()) == (MATRIX.tolist(), [0, 1])


def test_a_bare_array_is_refused_and_the_remedy_works(tmp_path):
    np.save(tmp_path / "net.npy", MATRIX)
    with pytest.raises(ValueError, match=r"numpy\.savez as the arrays probabilities and targets"):
        read(tmp_path, (tmp_path / "net.npy").read_bytes(), "net.npy")
    remedied = {"probabilities": np.load(tmp_path / "net.npy"), "targets": [0, 1]}
    assert read(tmp_path, remedied, "net.npz").targets.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["net.txt", "net.xlsx", "net.json", "net.pkl"])
def test_files_of_other_formats_are_refused_by_their_suffix(name, tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.csv, .* rename or convert it"):
        read(tmp_path, "p_0,p_1,label\n0.5,0.5,1\n", name)


@pytest.mark.parametrize(
    ("name", "labels", "classes", "targets"),
    [
        ("p", (0, 1), (), [0, 1]),
        ("prob", (False, True), (), [0, 1]),
        ("y_score", (-1, 1), ("-1", "1"), [0, 1]),
        ("p_1", (0, 1), (), [0, 1]),
        ("p_1", ("0.0", "1.0"), (), [0, 1]),
        ("p_1", (0, 0), (), [0, 0]),
        ("p_yes", ("no", "yes"), ("no", "yes"), [0, 1]),
        ("p_yes", ("No", "Yes"), ("No", "Yes"), [0, 1]),
        ("p_yes", (0, 1), ("not yes", "yes"), [0, 1]),
        ("p_yes", ("yes", "yes"), ("not yes", "yes"), [1, 1]),
        ("p_malignant", ("benign", "malignant"), ("benign", "malignant"), [0, 1]),
        ("p_2", (3, 2), ("3", "2"), [0, 1]),
    ],
)
def test_one_column_of_positive_probability(name, labels, classes, targets, tmp_path):
    content = "{},label\n0.1,{}\n0.8,{}\n".format(name, *labels)
    found = read(tmp_path, content)
    assert (found.classes, found.targets.tolist()) == (classes, targets)
    assert probabilities(found) == [[0.9, 0.1], [0.2, 0.8]]


def test_one_column_of_the_first_class(tmp_path):
    found = read(tmp_path, "p_0,label\n0.9,0\n0.2,1\n")
    assert (probabilities(found), found.targets.tolist()) == (MATRIX.tolist(), [0, 1])


@pytest.mark.parametrize(
    ("content", "reason", "remedied"),
    [
        ("prob,label\n0.9,ill\n0.2,well\n", "one of 'p_ill', 'p_well', .* rename it",
         "p_ill,label\n0.9,ill\n0.2,well\n"),
        ("p_1,label\n0.9,1\n0.2,2\n", "got 1 and 2, .* give one column per class",
         "p_1,p_2,label\n0.9,0.1,1\n0.2,0.8,2\n"),
        ("p_a,label\n0.9,a\n0.2,b\n0.1,c\n", "at least 2 classes.* 'a', 'b', 'c'",
         "p_a,p_b,p_c,label\n0.9,0.1,0,a\n0.2,0.8,0,b\n0.1,0.1,0.8,c\n"),
        ("prob,label\n" + "0.9,0\n0.8,1\n" * 9, "never below 0.5, .* such as p_1",
         "p_1,label\n" + "0.9,0\n0.8,1\n" * 9),
        ("prob,label\n" + "0.9,0\n0.1,1\n" * 40, "worse than chance",
         "p_0,label\n" + "0.9,0\n0.1,1\n" * 40),
        ("p_1,label\n90,1\n20,0\n", "divide percentages by 100", "p_1,label\n0.9,1\n0.2,0\n"),
        ("p_1,label\n1.5,1\n-2,0\n", "logits through a softmax", "p_1,label\n0.82,1\n0.12,0\n"),
    ],
)  # fmt: skip
def test_one_column_that_cannot_be_told_is_refused(content, reason, remedied, tmp_path):
    with pytest.raises(ValueError, match=reason):
        read(tmp_path, content)
    assert read(tmp_path, remedied).targets is not None


@pytest.mark.filterwarnings("ignore:.*has percentages", "ignore:.*has rounded probabilities")
def test_percentages_may_be_rounded(tmp_path):
    found = read(tmp_path, "p_0,p_1,p_2,label\n33,33,33,0\n34,33,34,1\n")
    assert probabilities(found, 3) == [[0.333] * 3, [0.337, 0.327, 0.337]]


@pytest.mark.parametrize("rows", ["90,10,0\n20,80,1\n", "90%,10%,0\n20%,80%,1\n"])
@pytest.mark.filterwarnings("ignore:.*has percentages, which are divided by 100")
def test_percentages_are_divided_by_100(rows, tmp_path):
    found = read(tmp_path, "p_0,p_1,label\n" + rows)
    assert probabilities(found) == MATRIX.tolist()


@pytest.mark.filterwarnings("ignore:.*has percentages, which are divided by 100")
def test_a_stray_beside_percentages(tmp_path):
    for names in ("p_0,p_1,p_quality", "p_a,p_b,p_quality"):
        found = read(tmp_path, f"{names}\n90,10,0.31\n20,80,0.6\n")
        assert probabilities(found) == MATRIX.tolist()


def test_one_row_of_percentages_is_no_percentage(tmp_path):
    with pytest.raises(ValueError, match="divide percentages by 100"):
        read(tmp_path, "p_0,p_1,label\n90,10,0\n0.2,0.8,1\n")


@pytest.mark.parametrize(
    ("digits", "classes", "taken"),
    [(2, 3, True), (2, 10, True), (3, 100, True), (1, 4, True), (2, 1000, False)],
)
def test_rounding_is_allowed_for_by_digits_and_classes(digits, classes, taken, tmp_path):
    generator = np.random.default_rng(0)
    exact = generator.dirichlet(np.ones(classes), 50)
    rounded = np.round(exact, digits)
    gap = np.abs(rounded.sum(1) - 1).max()
    assert gap > 0.0011
    arrays = {"probs": rounded, "y": exact.argmax(1)}
    if not taken:
        with pytest.raises(ValueError, match="to sum to 1"):
            read(tmp_path, arrays, "net.npz")
        return
    with pytest.warns(UserWarning, match="rounded probabilities.*each row is divided by its sum"):
        found = read(tmp_path, arrays, "net.npz")
    expected = rounded / rounded.sum(1, keepdims=True)
    np.testing.assert_allclose(found.predictive.probabilities, expected, rtol=1e-12)


def test_rounding_does_not_excuse_a_wrong_sum(tmp_path):
    with pytest.raises(ValueError, match=r"got 0\.96 in row 1 \(1 such rows, rounding allows"):
        read(tmp_path, "p_0,p_1,p_2,label\n0.33,0.33,0.3,0\n0.34,0.34,0.33,1\n")
    with pytest.raises(ValueError, match=r"got 0\.97"):
        read(tmp_path, "p_0,p_1,label\n0.123456,0.846544,0\n")


@pytest.mark.parametrize(
    ("content", "reason", "options", "remedied"),
    [
        ("logit_0,logit_1,label\n0.5,2.5,1\n", "the logits 'logit_0', 'logit_1'; write p_", {},
         "p_0,p_1,label\n0.12,0.88,1\n"),
        ("p_0,p_1,label\n-1,2.5,1\n", "pass logits through a softmax", {},
         "p_0,p_1,label\n0.03,0.97,1\n"),
        ("p_0,p_1,label\n-0.1054,-2.3026,0\n", "take the exponential of log-probabilities", {},
         "p_0,p_1,label\n0.9,0.1,0\n"),
        ("p_a,p_b,p_good,label\n0.9,0.1,0.3,a\n0.5,0.2,0.3,b\n", "name the columns by --prob", {},
         "p_a,p_b,label\n0.9,0.1,a\n0.5,0.5,b\n"),
        ("a,b,label\n0.9,0.1,a\n", "name them by probabilities= or --probabilities",
         {"probabilities": ["a", "b"]}, "a,b,label\n0.9,0.1,a\n"),
        ("p_0,p_1,label\n0.9,,0\n", "got '' in row 1", {}, "p_0,p_1,label\n0.9,0.1,0\n"),
        ("p_0,p_1,label,truth\n0.9,0.1,0,0\n", r"\['label', 'truth'\]; choose one by target=",
         {"target": "truth"}, "p_0,p_1,label,truth\n0.9,0.1,0,0\n"),
    ],
)  # fmt: skip
def test_remedies_work(content, reason, options, remedied, tmp_path):
    with pytest.raises(ValueError, match=reason):
        read(tmp_path, content)
    assert read(tmp_path, remedied, **options).targets is not None


def test_a_column_named_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'a' more than once; name each class once"):
        read(tmp_path, "a,b,label\n0.5,0.5,a\n", probabilities=["a", "a"])


def test_names_in_capitals(tmp_path):
    found = read(tmp_path, "Index,P_cat,P_dog,Label,Site\n5,0.9,0.1,cat,a\n7,0.2,0.8,dog,b\n")
    assert (found.targets.tolist(), list(found.columns)) == ([0, 1], ["Site"])
    assert list(found.index) == ["5", "7"]
    assert read(tmp_path, "P_0,P_1,Truth\n0.9,0.1,0\n", target="Truth").targets.tolist() == [0]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"variation_ratio": 7}, "variation ratio from 0 to 0.5 of 2 classes .* got 7"),
        ({"variation_ratio": -0.1}, r"got -0\.1 in row 1"),
        ({"entropy": 0.469, "mutual_information": 0.1}, "in nats, from entropy.* multiply bits by"),
        ({"expected_entropy": 0.2, "mutual_information": 0.3}, r"expected_entropy \+ mutual_infor"),
        ({"expected_entropy": 0.2, "mutual_information": 0.125, "entropy": 0.325}, None),
    ],
)
def test_uncertainties_that_contradict_are_refused(columns, reason, tmp_path):
    names, values = ",".join(columns), ",".join(map(str, columns.values()))
    content = f"p_0,p_1,label,{names}\n0.9,0.1,0,{values}\n"
    if reason:
        with pytest.raises(ValueError, match=reason):
            read(tmp_path, content)
        content = "p_0,p_1,label\n0.9,0.1,0\n"
    assert read(tmp_path, content).targets.tolist() == [0]
