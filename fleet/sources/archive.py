# SPDX-License-Identifier: Apache-2.0
"""Tar archives of images, read as a stream: nothing is ever written to disk, and no archive can fill the memory."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from fleet.errors import FleetError
from fleet.sources.decode import MAX_FILE_BYTES, UnreadableImage, is_image_name
from fleet.sources.files import reason
from fleet.sources.frame import Report, printable
from fleet.sources.items import Item, Items, ItemSource, folder_truth

GZIP_MAGIC = b"\x1f\x8b"
MAX_HEADER_BYTES = 64 << 10  # of one member: long names and attributes
MAX_EXPANSION = 200  # times the compressed size; photographs reach 1 to 10, gzip at most 1032
FREE_EXPANSION = 64 << 20  # bytes that any archive may expand to
CHUNK = 1 << 20


def is_tar(head: bytes) -> bool:
    """Whether the first 512 bytes of a file are a tar header (POSIX ustar, GNU or the older kind)."""
    if len(head) < tarfile.BLOCKSIZE:
        return False
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return head.strip(b"\0") == b""  # an archive without members is two blocks of zeros
    return True


def open_archive(path: Path, *, loop: bool, on_skip: Report | None) -> ItemSource:
    """Open a tar or tar.gz of images; ``NAME/FILE`` members carry NAME as their truth, in the archive's order.

    Raises:
        FleetError: not a tar, damaged before the first image, or without a readable image.
    """
    return ItemSource(
        lambda: _members(path),
        where=str(path),
        description=f"archive {path}",
        loop=loop,
        on_skip=on_skip,
    )


class ForwardReader:
    """What ``tarfile`` reads from: goes forward only and refuses to hand out more than was allowed.

    ``tarfile`` reads a member's headers whole, whatever size they claim, so the limit has to be here.
    """

    def __init__(self, raw: BinaryIO, where: str, *, packed: bool) -> None:
        self._raw = raw
        self._stream: IO[bytes] = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw
        self._packed = packed
        self._where = where
        self._at = 0
        self._allowance = 0
        self.last = b""  # what the last read gave

    def allow(self, count: int) -> None:
        """Set how many bytes may be read from here on."""
        self._allowance = count

    def tell(self) -> int:
        """Position in the unpacked stream, in bytes."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes.

        Raises:
            tarfile.ReadError: more than was allowed.
        """
        if size < 0 or size > self._allowance:
            msg = "a header is too long"
            raise tarfile.ReadError(msg)
        self._allowance -= size
        self.last = self._take(size)
        return self.last

    def seek(self, position: int) -> None:
        """Go forward to ``position`` or the end.

        Raises:
            tarfile.ReadError: the position lies behind.
        """
        if position < self._at:
            msg = "a member claims a negative size"
            raise tarfile.ReadError(msg)
        if not self._packed:
            self._raw.seek(position)
            self._at = position
            return
        while self._at < position and self._take(min(CHUNK, position - self._at)):
            pass

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        if self._packed and self._at > FREE_EXPANSION + MAX_EXPANSION * self._raw.tell():
            msg = f"{self._where} unpacks to more than {MAX_EXPANSION} times its size: not an archive of photographs"
            raise FleetError(msg)
        return data


def _members(path: Path) -> Items:
    where = str(path)
    count = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            reader = ForwardReader(raw, where, packed=packed)
            reader.allow(MAX_HEADER_BYTES)
            archive = tarfile.TarFile(fileobj=cast("IO[bytes]", reader))
            while True:
                reader.allow(MAX_HEADER_BYTES)
                member = archive.next()
                archive.members = []  # type: ignore[attr-defined] # it remembers every member, unasked
                if member is None:
                    break
                item = _item(member, reader)
                if item is not None:
                    count += 1
                    yield item
            if reader.last.strip(b"\0"):  # tarfile takes a damaged header for the end
                msg = "a member's header is damaged"
                raise tarfile.ReadError(msg)
    except (tarfile.TarError, EOFError, zlib.error, OSError, RecursionError, ValueError) as err:
        raise FleetError(_damage(where, count, err)) from err


def _damage(where: str, count: int, err: Exception) -> str:
    if isinstance(err, EOFError):
        cause = "it is cut short"
    elif isinstance(err, gzip.BadGzipFile | zlib.error):
        cause = "the compressed data are damaged"
    elif isinstance(err, OSError):
        return f"cannot read {where}: {reason(err)}"
    elif isinstance(err, RecursionError):
        cause = "too many headers follow each other"
    else:
        cause = printable(str(err).splitlines()[0] if str(err) else "it is damaged")
    if count == 0:
        return f"{where} is not a usable tar archive: {cause}"
    return f"{where} is damaged after {count} image{'s' if count != 1 else ''}: {cause}"


def _item(member: tarfile.TarInfo, reader: ForwardReader) -> Item | None:
    """One member as an item; None for directories and for files that do not call themselves images."""
    parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
    if member.isdir() or not is_image_name(member.name):
        return None
    name = "/".join(parts)
    problem = _hostile(member)
    if problem:
        return Item(member.name, None, _refuse(problem))

    reader.seek(member.offset_data)
    reader.allow(member.size)
    data = reader.read(member.size)
    if len(data) < member.size:
        raise EOFError
    return Item(name, folder_truth(parts), lambda: data)


def _hostile(member: tarfile.TarInfo) -> str:
    """Why a member is not touched, or ''. Names cannot do harm here, but an honest archive has none of these."""
    if not member.isreg() or member.issparse():
        return "is a link, a device or a sparse file"
    if member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
        return "has a path that leads out of the archive"
    if member.size > MAX_FILE_BYTES:
        return f"claims {member.size} bytes; the limit for an image is {MAX_FILE_BYTES}"
    return ""


def _refuse(problem: str) -> Callable[[], bytes]:
    def load() -> bytes:
        raise UnreadableImage(problem)

    return load
