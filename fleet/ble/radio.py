# SPDX-License-Identifier: Apache-2.0
"""Both radios for callers with threads: the ``fleet camera`` command and the bridge node.

An adapter that goes away (unplugged, reset, its daemon restarted) is opened again, ever more slowly. What is wrong at
the very start is the caller's to mend and ends the radio at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from fleet.ble.adapter import open_adapter, until_lost
from fleet.ble.background import Background
from fleet.ble.settings import CameraSettings, CameraState
from fleet.errors import FleetError
from fleet.link.accounting import InferenceAccount, LinkTotals
from fleet.link.parameters import LinkParameters
from fleet.packet import ExitNotice

if TYPE_CHECKING:
    from fleet.ble.camera import Camera
    from fleet.ble.hub import Backend, Hub, HubSettings, HubState

START_S = 25.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
ATTEMPTS = 10
"""So often a controller that was lost is opened again before the radio gives up."""


class CameraRadio:
    """The camera's radio in a thread of its own.

    Args:
        transport: bumble's name of the controller.
        settings: how the camera presents itself.
        on_exit: called in the radio's thread with every exit notice, once an inference.
        on_change: called in the radio's thread when the state has changed.
        on_end: called in the radio's thread when it has given up, with the reason in one line.
    """

    def __init__(
        self,
        transport: str,
        settings: CameraSettings,
        *,
        on_exit: Callable[[ExitNotice], None],
        on_change: Callable[[CameraState], None] = lambda _state: None,
        on_end: Callable[[str], None] = lambda _problem: None,
    ) -> None:
        self.payload = settings.wish.payload
        self.link: LinkParameters | None = None
        self._transport = transport
        self._settings = settings
        self._on_exit = on_exit
        self._on_change = on_change
        self._on_end = on_end
        self._camera: Camera | None = None
        self._wish = settings.wish
        self._started = threading.Event()
        self._problem: BaseException | None = None
        self._background = Background(self._run, on_end=self._ended, name="radio")

    def start(self) -> None:
        """Open the controller and advertise.

        Raises:
            FleetError: it does not open, or cannot be used.
        """
        self._background.start()
        if not self._started.wait(START_S):
            self._background.close()
            raise FleetError(f"the Bluetooth controller '{self._transport}' does not answer within {START_S:g} s")
        if self._problem is not None:
            raise FleetError(str(self._problem)) from self._problem

    def close(self) -> None:
        """Hang up and let go of the controller."""
        self._background.close()

    def offer(self, inference_id: int, stage: int, packets: Sequence[bytes]) -> None:
        """Hand over a stage's packets; never blocks."""
        self._background.call(self._offer, inference_id, stage, list(packets))

    def ask(self, wish: LinkParameters) -> None:
        """Wish for another link; the hub decides."""
        self._wish = wish
        self._background.call(lambda: self._camera.ask(wish) if self._camera is not None else None)

    def report(self, inference_id: int) -> InferenceAccount | None:
        """What the radio did for an inference, as far as it knows."""
        return self._background.ask(lambda: self._camera.report(inference_id) if self._camera else None, None)

    def statistics(self) -> LinkTotals:
        """Totals of this connection."""
        return self._background.ask(lambda: self._camera.statistics if self._camera else LinkTotals(), LinkTotals())

    def _offer(self, inference_id: int, stage: int, packets: list[bytes]) -> None:
        if self._camera is not None:
            self._camera.offer(inference_id, stage, packets)

    def _changed(self, state: CameraState) -> None:
        self.payload = state.link.payload
        self.link = state.link if state.hub else None
        self._on_change(state)

    async def _run(self) -> None:
        from fleet.ble.camera import Camera  # noqa: PLC0415 - only who has a radio needs bumble

        failures = 0
        while True:
            try:
                async with open_adapter(self._transport) as transport:
                    camera = Camera(
                        transport.source,
                        transport.sink,
                        self._settings,
                        on_exit=self._on_exit,
                        on_change=self._changed,
                    )
                    try:
                        await camera.start()
                        camera.ask(self._wish)
                        self._camera, failures = camera, 0
                        self._started.set()
                        await _until_first(until_lost(transport), camera.until_mute())
                    finally:
                        self._camera = None
                        await camera.stop()
            except FleetError:
                failures += 1
                if not self._started.is_set() or failures >= ATTEMPTS:
                    raise
            await asyncio.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**failures))

    def _ended(self, error: BaseException | None) -> None:
        self._problem = error
        was_running = self._started.is_set()
        self._started.set()
        if was_running and error is not None:
            self._on_end(one_line(error))


class HubRadio:
    """The hub's radio in a thread of its own; arguments as :class:`fleet.ble.hub.Hub`.

    Args:
        settings: which camera, and how hard to try.
        on_packet: called in the radio's thread with every packet.
        on_change: called in the radio's thread when the state has changed.
        on_end: called in the radio's thread when it has given up, with the reason in one line.
        backend: other back ends for bleak.
    """

    def __init__(
        self,
        settings: HubSettings,
        *,
        on_packet: Callable[[bytes], None],
        on_change: Callable[[HubState], None] = lambda _state: None,
        on_end: Callable[[str], None] = lambda _problem: None,
        backend: Backend | None = None,
    ) -> None:
        self._settings = settings
        self._on_packet = on_packet
        self._on_change = on_change
        self._on_end = on_end
        self._backend = backend
        self._hub: Hub | None = None
        self._background = Background(self._run, on_end=self._ended, name="radio")

    def start(self) -> None:
        """Begin to look for the camera."""
        self._background.start()

    def close(self) -> None:
        """Hang up."""
        self._background.close()

    def stop(self, notice: ExitNotice) -> None:
        """Send an exit notice; never blocks.

        Raises:
            PacketError: the notice does not fit its six bytes.
        """
        notice = notice.on_air()
        self._background.call(lambda: self._hub.stop(notice) if self._hub is not None else None)

    def counts(self) -> tuple[int, int, int, int]:
        """Packets received, lost, notifications that were no packets, and notices written."""
        hub = self._hub
        return (hub.gaps.received, hub.gaps.lost, hub.malformed, hub.exits_sent) if hub is not None else (0, 0, 0, 0)

    async def _run(self) -> None:
        from fleet.ble.hub import Hub  # noqa: PLC0415 - only who has a radio needs bleak

        self._hub = Hub(self._settings, on_packet=self._on_packet, on_change=self._on_change, backend=self._backend)
        await self._hub.run()

    def _ended(self, error: BaseException | None) -> None:
        if error is not None:
            self._on_end(one_line(error))


async def _until_first(*waits: Coroutine[Any, Any, None]) -> None:
    """Wait until one of them returns; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def one_line(error: BaseException) -> str:
    """What a user is told of an exception."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, FleetError) else f"the radio stopped: {type(error).__name__}: {text}"
