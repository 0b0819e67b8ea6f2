# SPDX-License-Identifier: Apache-2.0
"""Records a trace: the device's stages once, then the hub's exits in every state that a lossless link brings about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fleet.bundle import Bundle
from fleet.codec import runs_of
from fleet.coders import Coder, view
from fleet.errors import FleetError
from fleet.evaluation.accuracy import Recorded
from fleet.evaluation.recorder import Recorder
from fleet.evaluation.trace import (
    SPLITS,
    Array,
    Payload,
    Split,
    State,
    all_states,
    coefficients,
    fleet_ends,
    fleet_logits,
    fleet_sets,
    fleet_sizes,
    picture_ends,
    picture_logits,
    picture_sets,
    picture_sizes,
    read_index,
)
from fleet.fusion import CloudNetwork
from fleet.layout import FloatArray, StageLayout
from fleet.packet import PICTURE

BATCH = 32
"""Images at a time; more do not fit a processor's caches."""


def save_device(recorder: Recorder, bundle: Bundle, split: Split, recorded: Recorded) -> None:
    """Write what the device gave: truths, its own answers, coefficients of every stage."""
    arrays: dict[str, Array] = {
        "truths": recorded.truths,
        "classes": recorded.classes,
        "local": recorded.local.astype(np.float16),
    }
    if recorded.local_exits:
        arrays["local-exits"] = np.stack([m for _, m in sorted(recorded.local_exits.items())]).astype(np.float16)
    for n, layout in _ladders(bundle).items():
        values = bundle.coder.coefficients(layout, recorded.latents[n])
        narrow = np.int8 if np.abs(values).max() < 128 else np.int16
        arrays[coefficients(n)] = values.astype(narrow)
    splits = {**read_index(recorder.path).splits}
    splits[split] = {**splits[split], "pictures": len(recorded)}
    recorder.save({f"{split}/{name}": array for name, array in arrays.items()}, splits=splits)


def _ladders(bundle: Bundle) -> dict[int, StageLayout]:
    """The stages whose packets are features; the picture's are recorded apart (:func:`save_picture`)."""
    return {n: layout for n, layout in bundle.layouts.items() if n != PICTURE}


def packets_of_stage(layout: StageLayout, values: Array, coder: Coder, payload: int) -> tuple[Array, Array]:
    """Bytes of every packet of a stage, and the place behind the last coefficient that it lets decode.

    Args:
        layout: of the stage.
        values: coefficients in the coder's order, shape (N, count).
        coder: of the coefficients.
        payload: bytes of a packet.

    Returns:
        Two arrays of shape (most packets, N), 0 where an image has no such packet.
    """
    rows = []
    for image in values:
        packets = []
        for run in runs_of(layout, image.astype(np.int32), coder, payload, 0, layout.count):
            header = run.header_bytes
            # A run that takes several packets decodes with its last.
            packets += [(header + len(body), run.first) for body in run.bodies[:-1]]
            packets.append((header + len(run.bodies[-1]), run.first + run.count))
        rows.append(packets)
    most = max(map(len, rows))
    sizes = np.zeros((most, len(rows)), np.uint8)
    ends = np.zeros((most, len(rows)), np.uint16)
    for n, packets in enumerate(rows):
        sizes[: len(packets), n], ends[: len(packets), n] = zip(*packets, strict=True)
    return sizes, ends


def save_packets(
    recorder: Recorder, bundle: Bundle, split: Split, payload: int, done: Callable[[], None] = lambda: None
) -> None:
    """Write sizes and ends of every packet of a split; ``done`` is called once a stage."""
    sizes, ends = [], []
    for n, layout in _ladders(bundle).items():
        size, end = packets_of_stage(layout, recorder.load(f"{split}/{coefficients(n)}"), bundle.coder, payload)
        sizes.append(size)
        ends.append(end)
        done()
    recorder.save({f"{split}/{fleet_sizes(payload)}": _stack(sizes), f"{split}/{fleet_ends(payload)}": _stack(ends)})


def _stack(parts: list[Array]) -> Array:
    """Arrays of shape (packets, N) to (stages, most packets, N)."""
    most = max(map(len, parts))
    return np.stack([np.pad(part, ((0, most - len(part)), (0, 0))) for part in parts])


def check_fusion(bundle: Bundle) -> None:
    """Refuse what a trace has no room for.

    Raises:
        FleetError: an exit fuses more than two stages.
    """
    if bundle.fuse > 2:
        raise FleetError("a trace has room for exits that fuse two stages at most: measure others with `fleet study`")


def plan_states(recorder: Recorder, bundle: Bundle, cloud: CloudNetwork, payload: int, grid: int) -> Payload:
    """The states of both splits, entered in the index.

    Raises:
        FleetError: an exit fuses three stages or more, or the trace has this payload with another grid.
    """
    check_fusion(bundle)
    if (there := recorder.index.payloads.get(payload)) is not None:
        if there.grid != grid:
            raise FleetError(f"{recorder.path} has packets of {payload} bytes with a grid of {there.grid}, not {grid}")
        return there
    counts = [(recorder.load(f"{split}/{fleet_sizes(payload)}") > 0).sum(axis=1).max(axis=1) for split in SPLITS]
    highest = [max(of_stage) for of_stage in zip(*(c.tolist() for c in counts), strict=True)]
    most = dict(zip(sorted(_ladders(bundle)), highest, strict=True))
    before = {n: n - 1 if len(stages) > 1 else None for n, stages in cloud.fused.items() if n != PICTURE}
    found = all_states(payload, grid, most, before)
    recorder.change(payloads={**recorder.index.payloads, payload: found})
    return found


def plan_sets(recorder: Recorder, bundle: Bundle, cloud: CloudNetwork, payload: int, pictures: int) -> Payload:
    """The states of lossy links for the first test images, entered in the index.

    Raises:
        FleetError: exits fuse more than two stages, the codec's packets do not decode alone, or the trace has these
            states of another number of images.
    """
    if bundle.coder.pieces:
        raise FleetError(f"packets of the codec {bundle.coder.name} do not decode alone: there are no sets to record")
    plain = plan_states(recorder, bundle, cloud, payload, recorder.index.payloads[payload].grid)
    if (there := recorder.index.sets.get(payload)) is not None:
        if there[0] != pictures:
            raise FleetError(f"{recorder.path} has sets of packets of {there[0]} pictures, not {pictures}")
        return there[1]
    sizes = recorder.load(f"test/{fleet_sizes(payload)}")[:, :, :pictures]
    most = dict(zip(sorted(_ladders(bundle)), (sizes > 0).sum(axis=1).max(axis=1).tolist(), strict=True))
    before = {n: n - 1 if len(stages) > 1 else None for n, stages in cloud.fused.items() if n != PICTURE}
    found = all_states(plain.payload, 0, most, before, sets=True)
    recorder.change(sets={**recorder.index.sets, payload: (pictures, found)})
    return found


def save_exits(
    recorder: Recorder,
    bundle: Bundle,
    cloud: CloudNetwork,
    split: Split,
    states: Payload,
    done: Callable[[int], None] = lambda _images: None,
) -> None:
    """Run every exit in every state of every image of a split; ``done`` is called with the images of each batch."""
    import torch  # noqa: PLC0415 - seconds that a reader of traces should not take

    name = f"{split}/{(fleet_sets if states.sets else fleet_logits)(states.payload)}"
    if recorder.has(name):
        return
    images = int(recorder.index.splits[split]["pictures"])
    images = recorder.index.sets[states.payload][0] if states.sets else images
    out, first = recorder.open_part(name, (len(states.states), images, len(bundle.classes)), np.float16)
    done(first)
    values = {n: recorder.load(f"{split}/{coefficients(n)}") for n in _ladders(bundle)}
    sizes, ends = (recorder.load(f"{split}/{kind(states.payload)}") for kind in (fleet_sizes, fleet_ends))
    counts = (np.asarray(sizes) > 0).sum(axis=1)  # (stages, N)
    with torch.inference_mode():
        for start in range(first, images, BATCH):
            part = slice(start, min(images, start + BATCH))
            coded = {n: v[part].astype(np.int32) for n, v in values.items()}
            batch = Batch(bundle, states, coded, counts[:, part], ends[:, :, part])
            for place, state in enumerate(states.states):
                there, maps = batch.views(state)
                row = np.full((part.stop - part.start, len(bundle.classes)), np.nan, np.float16)
                if len(there):
                    row[there] = cloud(
                        state.stage, [torch.from_numpy(m).to(memory_format=torch.channels_last) for m in maps]
                    )
                out[place, part] = row
            recorder.mark(name, part.stop)
            done(part.stop - part.start)
    recorder.close_part(name)


def save_picture(
    recorder: Recorder,
    bundle: Bundle,
    cloud: CloudNetwork,
    split: Split,
    latents: FloatArray,
    payload: int,
    done: Callable[[int], None] = lambda _images: None,
) -> None:
    """Write packets of stage 0, and exit 0's logits after each of them, of a split.

    Args:
        recorder: of the trace.
        bundle: with a stage 0.
        cloud: its hub's network.
        split: which.
        latents: of the picture, before quantisation, shape (N, c, g, g).
        payload: bytes of a packet.
        done: called with the images of each batch.
    """
    import torch  # noqa: PLC0415

    layout = bundle.layouts[PICTURE]
    values = bundle.coder.coefficients(layout, latents)
    sizes, ends = packets_of_stage(layout, values, bundle.coder, payload)
    logits = np.full((len(sizes), len(values), len(bundle.classes)), np.nan, np.float16)
    places = np.arange(layout.count)
    with torch.inference_mode():
        for start in range(0, len(values), BATCH):
            part = slice(start, min(len(values), start + BATCH))
            for packet in range(len(sizes)):
                there = start + np.flatnonzero(sizes[packet, part] > 0)
                if len(there):
                    seen = view(bundle.coder, layout, values[there], places < ends[packet, there][:, None])
                    logits[packet, there] = cloud(PICTURE, [torch.from_numpy(seen)])
            done(part.stop - part.start)
    arrays = {picture_logits(payload): logits, picture_sizes(payload): sizes, picture_ends(payload): ends}
    recorder.save({f"{split}/{name}": array for name, array in arrays.items()})


def save_picture_sets(
    recorder: Recorder, bundle: Bundle, cloud: CloudNetwork, latents: FloatArray, payload: int
) -> None:
    """Write exit 0's logits for every set of the picture's packets, of the first test images.

    Args:
        recorder: of the trace, which has the packets.
        bundle: with a stage 0.
        cloud: its hub's network.
        latents: of these images, shape (N, c, g, g).
        payload: bytes of a packet.
    """
    import torch  # noqa: PLC0415

    layout = bundle.layouts[PICTURE]
    values = bundle.coder.coefficients(layout, latents)
    ends = recorder.load(f"test/{picture_ends(payload)}")[:, : len(values)].astype(int)
    starts = np.concatenate([np.zeros_like(ends[:1]), ends[:-1]])
    counts = (recorder.load(f"test/{picture_sizes(payload)}")[:, : len(values)] > 0).sum(axis=0)
    places = np.arange(layout.count)
    # By packet, the coefficients that it holds, shape (N, count); none where an image has no such packet.
    held = [(places >= s[:, None]) & (places < e[:, None]) for s, e in zip(starts, ends, strict=True)]
    logits = np.full(((1 << len(ends)) - 1, len(values), len(bundle.classes)), np.nan, np.float16)
    with torch.inference_mode():
        for number in range(1, 1 << len(ends)):
            there = np.flatnonzero(number < 1 << counts)
            heard = [k for k in range(len(ends)) if number >> k & 1]
            if not bundle.coder.decodes_alone(layout):
                heard = [k for place, k in enumerate(heard) if place == k]  # up to the first that is missing
            have = np.logical_or.reduce([np.zeros_like(held[0]), *(held[k] for k in heard)])
            for start in range(0, len(there), BATCH):
                part = there[start : start + BATCH]
                seen = view(bundle.coder, layout, values[part], have[part])
                logits[number - 1, part] = cloud(PICTURE, [torch.from_numpy(seen)])
    recorder.save({f"test/{picture_sets(payload)}": logits})


@dataclass
class Batch:
    """A few images' coefficients, and the views that their states give.

    Attributes:
        bundle: layouts and coder.
        states: of the payload.
        values: coefficients by stage, shape (B, count).
        counts: packets by stage, shape (stages, B).
        ends: as :func:`packets_of_stage`, shape (stages, most packets, B).
    """

    bundle: Bundle
    states: Payload
    values: Mapping[int, npt.NDArray[np.int32]]
    counts: Array
    ends: Array
    _known: dict[tuple[int, int], tuple[Array, FloatArray]] = field(default_factory=dict)

    def views(self, state: State) -> tuple[Array, list[FloatArray]]:
        """The images that have a state, and what the exit is given of them, oldest stage first."""
        own, own_map = self._view(state.stage, state.own)
        found = [(own > 0, own_map)]  # of a stage of which nothing is decoded there is no exit
        if state.stage - 1 in self.values:
            before, before_map = self._view(state.stage - 1, state.before)
            found.insert(0, (before >= 0, before_map))
        there = np.flatnonzero(np.logical_and.reduce([exists for exists, _ in found]))
        return there, [m[there] for _, m in found]

    def _view(self, n: int, level: int) -> tuple[Array, FloatArray]:
        """How many coefficients a level lets decode, -1 where the image has no such packet, and the map of these."""
        if (n, level) not in self._known:
            place = sorted(self.values).index(n)
            counts, ends = self.counts[place], self.ends[place].astype(int)
            where = np.arange(self.bundle.layouts[n].count)
            if self.states.sets:
                there = level < 1 << counts
                starts = np.concatenate([np.zeros_like(ends[:1]), ends[:-1]])
                have = np.zeros((len(counts), len(where)), np.bool_)
                for packet in range(level.bit_length()):
                    if level >> packet & 1 and packet < len(ends):
                        have |= (where >= starts[packet][:, None]) & (where < ends[packet][:, None])
            else:
                packets = self.states.packets_of(level, counts)
                there = packets <= counts
                last = np.where(there, np.maximum(packets, 1) - 1, 0)
                decodes = np.where(packets > 0, ends[last, np.arange(len(counts))], 0)
                have = where < decodes[:, None]
            decoded = have.sum(axis=1)
            seen = view(self.bundle.coder, self.bundle.layouts[n], self.values[n], have)
            self._known[n, level] = np.where(there, decoded, -1), seen
        return self._known[n, level]
