# SPDX-License-Identifier: Apache-2.0
"""A managed node that starts by itself, and the main loop that stops without a traceback."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from fleet.errors import FleetError
from fleet_ros.diagnostics import Diagnostics, Health

try:  # 2.5 times faster round trips than the others; not in every distribution
    from rclpy.experimental import EventsExecutor as _Executor
except ImportError:
    _Executor = SingleThreadedExecutor

EXIT_BAD_INPUT = 2
DOUBLED_S = 25  # longer than discovery remembers a node that was killed


class ManagedNode(LifecycleNode):  # type: ignore[misc]
    """Base of the device, bridge, cloud and behaviour nodes.

    Subclasses override :meth:`configure`, :meth:`activate`, :meth:`deactivate` and :meth:`cleanup`, which may
    raise FleetError: the transition fails with its message, and with ``autostart`` the process ends with code 2.

    Attributes:
        part: what its diagnostics tell of, one word.
    """

    part = "state"

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.problem: str | None = None
        self.finished = threading.Event()
        """Set by a node whose work is done; its process then ends with code 0."""
        self.is_active = False
        self._doubled = 0
        self.autostart = bool(
            self.declare_parameter(
                "autostart",
                True,
                ParameterDescriptor(
                    description="configure and activate at the start, without being told", read_only=True
                ),
            ).value
        )
        self._diagnostics = Diagnostics(self, self.part, self.health)
        self.create_timer(1.0, self._warn_of_a_double)

    # What subclasses fill in ------------------------------------------------------------------------------
    def configure(self) -> None:
        """Load what the node needs."""

    def activate(self) -> None:
        """Begin to work."""

    def deactivate(self) -> None:
        """Stop working and let go of radio and camera; must also work when activation failed half-way."""

    def cleanup(self) -> None:
        """Undo :meth:`configure`."""

    def health(self) -> Health:
        """Diagnostic level, one line, and values."""
        return DiagnosticStatus.OK, "active" if self.is_active else "inactive", {}

    # Life cycle -------------------------------------------------------------------------------------------
    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        return self._attempt(self.configure, undo=self.cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        result = self._attempt(self.activate, undo=self.deactivate)
        if result == TransitionCallbackReturn.SUCCESS:
            self.is_active = True
            return super().on_activate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self.is_active = False
        self.deactivate()
        return super().on_deactivate(state)

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self.cleanup()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self.stop()
        return TransitionCallbackReturn.SUCCESS

    def _attempt(self, step: Callable[[], None], *, undo: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except Exception as err:  # rclpy would swallow it, and nobody would know why the node did not start
            by_name = "" if isinstance(err, FleetError) else f"{step.__name__} failed: {type(err).__name__}: "
            self.problem = f"{by_name}{err}"
            if not self.autostart:  # otherwise main() prints it and ends
                self.get_logger().error(self.problem)
            undo()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def start(self) -> None:
        """Configure and activate.

        Raises:
            FleetError: either failed.
        """
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                raise FleetError(self.problem or "the node could not start")

    def stop(self) -> None:
        """Deactivate and clean up, whatever the state."""
        if self.is_active:
            self.is_active = False
            self.deactivate()
        self.cleanup()

    def destroy_node(self) -> None:
        """Destroy the node, and its state machine, which rclpy leaves alive: its participant would outlive us."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    # Time -------------------------------------------------------------------------------------------------
    def seconds(self) -> float:
        """Monotonic seconds; under ``use_sim_time`` the simulation's."""
        if self.get_parameter("use_sim_time").value:
            return float(self.get_clock().now().nanoseconds) * 1e-9
        return time.monotonic()

    def wait(self, condition: threading.Condition, until: float) -> None:
        """Wait, with the condition held, until it is notified or :meth:`seconds` has reached ``until``."""
        remaining = until - self.seconds()
        if remaining <= 0:
            return
        if self.get_parameter("use_sim_time").value:
            remaining = min(remaining, 0.005)  # simulated time may run at any speed: look again soon
        condition.wait(remaining)

    # Others ------------------------------------------------------------------------------------------------
    def _warn_of_a_double(self) -> None:
        """Two systems in one namespace mix their frames; one that was killed just now may still seem to be there."""
        own = (self.get_name(), self.get_namespace())
        doubled = self.get_node_names_and_namespaces().count(own) > 1
        self._doubled = self._doubled + 1 if doubled else 0
        if self._doubled == DOUBLED_S:
            self.get_logger().warning(
                f"another {own[0]} runs in {own[1]}: their frames and labels get mixed up. Give each camera a "
                "namespace of its own, or each system a ROS_DOMAIN_ID"
            )


def seconds_since(clock: Clock, stamp: Any) -> float:
    """Seconds from a message's stamp until now on a clock of the same kind; any stamp that a message can hold will do.

    rclpy's Time would raise for a negative one.
    """
    return (float(clock.now().nanoseconds) - stamp.sec * 1e9 - stamp.nanosec) * 1e-9


def run(make: Callable[[], Any]) -> int:
    """Run one node until it is told to stop or its work is done.

    Args:
        make: builds the node: a ManagedNode, or any node with ``finished`` (an event) and ``stop()``.

    Returns:
        The process's exit code: 0; 2 for a problem that the user can mend and has been told of; or, negative as in
        :mod:`subprocess`, the signal that ended it, unless that was Ctrl-C.
    """
    # No event: setting one takes its lock, and a second signal in that moment would wait for it for ever.
    stopping: list[int] = []
    ready = False

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if not ready:  # nothing has been begun that would have to be ended, and a model may take seconds to load
            _end(_ended_by(number))
        stopping.append(number)  # a second Ctrl-C finds the same handler: shutting down goes on

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    node = None
    name = re.sub(r"\B(?=[A-Z])", "_", getattr(make, "__name__", "node")).lower()  # until it can say so itself
    problems: list[str] = []
    try:
        _init()
        node = make()
        autostart = getattr(node, "autostart", False)
        ready = not autostart
        name = node.get_name()
        executor = getattr(node, "executor_kind", _Executor)()
        executor.add_node(node)
        if autostart:
            node.start()
        ready = True
        never: Future[None] = Future()
        while not stopping and not node.finished.is_set():
            # Bounded, for without a time-out the events executor does not look at signals.
            executor.spin_until_future_complete(never, timeout_sec=0.1)
        problems += [node.problem] if getattr(node, "problem", None) else []
    except FleetError as err:
        problems.append(str(err))
    except ExternalShutdownException:
        pass
    finally:
        try:
            if node is not None:
                node.stop()
                node.destroy_node()
        except FleetError as err:
            problems.append(str(err))
        rclpy.try_shutdown()
    for problem in problems:
        print(f"{name}: {problem}", file=sys.stderr)  # noqa: T201 - the user's line
    if problems:
        return EXIT_BAD_INPUT
    return _ended_by(stopping[0]) if stopping else 0


def _init() -> None:
    """Begin with ROS.

    Raises:
        FleetError: an argument of the command line, or a file of parameters that it names, cannot be understood.
    """
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    except (RuntimeError, ValueError) as err:  # rcl's errors are the former, unknown arguments the latter
        raise FleetError(f"ROS does not start: {' '.join(str(err).split())}") from err


def main(make: Callable[[], Any]) -> None:
    """Entry point of a node's process: run it and end with its exit code.

    ``os._exit`` skips interpreter shutdown, where a library's worker thread may still hold a lock.
    """
    code = run(make)
    sys.stdout.flush()
    sys.stderr.flush()
    _end(code)


def _ended_by(number: int) -> int:
    """Exit code of a node that a signal has ended; Ctrl-C is how it is meant to be ended."""
    return 0 if number == signal.SIGINT else -number


def _end(code: int) -> NoReturn:
    """End the process at once, a negative code with that signal: whoever watches it sees that it was told to."""
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
