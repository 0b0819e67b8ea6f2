# SPDX-License-Identifier: Apache-2.0
"""A trace's logits as answers, how certain and whether right, judged once a unit and rule; and FLEET's packets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.errors import FleetError
from fleet.evaluation.certainty import Judged, Rule, Truth, Unit, judge_rows
from fleet.evaluation.replay import Packets
from fleet.evaluation.schemes.ours import Recorded, split_picture
from fleet.evaluation.trace import (
    SPLITS,
    Split,
    Trace,
    fleet_ends,
    fleet_logits,
    fleet_sets,
    fleet_sizes,
    picture_ends,
    picture_logits,
    picture_set_states,
    picture_sets,
    picture_sizes,
    rival_bytes,
    rival_logits,
)
from fleet.inference import shows_again
from fleet.link.parameters import LinkParameters
from fleet.packet import LOCAL_ANSWER_STAGE, PICTURE

PICTURE_PARTS = (picture_sizes, picture_ends)


class Judge:
    """A trace's logits, judged once a unit and rule.

    Args:
        trace: what is replayed.
        unit: what is judged.
    """

    def __init__(self, trace: Trace, unit: Unit) -> None:
        self.trace, self.unit = trace, unit
        self._truths = {
            s: Truth(np.asarray(trace.array(s, "truths")), np.asarray(trace.array(s, "classes"))) for s in SPLITS
        }
        self.images = {s: self._truths[s].counted(trace.index.classes, unit) for s in SPLITS}
        self._known: dict[Any, Any] = {}

    def rows(self, split: Split, name: str, temperatures: Sequence[float], rule: Rule = "confidence") -> Judged:
        """The judged rows of an array of logits."""
        key = split, name, rule
        if key not in self._known:
            chosen = self.images[split]
            logits = self.trace.array(split, name)
            logits = logits if logits.ndim == 3 else logits[None]
            self._known[key] = judge_rows(
                logits[:, chosen], temperatures, self.trace.index.classes, self._truths[split].take(chosen),
                unit=self.unit, rule=rule,
            )  # fmt: skip
        found: Judged = self._known[key]
        return found

    def recorded(self, split: Split, payload: int, rule: Rule) -> Recorded:
        """What the trace has of FLEET."""
        key = split, payload, rule, "fleet"
        if key not in self._known:
            index, chosen = self.trace.index, self.images[split]
            states = index.payloads[payload]
            sizes, ends = (self.trace.array(split, kind(payload))[:, :, chosen] for kind in (fleet_sizes, fleet_ends))
            temperatures = [index.temperatures.get(s.stage, 1.0) for s in states.states]
            self._known[key] = Recorded(
                Packets.of(sizes, ends),
                states,
                self.rows(split, fleet_logits(payload), temperatures, rule),
                self.device(split, rule),
                *self.local_exits(split, rule),
            )
        found: Recorded = self._known[key]
        return found

    def recorded_picture(self, split: Split, payload: int, *, thrifty: bool) -> Recorded:
        """What the trace has of FLEET's stage 0, as of a ladder of its own; for a thrifty device as of two.

        Raises:
            FleetError: it has none for such packets.
        """
        key = split, payload, thrifty, "picture"
        if key not in self._known:
            index, chosen = self.trace.index, self.images[split]
            sizes, ends = (np.asarray(self.trace.array(split, kind(payload)))[:, chosen] for kind in PICTURE_PARTS)
            packets, states = split_picture(sizes, ends, payload, thrifty=thrifty)
            temperatures = [index.temperatures.get(PICTURE, 1.0)] * len(sizes)
            self._known[key] = Recorded(
                packets,
                states,
                self.rows(split, picture_logits(payload), temperatures),
                self.device(split),
                *self.local_exits(split),
            )
        found: Recorded = self._known[key]
        return found

    def recorded_picture_sets(self, link: LinkParameters, *, twice: bool, alone_s: float) -> Recorded:
        """What the trace has of FLEET's stage 0 for any set of packets, of the first test images that the unit judges.

        Args:
            link: on which they travel.
            twice: the device sends all of them again (:func:`fleet.inference.shows_again`).
            alone_s: seconds that it takes by itself.

        Raises:
            FleetError: it has none.
        """
        index, payload = self.trace.index, link.payload
        if f"test/{picture_sets(payload)}" not in index.arrays:
            raise FleetError(f"{self.trace.path} has no sets of the picture's packets: run `fleet trace` with --sets")
        logits = self.trace.array("test", picture_sets(payload))
        chosen = self.images["test"][: np.searchsorted(self.images["test"], logits.shape[1])]
        sizes, ends = (np.asarray(self.trace.array("test", kind(payload)))[None, :, chosen] for kind in PICTURE_PARTS)
        states = picture_set_states(payload, sizes.shape[1], twice=twice)
        rows = [(state.own | state.before) - 1 for state in states.states]
        packets = Packets.of(sizes, ends)
        if twice:
            packets = packets.and_again([shows_again(n, alone_s, link) for n in packets.counts[0].tolist()])
        temperatures = [index.temperatures.get(PICTURE, 1.0)] * len(rows)
        whole = self.device("test")
        first = slice(0, len(chosen))
        return Recorded(
            packets,
            states,
            judge_rows(
                logits[rows][:, chosen], temperatures, index.classes, self._truths["test"].take(chosen), unit=self.unit
            ),
            Judged(whole.certainty[:, first], whole.answer[:, first], whole.right[:, first]),
            alone=bool(index.picture.get("alone", True)),
        )

    def recorded_sets(self, payload: int) -> Recorded:
        """What the trace has of FLEET's first test images for any set of packets, of those that the unit judges.

        Raises:
            FleetError: it has none.
        """
        index = self.trace.index
        if payload not in index.sets or f"test/{fleet_sets(payload)}" not in index.arrays:
            raise FleetError(f"{self.trace.path} has no sets of packets: run `fleet trace` with --sets")
        pictures, states = index.sets[payload]
        chosen = self.images["test"][: np.searchsorted(self.images["test"], pictures)]
        sizes, ends = (self.trace.array("test", kind(payload))[:, :, chosen] for kind in (fleet_sizes, fleet_ends))
        temperatures = [index.temperatures.get(s.stage, 1.0) for s in states.states]
        logits = self.trace.array("test", fleet_sets(payload))[:, chosen]
        truth = self._truths["test"].take(chosen)
        whole = self.device("test")
        first = slice(0, len(chosen))
        return Recorded(
            Packets.of(sizes, ends),
            states,
            judge_rows(logits, temperatures, index.classes, truth, unit=self.unit),
            Judged(whole.certainty[:, first], whole.answer[:, first], whole.right[:, first]),
        )

    def device(self, split: Split, rule: Rule = "confidence") -> Judged:
        """The whole network on the device, one row."""
        return self.rows(split, "local", [self.trace.index.temperatures.get(LOCAL_ANSWER_STAGE, 1.0)], rule)

    def local_exits(self, split: Split, rule: Rule = "confidence") -> tuple[Judged | None, tuple[int, ...]]:
        """The bundle's local exits, one row each, None where it has none; and their stages."""
        heads = self.trace.index.local_exits
        local = self.rows(split, "local-exits", [h["temperature"] for h in heads], rule) if heads else None
        return local, tuple(int(h["n"]) for h in heads)

    def rival(self, split: Split, name: str) -> Judged:
        """A rival's rows."""
        return self.rows(split, rival_logits(name), self.trace.index.rivals[name]["temperatures"])

    def sizes(self, split: Split, name: str) -> npt.NDArray[np.int64]:
        """Bytes of a rival's uploads."""
        return np.asarray(self.trace.array(split, rival_bytes(name)), np.int64)[:, self.images[split]]
