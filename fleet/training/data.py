# SPDX-License-Identifier: Apache-2.0
"""Labelled images in one memory-mapped array, decoded once, with the calibration split cut off."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fleet.errors import FleetError
from fleet.exits import Classes
from fleet.training.config import DataConfig
from fleet.training.readers import Split, fit, read_images

NONE = "none"


@dataclass(frozen=True)
class ClassTable:
    """Classes in the order of the network's outputs, and the group of each.

    Attributes:
        names: class names.
        groups: group names, ``none`` last; empty where the data set has no groups.
        group_of: index into ``groups`` for every class, shape (classes,).
        words: a readable name for every class.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    group_of: NDArray[np.int64]
    words: tuple[str, ...]

    def classes(self) -> Classes:
        """What a bundle that is trained on these recognises; without groups, every class is its own."""
        names = tuple(w.split(",")[0].strip() or n for w, n in zip(self.words, self.names, strict=True))
        if not self.groups:
            return Classes(self.names, names, tuple(range(len(names))), names)
        return Classes(self.names, names, tuple(int(g) for g in self.group_of), self.groups)


@dataclass(frozen=True)
class ImageSet:
    """Images of one size with their labels.

    Attributes:
        images: RGB, shape (N, size, size, 3), usually memory-mapped.
        labels: index into ``table.names``, shape (N,).
        table: the classes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    table: ClassTable

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int) -> ImageSet:
        """The images from start up to stop, without copying them."""
        return ImageSet(self.images[start:stop], self.labels[start:stop], self.table)


def load_training_sets(config: DataConfig, root: Path, *, size: int, cache: Path) -> tuple[ImageSet, ImageSet]:
    """Training and calibration images: the last ``config.calibration`` images are the calibration split.

    Args:
        config: files, classes, size of the calibration split.
        root: folder of the data set.
        size: height and width to store images at, in pixels.
        cache: folder that keeps the decoded images.

    Raises:
        FleetError: nothing readable there, or fewer images than the calibration split asks for.
    """
    everything = load_images([root / name for name in config.train], config, root, size=size, cache=cache)
    if not 0 < config.calibration < len(everything):
        msg = f"{root} has {len(everything)} training images; data.calibration must be from 1 to fewer than that"
        raise FleetError(msg)
    cut = len(everything) - config.calibration
    return everything.part(0, cut), everything.part(cut, len(everything))


def load_images(
    paths: Sequence[Path], config: DataConfig, root: Path, *, size: int, cache: Path, split: Split = "train"
) -> ImageSet:
    """Read images through the cache: decoded at the first call, memory-mapped afterwards.

    Args:
        paths: tars or folders, read in this order.
        config: names the class table and groups.
        root: folder of the data set, where the class table lies.
        size: height and width to store images at, in pixels.
        cache: folder that keeps the decoded images; a subfolder per set and size is made.
        split: which part to read where one folder holds both.

    Raises:
        FleetError: nothing readable there, or a class that the class table does not name.
    """
    folder = cache / _fingerprint(paths, size, split)
    if not (folder / "classes.json").is_file():
        _decode_all(paths, folder, size=size, split=split)
    seen: list[str] = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
    found = np.load(folder / "labels.npy")
    images = np.memmap(folder / "images.u8", np.uint8, "r").reshape(-1, size, size, 3)
    table = class_table(config, root, seen)
    position = {name: i for i, name in enumerate(table.names)}
    unknown = [name for name in seen if name not in position]
    if unknown:
        msg = f"{root / config.classes} does not name class '{unknown[0]}', which the images have"
        raise FleetError(msg)
    of_seen = np.array([position[name] for name in seen], np.int64)
    return ImageSet(images, of_seen[found], table)


def class_table(config: DataConfig, root: Path, seen: Sequence[str]) -> ClassTable:
    """The classes from the data set's table or, without one, the sorted names that were seen.

    Raises:
        FleetError: the table is missing or malformed, or a group names an unknown class.
    """
    if config.classes:
        rows = list(_table_rows(root / config.classes))
        names = tuple(row[0] for row in rows)
        group_names = [row[1] for row in rows]
        words = tuple(row[2] for row in rows)
    else:
        names = words = tuple(sorted(seen))
        owner = {name: group for group, members in config.groups.items() for name in members}
        if missing := sorted(set(owner) - set(names)):
            msg = f"data.groups names class '{missing[0]}', which the images do not have"
            raise FleetError(msg)
        group_names = [owner.get(name, NONE) for name in names] if owner else []
    # In order of the configuration or of first appearance would differ between data sets; the topics'
    # own order is fixed, and `none` comes last because it is not a wake word.
    known = ("vehicle", "pet", "animal")
    rest = sorted(set(group_names) - set(known) - {NONE})
    groups = tuple(g for g in (*known, *rest, NONE) if g in group_names)
    group_of = np.array([groups.index(g) for g in group_names], np.int64)
    return ClassTable(names, groups, group_of, words)


def _table_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as err:
        msg = f"cannot read the class table {path}: {err.strerror}; check --data"
        raise FleetError(msg) from err
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        if len(fields) != 3:
            msg = f"{path}, line {number}: expected class, group and words with tabs between"
            raise FleetError(msg)
        yield fields[0], fields[1], fields[2]


def _fingerprint(paths: Sequence[Path], size: int, split: Split) -> str:
    """A folder name that changes when the files do: names, sizes and times, not 70 MB of content."""
    parts = [f"{size} {split}"]
    for path in paths:
        if not path.exists():
            msg = f"no images at {path}; give the data set's folder with --data"
            raise FleetError(msg)
        if path.is_file():
            parts.append(f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}")
            continue
        # A file that comes or goes changes the time of the folder it lies in.
        for folder, below, files in os.walk(path):
            below.sort()
            parts.append(f"{Path(folder).resolve()} {len(files)} {Path(folder).stat().st_mtime_ns}")
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"{paths[0].resolve().parent.name}-{size}-{digest[:12]}"


def _decode_all(paths: Sequence[Path], folder: Path, *, size: int, split: Split) -> None:
    """Decode into a folder beside the final one and rename it: a half-written cache is never read."""
    draft = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
    except OSError as err:
        raise FleetError(
            f"cannot keep decoded images in {folder.parent}: {err.strerror}; choose another --cache"
        ) from err
    seen: dict[str, int] = {}
    labels: list[int] = []
    try:
        with (draft / "images.u8").open("wb") as file:
            for path in paths:
                for name, image in read_images(path, split):
                    labels.append(seen.setdefault(name, len(seen)))
                    file.write(np.ascontiguousarray(fit(image, size)).tobytes())
        if not labels:
            msg = f"no images in {paths[0]}; give a folder or a tar of CLASS/FILE"
            raise FleetError(msg)
        np.save(draft / "labels.npy", np.array(labels, np.int64))
        (draft / "classes.json").write_text(json.dumps(list(seen)), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
