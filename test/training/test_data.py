# SPDX-License-Identifier: Apache-2.0
"""The cache of decoded images, the class table, and the calibration split."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from colour_images import COLOURS, jpeg, picture, write_tar

from fleet.errors import FleetError
from fleet.training.config import DataConfig
from fleet.training.data import load_images, load_training_sets

CONFIG = DataConfig(train=("train.tar.gz",), calibration=7, classes="classes.tsv")


def test_the_calibration_split_is_the_last_images_and_training_never_sees_them(colours: Path, tmp_path: Path) -> None:
    everything = load_images([colours / "train.tar.gz"], CONFIG, colours, size=32, cache=tmp_path / "cache")
    train, calibration = load_training_sets(CONFIG, colours, size=32, cache=tmp_path / "cache")
    assert (len(train), len(calibration)) == (33, 7)
    np.testing.assert_array_equal(train.images, everything.images[:33])
    np.testing.assert_array_equal(calibration.images, everything.images[33:])
    seen = {image.tobytes() for image in train.images}
    assert not seen & {image.tobytes() for image in calibration.images}


def test_labels_follow_the_class_tables_order_and_carry_their_groups(colours: Path, tmp_path: Path) -> None:
    train, _ = load_training_sets(CONFIG, colours, size=32, cache=tmp_path / "cache")
    assert train.table.names == tuple(COLOURS)
    assert train.table.groups == ("vehicle", "pet", "animal", "none")
    assert train.table.words[0] == "a van, so called"
    np.testing.assert_array_equal(train.labels[:5], [0, 1, 2, 3, 0])
    np.testing.assert_array_equal(train.table.group_of, [0, 1, 2, 3])


def test_without_a_table_classes_are_sorted_and_groups_come_from_the_configuration(
    colours: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, classes="", groups={"vehicle": ("van",), "pet": ("cat",)})
    train, _ = load_training_sets(config, colours, size=32, cache=tmp_path / "cache")
    assert train.table.names == ("cat", "cow", "cup", "van")
    assert train.table.groups == ("vehicle", "pet", "none")
    np.testing.assert_array_equal(train.table.group_of, [1, 2, 2, 0])
    bare = dataclasses.replace(config, groups={})
    assert load_training_sets(bare, colours, size=32, cache=tmp_path / "cache")[0].table.groups == ()


def test_images_are_decoded_once_and_again_when_the_file_changes(colours: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    load_training_sets(CONFIG, colours, size=32, cache=cache)
    (folder,) = cache.iterdir()
    stamp = (folder / "images.u8").stat().st_mtime_ns
    load_training_sets(CONFIG, colours, size=32, cache=cache)
    assert (folder / "images.u8").stat().st_mtime_ns == stamp
    write_tar(colours / "train.tar.gz", list(COLOURS) * 11)
    train, _ = load_training_sets(CONFIG, colours, size=32, cache=cache)
    assert len(train) == 37


def test_an_image_added_to_a_folder_is_noticed(tmp_path: Path) -> None:
    config = DataConfig(train=(".",), calibration=1)
    for number, name in enumerate(["van", "cat", "van", "cat"]):
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name / f"{number}.jpg").write_bytes(jpeg(picture(name, number)))
    sets = load_training_sets(config, tmp_path / "photos", size=32, cache=tmp_path / "cache")
    assert [len(part) for part in sets] == [3, 1]
    (tmp_path / "photos" / "cat" / "9.jpg").write_bytes(jpeg(picture("cat", 9)))
    sets = load_training_sets(config, tmp_path / "photos", size=32, cache=tmp_path / "cache")
    assert [len(part) for part in sets] == [4, 1]


def test_a_decoding_that_fails_leaves_no_cache_behind(colours: Path, tmp_path: Path) -> None:
    whole = (colours / "train.tar.gz").read_bytes()
    (colours / "train.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FleetError, match="fetch it again"):
        load_training_sets(CONFIG, colours, size=32, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"train": ("other.tar",)}, "--data"),
        ({"calibration": 40}, "fewer than that"),
        ({"calibration": 0}, "from 1"),
        ({"classes": "none.tsv"}, "cannot read the class table"),
        ({"classes": "", "groups": {"pet": ("dog",)}}, "names class 'dog'"),
    ],
)
def test_wrong_settings_are_one_line_with_their_cure(colours: Path, tmp_path: Path, change, says: str) -> None:
    with pytest.raises(FleetError, match=says):
        load_training_sets(dataclasses.replace(CONFIG, **change), colours, size=32, cache=tmp_path / "cache")


def test_a_class_missing_from_the_table_is_named(colours: Path, tmp_path: Path) -> None:
    (colours / "classes.tsv").write_text("van\tvehicle\tvan\n", encoding="utf-8")
    with pytest.raises(FleetError, match="does not name class 'cat'"):
        load_training_sets(CONFIG, colours, size=32, cache=tmp_path / "cache")
    (colours / "classes.tsv").write_text("van vehicle van\n", encoding="utf-8")
    with pytest.raises(FleetError, match="line 1: expected class, group and words"):
        load_training_sets(CONFIG, colours, size=32, cache=tmp_path / "cache")
