# SPDX-License-Identifier: Apache-2.0
"""Where the ``fleet`` command begins, also as ``python -m fleet``: Ctrl-C is quiet while the rest is being imported."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Import the command and run it."""
    previous = signal.signal(signal.SIGINT, _end)
    from fleet.cli import main as command  # noqa: PLC0415 - this is what takes its time

    signal.signal(signal.SIGINT, previous)
    command()


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)  # an exception would come out of the middle of some import, as who knows what


if __name__ == "__main__":
    main()
