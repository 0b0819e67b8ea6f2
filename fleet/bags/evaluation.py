# SPDX-License-Identifier: Apache-2.0
"""A whole bag through the code that ran it: which camera from what, with which model, link and platform."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fleet.bags.comparison import Comparison
from fleet.bags.definitions import IMAGE, PACKETS
from fleet.bags.reader import BagReader
from fleet.bags.recording import Recording, Setup, read_recordings
from fleet.bags.replay import ForwardMany, ImageReplay, PacketReplay, Replay
from fleet.bundle import Bundle
from fleet.codec import FloatArray
from fleet.coders import coder_named
from fleet.errors import FleetError
from fleet.hub import Hub
from fleet.inference import Device
from fleet.link.parameters import LinkParameters
from fleet.platforms import PlatformProfile, load_profile
from fleet.resources import find_model
from fleet.sources.frame import printable

From = Literal["auto", "images", "packets"]
PLATFORM = "cortex-a77-500"
"""Where neither the user nor the bag names one: that of config/backyard_camera.yaml."""
MODEL = "backyard"
EXIT_MS = 5.0
TOPIC_OF: Mapping[str, str] = {"images": IMAGE, "packets": PACKETS}


@dataclass(frozen=True)
class Wishes:
    """What a user may say; what is left out is as the bag has it.

    Attributes:
        source: what to replay from; ``auto`` takes pictures where a camera has them.
        cameras: namespaces; empty for all.
        model: bundle.
        link: ``KEY=VALUE`` settings.
        platform: profile of the device.
        exit_ms: what a forward pass takes on the hub, in ms; None as the bag's hub says, else :data:`EXIT_MS`.
        seed: of phases and losses.
    """

    source: From = "auto"
    cameras: Sequence[str] = ()
    model: str | None = None
    link: Sequence[str] = ()
    platform: str | None = None
    exit_ms: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """The outcome.

    Attributes:
        conditions: under which the numbers hold.
        notes: what a reader of the numbers should know, a line each.
        cameras: by namespace.
    """

    conditions: Mapping[str, Any]
    notes: Sequence[str]
    cameras: Mapping[str, Comparison]

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "conditions": dict(self.conditions),
            "notes": list(self.notes),
            "cameras": {camera: found.as_json() for camera, found in self.cameras.items()},
        }


def evaluate_bag(
    path: Path, wishes: Wishes, progress: Callable[[str, int], Callable[[], None]] = lambda _what, _total: lambda: None
) -> Evaluation:
    """Replay a bag.

    Args:
        path: the bag.
        wishes: of the user.
        progress: told what begins and of how many pieces; gives what is called after each.

    Raises:
        FleetError: something is wrong with the bag, the model, or what was asked for.
    """
    with BagReader(path) as bag:
        chosen = _cameras(bag, wishes.cameras)
        sources = {camera: _source(bag, camera, wishes.source) for camera in chosen}
        from_images = [camera for camera in chosen if sources[camera] == "images"]
        from_packets = [camera for camera in chosen if sources[camera] == "packets"]
        if not from_images and not from_packets:
            wanted = "pictures or packets" if wishes.source == "auto" else TOPIC_OF[wishes.source]
            raise FleetError(f"{path} has no {wanted} of {', '.join(chosen)}: nothing can be replayed")
        if not from_images and (wishes.link or wishes.platform):
            raise FleetError("packets are replayed as they came: --link and --platform are for a replay from images")
        recordings = read_recordings(bag, chosen)
        return _Run(bag, recordings, wishes, progress).run(from_images, from_packets)


def _cameras(bag: BagReader, wanted: Sequence[str]) -> list[str]:
    if not wanted:
        return bag.cameras
    chosen = ["/" + camera.strip("/") for camera in wanted]
    for camera in chosen:
        if camera not in bag.cameras:
            raise FleetError(f"{bag.path} has no camera {camera}; it has: {', '.join(bag.cameras)}")
    return list(dict.fromkeys(chosen))


def _source(bag: BagReader, camera: str, wanted: From) -> str | None:
    """What a camera is replayed from; None where there is nothing."""
    choices = ("images", "packets") if wanted == "auto" else (wanted,)
    return next((source for source in choices if bag.count(camera, TOPIC_OF[source])), None)


class _Run:
    """One evaluation under way: the model, and what there is to say about it."""

    def __init__(
        self,
        bag: BagReader,
        recordings: dict[str, Recording],
        wishes: Wishes,
        progress: Callable[[str, int], Callable[[], None]],
    ) -> None:
        from fleet.fusion import load_cloud  # noqa: PLC0415 - with torch, which --help should not wait for

        self.bag = bag
        self.recordings = recordings
        self.wishes = wishes
        self.progress = progress
        self.notes: list[str] = []
        self.bundle = Bundle.load(find_model(wishes.model or self._model_of_bag()))
        cloud = load_cloud(self.bundle)
        self.fused = cloud.fused
        self.forward = forward_many(cloud)
        measured = [recording.setup.exit_ms for recording in recordings.values()]
        said = next((ms for ms in (wishes.exit_ms, *measured) if ms is not None), None)
        if said is None:
            self.notes.append(
                f"the bag does not say how long an exit takes on its hub: {EXIT_MS:g} ms taken (--exit-ms)"
            )
        self.exit_ms = EXIT_MS if said is None else said

    def run(self, from_images: Sequence[str], from_packets: Sequence[str]) -> Evaluation:
        silent = [camera for camera in self.recordings if camera not in {*from_images, *from_packets}]
        if silent:
            self.notes.append(f"nothing to replay of {', '.join(silent)}")
        self._check_bundle(from_packets)
        setups = {camera: self._setup(camera) for camera in from_images}
        replays: dict[str, Replay] = {}
        for camera in from_images:
            replays[camera] = self._images(camera, *setups[camera])
        if from_packets:
            total = sum(self.bag.count(camera, PACKETS) for camera in from_packets)
            hub = Hub(self.bundle, self.fused)
            packets = PacketReplay(hub, self.forward, self.exit_ms / 1000)
            replays |= packets.run(self.bag, from_packets, self.progress("packets", total))
        self._note_what_came(replays)
        cameras = {c: Comparison(self.recordings[c], replays[c], self.bundle.classes) for c in sorted(replays)}
        return Evaluation(self._conditions(setups), tuple(self.notes), cameras)

    def _images(self, camera: str, setup: Setup, profile: PlatformProfile) -> Replay:
        from fleet.runtime import DeviceNetwork  # noqa: PLC0415

        bundle = replace(self.bundle, coder=coder_named(setup.codec)) if setup.codec else self.bundle
        network = DeviceNetwork(bundle, precision="int8" if setup.precision == "int8" else "float")
        race = network if setup.race else None
        replaying = ImageReplay(
            Device(bundle, network, profile, race=race),
            network.prepare,
            self.forward,
            self.fused,
            self.exit_ms / 1000,
            self.wishes.seed,
        )
        done = self.progress(f"pictures of {camera}", self.bag.count(camera, IMAGE))
        return replaying.run(self.bag, self.recordings[camera], self._link, done)

    def _link(self, link: LinkParameters) -> LinkParameters:
        return LinkParameters.parse(self.wishes.link, link)

    def _model_of_bag(self) -> str:
        """The model that the bag's nodes named, if it is one of this machine, else the one that is shipped."""
        for recording in self.recordings.values():
            if recording.setup.model:
                try:
                    find_model(recording.setup.model)
                except FleetError:
                    continue
                return recording.setup.model
        return MODEL

    def _check_bundle(self, from_packets: Sequence[str]) -> None:
        """Say so, or refuse, where the bag was recorded with another bundle."""
        own = self.bundle.identity.hex()
        for camera, recording in self.recordings.items():
            theirs = recording.setup.bundle
            where = f"{camera} was recorded with another bundle"
            named = f" ({printable(recording.setup.model)}, {printable(theirs)})" if theirs else ""
            if theirs and theirs != own:
                if camera in from_packets and self.wishes.model is None:
                    raise FleetError(
                        f"{where}{named} than {self.bundle.path} ({own}), to which its packets mean nothing: "
                        "give that bundle with --model"
                    )
                self.notes.append(f"{where}{named} than this one ({own})")
            elif not theirs and (stranger := self._stranger(recording)):
                self.notes.append(f"{where} than {self.bundle.name}: it knows {stranger}")

    def _stranger(self, recording: Recording) -> str | None:
        """A class of the bag's labels that this bundle does not have in that place."""
        names = self.bundle.classes.names
        for frame in recording.frames.values():
            label = frame.label
            # A message cuts names of classes to 128 bytes.
            if label is not None and not (
                label.class_index < len(names) and names[label.class_index].startswith(label.class_name)
            ):
                return f"class {label.class_index}, '{label.class_name}'"
        return None

    def _setup(self, camera: str) -> tuple[Setup, PlatformProfile]:
        """The bag's own set-up with the user's platform, or with one that can be paced."""
        setup = self.recordings[camera].setup
        name, scale = (self.wishes.platform, 1.0) if self.wishes.platform else (setup.platform, setup.time_scale)
        if name and not self.wishes.platform:
            try:
                if load_profile(name).paced:
                    return setup, load_profile(name, time_scale=scale)
                why = f"ran on platform {name}, whose times are not those of a replay"
            except FleetError:
                why = f"ran on platform {name}, which is not here"
            self.notes.append(f"{camera} {why}: replayed as {PLATFORM} (--platform)")
            name = ""
        profile = load_profile(name or PLATFORM)
        if not profile.paced:
            raise FleetError(f"platform {name} does not say how long a stage takes: choose another")
        return setup, profile

    def _note_what_came(self, replays: Mapping[str, Replay]) -> None:
        for camera, replay in replays.items():
            if replay.source == "images" and any("jp" in text.lower() for text in replay.formats):
                self.notes.append(
                    f"the pictures of {camera} are JPEG: the run itself saw them before they were compressed"
                )
            if replay.unreadable == replay.total:
                what = "pictures" if replay.source == "images" else "packets"
                raise FleetError(
                    f"{self.bag.path}: none of the {replay.total} {what} of {camera} can be read"
                    + (f" by {self.bundle.path}" if what == "packets" else "")
                )

    def _conditions(self, setups: Mapping[str, tuple[Setup, PlatformProfile]]) -> dict[str, Any]:
        return {
            "bag": str(self.bag.path),
            "bundle": self.bundle.name,
            "identity": self.bundle.identity.hex(),
            "exit_ms": self.exit_ms,
            "seed": self.wishes.seed,
            "devices": {
                camera: {
                    "platform": profile.name,
                    "time_scale": profile.time_scale,
                    "precision": setup.precision or "float",
                    "codec": setup.codec or self.bundle.coder.name,
                    "race": setup.race,
                    "links": [
                        _told(self._link(link)) for _, link in self.recordings[camera].links or [(0, LinkParameters())]
                    ],
                }
                for camera, (setup, profile) in sorted(setups.items())
            },
        }


def _told(link: LinkParameters) -> dict[str, Any]:
    named = {key: getattr(link, key) for key in ("ci_ms", "packets", "payload", "phy", "loss", "ack")}
    return named | {"effective_packets": link.effective_packets}


def forward_many(cloud: Any) -> ForwardMany:
    """The hub's network on arrays.

    Args:
        cloud: a :class:`fleet.fusion.CloudNetwork`.
    """
    import torch  # noqa: PLC0415

    @torch.inference_mode()
    def forward(views: Mapping[int, Sequence[FloatArray]]) -> Mapping[int, FloatArray]:
        given = {n: [torch.from_numpy(m) for m in maps] for n, maps in views.items()}
        return {n: rows.numpy() for n, rows in cloud.forward_many(given).items()}

    return forward
