# SPDX-License-Identifier: Apache-2.0
"""A network camera on loopback that can be unplugged: sample photographs as a motion-JPEG stream."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fleet.sources.opencv import opencv
from fleet.sources.photos import PhotoSource

PICTURES = 96
RATE = 25.0


class Camera:
    """Serves pictures while it is plugged in; unplugged, it cuts its streams and refuses new ones."""

    def __init__(self) -> None:
        cv2 = opencv()
        photos = PhotoSource(seed=1)
        self.pictures = [cv2.imencode(".jpg", photos.frame(n).image[..., ::-1])[1].tobytes() for n in range(PICTURES)]
        self.plugged = threading.Event()
        self.plugged.set()
        self._streams: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Of the stream."""
        return f"http://127.0.0.1:{self._server.server_port}/stream"

    def unplug(self) -> None:
        """Cut every stream."""
        self.plugged.clear()
        with self._lock:
            for stream in self._streams:
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)

    def plug(self) -> None:
        """Be there again."""
        self.plugged.set()

    def close(self) -> None:
        """Stop serving."""
        self.unplug()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """One viewer's stream, until somebody ends it."""
        if not self.plugged.is_set():
            request.send_error(503)
            return
        with self._lock:
            self._streams.add(request.connection)
        try:
            request.send_response(200)
            request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            request.end_headers()
            begun = time.monotonic()
            while self.plugged.is_set():
                number = int((time.monotonic() - begun) * RATE)
                picture = self.pictures[number % PICTURES]
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
                request.wfile.write(head + picture + b"\r\n")
                time.sleep(1 / RATE)
        except OSError:
            pass
        finally:
            with self._lock:
                self._streams.discard(request.connection)


def _handler(camera: Camera) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            camera.serve(self)

        def log_message(self, *_arguments: Any) -> None:
            """Be quiet."""

    return Handler
