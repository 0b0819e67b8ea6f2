# SPDX-License-Identifier: Apache-2.0
"""A feed that a test fills, the server in front of it, and a real browser that looks at it."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from told_frames import FilledFeed

from fleet.view.pictures import Picture, prepare

DEADLINE_S = 45.0
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Starts a page server for a feed on any free port; returns it with its address and the lines it logs."""
    pytest.importorskip("aiohttp", reason="the live view's server (aiohttp) is not installed")
    from fleet_view_node.server import PageServer  # noqa: PLC0415 - after the line above

    started = []

    def start(feed: FilledFeed, host: str = "127.0.0.1", port: int = 0) -> tuple[Any, str, list[str]]:
        lines: list[str] = []
        server = PageServer(host, port, feed, log=lines.append)
        started.append(server)
        return server, server.start(), lines

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def live_view() -> ModuleType:
    """The tool that takes the page's picture; it knows how to start a browser."""
    spec = importlib.util.spec_from_file_location("live_view", ROOT / "tools" / "live_view.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["live_view"] = module
    spec.loader.exec_module(module)
    return module


class Look:
    """A page in a real browser, and everything that went wrong in it."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda err: self.complaints.append(str(err)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.set_default_timeout(1000 * DEADLINE_S)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def wait_for(self, condition: str) -> None:
        """Wait until an expression of the page's own language is true, and say what the page shows if it never is.

        Playwright's own waiting evaluates text within the page, which the page's policy forbids.
        """
        end = time.monotonic() + DEADLINE_S
        while not self.page.evaluate(condition):
            if time.monotonic() > end:
                pytest.fail(f"never {condition}; complaints {self.complaints}; the page:\n{self.text('body')}")
            self.page.wait_for_timeout(50)


@pytest.fixture
def look(live_view: ModuleType) -> Iterator[Callable[..., Look]]:
    """Opens pages in one of Debian's Chromiums, made with the options of the first call; skips where there is none."""
    pytest.importorskip("playwright", reason="playwright is not installed: it drives the browser")
    if live_view.browser_path() is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    with contextlib.ExitStack() as stack:
        contexts: list[Any] = []

        def start(url: str, **options: Any) -> Look:
            if not contexts:
                options = {"viewport": {"width": 1280, "height": 800}, **options}
                contexts.append(stack.enter_context(live_view.browser(**options)))
            seen = Look(contexts[0])
            seen.page.goto(url)
            return seen

        yield start


@pytest.fixture(scope="session")
def photograph() -> Picture:
    """A picture with something in it."""
    import cv2  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    ramp = np.linspace(0, 255, 320, dtype=np.uint8)
    image = np.dstack([np.repeat(ramp[None], 240, axis=0)] * 3)
    return prepare(cv2.imencode(".jpg", image)[1].tobytes(), 64)
