# SPDX-License-Identifier: Apache-2.0
"""The device's side of one frame: run a stage, offer what it has to say, look whether the hub has answered.

Pure in the sense of this package: time, radio and the network come in as objects, so that the device node
(threads, real clock) and the simulator (virtual time) run the very same lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet.bundle import Bundle
from fleet.codec import FloatArray, encode_stage
from fleet.errors import FleetError
from fleet.exits import Prediction
from fleet.packet import LOCAL_ANSWER_STAGE, ExitNotice, LocalAnswer
from fleet.platforms import PlatformProfile
from fleet.runtime import CancelledError, StageOutput


class Network(Protocol):
    """What runs stages; :class:`fleet.runtime.DeviceNetwork` in real life."""

    @property
    def stage_numbers(self) -> tuple[int, ...]:
        """The stages in order, the head last."""

    def run(self, n: int, features: FloatArray) -> StageOutput:
        """Run one stage."""


class Surroundings(Protocol):
    """Clock and radio as the device sees them."""

    @property
    def payload(self) -> int:
        """Bytes a packet may have on the link as it is now."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """Hand a stage's packets, most useful first, to the radio; never blocks."""

    def wait_until(self, time: float) -> ExitNotice | None:
        """Let time pass until ``time``, or until the exit notice for the current inference is here.

        Returns at once when ``time`` has passed. Returns the notice as often as it is asked.
        """


@dataclass(frozen=True)
class Outcome:
    """How one frame's inference ended on the device.

    Attributes:
        inference_id: 0..65535.
        prediction: the answer that came first.
        stage: the exit that gave it, or 15 for the device's own.
        stages_run: stages that the device finished, the head included.
        started: when the frame was ready, seconds on the clock of the surroundings.
        ended: when the device held the answer.
        busy: seconds that the processor worked for this frame.
    """

    inference_id: int
    prediction: Prediction
    stage: int
    stages_run: int
    started: float
    ended: float
    busy: float

    @property
    def by_hub(self) -> bool:
        """Whether the hub answered first."""
        return self.stage != LOCAL_ANSWER_STAGE

    @property
    def latency(self) -> float:
        """Seconds from the frame being ready until the device held the answer."""
        return self.ended - self.started


@dataclass(frozen=True)
class Device:
    """A device: its model, its network, and how fast it pretends to be.

    Attributes:
        bundle: layouts, classes, thresholds.
        network: runs the stages.
        profile: paces each stage; the native profile does not.
    """

    bundle: Bundle
    network: Network
    profile: PlatformProfile

    def infer(
        self, image: FloatArray, inference_id: int, around: Surroundings, *, ready: float | None = None
    ) -> Outcome:
        """One frame's journey, until the first answer.

        Stage by stage: run it, offer its packets, look for an exit notice. Behind the last stage that is sent
        the device runs the rest of its network, and whichever answers first ends the inference. A notice that
        comes within a stage ends the wait for a paced one at once; a real one must be cut short by whoever
        hears the notice (:meth:`fleet.runtime.DeviceNetwork.cancel`).

        Args:
            image: the network's input, shape (1, 3, size, size).
            inference_id: 0..65535.
            around: clock and radio.
            ready: when the frame was ready, if preparing it for the network took part of the time; now if None.

        Raises:
            FleetError: the network's last output is not one logit a class.
        """
        started = due = around.now() if ready is None else ready
        features = image
        done = 0
        for stage in self.bundle.stages:
            seconds = self.profile.seconds(stage.macs, stage.n)
            try:
                output = self.network.run(stage.n, features)
            except CancelledError:
                notice = around.wait_until(due)
                if notice is None:
                    raise  # cancelled by somebody who closes the device, not by an answer
                return self._by_hub(notice, done, started, around.now())
            features = output.features
            payload = around.payload
            packets = self._packets(stage.n, output, inference_id, payload)
            # A stage that took longer than its profile says delays the ones behind it, as on the real device.
            due = max(due + seconds, around.now()) if seconds is not None else around.now()
            notice = around.wait_until(due)
            if notice is not None:
                return self._by_hub(notice, done, started, around.now())
            done += 1
            if around.payload != payload:  # the link was renegotiated while the stage was paced
                packets = self._packets(stage.n, output, inference_id, around.payload)
            if packets:
                around.offer(inference_id, stage.n, packets)
        return self._local(features, inference_id, done, started, around)

    def _packets(self, n: int, output: StageOutput, inference_id: int, payload: int) -> list[bytes]:
        layout = self.bundle.layouts.get(n)
        if layout is None or output.latent is None:
            return []
        return encode_stage(layout, output.latent, inference_id=inference_id, payload=payload, coder=self.bundle.coder)

    def _by_hub(self, notice: ExitNotice, done: int, started: float, now: float) -> Outcome:
        prediction = self.bundle.decider.from_air(notice.class_index, notice.confidence)
        return Outcome(notice.inference_id, prediction, notice.stage, done, started, now, now - started)

    def _local(self, logits: FloatArray, inference_id: int, done: int, started: float, around: Surroundings) -> Outcome:
        if logits.shape[0] != 1:
            raise FleetError(f"{self.bundle.path}: the head gives {logits.shape}, not one row of logits")
        decider = self.bundle.decider
        prediction = decider.predict(LOCAL_ANSWER_STAGE, logits[0])
        answer = LocalAnswer(inference_id, prediction.class_index, decider.confidence(prediction))
        now = around.now()
        around.offer(inference_id, LOCAL_ANSWER_STAGE, [answer.pack()])
        return Outcome(inference_id, prediction, LOCAL_ANSWER_STAGE, done, started, now, now - started)
