# SPDX-License-Identifier: Apache-2.0
"""Tiny data sets in every layout, of plain colours that a network learns in seconds."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

COLOURS = {"van": (200, 30, 30), "cat": (30, 200, 30), "cow": (30, 30, 200), "cup": (128, 128, 128)}
GROUPS = {"van": "vehicle", "cat": "pet", "cow": "animal", "cup": "none"}


def picture(name: str, number: int, size: int = 32) -> NDArray[np.uint8]:
    """An image of a class's colour with noise that tells pictures apart."""
    noise = np.random.default_rng(number).integers(-20, 20, (size, size, 3))
    return np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)


def jpeg(image: NDArray[np.uint8]) -> bytes:
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    return encoded.tobytes()


def write_tar(path: Path, names: list[str], *, size: int = 32) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for number, name in enumerate(names):
            content = jpeg(picture(name, number, size))
            member = tarfile.TarInfo(f"{name}/{number}.JPEG")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_colours(root: Path) -> Path:
    """Make a folder with a tar of 40 images of four classes in turn, and their class table."""
    root.mkdir()
    write_tar(root / "train.tar.gz", list(COLOURS) * 10)
    rows = [f"{name}\t{GROUPS[name]}\ta {name}, so called" for name in COLOURS]
    (root / "classes.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root
