# SPDX-License-Identifier: Apache-2.0
"""The hub's radio: a BLE central on bleak, so on whatever Bluetooth the machine has.

It finds a camera by the service, makes sure that both hold the same bundle, subscribes, says *ready*, and from then
on gives every packet to a callback and sends exit notices. When anything goes away (camera, adapter, daemon, bond)
it begins again from nothing, with a fresh scanner and a fresh client, ever more slowly, and says what it is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeVar

from fleet.ble import service
from fleet.ble.gaps import GapCounter
from fleet.ble.service import LinkReport
from fleet.ble.waiting import is_set_within, within
from fleet.errors import FleetError
from fleet.link.downlink import NoticeRepeater
from fleet.packet import ExitNotice, Header, PacketError

try:
    from bleak import BleakAdapter, BleakClient, BleakScanner
    from bleak.backends.adapter import BaseBleakAdapter
    from bleak.backends.client import BaseBleakClient
    from bleak.backends.device import BLEDevice
    from bleak.backends.scanner import BaseBleakScanner
    from bleak.exc import (
        BleakBluetoothNotAvailableError,
        BleakCharacteristicNotFoundError,
        BleakDBusError,
        BleakError,
        BleakGATTProtocolError,
    )
except ImportError as err:
    raise service.missing("bleak") from err

T = TypeVar("T")

SCAN_S = 10.0
CONNECT_S = 20.0
REQUEST_S = 30.0  # what a GATT request may take: the specification gives up after as long
CLEAN_UP_S = 5.0
STABLE_S = 5.0
"""A connection that lasted so long ends a series of failures."""
QUIET_S = 60.0
"""After so long without a packet the link characteristic is read, to see whether the camera is still there."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
SHORTEST_REPEAT_S = 0.02
AVOIDED_S = 60.0
"""So long a camera is not tried again that is not this hub's."""
BOND_DOUBTS = 3
"""Failures in a row at the first encrypted request after which the bond is thought lost. Throwing a good one away is
worse than waiting: the camera takes another only when it is told to."""
_ENCRYPTION_ERRORS = (0x05, 0x08, 0x0C, 0x0F)  # ATT: insufficient authentication, authorization, key size, encryption

_NOT_PERMITTED = ("org.bluez.Error.NotPermitted", "org.bluez.Error.NotAuthorized")  # BlueZ: not paired

_TROUBLE = (BleakError, asyncio.TimeoutError, OSError, EOFError, PacketError)
"""What may happen to a radio at any time: bleak's own errors, and what comes through from D-Bus when it restarts."""


class Phase(Enum):
    """What the hub's radio is doing."""

    OFF = "off"
    SEARCHING = "searching for the camera"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    PAUSING = "pausing after a failure"


@dataclass(frozen=True)
class HubState:
    """The hub's radio at a glance.

    Attributes:
        phase: what it is doing.
        camera: address of the camera, empty before one was found.
        link: what the camera says of the link; None where there is none.
        failures: attempts that failed since it was last connected.
        connections: how often it was connected.
        message: what the user should know, empty when all is well.
    """

    phase: Phase = Phase.OFF
    camera: str = ""
    link: LinkReport | None = None
    failures: int = 0
    connections: int = 0
    message: str = ""


@dataclass(frozen=True)
class HubSettings:
    """Which camera, and how hard to try.

    Attributes:
        identity: of the hub's bundle, eight bytes.
        address: of the one camera to take; where empty, any that offers the service and holds the same bundle.
        secure: bond with the camera and encrypt.
        attempts: failures in a row after which :meth:`Hub.run` gives up; 0: never.
    """

    identity: bytes
    address: str = ""
    secure: bool = False
    attempts: int = 0


@dataclass(frozen=True)
class Backend:
    """bleak's back ends, where others than the platform's are wanted."""

    scanner: type[BaseBleakScanner] | None = None
    client: type[BaseBleakClient] | None = None
    adapter: type[BaseBleakAdapter] | None = None


class Hub:
    """A central for one camera. To be used from one event loop.

    Args:
        settings: which camera, and how hard to try.
        on_packet: called with every packet as it arrives; must not block.
        on_change: called whenever the state has changed.
        backend: other back ends for bleak.

    Attributes:
        gaps: what was lost, from sequence numbers.
        malformed: notifications that are no packets.
        exits_sent: exit notices written, repeats included.
    """

    def __init__(
        self,
        settings: HubSettings,
        *,
        on_packet: Callable[[bytes], None],
        on_change: Callable[[HubState], None] = lambda _state: None,
        backend: Backend | None = None,
    ) -> None:
        self.settings = settings
        self.gaps = GapCounter()
        self.malformed = self.exits_sent = 0
        self._on_packet = on_packet
        self._on_change = on_change
        self._backend = backend or Backend()
        self._state = HubState()
        self._notices = NoticeRepeater()
        self._wake = asyncio.Event()
        self._lost = False
        self._bond_doubts = 0  # failures in a row at the first encrypted request
        self._bond_dropped = False  # the bond was thrown away in this series of failures
        self._avoided: dict[str, tuple[float, str]] = {}  # strangers' addresses: until when, and why

    @property
    def state(self) -> HubState:
        """The radio at a glance."""
        return self._state

    def stop(self, notice: ExitNotice) -> bool:
        """Send an exit notice, and repeat it until a packet of a newer inference is heard, five times at most.

        Returns:
            Whether it is new, see :meth:`fleet.link.downlink.NoticeRepeater.put`.

        Raises:
            PacketError: the notice does not fit its six bytes.
        """
        taken = self._notices.put(notice.on_air())
        self._wake.set()
        return taken

    async def run(self) -> None:
        """Find the camera and stay connected, until cancelled.

        Raises:
            FleetError: the one camera asked for holds another bundle or wants another kind of hub, or too many
                attempts failed in a row.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                connected_at: float | None = None
                problem = "the camera went away"
                try:
                    async with contextlib.AsyncExitStack() as stack:
                        client = await self._connect(stack)
                        connected_at = loop.time()
                        await self._serve(client)
                except _StrangerError as err:
                    problem = self._avoid(err)
                except _TROUBLE as err:
                    problem = self._explain(err)
                if connected_at is not None and loop.time() - connected_at >= STABLE_S:
                    self._tell(failures=0)
                await self._pause(problem)
        finally:
            self._tell(phase=Phase.OFF, link=None)

    # One connection ---------------------------------------------------------------------------------------
    async def _connect(self, stack: contextlib.AsyncExitStack) -> BleakClient:
        self._tell(phase=Phase.SEARCHING, link=None)
        await self._hang_up_leftovers()
        device = await self._find()
        self._tell(phase=Phase.CONNECTING, camera=device.address)
        self._lost = False
        client = BleakClient(
            device,
            self._on_disconnected,
            services=[service.SERVICE],
            timeout=CONNECT_S,
            backend=self._backend.client,
        )
        stack.push_async_callback(self._hang_up, client)
        await within(2 * CONNECT_S, client.connect())
        report = LinkReport.unpack(await self._first_read(client))
        self._check_identity(report, device.address)
        self.gaps.restart()
        await self._request(client.start_notify(service.LINK, self._on_link, bluez={"use_start_notify": False}))
        await self._request(client.start_notify(service.FEATURES, self._on_features, bluez={"use_start_notify": False}))
        await self._request(client.write_gatt_char(service.EXIT, service.ready(self.settings.identity), response=True))
        self._bond_doubts, self._bond_dropped = 0, False
        self._tell(phase=Phase.CONNECTED, link=report, message="", connections=self._state.connections + 1)
        return client

    async def _find(self) -> BLEDevice:
        wanted = self.settings.address.lower()
        options: dict[str, Any] = {} if self._backend.scanner is None else {"backend": self._backend.scanner}
        device = await BleakScanner.find_device_by_filter(
            lambda found, said: service.SERVICE in said.service_uuids and self._takes(found.address),
            timeout=SCAN_S,
            service_uuids=[service.SERVICE],
            **options,
        )
        if device is None:
            if self._avoided:
                raise _StrangerError("", "; ".join(reason for _, reason in self._avoided.values()))
            raise _NotFoundError(f"no camera{f' at {self.settings.address}' if wanted else ''} is heard")
        return device

    def _takes(self, address: str) -> bool:
        """Whether a camera may be this hub's."""
        now = asyncio.get_running_loop().time()
        self._avoided = {stranger: entry for stranger, entry in self._avoided.items() if entry[0] > now}
        return address.lower() == self.settings.address.lower() or not (
            self.settings.address or address in self._avoided
        )

    def _avoid(self, stranger: _StrangerError) -> str:
        """Leave somebody else's camera alone for a while; what to tell the user.

        Raises:
            FleetError: it is the one that was asked for.
        """
        if self.settings.address:
            raise FleetError(str(stranger)) from stranger
        if stranger.address:
            self._avoided[stranger.address] = (asyncio.get_running_loop().time() + AVOIDED_S, str(stranger))
        return f"{stranger}; looking for another one"

    async def _hang_up_leftovers(self) -> None:
        """A camera that is connected to a hub that died does not advertise; the adapter still holds the connection."""
        if self._backend.client is not None and self._backend.adapter is None:
            return
        with contextlib.suppress(*_TROUBLE, NotImplementedError, TypeError):
            adapter = await within(CLEAN_UP_S, BleakAdapter.get(backend=self._backend.adapter))
            for device in await within(CLEAN_UP_S, adapter.get_connected_devices([service.SERVICE])):
                if self.settings.address.lower() in ("", device.address.lower()):
                    client = BleakClient(device, backend=self._backend.client)
                    await within(CLEAN_UP_S, client.connect())
                    await self._hang_up(client)

    async def _first_read(self, client: BleakClient) -> bytes:
        """The link characteristic; with ``secure`` the first request that the bond must carry.

        A back end may say that it is paired and find out only here that the camera no longer knows the key.
        """
        try:
            if self.settings.secure:
                with contextlib.suppress(NotImplementedError):  # macOS pairs by itself when it has to
                    await within(REQUEST_S, client.pair())
            return bytes(await self._request(client.read_gatt_char(service.LINK)))
        except _TROUBLE as err:
            if self.settings.secure:
                await self._doubt_bond(client, err)
            raise

    async def _doubt_bond(self, client: BleakClient, err: BaseException) -> None:
        """Throw the bond away once it has failed often enough, so that the next attempt pairs anew.

        Raises:
            BleakError: says so; or what the user can do where another bond did not help.
        """
        self._bond_doubts += 1
        if self._bond_dropped:
            raise BleakError(
                "the camera does not let this hub pair (is it bonded to another one?): start the camera with --pair, "
                "and register an agent without keys on the hub"
            ) from err
        if self._bond_doubts >= BOND_DOUBTS:
            self._bond_dropped = True
            with contextlib.suppress(*_TROUBLE, NotImplementedError):
                await within(CLEAN_UP_S, client.unpair())
            raise BleakError("the bond with the camera is lost: pairing again") from err

    def _check_identity(self, report: LinkReport, address: str) -> None:
        if report.identity != self.settings.identity:
            raise _StrangerError(
                address,
                f"the camera at {address} runs another model ({report.identity.hex()}) than this hub "
                f"({self.settings.identity.hex()}): give both the same bundle, or choose another camera by its address",
            )

    async def _serve(self, client: BleakClient) -> None:
        """Send notices until the connection is lost."""
        quiet_since = self.gaps.received
        while not self._lost:
            notice = self._notices.take()
            if notice is not None:
                await self._request(client.write_gatt_char(service.EXIT, notice.pack(), response=False))
                self.exits_sent += 1
                link = self._state.link
                await asyncio.sleep(max(SHORTEST_REPEAT_S, link.ci_ms / 1000.0 if link is not None else 0.0))
                continue
            self._wake.clear()
            if not await is_set_within(QUIET_S, self._wake):
                if quiet_since == self.gaps.received and not self._lost:
                    self._on_link(None, await self._request(client.read_gatt_char(service.LINK)))
                quiet_since = self.gaps.received

    async def _request(self, request: Awaitable[T]) -> T:
        return await within(REQUEST_S, request)

    async def _hang_up(self, client: BleakClient) -> None:
        with contextlib.suppress(*_TROUBLE):
            await within(CLEAN_UP_S, client.disconnect())

    async def _pause(self, problem: str) -> None:
        failures = self._state.failures + 1
        self._tell(phase=Phase.PAUSING, link=None, failures=failures, message=problem)
        if self.settings.attempts and failures >= self.settings.attempts:
            raise FleetError(f"no connection to the camera after {failures} attempts: {problem}")
        await asyncio.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16)))

    def _explain(self, err: BaseException) -> str:
        """What a failure means, in one line.

        Raises:
            FleetError: trying the one camera that was asked for again cannot help.
        """
        camera = self._state.camera
        if isinstance(err, BleakGATTProtocolError):
            code = int(getattr(err, "code", 0) or 0)
            if code == service.ERROR_OTHER_BUNDLE:
                return self._avoid(
                    _StrangerError(
                        camera, f"the camera at {camera} runs another model than this hub: give both the same bundle"
                    )
                )
        if self._wants_a_bond(err) and not self.settings.secure:
            return self._avoid(
                _StrangerError(camera, f"the camera at {camera} talks to bonded hubs only: set secure on the hub, too")
            )
        if isinstance(err, BleakCharacteristicNotFoundError):
            return "the camera has not all of the characteristics: does it run the same version?"
        if isinstance(err, BleakBluetoothNotAvailableError):
            return f"there is no Bluetooth, or it is switched off ({_line(err)})"
        if isinstance(err, _NotFoundError):
            return f"{err}: is it switched on, near, and not connected to another hub?"
        if isinstance(err, asyncio.TimeoutError):
            return f"no answer while {self._state.phase.value}"
        if isinstance(err, OSError | EOFError):
            return f"the Bluetooth daemon does not answer ({_line(err)}): is bluetoothd running?"
        if isinstance(err, PacketError):
            return f"the camera sends what this version does not understand ({_line(err)})"
        return _line(err)

    def _wants_a_bond(self, err: BaseException) -> bool:
        """Whether a request was refused because the link is not encrypted."""
        if isinstance(err, BleakGATTProtocolError):
            return int(getattr(err, "code", 0) or 0) in _ENCRYPTION_ERRORS
        return isinstance(err, BleakDBusError) and err.dbus_error in _NOT_PERMITTED

    # What the camera and the system say -------------------------------------------------------------------
    def _on_disconnected(self, _client: BleakClient) -> None:
        self._lost = True
        self._wake.set()

    def _on_features(self, _characteristic: Any, data: bytearray) -> None:
        packet = bytes(data)
        try:
            header = Header.unpack(packet)
        except PacketError:
            self.malformed += 1
            return
        if header.number:
            self.gaps.count_numbered(header.inference_id, header.number)
        else:
            self.gaps.count(header.sequence)
        self._notices.hub_heard(header.inference_id)
        self._on_packet(packet)

    def _on_link(self, _characteristic: Any, data: bytearray) -> None:
        with contextlib.suppress(PacketError):
            self._tell(link=LinkReport.unpack(bytes(data)))

    def _tell(self, **changes: Any) -> None:
        state = replace(self._state, **changes)
        if state != self._state:
            self._state = state
            self._on_change(state)


class _StrangerError(BleakError):
    """A camera that is not this hub's.

    Attributes:
        address: the camera's; empty where none but strangers are heard.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(reason)
        self.address = address


class _NotFoundError(BleakError):
    """No camera advertises."""


def _line(err: BaseException) -> str:
    return " ".join(str(err).split()) or type(err).__name__
