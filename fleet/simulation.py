# SPDX-License-Identifier: Apache-2.0
"""Device, radio and hub in virtual time: the same objects that the nodes drive, on one clock that jumps.

The device runs :meth:`fleet.inference.Device.infer`, the radio is a :class:`fleet.link.scheduler.Scheduler`, the hub a
:class:`fleet.session.CloudSession` that takes a constant time for every exit. What is left out is what ROS and the
operating system add.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fleet.codec import FloatArray
from fleet.inference import Device, Outcome
from fleet.link.accounting import Event, InferenceAccount
from fleet.link.parameters import LinkParameters
from fleet.link.scheduler import Scheduler
from fleet.packet import ExitNotice, next_id
from fleet.session import HOLD_S, Answer, CloudSession, ExitTask, Taken

Forward = Callable[[int, Sequence[FloatArray]], FloatArray]
"""Exit and its views to logits (classes,)."""

_NEVER = float("inf")
MOST_EVENTS = 64
"""Connection events after which nobody waits any longer for the radio to close an account."""


@dataclass
class SimulatedHub:
    """One camera's session, and a processor that runs one exit at a time.

    Attributes:
        session: of the camera.
        forward: the hub's network.
        exit_s: seconds that an exit takes: any, or each by its stage.
        hold: an exit waits for packets that were announced (:attr:`fleet.session.CloudSession.more`).
        answers: what it answered and when, by inference id; the newest frame's only.
    """

    session: CloudSession
    forward: Forward
    exit_s: float | Mapping[int, float]
    hold: bool = True
    answers: dict[int, tuple[Answer, float]] = field(default_factory=dict)
    _arriving: deque[tuple[float, bytes]] = field(default_factory=deque)
    _task: ExitTask | None = None
    _busy_until: float = 0.0
    _held_until: float = _NEVER

    def _seconds(self, stage: int) -> float:
        return self.exit_s[stage] if isinstance(self.exit_s, Mapping) else self.exit_s

    def send(self, event: Event) -> None:
        """Put a connection event's packets under way."""
        self._arriving.extend(zip(event.arrivals, event.delivered, strict=True))

    @property
    def next_time(self) -> float:
        """When something happens next, in s; infinite where nothing is under way."""
        arrival = self._arriving[0][0] if self._arriving else float("inf")
        return min(arrival, self._busy_until if self._task is not None else self._held_until)

    def step(self) -> Answer | None:
        """Let the next thing happen, at :attr:`next_time`, and say whether it is an answer."""
        now = self.next_time
        answer = None
        if self._task is not None and self._busy_until <= now:
            task, self._task = self._task, None
            _, answer = self.session.conclude(task, self.forward(task.stage, task.maps))
        elif self._arriving and self._arriving[0][0] <= now:
            taken = self.session.take(self._arriving.popleft()[1])
            if not (self.hold and self.session.more):
                self._held_until = _NEVER
            elif taken is Taken.NEW:
                self._held_until = now + HOLD_S
        if self._held_until <= now:
            self._held_until = _NEVER
        if answer is None and self._task is None and self._held_until == _NEVER:
            task_or_answer = self.session.next_task()
            if isinstance(task_or_answer, ExitTask):
                self._task, self._busy_until = task_or_answer, now + self._seconds(task_or_answer.stage)
            else:
                answer = task_or_answer
        if answer is not None:
            self.answers = {answer.inference_id: (answer, now)}
        return answer


@dataclass
class SimulatedRadio:
    """Clock and radio of one device (:class:`fleet.inference.Surroundings`), with the hub at the other end.

    Attributes:
        scheduler: the link.
        hub: at the other end.
        time: seconds.
    """

    scheduler: Scheduler
    hub: SimulatedHub
    time: float = 0.0
    _current: int | None = None
    _notice: ExitNotice | None = None
    _coming: tuple[float, ExitNotice] | None = None

    @property
    def payload(self) -> int:
        """See :class:`fleet.inference.Surroundings`."""
        return self.scheduler.parameters.payload

    @property
    def link(self) -> LinkParameters:
        """See :class:`fleet.inference.Surroundings`."""
        return self.scheduler.parameters

    def now(self) -> float:
        """See :class:`fleet.inference.Surroundings`."""
        return self.time

    def begin(self, inference_id: int) -> None:
        """From now on notices for this inference count."""
        self._current, self._notice = inference_id, None

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """See :class:`fleet.inference.Surroundings`."""
        self.scheduler.offer(inference_id, stage, packets)

    def wait_until(self, time: float) -> ExitNotice | None:
        """See :class:`fleet.inference.Surroundings`. An event at ``time`` itself is still to come."""
        while self._notice is None and self._step(time):
            pass
        if self._notice is None:
            self.time = max(self.time, time)
        return self._notice

    def _step(self, until: float) -> bool:
        """Let the next thing before ``until`` happen; False if there is none."""
        coming = self._coming[0] if self._coming is not None else float("inf")
        soonest = min(coming, self.hub.next_time, self.scheduler.next_event)
        if soonest > until or (soonest == until and soonest == self.scheduler.next_event):
            return False
        self.time = max(self.time, soonest)
        if self._coming is not None and coming == soonest:
            notice, self._coming = self._coming[1], None
            if notice.inference_id == self._current:
                self._notice = notice
        elif self.hub.next_time == soonest:
            answer = self.hub.step()
            if answer is not None:
                confidence = self.hub.session.bundle.decider.confidence(answer.prediction)
                index = answer.prediction.class_index
                self.scheduler.stop(ExitNotice(answer.inference_id, index, answer.stage, confidence))
        else:
            event = self.scheduler.event()
            self.hub.send(event)
            if event.exit is not None and event.exit_at is not None:
                self._coming = (event.exit_at, event.exit)
        return True

    def settle(self, inference_id: int) -> InferenceAccount | None:
        """Let time pass until the radio has closed its account of an inference, and return it."""
        for _ in range(MOST_EVENTS):
            account = self.scheduler.report(inference_id)
            if account is None or account.closed:
                return account
            edge = np.nextafter(self.scheduler.next_event, np.inf)
            while self._step(edge):
                pass
            self.time = max(self.time, float(edge))
        return self.scheduler.report(inference_id)


@dataclass(frozen=True)
class SimulatedFrame:
    """One frame's journey.

    Attributes:
        outcome: what the device held, and when.
        account: of the radio; None where nothing was offered.
        hub: what the hub answered and after how many seconds from the frame on, if it did by the time the radio
            was done.
    """

    outcome: Outcome
    account: InferenceAccount | None
    hub: tuple[Answer, float] | None

    def energy_mj(self, power_mw: float) -> float:
        """Processor while it worked and radio until the answer, in mJ."""
        radio = self.account.energy_uj if self.account is not None else 0.0
        return self.outcome.busy * power_mw + radio * 1e-3


class Simulation:
    """Frames through device, radio and hub, one after another.

    Each frame begins at a uniformly random phase of the connection interval after the one before has ended.

    Args:
        device: with a paced profile: a native one takes no time here.
        session: of the hub.
        forward: the hub's network.
        link: the radio.
        exit_s: seconds that an exit takes on the hub: any, or each by its stage.
        seed: of phases and losses.
        hold: see :class:`SimulatedHub`.
    """

    def __init__(
        self,
        device: Device,
        session: CloudSession,
        forward: Forward,
        link: LinkParameters,
        *,
        exit_s: float | Mapping[int, float],
        seed: int = 0,
        hold: bool = True,
    ) -> None:
        self.device = device
        self._random = np.random.default_rng(seed)
        self._id = 0
        self.radio = SimulatedRadio(Scheduler(link, start=0.0, seed=seed), SimulatedHub(session, forward, exit_s, hold))

    def run(self, image: FloatArray, *, phase: float | None = None) -> SimulatedFrame:
        """One frame.

        Args:
            image: the network's input, shape (1, 3, size, size).
            phase: when it is ready, as a share of the connection interval after an event; random if None.
        """
        radio = self.radio
        radio.begin(-1)
        radio.wait_until(radio.scheduler.next_event)
        share = self._random.random() if phase is None else phase
        radio.wait_until(radio.time + share * radio.scheduler.parameters.ci_s)
        self._id = next_id(self._id)
        radio.begin(self._id)
        outcome = self.device.infer(image, self._id, radio)
        account = radio.settle(self._id)
        answered = radio.hub.answers.get(self._id)
        hub = (answered[0], answered[1] - outcome.started) if answered is not None else None
        return SimulatedFrame(outcome, account, hub)
