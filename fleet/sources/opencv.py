# SPDX-License-Identifier: Apache-2.0
"""OpenCV, loaded on first use, kept quiet and kept from waiting or allocating without end."""

from __future__ import annotations

import functools
import os
from typing import Any

from fleet.errors import FleetError

MAX_PIXELS = 1 << 27  # 134 million: above the largest phone cameras, below what a machine cannot hold

# OpenCV reads these once, the pixel limit when its library is loaded. What a user has set stays.
_ENVIRONMENT = {
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS),
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # AV_LOG_QUIET
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "2",  # seconds a dead camera blocks its thread (default 10)
}


@functools.cache
def opencv() -> Any:
    """Import ``cv2`` and stop it from writing to the terminal: our own messages say the same in one line.

    Raises:
        FleetError: OpenCV is not installed or cannot be loaded.
    """
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    try:
        import cv2  # noqa: PLC0415 - takes a tenth of a second and 50 MB that not every user of this package needs
    except ImportError as err:
        msg = f"OpenCV cannot be loaded ({err}): pip install opencv-python-headless"
        raise FleetError(msg) from err
    logging = getattr(cv2.utils, "logging", cv2)  # older releases have the function at the top
    logging.setLogLevel(0)  # LOG_LEVEL_SILENT
    return cv2
