# SPDX-License-Identifier: Apache-2.0
"""The numbers in docs/link.md are the ones that the code computes."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "link_residuals.py"


def test_the_tables_of_the_document_are_up_to_date():
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, f"run python benchmarks/link_residuals.py\n{result.stderr}"
