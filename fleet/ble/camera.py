# SPDX-License-Identifier: Apache-2.0
"""The camera's radio: a BLE peripheral on bumble, over any HCI controller.

It advertises one service, takes one hub at a time, and does everything else without being asked: data length, PHY,
MTU, connection interval, pairing. Packets are offered by stage; which of them travel is for the
:class:`~fleet.link.scheduler.Scheduler`, and when for the :class:`~fleet.ble.pump.Pump`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fleet.ble import service
from fleet.ble.settings import NAME_BYTES, CameraSettings, CameraState, Phase
from fleet.errors import FleetError
from fleet.link.accounting import InferenceAccount, LinkTotals
from fleet.link.parameters import LinkParameters
from fleet.packet import EXIT_NOTICE_BYTES, MAX_PAYLOAD, ExitNotice, PacketError

try:
    from bumble import att, core, data_types, hci
    from bumble.core import AdvertisingData
    from bumble.device import Connection, Device, DeviceConfiguration
    from bumble.gatt import (
        GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR,
        Characteristic,
        CharacteristicValue,
        Descriptor,
        Service,
    )
    from bumble.keys import KeyStore, MemoryKeyStore, PairingKeys
    from bumble.pairing import PairingConfig
except ImportError as err:
    raise service.missing("bumble") from err

from fleet.ble.bonds import Doorkeeper, PrivateKeyStore, check_bonds
from fleet.ble.connection import ASK_AFTER_S, CameraConnection
from fleet.ble.waiting import within

POWER_ON_S = 10.0
ADVERTISING_MS = 100.0
ASK_CONTROLLER_S = 10.0
HUNG_UP_S = 3.0
"""A hub that hangs up so soon after it was asked for a connection interval may have taken offence at it."""
OFFENDED = 2
"""So often in a row it must, to be asked no more: once may be chance."""
_ON_PURPOSE = (
    hci.HCI_ErrorCode.REMOTE_USER_TERMINATED_CONNECTION_ERROR,
    hci.HCI_ErrorCode.LMP_OR_LL_RESPONSE_TIMEOUT_ERROR,
    hci.HCI_ErrorCode.UNACCEPTABLE_CONNECTION_PARAMETERS_ERROR,
)
"""Reasons of a hub that hung up or broke off over a request; not the air's, nor those of a hub that is switched off."""

_Properties = Characteristic.Properties
_Permissions = Characteristic.Permissions


class Camera:
    """A peripheral on one HCI controller. To be used from one event loop.

    Args:
        source: HCI packets from the controller (bumble's transport source).
        sink: HCI packets to the controller.
        settings: how it presents itself.
        on_exit: called with every exit notice that a hub writes, the first of each inference only.
        on_change: called whenever the state has changed.

    Raises:
        FleetError: the file of bonds cannot be used.
    """

    def __init__(
        self,
        source: Any,
        sink: Any,
        settings: CameraSettings,
        *,
        on_exit: Callable[[ExitNotice], None],
        on_change: Callable[[CameraState], None] = lambda _state: None,
    ) -> None:
        self.settings = settings
        self._on_exit_notice = on_exit
        self._on_change = on_change
        self._wish = settings.wish
        self._current: CameraConnection | None = None
        self._connections = 0
        self._offended, self._offences = "", 0
        self._message = ""
        self._powered = False
        self._told: CameraState | None = None
        self._reported: service.LinkReport | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._device = Device.from_config_with_hci(self._configuration(), source, sink)
        self._device.keystore = self._keys()
        self._features, self._exit, self._link = self._characteristics()
        self._device.add_service(Service(service.SERVICE, [self._features, self._exit, self._link]))
        self._device.gatt_server.max_mtu = service.WANTED_MTU
        self._device.pairing_config_factory = self._pairing_config
        self._device.on("connection", self._on_connection)

    # Life -------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Switch the controller on and advertise.

        Raises:
            FleetError: the controller does not answer, or refuses to.
        """
        try:
            await within(POWER_ON_S, self._device.power_on())
            await within(POWER_ON_S, self._device.start_advertising(auto_restart=True))
        except (asyncio.TimeoutError, core.TimeoutError):
            raise FleetError(
                f"the Bluetooth controller does not answer for {POWER_ON_S:g} s: plug it in again, or stop what uses it"
            ) from None
        except (core.BaseBumbleError, OSError) as err:
            raise FleetError(f"the Bluetooth controller cannot be used: {err}") from err
        self._powered = True
        self._changed()

    async def stop(self) -> None:
        """Hang up and stop advertising; a controller that is gone is not waited for."""
        self._powered = False
        current, self._current = self._current, None
        if current is not None:
            current.close()
        try:
            await within(1.0, self._device.stop_advertising())
            if current is not None:
                await within(1.0, current.bumble.disconnect())
            await within(1.0, self._device.power_off())
        except (asyncio.TimeoutError, core.BaseBumbleError, hci.HCI_Error, OSError):
            pass
        self._changed()

    async def until_mute(self) -> None:
        """Ask the controller something now and then, and return when it no longer answers.

        Not every transport tells that the adapter is gone: a Linux HCI socket just stays silent.
        """
        with contextlib.suppress(asyncio.TimeoutError, core.BaseBumbleError, hci.HCI_Error, OSError):
            while True:
                await asyncio.sleep(ASK_CONTROLLER_S)
                await within(POWER_ON_S, self._device.send_sync_command(hci.HCI_Read_BD_ADDR_Command()))

    # What the device does ---------------------------------------------------------------------------------
    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> bool:
        """Hand over a stage's packets; see :meth:`fleet.link.scheduler.Scheduler.offer`.

        Returns:
            Whether they were taken; never where no hub is connected.
        """
        return self._current is not None and self._current.offer(inference_id, stage, packets)

    def ask(self, wish: LinkParameters) -> None:
        """Wish for another link; the hub decides."""
        self._wish = wish
        self._offences = 0
        if self._current is not None:
            self._current.ask(wish)
        self._changed()

    @property
    def payload(self) -> int:
        """Bytes that a packet may have now."""
        return self._current.scheduler.parameters.payload if self._current else min(MAX_PAYLOAD, self._wish.payload)

    @property
    def statistics(self) -> LinkTotals:
        """Totals of this connection; nothing where there is none."""
        return self._current.scheduler.statistics if self._current else LinkTotals()

    def report(self, inference_id: int) -> InferenceAccount | None:
        """What the radio did for an inference of this connection."""
        return self._current.scheduler.report(inference_id) if self._current else None

    @property
    def state(self) -> CameraState:
        """The radio at a glance."""
        current = self._current
        if current is None:
            phase = Phase.ADVERTISING if self._powered else Phase.OFF
            return CameraState(phase, self._wish, connections=self._connections, message=self._message)
        return CameraState(
            Phase.SENDING if current.is_open else Phase.CONNECTED,
            current.scheduler.parameters,
            hub=str(current.bumble.peer_address).partition("/")[0],
            encrypted=current.bumble.is_encrypted,
            connections=self._connections,
            message=self._message,
        )

    # The device as bumble sees it -------------------------------------------------------------------------
    def _configuration(self) -> DeviceConfiguration:
        settings = self.settings
        advertised = [
            data_types.Flags(
                AdvertisingData.Flags.LE_GENERAL_DISCOVERABLE_MODE | AdvertisingData.Flags.BR_EDR_NOT_SUPPORTED
            ),
            data_types.CompleteListOf128BitServiceUUIDs([core.UUID(service.SERVICE)]),
        ]
        name = settings.name.encode()[:NAME_BYTES].decode(errors="ignore")
        return DeviceConfiguration(
            name=name,
            address=hci.Address(settings.address),
            advertising_interval_min=ADVERTISING_MS,
            advertising_interval_max=ADVERTISING_MS,
            advertising_data=bytes(AdvertisingData(advertised)),
            scan_response_data=bytes(AdvertisingData([data_types.CompleteLocalName(name)])),
            # Bonding hands it out. It resolves addresses that this camera never uses, but must not be anybody's.
            irk=hashlib.sha256(b"fleet irk " + settings.address.encode()).digest()[:16],
        )

    def _keys(self) -> KeyStore:
        if self.settings.bonds is None:
            return MemoryKeyStore()
        check_bonds(self.settings.bonds)
        return PrivateKeyStore(namespace=self.settings.address, filename=str(self.settings.bonds))

    def _characteristics(self) -> tuple[Characteristic[bytes], Characteristic[bytes], Characteristic[bytes]]:
        secure = self.settings.secure
        read = _Permissions.READABLE | (_Permissions.READ_REQUIRES_ENCRYPTION if secure else _Permissions(0))
        write = _Permissions.WRITEABLE | (_Permissions.WRITE_REQUIRES_ENCRYPTION if secure else _Permissions(0))
        features: Characteristic[bytes] = Characteristic(service.FEATURES, _Properties.NOTIFY, _Permissions(0))
        exit_: Characteristic[bytes] = Characteristic(
            service.EXIT,
            _Properties.WRITE | _Properties.WRITE_WITHOUT_RESPONSE,
            write,
            CharacteristicValue(write=self._on_write),
        )
        link: Characteristic[bytes] = Characteristic(
            service.LINK, _Properties.READ | _Properties.NOTIFY, read, CharacteristicValue(read=self._on_read)
        )
        for notifying in (features, link):
            # bumble would add one that anybody may write, encrypted or not.
            configuration = Descriptor(
                GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR,
                _Permissions.READABLE | write,
                self._device.gatt_server.make_descriptor_value(notifying),
            )
            notifying.descriptors = [configuration]
        features.on(Characteristic.EVENT_SUBSCRIPTION, self._on_subscription)
        return features, exit_, link

    # What the hub does ------------------------------------------------------------------------------------
    def _on_connection(self, connection: Connection) -> None:
        if self._current is not None:  # the controller takes one hub at a time; this one is left over
            self._current.close()
        self._connections += 1
        self._message = ""
        connection.on("disconnection", lambda reason: self._on_disconnection(connection, reason))
        connection.on("pairing", lambda keys: self._on_pairing(connection, keys))
        self._current = CameraConnection(
            connection,
            self._wish,
            identity=self.settings.identity,
            secure=self.settings.secure,
            asks=0 if self._is_offended(connection) else len(ASK_AFTER_S),
            send=self._notify,
            changed=self._changed,
            lead_s=self.settings.lead_s,
        )
        self._changed()

    def _is_offended(self, connection: Connection) -> bool:
        return self._offences >= OFFENDED and str(connection.peer_address) == self._offended

    def _on_disconnection(self, connection: Connection, reason: int) -> None:
        current = self._of(connection)
        if current is None:
            return
        if current.asked_at is not None:
            at_once = asyncio.get_running_loop().time() - current.asked_at < HUNG_UP_S
            peer = str(connection.peer_address)
            if not (at_once and reason in _ON_PURPOSE):
                self._offences = 0
            else:
                self._offended, self._offences = peer, self._offences + 1 if peer == self._offended else 1
            if self._is_offended(connection):
                self._message = "the hub hung up when asked for a connection interval: it is not asked again"
        current.close()
        self._current = None
        self._changed()

    def _on_subscription(self, connection: Connection, notify: bool, _indicate: bool) -> None:
        if current := self._of(connection):
            current.subscription(notify)

    def _on_write(self, connection: Connection, value: bytes) -> None:
        current = self._of(connection)
        identity = service.identity_in_ready(value)
        if current is None or (identity is None and len(value) != EXIT_NOTICE_BYTES):
            raise att.ATT_Error(att.ErrorCode.INVALID_ATTRIBUTE_LENGTH)
        if identity is None:
            notice = ExitNotice.unpack(value)
            if current.heard(notice):
                self._on_exit_notice(notice)
        elif identity == self.settings.identity:
            current.ready()
        else:
            self._message = f"a hub with another model ({identity.hex()}) was sent away"
            self._changed()
            raise att.ATT_Error(service.ERROR_OTHER_BUNDLE)

    def _on_read(self, connection: Connection) -> bytes:
        current = self._of(connection)
        try:
            return current.report.pack() if current is not None else b""
        except PacketError:
            raise att.ATT_Error(att.ErrorCode.UNLIKELY_ERROR) from None

    def _of(self, connection: Connection) -> CameraConnection | None:
        return self._current if self._current is not None and self._current.bumble is connection else None

    async def _notify(self, packet: bytes) -> None:
        if self._current is not None:
            await self._device.notify_subscriber(self._current.bumble, self._features, packet)

    # Bonds ------------------------------------------------------------------------------------------------
    def _pairing_config(self, _connection: Connection) -> PairingConfig:
        return PairingConfig(sc=True, mitm=False, bonding=True, delegate=Doorkeeper(self.accepts_bond))

    async def accepts_bond(self) -> bool:
        """Whether a hub that wants to pair may: the first one, or any while ``pairing``."""
        if self.settings.pairing or not await self._bonded():
            return True
        self._message = "a hub that this camera is not bonded to wants to pair: start the camera with --pair to let it"
        self._changed()
        return False

    async def _bonded(self) -> list[tuple[str, PairingKeys]]:
        keystore = self._device.keystore
        return await keystore.get_all() if keystore is not None else []

    def _on_pairing(self, connection: Connection, keys: PairingKeys) -> None:
        if keys.ltk is None:  # legacy pairing: somebody who listened to it has the key as well
            self._message = "a hub without LE Secure Connections was sent away"
            self._spawn(self._expel(connection))

    async def _expel(self, connection: Connection) -> None:
        if self._device.keystore is not None:
            await self._device.keystore.delete(str(connection.peer_address))
        await connection.disconnect()

    def _changed(self) -> None:
        state = self.state
        if state != self._told:
            self._told = state
            self._on_change(state)
        current = self._current
        if current is not None and current.is_open and current.report != self._reported:
            self._reported = current.report
            self._spawn(self._notify_link(current))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)  # the loop itself only keeps a weak reference
        task.add_done_callback(self._background.discard)

    async def _notify_link(self, current: CameraConnection) -> None:
        await self._device.notify_subscriber(current.bumble, self._link, current.report.pack())
