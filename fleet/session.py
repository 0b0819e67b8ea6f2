# SPDX-License-Identifier: Apache-2.0
"""The hub's side of one camera: packets in any order come in, exits to run and answers come out.

Pure: no clock, no thread, no network inside. A node or the simulator takes packets in as they arrive,
asks for the next exit whenever its processor is free, and hands the logits back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy.typing as npt

from fleet.bundle import Bundle
from fleet.codec import FloatArray, StageBuffer
from fleet.errors import FleetError
from fleet.exits import Prediction
from fleet.packet import LOCAL_ANSWER_STAGE, PICTURE, STALE_WINDOW, Header, LocalAnswer, PacketError, is_stale, next_id
from fleet.unanswered import Unanswered, Why

REMEMBERED_ANSWERS = 64
HOLD_S = 0.02
"""How long an exit waits at most for a packet that was announced: the longest takes 17 ms on the slowest PHY."""


class Taken(Enum):
    """What became of a packet."""

    NEW = "new"
    DUPLICATE = "duplicate"
    STALE = "stale"
    ANSWERED = "answered"
    LOCAL_ANSWER = "local answer"
    EARLY = "early"
    MALFORMED = "malformed"


@dataclass(frozen=True)
class ExitTask:
    """An exit that is worth running now.

    Attributes:
        inference_id: 0..65535.
        stage: which exit.
        maps: views of the stages it fuses (:func:`fleet.coders.view`), oldest first, shapes (2 c_i, g_i, g_i).
        arrived: the share of the stage's coefficients that has arrived, 0..1.
    """

    inference_id: int
    stage: int
    maps: tuple[FloatArray, ...]
    arrived: float

    @property
    def complete(self) -> bool:
        """Whether every coefficient of the stage has arrived."""
        return self.arrived >= 1.0


@dataclass(frozen=True)
class Answer:
    """The hub's answer for one frame.

    Attributes:
        inference_id: 0..65535.
        prediction: class, group and confidences.
        stage: the exit that answered, or 15 for the device's own answer.
    """

    inference_id: int
    prediction: Prediction
    stage: int

    @property
    def is_local(self) -> bool:
        """Whether the device answered and the hub only heard of it."""
        return self.stage == LOCAL_ANSWER_STAGE


@dataclass
class CloudSession:
    """The state of one camera's newest inference, and which ids have been answered.

    Attributes:
        bundle: layouts, thresholds, classes.
        fused: which stages each exit fuses, oldest first.
        counts: packets by what became of them.
        unanswered: inferences that ended without an answer, for whoever takes them out; the newest only.
        more: the newest packet is one of the picture, which is not complete, and said that another follows in the
            same connection event. An exit that begins now would be busy when that comes.
    """

    bundle: Bundle
    fused: Mapping[int, tuple[int, ...]]
    counts: dict[Taken, int] = field(default_factory=lambda: dict.fromkeys(Taken, 0))
    _current: int | None = None
    _buffers: dict[int, StageBuffer] = field(default_factory=dict)
    _fresh: bool = False
    _answered: dict[int, None] = field(default_factory=dict)
    _local: Answer | None = None
    unanswered: deque[Unanswered] = field(default_factory=lambda: deque(maxlen=REMEMBERED_ANSWERS))
    _running: int | None = None
    _unsure: tuple[ExitTask, Prediction] | None = None
    more: bool = False
    _ahead: tuple[int, StageBuffer] | None = None

    @property
    def current(self) -> int | None:
        """The newest inference heard of."""
        return self._current

    def take(self, packet: bytes) -> Taken:
        """Take one packet in. Never raises, whatever the bytes.

        Args:
            packet: as it came off the air.
        """
        try:
            taken = self._take(packet)
        except PacketError:
            taken = Taken.MALFORMED
        self.counts[taken] += 1
        return taken

    def _take(self, packet: bytes) -> Taken:
        header = Header.unpack(packet)
        # Look at everything before touching the state: a broken packet must not end a good inference.
        if header.stage == LOCAL_ANSWER_STAGE:
            local = LocalAnswer.unpack(packet)
            prediction = self._prediction_of(local)
        elif header.stage not in self.bundle.layouts:
            raise PacketError(f"this bundle has no stage {header.stage}")
        if self._current is not None and is_stale(header.inference_id, self._current):
            return Taken.STALE
        if header.inference_id in self._answered and header.inference_id == self._current:
            return Taken.ANSWERED
        is_next = header.inference_id != self._current
        if header.stage == LOCAL_ANSWER_STAGE:
            if is_next:
                self._begin(header.inference_id)
            elif self._local is not None:
                return Taken.DUPLICATE
            self.more = False
            self._local = Answer(local.inference_id, prediction, LOCAL_ANSWER_STAGE)
            return Taken.LOCAL_ANSWER
        buffer = self._buffer_of(header, is_next=is_next)
        before = buffer.received
        is_new = buffer.add(header, packet)
        if is_next and buffer.is_waiting:
            # Nobody can tell yet whether it is what it says: the inference before goes on meanwhile.
            self._ahead = header.inference_id, buffer
            return Taken.EARLY
        if is_next:
            self._begin(header.inference_id)
        self.more = header.more and header.stage == PICTURE and not buffer.complete and self._local is None
        self._buffers[header.stage] = buffer
        # A piece of a run that is not whole yet is new, but says nothing.
        self._fresh = self._fresh or buffer.received > before
        return Taken.NEW if is_new else Taken.DUPLICATE

    def _buffer_of(self, header: Header, *, is_next: bool) -> StageBuffer:
        """What has arrived of a packet's stage so far."""
        ahead = self._ahead
        if is_next and ahead is not None and (ahead[0], ahead[1].layout.stage) == (header.inference_id, header.stage):
            return ahead[1]
        there = None if is_next else self._buffers.get(header.stage)
        return there or StageBuffer(self.bundle.layouts[header.stage])

    def _begin(self, inference_id: int) -> None:
        self._tell_unanswered(inference_id)
        self._running = self._unsure = self._ahead = None
        self._current = inference_id
        self._buffers = {}
        self._fresh = self.more = False
        self._local = None
        # An id comes round again after 65,536 frames, or at once after a restart of the camera.
        self._answered.pop(inference_id, None)

    def _tell_unanswered(self, inference_id: int) -> None:
        """What the beginning of an inference says about those before it."""
        before = self._current
        if before is None:
            return
        if before not in self._answered:
            why, text = self._why()
            self.unanswered.append(Unanswered(before, 1, why, text))
        skipped = (inference_id - before - 1) % (1 << 16)
        if 0 < skipped < STALE_WINDOW:  # otherwise the camera has begun anew
            text = "nothing was heard of it" if skipped == 1 else "nothing was heard of them"
            self.unanswered.append(Unanswered(next_id(before), skipped, Why.UNHEARD, text))

    def _why(self) -> tuple[Why, str]:
        if self._local is not None:
            return Why.LOCAL_ANSWER_LATE, "the device's own answer was overtaken by the next frame"
        if self._running is not None:
            return Why.BUSY, f"the next one came while exit {self._running} ran"
        if self._unsure is not None:
            task, found = self._unsure
            needed = self.bundle.decider.threshold(task.stage, arrived=task.arrived)
            needs = "it has no threshold" if needed == float("inf") else f"{needed:.2f} is needed"
            sure = f"{found.certainty:.2f} sure of {found.group}"
            return Why.UNSURE, f"exit {task.stage}, the last to run, was {sure}, {needs}"
        if any(buffer.received for buffer in self._buffers.values()):
            return Why.BUSY, "the next one came before an exit could run"
        return Why.UNDECODED, "of what was heard of it nothing can be decoded"

    def _prediction_of(self, local: LocalAnswer) -> Prediction:
        try:
            return self.bundle.decider.from_air(local.class_index, local.confidence)
        except FleetError as err:
            raise PacketError(str(err)) from err

    def next_task(self) -> ExitTask | Answer | None:
        """What to do next: an exit to run on all that has arrived, an answer heard from the device, or nothing.

        An exit is offered once for each arrival of something new.
        """
        if self._current is None or self._current in self._answered:
            return None
        if self._local is not None:
            answer, self._local = self._local, None
            self._remember(answer.inference_id)
            return answer
        if not self._fresh:
            return None
        self._fresh = False
        # Of a stage of which nothing is decoded an exit would only see the means, and may be sure of them.
        stage = max(n for n, buffer in self._buffers.items() if buffer.received)
        maps = tuple((self._buffers.get(n) or StageBuffer(self.bundle.layouts[n])).view() for n in self.fused[stage])
        self._running = stage
        return ExitTask(self._current, stage, maps, self._buffers[stage].arrived)

    def conclude(self, task: ExitTask, logits: npt.ArrayLike) -> tuple[Prediction, Answer | None]:
        """Say what an exit found.

        Args:
            task: from :meth:`next_task`.
            logits: shape (classes,).

        Returns:
            The exit's prediction, and the answer if it ends the inference: it is sure, or the last stage's
            ladder, or the picture, is complete and the bundle is not patient. No answer when the inference was
            overtaken or answered meanwhile, by the device for example.

        Raises:
            FleetError: logits of another shape, or not finite.
        """
        decider = self.bundle.decider
        prediction = decider.predict(task.stage, logits)
        last_word = task.stage in (PICTURE, self.bundle.exit_stages)  # more would come of neither
        is_last = last_word and task.complete and not decider.patient
        # Not only by a newer id: a camera that restarted is somewhere else.
        over = task.inference_id != self._current or task.inference_id in self._answered or self._local is not None
        if over:
            return prediction, None
        self._running = None
        if not (is_last or decider.is_sure(task.stage, prediction, arrived=task.arrived)):
            self._unsure = (task, prediction)
            return prediction, None
        self._remember(task.inference_id)
        return prediction, Answer(task.inference_id, prediction, task.stage)

    def _remember(self, inference_id: int) -> None:
        self._answered[inference_id] = None
        if len(self._answered) > REMEMBERED_ANSWERS:
            del self._answered[next(iter(self._answered))]
