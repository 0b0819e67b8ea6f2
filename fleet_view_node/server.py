# SPDX-License-Identifier: Apache-2.0
"""Serves the page and what it shows, in a thread of its own; nobody who looks can slow a node down.

A page gets the newest snapshot whenever it has taken the one before, so a slow one skips. What the snapshots say comes
from the air and from other people's file names: it leaves here as JSON only, and no header lets a browser take it for
anything else. Pages of other sites can neither read it nor connect (Host and Origin are checked).
"""

from __future__ import annotations

import asyncio
import errno
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, web

from fleet.errors import FleetError

PERIOD_S = 0.1
QUIET_S = 2.0
"""Without news a snapshot is sent this often, so that a page can tell silence from a lost connection."""
SLOW_S = 15.0
"""A page that has not taken a snapshot in this time is let go."""
MOST_PAGES = 16
STOP_S = 1.0

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Feed(Protocol):
    """What is shown; called from the server's thread."""

    @property
    def cameras(self) -> Sequence[str]:
        """Names of the cameras, the first one's first."""

    def news(self, camera: str) -> object:
        """Anything that differs from the time before if there is something new to show."""

    def snapshot(self, camera: str) -> dict[str, Any]:
        """What the page shows of a camera."""

    def frame(self, camera: str, seq: int) -> dict[str, Any] | None:
        """One of its last frames."""

    def picture(self, camera: str, key: str) -> bytes | None:
        """The JPEG file of one of its last frames."""

    def thumb(self, camera: str, number: int) -> bytes | None:
        """The JPEG file of an event."""


class _Board:
    """The newest snapshot of one camera, for any number of pages."""

    def __init__(self) -> None:
        self.text = ""
        self.number = 0
        self.sent_at = -QUIET_S
        self.news: object = None
        self.pages = 0
        self._changed = asyncio.Condition()

    async def put(self, text: str) -> None:
        async with self._changed:
            self.text = text
            self.number += 1
            self._changed.notify_all()

    async def newer(self, than: int) -> int:
        async with self._changed:
            await self._changed.wait_for(lambda: self.number > than)
            return self.number


class PageServer:
    """An HTTP server on one address."""

    def __init__(self, host: str, port: int, feed: Feed, *, log: Callable[[str], None]) -> None:
        """Nothing is opened yet.

        Args:
            host: address to bind to.
            port: 0 for any free one.
            feed: what is shown.
            log: gets a line where a request fails.
        """
        self._host, self._port, self._feed, self._log = host, port, feed, log
        self._only_here = _is_loopback(host)
        self._assets = _assets()
        self._ready = threading.Event()
        self._problem: FleetError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._boards: dict[str, _Board] = {}
        self._sockets: set[web.WebSocketResponse] = set()
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def start(self) -> str:
        """Begin to serve.

        Returns:
            The page's address.

        Raises:
            FleetError: the address cannot be bound to.
        """
        self._thread.start()
        self._ready.wait()
        if self._problem is not None:
            raise self._problem
        host = "127.0.0.1" if self._host in ("0.0.0.0", "::", "") else self._host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/"

    def stop(self) -> None:
        """Say goodbye to all pages and let go of the port."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(2 * STOP_S)

    # The server's thread ----------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except FleetError as err:
            self._problem = err
        except Exception as err:  # whatever it is, nobody must wait for a server that is not there
            self._problem = FleetError(f"the page cannot be served: {type(err).__name__}: {err}")
            if self._ready.is_set():
                self._log(str(self._problem))
        self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._boards = {camera: _Board() for camera in self._feed.cameras}
        app = web.Application(middlewares=[self._guard], client_max_size=1024)
        app.on_response_prepare.append(self._harden)
        app.on_shutdown.append(self._dismiss)
        app.router.add_get("/live", self._live)
        app.router.add_get("/state", self._state)
        app.router.add_get(r"/frames/{seq:\d{1,9}}", self._frame)
        app.router.add_get(r"/pictures/{key}", self._picture)
        app.router.add_get(r"/events/{number:\d{1,9}}", self._thumb)
        for path in self._assets:
            app.router.add_get(path, self._asset)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port)
            try:
                await site.start()
            except (OSError, OverflowError) as err:
                raise FleetError(_why_not(self._host, self._port, err)) from err
            assert runner.addresses
            self._port = int(runner.addresses[0][1])
            self._ready.set()
            ticking = asyncio.create_task(self._tick())
            await self._stopping.wait()
            ticking.cancel()
        finally:
            await runner.cleanup()

    async def _tick(self) -> None:
        """Make a snapshot of every camera that somebody looks at, when there is something new."""
        while True:
            await asyncio.sleep(PERIOD_S)
            for camera, board in self._boards.items():
                if not board.pages:
                    continue
                news, now = self._feed.news(camera), time.monotonic()
                if news == board.news and now - board.sent_at < QUIET_S and board.number:
                    continue
                try:
                    await board.put(self._text(camera))
                except Exception as err:  # the next one may be better
                    self._log(f"no snapshot: {type(err).__name__}: {err}")
                board.news, board.sent_at = news, now

    def _text(self, camera: str) -> str:
        state = {"camera": camera, "cameras": list(self._feed.cameras), **self._feed.snapshot(camera)}
        return json.dumps(state, allow_nan=False, separators=(",", ":"))

    # Requests ---------------------------------------------------------------------------------------------
    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn away what no page of ours would ask, and tell of what went wrong here."""
        host = urlsplit(f"//{request.host}").hostname or ""
        if self._only_here and host not in (*_LOOPBACK, self._host):
            # A page of another site whose name was made to mean this machine (DNS rebinding).
            raise web.HTTPForbidden(text="this page is served to this machine only\n")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="not to pages of other sites\n")
        try:
            return await handler(request)
        except (web.HTTPException, asyncio.CancelledError, ConnectionError):
            raise
        except Exception as err:
            self._log(f"{request.path} failed: {type(err).__name__}: {err}")
            raise web.HTTPInternalServerError(text="this failed; the node's log says why\n") from err

    async def _harden(self, request: web.Request, response: web.StreamResponse) -> None:
        # Some browsers do not take 'self' for the WebSocket beside the page.
        own = f"ws://{request.host}" if re.fullmatch(r"[\w.:\[\]-]+", request.host) else ""
        response.headers.update(
            {
                "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                f"connect-src 'self' {own}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                "X-Content-Type-Options": "nosniff",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Referrer-Policy": "no-referrer",
            }
        )
        response.headers.setdefault("Cache-Control", "no-store")

    async def _dismiss(self, _app: web.Application) -> None:
        for socket in list(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    def _camera(self, request: web.Request) -> str:
        wanted = request.query.get("camera")
        if wanted is None:
            return self._feed.cameras[0]
        if wanted not in self._boards:
            raise web.HTTPNotFound(text="there is no such camera\n")
        return wanted

    async def _asset(self, request: web.Request) -> web.Response:
        body, kind = self._assets[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8", headers={"Cache-Control": "no-cache"})

    async def _state(self, request: web.Request) -> web.Response:
        return web.Response(text=self._text(self._camera(request)), content_type="application/json")

    async def _frame(self, request: web.Request) -> web.Response:
        frame = self._feed.frame(self._camera(request), int(request.match_info["seq"]))
        if frame is None:
            raise web.HTTPNotFound(text="this frame is forgotten\n")
        return web.json_response(frame)

    async def _picture(self, request: web.Request) -> web.Response:
        return _jpeg(self._feed.picture(self._camera(request), request.match_info["key"]))

    async def _thumb(self, request: web.Request) -> web.Response:
        return _jpeg(self._feed.thumb(self._camera(request), int(request.match_info["number"])), kept=True)

    async def _live(self, request: web.Request) -> web.WebSocketResponse:
        """Snapshots, one whenever the page has taken the one before and there is a newer one."""
        camera = self._camera(request)
        if len(self._sockets) >= MOST_PAGES:
            raise web.HTTPServiceUnavailable(text="too many pages look already\n")
        # A snapshot is some ten kilobytes on this machine: to compress it would cost more than it saves.
        socket = web.WebSocketResponse(heartbeat=QUIET_S * 10, max_msg_size=1024, compress=False)
        await socket.prepare(request)
        board = self._boards[camera]
        self._sockets.add(socket)
        board.pages += 1
        sending = asyncio.create_task(self._send(request, socket, board))
        try:
            async for _ in socket:
                pass  # a page has nothing to say; this sees it go
        finally:
            board.pages -= 1
            self._sockets.discard(socket)
            sending.cancel()
        return socket

    async def _send(self, request: web.Request, socket: web.WebSocketResponse, board: _Board) -> None:
        seen = 0 if board.number == 0 else board.number - 1  # at once, if there is one
        try:
            while True:
                seen = await board.newer(seen)
                await asyncio.wait_for(socket.send_str(board.text), SLOW_S)
        except (TimeoutError, asyncio.TimeoutError, ConnectionError, RuntimeError):
            if request.transport is not None:
                request.transport.abort()


def _jpeg(data: bytes | None, *, kept: bool = False) -> web.Response:
    if not data:
        raise web.HTTPNotFound(text="this picture is forgotten\n")
    age = {"Cache-Control": "private, max-age=3600"} if kept else {}
    return web.Response(body=data, content_type="image/jpeg", headers=age)


def _assets() -> dict[str, tuple[bytes, str]]:
    """The page's files by their path, with their types."""
    found: dict[str, tuple[bytes, str]] = {}
    for file in (resources.files("fleet.view") / "page").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            found[f"/{file.name}"] = (file.read_bytes(), _TYPES[suffix])
    if "/index.html" not in found:
        raise FleetError("this installation lacks the page of the live view: install it again")
    return {"/": found["/index.html"], **found}


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _why_not(host: str, port: int, err: Exception) -> str:
    number = getattr(err, "errno", None)
    if number == errno.EADDRINUSE:
        return f"port {port} is taken: give the view another one (fleet up --view-port, 0 takes any free one)"
    if number in (errno.EACCES, errno.EPERM):
        return f"port {port} may only be opened by the system's administrator: give the view another one"
    said = getattr(err, "strerror", None) or str(err)
    return f"the page cannot be served on {host} port {port}: {' '.join(str(said).split())}"
