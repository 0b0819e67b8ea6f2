# SPDX-License-Identifier: Apache-2.0
"""Cameras of this machine: which there are, and how to open one."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

from fleet.errors import FleetError
from fleet.sources.capture import CameraStream
from fleet.sources.frame import Report
from fleet.sources.live import LiveSource
from fleet.sources.opencv import opencv

DEVICES = Path("/dev")
PROBE_S = 8.0  # for all cameras together


def camera_indices() -> list[int]:
    """Numbers of the video devices there are. Opens none; where there is no /dev/video*, 0 is worth a try."""
    if sys.platform != "linux":
        return [0]
    found = (re.fullmatch(r"video([0-9]{1,3})", path.name) for path in DEVICES.glob("video*"))
    return sorted(int(match[1]) for match in found if match)


def device_index(path: Path) -> int:
    """Return the number of a camera given as a path, such as /dev/video2 or a link to it.

    Raises:
        FleetError: there is no such device, or it is not a camera.
    """
    if not path.exists():
        raise FleetError(_absent(str(path)))
    match = re.fullmatch(r"video([0-9]{1,3})", path.resolve().name)
    if match is None:
        msg = f"{path} is not a camera (they are called {DEVICES}/videoN)"
        raise FleetError(msg)
    return int(match[1])


def open_camera(
    index: int,
    *,
    resolution: tuple[int, int] | None,
    on_skip: Report | None,
    open_timeout: float,
    description: str = "",
) -> LiveSource:
    """Open a camera and wait for its first picture.

    Args:
        index: number N of /dev/videoN.
        resolution: width and height in pixels to ask for; the camera takes the nearest that it has.
        on_skip: called with a line when it goes away and comes back.
        open_timeout: seconds until the first picture.
        description: one line for the user.

    Raises:
        FleetError: it is not there, in use, not allowed, or gives no picture.
    """
    if sys.platform == "linux" and index not in camera_indices():
        raise FleetError(_absent(f"camera {index}"))
    return LiveSource(
        lambda: _open(index, resolution),
        label=f"camera {index}",
        description=description or f"camera {index}",
        on_skip=on_skip,
        open_timeout=open_timeout,
    )


def first_camera(
    *, resolution: tuple[int, int] | None, on_skip: Report | None, open_timeout: float
) -> tuple[LiveSource | None, str]:
    """Open the first camera that gives a picture.

    Returns:
        The camera or None, and in words why it or none was chosen.
    """
    indices = camera_indices()
    if not indices:
        return None, "no camera on this machine"
    deadline = time.monotonic() + PROBE_S
    problems: list[str] = []
    for index in indices:
        left = min(open_timeout, deadline - time.monotonic())
        if left <= 0.0:
            break
        why = "the first camera found" if not problems else "the first camera that gives a picture"
        try:
            camera = open_camera(
                index,
                resolution=resolution,
                on_skip=on_skip,
                open_timeout=left,
                description=f"camera {index} ({why})",
            )
        except FleetError as err:
            problems.append(str(err))
            continue
        return camera, why
    return None, f"no camera works: {problems[0]}" if problems else "no camera works"


def _open(index: int, resolution: tuple[int, int] | None) -> CameraStream:
    cv2 = opencv()
    linux = sys.platform == "linux"
    capture = cv2.VideoCapture(index, cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
    if not capture.isOpened():
        capture.release()
        path = DEVICES / f"video{index}"
        if linux and path.exists() and not os.access(path, os.R_OK | os.W_OK):
            msg = f"camera {index}: no permission for {path}; add yourself to the group video and log in again"
        else:
            msg = f"camera {index} cannot be opened: another program uses it, or it is no camera"
        raise FleetError(msg)
    if resolution is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, resolution[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, resolution[1])
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # an old picture is of no use
    return CameraStream(capture)


def _absent(what: str) -> str:
    found = camera_indices()
    known = ", ".join(str(index) for index in found) if found else "none"
    return f"{what} is not there; cameras found: {known} (without a camera use --source photos)"
