# SPDX-License-Identifier: Apache-2.0
"""What the bags of these tests have in common."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from fleet.cli import main

ROOT = Path(__file__).resolve().parents[2]
BEGIN_NS = 1_700_000_000_000_000_000
FRAMES = 6
FIRST_ID = 65533  # ids come round within a bag


def fleet_bag(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``fleet bag`` in this process, which imports PyTorch once and not once a call."""
    command = ["fleet", "bag", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    on_interrupt = signal.getsignal(signal.SIGINT)
    with patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            return subprocess.CompletedProcess(command, int(ended.code or 0), out.getvalue(), err.getvalue())
        finally:
            signal.signal(signal.SIGINT, on_interrupt)
    raise AssertionError("a command ends with an exit code")


def fleet_bag_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``fleet bag`` as its user calls it."""
    command = [sys.executable, "-m", "fleet", "bag", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT)
