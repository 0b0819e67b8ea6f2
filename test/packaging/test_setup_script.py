# SPDX-License-Identifier: Apache-2.0
"""Set-up does each thing once, repairs what was interrupted, and says in one line what is missing.

The interpreter is a stand-in that notes what it is asked for, so that nothing is installed here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Notes the call; as pip it can be made to fail, or to say that it has begun and then wait.
INTERPRETER = """#!/usr/bin/env bash
case "$1 $2" in
"-c "*) exit "${WRONG_PYTHON:-0}" ;;
"-m venv")
    echo venv >>"$NOTES"
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    ;;
"-m pip")
    what=tools
    [[ "$*" != *--requirement* ]] || what=requirements
    [[ "$*" != *fleet_msgs* ]] || what=messages
    [[ "$*" != *--editable* ]] || what=fleet
    echo "$what" >>"$NOTES"
    if [[ $what == "$WAIT_AT" ]]; then
        echo begun >"$BEGUN"
        read -r <"$GO_ON"
    fi
    [[ $what != "$FAIL_AT" ]] || exit 1
    ;;
esac
"""

EVERYTHING = ["venv", "tools", "requirements", "messages", "fleet"]


class Clone:
    """A clone with a stand-in for Python."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "my clone"  # with a space, as folders have
        for name in ("tools", "requirements", "fleet_msgs"):
            shutil.copytree(ROOT / name, self.root / name)
        for name in ("setup.py", "setup.cfg", "pyproject.toml", "fleet/__init__.py"):
            (self.root / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, self.root / name)
        self.python = folder / "python"
        self.python.write_text(INTERPRETER)
        self.python.chmod(0o755)
        self.notes = folder / "notes"
        self.begun, self.go_on = folder / "begun", folder / "go_on"
        os.mkfifo(self.begun)
        os.mkfifo(self.go_on)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a set-up in a process group of its own."""
        own = {"PYTHON": str(self.python), "NOTES": str(self.notes), "BEGUN": str(self.begun), "GO_ON": str(self.go_on)}
        return subprocess.Popen(
            [str(self.root / "tools" / "setup.sh"), *arguments],
            env=os.environ | {"FAIL_AT": "", "WAIT_AT": ""} | own | environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def set_up(self, *arguments: str, **environment: str) -> tuple[int, list[str], str, list[str]]:
        """Run a set-up.

        Returns:
            Exit code, lines of standard error, standard output, and what was asked of Python in this call.
        """
        self.notes.write_text("")
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=30)
        return process.returncode, err.splitlines(), out, self.notes.read_text().split()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture
def ready(clone: Clone) -> Clone:
    assert clone.set_up()[0] == 0
    return clone


def test_the_first_call_sets_up_everything(clone: Clone):
    code, said, _, done = clone.set_up()
    assert code == 0
    assert done == EVERYTHING
    assert said[-1].startswith("fleet: set up in")


def test_the_second_call_does_and_says_nothing(ready: Clone):
    assert ready.set_up() == (0, [], "", [])


def test_a_change_to_the_code_needs_no_set_up(ready: Clone):
    (ready.root / "fleet" / "new.py").write_text("answer = 42\n")
    assert ready.set_up()[3] == []


def test_a_changed_message_builds_the_messages_alone(ready: Clone):
    with (ready.root / "fleet_msgs" / "msg" / "Label.msg").open("a") as file:
        file.write("bool new  # a new field\n")
    assert ready.set_up()[3] == ["messages"]


def test_a_changed_requirement_is_installed_into_the_same_environment(ready: Clone):
    with (ready.root / "requirements" / "base.txt").open("a") as file:
        file.write("six==1.17.0\n")
    assert ready.set_up()[3] == ["tools", "requirements"]


def test_a_new_package_is_installed(ready: Clone):
    (ready.root / "fleet_new").mkdir()
    (ready.root / "fleet_new" / "__init__.py").touch()
    assert ready.set_up()[3] == ["fleet"]


def test_a_moved_clone_starts_afresh(ready: Clone, tmp_path: Path):
    ready.root = ready.root.rename(tmp_path / "moved")
    assert ready.set_up()[3] == EVERYTHING


def test_an_environment_whose_python_is_gone_starts_afresh(ready: Clone):
    (ready.root / ".venv" / "bin" / "python").unlink()
    assert ready.set_up()[3] == EVERYTHING


def test_an_environment_made_by_hand_is_kept(clone: Clone):
    (clone.root / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(clone.python, clone.root / ".venv" / "bin" / "python")
    assert clone.set_up()[3] == EVERYTHING[1:]


def test_requirements_that_failed_the_first_time_start_afresh(clone: Clone):
    code, said, _, _ = clone.set_up(FAIL_AT="requirements")
    assert code == 2
    assert "failed" in said[-1]
    assert clone.set_up()[3] == EVERYTHING


def test_messages_that_failed_are_the_first_thing_the_next_time(clone: Clone):
    assert clone.set_up(FAIL_AT="messages")[0] == 2
    assert clone.set_up()[3] == ["messages", "fleet"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_call_stopped_in_mid_installation_is_repaired_by_the_next(clone: Clone, number: signal.Signals):
    process = clone.start(WAIT_AT="requirements")
    clone.begun.read_text()
    os.killpg(process.pid, number)
    assert process.wait(timeout=30) != 0
    assert clone.set_up()[3] == EVERYTHING
    assert clone.set_up()[3] == []


@pytest.fixture
def two_calls(clone: Clone) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    first = clone.start(WAIT_AT="requirements")
    clone.begun.read_text()
    second = clone.start()
    yield first, second
    for process in (first, second):
        process.kill()


def test_of_two_calls_at_once_one_works_and_the_other_waits(clone: Clone, two_calls):
    first, second = two_calls
    assert "waiting" in second.stderr.readline()
    clone.go_on.write_text("go on\n")
    assert (first.wait(timeout=30), second.wait(timeout=30)) == (0, 0)
    assert clone.notes.read_text().split() == EVERYTHING


# What a bare Debian has, less the interpreter and the compiler.
BARE = ("bash", "cut", "dirname", "echo", "find", "flock", "grep", "mkdir", "mv", "rm", "sha256sum", "sort", "touch")
BARE += ("uname", "xargs")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in BARE:
        (folder / name).symlink_to(shutil.which(name))
    return folder


def test_missing_system_packages_are_one_line_to_copy(clone: Clone, bare: Path):
    code, said, _, done = clone.set_up(PATH=str(bare), PYTHON="")
    assert (code, done) == (2, [])
    (line,) = said
    assert line.endswith("apt-get install --yes g++ make python3.11 python3.11-dev python3.11-venv")
    assert not (clone.root / ".venv").exists()


def test_missing_system_packages_can_be_asked_for(clone: Clone, bare: Path):
    code, said, out, _ = clone.set_up("--missing-packages", PATH=str(bare), PYTHON="")
    assert (code, said, out) == (0, [], "g++ make python3.11 python3.11-dev python3.11-venv\n")


def test_another_python_is_refused_in_one_line(clone: Clone):
    code, said, _, _ = clone.set_up(WRONG_PYTHON="1")
    assert code == 2
    assert len(said) == 1
    assert "not CPython 3.11" in said[0]


def test_another_processor_is_told_of_colcon(clone: Clone, bare: Path):
    (bare / "uname").unlink()
    (bare / "uname").write_text("#!/bin/sh\necho Linux aarch64\n")
    (bare / "uname").chmod(0o755)
    code, said, _, _ = clone.set_up(PATH=f"{bare}:{os.environ['PATH']}")
    assert code == 2
    assert len(said) == 1
    assert "aarch64" in said[0]
    assert "colcon" in said[0]


def test_an_unknown_argument_is_refused(clone: Clone):
    code, said, _, done = clone.set_up("--frobnicate")
    assert (code, done) == (2, [])
    assert "--frobnicate" in said[0]
