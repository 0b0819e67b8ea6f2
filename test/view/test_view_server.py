# SPDX-License-Identifier: Apache-2.0
"""The page is served to this machine's own pages, whoever asks and however slowly, and to nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest
from told_frames import FACTS, LINK, START, FilledFeed, live_through

aiohttp = pytest.importorskip("aiohttp", reason="the live view's server (aiohttp) is not installed")

from fleet.errors import FleetError  # noqa: E402
from fleet.view.state import CameraView  # noqa: E402
from fleet_view_node import server as server_module  # noqa: E402
from fleet_view_node.server import MOST_PAGES  # noqa: E402


@pytest.fixture
def feed(photograph) -> FilledFeed:
    """One camera that has seen one frame."""
    made = FilledFeed(porch=CameraView(FACTS), gate=CameraView(FACTS))
    made.now = START + 1
    view = made.views["porch"]
    view.on_link(LINK, connected=True)
    view.on_picture(live_through(view, 1, START), photograph)
    return made


def get(url: str, path: str = "", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as err:
        return err.code, err.read(), dict(err.headers)


def look_on(url: str, snapshots: int, path: str = "live", **headers: str) -> list[dict]:
    """What a page hears that takes so many snapshots."""

    async def listen() -> list[dict]:
        async with aiohttp.ClientSession() as session, session.ws_connect(url + path, headers=headers) as live:
            return [json.loads((await live.receive(10)).data) for _ in range(snapshots)]

    return asyncio.run(listen())


def test_state_says_everything_that_the_page_shows(serve, feed):
    _, url, lines = serve(feed)
    status, body, headers = get(url, "state")
    told = json.loads(body)
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert (told["camera"], told["cameras"]) == ("porch", ["porch", "gate"])
    assert told["frame"]["answer"]["group"] == "pet"
    assert json.loads(get(url, "state?camera=gate")[1])["frame"] is None
    assert not lines


def test_pictures_frames_and_events_are_there_until_they_are_forgotten(serve, feed, photograph):
    _, url, _ = serve(feed)
    assert get(url, "pictures/1.0")[:2] == (200, photograph.shown)
    assert get(url, "events/1?of=1.0")[:2] == (200, photograph.thumb)
    assert json.loads(get(url, "frames/1")[1])["id"] == 1
    for path in ("pictures/2.0", "events/2", "frames/2", "frames/x", "frames/99999999999", "pictures/..%2f..%2fetc"):
        assert get(url, path)[0] == 404, path
    assert get(url, "state?camera=nowhere")[0] == 404


def test_the_page_comes_whole_from_this_machine(serve, feed):
    _, url, _ = serve(feed)
    for path in (
        "",
        "index.html",
        "style.css",
        "app.js",
        "timeline.js",
        "charts.js",
        "events.js",
        "dom.js",
        "icon.svg",
    ):
        status, body, headers = get(url, path)
        assert status == 200, path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert b"//" not in body.replace(b"// ", b"").replace(b"http://www.w3.org/2000/svg", b"").replace(
            b"}://${location.host}", b""
        ), f"{path} names another host"
    assert get(url, "__init__.py")[0] == get(url, "..%2fstate.py")[0] == 404


@pytest.mark.parametrize("path", ["", "state", "live", "pictures/1.0"])
def test_a_name_that_was_made_to_mean_this_machine_is_turned_away(serve, feed, path):
    _, url, _ = serve(feed)
    assert get(url, path, Host="evil.example")[0] == 403
    assert get(url, path, Host=f"evil.example:{urlsplit(url).port}")[0] == 403


def test_pages_of_other_sites_cannot_look_on(serve, feed):
    _, url, _ = serve(feed)
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://localhost.evil.example"):
        assert get(url, "state", Origin=origin)[0] == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            look_on(url, 1, Origin=origin)
        assert refused.value.status == 403
    assert look_on(url, 1, Origin=url.rstrip("/"))[0]["camera"] == "porch"
    assert get(url, "state", Host="localhost:9000", Origin="http://localhost:9000")[0] == 200  # through a tunnel


def test_a_page_hears_of_news_and_of_silence(serve, feed):
    _, url, _ = serve(feed)
    heard: list[dict] = []
    done = threading.Thread(target=lambda: heard.extend(look_on(url, 4)))
    done.start()
    done.join(15)
    assert [told["frame"]["id"] for told in heard] == [1, 1, 1, 1]  # without any news: so that it knows of the link


def test_a_page_may_look_at_another_camera(serve, feed):
    _, url, _ = serve(feed)
    assert look_on(url, 1, "live?camera=gate")[0]["camera"] == "gate"


def test_a_page_that_does_not_read_is_let_go_and_delays_nobody(serve, feed, monkeypatch):
    monkeypatch.setattr(server_module, "SLOW_S", 1.0)
    monkeypatch.setattr(server_module, "PERIOD_S", 0.01)
    server, url, _ = serve(feed)
    address = urlsplit(url)
    size = 100_000
    feed.views["porch"].facts = dataclasses.replace(FACTS, conditions={"source": "x" * size})
    feed.news = lambda _camera: feed.snapshots  # always something new
    with socket.create_connection((address.hostname, address.port), timeout=20) as slow:
        slow.sendall(
            f"GET /live HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert slow.recv(12) == b"HTTP/1.1 101"
        end = time.monotonic() + 60
        while not server._sockets:  # the handshake is answered before the page is counted
            assert time.monotonic() < end, "the page is never counted"
            threading.Event().wait(0.01)
        while server._sockets:  # of the slow page; meanwhile another one hears everything
            assert len(look_on(url, 20)) == 20
            assert time.monotonic() < end, "a page that does not read is never let go"
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while data := slow.recv(1 << 20):
                taken += len(data)
    # What the system's buffers hold, and no more.
    assert taken < 20_000_000


def test_only_so_many_pages_may_look(serve, feed):
    _, url, _ = serve(feed)

    async def crowd() -> list[int]:
        async with aiohttp.ClientSession() as session:
            lives = [await session.ws_connect(url + "live") for _ in range(MOST_PAGES)]
            try:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(url + "live")
                await lives[0].close()
                again = await session.ws_connect(url + "live")
                told = json.loads((await again.receive(10)).data)
                return [refused.value.status, len(told["cameras"])]
            finally:
                for live in lives:
                    await live.close()

    assert asyncio.run(crowd()) == [503, 2]


def test_a_port_that_is_taken_is_one_line(serve, feed):
    _, url, _ = serve(feed)
    port = urlsplit(url).port
    with pytest.raises(FleetError, match=f"port {port} is taken") as refused:
        serve(feed, port=port)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host", "::::"])
def test_an_address_that_is_not_of_this_machine_is_one_line(serve, feed, host):
    with pytest.raises(FleetError, match="cannot be served") as refused:
        serve(feed, host=host)
    assert len(str(refused.value).splitlines()) == 1


def test_a_stopped_server_says_goodbye_and_lets_go_of_the_port(serve, feed):
    server, url, _ = serve(feed)

    async def listen() -> int | None:
        async with aiohttp.ClientSession() as session, session.ws_connect(url + "live") as live:
            await live.receive(10)
            asyncio.get_running_loop().run_in_executor(None, server.stop)
            while (message := await live.receive(10)).type == aiohttp.WSMsgType.TEXT:
                pass
            assert message.type == aiohttp.WSMsgType.CLOSE
            return live.close_code

    assert asyncio.run(listen()) == aiohttp.WSCloseCode.GOING_AWAY
    assert not server._thread.is_alive()
    serve(feed, port=urlsplit(url).port)


def test_a_snapshot_that_fails_is_told_and_the_next_one_is_served(serve, feed):
    _, url, lines = serve(feed)
    feed.fails = True
    assert get(url, "state")[0] == 500
    assert lines == ["/state failed: ZeroDivisionError: "]
    feed.fails = False
    assert get(url, "state")[0] == 200


def test_bytes_that_are_no_request_end_nothing(serve, feed, capfd):
    _, url, _ = serve(feed)
    address = urlsplit(url)
    for data in (b"\x00" * 300, b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"a" * 20_000, b"POST /state HTTP/1.1\r\n\r\n"):
        with socket.create_connection((address.hostname, address.port), timeout=10) as stranger:
            stranger.sendall(data)
    assert get(url, "state")[0] == 200
    assert "Traceback" not in "".join(capfd.readouterr())
