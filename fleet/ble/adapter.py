# SPDX-License-Identifier: Apache-2.0
"""Bluetooth controllers by bumble's names, and one clear line when one does not open."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fleet.ble.service import missing
from fleet.errors import FleetError

if TYPE_CHECKING:
    from bumble.transport.common import Transport

KINDS = "hci-socket:0 (Linux, as root, with the adapter down), usb:0 (a dongle), serial:/dev/ttyACM0,1000000"
OPEN_S = 10.0
_SCHEMES = (
    "hci-socket",
    "usb",
    "pyusb",
    "serial",
    "tcp-client",
    "tcp-server",
    "udp",
    "ws-client",
    "ws-server",
    "unix",
    "pty",
    "vhci",
    "android-emulator",
    "android-netsim",
)
_CURES = {
    "hci-socket": "is there such an adapter, is it down ('sudo hciconfig hci0 down', 'sudo systemctl stop bluetooth'), "
    "and are you root (or has python CAP_NET_ADMIN and CAP_NET_RAW)?",
    "usb": "is it plugged in, does the kernel leave it alone ('sudo rmmod btusb'), and may you open it?",
    "serial": "is the device there, and are you in the group 'dialout'?",
}
_NO_SOCKETS = (
    "this Python was built without Bluetooth sockets; use one that has them (a Linux distribution's own python3 does), "
    "or another kind of transport: usb:0 (a dongle), serial:/dev/ttyACM0,1000000"
)


@asynccontextmanager
async def open_adapter(name: str) -> AsyncIterator[Transport]:
    """Open a controller for as long as the context lasts.

    Args:
        name: one of bumble's transports, for example ``hci-socket:0``.

    Raises:
        FleetError: no such kind, or it does not open.
    """
    try:
        from bumble.transport import open_transport  # noqa: PLC0415 - only who has a radio needs the library
    except ImportError as err:
        raise missing("bumble") from err
    scheme = name.partition(":")[0]
    if scheme not in _SCHEMES:
        raise FleetError(f"'{name}' is not a Bluetooth transport: use {KINDS}")
    # A stranger's malformed write must not fill the terminal with the library's tracebacks.
    logging.getLogger("bumble").setLevel(logging.CRITICAL)
    try:
        transport = await asyncio.wait_for(open_transport(name), OPEN_S)
    except asyncio.TimeoutError:
        raise FleetError(f"the Bluetooth transport '{name}' does not open within {OPEN_S:g} s") from None
    except Exception as err:  # each kind raises what its own library raises
        reason = " ".join(str(err).split()) or type(err).__name__
        cure = _CURES.get(scheme, f"use {KINDS}")
        if scheme == "hci-socket" and not hasattr(socket, "AF_BLUETOOTH"):
            cure = _NO_SOCKETS
        raise FleetError(f"the Bluetooth transport '{name}' cannot be opened ({reason}): {cure}") from err
    try:
        yield transport
    finally:
        await transport.close()


async def until_lost(transport: Transport) -> None:
    """Wait until the controller goes away; for ever where the transport cannot tell."""
    terminated: asyncio.Future[None] | None = getattr(transport.source, "terminated", None)
    if terminated is None:
        terminated = asyncio.get_running_loop().create_future()
    await asyncio.wait([terminated])
