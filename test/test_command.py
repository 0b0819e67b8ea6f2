# SPDX-License-Identifier: Apache-2.0
"""The ``fleet`` command before it is there."""

import signal
import subprocess
import sys

INTERRUPTED_BY_NUMPY = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from fleet.__main__ import main
main()
"""


def test_ctrl_c_while_the_command_is_imported_is_quiet():
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_BY_NUMPY, "link"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (128 + signal.SIGINT, "", "")


def test_it_is_also_a_module():
    run = subprocess.run([sys.executable, "-m", "fleet"], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "Usage: " in run.stdout + run.stderr
