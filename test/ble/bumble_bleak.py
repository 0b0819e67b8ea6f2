# SPDX-License-Identifier: Apache-2.0
"""A back end for bleak that runs on a bumble device, so that the hub's real code can be joined to a virtual radio."""

import asyncio

from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient
from bleak.backends.descriptor import BleakGATTDescriptor
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakDeviceNotFoundError, BleakError, BleakGATTProtocolError
from bleak.uuids import normalize_uuid_str
from bumble import att, core, hci
from bumble.device import ConnectionParametersPreferences, Peer
from bumble.gatt import Characteristic

from fleet.ble.hub import Backend

PROPERTIES = {
    Characteristic.Properties.READ: "read",
    Characteristic.Properties.WRITE_WITHOUT_RESPONSE: "write-without-response",
    Characteristic.Properties.WRITE: "write",
    Characteristic.Properties.NOTIFY: "notify",
    Characteristic.Properties.INDICATE: "indicate",
}
UUID_LISTS = (
    core.AdvertisingData.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS,
    core.AdvertisingData.INCOMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS,
)


def text(uuid):
    return normalize_uuid_str(uuid.to_hex_str("-"))


class Scanner(BaseBleakScanner):
    """Hears what the bumble device hears."""

    central = None

    def __init__(self, detection_callback, service_uuids, scanning_mode, **_):
        super().__init__(detection_callback, service_uuids)

    async def start(self):
        self.seen_devices = {}
        self.central.on("advertisement", self._on_advertisement)
        await self.central.start_scanning(active=False)

    async def stop(self):
        self.central.remove_listener("advertisement", self._on_advertisement)
        await self.central.stop_scanning()

    def _on_advertisement(self, heard):
        uuids = [text(uuid) for kind in UUID_LISTS for some in heard.data.get_all(kind) or () for uuid in some]
        said = AdvertisementData(
            local_name=None,
            manufacturer_data={},
            service_data={},
            service_uuids=uuids,
            tx_power=None,
            rssi=heard.rssi,
            platform_data=(),
        )
        address = heard.address.to_string(False)
        device = self.create_or_update_device(str(heard.address), address, None, heard.address, said)
        if self.is_allowed_uuid(uuids):
            self.call_detection_callbacks(device, said)


class Client(BaseBleakClient):
    """Talks through the bumble device."""

    central = None
    preferences = None
    mtu = 247
    ever = ()
    host_loses = staticmethod(lambda value: False)

    def __init__(self, device, *, services=None, **kwargs):
        super().__init__(device, **kwargs)
        type(self).ever += (self,)
        self._address = device.details
        self._wanted = services
        self._connection = self._peer = None
        self._callbacks = {}

    name = property(lambda self: self.address)
    mtu_size = property(lambda self: self._connection.att_mtu if self._connection else 23)
    is_connected = property(lambda self: self._connection is not None)

    async def connect(self, pair, **_):
        try:
            self._connection = await self.central.connect_le(
                self._address, {hci.Phy.LE_1M: self.preferences}, timeout=self._timeout
            )
        except core.TimeoutError:
            raise BleakDeviceNotFoundError(self.address) from None
        except core.BaseBumbleError as err:
            raise BleakError(str(err)) from None
        self._connection.on("disconnection", self._on_disconnection)
        self._peer = Peer(self._connection)
        if self.mtu > 23:
            await self._ask(self._peer.request_mtu(self.mtu))
        await self._ask(self._peer.discover_all())
        self.services = self._collection()

    def _on_disconnection(self, _reason):
        self._connection = self._peer = None
        if self._disconnected_callback is not None:
            self._disconnected_callback()

    def _collection(self):
        found = BleakGATTServiceCollection()
        for service in self._peer.services:
            if self._wanted and text(service.uuid) not in self._wanted:
                continue
            ours = BleakGATTService(service, service.handle, text(service.uuid))
            found.add_service(ours)
            for one in service.characteristics:
                names = [name for flag, name in PROPERTIES.items() if one.properties & flag]
                of = BleakGATTCharacteristic(one, one.handle, text(one.uuid), names, lambda: self.mtu_size - 3, ours)
                found.add_characteristic(of)
                for descriptor in one.descriptors:
                    found.add_descriptor(BleakGATTDescriptor(descriptor, descriptor.handle, text(descriptor.type), of))
        return found

    async def _ask(self, request):
        task = asyncio.ensure_future(request)
        try:
            return await task
        except att.ATT_Error as err:
            raise BleakGATTProtocolError(err.error_code) from None
        except core.BaseBumbleError as err:
            raise BleakError(str(err)) from None
        except asyncio.CancelledError:
            if task.cancelled() and not asyncio.current_task().cancelling():  # bumble's way to say: disconnected
                raise BleakError("disconnected") from None
            task.cancel()
            raise

    def _connected(self):
        if self._connection is None:
            raise BleakError("not connected")
        return self._peer

    async def disconnect(self):
        if self._connection is not None:
            await self._ask(self._connection.disconnect())

    async def pair(self, *_, **__):
        self._connected()
        known = await self.central.keystore.get(str(self._connection.peer_address))
        await self._ask(self._connection.encrypt() if known else self._connection.pair())

    async def unpair(self):
        await self.central.keystore.delete(str(self._address))

    async def read_gatt_char(self, characteristic, **_):
        return bytearray(await self._ask(self._connected().read_value(characteristic.handle)))

    async def read_gatt_descriptor(self, descriptor, **_):
        return bytearray(await self._ask(self._connected().read_value(descriptor.handle)))

    async def write_gatt_char(self, characteristic, data, response):
        await self._ask(self._connected().write_value(characteristic.handle, bytes(data), response))

    async def write_gatt_descriptor(self, descriptor, data):
        await self._ask(self._connected().write_value(descriptor.handle, bytes(data), True))

    async def start_notify(self, characteristic, callback, **_):
        def heard(value):
            if not self.host_loses(value):
                callback(bytearray(value))

        self._callbacks[characteristic.handle] = heard
        await self._ask(self._connected().subscribe(characteristic.obj, heard))

    async def stop_notify(self, characteristic):
        await self._ask(
            self._connected().unsubscribe(characteristic.obj, self._callbacks.pop(characteristic.handle, None))
        )


def backend_on(central, *, ci_ms=30.0, supervision_ms=420.0, mtu=247):
    """bleak's back ends on a bumble device, which connects with this interval and supervision time-out."""
    preferences = ConnectionParametersPreferences(
        connection_interval_min=ci_ms, connection_interval_max=ci_ms, supervision_timeout=int(supervision_ms)
    )
    return Backend(
        scanner=type("VirtualScanner", (Scanner,), {"central": central}),
        client=type("VirtualClient", (Client,), {"central": central, "preferences": preferences, "mtu": mtu}),
    )
