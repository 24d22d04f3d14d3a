"""Labels are classes by their exact names, else loosely; ambiguous or shifted ones are refused."""

import numpy as np
import pytest
from given_files import probabilities, read

import mcbn

ROWS = "0.8,0.1,0.1,{}\n0.1,0.8,0.1,{}\n"


def three(names, *labels):
    return f"{names},label\n" + ROWS.format(*labels)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ("p_1,p_01,p_1.0", ("1", "01")),  # exactly, however alike
        ("p_cat,p_Cat,p_CAT", ("cat", "Cat")),
        ("p_cat,p_dog,p_eel", ("Cat", " DOG ")),
        ("p_New York,p_paris,p_rome", ("new_york", "Paris")),
        ("p_01,p_02,p_03", ("1", "2")),
        ("p_1,p_2,p_3", ("1.0", "02")),
        ("p_1,p_2,p_3", ("1,0", "2,0")),
        ("p_cafe\u0301,p_tea,p_milk", ("caf\u00e9", "tea")),
        ("p_-1,p_0,p_1", ("-1", "0")),
        ("p_cat,p_dog,p_eel", ("'cat'", "dog")),
        ("p_cat,p_dog,p_eel", (0, 1)),  # words: by place
        ("class1,class2,class3", (1, 2)),  # numbers behind a word are names
        ("class1,class2,class3", ("class1", "class2")),
        ("p1,p2,p3", (1, 2)),
        ("p_class1,p_class2,p_class3", (1, 2)),
        ("p_class_0,p_class_1,p_class_2", (0, 1)),
        ("p_class1,p_class2,p_class3", ("class1", "Class2")),
        ("prob_1,prob_2,prob_3", (1, 2)),
        ("probability_a,probability_b,probability_c", ("a", "b")),
        ("P_a,P_b,P_c", ("a", "b")),
    ],
)
def test_a_label_is_its_class(names, labels, tmp_path):
    chosen = names.split(",")
    content = three(names, *(f'"{label}"' for label in labels))
    for options in ({}, {"probabilities": chosen}):
        if not options and chosen[0].startswith("class"):
            continue  # are found by their names alone
        found = read(tmp_path, content, **options)
        picked = found.predictive.probabilities.gather(1, found.targets[:, None])
        assert picked.flatten().tolist() == pytest.approx([0.8, 0.8])


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ("p_1,p_01,p_2", ("1.0", "01")),
        ("p_cat,p_Cat,p_dog", ("CAT", "dog")),
        ("p_a b,p_a_b,p_c", ("A B", "c")),
    ],
)
def test_a_label_that_could_be_two_classes_is_refused(names, labels, tmp_path):
    with pytest.raises(ValueError, match=r"could be .*; write labels exactly as the classes"):
        read(tmp_path, three(names, *labels))
    exact = [name.removeprefix("p_") for name in names.split(",")]
    assert read(tmp_path, three(names, *exact)).targets is not None


@pytest.mark.parametrize(
    ("names", "labels", "reason", "remedied"),
    [
        ("p_0,p_1,p_2", (1, 2), "labels seem to begin at 1; subtract 1", (0, 1)),
        ("p_a,p_b,p_c", (1, 2), "labels seem to begin at 1; subtract 1", (0, 1)),
        ("p_0,p_1,p_2", (1, 3), "labels seem to begin at 1; subtract 1", (0, 2)),
        ("p_a,p_b,p_c", (1, 3), "labels seem to begin at 1; subtract 1", (0, 2)),
        ("p_1,p_2,p_3", (0, 1), "labels seem to begin at 0; add 1", (1, 2)),
        ("p_2,p_3,p_4", (1, 2), "labels seem to begin at 1; add 1", (2, 3)),
        ("p_cat,p_dog,p_eel", ("cat", "dgo"), "did you mean 'dog'", ("cat", "dog")),
        ("p_class1,p_class2,p_class3", (0, 1), "labels seem to begin at 0; add 1", (1, 2)),
        ("p_cat,p_dog,p_eel", ("cat", "NaN"), "remove rows without a label", ("cat", "dog")),
        ("p_cat,p_dog,p_eel", ("cat", ""), "remove rows without a label", ("cat", "dog")),
        ("p_0,p_1,p_2", ("cat", "dog"), "name the classes as the labels do", (0, 1)),
        ("p_cat,p_dog,p_eel", ("cat", 1), "'1' in row 2", ("cat", "dog")),
    ],
)
def test_other_labels_are_refused_and_the_remedy_works(names, labels, reason, remedied, tmp_path):
    with pytest.raises(ValueError, match=reason):
        read(tmp_path, three(names, *labels))
    assert len(read(tmp_path, three(names, *remedied)).targets) == 2


def test_labels_off_by_one_are_refused_in_every_range(tmp_path):
    """The last class does not occur, so that no label is out of range."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 60)
    rows = 0.1 + 0.5 * np.eye(5)[labels] + 0.02 * generator.random((60, 5))
    rows /= rows.sum(1, keepdims=True)
    with pytest.raises(ValueError, match="labels seem to begin at 1"):
        read(tmp_path, {"probs": rows, "y": labels + 1}, "net.npz")
    assert read(tmp_path, {"probs": rows, "y": labels}, "net.npz").targets.tolist() == list(labels)
    # A network that knows nothing is not taken for one of shifted labels.
    noise = generator.dirichlet(np.ones(5), 60)
    assert read(tmp_path, {"probs": noise, "y": labels + 1}, "net.npz").targets.min() == 1


def test_places_in_another_order_are_refused(tmp_path):
    rows = "0.9,0.1,1\n0.1,0.9,0\n" * 40
    with pytest.raises(ValueError, match=r"worse than chance.*write the names of the classes"):
        read(tmp_path, "p_ill,p_well,label\n" + rows)
    named = "p_ill,p_well,label\n" + "0.9,0.1,ill\n0.1,0.9,well\n" * 40
    assert read(tmp_path, named).targets[:2].tolist() == [0, 1]


@pytest.mark.parametrize("names", ["p_yes,p_no", "p_true,p_false", "p_pos,p_neg", "p_Y,p_N"])
@pytest.mark.parametrize("labels", [(1, 0), (1, -1), ("y", "n"), ("TRUE", "FALSE")])
def test_the_names_of_two_classes_say_which_is_positive(names, labels, tmp_path):
    found = read(tmp_path, f"{names},label\n0.9,0.1,{labels[0]}\n0.2,0.8,{labels[1]}\n")
    assert found.targets.tolist() == [0, 1]


def test_two_labels_in_another_order_are_refused(tmp_path):
    content = "p_ill,p_well,label\n0.9,0.1,{}\n0.2,0.8,{}\n"
    with pytest.raises(ValueError, match="write the names of the classes as labels"):
        read(tmp_path, content.format(1, 0))
    for labels in ((0, 1), ("ill", "well")):
        assert read(tmp_path, content.format(*labels)).targets.tolist() == [0, 1]


@pytest.mark.parametrize("true", ["True", "TRUE", "true"])
@pytest.mark.parametrize("names", ["p_0,p_1", "p_no,p_yes", "p_False,p_True"])
def test_booleans_are_labels_of_two_classes(names, true, tmp_path):
    false = {"True": "False", "TRUE": "FALSE", "true": "false"}[true]
    found = read(tmp_path, f"{names},label\n0.9,0.1,{false}\n0.2,0.8,{true}\n")
    assert found.targets.tolist() == [0, 1]


def test_labels_of_numpy_and_parquet(tmp_path):
    rows = np.array([[0.9, 0.1], [0.2, 0.8]])
    for labels in ([False, True], [0.0, 1.0], np.array([0, 1], np.uint8), [[0], [1]], np.eye(2),
                   np.array(["0", "1"]), np.array([b"0", b"1"])):  # fmt: skip
        found = read(tmp_path, {"probs": rows, "y_true": labels}, "net.npz")
        assert found.targets.tolist() == [0, 1]
    named = {"probs": rows, "y": np.array([b"a", b"b"]), "class_names": np.array(["a", "b"])}
    assert read(tmp_path, named, "net.npz").classes == ("a", "b")


def test_a_long_label_takes_little_memory_and_a_short_message(tmp_path):
    content = "p_cat,p_dog,label,site\n" + "0.5,0.5,cat,a\n" * 20_000
    with pytest.raises(ValueError, match="in row 20001 ") as told:
        read(tmp_path, content + f"0.5,0.5,{'x' * 100_000},a\n")
    assert len(str(told.value)) < 500
    # Neither is a long group, or a long name of a class.
    found = read(tmp_path, content + f"0.5,0.5,dog,{'y' * 100_000}\n")
    found.save(tmp_path / "m.st")
    assert max(map(len, mcbn.Predictions.load(tmp_path / "m.st").columns["site"])) == 100_000
    with pytest.raises(ValueError, match="in row 1 ") as told:
        read(tmp_path, f"p_{'c' * 100_000},p_dog,label\n0.5,0.5,fish\n")
    assert len(str(told.value)) < 500


def test_probabilities_by_number_are_in_the_order_of_numbers(tmp_path):
    found = read(tmp_path, "p_10,p_9,label\n0.9,0.1,10\n0.2,0.8,9\n")
    assert (found.classes, probabilities(found)) == (("9", "10"), [[0.1, 0.9], [0.8, 0.2]])
