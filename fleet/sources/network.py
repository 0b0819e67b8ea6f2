# SPDX-License-Identifier: Apache-2.0
"""Network cameras and pictures: rtsp:// and http(s):// addresses."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from fleet.errors import FleetError
from fleet.sources.capture import CameraStream, FilmStream, is_finite
from fleet.sources.decode import MAX_FILE_BYTES, UnreadableImage, decode_image
from fleet.sources.frame import Report, printable
from fleet.sources.items import Item, Items, ItemSource
from fleet.sources.live import LiveSource, Stream
from fleet.sources.opencv import opencv

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")
_NO_VIDEO = ("text/html", "application/json", "application/xml", "text/xml")


def split_address(spec: str) -> SplitResult:
    """Take an address apart.

    Raises:
        FleetError: it has no host, or a port that is no number.
    """
    try:
        parts = urlsplit(spec)
        if parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    msg = f"{printable(spec)} is not a complete address (such as rtsp://192.168.1.20/stream)"
    raise FleetError(msg)


def without_password(parts: SplitResult) -> str:
    """The address as it may be printed: messages and results must not carry a camera's password."""
    place = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}:***@" if parts.password else f"{parts.username}@" if parts.username else ""
    return printable(urlunsplit(parts._replace(netloc=user + place)))


def open_address(spec: str, *, loop: bool, on_skip: Report | None, open_timeout: float) -> LiveSource | ItemSource:
    """Open a video stream, or a single picture.

    Args:
        spec: rtsp(s):// or http(s):// address; a user name and password may stand in it.
        loop: give a picture, or play a film, again and again.
        on_skip: called with a line when a stream goes away and comes back.
        open_timeout: seconds until the first picture must be there.

    Raises:
        FleetError: it cannot be reached in time, or is neither picture nor video.
    """
    parts = split_address(spec)
    shown = without_password(parts)
    deadline = time.monotonic() + open_timeout
    if parts.scheme in ("http", "https"):
        picture = _within(open_timeout, lambda: _ask(parts, shown, deadline), f"{shown} does not answer")
        if picture is not None:
            return _single(picture, shown, loop=loop, on_skip=on_skip)
    return LiveSource(
        lambda: _open_stream(spec, shown, open_timeout),
        label=shown,
        description=f"stream {shown}",
        loop=loop,
        on_skip=on_skip,
        open_timeout=max(deadline - time.monotonic(), 1.0),
    )


def _single(picture: bytes, shown: str, *, loop: bool, on_skip: Report | None) -> ItemSource:
    try:
        decode_image(picture)
    except UnreadableImage as err:
        msg = f"the picture at {shown} {err}"
        raise FleetError(msg) from err

    def items() -> Items:
        yield Item(shown, None, lambda: picture)

    return ItemSource(items, where=shown, description=f"picture {shown}", loop=loop, on_skip=on_skip)


def _open_stream(spec: str, shown: str, open_timeout: float) -> Stream:
    cv2 = opencv()
    limit = int(1000 * open_timeout)
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
    capture = cv2.VideoCapture(spec, cv2.CAP_FFMPEG, options)
    if not capture.isOpened():
        capture.release()
        msg = f"{shown} cannot be opened: it does not answer, or is not a video stream"
        raise FleetError(msg)
    return FilmStream(capture, shown) if is_finite(capture) else CameraStream(capture)


def _within(seconds: float, work: Callable[[], bytes | None], complaint: str) -> bytes | None:
    """Run ``work`` in a thread of its own: looking up a host name can hang and has no time-out."""
    done = threading.Event()
    results: list[bytes | FleetError | None] = []

    def run() -> None:
        try:
            results.append(work())
        except FleetError as err:
            results.append(err)
        finally:
            done.set()

    threading.Thread(target=run, name="ask address", daemon=True).start()
    done.wait(seconds)
    if not results:
        msg = f"{complaint} within {seconds:g} s"
        raise FleetError(msg)
    result = results[0]
    if isinstance(result, FleetError):
        raise result
    return result


def _ask(parts: SplitResult, shown: str, deadline: float) -> bytes | None:
    """Fetch what a web server has if it is a picture; None where it may be a video stream."""
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if parts.username:
        passwords.add_password(None, bare, unquote(parts.username), unquote(parts.password or ""))
    opener = urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(passwords), urllib.request.HTTPDigestAuthHandler(passwords)
    )
    try:
        with opener.open(bare, timeout=max(deadline - time.monotonic(), 0.1)) as answer:
            kind = answer.headers.get_content_type()
            if kind in _NO_VIDEO:
                msg = f"{shown} is a web page or a document ({kind}), neither picture nor video"
                raise FleetError(msg)
            return _body(answer, shown, deadline) if kind.startswith("image/") else None
    except urllib.error.HTTPError as err:
        msg = f"{shown} answers {err.code} {printable(str(err.reason))}"
        raise FleetError(msg) from err
    except TimeoutError as err:
        msg = f"{shown} does not answer in time"
        raise FleetError(msg) from err
    except urllib.error.URLError as err:
        cause = err.reason.strerror if isinstance(err.reason, OSError) else None
        msg = f"{shown} cannot be reached: {printable(str(cause or err.reason)).lower()}"
        raise FleetError(msg) from err
    except (http.client.HTTPException, OSError, ValueError):
        return None  # the web servers of some cameras are odd; FFmpeg may understand them


def _body(answer: http.client.HTTPResponse, shown: str, deadline: float) -> bytes:
    body = b""
    while chunk := answer.read1(1 << 16):
        body += chunk
        if len(body) > MAX_FILE_BYTES:
            msg = f"the picture at {shown} is larger than {MAX_FILE_BYTES} bytes"
            raise FleetError(msg)
        if time.monotonic() > deadline:
            msg = f"the picture at {shown} does not arrive in time"
            raise FleetError(msg)
    return body
