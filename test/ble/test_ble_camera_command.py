# SPDX-License-Identifier: Apache-2.0
"""`fleet camera` as a user meets it: a process of its own, its controller at the end of a TCP connection."""

import asyncio
import re
import signal
import socket
import sys
from contextlib import suppress

import pytest
from bumble.device import Device, DeviceConfiguration
from bumble.hci import Address
from bumble.transport.tcp_server import open_tcp_server_transport_with_socket
from bumble_bleak import backend_on
from virtual_radio import VirtualAir, VirtualController
from world import HUB_ADDRESS, sides

from fleet.ble.camera import Camera
from fleet.ble.hub import Hub, HubSettings
from fleet.ble.settings import NAME_BYTES, CameraSettings
from fleet.cli import app
from fleet.errors import FleetError
from fleet.packet import ExitNotice, Header

LIMIT_S = 60
FRAME = re.compile(r" *\d+ ")


@pytest.mark.parametrize(
    ("transport", "says"),
    [
        ("bogus:0", "is not a Bluetooth transport: use hci-socket:0"),
        ("serial:/dev/no-such-device", "cannot be opened"),
        ("tcp-client:127.0.0.1:1", "cannot be opened"),
        ("usb:77", "cannot be opened"),
    ],
)
def test_a_bad_transport_is_one_clear_line(tiny_bundle, transport, says):
    arguments = ["camera", "--source", "photos", "--model", str(tiny_bundle.path), "--transport", transport]
    with pytest.raises(FleetError, match=says) as caught:
        app(arguments, standalone_mode=False)
    assert "\n" not in str(caught.value)
    assert transport in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ci_ms=8"], "not a multiple"),
        (["payload=10"], "payload"),
        (["--precision", "half"], "float or int8"),
        (["--platform", "toaster"], "toaster"),
        (["--source", "/no/such/file"], "/no/such/file"),
    ],
)
def test_bad_arguments_are_one_clear_line(tiny_bundle, arguments, says):
    with pytest.raises(FleetError, match=says):
        app(["camera", "--source", "photos", "--model", str(tiny_bundle.path), *arguments], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--pair"], "--pair does nothing without --secure"),
        (["--bonds", "/tmp/bonds.json"], "--bonds does nothing without --secure"),
        (["loss=0.5"], "'loss' does nothing here: choose from ci_ms, packets, phy, payload$"),
        (["ack=next_event"], "'ack' does nothing here"),
        (["transport=bleak"], "'transport' does nothing here"),
        (["--name", ""], "'' is no name"),
        (["--name", "  "], "is no name"),
        (["--name", "two\nlines"], "'two.lines' is no name"),
        (["--name", "no text \udcff"], "is no name"),
        (["--name", "27 bytes long, that is one!"], "has 27 bytes, a scanner is shown 26 at most"),
        (["--name", "ä" * 14], "has 28 bytes"),
    ],
)
def test_nothing_that_was_asked_for_is_ignored_in_silence(tiny_bundle, arguments, says):
    with pytest.raises(FleetError, match=says) as caught:
        app(["camera", "--source", "photos", "--model", str(tiny_bundle.path), *arguments], standalone_mode=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--secure", "--pair"],
        ["--name", "26 bytes long and no more!"],
        ["ci_ms=15", "packets=2", "phy=1M", "payload=100"],
    ],
)
def test_what_a_camera_can_do_gets_as_far_as_its_controller(tiny_bundle, tmp_path, arguments):
    radio = ["--transport", "tcp-client:127.0.0.1:1"]
    if "--secure" in arguments:
        arguments = [*arguments, "--bonds", str(tmp_path / "bonds.json")]
    with pytest.raises(FleetError, match="cannot be opened"):
        app(
            ["camera", "--source", "photos", "--model", str(tiny_bundle.path), *radio, *arguments],
            standalone_mode=False,
        )


def test_a_name_as_long_as_the_command_takes_reaches_a_scanner_whole():
    settings = CameraSettings(bytes(8), name="n" * NAME_BYTES)
    configuration = Camera(None, None, settings, on_exit=lambda _notice: None)._configuration()
    assert configuration.name == settings.name
    assert settings.name.encode() in configuration.scan_response_data
    assert len(configuration.scan_response_data) <= 31


def test_a_camera_process_finds_its_hub_is_told_to_stop_and_ends_with_ctrl_c(tiny_bundle):
    output, notices, packets = asyncio.run(asyncio.wait_for(whole_run(tiny_bundle), LIMIT_S))
    lines = [line for line in output.splitlines() if FRAME.match(line)]
    assert notices >= 3
    assert len(packets) >= 3
    assert sum("exit 1" in line for line in lines) >= 3
    assert "Traceback" not in output
    assert "frames in" in output  # the summary


async def whole_run(bundle):
    """The camera's process, and here the air, the hub's controller and the hub."""
    air = VirtualAir()
    port, transport = await serve()
    VirtualController("camera", host_source=transport.source, host_sink=transport.sink, link=air)
    configuration = DeviceConfiguration(name="hub", address=Address(HUB_ADDRESS))
    central = Device.from_config_with_hci(configuration, *sides(VirtualController("hub", link=air)))
    await central.power_on()
    packets, answered = [], set()

    def on_packet(packet):
        packets.append(packet)
        inference = Header.unpack(packet).inference_id
        if inference not in answered:
            answered.add(inference)
            hub.stop(ExitNotice(inference, 0, 1, 0.9))

    hub = Hub(HubSettings(bundle.identity), on_packet=on_packet, backend=backend_on(central, ci_ms=15.0))
    task = asyncio.get_running_loop().create_task(hub.run())
    arguments = ["--source", "photos", "--model", str(bundle.path), "--transport", f"tcp-client:127.0.0.1:{port}"]
    pacing = ["--platform", "cortex-a77-200", "--frame-rate", "5", "ci_ms=15"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fleet", "camera", *arguments, *pacing,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output = []
    while sum("exit 1" in line and FRAME.match(line) is not None for line in output) < 3:
        line = (await process.stdout.readline()).decode()
        assert line, f"it ended by itself: {output}"
        output.append(line)
    process.send_signal(signal.SIGINT)
    output.append((await process.stdout.read()).decode())
    assert await process.wait() == 0, output
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await transport.close()
    return "".join(output), hub.exits_sent, packets


async def serve():
    """bumble's TCP server on a port that is free."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening.getsockname()[1], await open_tcp_server_transport_with_socket(listening)
