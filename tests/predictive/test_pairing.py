"""Predictions of several files: joined by what identifies the rows, or refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from given_files import probabilities, read

from mcbn.predictive.name_order import same_classes
from mcbn.predictive.pairing import in_rows_of, same_examples, shared_rows
from mcbn.report.report import Report

ROWS = ("0,0,0.9,0.1,x", "1,0,0.2,0.8,y", "2,1,0.1,0.9,x", "3,1,0.7,0.3,y")
HEADER = "index,target,p_0,p_1,site"


def table(*order, header=HEADER, rows=ROWS):
    return "\n".join([header, *(rows[k] for k in order), ""])


def without(content, places=(0,)):
    lines = [line.split(",") for line in content.splitlines()]
    kept = [[cell for k, cell in enumerate(line) if k not in places] for line in lines]
    return "\n".join(map(",".join, kept)) + "\n"


def joined(tmp_path, *contents, groups=("site",)):
    names = [f"{letter}.csv" for letter in "ABC"[: len(contents)]]
    given = [read(tmp_path, each, name) for name, each in zip(names, contents, strict=True)]
    return same_examples(given, names, groups=groups)


PERMUTED = table(1, 0, 3, 2)
SAME = table(0, 1, 2, 3)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (SAME, SAME),
        (SAME, PERMUTED),
        (SAME, table(3, 0, 2, 1)),
        (PERMUTED, table(3, 0, 2, 1)),
        (without(SAME), without(SAME)),
        (without(SAME), PERMUTED),  # its index numbers the rows
        (PERMUTED, without(SAME)),
        (SAME.replace("index", "id"), PERMUTED.replace("index", "ID")),
        (SAME, PERMUTED.replace("index", "id")),
        (SAME.replace("index", "filename"), PERMUTED.replace("index", "File Name")),
        (SAME.replace("index", "image_id"), PERMUTED.replace("index", "image_id")),
        (SAME, PERMUTED.replace("\n1,", "\n01,").replace("\n0,", "\n0.0,")),
        (SAME, PERMUTED.replace("index,", ",")),  # the index of pandas
    ],
)
def test_rows_are_joined_to_those_of_the_first(one, two, tmp_path):
    first, other = joined(tmp_path, one, two)
    assert probabilities(first) == probabilities(other)
    assert first.targets.tolist() == other.targets.tolist()
    for name in first.columns.keys() & other.columns.keys() - {"id"}:
        assert [float(x) if x[0].isdigit() else x for x in first.columns[name]] == [
            float(x) if x[0].isdigit() else x for x in other.columns[name]
        ]


def test_three_files_and_every_part_of_them(tmp_path):
    rows = [f"{row},{k}" for k, row in enumerate(ROWS)]
    header = f"{HEADER},variation_ratio".replace("site", "site,seen")
    rows = [f"{row},{k / 10}" for k, row in enumerate(rows)]
    contents = [table(*order, header=header, rows=rows)
                for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0))]  # fmt: skip
    first, *others = joined(tmp_path, *contents)
    for other in others:
        for name in ("log_probabilities", "expected_entropy", "variation_ratio"):
            one, two = (getattr(each.predictive, name) for each in (first, other))
            torch.testing.assert_close(one, two, rtol=0, atol=0)
        assert list(other.columns["seen"]) == list("0123")
        assert list(other.index) == list("0123")


@pytest.mark.parametrize(
    ("one", "two", "reason"),
    [
        (SAME, table(0, 1, 2), "index '3' in A.csv alone; predict the same data"),
        (table(0, 1, 2), table(1, 2, 3), "index '0' in A.csv alone and index '3' in B.csv alone"),
        (without(SAME), without(table(0, 1, 2)), r"of shape \(3,\) and \(4,\)"),
        (without(SAME), without(table(2, 3, 0, 1)), "first in row 1; if only the order differs"),
        (without(SAME), without(PERMUTED), "column 'site' .* first in row 1, as where rows are in"),
        (SAME, SAME.replace("3,1,0.7", "3,0,0.7"), "other targets in B.csv than in A.csv, first in "
         "row 4; predict"),
        (SAME, SAME.replace("0.3,y", "0.3,z"), "column 'site' .* first in row 4"),
        (table(0, 0, 2, 3), table(0, 2, 0, 3), "'0' more than once, in another order"),
        (without(SAME, (0, 4)), without(PERMUTED, (4,)), "that allows two; give every row its"),
        ("index," + "\n".join(SAME.splitlines()).replace("index", "id").replace("\n", "\n5,"),
         SAME, "'5' more than once"),
        ("index,id,target,p_0,p_1\n7,0,0,0.9,0.1\n8,1,0,0.2,0.8\n",
         "index,id,target,p_0,p_1\n8,0,0,0.9,0.1\n7,1,0,0.2,0.8\n", "pair the same rows"),
        (SAME, "id,mean,sd,target\n0,1,1,1\n", "same kind, got classes and real values"),
        (SAME, "index,target,p_0,p_1,p_2\n0,0,0.5,0.5,0\n", "got 3 in B.csv and 2 in the first"),
    ],
)  # fmt: skip
def test_rows_that_contradict_are_refused(one, two, reason, tmp_path):
    with pytest.raises(ValueError, match=rf"^expected .*{reason}"):
        joined(tmp_path, one, two)


def test_the_number_of_a_row_anew_does_not_count_beside_a_name(tmp_path):
    one = ",filename,target,p_0,p_1\n0,a,0,0.9,0.1\n1,b,0,0.2,0.8\n"
    two = ",filename,target,p_0,p_1\n0,b,0,0.2,0.8\n1,a,0,0.9,0.1\n"
    first, other = joined(tmp_path, one, two)
    assert probabilities(first) == probabilities(other)


def test_columns_of_the_method_may_differ(tmp_path):
    one = "name,target,p_0,p_1,seconds\nresnet,0,0.9,0.1,1.5\nresnet,1,0.2,0.8,1.6\n"
    _, other = joined(tmp_path, one, one.replace("resnet", "vgg").replace("1.5", "7.5"))
    assert list(other.columns["name"]) == ["vgg", "vgg"]


def test_real_targets_may_have_gone_through_float32(tmp_path):
    one = "id,mean,sd,target\na,1,1,0.1\nb,2,1,0.2\n"
    other = joined(tmp_path, one, "id,mean,sd,target\nb,4,1,0.2\na,3,1,0.10000000149\n")[1]
    assert other.predictive.mean.tolist() == [3, 4]
    assert other.targets.tolist() == [0.1, 0.2]
    with pytest.raises(ValueError, match="other targets"):
        joined(tmp_path, one, "id,mean,sd,target\nb,4,1,0.2\na,3,1,0.1001\n")


CLASSES = "id,label,p_a,p_b,p_c\n1,a,0.9,0.1,0\n2,c,0.2,0.3,0.5\n"


@pytest.mark.parametrize(
    "other",
    [
        "id,label,p_c,p_a,p_b\n1,a,0,0.9,0.1\n2,c,0.5,0.2,0.3\n",
        "id,label,p_C,p_A,p_B\n2,c,0.5,0.2,0.3\n1,a,0,0.9,0.1\n",
    ],
)
def test_classes_are_joined_by_name(other, tmp_path):
    first, second = joined(tmp_path, CLASSES, other)
    assert probabilities(first) == probabilities(second)
    assert second.targets.tolist() == [0, 2]
    assert second.classes == ("a", "b", "c")


def test_classes_of_other_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'a', 'b', 'd' in B\.csv and 'a', 'b', 'c' in the first"):
        joined(tmp_path, CLASSES, CLASSES.replace("p_c", "p_d").replace("2,c", "2,d"))


def test_one_column_of_a_pair_is_the_second(tmp_path):
    both = read(tmp_path, "p_no,p_yes,label\n0.9,0.1,no\n0.2,0.8,yes\n")
    for content in ("p_yes\n0.1\n0.8\n", "p_yes,label\n0.1,0\n0.8,1\n"):
        alone = read(tmp_path, content)
        assert probabilities(same_classes(alone, both, "it")) == probabilities(both)
    flipped = read(tmp_path, "p_no\n0.9\n0.2\n")
    assert probabilities(same_classes(flipped, both, "it")) == probabilities(both)


def test_draws_follow_their_classes(tmp_path):
    first = read(tmp_path, CLASSES)
    order = [2, 0, 1]
    logs = first.predictive.log_probabilities[:, order]
    draws = torch.arange(12.0).view(2, 2, 3)
    given = replace(first.predictive, log_probabilities=logs, draws=draws, variance=logs.exp())
    other = replace(first, predictive=given, classes=("c", "a", "b"), targets=None)
    back = same_classes(other, first, "it").predictive
    torch.testing.assert_close(back.draws[..., order], draws, rtol=0, atol=0)
    torch.testing.assert_close(back.variance, first.predictive.probabilities)


def test_inputs_follow_the_index(tmp_path):
    images = torch.arange(6)
    assert in_rows_of(images[:4], read(tmp_path, PERMUTED)).tolist() == [1, 0, 3, 2]
    assert in_rows_of(images, read(tmp_path, table(3, 1))).tolist() == [3, 1]
    assert in_rows_of(images[:4], read(tmp_path, without(PERMUTED))).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="got 3 inputs and the index 3; give the inputs"):
        in_rows_of(images[:3], read(tmp_path, SAME))


def test_held_out_examples_are_others(tmp_path):
    generator = np.random.default_rng(0)
    rows = [f"{k},{p:.9f},{1 - p:.9f}" for k, p in enumerate(generator.random(20))]

    def of(rows, name="index"):
        return read(tmp_path, "\n".join([f"{name},p_0,p_1", *rows, ""]))

    assert shared_rows(of(rows[:10]), of(rows[5:15])) == ""
    assert "examples with equal" in shared_rows(of(rows[:10]), of(rows[9::-1]))
    assert "id '5', '6'" in shared_rows(of(rows[1:10], "id"), of(rows[5:15], "id"))
    assert shared_rows(of(rows[:10], "id"), of(rows[10:], "id")) == ""


def test_a_report_pairs_rows_and_classes(tmp_path):
    rows = ["0,a,0.9,0.1,x", "1,a,0.2,0.8,y", "2,b,0.1,0.9,x", "3,b,0.7,0.3,y"]
    header = "index,target,p_a,p_b,site"
    one = read(tmp_path, table(0, 1, 2, 3, header=header, rows=rows), "one.csv")
    two = read(tmp_path, table(1, 0, 3, 2, header=header, rows=rows), "two.csv")
    far = "p_b,p_a\n0.5,0.5\n0.25,0.75\n"
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    groups = {"site": list(one.columns["site"])}
    given = Report.from_predictions([one, two], groups=groups, images=images, resamples=0)
    numbers = given.to_dict()
    assert numbers["groups"]["site"]["one"] == numbers["groups"]["site"]["two"]
    assert numbers["comparison"]["differences"]["two"]["nll"]["value"] == 0
    outside = [replace(read(tmp_path, far, f"{name}.csv"), data="far") for name in ("one", "two")]
    shown = Report.from_predictions([one, two], outside=outside, resamples=0).content.comparison
    assert shown.entries["two"].outside["far"].probabilities[1].tolist() == [0.75, 0.25]
    with pytest.raises(ValueError, match="other values in two than in one"):
        Report.from_predictions([one, replace(two, index=None)], groups=groups, resamples=0)
