# SPDX-License-Identifier: Apache-2.0
"""When a training is saved: every so often, and once more where Ctrl-C ends it, but never in the midst of a step."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class Saving:
    """Around a training's loop; what a step changes is either all saved or not at all.

    Ctrl-C lets the step that runs come to its end, and a second one does not wait for that; outside of steps it takes
    effect at once. It only is looked after in the main thread, where signals arrive.

    Args:
        save: writes the checkpoint.
        every_s: seconds between checkpoints.
    """

    def __init__(self, save: Callable[[], None], every_s: float) -> None:
        self._save, self._every_s = save, every_s
        self._saved = time.monotonic()
        self._inside = self._asked = False
        self._before: Callable[[int, FrameType | None], object] | None = None

    def __enter__(self) -> Saving:
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(handler):
            self._before = handler
            signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is KeyboardInterrupt and not self._inside:
                self._save()
        finally:
            if self._before is not None:
                signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around everything that belongs to one step.

        Raises:
            KeyboardInterrupt: behind the step during which Ctrl-C was pressed.
        """
        self._inside = True
        yield
        self._inside = False  # where the step raised, its changes are half done
        if self._asked:
            raise KeyboardInterrupt

    def now_and_then(self) -> None:
        """Save if it is time."""
        if time.monotonic() - self._saved > self._every_s:
            self.now()

    def now(self) -> None:
        """Save."""
        self._save()
        self._saved = time.monotonic()

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._inside and not self._asked:
            self._asked = True
            # Not print: a signal may come in the midst of another one.
            with contextlib.suppress(OSError, ValueError):  # nobody need be there to read it
                os.write(sys.stderr.fileno(), b"ending after this step; Ctrl-C again ends at once, without saving\n")
        elif self._before is not None:
            self._before(number, frame)
