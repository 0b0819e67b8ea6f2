# SPDX-License-Identifier: Apache-2.0
"""A bag as a source of frames: the pictures of one camera, in order, with the truth that its reports name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fleet.bags.definitions import IMAGE, INFERENCE
from fleet.bags.reader import STORAGES, BagReader, is_bag
from fleet.bags.recording import stamp_of
from fleet.errors import FleetError
from fleet.sources.decode import MAX_FILE_BYTES, UnreadableImage
from fleet.sources.frame import Report
from fleet.sources.items import Item, Items, ItemSource


def split_spec(path: Path) -> tuple[Path, str] | None:
    """Bag and camera of ``BAG`` or ``BAG#CAMERA``; None where the path is no bag."""
    if is_bag(path) or (path.suffix in STORAGES and path.is_file()):
        return path, ""
    text, mark, camera = str(path).partition("#")
    if mark and is_bag(Path(text)):
        return Path(text), camera
    return None


def open_bag(path: Path, camera: str, *, loop: bool, on_skip: Report | None) -> ItemSource:
    """Open a bag's pictures.

    Args:
        path: the bag.
        camera: namespace; empty where only one has pictures.
        loop: begin again at the end.
        on_skip: called with one line for every picture that is stepped over.

    Raises:
        FleetError: no bag, damaged, no picture, or several cameras to choose from.
    """
    with BagReader(path) as bag:
        having = [name for name in bag.cameras if bag.count(name, IMAGE)]
        if not having:
            raise FleetError(f"{path} has no pictures: was it recorded with image/compressed?")
        wanted = f"/{camera.strip('/')}" if camera else ""
        if wanted and wanted not in having:
            raise FleetError(f"{path} has no pictures of {wanted}, only of {', '.join(having)}")
        if not wanted and len(having) > 1:
            raise FleetError(
                f"{path} has pictures of {', '.join(having)}: choose one with {path}#{having[0].strip('/')}"
            )
        chosen = wanted or having[0]
        told = {
            stamp_of(report.content.header): (report.content.name, report.content.truth)
            for report in bag.messages((INFERENCE,), (chosen,))
        }
        count = bag.count(chosen, IMAGE)

    def items() -> Items:
        with BagReader(path) as again:
            for number, message in enumerate(_pictures(again, chosen)):
                name, truth = told.get(message.stamp, ("", ""))
                yield Item(name or f"{path.name}#{number}", truth or None, message.load)

    return ItemSource(
        items,
        where=f"bag {path}",
        description=f"{count} pictures of {chosen} in bag {path}",
        loop=loop,
        on_skip=on_skip,
    )


class _Picture:
    """One picture's bytes and stamp."""

    def __init__(self, stamp: int, data: bytes) -> None:
        self.stamp = stamp
        self._data = data

    def load(self) -> bytes:
        """See :class:`fleet.sources.items.Item`."""
        if len(self._data) > MAX_FILE_BYTES:
            raise UnreadableImage(f"has {len(self._data)} bytes; the limit for an image is {MAX_FILE_BYTES}")
        return self._data


def _pictures(bag: BagReader, camera: str) -> Iterator[_Picture]:
    for message in bag.messages((IMAGE,), (camera,)):
        yield _Picture(stamp_of(message.content.header), bytes(message.content.data))
