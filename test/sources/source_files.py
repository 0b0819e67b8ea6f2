# SPDX-License-Identifier: Apache-2.0
"""Images, films and archives made on the spot."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fleet.errors import FleetError
from fleet.sources.opencv import opencv

cv2 = opencv()  # before anything else loads it, as in a program that only uses the sources


def picture(seed: int = 0, width: int = 32, height: int = 24) -> np.ndarray:
    """A smooth RGB picture that survives JPEG."""
    small = np.random.default_rng(seed).integers(40, 216, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    """An image file's bytes."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    good, data = cv2.imencode(suffix, image)
    assert good
    return data.tobytes()


def archive(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def film(path: Path, frames: int = 10, fps: float = 100.0, codec: str = "MJPG") -> Path:
    """A film whose frame n is grey of level 20 n."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for n in range(frames):
        writer.write(np.full((48, 64, 3), 20 * n % 256, np.uint8))
    writer.release()
    return path


def drain(source) -> list:
    with source:
        return list(iter(lambda: source.read(5.0), None))


def refusal(call, *args, **options) -> str:
    """The one line with which something is refused."""
    with pytest.raises(FleetError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message
