# SPDX-License-Identifier: Apache-2.0
"""An event loop in a thread: the radio goes on while the caller computes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CLOSE_S = 8.0


class Background:
    """Runs one coroutine on a loop of its own, and lets other threads in.

    Args:
        main: makes the coroutine.
        on_end: called in the thread when the coroutine has ended, with what it raised, if it was not cancelled.
        name: of the thread.
    """

    def __init__(
        self,
        main: Callable[[], Coroutine[Any, Any, None]],
        *,
        on_end: Callable[[BaseException | None], None],
        name: str,
    ) -> None:
        self._main = main
        self._on_end = on_end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; returns when the loop runs."""
        self._thread.start()
        self._running.wait()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call something on the loop, soon; nothing happens once the loop has ended."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # closed in this very moment
                self._loop.call_soon_threadsafe(function, *args)

    def ask(self, function: Callable[[], T], default: T, timeout: float = 1.0) -> T:
        """Call something on the loop and wait for what it returns; the default where it cannot answer in time."""
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            try:
                answer.set_result(function())
            except Exception as err:
                answer.set_exception(err)

        self.call(work)
        try:
            return answer.result(timeout)
        except concurrent.futures.TimeoutError:
            return default

    def close(self) -> None:
        """Cancel the coroutine and wait until it has cleaned up."""
        if self._task is not None:
            self.call(self._task.cancel)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._wrapped())
        except asyncio.CancelledError:
            pass
        except Exception as err:
            error = err
        finally:
            self._running.set()
            self._loop = None
        self._on_end(error)

    async def _wrapped(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_note)
        self._task = self._loop.create_task(self._main())
        self._running.set()
        await self._task


def _note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a library's callback raised: a line for the log, not a traceback on the user's terminal."""
    error = context.get("exception")
    logging.getLogger("fleet.ble").warning("%s: %s %s", context.get("message"), type(error).__name__, error)
