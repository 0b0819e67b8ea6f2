# SPDX-License-Identifier: Apache-2.0
"""Reads the layouts that image data sets are published in, one labelled image at a time.

Known are: a tar (compressed or not) of ``CLASS/FILE``; a folder of ``CLASS/FILE`` (ImageFolder, with or
without ``train`` and ``val`` folders above); the Tiny-ImageNet-200 tree; CIFAR-10's and CIFAR-100's binary
files. No layout that needs unpickling is read.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from fleet.errors import FleetError

Image: TypeAlias = NDArray[np.uint8]
Split: TypeAlias = Literal["train", "validation"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_CIFAR_PIXELS = 3 * 32 * 32


def read_images(path: Path, split: Split = "train") -> Iterator[tuple[str, Image]]:
    """Yield (class, RGB image (H, W, 3)) of everything below a path, always in the same order.

    Tars and CIFAR files keep their own order. Folders are sorted by class, so their files come in the
    order of a hash of their names: the last images of any layout are then a fair sample of its classes.

    Args:
        path: a tar, or a folder in one of the known layouts.
        split: which part to read where one folder holds both.

    Raises:
        FleetError: no such path, no known layout, or a file that is no image.
    """
    if path.is_file():
        yield from _read_tar(path)
    elif not path.is_dir():
        msg = f"no images at {path}; give a folder or a tar of CLASS/FILE"
        raise FleetError(msg)
    elif (cifar := _find_cifar(path)) is not None:
        yield from _read_cifar(cifar, split)
    elif (path / "val" / "val_annotations.txt").is_file():
        yield from _read_tiny_imagenet(path, split)
    else:
        yield from _read_folder(_split_folder(path, split))


def decode(encoded: bytes, name: str) -> Image:
    """Decode a JPEG or PNG to RGB (H, W, 3).

    Raises:
        FleetError: the bytes are no image.
    """
    decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR) if encoded else None
    if decoded is None:
        msg = f"{name} is not a readable image; remove it or fetch the data set again"
        raise FleetError(msg)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def fit(image: Image, size: int) -> Image:
    """Scale the shorter side to the size and cut the centre square: (size, size, 3)."""
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    scale = size / min(height, width)
    to = (max(size, round(width * scale)), max(size, round(height * scale)))
    scaled = cv2.resize(image, to, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (to[1] - size) // 2, (to[0] - size) // 2
    return np.asarray(scaled[top : top + size, left : left + size], np.uint8)


def _read_tar(path: Path) -> Iterator[tuple[str, Image]]:
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if not member.isfile() or PurePosixPath(member.name).suffix.lower() not in _SUFFIXES:
                    continue
                if len(parts) < 2:
                    msg = f"{path}: member {member.name} is not CLASS/FILE"
                    raise FleetError(msg)
                file = tar.extractfile(member)
                yield parts[-2], decode(file.read() if file else b"", f"{path}: {member.name}")
    except (tarfile.TarError, EOFError, OSError) as err:
        msg = f"cannot read {path} as a tar of CLASS/FILE: {err or type(err).__name__}; fetch it again"
        raise FleetError(msg) from err


def _split_folder(path: Path, split: Split) -> Path:
    names = ("train",) if split == "train" else ("val", "validation", "test")
    for name in names:
        if (path / name).is_dir():
            return path / name
    return path


def _shuffled(files: list[Path]) -> list[Path]:
    return sorted(files, key=lambda file: hashlib.sha256(f"{file.parent.name}/{file.name}".encode()).digest())


def _read_folder(path: Path) -> Iterator[tuple[str, Image]]:
    files = [file for file in path.glob("*/*") if file.suffix.lower() in _SUFFIXES]
    if not files:
        msg = f"{path} holds no CLASS/FILE images and is no data set known here"
        raise FleetError(msg)
    for file in _shuffled(files):
        yield file.parent.name, decode(file.read_bytes(), str(file))


def _read_tiny_imagenet(path: Path, split: Split) -> Iterator[tuple[str, Image]]:
    if split == "train":
        for file in _shuffled(list(path.glob("train/*/images/*.JPEG"))):
            yield file.parent.parent.name, decode(file.read_bytes(), str(file))
        return
    table = path / "val" / "val_annotations.txt"
    for line in table.read_text(encoding="utf-8").splitlines():
        fields = line.split("\t")
        file = path / "val" / "images" / fields[0]
        if len(fields) < 2 or not file.is_file():
            msg = f"{table} names '{line[:40]}', which is not there; unpack the data set again"
            raise FleetError(msg)
        yield fields[1], decode(file.read_bytes(), str(file))


def _find_cifar(path: Path) -> Path | None:
    for folder in (path, path / "cifar-10-batches-bin", path / "cifar-100-binary"):
        if (folder / "batches.meta.txt").is_file() or (folder / "fine_label_names.txt").is_file():
            return folder
    return None


def _read_cifar(path: Path, split: Split) -> Iterator[tuple[str, Image]]:
    hundred = (path / "fine_label_names.txt").is_file()
    table = path / ("fine_label_names.txt" if hundred else "batches.meta.txt")
    names = [line.strip() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    if hundred:
        files = [path / ("train.bin" if split == "train" else "test.bin")]
    elif split == "train":
        files = sorted(path.glob("data_batch_*.bin"))
    else:
        files = [path / "test_batch.bin"]
    labels = 2 if hundred else 1  # CIFAR-100 records hold the coarse label, then the fine one
    for file in files:
        raw = np.fromfile(file, np.uint8) if file.is_file() else np.zeros(0, np.uint8)
        if not raw.size or raw.size % (labels + _CIFAR_PIXELS):
            msg = f"{file} is missing or not a whole number of CIFAR records; fetch the binary version again"
            raise FleetError(msg)
        for record in raw.reshape(-1, labels + _CIFAR_PIXELS):
            label = int(record[labels - 1])
            if label >= len(names):
                msg = f"{file} has label {label}, but {table.name} names only {len(names)} classes"
                raise FleetError(msg)
            yield names[label], np.ascontiguousarray(record[labels:].reshape(3, 32, 32).transpose(1, 2, 0))
    if not files:
        msg = f"{path} has no data_batch_*.bin; fetch CIFAR-10's binary version"
        raise FleetError(msg)
