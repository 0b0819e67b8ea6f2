# SPDX-License-Identifier: Apache-2.0
"""Launch files: as modules whose actions are stand-ins, and as running programs."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0

# What `ros2 launch FILE NAME:=VALUE...` does, without its command line.
LAUNCHER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource

path, *words = sys.argv[1:]
file = AnyLaunchDescriptionSource(path)
service = LaunchService(argv=words, noninteractive=True)
arguments = [tuple(word.split(":=", 1)) for word in words]
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(file, launch_arguments=arguments)]))
sys.exit(service.run())
"""


class StandIn:
    """Takes the place of an action of launch and remembers what it was made with."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments = arguments
        self.options = options


def path_of(name: str) -> Path:
    return ROOT / "launch" / f"{name}.launch.py"


class LaunchFile:
    """A launch file with stand-ins for actions.

    Attributes:
        arguments: default and meaning by name.
    """

    def __init__(self, name: str) -> None:
        spec = importlib.util.spec_from_file_location(f"{name}_launch", path_of(name))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (entities,) = module.generate_launch_description().arguments
        *arguments, function = entities
        self.arguments = {a.arguments[0]: (a.options["default_value"], a.options["description"]) for a in arguments}
        self._function = function.options["function"]

    def words(self, **words: str) -> dict[str, str]:
        """Every argument's default, and what a user says instead."""
        return {name: words.get(name, default) for name, (default, _) in self.arguments.items()}

    def start(self, **words: str) -> list[dict[str, Any]]:
        """What launch would start: the options of each node."""
        return [node.options for node in self._function(context(**self.words(**words)))]


def context(*, is_shutdown: bool = False, **configurations: str) -> SimpleNamespace:
    """What launch hands to its functions."""
    return SimpleNamespace(launch_configurations=configurations, is_shutdown=is_shutdown)


class Launched:
    """A running launch and everything that it has said."""

    def __init__(self, file: Path, words: list[str], folder: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "ROS_LOG_DIR": str(folder),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(file), *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def errors(self) -> list[str]:
        return [line for line in self.lines if line.startswith("[ERROR]")]

    @property
    def pids(self) -> dict[str, int]:
        """Process id of each node, as launch has announced it."""
        return {
            name: int(pid) for name, pid in re.findall(r"\[([\w.]+)-\d+\]: process started.*\[(\d+)\]", self.output)
        }

    def wait_for(self, pattern: str, deadline: float = DEADLINE) -> None:
        with self._changed:
            seen = self._changed.wait_for(lambda: re.search(pattern, self.output, re.MULTILINE), deadline)
        assert seen, f"no '{pattern}' within {deadline} s; launch said:\n{self.output}"

    def wait_for_lines(self, count: int, deadline: float = DEADLINE) -> None:
        with self._changed:
            seen = self._changed.wait_for(lambda: len(self.lines) >= count, deadline)
        assert seen, f"no {count} lines within {deadline} s; launch said:\n{self.output}"

    def kill(self, node: str) -> None:
        os.kill(self.pids[node], signal.SIGKILL)

    def interrupt(self) -> float:
        """Ctrl-C; returns the seconds until all was over."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.finish()
        return time.monotonic() - begun

    def finish(self, deadline: float = DEADLINE) -> int:
        try:
            code = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {deadline} s; launch said:\n{self.output}")
        self._reader.join(5.0)
        return code

    def left_over(self) -> list[str]:
        """The nodes that are still running."""
        return [name for name, pid in self.pids.items() if Path(f"/proc/{pid}").exists()]
