# SPDX-License-Identifier: Apache-2.0
"""What every node's process does when it starts and when it is told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ros

NODE = """
import sys
from fleet.errors import FleetError
from fleet_ros.node import ManagedNode, main

class Node(ManagedNode):
    def __init__(self):
        super().__init__("some_node")
    def activate(self):
        {activate}
    def deactivate(self):
        {deactivate}
    def cleanup(self):
        print("let go", flush=True)

main(Node)
"""
# Once the executor runs: before that nothing has been begun, and a signal ends the process at once.
READY = "self.create_timer(0.05, lambda: print('ready', flush=True))"


class Running:
    """A node's process."""

    def __init__(self, folder: Path, words: list[str], activate: str, deactivate: str) -> None:
        (folder / "node.py").write_text(NODE.format(activate=activate, deactivate=deactivate))
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "node.py"), *words],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "ready\n":
                return
        pytest.fail(f"it ended with {self.process.wait()}")

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=30)
        return self.process.returncode, output.replace("ready\n", "")


@pytest.fixture
def node(domain: int, tmp_path: Path) -> Iterator[Any]:
    made: list[Running] = []

    def start(*words: str, activate: str = READY, deactivate: str = "pass") -> Running:
        made.append(Running(tmp_path, list(words), activate, deactivate))
        return made[-1]

    yield start
    for running in made:
        running.process.kill()
        running.process.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_node_that_is_told_to_end_lets_go_first_and_tells_who_ended_it(node, number, code):
    """Ctrl-C is how a node is meant to be ended; SIGTERM comes from somebody who shall be seen to have sent it."""
    running = node()
    running.wait_until_ready()
    running.process.send_signal(number)
    assert running.end() == (code, "let go\n")


def test_signals_that_come_while_it_ends_change_nothing(node):
    running = node(deactivate="import signal; signal.sigtimedwait([], 0.5)")
    running.wait_until_ready()
    for _ in range(20):
        running.process.send_signal(signal.SIGINT)
    assert running.end() == (0, "let go\n")


def test_a_node_whose_work_is_done_ends_with_0(node):
    assert node(activate="self.finished.set()").end() == (0, "let go\n")


@pytest.mark.parametrize(
    ("activate", "line"),
    [
        ("raise FleetError('no camera 0')", "some_node: no camera 0"),
        ("{}['key']", "some_node: activate failed: KeyError: 'key'"),
    ],
)
def test_a_node_that_cannot_start_says_why_in_one_line_and_lets_go(node, activate, line):
    code, output = node(activate=activate).end()
    assert code == 2
    assert output.splitlines()[-1] == line
    assert "let go" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("words", "named"),
    [(["--ros-args", "--params-file", "/no/such.yaml"], "/no/such.yaml"), (["--ros-args", "--bogus"], "--bogus")],
)
def test_words_that_ros_does_not_understand_are_one_line(node, words, named):
    code, output = node(*words).end()
    assert code == 2
    assert output.splitlines()[-1].startswith("node: ROS does not start: ")
    assert named in output
    assert "Traceback" not in output


def test_a_camera_that_somebody_ended_fails_the_run_and_is_named(fleet_up):
    stack = fleet_up("--source", "photos")
    stack.wait_for_line(lambda line: " packets " in line)
    stack.node_process("fleet_device_node").terminate()
    assert stack.finish() == 1
    assert "fleet: device_node died (SIGTERM)" in stack.lines
