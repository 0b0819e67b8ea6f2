# SPDX-License-Identifier: Apache-2.0
"""Sources of single pictures, read one by one when asked: an image, a directory, an archive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass

from fleet.errors import FleetError
from fleet.sources.decode import UnreadableImage, decode_image
from fleet.sources.frame import Closing, Frame, Report, SkipLog, printable


@dataclass(frozen=True, slots=True)
class Item:
    """One picture on its way in.

    Attributes:
        name: file or member name.
        truth: folder name, or None.
        load: returns the file's bytes, or raises UnreadableImage; called before the next item is asked for.
    """

    name: str
    truth: str | None
    load: Callable[[], bytes]


Items = Generator[Item, None, None]


def folder_truth(parts: tuple[str, ...]) -> str | None:
    """Name of the folder that says what a picture shows, from the parts of its path inside the source.

    ``n02123045/x.jpg`` and Tiny-ImageNet-200's ``train/n02123045/images/x.jpg`` both give ``n02123045``.
    """
    folders = list(parts[:-1])
    if len(folders) > 1 and folders[-1] == "images":
        folders.pop()
    return printable(folders[-1]) if folders else None


class ItemSource(Closing):
    """Reads pictures one after the other, steps over those that cannot be decoded, and can start again at the end."""

    live = False

    def __init__(
        self,
        items: Callable[[], Items],
        *,
        where: str,
        description: str,
        loop: bool,
        on_skip: Report | None,
    ) -> None:
        """Read up to the first good picture, so that a source without any is refused here and not in mid-run.

        Args:
            items: starts one pass over the pictures.
            where: the source's name in messages.
            description: one line for the user.
            loop: start again after the last picture.
            on_skip: called with one line for every picture that is stepped over.

        Raises:
            FleetError: there is no picture, none that can be read, or the source itself is damaged.
        """
        self.description = description
        self._items = items
        self._where = where
        self._loop = loop
        self._skips = SkipLog(on_skip)
        self._closed = threading.Event()
        self._lock = threading.RLock()
        self._pass = items()
        self._good = self._bad = 0  # in this pass
        self._first_pass = True
        self._first_problem = ""
        self._next: Frame | None = None
        try:
            self._next = self._advance()
        except BaseException:
            self.close()
            raise

    @property
    def skipped(self) -> int:
        """How many pictures could not be read so far."""
        return self._skips.count

    def __enter__(self) -> ItemSource:
        return self

    def read(self, timeout: float | None = None) -> Frame | None:  # noqa: ARG002 - pictures do not keep one waiting
        """Return the next picture, or None after the last one.

        Raises:
            FleetError: the source is damaged from here on, or nothing in it can be read.
        """
        with self._lock:
            frame, self._next = self._next, None
            if self._closed.is_set():
                return None
            if frame is not None:
                return frame
            try:
                return self._advance()
            except FleetError:
                self.close()
                raise

    def close(self) -> None:
        """Let go of the file. A picture that another thread is reading just now is finished first, for up to 1 s."""
        self._closed.set()
        if self._lock.acquire(timeout=1.0):
            try:
                self._pass.close()
            finally:
                self._lock.release()

    def _advance(self) -> Frame | None:
        while not self._closed.is_set():
            item = next(self._pass, None)
            if item is None:
                self._check_pass()
                if not self._loop:
                    return None
                self._pass = self._items()
                self._good = self._bad = 0
                self._first_pass = False
                continue
            name = printable(item.name)
            try:
                image = decode_image(item.load())
            except UnreadableImage as err:
                self._bad += 1
                self._first_problem = self._first_problem or f"{name} {err}"
                if self._first_pass:  # a source that loops would say the same again and again
                    self._skips.add(f"{self._where}: skipped {name}, which {err}")
                continue
            self._good += 1
            return Frame(image, name, item.truth, None)
        self._pass.close()
        return None

    def _check_pass(self) -> None:
        if self._good:
            return
        if self._bad:
            count = "its only image cannot" if self._bad == 1 else f"none of its {self._bad} images can"
            msg = f"{self._where}: {count} be read ({self._first_problem})"
        else:
            msg = f"{self._where} has no image in it (looked for .jpg, .png, .webp, .tif, .bmp, .ppm and the like)"
        raise FleetError(msg)
