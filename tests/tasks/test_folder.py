"""Tasks of folders of pictures: parts, splits, transforms, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import mcbn
from mcbn.tasks.pictures import UnlabeledPictures

CLASSES = ("cat", "dog")


def write_picture(path, value, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 255)).save(path)


def write_classes(folder, classes=CLASSES, count=20, first=0):
    for k, name in enumerate(classes):
        for index in range(count):
            write_picture(folder / name / f"{index:02d}.png", first + 100 * k + index)


def values_of(examples):
    """The red value of every picture, which tells them apart."""
    pictures = torch.stack([examples.source[index][0] for index in range(len(examples))])
    return (255 * pictures[:, 0, 0, 0]).round().int().tolist()


def test_classes_are_split_by_a_seed_into_disjoint_shares(tmp_path):
    write_classes(tmp_path / "pets")
    task = mcbn.Task.from_folder(tmp_path / "pets")
    assert (task.name, task.classes, task.output_count) == ("pets", CLASSES, 2)
    assert task.input_shape == (3, 6, 8)
    parts = [task.train, task.validation, task.test]
    assert [part.targets.bincount().tolist() for part in parts] == [[12, 12], [3, 3], [5, 5]]
    every = [value for part in parts for value in values_of(part)]
    assert sorted(every) == [*range(20), *range(100, 120)]
    for part in parts:
        assert [int(value >= 100) for value in values_of(part)] == part.targets.tolist()
    again = mcbn.Task.from_folder(tmp_path / "pets")
    other = mcbn.Task.from_folder(tmp_path / "pets", seed=1)
    assert values_of(again.test) == values_of(task.test) != values_of(other.test)


def test_a_class_is_split_the_same_beside_others(tmp_path):
    write_classes(tmp_path / "pets")
    before = values_of(mcbn.Task.from_folder(tmp_path / "pets").test)
    write_classes(tmp_path / "pets", ("ant",), first=200)
    after = values_of(mcbn.Task.from_folder(tmp_path / "pets").test)
    assert [value for value in after if value < 200] == before


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_subfolders_of_parts_are_taken_as_they_are(tmp_path, validation):
    for first, part in enumerate(("train", validation, "test")):
        write_classes(tmp_path / part, count=2 + first, first=10 * first)
    task = mcbn.Task.from_folder(tmp_path)
    assert values_of(task.train) == [0, 1, 100, 101]
    assert values_of(task.validation) == [10, 11, 12, 110, 111, 112]
    assert len(task.test) == 8


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_one_held_out_folder_is_split_in_halves(tmp_path, held_out):
    write_classes(tmp_path / "train", count=3)
    write_classes(tmp_path / held_out, count=8, first=10)
    task = mcbn.Task.from_folder(tmp_path)
    assert values_of(task.train) == [0, 1, 2, 100, 101, 102]
    halves = [values_of(part) for part in (task.validation, task.test)]
    assert sorted(halves[0] + halves[1]) == [*range(10, 18), *range(110, 118)]
    for half, part in zip(halves, (task.validation, task.test), strict=True):
        assert part.targets.tolist() == [0] * 4 + [1] * 4 == [int(v >= 100) for v in half]
    assert f"{held_out} is for validation, the other half for testing" in task.description
    assert values_of(mcbn.Task.from_folder(tmp_path, seed=1).test) != halves[1]


def test_pictures_are_scaled_to_0_and_1_as_torchvision_does(tmp_path):
    write_classes(tmp_path)
    plain = mcbn.Task.from_folder(tmp_path).test
    theirs = mcbn.Task.from_folder(tmp_path, transform=transforms.ToTensor()).test
    one, two = (part.batch(torch.arange(4))[0] for part in (plain, theirs))
    assert one.dtype == torch.float32
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_training_pictures_have_their_own_transform(tmp_path):
    write_classes(tmp_path)
    small, large = (
        transforms.Compose([transforms.Resize(size), transforms.ToTensor()])
        for size in ((4, 4), (5, 5))
    )
    task = mcbn.Task.from_folder(tmp_path, transform=small, train_transform=large)
    shapes = [
        part.batch(torch.arange(1))[0].shape[-1]
        for part in (task.train, task.validation, task.test)
    ]
    assert shapes == [5, 4, 4]
    same = mcbn.Task.from_folder(tmp_path, transform=small)
    assert same.train.batch(torch.arange(1))[0].shape[-1] == 4


def test_pictures_without_classes(tmp_path):
    for index in (2, 0, 1):
        write_picture(tmp_path / f"{index}.png", index)
    (tmp_path / "notes.txt").write_text("no picture")
    pictures = UnlabeledPictures(tmp_path)
    assert [round(255 * float(each[0, 0, 0])) for each in pictures] == [0, 1, 2]


def damaged(folder):
    (folder / "dog" / "05.png").write_bytes((folder / "dog" / "05.png").read_bytes()[:40])


def empty(folder):
    (folder / "dog" / "05.png").write_bytes(b"")


def larger(folder):
    write_picture(folder / "dog" / "05.png", 1, size=(9, 6))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (damaged, "expected a picture in .*05.png, got a damaged or different file"),
        (empty, "expected a picture in .*05.png, got .*an empty file"),
        (larger, "of one size without a transform, got 9 x 6 in .*05.png and 8 x 6"),
    ],
)
def test_a_bad_picture_is_refused_by_name_when_it_is_read(tmp_path, change, reason):
    write_classes(tmp_path)
    change(tmp_path)
    task = mcbn.Task.from_folder(tmp_path)
    parts = [task.train, task.validation, task.test]
    with pytest.raises(ValueError, match=reason):
        [values_of(part) for part in parts]


def train_alone(folder):
    write_classes(folder / "train")


def two_validations(folder):
    for part in ("train", "val", "valid", "test"):
        write_classes(folder / part)


def other_class(folder):
    for part in ("train", "val", "test"):
        write_classes(folder / part, ("cat", "dog" if part != "val" else "dig"))


def empty_class(folder):
    write_classes(folder)
    (folder / "eel").mkdir()


def one_picture(folder):
    write_picture(folder / "cat" / "0.png", 0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (train_alone, "expected one folder val or valid or validation in .*, got none"),
        (two_validations, "got val and valid"),
        (other_class, "the same classes in .*train and .*val, got 'dig' in the second only"),
        (empty_class, "got none in 'eel'"),
        (one_picture, "enough pictures"),
        (lambda folder: write_picture(folder / "a.png", 0), "a subfolder for each class"),
        (lambda folder: folder.rmdir(), "expected a folder of pictures at"),
    ],
)
def test_what_is_missing_is_named(tmp_path, make, reason):
    folder = tmp_path / "pictures"
    folder.mkdir()
    make(folder)
    with pytest.raises(ValueError, match=reason):
        mcbn.Task.from_folder(folder)


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.6, -0.1), (0.5, 0.2, 0.2), (1, 0, 0)])
def test_fractions_have_to_be_shares(tmp_path, fractions):
    write_classes(tmp_path)
    with pytest.raises(ValueError, match="three positive fractions"):
        mcbn.Task.from_folder(tmp_path, fractions=fractions)


def test_a_transform_has_to_make_tensors(tmp_path):
    write_classes(tmp_path)
    with pytest.raises(TypeError, match="got Image; let it end with"):
        mcbn.Task.from_folder(tmp_path, transform=transforms.Resize(4))


def test_random_transforms_do_not_move_the_random_streams_of_the_process(tmp_path):
    write_classes(tmp_path)
    before = torch.get_rng_state()
    random = transforms.Compose([transforms.RandomCrop(4), transforms.ToTensor()])
    task = mcbn.Task.from_folder(tmp_path, train_transform=random)
    assert len(mcbn.minibatches(task.train.dataset(), batch_size=4, draws=2)[0]) == 4
    np.testing.assert_array_equal(before.numpy(), torch.get_rng_state().numpy())


# Pictures that hang together


def patient_of(path):
    return path.stem.split("_")[0]


def write_patients(folder, patients, *, pictures=4):
    """Pictures of patients: two of three have one class, the third has both."""
    for number in patients:
        for index in range(pictures):
            name = "cat" if number % 3 == 0 or (number % 3 == 2 and index < 3) else "dog"
            write_picture(folder / name / f"p{number}_{index}.png", number)


def test_a_patient_is_in_one_part_only(tmp_path):
    write_patients(tmp_path, range(60))
    for seed in range(5):
        task = mcbn.Task.from_folder(tmp_path, group=patient_of, seed=seed)
        parts = [values_of(part) for part in (task.train, task.validation, task.test)]
        assert sorted(value for part in parts for value in part) == sorted([*range(60)] * 4)
        patients = [set(part) for part in parts]
        assert sum(map(len, patients)) == 60
        # Shares of the patients of each class, the third kind having most pictures of cats.
        kinds = [[sum(p % 3 != 1 for p in part), sum(p % 3 == 1 for p in part)]
                 for part in patients]  # fmt: skip
        assert kinds == [[24, 12], [6, 3], [10, 5]]
    plain = mcbn.Task.from_folder(tmp_path)
    assert set(values_of(plain.train)) & set(values_of(plain.test))


def test_targets_of_patients_are_those_of_their_pictures(tmp_path):
    write_patients(tmp_path, range(12))
    test = mcbn.Task.from_folder(tmp_path, group=patient_of).test
    for value, target in zip(values_of(test), test.targets.tolist(), strict=True):
        assert value % 3 == 2 or target == value % 3


def test_groups_of_one_picture_each_are_split_as_pictures(tmp_path):
    write_classes(tmp_path / "pets")
    plain, alone = (
        mcbn.Task.from_folder(tmp_path / "pets", group=group) for group in (None, lambda path: path)
    )
    for part in ("train", "validation", "test"):
        assert values_of(getattr(alone, part)) == values_of(getattr(plain, part))


def test_halves_of_a_folder_are_of_whole_patients(tmp_path):
    write_patients(tmp_path / "train", range(6))
    write_patients(tmp_path / "val", range(100, 124))
    task = mcbn.Task.from_folder(tmp_path, group=patient_of)
    halves = [set(values_of(part)) for part in (task.validation, task.test)]
    assert [len(each) for each in halves] == [12, 12]
    assert not halves[0] & halves[1]


@pytest.mark.parametrize("other", ["val", "test"])
def test_a_patient_in_two_folders_of_parts_is_refused(tmp_path, other):
    for part, first in (("train", 0), ("val", 10), ("test", 20)):
        write_patients(tmp_path / part, range(first, first + 6))
    assert len(mcbn.Task.from_folder(tmp_path, group=patient_of).test) == 24
    write_picture(tmp_path / other / "cat" / "p3_9.png", 3)
    assert len(mcbn.Task.from_folder(tmp_path).test) >= 24
    with pytest.raises(ValueError, match=r"one part only, got 'p3' in train .*; split by whole"):
        mcbn.Task.from_folder(tmp_path, group=patient_of)


def test_too_few_patients_and_pictures_of_nobody_are_refused(tmp_path):
    write_patients(tmp_path, range(2), pictures=30)
    with pytest.raises(ValueError, match=r"enough groups of pictures \(2 in all\) in .*got none"):
        mcbn.Task.from_folder(tmp_path, group=patient_of)
    with pytest.raises(ValueError, match=r"a group for every picture, got None for .*p0_0.png"):
        mcbn.Task.from_folder(tmp_path, group=lambda path: None)
