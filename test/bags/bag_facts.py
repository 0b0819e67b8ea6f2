# SPDX-License-Identifier: Apache-2.0
"""What the bags of these tests have in common."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEGIN_NS = 1_700_000_000_000_000_000
FRAMES = 6
FIRST_ID = 65533  # ids come round within a bag


def fleet_bag(*arguments: object) -> subprocess.CompletedProcess[str]:
    """``fleet bag`` as its user calls it."""
    command = [sys.executable, "-m", "fleet", "bag", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT)
