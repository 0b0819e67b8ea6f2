# SPDX-License-Identifier: Apache-2.0
"""The ``fleet`` command before it is there."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

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


def test_ctrl_c_that_a_library_turns_into_an_import_error_is_quiet(tmp_path):
    # What onnxruntime makes of an interrupt while its C library begins.
    (tmp_path / "onnxruntime.py").write_text(
        "import os, signal\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    for _ in range(1000): pass\n"
        "except KeyboardInterrupt:\n"
        "    raise ImportError('initialization failed') from None\n"
    )
    command = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from fleet.__main__ import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", command, "profile", "models/backyard"],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (128 + signal.SIGINT, "")


def test_it_is_also_a_module():
    run = subprocess.run([sys.executable, "-m", "fleet"], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "Usage: " in run.stdout + run.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["camera", "--threads", "0"], "'--threads'"),
        (["camera", "--no-such-option"], "--no-such-option"),
        (["dance"], "'dance'"),
        (["up", "--duration", "soon"], "'--duration'"),
    ],
)
def test_a_wrong_word_is_one_line_and_says_where_to_read_on(words, says):
    run = subprocess.run(
        [sys.executable, "-m", "fleet", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    assert run.stdout == ""
    [line] = run.stderr.splitlines()
    assert line.startswith("fleet: ")
    assert says in line
    assert "--help" in line
