# SPDX-License-Identifier: Apache-2.0
"""Every public layout is read in a fixed order, and a broken one says what to do."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from colour_images import COLOURS, jpeg, picture, write_tar

from fleet.errors import FleetError
from fleet.training.readers import decode, fit, read_images


def near(image: np.ndarray, name: str) -> bool:
    return bool(np.abs(image.reshape(-1, 3).mean(0) - np.array(COLOURS[name])).max() < 12)


def test_a_tar_is_read_in_the_order_of_its_members(tmp_path: Path) -> None:
    names = ["cup", "van", "cat", "van"]
    found = list(read_images(write_tar(tmp_path / "a.tar.gz", names)))
    assert [name for name, _ in found] == names
    assert all(image.shape == (32, 32, 3) and near(image, name) for name, image in found)


@pytest.mark.parametrize("above", ["", "train"])
def test_a_folder_of_classes_is_read_in_a_mixed_order_that_stays(tmp_path: Path, above: str) -> None:
    for number in range(12):
        for name in ("van", "cat"):
            file = tmp_path / above / name / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(jpeg(picture(name, number)))
    first = [name for name, _ in read_images(tmp_path)]
    assert first == [name for name, _ in read_images(tmp_path)]
    assert sorted(first) == ["cat"] * 12 + ["van"] * 12
    assert set(first[-8:]) == {"cat", "van"}, "the last images must be a sample of all classes"


def test_tiny_imagenets_tree_is_read_with_the_labels_of_both_splits(tmp_path: Path) -> None:
    for name in ("van", "cat"):
        folder = tmp_path / "train" / name / "images"
        folder.mkdir(parents=True)
        (folder / f"{name}_0.JPEG").write_bytes(jpeg(picture(name, 0, 64)))
    (tmp_path / "val" / "images").mkdir(parents=True)
    (tmp_path / "val" / "images" / "val_0.JPEG").write_bytes(jpeg(picture("cat", 1, 64)))
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tcat\t0\t0\t62\t62\n", encoding="utf-8")
    train = list(read_images(tmp_path))
    assert sorted(name for name, _ in train) == ["cat", "van"]
    assert all(near(image, name) for name, image in train)
    (only,) = read_images(tmp_path, "validation")
    assert only[0] == "cat"
    assert near(only[1], "cat")


@pytest.mark.parametrize("above", ["", "cifar-10-batches-bin"])
def test_cifar_10s_binary_files_are_read(tmp_path: Path, above: str) -> None:
    folder = tmp_path / above
    folder.mkdir(exist_ok=True)
    (folder / "batches.meta.txt").write_text("van\ncat\n\n", encoding="utf-8")
    planes = {name: picture(name, 0).transpose(2, 0, 1).tobytes() for name in ("van", "cat")}
    (folder / "data_batch_1.bin").write_bytes(b"\x01" + planes["cat"] + b"\x00" + planes["van"])
    (folder / "data_batch_2.bin").write_bytes(b"\x00" + planes["van"])
    (folder / "test_batch.bin").write_bytes(b"\x01" + planes["cat"])
    found = list(read_images(tmp_path))
    assert [name for name, _ in found] == ["cat", "van", "van"]
    np.testing.assert_array_equal(found[0][1], picture("cat", 0))
    assert [name for name, _ in read_images(tmp_path, "validation")] == ["cat"]


def test_cifar_100s_fine_labels_are_read(tmp_path: Path) -> None:
    (tmp_path / "fine_label_names.txt").write_text("van\ncat\ncow\n", encoding="utf-8")
    plane = picture("cow", 3).transpose(2, 0, 1).tobytes()
    (tmp_path / "train.bin").write_bytes(b"\x00\x02" + plane)
    (tmp_path / "test.bin").write_bytes(b"\x00\x01" + plane)
    ((name, image),) = read_images(tmp_path)
    assert name == "cow"
    np.testing.assert_array_equal(image, picture("cow", 3))
    assert [name for name, _ in read_images(tmp_path, "validation")] == ["cat"]


def cut_tar(path: Path) -> Path:
    tar = write_tar(path / "cut.tar.gz", ["van"] * 40)
    tar.write_bytes(tar.read_bytes()[:3000])
    return tar


def flat_tar(path: Path) -> Path:
    (path / "1.jpg").write_bytes(jpeg(picture("van", 1)))
    with tarfile.open(path / "flat.tar", "w") as tar:
        tar.add(path / "1.jpg", "1.jpg")
    return path / "flat.tar"


def no_tar(path: Path) -> Path:
    (path / "text.tar").write_text("this is no tar", encoding="utf-8")
    return path / "text.tar"


def broken_image(path: Path) -> Path:
    (path / "van").mkdir()
    (path / "van" / "1.jpg").write_bytes(b"no image")
    return path


def empty_image(path: Path) -> Path:
    (path / "van").mkdir()
    (path / "van" / "1.jpg").write_bytes(b"")
    return path


def cut_cifar(path: Path) -> Path:
    (path / "batches.meta.txt").write_text("van\n", encoding="utf-8")
    (path / "data_batch_1.bin").write_bytes(bytes(3000))
    return path


def mislabelled_cifar(path: Path) -> Path:
    (path / "batches.meta.txt").write_text("van\n", encoding="utf-8")
    (path / "data_batch_1.bin").write_bytes(bytes([9]) + bytes(3072))
    return path


def cifar_without_batches(path: Path) -> Path:
    (path / "batches.meta.txt").write_text("van\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path / "nowhere", "no images at"),
        (lambda path: path, "holds no CLASS/FILE"),
        (cut_tar, "fetch it again"),
        (flat_tar, "is not CLASS/FILE"),
        (no_tar, "fetch it again"),
        (broken_image, "not a readable image"),
        (empty_image, "not a readable image"),
        (cut_cifar, "whole number of CIFAR records"),
        (mislabelled_cifar, "names only 1 classes"),
        (cifar_without_batches, "no data_batch"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_cure(tmp_path: Path, make, says: str) -> None:
    with pytest.raises(FleetError, match=says) as caught:
        list(read_images(make(tmp_path)))
    assert "\n" not in str(caught.value)


def test_grey_photographs_become_three_channels() -> None:
    import cv2  # noqa: PLC0415

    _, grey = cv2.imencode(".jpg", np.full((20, 30), 77, np.uint8))
    image = decode(grey.tobytes(), "grey")
    assert image.shape == (20, 30, 3)
    assert abs(int(image.mean()) - 77) < 3


@pytest.mark.parametrize("shape", [(64, 64), (100, 64), (64, 500), (33, 40), (20, 31)])
def test_fitted_images_are_square_and_keep_their_middle(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 2 - 3 : shape[0] // 2 + 3, shape[1] // 2 - 3 : shape[1] // 2 + 3] = 255
    fitted = fit(image, 32)
    assert fitted.shape == (32, 32, 3)
    bright = np.argwhere(fitted[..., 0] > 100).mean(0)
    np.testing.assert_allclose(bright, [15.5, 15.5], atol=1.5)
