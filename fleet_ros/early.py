# SPDX-License-Identifier: Apache-2.0
"""What must happen before anything heavy is imported."""

import os
import signal
from types import FrameType


def die_quietly_until_ready() -> None:
    """Make Ctrl-C end the process at once, as cleanly as later on, while modules are still loading.

    Whoever starts a node may have SIGINT blocked in it, so that the signal waits for this moment instead of ending
    Python's own start in a traceback.
    """
    signal.signal(signal.SIGINT, _die)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _die(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)
