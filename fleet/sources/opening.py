# SPDX-License-Identifier: Apache-2.0
"""From what a user writes after ``--source`` to an open source."""

from __future__ import annotations

import re
from pathlib import Path

from fleet.errors import FleetError
from fleet.sources.archive import GZIP_MAGIC, is_tar, open_archive
from fleet.sources.camera import device_index, first_camera, open_camera
from fleet.sources.files import open_directory, open_image, read_head
from fleet.sources.film import VIDEO_SUFFIXES, is_film, open_film
from fleet.sources.frame import Report, Source, printable
from fleet.sources.network import STREAM_SCHEMES, open_address
from fleet.sources.photos import PhotoSource
from fleet.sources.region import RegionSource, Roi

KINDS = (
    "auto, photos, a camera number, /dev/videoN, an rtsp:// or http:// address, "
    "an image, a video, a bag, or a directory or tar of images"
)
LARGEST_SIDE = 8192
_PACKED = {b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"7z\xbc\xaf": "7z", b"(\xb5/\xfd": "zstd"}


def open_source(
    spec: str,
    *,
    loop: bool = False,
    on_skip: Report | None = None,
    seed: int = 0,
    realtime: bool = True,
    resolution: tuple[int, int] | None = None,
    open_timeout: float = 5.0,
    roi: Roi = "full",
) -> Source:
    """Open a source of frames.

    Args:
        spec: ``auto`` (the first camera that works, otherwise ``photos``), ``photos``, a camera number, a device path,
            an rtsp:// or http(s):// address of a stream or picture, or the path of an image, a video, a bag
            (``BAG#CAMERA`` where it has several cameras), a directory or a tar(.gz) of images, ``NAME/FILE`` inside the
            last two being labelled by NAME.
        loop: begin again at the end of whatever has one.
        on_skip: called with one line for everything that had to be stepped over, and when a camera goes away or
            returns; from another thread where the source is live.
        seed: order and movement of ``photos``.
        realtime: play a video file at its own rate, as a camera would; otherwise every frame is given.
        resolution: width and height in pixels to ask a camera for, and of the frames of ``photos``.
        open_timeout: seconds until a camera or stream must give its first picture.
        roi: ``motion`` marks the square around what moved in every frame (:attr:`Frame.region`).

    Raises:
        FleetError: there is no such source, it is damaged or empty, or gives no picture in time.
    """
    source = _open(
        spec,
        loop=loop,
        on_skip=on_skip,
        seed=seed,
        realtime=realtime,
        resolution=resolution,
        open_timeout=open_timeout,
    )
    return source if roi == "full" else RegionSource(source, roi)


def _open(
    spec: str,
    *,
    loop: bool,
    on_skip: Report | None,
    seed: int,
    realtime: bool,
    resolution: tuple[int, int] | None,
    open_timeout: float,
) -> Source:
    if resolution is not None and not all(1 <= side <= LARGEST_SIDE for side in resolution):
        msg = f"a resolution is two numbers from 1 to {LARGEST_SIDE}, not {resolution[0]} x {resolution[1]}"
        raise FleetError(msg)
    spec = spec.strip()
    if not spec or "\0" in spec:
        msg = f"no source given: use {KINDS}"
        raise FleetError(msg)
    if spec == "photos":
        return PhotoSource(seed=seed, resolution=resolution)
    if spec == "auto":
        camera, why = first_camera(resolution=resolution, on_skip=on_skip, open_timeout=open_timeout)
        return camera or PhotoSource(seed=seed, resolution=resolution, why=f" ({why})")
    if re.fullmatch(r"[0-9]{1,3}", spec):
        return open_camera(int(spec), resolution=resolution, on_skip=on_skip, open_timeout=open_timeout)
    if spec.startswith("ros:"):
        msg = f"{printable(spec)} is a ROS topic: only the device node can read it"
        raise FleetError(msg)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", spec)
    if scheme:
        if scheme[1].lower() not in STREAM_SCHEMES:
            msg = f"cannot read {scheme[1]}:// addresses, only {', '.join(STREAM_SCHEMES)}"
            raise FleetError(msg)
        return open_address(spec, loop=loop, on_skip=on_skip, open_timeout=open_timeout)
    return _open_path(
        Path(spec),
        loop=loop,
        on_skip=on_skip,
        realtime=realtime,
        resolution=resolution,
        open_timeout=open_timeout,
    )


def _open_path(
    path: Path,
    *,
    loop: bool,
    on_skip: Report | None,
    realtime: bool,
    resolution: tuple[int, int] | None,
    open_timeout: float,
) -> Source:
    from fleet.bags.source import open_bag, split_spec  # noqa: PLC0415 - which is itself made of sources

    try:
        path = path.expanduser()
        is_directory = path.is_dir()
    except (RuntimeError, OSError) as err:
        msg = f"cannot read {printable(str(path))}: {err}"
        raise FleetError(msg) from err
    if (bag := split_spec(path)) is not None:
        return open_bag(*bag, loop=loop, on_skip=on_skip)
    if is_directory:
        return open_directory(path, loop=loop, on_skip=on_skip)
    if path.parts[:2] == ("/", "dev"):
        index = device_index(path)
        return open_camera(index, resolution=resolution, on_skip=on_skip, open_timeout=open_timeout)
    head = read_head(path)
    called_tar = path.name.lower().endswith((".tar", ".tar.gz", ".tgz"))
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    if packed:
        msg = f"{path} is packed with {packed}; of archives only .tar and .tar.gz can be read"
        raise FleetError(msg)
    if head.startswith(GZIP_MAGIC) or is_tar(head):
        return open_archive(path, loop=loop, on_skip=on_skip)
    if called_tar:
        msg = f"{path} is not a tar archive, whatever its name says"
        raise FleetError(msg)
    if is_film(head, path.suffix):
        return open_film(path, realtime=realtime, loop=loop, on_skip=on_skip)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        msg = f"{path} is not a video, whatever its name says"
        raise FleetError(msg)
    if _is_text(head):
        msg = f"{path} is a text file; a source is {KINDS}"
        raise FleetError(msg)
    return open_image(path, loop=loop, on_skip=on_skip)


def _is_text(head: bytes) -> bool:
    """Whether a file's beginning has no byte that text does not have; PNM images may look like that too."""
    if re.match(rb"P[1-7]\s", head):
        return False
    return all(byte >= 0x20 or byte in b"\t\r\n\f\b" for byte in head)
