# SPDX-License-Identifier: Apache-2.0
"""A controller that does not open is one line, with cures that can help where it is read."""

import asyncio
import socket

import pytest

from fleet.ble.adapter import open_adapter
from fleet.errors import FleetError


def refused(name):
    async def attempt():
        async with open_adapter(name):
            pass

    with pytest.raises(FleetError) as caught:
        asyncio.run(attempt())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_python_without_bluetooth_sockets_is_not_sent_to_its_adapter(monkeypatch):
    monkeypatch.delattr(socket, "AF_BLUETOOTH", raising=False)
    message = refused("hci-socket:0")
    assert "this Python was built without Bluetooth sockets" in message
    assert "usb:0" in message
    for cure in ("root", "down", "CAP_NET_ADMIN"):
        assert cure not in message


def test_a_python_with_bluetooth_sockets_is_told_what_stands_in_the_adapter_s_way(monkeypatch):
    monkeypatch.setattr(socket, "AF_BLUETOOTH", 31, raising=False)
    message = refused("hci-socket:99")
    assert "is it down" in message
    assert "are you root" in message
    assert "built without" not in message
