# SPDX-License-Identifier: Apache-2.0
"""A small model's trace in memory, and the same frames for the simulation that drives the real objects."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fleet.bundle import Bundle
from fleet.coders import view
from fleet.evaluation.accuracy import Recorded as Device
from fleet.evaluation.air import Air
from fleet.evaluation.certainty import Truth, judge_rows
from fleet.evaluation.journeys import RecordedNetwork
from fleet.evaluation.recording import Batch, packets_of_stage
from fleet.evaluation.replay import Packets, replay
from fleet.evaluation.schemes.ours import Manner, Pace, Race, Recorded, split_picture
from fleet.evaluation.trace import all_states, picture_set_states
from fleet.inference import Device as Runner
from fleet.inference import shows_again
from fleet.link.radios import NRF5340
from fleet.link.scheduler import Scheduler
from fleet.session import CloudSession
from fleet.simulation import Simulation

AS_IS = Manner()
FUSED = {0: (0,), 1: (1,), **{n: (n - 1, n) for n in range(2, 9)}}


class Exits:
    """A hub's network whose logits hang on every value that it is given, exactly the same one by one or in a batch."""

    def __init__(self, bundle, seed):
        random = np.random.default_rng(seed)
        self.classes = len(bundle.classes)
        self.fused = {n: stages for n, stages in FUSED.items() if n in bundle.layouts}
        shapes = {
            n: sum(2 * bundle.layouts[m].channels * bundle.layouts[m].ladder.count for m in stages)
            for n, stages in self.fused.items()
        }
        self.weights = {n: random.normal(size=(size, self.classes)) * 3 / size**0.5 for n, size in shapes.items()}

    def forward(self, stage, maps):
        flat = np.concatenate([np.asarray(m, np.float64).ravel() for m in maps])
        return (flat @ self.weights[stage]).astype(np.float16)

    def many(self, stage, maps):
        return np.stack([self.forward(stage, images) for images in zip(*maps, strict=True)])


@dataclass
class Traced:
    """A bundle, what its device gave, and its trace, judged."""

    bundle: Bundle
    device: Device
    exits: Exits
    recorded: Recorded
    payload: int

    def race(self, link, profile, phases, *, exit_s=0.005, local=(), lost=None, repeats=None, manner=None):
        heads = {n: self.bundle.local_exits[n].macs for n in local}
        stages = [{"n": stage.n, "macs": stage.macs} for stage in self.bundle.stages]
        picture = self.bundle.picture.macs if self.bundle.picture is not None else None
        pace = Pace.of(stages, self.bundle.exit_stages, profile, heads, picture)
        rows = tuple(self.recorded.local_stages.index(n) for n in local)
        air = Air.at_phases(link, NRF5340, phases)
        if lost is None:
            return Race.on(self.recorded, pace, air, exit_s=exit_s, local=rows, manner=manner)
        if picture is not None:
            found = Race.of_picture(self.recorded, pace, air, exit_s=exit_s, manner=manner, lost=lost)
            return replace(found, timeline=replace(found.timeline, repeats=repeats))
        packets, states = self.recorded.packets, self.recorded.states
        timeline = replay(air, packets, states, pace.offered, exit_s=exit_s, lost=lost)
        return Race(self.recorded, pace, replace(timeline, repeats=repeats))

    def simulated(self, link, profile, image, phase, *, exit_s=0.005, race=False, seed=0, watch=None, manner=AS_IS):
        """The same frame through device, scheduler and session, alone on a fresh link, until the hub has an answer."""
        network = RecordedNetwork(self.device, tuple(stage.n for stage in self.bundle.stages), image)
        locals_ = LocalExits(self.device, network) if race else None
        runner = Runner(self.bundle, network, profile, locals_, manner.thrifty)
        run = Simulation(
            runner,
            CloudSession(self.bundle, self.exits.fused),
            self.exits.forward,
            link,
            exit_s=exit_s,
            seed=seed,
            hold=manner.hold,
        )
        if watch is not None:
            run.radio.scheduler = Watched(run.radio.scheduler, watch)
        frame = run.run(np.zeros((1, 3, 32, 32), np.float32), phase=phase)
        if watch is not None:
            return frame, run.radio.scheduler.statistics.exits_lost
        if frame.hub is None:  # the radio's account is closed once the device's answer is sent; it is yet to arrive
            run.radio.begin(-1)
            while 1 not in run.radio.hub.answers:
                run.radio.wait_until(np.nextafter(run.radio.scheduler.next_event, np.inf))
            frame = replace(frame, hub=(None, run.radio.hub.answers[1][1] - frame.outcome.started))
        return frame


@dataclass
class Watched:
    """A scheduler whose events are written down."""

    scheduler: Scheduler
    events: list

    def event(self):
        self.events.append(self.scheduler.event())
        return self.events[-1]

    def __getattr__(self, name):
        return getattr(self.scheduler, name)


@dataclass
class LocalExits:
    device: Device
    network: RecordedNetwork

    def run_local(self, n, features):
        return self.device.local_exits[n][self.network.image][None]


def traced(bundle, *, images=12, payload=60, seed=0, grid=0, unit="group", spread=0.5, sets=False):
    """Record random images of a bundle that has no files."""
    random = np.random.default_rng(seed)
    latents = {
        n: np.cumsum(random.normal(scale=spread, size=(images, layout.channels, 8, 8)), axis=-1).astype(np.float32)
        for n, layout in bundle.layouts.items()
    }
    classes = len(bundle.classes)
    of_class = random.integers(0, classes, images)
    heads = {n: random.normal(size=(images, classes)).astype(np.float16) * 3 for n in bundle.local_exits}
    device = Device(
        np.asarray(bundle.classes.group_of)[of_class],
        of_class,
        latents,
        random.normal(size=(images, classes)).astype(np.float16),
        heads,
    )
    values = {n: bundle.coder.coefficients(layout, latents[n]) for n, layout in bundle.layouts.items()}
    pairs = [packets_of_stage(layout, values[n], bundle.coder, payload) for n, layout in bundle.layouts.items()]
    most = max(len(sizes) for sizes, _ in pairs)
    sizes, ends = (np.stack([np.pad(p[k], ((0, most - len(p[k])), (0, 0))) for p in pairs]) for k in (0, 1))
    packets = Packets.of(sizes, ends)
    highest = dict(zip(sorted(bundle.layouts), packets.counts.max(axis=1).tolist(), strict=True))
    states = all_states(payload, grid, highest, {n: n - 1 if len(f) > 1 else None for n, f in FUSED.items()}, sets=sets)
    exits = Exits(bundle, seed)
    batch = Batch(bundle, states, values, packets.counts, ends)
    logits = np.full((len(states.states), images, classes), np.nan, np.float16)
    for place, state in enumerate(states.states):
        there, maps = batch.views(state)
        if len(there):
            logits[place, there] = exits.many(state.stage, maps)
    truth = Truth(device.truths, device.classes)

    def judged(rows):
        return judge_rows(rows, np.ones(len(rows)), bundle.classes, truth, unit=unit)

    local = judged(np.stack(list(heads.values()))) if heads else None
    recorded = Recorded(packets, states, judged(logits), judged(device.local[None]), local, tuple(heads))
    return Traced(bundle, device, exits, recorded, payload)


def pictured(bundle, *, images=12, payload=40, seed=0, thrifty=False):
    """The same of a bundle that shows the picture first, of which nothing but that is traced."""
    random = np.random.default_rng(seed)
    plain = traced(bundle.without_picture(), images=images, seed=seed)
    layout = bundle.layouts[0]
    shape = (images, layout.channels, layout.ladder.finest, layout.ladder.finest)
    latents = random.normal(scale=0.4, size=shape).astype(np.float32)
    device = replace(plain.device, latents={0: latents, **plain.device.latents})
    values = bundle.coder.coefficients(layout, latents)
    sizes, ends = packets_of_stage(layout, values, bundle.coder, payload)
    packets, states = split_picture(sizes, ends, payload, thrifty=thrifty)
    exits = Exits(bundle, seed)
    logits = np.full((len(sizes), images, len(bundle.classes)), np.nan, np.float16)
    for packet in range(len(sizes)):
        there = np.flatnonzero(sizes[packet])
        have = np.arange(layout.count) < ends[packet, there][:, None].astype(int)
        logits[packet, there] = exits.many(0, [view(bundle.coder, layout, values[there], have)])
    truth = Truth(device.truths, device.classes)
    judged = judge_rows(logits, np.ones(len(logits)), bundle.classes, truth, unit="group")
    recorded = Recorded(
        packets, states, judged, plain.recorded.device, plain.recorded.local, plain.recorded.local_stages
    )
    return Traced(bundle, device, exits, recorded, payload)


def shown_again(found, link, alone_s):
    """The same, with what the hub says of every set of the picture's packets, all of which a device sends twice."""
    layout, coder, images = found.bundle.layouts[0], found.bundle.coder, len(found.device)
    sizes, ends = (part[0] for part in (found.recorded.packets.sizes, found.recorded.packets.ends))
    counts = (sizes > 0).sum(axis=0)
    states = picture_set_states(found.payload, len(sizes), twice=True)
    values = coder.coefficients(layout, found.device.latents[0])
    starts = np.concatenate([np.zeros_like(ends[:1]), ends[:-1]])
    places = np.arange(layout.count)
    held = [(places >= s[:, None]) & (places < e[:, None]) for s, e in zip(starts, ends, strict=True)]
    logits = np.full(((1 << len(ends)) - 1, images, len(found.bundle.classes)), np.nan, np.float16)
    for number in range(1, 1 << len(ends)):
        there = np.flatnonzero(number < 1 << counts)
        alone = coder.decodes_alone(layout)
        last = len(ends) if alone else ((number ^ (number + 1)) >> 1).bit_length()  # up to the first that is missing
        have = np.logical_or.reduce([np.zeros_like(held[0]), *(held[k] for k in range(last) if number >> k & 1)])
        logits[number - 1, there] = found.exits.many(0, [view(coder, layout, values[there], have[there])])
    rows = [(state.own | state.before) - 1 for state in states.states]
    truth = Truth(found.device.truths, found.device.classes)
    judged = judge_rows(logits[rows], np.ones(len(rows)), found.bundle.classes, truth, unit="group")
    packets = Packets.of(sizes[None], ends[None]).and_again([shows_again(n, alone_s, link) for n in counts.tolist()])
    recorded = replace(found.recorded, packets=packets, states=states, exits=judged, alone=alone)
    return replace(found, recorded=recorded)


def with_thresholds(bundle, thresholds, *, parts=False, patient=False):
    """The same bundle with one threshold an exit, or two, and one a local exit."""
    last = bundle.exit_stages
    whole = dict(enumerate(thresholds[:last], start=1))
    begun = {n: (t,) for n, t in enumerate(thresholds[last : 2 * last], start=1)} if parts else {}
    local = thresholds[2 * last if parts else last :]
    heads = {
        n: replace(head, threshold=level)
        for (n, head), level in zip(sorted(bundle.local_exits.items()), local, strict=False)
    }
    decider = replace(bundle.decider, thresholds=whole, begun=begun, patient=patient)
    return replace(bundle, decider=decider, local_exits=heads)
