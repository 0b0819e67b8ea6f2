# SPDX-License-Identifier: Apache-2.0
"""Waiting that can always be cancelled.

``asyncio.wait_for`` of Python 3.10 and 3.11 swallows a cancellation that comes together with the result: a task that
waits in a loop then lives on for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, request: Awaitable[T]) -> T:
    """The result of a request.

    Raises:
        asyncio.TimeoutError: it was not there in time, and was cancelled.
    """
    task = asyncio.ensure_future(request)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.add_done_callback(_forget)
        task.cancel()
        raise
    if not done:
        task.cancel()
        await asyncio.wait({task})  # its cleaning up is part of the request
        if task.cancelled() or task.exception() is not None:
            raise asyncio.TimeoutError
    return task.result()


def _forget(task: asyncio.Future[Any]) -> None:
    """Nobody wants to know any more how it ended."""
    if not task.cancelled():
        task.exception()


async def is_set_within(seconds: float | None, event: asyncio.Event) -> bool:
    """Wait for an event, for so long at most (None: for ever); whether it was set."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        done, _ = await asyncio.wait({waiting}, timeout=seconds)
    finally:
        waiting.cancel()
    return bool(done)
