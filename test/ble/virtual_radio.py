# SPDX-License-Identifier: Apache-2.0
"""A radio for bumble's virtual controllers that behaves like the specification's link layer.

bumble's own link delivers at once and without loss. This one has connection events, air time by PHY and encryption,
fragments by data length, one-bit sequence numbers and acknowledgements, events that close at the first packet that
is not heard, a supervision time-out, controller buffers with credits, and hosts that refuse what they are asked for.
Written from Core 5.4 Vol 6 Part B 4.5; shares nothing with fleet.link but the air time of one packet.
"""

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field

from bumble import hci
from bumble.controller import Controller
from bumble.link import LocalLink

from fleet.link.airtime import T_IFS_US, air_us

PHY_NAMES = {1: "1M", 2: "2M", 3: "500k"}
ESTABLISHMENT_EVENTS = 6


@dataclass
class Fragment:
    """One link-layer packet's payload, and whether it is the last of its HCI packet."""

    data: bytes
    boundary: int
    last: bool


@dataclass
class End:
    """One end of a connection: the acknowledgement machine of 4.5.9, and its queue."""

    controller: "VirtualController"
    handle: int
    queue: deque = field(default_factory=deque)
    sn: int = 0
    nesn: int = 0
    sending: Fragment | None = None
    unacknowledged: bool = False
    heard_at: float = 0.0

    def next_packet(self):
        """What is sent now: the packet that was not acknowledged again, or the next one, or an empty one."""
        if not self.unacknowledged:
            self.sending = self.queue.popleft() if self.queue else None
            self.unacknowledged = True
        return self.sending

    @property
    def more(self):
        return bool(self.queue)

    def hear(self, packet, sn, nesn):
        """Take a packet of the other end in; None is an empty one."""
        if nesn != self.sn and self.unacknowledged:
            self.sn ^= 1
            self.unacknowledged = False
            if self.sending is not None and self.sending.last:
                self.controller.completed(self.handle)
            self.sending = None
        if sn == self.nesn:
            self.nesn ^= 1
            if packet is not None:
                self.controller.received(self.handle, packet)


class RadioLink:
    """One connection on the air."""

    def __init__(self, air, central, peripheral, connect):
        self.air, self.central, self.peripheral = air, central, peripheral
        self.interval_s = connect.interval * 1.25e-3
        self.latency, self.timeout_s = connect.latency, connect.timeout * 1e-2
        self.phy, self.octets, self.encrypted = "1M", 27, False
        self.events = self.established = 0
        self.sent = self.lost = 0
        self.alive = True
        loop = asyncio.get_running_loop()
        self.anchor = loop.time() + self.interval_s * air.random.random()
        central.heard_at = peripheral.heard_at = self.anchor
        self.task = loop.create_task(self.run())

    def joins(self, controller):
        return controller in (self.central.controller, self.peripheral.controller)

    def other(self, controller):
        return self.peripheral if controller is self.central.controller else self.central

    def end(self, controller):
        return self.central if controller is self.central.controller else self.peripheral

    async def run(self):
        loop = asyncio.get_running_loop()
        while self.alive:
            await asyncio.sleep(self.anchor - loop.time())
            if not self.alive:
                return
            self.events += 1
            await self.event(loop)
            limit = self.timeout_s if self.established else ESTABLISHMENT_EVENTS * self.interval_s
            for end in (self.central, self.peripheral):
                if self.alive and loop.time() - end.heard_at > limit:
                    self.drop(hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR)
            self.anchor += self.interval_s

    async def event(self, loop):
        """One connection event."""
        ends_before = self.anchor + self.interval_s - self.air.guard_us * 1e-6
        exchanges = 0
        while self.alive and exchanges < self.air.packets:
            down, up = self.central.next_packet(), self.peripheral.next_packet()
            down_us, up_us = self.air_us(down), self.air_us(up)
            takes = (down_us + up_us + 2 * T_IFS_US) * 1e-6
            if exchanges and loop.time() + takes > ends_before + 1e-9:
                return
            exchanges += 1
            await asyncio.sleep(down_us * 1e-6)
            if not self.alive or self.is_lost():  # the peripheral hears nothing and says nothing: both close
                return
            self.peripheral.heard_at = loop.time()
            self.peripheral.hear(down, self.central.sn, self.central.nesn)
            up = self.peripheral.next_packet()  # after the poll: it may have been acknowledged
            await asyncio.sleep((T_IFS_US + self.air_us(up)) * 1e-6)
            more = self.peripheral.more
            if not self.alive or self.is_lost():
                return
            self.central.heard_at = loop.time()
            self.established = 1
            self.central.hear(up, self.peripheral.sn, self.peripheral.nesn)
            await asyncio.sleep(T_IFS_US * 1e-6)
            if not (more or self.central.more):
                return

    def air_us(self, packet):
        return air_us(self.phy, len(packet.data) if packet else 0, self.encrypted)

    def is_lost(self):
        self.sent += 1
        lost = self.air.blackout or self.air.random.random() < self.air.loss
        self.lost += lost
        return lost

    def drop(self, reason):
        """Both ends give the connection up."""
        self.close()
        for end in (self.central, self.peripheral):
            end.controller.gave_up(end.handle, reason)

    def close(self):
        self.alive = False
        if self in self.air.links:
            self.air.links.remove(self)


class VirtualAir(LocalLink):
    """What lies between the controllers.

    Args:
        packets: exchanges that a central grants in one event.
        loss: probability that one packet is not heard, both ways.
        seed: of losses and phases.
    """

    def __init__(self, *, packets=64, loss=0.0, seed=1, guard_us=800.0):
        super().__init__()
        self.packets, self.loss, self.guard_us = packets, loss, guard_us
        self.random = random.Random(seed)
        self.blackout = False
        self.refuses_updates = False
        self.hangs_up_on_updates = False
        self.update_requests = 0
        self.links = []

    def of(self, controller, handle):
        """The connection that a controller has under this handle."""
        return next((k for k in self.links if k.joins(controller) and k.end(controller).handle == handle), None)

    def send_advertising_pdu(self, sender_controller, packet):
        if not self.blackout:
            super().send_advertising_pdu(sender_controller, packet)

    def send_ll_control_pdu(self, sender_address, receiver_address, packet):
        if not self.blackout and self.find_le_controller(receiver_address) is not None:
            super().send_ll_control_pdu(sender_address, receiver_address, packet)


class VirtualController(Controller):
    """A controller with eight buffers of 251 bytes, on a :class:`VirtualAir`."""

    le_acl_data_packet_length = 251
    total_num_le_acl_data_packets = 8
    supported_max_tx_octets = supported_max_rx_octets = 251
    supported_max_tx_time = supported_max_rx_time = 17040
    most_octets = 251
    knows_2m = True

    # Data -----------------------------------------------------------------------------------------------------
    def on_hci_acl_data_packet(self, packet):
        link = self.link.of(self, packet.connection_handle)
        if link is None:
            return
        size, data = link.octets, packet.data
        pieces = [data[k : k + size] for k in range(0, len(data), size)]
        for k, piece in enumerate(pieces):
            boundary = 1 if k or packet.pb_flag == 1 else 2  # the receiver's host wants 2 for a beginning
            link.end(self).queue.append(Fragment(piece, boundary, k == len(pieces) - 1))

    def completed(self, handle):
        self.send_hci_packet(
            hci.HCI_Number_Of_Completed_Packets_Event(connection_handles=[handle], num_completed_packets=[1])
        )

    def received(self, handle, fragment):
        self.send_hci_packet(hci.HCI_AclDataPacket(handle, fragment.boundary, 0, len(fragment.data), fragment.data))

    # Connections ----------------------------------------------------------------------------------------------
    def on_le_connect_ind(self, packet):
        before = set(self.le_connections)
        self._connect_ind = packet
        super().on_le_connect_ind(packet)
        self._connect_ind = None
        central = next(
            (c for c in self.link.controllers if packet.initiator_address in (c.random_address, c.public_address)), None
        )
        if central is None or not set(self.le_connections) - before:
            return
        handles = [(c, c.le_connections[a].handle) for c, a in self._both(central, packet)]
        self.link.links.append(RadioLink(self.link, End(*handles[0]), End(*handles[1]), packet))

    def _both(self, central, packet):
        return ((central, packet.advertiser_address), (self, packet.initiator_address))

    _connect_ind = None

    def send_hci_packet(self, packet):
        connect = self._connect_ind
        if connect is not None and isinstance(packet, hci.HCI_LE_Connection_Complete_Event):
            packet = hci.HCI_LE_Connection_Complete_Event(
                status=packet.status,
                connection_handle=packet.connection_handle,
                role=packet.role,
                peer_address_type=packet.peer_address_type,
                peer_address=packet.peer_address,
                connection_interval=connect.interval,
                peripheral_latency=connect.latency,
                supervision_timeout=connect.timeout,
                central_clock_accuracy=0,
            )
        super().send_hci_packet(packet)

    def on_le_disconnected(self, connection, reason):
        link = self.link.of(self, connection.handle)
        if link is not None and self.link.blackout:
            link.alive = False
            self.link.links.remove(link)
            other = link.other(self)  # it hears nothing of this and finds out by itself
            asyncio.get_running_loop().call_later(
                link.timeout_s, other.controller.gave_up, other.handle, hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR
            )
        elif link is not None:
            link.close()
        super().on_le_disconnected(connection, reason)

    def gave_up(self, handle, reason):
        connection = self.find_le_connection_by_handle(handle)
        if connection is not None:
            super().on_le_disconnected(connection, reason)

    def on_hci_le_create_connection_cancel_command(self, command):
        result = super().on_hci_le_create_connection_cancel_command(command)
        if self.pending_le_connection is not None:
            self.pending_le_connection = None
            asyncio.get_running_loop().call_soon(
                self.send_hci_packet,
                hci.HCI_LE_Connection_Complete_Event(
                    status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
                    connection_handle=0,
                    role=hci.Role.CENTRAL,
                    peer_address_type=0,
                    peer_address=hci.Address.ANY,
                    connection_interval=0,
                    peripheral_latency=0,
                    supervision_timeout=0,
                    central_clock_accuracy=0,
                ),
            )
        return result

    # What is negotiated ---------------------------------------------------------------------------------------
    def on_hci_le_connection_update_command(self, command):
        connection = self.find_le_connection_by_handle(command.connection_handle)
        link = self.link.of(self, command.connection_handle)
        self.link.update_requests += 1
        if link is not None and self.link.hangs_up_on_updates:
            self._send_hci_command_status(hci.HCI_COMMAND_STATUS_PENDING, command.op_code)
            link.drop(hci.HCI_ErrorCode.REMOTE_USER_TERMINATED_CONNECTION_ERROR)
            return
        if connection is None or link is None or self.link.refuses_updates:
            self._send_hci_command_status(hci.HCI_ErrorCode.UNSUPPORTED_REMOTE_FEATURE_ERROR, command.op_code)
            return
        super().on_hci_le_connection_update_command(command)
        link.interval_s = command.connection_interval_max * 1.25e-3
        link.latency, link.timeout_s = command.max_latency, command.supervision_timeout * 1e-2

    def on_le_encryption_change(self, connection, status):
        super().on_le_encryption_change(connection, status)
        link = self.link.of(self, connection.handle)
        if link is not None:
            link.encrypted = status == hci.HCI_ErrorCode.SUCCESS

    def on_hci_le_set_data_length_command(self, command):
        link = self.link.of(self, command.connection_handle)
        if link is not None:
            octets = link.octets = min(command.tx_octets, self.most_octets, link.other(self).controller.most_octets)
            for end in (link.central, link.peripheral):
                end.controller.send_hci_packet(
                    hci.HCI_LE_Data_Length_Change_Event(
                        connection_handle=end.handle,
                        max_tx_octets=octets,
                        max_tx_time=2120,
                        max_rx_octets=octets,
                        max_rx_time=2120,
                    )
                )
        return hci.HCI_StatusAndConnectionHandleReturnParameters(
            status=hci.HCI_ErrorCode.SUCCESS, connection_handle=command.connection_handle
        )

    def on_hci_le_set_phy_command(self, command):
        self._send_hci_command_status(hci.HCI_COMMAND_STATUS_PENDING, command.op_code)
        link = self.link.of(self, command.connection_handle)
        if link is None:
            return
        phy = 2 if command.tx_phys & 2 else 3 if command.tx_phys & 4 else 1
        if phy == 2 and not (self.knows_2m and link.other(self).controller.knows_2m):
            phy = 1
        link.phy = "125k" if phy == 3 and command.phy_options == 2 else PHY_NAMES[phy]
        for end in (link.central, link.peripheral):
            end.controller.send_hci_packet(
                hci.HCI_LE_PHY_Update_Complete_Event(
                    status=hci.HCI_ErrorCode.SUCCESS, connection_handle=end.handle, tx_phy=phy, rx_phy=phy
                )
            )
