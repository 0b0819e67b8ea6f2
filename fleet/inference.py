# SPDX-License-Identifier: Apache-2.0
"""The device's side of one frame: run a stage, offer what it has to say, look whether the hub has answered.

Pure in the sense of this package: time, radio and the network come in as objects, so that the device node
(threads, real clock) and the simulator (virtual time) run the very same lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from fleet.bundle import Bundle, StageFile
from fleet.codec import FloatArray, encode_stage
from fleet.errors import FleetError
from fleet.exits import Decider, Prediction
from fleet.link.parameters import LinkParameters
from fleet.packet import LOCAL_ANSWER_STAGE, PICTURE, ExitNotice, Header, LocalAnswer
from fleet.platforms import PlatformProfile
from fleet.runtime import CancelledError, StageOutput


class Network(Protocol):
    """What runs stages; :class:`fleet.runtime.DeviceNetwork` in real life."""

    @property
    def stage_numbers(self) -> tuple[int, ...]:
        """The stages in order, the head last."""

    def run(self, n: int, features: FloatArray) -> StageOutput:
        """Run one stage."""

    def run_picture(self, image: FloatArray) -> FloatArray:
        """What travels of the picture itself, shape (c, g, g); only asked for where the bundle has a stage 0."""


class LocalExits(Protocol):
    """What runs the device's own exits for the race; :class:`fleet.runtime.DeviceNetwork` in real life."""

    def run_local(self, n: int, features: FloatArray) -> FloatArray:
        """Logits, shape (1, classes), of the local exit behind a stage."""


class Surroundings(Protocol):
    """Clock and radio as the device sees them."""

    @property
    def payload(self) -> int:
        """Bytes a packet may have on the link as it is now."""

    @property
    def link(self) -> LinkParameters | None:
        """The link as it is now; None where the device knows of no hub."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """Hand a stage's packets, most useful first, to the radio; never blocks."""

    def wait_until(self, time: float) -> ExitNotice | None:
        """Let time pass until ``time``, or until the exit notice for the current inference is here.

        Returns at once when ``time`` has passed. Returns the notice as often as it is asked.
        """


HUB_S = 0.025
"""Seconds that a hub may take for an exit before the device thinks that none will come."""


SOON_S = 0.010
"""Seconds in which a hub mostly has run an exit. A thrifty device waits no longer with more of the picture: where a hub
takes longer, a part too much is sent, and nothing else is lost."""


def answer_due_s(packets: int, link: LinkParameters, hub_s: float = HUB_S) -> float:
    """Seconds within which a hub that hears everything answers so many packets, whatever the phase of the events."""
    return (math.ceil(packets / link.effective_packets) + 1) * link.ci_s + hub_s


MOST_EVENTS = 8
"""In so many events a picture is shown again at most: if three packets in four are lost, all have mostly come then."""


def shows_again(packets: int, alone_s: float, link: LinkParameters) -> int:
    """How often a picture of so many packets is sent again once the hub has not answered to it.

    As often as an event has room for, in as many events as leave the device, which would take ``alone_s`` by itself,
    no later than twice that in the end: nobody knows whether the hub is gone or the air is bad.
    """
    spare = alone_s - answer_due_s(packets, link) - HUB_S
    events = int(min(max(spare / link.ci_s - 1, 1), MOST_EVENTS))
    return max(1, events * link.effective_packets // packets)


def pays_to_rest(alone_s: float, packets: int, link: LinkParameters) -> bool:
    """Whether a device that would take so long by itself has the hub's answer to so many packets sooner."""
    return alone_s > answer_due_s(packets, link)


THRIFTY_BYTES = 180
"""What a thrifty device sends of the picture before it waits whether that is enough, or one packet where that is more;
`benchmarks/thrifty.py` measures others."""


def thrifty_burst(payload: int) -> int:
    """How many packets a thrifty device sends at a time, on a link of that payload."""
    return max(1, THRIFTY_BYTES // payload)


@dataclass(frozen=True)
class Outcome:
    """How one frame's inference ended on the device.

    Attributes:
        inference_id: 0..65535.
        prediction: the answer that came first.
        stage: the exit that gave it, or 15 for the device's own.
        stages_run: stages that the device finished, stage 0 and the head included.
        started: when the frame was ready, seconds on the clock of the surroundings.
        ended: when the device held the answer.
        busy: seconds that the processor worked for this frame.
        local_stage: the stage behind which a local exit was sure enough to answer (the race); None for every other
            answer, that of the whole network included.
    """

    inference_id: int
    prediction: Prediction
    stage: int
    stages_run: int
    started: float
    ended: float
    busy: float
    local_stage: int | None = None

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
        race: runs the bundle's local exits beside the radio (design section 12.7), and the first confident answer
            wins; None where only the hub and the whole network answer.
        thrifty: the picture goes bit by bit, each once the hub had time to answer on those before. Fewer bytes and
            joules, and unsure frames take longer.
    """

    bundle: Bundle
    network: Network
    profile: PlatformProfile
    race: LocalExits | None = None
    thrifty: bool = False

    def infer(
        self, image: FloatArray, inference_id: int, around: Surroundings, *, ready: float | None = None
    ) -> Outcome:
        """One frame's journey, until the first answer.

        Where the bundle has a stage 0, the picture itself goes first. Until the hub's answer to it is due nothing else
        is offered; and if the device would be later than that by itself, and does not race, it rests, and sends the
        picture a second time if there is none.

        Stage by stage: run it, offer its packets, look for an exit notice. Behind the last stage that is sent
        the device runs the rest of its network, and whichever answers first ends the inference. In a race a local
        exit runs behind its stage, once the radio has that stage's packets and need not wait. A notice that
        comes within a stage ends the wait for a paced one at once; a real one must be cut short by whoever
        hears the notice (:meth:`fleet.runtime.DeviceNetwork.cancel`).

        Args:
            image: the network's input, shape (1, 3, size, size).
            inference_id: 0..65535.
            around: clock and radio.
            ready: when the frame was ready, if preparing it for the network took part of the time; now if None.

        Raises:
            FleetError: the network's last output, or a local exit's, is not one logit a class.
        """
        started = around.now() if ready is None else ready
        journey = _Journey(around, started, started)
        features = image
        done = 0
        speak_from = started
        try:
            if self.bundle.picture is not None:
                done = 1
                speak_from = self._show(self.bundle.picture, image, inference_id, journey)
        except CancelledError:
            return self._by_hub(journey.verdict(), done, journey)
        for stage in self.bundle.stages:
            seconds = self.profile.seconds(stage.macs, stage.n)
            try:
                output = self.network.run(stage.n, features)
                features = output.features
                payload = around.payload
                packets = self._packets(stage.n, output, inference_id, payload)
                journey.spend(seconds)
                done += 1
                if around.payload != payload:  # the link was renegotiated while the stage was paced
                    packets = self._packets(stage.n, output, inference_id, around.payload)
                if packets and around.now() >= speak_from:
                    around.offer(inference_id, stage.n, packets)
                prediction = self._raced(stage, features, journey)
            except CancelledError:
                return self._by_hub(journey.verdict(), done, journey)
            if prediction is not None:
                return self._local(prediction, inference_id, done, journey, stage.n)
        prediction = self._predict(self.bundle.decider, LOCAL_ANSWER_STAGE, features)
        return self._local(prediction, inference_id, done, journey, None)

    def _show(self, picture: StageFile, image: FloatArray, inference_id: int, journey: _Journey) -> float:
        """Offer the picture itself, and rest where that pays; returns when the hub's answer is overdue.

        Raises:
            CancelledError: the answer has come.
        """
        around = journey.around
        seconds = self.profile.seconds(picture.macs, PICTURE)
        latent = self.network.run_picture(image)
        journey.spend(seconds)

        cuts: list[int] = []  # short headers count packets: they are for those of the first cut

        def cut(payload: int, begin: int = 0) -> list[bytes]:
            cuts.append(payload)
            layout, coder, short = self.bundle.layouts[PICTURE], self.bundle.coder, payload == cuts[0]
            return encode_stage(
                layout, latent, inference_id=inference_id, payload=payload, coder=coder, begin=begin, short=short
            )

        packets = cut(around.payload)
        if (link := around.link) is None:
            around.offer(inference_id, PICTURE, packets)
            return around.now()
        rests = self.race is None and pays_to_rest(self._alone_s, len(packets), link)
        thrifty = rests and self.thrifty
        shown = 0  # coefficients

        def cut_anew(unsent: list[bytes]) -> list[bytes]:
            following = Header.unpack(unsent[0])  # of a run in pieces all begin with the same coefficient
            begin = shown if following.number else following.first
            if begin == 0:
                cuts.clear()  # nothing of it was offered
            return cut(around.payload, begin)

        def show(burst: list[bytes], *, last: bool = True) -> float:
            around.offer(inference_id, PICTURE, burst)
            overdue = around.now() + answer_due_s(len(burst), around.link or link, HUB_S if last else SOON_S)
            if rests:
                journey.rest(overdue)
            return overdue

        unsent = packets
        while unsent:
            if max(map(len, unsent)) > around.payload:  # the link was renegotiated meanwhile
                unsent = cut_anew(unsent)
            # By the packets' own length: the payload may have grown since they were cut.
            count = thrifty_burst(max(map(len, unsent))) if thrifty else len(unsent)
            burst, unsent = unsent[:count], unsent[count:]
            overdue = show(burst, last=not unsent)
            # The last packet may say 0: it is all the rest, and nothing follows it.
            shown += sum(Header.unpack(packet).count for packet in burst)
        if rests:
            # What a device that rests did not get an answer to was lost, or the hub is gone: it says all of it again.
            packets = cut(around.payload)
            overdue = show(packets * shows_again(len(packets), self._alone_s, around.link or link))
        return overdue

    @cached_property
    def _alone_s(self) -> float:
        """Seconds that the whole network takes on the platform; 0 where nobody knows."""
        times = [self.profile.seconds(stage.macs, stage.n) for stage in self.bundle.stages]
        return sum(time or 0.0 for time in times)

    def _raced(self, stage: StageFile, features: FloatArray, journey: _Journey) -> Prediction | None:
        """What the local exit behind a stage says, if the device races, there is one, and it is sure."""
        head = self.bundle.local_exits.get(stage.n)
        if self.race is None or head is None or math.isinf(head.threshold):  # who is never sure takes no time either
            return None
        seconds = self.profile.local_exit_seconds(head.macs, stage.n, stage.macs)
        logits = self.race.run_local(stage.n, features)
        journey.spend(seconds)
        decider = self.bundle.local_decider
        prediction = self._predict(decider, stage.n, logits)
        return prediction if decider.is_sure(stage.n, prediction) else None

    def _packets(self, n: int, output: StageOutput, inference_id: int, payload: int) -> list[bytes]:
        layout = self.bundle.layouts.get(n)
        if layout is None or output.latent is None:
            return []
        return encode_stage(layout, output.latent, inference_id=inference_id, payload=payload, coder=self.bundle.coder)

    def _predict(self, decider: Decider, stage: int, logits: FloatArray) -> Prediction:
        if logits.ndim != 2 or logits.shape[0] != 1:
            what = "the head" if stage == LOCAL_ANSWER_STAGE else f"local exit {stage}"
            raise FleetError(f"{self.bundle.path}: {what} gives {logits.shape}, not one row of logits")
        return decider.predict(stage, logits[0])

    def _by_hub(self, notice: ExitNotice, done: int, journey: _Journey) -> Outcome:
        prediction = self.bundle.decider.from_air(notice.class_index, notice.confidence)
        return journey.over(notice.inference_id, prediction, notice.stage, done)

    def _local(
        self, prediction: Prediction, inference_id: int, done: int, journey: _Journey, local_stage: int | None
    ) -> Outcome:
        answer = LocalAnswer(inference_id, prediction.class_index, self.bundle.decider.confidence(prediction))
        outcome = journey.over(inference_id, prediction, LOCAL_ANSWER_STAGE, done, local_stage)
        journey.around.offer(inference_id, LOCAL_ANSWER_STAGE, [answer.pack()])
        return outcome


@dataclass
class _Journey:
    """The time of one inference on its platform.

    Attributes:
        around: clock and radio.
        started: when the frame was ready.
        due: when all work so far is over on the platform.
        rested: seconds in which the processor had nothing to do.
    """

    around: Surroundings
    started: float
    due: float
    rested: float = 0.0

    def spend(self, seconds: float | None) -> None:
        """Let a piece of work be over that takes ``seconds`` on the platform, or as long as it took where None.

        Raises:
            CancelledError: an exit notice has come.
        """
        # Work that took longer than its profile says delays what is behind it, as on the real device.
        now = self.around.now()
        self.due = max(self.due + seconds, now) if seconds is not None else now
        if self.around.wait_until(self.due) is not None:
            raise CancelledError("answered")

    def rest(self, until: float) -> None:
        """Do nothing.

        Raises:
            CancelledError: an exit notice has come.
        """
        begun = self.around.now()
        notice = self.around.wait_until(until)
        self.due = self.around.now()
        self.rested += self.due - begun
        if notice is not None:
            raise CancelledError("answered")

    def verdict(self) -> ExitNotice:
        """The notice that cut the work short.

        Raises:
            CancelledError: there is none: somebody closes the device.
        """
        notice = self.around.wait_until(self.due)
        if notice is None:
            raise CancelledError("the device closes")
        return notice

    def over(
        self, inference_id: int, prediction: Prediction, stage: int, done: int, local_stage: int | None = None
    ) -> Outcome:
        """The outcome, now."""
        now = self.around.now()
        busy = now - self.started - self.rested
        return Outcome(inference_id, prediction, stage, done, self.started, now, busy, local_stage)
