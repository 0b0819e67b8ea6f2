# SPDX-License-Identifier: Apache-2.0
"""Runs a set of processes until one of them has done its work, and leaves nothing behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from fleet.errors import FleetError

_PR_SET_PDEATHSIG = 1
ASK_S, INSIST_S = 1.5, 0.7  # SIGINT, then SIGTERM, then SIGKILL: all within three seconds
BAD_INPUT = 2


@dataclass(frozen=True)
class Command:
    """One process to run.

    Attributes:
        name: as it is reported.
        argv: program and arguments.
        kind: what it has in common with others; by itself its name.
        ends_run: the run is over once it has ended by itself, and others of its kind with it.
        needed: without any of its kind nothing can go on, so the death of the last one ends the run at once.
        listens: it hears what the others have to say and is stopped after them.
    """

    name: str
    argv: tuple[str, ...]
    kind: str = ""
    ends_run: bool = False
    needed: bool = False
    listens: bool = False


@dataclass
class Supervisor:
    """Starts processes, watches them, and stops them in the order given.

    Attributes:
        commands: started in this order.
        report: gets one line for every process that died.
        environment: for all of them.
        grace: seconds that the others get once a process with ``ends_run`` has ended.
    """

    commands: Sequence[Command]
    report: Callable[[str], None]
    environment: Mapping[str, str] | None = None
    grace: float = 0.5
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    # A flag and no event: setting an event takes its lock, which the interrupted thread may be holding.
    _signalled: bool = False

    def run(self) -> int:
        """Run until a process ends the run or a signal comes.

        Returns:
            0; 2 when a process ended with 2 (bad input); 1 when one died.

        Raises:
            FleetError: a program cannot be started, or two have one name.
        """
        if len({command.name for command in self.commands}) < len(self.commands):
            raise FleetError(f"two processes of one name: {', '.join(command.name for command in self.commands)}")
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        code = 0
        try:
            for command in self.commands:
                if not self._is_over:
                    self._start(command)
            while self._running and not self._is_over:
                ended, died = self._look()
                code = max(code, died, key=_gravity)
                if ended:
                    self._pause(self.grace)
                    break
                self._pause(0.05)
        finally:
            code = max(code, self._stop_all(), key=_gravity)
            for number, handler in previous.items():
                signal.signal(number, handler)
        return code

    def stop(self) -> None:
        """End the run (callable from any thread)."""
        self._stop.set()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._signalled = True

    @property
    def _is_over(self) -> bool:
        return self._signalled or self._stop.is_set()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_over and (left := until - time.monotonic()) > 0:
            self._stop.wait(min(left, 0.05))

    def _start(self, command: Command) -> None:
        try:
            self._running[command.name] = subprocess.Popen(
                command.argv,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                # A session of its own: Ctrl-C reaches us alone and the processes stop in order.
                start_new_session=True,
                preexec_fn=partial(_die_with_parent, os.getpid()),  # noqa: PLW1509 - nothing else runs here yet
            )
        except OSError as err:
            raise FleetError(f"{command.name} cannot be started: {err.strerror}: {command.argv[0]}") from err

    def _look(self) -> tuple[bool, int]:
        """Whether the run is over, and the gravest exit code of what has ended since."""
        over, code = False, 0
        for command in self.commands:
            process = self._running.get(command.name)
            if process is None or process.poll() is None:
                continue
            del self._running[command.name]
            is_last = not any(c.kind and c.kind == command.kind and c.name in self._running for c in self.commands)
            if process.returncode == 0 and command.ends_run:
                over = over or is_last
            elif process.returncode == BAD_INPUT:  # it has said why
                over, code = True, BAD_INPUT
            else:
                self.report(f"{command.name} died ({reason(process.returncode)})")
                over, code = over or (command.needed and is_last), max(code, 1, key=_gravity)
        return over, code

    def _stop_all(self) -> int:
        """Stop everything, the listeners last."""
        code = 0
        deadline = time.monotonic() + ASK_S + INSIST_S
        first = [c.name for c in self.commands if not c.listens]
        last = [c.name for c in self.commands if c.listens]
        for names, until in ((first, deadline - ASK_S / 2 - INSIST_S), (last, deadline - INSIST_S)):
            self._signal(names, signal.SIGINT)
            code = max(code, self._wait(names, until), key=_gravity)
        everyone = [*first, *last]
        self._signal(everyone, signal.SIGTERM)
        code = max(code, self._wait(everyone, deadline), key=_gravity)
        killed = list(self._running.items())
        self._signal(everyone, signal.SIGKILL)
        for name, process in killed:
            code = max(code, 1, key=_gravity)
            self.report(f"{name} did not stop and was killed")
            process.wait()
            del self._running[name]
        return code

    def _signal(self, names: Sequence[str], number: signal.Signals) -> None:
        for name in names:
            if (process := self._running.get(name)) is not None and process.poll() is None:
                process.send_signal(number)

    def _wait(self, names: Sequence[str], until: float) -> int:
        """Let processes that were asked to stop do so; the gravest exit code of those that did otherwise."""
        code = 0
        for name in names:
            if (process := self._running.get(name)) is None:
                continue
            try:
                returned = process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
            del self._running[name]
            if returned == BAD_INPUT:  # it has said why
                code = BAD_INPUT
            elif returned not in (0, -signal.SIGINT, -signal.SIGTERM):
                self.report(f"{name} died ({reason(returned)})")
                code = max(code, 1, key=_gravity)
        return code


def _gravity(code: int) -> int:
    return {0: 0, 1: 1, BAD_INPUT: 2}.get(code, 1)


def reason(code: int) -> str:
    """Why a process died, from its return code as :mod:`subprocess` gives it."""
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"


def _die_with_parent(parent: int) -> None:
    """Between fork and exec: the child is told should this program be killed, and ignores Ctrl-C until it is ready."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # killed before it could be told
            os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
