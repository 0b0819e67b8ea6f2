# SPDX-License-Identifier: Apache-2.0
"""An event loop whose clock jumps to the next thing to do: minutes of radio take a second, and always the same."""

import asyncio
import selectors


class _JumpingSelector:
    """Does not wait for anything: what would be waited for is added to the clock."""

    def __init__(self):
        self._real = selectors.DefaultSelector()
        self.now = 0.0

    def select(self, timeout=None):
        if timeout is None:
            raise RuntimeError("every task waits for something that will never happen")
        ready = self._real.select(0)
        if not ready and timeout > 0:
            self.now += timeout
        return ready

    def __getattr__(self, name):
        return getattr(self._real, name)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on virtual time, in s from 0."""

    def __init__(self):
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self):
        return self._jumping.now
