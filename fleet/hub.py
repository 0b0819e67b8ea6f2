# SPDX-License-Identifier: Apache-2.0
"""The hub's side of any number of cameras: their sessions, and what to run next for all of them at once.

Pure, as :mod:`fleet.session`. Whoever drives it takes packets in as they come, and whenever its processor is free asks
for everything that is worth running *now*: at most one exit a camera, on all that has arrived. Under load that skips
exits and never queues them, so the newest packets of every camera are always the next to count. The packets themselves
wait in bounded inboxes; of an inference that was overtaken there only the device's own answer is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fleet.bundle import Bundle
from fleet.codec import FloatArray
from fleet.inbox import LIMIT, Inbox, Waiting, by_inference
from fleet.session import HOLD_S, Answer, CloudSession, ExitTask, Taken
from fleet.unanswered import Unanswered

_SAID_SOMETHING = frozenset({Taken.NEW, Taken.EARLY, Taken.LOCAL_ANSWER})
_OF_THIS_INFERENCE = frozenset({Taken.NEW, Taken.DUPLICATE, Taken.ANSWERED, Taken.LOCAL_ANSWER})


@dataclass(frozen=True)
class Batch:
    """Exits to run together.

    Attributes:
        tasks: by camera.
        answers: by camera, what the devices answered themselves; nothing has to be run for these.
        late_answers: the same of inferences that a camera has gone on from, with their cameras, oldest first.
        heard: with their cameras, the packets behind all this that said something new.
        malformed: packets that were none, with their cameras.
        unanswered: what ended without an answer, with their cameras.
    """

    tasks: Mapping[str, ExitTask] = field(default_factory=dict)
    answers: Mapping[str, Answer] = field(default_factory=dict)
    late_answers: Sequence[tuple[str, Answer]] = ()
    heard: Sequence[tuple[str, Waiting]] = ()
    malformed: Sequence[tuple[str, Waiting]] = ()
    unanswered: Sequence[tuple[str, Unanswered]] = ()

    def __bool__(self) -> bool:
        return bool(self.tasks or self.answers or self.late_answers)

    def views(self) -> dict[int, list[FloatArray]]:
        """What :meth:`fleet.fusion.CloudNetwork.forward_many` takes, cameras in order of their names within an exit.

        Returns:
            By exit, one array for each stage it fuses, shapes (cameras, 2 c_i, g_i, g_i).
        """
        by_exit: dict[int, list[tuple[FloatArray, ...]]] = {}
        for name in sorted(self.tasks):
            by_exit.setdefault(self.tasks[name].stage, []).append(self.tasks[name].maps)
        return {n: [np.stack(stage) for stage in zip(*many, strict=True)] for n, many in by_exit.items()}

    def by_camera(self, logits: Mapping[int, Sequence[FloatArray]]) -> dict[str, FloatArray]:
        """Deal the logits of :meth:`views` out again.

        Args:
            logits: by exit, shape (cameras, classes).
        """
        places = {n: iter(rows) for n, rows in logits.items()}
        return {name: next(places[self.tasks[name].stage]) for name in sorted(self.tasks)}


@dataclass
class Hub:
    """Sessions of the cameras that share a bundle.

    Attributes:
        bundle: layouts, thresholds, classes.
        fused: which stages each exit fuses, oldest first.
        limit: packets of one camera that may wait.
        sessions: by camera.
        hold_s: how long an exit waits for packets that were announced (:attr:`CloudSession.more`); 0: not at all.
        overtaken: packets that were never looked at, for a newer inference had come.
    """

    bundle: Bundle
    fused: Mapping[int, tuple[int, ...]]
    limit: int = LIMIT
    hold_s: float = HOLD_S
    sessions: dict[str, CloudSession] = field(default_factory=dict)
    overtaken: int = 0
    _held: dict[str, float] = field(default_factory=dict)
    _inboxes: dict[str, Inbox] = field(default_factory=dict)

    def put(self, camera: str, packet: Waiting) -> None:
        """One camera's packet has come; it waits for :meth:`collect`, and nothing of it is looked at."""
        self._inboxes.setdefault(camera, Inbox(self.limit)).put(packet)

    @property
    def waiting(self) -> int:
        """Packets that wait, of all cameras."""
        return sum(map(len, self._inboxes.values()))

    @property
    def overflowed(self) -> int:
        """Packets that had to make room for newer ones, because nobody collected them."""
        return sum(inbox.overflowed for inbox in self._inboxes.values())

    def collect(self) -> dict[str, list[Waiting]]:
        """What waits, by camera; it no longer does. Together with :meth:`put` this is all that needs a lock."""
        return {camera: inbox.take_all() for camera, inbox in self._inboxes.items() if inbox}

    def take(self, camera: str, packet: bytes) -> Taken:
        """Take one camera's packet in; a camera that was not heard before begins a session. Never raises."""
        return self._session(camera).take(packet)

    def _session(self, camera: str) -> CloudSession:
        session = self.sessions.get(camera)
        if session is None:
            session = self.sessions[camera] = CloudSession(self.bundle, self.fused)
        return session

    def decide_by(self, bundle: Bundle) -> None:
        """Go on with other thresholds, for all cameras; nothing else of the bundle may differ."""
        self.bundle = bundle
        for session in self.sessions.values():
            session.bundle = bundle

    @property
    def held_until(self) -> float | None:
        """When :meth:`next_batch` has something to do although nothing comes, on its clock; None: never."""
        return min(self._held.values(), default=None)

    def next_batch(self, arrived: Mapping[str, Sequence[Waiting]] | None = None, *, now: float) -> Batch:
        """What to run and publish now, of all cameras; empty when nothing new has come.

        Args:
            arrived: from :meth:`collect`. Of each camera the newest inference is taken in; of those before it the
                device's own answers, and nothing else.
            now: seconds on any clock that goes on.
        """
        late: list[tuple[str, Answer]] = []
        heard: list[tuple[str, Waiting]] = []
        malformed: list[tuple[str, Waiting]] = []
        for name, packets in (arrived or {}).items():
            session = self._session(name)
            groups, new = by_inference(packets), False
            for group in groups[:-1]:
                for packet in group:
                    if packet.is_local_answer and session.take(packet.packet) is Taken.LOCAL_ANSWER:
                        heard.append((name, packet))
                        if isinstance(answer := session.next_task(), Answer):
                            late.append((name, answer))
            # From the newest back: what only looks like a newer inference must not keep a good one from being heard.
            while groups:
                takes = [(packet, session.take(packet.packet)) for packet in groups.pop()]
                heard += ((name, packet) for packet, taken in takes if taken in _SAID_SOMETHING)
                malformed += ((name, packet) for packet, taken in takes if taken is Taken.MALFORMED)
                new = new or any(taken is Taken.NEW for _, taken in takes)
                if any(taken in _OF_THIS_INFERENCE for _, taken in takes):
                    break
            self.overtaken += sum(not packet.is_local_answer for group in groups for packet in group)
            if not session.more:
                self._held.pop(name, None)
            elif new and self.hold_s > 0:  # only what says something is worth waiting on
                self._held[name] = now + self.hold_s
        # A clock that jumped back must not make anybody wait for longer.
        self._held = {name: until for name, until in self._held.items() if now < until <= now + self.hold_s}
        tasks: dict[str, ExitTask] = {}
        answers: dict[str, Answer] = {}
        unanswered: list[tuple[str, Unanswered]] = []
        for name, session in self.sessions.items():
            found = None if name in self._held else session.next_task()
            if isinstance(found, ExitTask):
                tasks[name] = found
            elif found is not None:
                answers[name] = found
            unanswered += ((name, ended) for ended in session.unanswered)
            session.unanswered.clear()
        return Batch(tasks, answers, late, heard, malformed, unanswered)

    def conclude(self, batch: Batch, logits: Mapping[str, FloatArray]) -> dict[str, Answer]:
        """Say what a batch's exits found.

        Args:
            batch: from :meth:`next_batch`.
            logits: by camera, shape (classes,).

        Returns:
            The answers that end inferences, by camera.

        Raises:
            FleetError: logits of another shape, or not finite.
        """
        found = {}
        for name, task in batch.tasks.items():
            _, answer = self.sessions[name].conclude(task, logits[name])
            if answer is not None:
                found[name] = answer
        return found
