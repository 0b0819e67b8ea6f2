# SPDX-License-Identifier: Apache-2.0
"""Image files and directories of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from fleet.errors import FleetError
from fleet.sources.decode import MAX_FILE_BYTES, UnreadableImage, decode_image, is_image_name
from fleet.sources.frame import Report
from fleet.sources.items import Item, Items, ItemSource, folder_truth

MAX_DEPTH = 8
MAX_IMAGES = 5_000_000
HEAD_BYTES = 512


def reason(err: OSError) -> str:
    """The operating system's words, without path and number."""
    return (err.strerror or str(err)).lower()


def read_head(path: Path) -> bytes:
    """Return the first bytes of a regular file, to tell what it is.

    Raises:
        FleetError: there is no such file, it is empty, not a regular file, or may not be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            msg = f"{path} is neither a file nor a directory"
            raise FleetError(msg)
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError as err:
        msg = f"there is no file or directory {path}"
        raise FleetError(msg) from err
    except OSError as err:
        msg = f"cannot read {path}: {reason(err)}"
        raise FleetError(msg) from err
    if not head:
        msg = f"{path} is empty (0 bytes)"
        raise FleetError(msg)
    return head


def open_image(path: Path, *, loop: bool, on_skip: Report | None) -> ItemSource:
    """Open one image file.

    Raises:
        FleetError: it is not an image, or is damaged.
    """
    try:
        decode_image(_read(path))
    except UnreadableImage as err:
        msg = f"{path} {err}"
        raise FleetError(msg) from err

    def items() -> Items:
        yield Item(path.name, None, lambda: _read(path))

    return ItemSource(items, where=str(path), description=f"image {path}", loop=loop, on_skip=on_skip)


def open_directory(path: Path, *, loop: bool, on_skip: Report | None) -> ItemSource:
    """Open a directory of images, or of ``NAME/FILE``; files come in the order of their sorted paths.

    Raises:
        FleetError: it may not be read, or has no readable image in it.
    """
    entries = sorted(_entries_below(path))
    if not entries and not _list(path):
        msg = f"directory {path} is empty"
        raise FleetError(msg)

    def items() -> Items:
        for parts, problem in entries:
            load = _refusal(problem) if problem else _reader(path.joinpath(*parts))
            yield Item("/".join(parts), folder_truth(parts), load)

    what = f"{len(entries)} image{'s' if len(entries) != 1 else ''} of directory {path}"
    return ItemSource(items, where=f"directory {path}", description=what, loop=loop, on_skip=on_skip)


def _reader(path: Path) -> Callable[[], bytes]:
    return lambda: _read(path)


def _refusal(problem: str) -> Callable[[], bytes]:
    def refuse() -> bytes:
        raise UnreadableImage(problem)

    return refuse


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            msg = "is not a regular file"  # reading a pipe or a device might never end
            raise UnreadableImage(msg)
        if found.st_size > MAX_FILE_BYTES:
            msg = f"has {found.st_size} bytes; the limit for an image is {MAX_FILE_BYTES}"
            raise UnreadableImage(msg)
        return path.read_bytes()
    except OSError as err:
        msg = f"cannot be read: {reason(err)}"
        raise UnreadableImage(msg) from err


def _list(path: Path) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _entries_below(root: Path) -> list[tuple[tuple[str, ...], str]]:
    """All images below ``root``: parts of the path, and '' or why a whole directory in their place cannot be read.

    Links to directories are followed, each directory once, so that a link to a parent does no harm.
    """
    found: list[tuple[tuple[str, ...], str]] = []
    seen = {_identity(root)}
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop(0)
        try:
            entries = _list(root.joinpath(*parts))
        except OSError as err:
            if not parts:
                msg = f"cannot read directory {root}: {reason(err)}"
                raise FleetError(msg) from err
            found.append((parts, f"cannot be read: {reason(err)}"))
            continue
        for entry in entries:
            here = (*parts, entry.name)
            if entry.is_dir():
                identity = _identity(Path(entry.path))
                if len(here) <= MAX_DEPTH and not entry.name.startswith(".") and identity not in seen:
                    seen.add(identity)
                    waiting.append(here)
            elif is_image_name(entry.name):
                found.append((here, ""))
        if len(found) > MAX_IMAGES:
            msg = f"directory {root} has more than {MAX_IMAGES} images; name a smaller one"
            raise FleetError(msg)
    return found


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (-1, -1)
    return (found.st_dev, found.st_ino)
