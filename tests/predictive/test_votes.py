"""Several columns of labels: one-hot, votes and annotators; scores are means over the votes."""

import numpy as np
import pytest
from given_files import read

import mcbn

PAIR = ("0.9,0.1", "0.2,0.8")


def content(names, *rows, classes="p_0,p_1"):
    lines = [f"{p},{row}" for p, row in zip(PAIR, rows, strict=True)]
    return "\n".join([f"{classes},{names}", *lines, ""])


@pytest.mark.parametrize(
    ("names", "rows", "classes"),
    [
        ("target_0,target_1", ("1,0", "0,1"), "p_0,p_1"),
        ("target_1,target_0", ("0,1", "1,0"), "p_0,p_1"),
        ("label_0,label_1", ("1.0,0.0", "0.0,1.0"), "p_0,p_1"),
        ("y_0,y_1", ("True,False", "False,True"), "p_0,p_1"),
        ("y_cat,y_dog", ("1,0", "0,1"), "p_cat,p_dog"),
        ("target_dog,target_cat", ("0,1", "1,0"), "p_cat,p_dog"),
        ("target_1,target_2", ("1,0", "0,1"), "p_1,p_2"),
        ("target_cat,target_dog", ("1,0", "0,1"), "p_Cat,p_DOG"),
        ("target_cat,target_dog", ("3,0", "0,5"), "p_cat,p_dog"),  # votes without dissent
        ("label_1,label_2,label_3", ("0,0,0", "1,1,"), "p_0,p_1"),  # annotators who agree
        ("label_a,label_b", ("cat,cat", "dog,dog"), "p_cat,p_dog"),
    ],
)
def test_one_hot_and_votes_that_agree_are_labels(names, rows, classes, tmp_path):
    options = {"target": "label"} if "label_a" in names else {}
    found = read(tmp_path, content(names, *rows, classes=classes), **options)
    assert found.targets.tolist() == [0, 1]
    assert not found.columns


@pytest.mark.parametrize(
    ("names", "rows", "shares"),
    [
        ("target_cat,target_dog", ("3,1", "0,4"), [[0.75, 0.25], [0, 1]]),
        ("target_cat,target_dog", ("3,1", "0,7"), [[0.75, 0.25], [0, 1]]),
        ("target_cat,target_dog", ("0.7,0.3", "0.05,0.95"), [[0.7, 0.3], [0.05, 0.95]]),
        ("label_1,label_2,label_3", ("cat,dog,cat", "dog,dog,"), [[2 / 3, 1 / 3], [0, 1]]),
        ("label_1,label_2", ("0,1", "1,1"), [[0.5, 0.5], [0, 1]]),  # words: by place
    ],
)
def test_scores_of_votes_are_means_in_their_shares(names, rows, shares, tmp_path):
    with pytest.warns(UserWarning, match="several labels per example: scores are means over"):
        found = read(tmp_path, content(names, *rows, classes="p_cat,p_dog"))
    scores = mcbn.evaluate(found.scored, found.targets, resamples=5)
    logs = np.log([[0.9, 0.1], [0.2, 0.8]])
    assert scores["nll"].value == pytest.approx(-np.mean(np.sum(shares * logs, axis=1)))
    right = np.mean([shares[0][0], shares[1][1]])
    assert scores["accuracy"].value == pytest.approx(right)
    found.save(tmp_path / "m.st")
    again = mcbn.Predictions.load(tmp_path / "m.st")
    assert again.targets.tolist() == found.targets.tolist()


def test_arrays_of_votes(tmp_path):
    probs = np.array([[0.9, 0.1], [0.2, 0.8]])
    for labels in ([[0, 0, 1], [1, 1, 1]], [[2, 1], [0, 3]]):
        with pytest.warns(UserWarning, match="over 3 votes"):
            found = read(tmp_path, {"probs": probs, "labels": labels}, "net.npz")
        assert found.targets.tolist() == [[0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("names", "rows", "reason", "remedied"),
    [
        # Votes for two classes, or labels by two annotators?
        ("target_0,target_1", ("0,0", "1,1"), "could be both; divide votes by the sum", None),
        ("target_0,target_1", ("1,0", "1,1"), "or name the columns of annotators by letters",
         ("target_a,target_b", ("1,0", "1,1"))),
        ("target_0,target_1", ("0,0", "0,1"), "could be both", ("target_0,target_1",
                                                              ("1,0", "0,1"))),
        ("target_0,target_1", ("5,0", "0,0"), "none in row 2; remove rows without a label",
         ("target_0,target_1", ("5,0", "0,3"))),
        ("target_0,target_1", ("0.7,0.3", "0.5,0.2"), "0.7 in row 2; divide each row by its sum",
         ("target_0,target_1", ("0.7,0.3", "0.7,0.3"))),
        ("target_1,target_2", ("1,0", "0,1"), "rows all sum to 1, as votes do, got others; name",
         ("target_0,target_1", ("1,0", "0,1"))),
        ("target_1,target_2", ("1,0", "0,1"), "name them target_<class>",
         ("target_0,target_1", ("1,0", "0,1"))),
        ("label_1,label_2", ("0,2", "1,0"), "got '2' in row 1", ("label_1,label_2",
                                                                ("0,1", "1,1"))),
        ("target_0,target_1", ("0.123456,0.876544", "0.5,0.5"), "at most 100 votes",
         ("target_0,target_1", ("0.12,0.88", "0.5,0.5"))),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*several labels per example")
def test_what_cannot_be_told_is_refused(names, rows, reason, remedied, tmp_path):
    with pytest.raises(ValueError, match=rf"(?s)^expected .*{reason}"):
        read(tmp_path, content(names, *rows))
    if remedied:
        given = content(remedied[0], *remedied[1])
        options = {"target": "target"} if "_a" in given else {}
        assert len(read(tmp_path, given, **options).targets) == 2


@pytest.mark.filterwarnings("ignore:.*several labels per example")
def test_votes_shifted_by_one_are_refused(tmp_path):
    probs = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]] * 10)
    labels = np.array([[1, 1, 1], [2, 2, 1]] * 10)
    with pytest.raises(ValueError, match="labels seem to begin at 1"):
        read(tmp_path, {"probs": probs, "labels": np.c_[labels, labels]}, "net.npz")
    assert read(tmp_path, {"probs": probs, "labels": np.c_[labels, labels] - 1}, "net.npz")
