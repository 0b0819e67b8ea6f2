# SPDX-License-Identifier: Apache-2.0
"""Addresses: streams and pictures from a web server on loopback, and every way in which they can fail."""

import itertools
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from source_files import drain, encoded, film, picture, refusal

from fleet.sources import open_source
from fleet.sources.network import split_address, without_password

JPEG = encoded(picture(0, 64, 48), ".jpg")


class Handler(BaseHTTPRequestHandler):
    """A network camera."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/stream":
            self._stream()
        elif path == "/secret.jpg" and "Authorization" not in self.headers:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="yard"')
            self.end_headers()
        elif path in self.server.contents:
            kind, body = self.server.contents[path]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif path == "/silent":
            self.server.over.wait(20)
        else:
            self.send_error(404)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for _ in itertools.count():
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(JPEG)
                self.wfile.write(head + JPEG + b"\r\n")
                if self.server.over.wait(0.02) or self.server.cut.is_set():
                    return
        except OSError:
            return

    def log_message(self, *_args) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    web.over = threading.Event()
    web.cut = threading.Event()
    web.contents = {
        "/cat.png": ("image/png", encoded(picture())),
        "/secret.jpg": ("image/jpeg", JPEG),
        "/broken.jpg": ("image/jpeg", b"nothing"),
        "/page": ("text/html", b"<html>"),
        "/yard.avi": ("video/x-msvideo", film(tmp_path / "yard.avi", frames=5, fps=100).read_bytes()),
    }
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    web.url = f"http://127.0.0.1:{web.server_port}"
    yield web
    web.over.set()
    web.shutdown()
    thread.join(5)
    web.server_close()


def test_an_mjpeg_stream_is_live(server):
    with open_source(f"{server.url}/stream") as source:
        first, second = source.read(5), source.read(5)

    assert source.live
    assert first.captured < second.captured <= time.monotonic()
    assert np.abs(second.image.astype(int) - picture(0, 64, 48)).mean() < 4
    assert first.name == ""


def test_a_stream_that_breaks_off_comes_back(server, monkeypatch):
    monkeypatch.setattr("fleet.sources.live.FIRST_RETRY_S", 0.01)
    lines = []
    back = threading.Event()

    def report(line: str) -> None:
        lines.append(line)
        if line.endswith("is back"):
            back.set()
        else:
            server.cut.clear()

    with open_source(f"{server.url}/stream", on_skip=report) as source:
        assert source.read(5)
        server.cut.set()
        assert back.wait(10), lines
        assert source.read(5)

    assert lines[0] == f"{server.url}/stream went away, trying again"


def test_a_picture_is_fetched_once_and_shown_once(server):
    source = open_source(f"{server.url}/cat.png")
    (frame,) = drain(source)

    assert not source.live
    assert np.array_equal(frame.image, picture())


def test_a_film_on_a_server_is_played_to_its_end(server):
    frames = drain(open_source(f"{server.url}/yard.avi"))

    assert 1 <= len(frames) <= 5
    assert frames[-1].captured == pytest.approx(0.04)


def test_a_password_is_used_but_never_shown(server):
    address = f"{server.url}/secret.jpg".replace("http://", "http://me:s3cret@")

    source = open_source(address)

    assert source.read().image.shape == (48, 64, 3)
    assert "s3cret" not in source.description
    message = refusal(open_source, address.replace("secret.jpg", "absent"))
    assert "s3cret" not in message
    assert "me:***@" in message


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/absent", "answers 404"),
        ("/secret.jpg", "answers 401"),
        ("/page", "neither picture nor video"),
        ("/broken.jpg", "not an image"),
    ],
)
def test_what_cannot_be_shown_is_refused(server, path, said):
    assert said in refusal(open_source, server.url + path)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_an_address_where_nobody_listens_is_refused(scheme, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    message = refusal(open_source, f"{scheme}://127.0.0.1:{port}/x", open_timeout=2)

    assert f"{scheme}://127.0.0.1:{port}/x cannot be" in message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_an_address_that_accepts_and_stays_silent_is_given_up_in_time(scheme):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        before = time.monotonic()
        message = refusal(open_source, f"{scheme}://127.0.0.1:{mute.getsockname()[1]}/x", open_timeout=0.5)

    assert time.monotonic() - before < 2.5
    assert "127.0.0.1" in message


def test_closing_a_stream_that_has_gone_silent_takes_less_than_a_second(server):
    source = open_source(f"{server.url}/stream")
    source.read(5)

    before = time.monotonic()
    source.close()

    assert time.monotonic() - before < 1.0


@pytest.mark.parametrize("address", ["http://", "rtsp:///x", "http://h:99999/x", "http://[::1/x", "rtsp://h:port/"])
def test_incomplete_addresses_are_refused(address):
    assert "not a complete address" in refusal(open_source, address)


def test_addresses_are_printed_without_control_characters():
    assert without_password(split_address("rtsp://u:p%40@h:554/a\x1bb")).isprintable()
    assert without_password(split_address("rtsp://u:p@h:554/a")) == "rtsp://u:***@h:554/a"
    assert without_password(split_address("rtsp://h/a")) == "rtsp://h/a"
