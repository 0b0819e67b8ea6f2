# SPDX-License-Identifier: Apache-2.0
"""Whether a source still gives pictures, and what there is to say about it, each thing once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

PATIENCE_S = 5.0


class SourceState(Enum):
    """How a source is."""

    FINE = "fine"
    SILENT = "silent"
    GONE = "gone"


@dataclass
class SourceWatch:
    """Told of every attempt to read, it knows how the source is. Time is an argument.

    Attributes:
        last: when the last picture came, or when the source was opened, in seconds.
        patience: seconds without a picture after which a source that is there counts as silent.
        state: how the source is.
    """

    last: float
    patience: float = PATIENCE_S
    state: SourceState = SourceState.FINE

    def picture(self, now: float) -> str | None:
        """A picture came. Returns a line to log if that is news."""
        before, self.state = self.state, SourceState.FINE
        silent, self.last = now - self.last, now
        # A source that was gone has said itself that it is back.
        return f"pictures come again after {silent:.1f} s" if before is SourceState.SILENT else None

    def nothing(self, now: float, *, gone: bool) -> str | None:
        """No picture came in time. Returns a line to log if that is news.

        Args:
            now: seconds.
            gone: the source knows that it is away, and has said so.
        """
        before = self.state
        if gone:
            self.state = SourceState.GONE
        elif now - self.last > self.patience:
            self.state = SourceState.SILENT
        if self.state is before or self.state is not SourceState.SILENT:
            return None
        return f"no picture for {now - self.last:.1f} s"

    def complaint(self, now: float) -> str | None:
        """What is wrong, for diagnostics; None where nothing is."""
        if self.state is SourceState.FINE:
            return None
        return f"the camera is gone: no picture for {now - self.last:.0f} s"
