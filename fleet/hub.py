# SPDX-License-Identifier: Apache-2.0
"""The hub's side of any number of cameras: their sessions, and what to run next for all of them at once.

Pure, as :mod:`fleet.session`. Whoever drives it takes packets in as they come, and whenever its processor is free asks
for everything that is worth running *now*: at most one exit a camera, on all that has arrived. Under load that skips
exits and never queues them, so the newest packets of every camera are always the next to count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fleet.bundle import Bundle
from fleet.codec import FloatArray
from fleet.session import Answer, CloudSession, ExitTask, Taken


@dataclass(frozen=True)
class Batch:
    """Exits to run together.

    Attributes:
        tasks: by camera.
        answers: by camera, what the devices answered themselves; nothing has to be run for these.
    """

    tasks: Mapping[str, ExitTask]
    answers: Mapping[str, Answer]

    def __bool__(self) -> bool:
        return bool(self.tasks or self.answers)

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
        sessions: by camera.
    """

    bundle: Bundle
    fused: Mapping[int, tuple[int, ...]]
    sessions: dict[str, CloudSession] = field(default_factory=dict)

    def take(self, camera: str, packet: bytes) -> Taken:
        """Take one camera's packet in; a camera that was not heard before begins a session. Never raises."""
        session = self.sessions.get(camera)
        if session is None:
            session = self.sessions[camera] = CloudSession(self.bundle, self.fused)
        return session.take(packet)

    def decide_by(self, bundle: Bundle) -> None:
        """Go on with other thresholds, for all cameras; nothing else of the bundle may differ."""
        self.bundle = bundle
        for session in self.sessions.values():
            session.bundle = bundle

    def next_batch(self) -> Batch:
        """What to run and publish now, of all cameras; empty when nothing new has come."""
        tasks: dict[str, ExitTask] = {}
        answers: dict[str, Answer] = {}
        for name, session in self.sessions.items():
            found = session.next_task()
            if isinstance(found, ExitTask):
                tasks[name] = found
            elif found is not None:
                answers[name] = found
        return Batch(tasks, answers)

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
