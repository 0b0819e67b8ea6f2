# SPDX-License-Identifier: Apache-2.0
"""One connection of the camera to a hub, from its first to its last event."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from bumble import hci
from bumble.core import BaseBumbleError

from fleet.ble.pump import LEAD_S, Pump
from fleet.ble.service import WANTED_MTU, WANTED_OCTETS, LinkReport, payload_of, supervision_ms
from fleet.ble.waiting import within
from fleet.errors import FleetError
from fleet.link.airtime import Phy, largest_payload
from fleet.link.parameters import CI_MAX_MS, CI_MIN_MS, LinkParameters
from fleet.link.scheduler import Scheduler
from fleet.packet import MIN_PAYLOAD, ExitNotice

if TYPE_CHECKING:
    from bumble.device import Connection

ASK_AFTER_S = (0.5, 5.0, 20.0)
"""When the connection interval is asked for, after *ready*, s. Hosts have hung up on peripherals that insisted."""

MTU_PATIENCE_S = 1.0
"""So long the hub may take to ask for an MTU; then the camera does."""

ENCRYPTION_PATIENCE_S = 30.0
"""So long a hub may take to encrypt the link of a secure camera."""

READY_PATIENCE_S = 60.0
READY_PATIENCE_EVENTS = 60
"""So long (s, or intervals where these are longer) a hub may take to say that it is ready: whoever never does keeps
the hub out."""

_MAX_TX_TIME_US = 2120  # of 251 octets at 1M with MIC
_OPTIONS = {"1M": 0, "2M": 0, "500k": 1, "125k": 2}


class CameraConnection:
    """What the camera knows and does while one hub is connected.

    Args:
        connection: bumble's.
        wish: what the camera would like the link to be; it lives with what it gets.
        identity: of the camera's bundle.
        secure: nothing is sent on a link that is not encrypted.
        asks: how often the connection parameters may be asked for.
        send: puts one packet on its way as a notification.
        changed: called when the link or its state has changed.
        lead_s: see :data:`fleet.ble.pump.LEAD_S`.
    """

    def __init__(
        self,
        connection: Connection,
        wish: LinkParameters,
        *,
        identity: bytes,
        secure: bool,
        asks: int,
        send: Callable[[bytes], Awaitable[None]],
        changed: Callable[[], None],
        lead_s: float = LEAD_S,
    ) -> None:
        self.bumble = connection
        self.wish = wish
        self.asked_at: float | None = None
        self.is_open = False
        self._identity = identity
        self._secure = secure
        self._asks = asks
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._phy: Phy = "1M"
        self._subscribed = self._ready = False
        self.scheduler = Scheduler(self._measure(), start=self._loop.time())
        buffer: Any = connection.data_packet_queue
        self._buffer = buffer
        self._pump = Pump(self.scheduler, buffer, send, clock=self._loop.time, lead_s=lead_s)
        buffer.on("flow", self._pump.saw_event)
        for name in ("att_mtu_update", "data_length_change", "encryption_change"):
            connection.on(f"connection_{name}", self._on_link)
        connection.on("connection_parameters_update", self._on_parameters)
        connection.on("connection_phy_update", self._on_phy)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._start(self._prepare(), "preparation")
        self._start(self._guard(), "guard")

    def close(self) -> None:
        """The hub is gone."""
        self.is_open = False
        self._buffer.remove_listener("flow", self._pump.saw_event)
        for task in self._tasks.values():
            task.cancel()

    # What the camera does with it -------------------------------------------------------------------------
    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> bool:
        """See :meth:`fleet.link.scheduler.Scheduler.offer`."""
        self._pump.catch_up()
        taken = self.scheduler.offer(inference_id, stage, packets)
        self._pump.poke()
        return taken

    def ask(self, wish: LinkParameters) -> None:
        """Ask the hub for another link."""
        self.wish = wish
        self._apply()
        if self.is_open:
            self._start(self._negotiate(asks=1, phy=True), "negotiation")

    def heard(self, notice: ExitNotice) -> bool:
        """The hub wrote an exit notice. Whether it is the first of its inference."""
        self._pump.saw_event()
        return self.scheduler.heard(notice)

    def subscription(self, subscribed: bool) -> None:
        """The hub subscribed to the features, or no longer wants them."""
        self._subscribed = subscribed
        self._open_or_close()

    def ready(self) -> None:
        """The hub says that it listens."""
        self._ready = True
        self._open_or_close()

    @property
    def report(self) -> LinkReport:
        """The value of the link characteristic."""
        link, connection = self.scheduler.parameters, self.bumble
        return LinkReport(
            identity=self._identity,
            ci_ms=link.ci_ms,
            latency=connection.parameters.peripheral_latency,
            supervision_ms=min(32000.0, max(100.0, connection.parameters.supervision_timeout)),
            octets=min(WANTED_OCTETS, max(27, connection.data_length.max_tx_octets)),
            phy=link.phy,
            payload=link.payload,
            packets=link.effective_packets,
            encrypted=connection.is_encrypted,
            secure=self._secure,
        )

    # What happens to the link -----------------------------------------------------------------------------
    def _measure(self) -> LinkParameters:
        """The link as it was negotiated; every packet fits it."""
        connection = self.bumble
        # A controller may report what BLE does not have; the next report is then the right one.
        ci_ms = min(CI_MAX_MS, max(CI_MIN_MS, connection.parameters.connection_interval))
        payload = payload_of(connection.att_mtu, connection.data_length.max_tx_octets)
        payload = min(payload, self.wish.payload, largest_payload(ci_ms, self._phy) or MIN_PAYLOAD)
        return self.wish.replace(ci_ms=ci_ms, phy=self._phy, payload=payload, loss=0.0, transport="bumble")

    def _apply(self) -> None:
        try:
            link = self._measure()
        except FleetError:  # an interval that BLE does not have, from a controller that reports nonsense
            return
        if link != self.scheduler.parameters:
            self.scheduler.configure(link)
        self._changed()

    def _on_link(self) -> None:
        self._apply()
        self._pump.poke()

    def _on_parameters(self) -> None:
        self._apply()
        self._pump.retime()

    def _on_phy(self, phy: Any) -> None:
        coded: Phy = "125k" if self.wish.phy == "125k" else "500k"
        phys: dict[int, Phy] = {hci.Phy.LE_1M: "1M", hci.Phy.LE_2M: "2M", hci.Phy.LE_CODED: coded}
        self._phy = phys.get(phy.tx_phy, "1M")
        self._on_link()

    def _open_or_close(self) -> None:
        is_open = self._subscribed and self._ready
        if is_open and not self.is_open:
            self._start(self._pump.run(), "pump")
            if self.asked_at is None:
                self._start(self._negotiate(asks=self._asks), "negotiation")
        elif self.is_open and not is_open:
            self._tasks["pump"].cancel()
        self.is_open = is_open
        self._changed()

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        if name in self._tasks:
            self._tasks[name].cancel()
        self._tasks[name] = self._loop.create_task(work, name=name)

    # Tasks ------------------------------------------------------------------------------------------------
    async def _prepare(self) -> None:
        """What makes packets large, before the hub looks around."""
        await self._attempt(self.bumble.set_data_length(WANTED_OCTETS, _MAX_TX_TIME_US))
        await self._ask_phy()
        await asyncio.sleep(MTU_PATIENCE_S)
        if self.bumble.att_mtu < WANTED_MTU:
            await self._attempt(self.bumble.gatt_client.request_mtu(WANTED_MTU))

    async def _guard(self) -> None:
        """The camera takes one hub at a time: nobody may hold the place who is not one."""
        await asyncio.sleep(ENCRYPTION_PATIENCE_S)
        if self._secure and not self.bumble.is_encrypted:
            await self._attempt(self.bumble.disconnect(hci.HCI_AUTHENTICATION_FAILURE_ERROR))
        patience = max(READY_PATIENCE_S, READY_PATIENCE_EVENTS * self.scheduler.parameters.ci_s)
        await asyncio.sleep(max(0.0, patience - ENCRYPTION_PATIENCE_S))
        if not self._ready:
            await self._attempt(self.bumble.disconnect())

    async def _negotiate(self, *, asks: int, phy: bool = False) -> None:
        """Ask for the interval a few times (and for the PHY, if wanted), then live with what there is."""
        if phy:
            await self._ask_phy()
        for pause in ASK_AFTER_S[:asks]:
            await asyncio.sleep(pause)
            wanted = supervision_ms(self.wish.ci_ms)
            now = self.bumble.parameters
            if now.connection_interval == self.wish.ci_ms and now.supervision_timeout >= wanted:
                return
            self.asked_at = self._loop.time()
            for by_l2cap in (False, True):  # older hosts know only the second way
                ci_ms = self.wish.ci_ms
                update = self.bumble.update_parameters(ci_ms, ci_ms, 0, wanted, use_l2cap=by_l2cap)
                if await self._attempt(within(max(5.0, 20 * ci_ms / 1000.0), update)):
                    break

    async def _ask_phy(self) -> None:
        wanted = {"1M": hci.Phy.LE_1M, "2M": hci.Phy.LE_2M}.get(self.wish.phy, hci.Phy.LE_CODED)
        if self.wish.phy != self._phy:
            await self._attempt(self.bumble.set_phy([wanted], [wanted], _OPTIONS[self.wish.phy]))

    async def _attempt(self, request: Awaitable[object]) -> bool:
        """A request that a controller or hub may refuse or not know; the camera then does without."""
        with contextlib.suppress(BaseBumbleError, hci.HCI_Error, asyncio.TimeoutError):
            await request
            return True
        return False
