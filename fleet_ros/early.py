# SPDX-License-Identifier: Apache-2.0
"""What must happen before anything heavy is imported."""

import signal


def die_quietly_until_ready() -> None:
    """Make Ctrl-C end the process without a traceback while modules are still loading."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
