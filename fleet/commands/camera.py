# SPDX-License-Identifier: Apache-2.0
"""``fleet camera``: the camera's half over a real radio, without ROS, for a Raspberry Pi for example."""

from __future__ import annotations

import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet.ble.settings import NAME_BYTES, check_name
from fleet.bundle import Bundle, Precision
from fleet.errors import FleetError
from fleet.inference import Device, Outcome
from fleet.link.accounting import InferenceAccount
from fleet.link.parameters import LinkParameters
from fleet.packet import LOCAL_ANSWER_STAGE, ExitNotice, next_id
from fleet.platforms import load_profile
from fleet.resources import expanded, find_model
from fleet.runlog import FrameRecord, RunLog, check_writable
from fleet.runtime import CancelledError, DeviceNetwork
from fleet.sources import Frame, Source, SourceTimeout, open_source, roi_named
from fleet.sources.frame import printable

if TYPE_CHECKING:
    from fleet.ble.radio import CameraRadio
    from fleet.ble.settings import CameraState
    from fleet.ble.surroundings import RadioSurroundings

READ_TIMEOUT_S = 0.5
DEFAULT_LINK = LinkParameters(ci_ms=30.0, packets=4, phy="2M", transport="bumble")
LINK_KEYS = ("ci_ms", "packets", "phy", "payload")
"""What a camera may ask a hub for. A real radio's loss and acknowledgements are what they are."""
DEFAULT_BONDS = Path("~/.config/fleet/bonds.json")


def camera(
    link: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="The link to ask the hub for: ci_ms, packets (handed over for one event), phy, payload.",
            show_default=False,
        ),
    ] = None,
    transport: Annotated[
        str, typer.Option(help="Bluetooth controller: hci-socket:0, usb:0, serial:/dev/ttyACM0,1000000, …")
    ] = "hci-socket:0",
    source: Annotated[
        str, typer.Option(help="auto, photos, a camera index, a file, directory or tar of images, a video, a URL.")
    ] = "auto",
    model: Annotated[
        str, typer.Option(help="Model bundle, the hub's too: a directory, or one in models/.")
    ] = "backyard",
    roi: Annotated[
        str, typer.Option(help="Classify the full frame, or the square around what moved: motion.")
    ] = "full",
    race: Annotated[
        bool, typer.Option("--race", help="The model's local exits run beside the radio; the first answer wins.")
    ] = False,
    thrifty: Annotated[
        bool,
        typer.Option("--thrifty", help="The picture bit by bit, 180 bytes or a packet at a time, as far as it must."),
    ] = False,
    precision: Annotated[str, typer.Option(help="Which stages run: float or int8.")] = "float",
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of one stage.")] = 1,
    platform: Annotated[
        str, typer.Option(help="Pace the stages like this processor; native: as fast as this machine.")
    ] = "native",
    frame_rate: Annotated[
        float, typer.Option(min=0.0, help="Frames a second at most; 0: as fast as inference goes.")
    ] = 2.0,
    duration: Annotated[float, typer.Option(min=0.0, help="Seconds until the end; 0: until Ctrl-C.")] = 0.0,
    secure: Annotated[bool, typer.Option("--secure", help="Bonded hubs and encrypted links only.")] = False,
    pair: Annotated[bool, typer.Option("--pair", help="With --secure: let another hub bond.")] = False,
    bonds: Annotated[
        Path | None,
        typer.Option(help="With --secure: file that keeps the bonds.", show_default=str(DEFAULT_BONDS)),
    ] = None,
    name: Annotated[str, typer.Option(help=f"What a scanner shows, {NAME_BYTES} bytes at most.")] = "fleet camera",
    json: Annotated[Path | None, typer.Option(help="Write the numbers of every frame to this file.")] = None,
) -> None:
    """Run a camera on this machine that talks to its hub over Bluetooth Low Energy; no ROS needed.

    One line a frame, a summary at the end. The hub runs the bridge with transport: bleak and the same model.
    """
    from fleet.ble.radio import CameraRadio  # noqa: PLC0415
    from fleet.ble.settings import CameraSettings, machine_address  # noqa: PLC0415 - bumble takes a second to load
    from fleet.ble.surroundings import RadioSurroundings  # noqa: PLC0415

    if precision not in ("float", "int8"):
        raise FleetError(f"precision is float or int8, not '{precision}'")
    _check_radio_options(name, secure=secure, pair=pair, bonds=bonds)
    region = roi_named(roi)
    wish = LinkParameters.parse(link or [], DEFAULT_LINK, keys=LINK_KEYS)
    if json is not None:
        check_writable(json)
    profile = load_profile(platform)
    bundle = Bundle.load(find_model(model))
    if race and not bundle.local_exits:
        raise FleetError(f"--race: the model {bundle.path} has no local exits to race with")
    if thrifty and bundle.picture is None:
        raise FleetError(f"--thrifty: the model {bundle.path} has no stage 0 to be thrifty with")
    network = DeviceNetwork(bundle, precision=_precision(precision), threads=threads)
    settings = CameraSettings(
        identity=bundle.identity,
        wish=wish,
        name=name,
        address=machine_address(name),
        secure=secure,
        pairing=pair,
        bonds=expanded(bonds or DEFAULT_BONDS) if secure else None,
    )
    around = RadioSurroundings(network.cancel)
    problems: list[str] = []

    def on_end(problem: str) -> None:
        problems.append(problem)
        around.close()

    heard = _heard(bundle, around.hear)
    radio = CameraRadio(transport, settings, on_exit=heard, on_change=_Teller().tell, on_end=on_end)
    around.radio = radio
    log = RunLog({"source": source, "model": model, "transport": transport, "platform": platform})
    with open_source(source, on_skip=_say, roi=region) as frames, _closed_by_signals(around, duration):
        radio.start()
        started = time.monotonic()
        try:
            device = Device(bundle, network, profile, network if race else None, thrifty)
            run = _Run(device, network, radio, around, log, frame_rate)
            run.frames(frames)
        finally:
            radio.close()
    seconds = time.monotonic() - started
    if log.frames:
        print("", *log.summary_lines(seconds), sep="\n", flush=True)  # noqa: T201 - the user's lines
    if json is not None:
        log.write(json, seconds)
    if problems:
        raise FleetError(problems[0])


@dataclass
class _Run:
    """Frame after frame."""

    device: Device
    network: DeviceNetwork
    radio: CameraRadio
    around: RadioSurroundings
    log: RunLog
    frame_rate: float
    # A random start: a hub that remembers the ids of before a restart must not take these for repeats.
    inference_id: int = field(default_factory=lambda: secrets.randbits(16))

    def frames(self, source: Source) -> None:
        """Until the source ends or somebody closes the surroundings."""
        due = self.around.now()
        while not self.around.closed:
            self.around.pause_until(due)
            try:
                frame = source.read(READ_TIMEOUT_S)
            except SourceTimeout:
                continue
            if frame is None or self.around.closed:
                return
            begun = self.around.now()
            due = max(due + 1 / self.frame_rate, begun) if self.frame_rate > 0 else begun
            self.inference_id = next_id(self.inference_id)
            self.around.begin(self.inference_id)
            try:
                outcome = self.device.infer(
                    self.network.prepare(frame.view), self.inference_id, self.around, ready=begun
                )
            except CancelledError:
                return
            record = self.record(outcome, frame, self.radio.report(self.inference_id))
            self.log.add(record)
            print(printable(record.line()), flush=True)  # noqa: T201 - the user's line

    def record(self, outcome: Outcome, frame: Frame, account: InferenceAccount | None) -> FrameRecord:
        """What there is to say of a frame."""
        decider, classes = self.device.bundle.decider, self.device.bundle.classes
        prediction = outcome.prediction
        compute = self.device.profile.energy_mj(outcome.busy)
        radio = account.energy_uj * 1e-3 if account is not None else None
        return FrameRecord(
            id=outcome.inference_id,
            label=prediction.group,
            class_name=classes.names[prediction.class_index],
            truth=classes.group_named(frame.truth) or None,
            confidence=round(decider.confidence(prediction), 4),
            source="hub" if outcome.by_hub else "device",
            exit_stage=outcome.stage if outcome.by_hub else None,
            stages_run=outcome.stages_run,
            packets=account.packets_sent if account is not None else None,
            packets_lost=None,
            bytes=account.bytes_sent if account is not None else None,
            events=account.events if account is not None else None,
            latency_ms=round(outcome.latency * 1e3, 3),
            compute_ms=round(outcome.busy * 1e3, 3),
            energy_mj=round(compute + radio, 5) if radio is not None else None,
            radio_energy_mj=round(radio, 5) if radio is not None else None,
            name=frame.name,
            local_stage=outcome.local_stage,
        )


class _Teller:
    """Says what the radio does, each thing once."""

    def __init__(self) -> None:
        self._told = ""

    def tell(self, state: CameraState) -> None:
        """The radio's state has changed."""
        line = f"radio: {state.phase.value}"
        if state.hub:
            link = state.link
            line += f" ({state.hub}, {link.ci_ms:g} ms, {link.phy}, {link.payload} bytes"
            line += ", encrypted)" if state.encrypted else ")"
        line += f": {state.message}" if state.message else ""
        if line != self._told:
            self._told = line
            _say(line)


def _heard(bundle: Bundle, hear: Callable[[ExitNotice], object]) -> Callable[[ExitNotice], None]:
    """Only notices that this model can mean reach the device."""

    def on_exit(notice: ExitNotice) -> None:
        known = notice.stage in bundle.layouts or notice.stage == LOCAL_ANSWER_STAGE
        if known and notice.class_index < len(bundle.classes):
            hear(notice)

    return on_exit


@contextmanager
def _closed_by_signals(around: RadioSurroundings, duration: float) -> Iterator[None]:
    """Ctrl-C, SIGTERM and the end of the duration close the surroundings."""

    def on_signal(_number: int, _frame: Any) -> None:
        threading.Thread(target=around.close, daemon=True).start()  # the lock may be held right here

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    timer = threading.Timer(duration, around.close)
    timer.daemon = True
    if duration > 0:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_radio_options(name: str, *, secure: bool, pair: bool, bonds: Path | None) -> None:
    for option, given in (("--pair", pair), ("--bonds", bonds is not None)):
        if given and not secure:
            raise FleetError(f"{option} does nothing without --secure: only a secure camera bonds")
    check_name(name)


def _precision(name: str) -> Precision:
    return "int8" if name == "int8" else "float"


def _say(line: str) -> None:
    print(f"fleet: {printable(line)}", file=sys.stderr, flush=True)  # noqa: T201 - the user's line
