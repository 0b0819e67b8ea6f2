# SPDX-License-Identifier: Apache-2.0
"""The real radios behind the bridge node: each is one half of what the emulated link is whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from fleet.ble.settings import CameraSettings, CameraState, Phase, machine_address
from fleet.bundle import Bundle
from fleet.errors import FleetError
from fleet.link.accounting import InferenceAccount, LinkTotals
from fleet.link.parameters import LinkParameters
from fleet.packet import ExitNotice, Header
from fleet.resources import expanded, find_model

if TYPE_CHECKING:
    from fleet.ble.radio import CameraRadio, HubRadio


@dataclasses.dataclass(frozen=True)
class RadioSettings:
    """What a real radio needs to know beyond the link.

    Attributes:
        link: that the camera asks for.
        model: bundle; both ends must hold the same.
        adapter: the camera's controller, by bumble's name.
        address: of the camera that the hub takes; any where empty.
        name: of the camera, for scanners.
        secure: bonded and encrypted only.
        pair: the camera takes another bond.
        bonds: the camera's file of bonds.
        attempts: failures in a row after which the hub gives up; 0: never.
    """

    link: LinkParameters
    model: str
    adapter: str
    address: str
    name: str
    secure: bool
    pair: bool
    bonds: str
    attempts: int


@dataclasses.dataclass(frozen=True)
class Happenings:
    """What a radio tells the node, from the radio's own thread.

    Attributes:
        packet: a packet was heard, with how many seconds ago its frame was captured, if it says that.
        notice: an exit notice was heard, once an inference.
        changed: the link or its state has changed.
        ended: the radio has given up, with the reason in one line.
        log: something that a user should read.
    """

    packet: Callable[[bytes, float | None], None]
    notice: Callable[[ExitNotice], None]
    changed: Callable[[], None]
    ended: Callable[[str], None]
    log: Callable[[str], None]


class RealRadio(Protocol):
    """One half of a link over the air."""

    def start(self) -> None:
        """Begin.

        Raises:
            FleetError: the radio cannot be used.
        """

    def close(self) -> None:
        """Hang up."""

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """Hand a stage's packets to the radio (camera)."""

    def stop(self, notice: ExitNotice) -> None:
        """Send an exit notice (hub)."""

    def ask(self, link: LinkParameters) -> str:
        """Wish for another link; what stands in the way, or an empty text."""

    @property
    def connected(self) -> bool:
        """Whether features may travel."""

    @property
    def link(self) -> LinkParameters:
        """The link as it is, or as it is wished for where there is none."""

    def totals(self) -> LinkTotals:
        """Running totals."""

    def report(self, inference_id: int) -> InferenceAccount | None:
        """What the radio did for an inference, where it knows."""

    def health(self) -> tuple[str, Mapping[str, object]]:
        """One line, and values for diagnostics."""


def open_radio(transport: str, settings: RadioSettings, happens: Happenings) -> RealRadio:
    """The radio of that name.

    Raises:
        FleetError: no such radio, no such model, or its library is not installed.
    """
    identity = Bundle.load(find_model(settings.model)).identity
    return (CameraHalf if transport == "bumble" else HubHalf)(settings, identity, happens)


class _Half:
    """What both halves do with the radio that they are around."""

    _radio: CameraRadio | HubRadio
    _happens: Happenings
    _message = ""

    def start(self) -> None:
        """See :class:`RealRadio`."""
        self._radio.start()

    def close(self) -> None:
        """See :class:`RealRadio`."""
        self._radio.close()

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """Only a camera has features."""

    def stop(self, notice: ExitNotice) -> None:
        """Only a hub sends exit notices."""

    def _tell(self, message: str) -> None:
        """The radio's state has changed; a user reads each message once."""
        if message and message != self._message:
            self._happens.log(message)
        self._message = message
        self._happens.changed()


class CameraHalf(_Half):
    """``transport: bumble``: takes features, gives exit notices."""

    _radio: CameraRadio

    def __init__(self, settings: RadioSettings, identity: bytes, happens: Happenings) -> None:
        from fleet.ble.radio import CameraRadio  # noqa: PLC0415 - only with a radio

        self._happens = happens
        self._state: CameraState | None = None
        self._wish = settings.link
        self._radio = CameraRadio(
            settings.adapter,
            CameraSettings(
                identity=identity,
                wish=settings.link,
                name=settings.name,
                address=machine_address(settings.name),
                secure=settings.secure,
                pairing=settings.pair,
                bonds=expanded(settings.bonds).absolute() if settings.bonds else None,
            ),
            on_exit=happens.notice,
            on_change=self._on_change,
            on_end=happens.ended,
        )

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """See :class:`RealRadio`."""
        self._radio.offer(inference_id, stage, packets)

    def ask(self, link: LinkParameters) -> str:
        """See :class:`RealRadio`."""
        self._wish = link
        self._radio.ask(link)
        return ""

    @property
    def connected(self) -> bool:
        """See :class:`RealRadio`."""
        return self._state is not None and self._state.phase is Phase.SENDING

    @property
    def link(self) -> LinkParameters:
        """See :class:`RealRadio`."""
        return self._state.link if self._state is not None else self._wish

    def totals(self) -> LinkTotals:
        """Of this connection."""
        return self._radio.statistics()

    def report(self, inference_id: int) -> InferenceAccount | None:
        """See :class:`RealRadio`."""
        return self._radio.report(inference_id)

    def health(self) -> tuple[str, Mapping[str, object]]:
        """See :class:`RealRadio`."""
        state = self._state
        if state is None:
            return "the radio is off", {}
        values = {"hub": state.hub, "encrypted": state.encrypted, "connections": state.connections}
        return state.message or state.phase.value, values

    def _on_change(self, state: CameraState) -> None:
        self._state = state
        self._tell(state.message)


class HubHalf(_Half):
    """``transport: bleak``: gives packets, takes exit notices."""

    _radio: HubRadio

    def __init__(self, settings: RadioSettings, identity: bytes, happens: Happenings) -> None:
        from fleet.ble.hub import HubSettings, HubState  # noqa: PLC0415 - only with a radio
        from fleet.ble.hub import Phase as HubPhase  # noqa: PLC0415
        from fleet.ble.radio import HubRadio  # noqa: PLC0415

        self._happens = happens
        self._wish = settings.link
        self._connected = HubPhase.CONNECTED
        self._state = HubState()
        self._bytes = 0
        self._radio = HubRadio(
            HubSettings(identity, address=settings.address, secure=settings.secure, attempts=settings.attempts),
            on_packet=self._on_packet,
            on_change=self._on_change,
            on_end=happens.ended,
        )

    def stop(self, notice: ExitNotice) -> None:
        """See :class:`RealRadio`."""
        self._radio.stop(notice)

    def ask(self, link: LinkParameters) -> str:  # noqa: ARG002 - the same as the camera's
        """A hub on bleak cannot choose: see :class:`RealRadio`."""
        return "over transport bleak the camera asks for the link: renegotiate on the camera's side"

    @property
    def connected(self) -> bool:
        """See :class:`RealRadio`."""
        return self._state.phase is self._connected

    @property
    def link(self) -> LinkParameters:
        """See :class:`RealRadio`."""
        said = self._state.link
        if said is None:
            return self._wish
        try:
            return self._wish.replace(ci_ms=said.ci_ms, phy=said.phy, payload=said.payload, packets=said.packets)
        except FleetError:  # a camera that says what no link can be
            return self._wish

    def totals(self) -> LinkTotals:
        """What the hub can know: packets heard, and the gaps between them."""
        received, lost, _, exits = self._radio.counts()
        return LinkTotals(sent=received + lost, lost=lost, bytes_sent=self._bytes, exits_sent=exits)

    def report(self, inference_id: int) -> InferenceAccount | None:  # noqa: ARG002 - only the camera knows
        """Only the camera knows."""
        return None

    def health(self) -> tuple[str, Mapping[str, object]]:
        """See :class:`RealRadio`."""
        state = self._state
        received, lost, malformed, _ = self._radio.counts()
        values: dict[str, object] = {
            "camera": state.camera,
            "connections": state.connections,
            "failures in a row": state.failures,
            "packets received": received,
            "packets lost": lost,
            "malformed": malformed,
        }
        if state.link is not None:
            values |= {"encrypted": state.link.encrypted, "supervision [ms]": state.link.supervision_ms}
        return state.message or state.phase.value, values

    def _on_packet(self, packet: bytes) -> None:
        self._bytes += len(packet)
        link = self._state.link
        ci_s = link.ci_ms * 1e-3 if link is not None else 0.0
        # The radio carries no time: a frame waits half an interval for its first event in the mean.
        header = Header.unpack(packet)
        self._happens.packet(packet, None if header.number else (header.age + 0.5) * ci_s)

    def _on_change(self, state):  # type: ignore[no-untyped-def] - HubState, whose module needs bleak
        self._state = state
        self._tell(state.message)
