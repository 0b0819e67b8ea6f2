# SPDX-License-Identifier: Apache-2.0
"""Exit notices on their way down: repeated until heard or out of date."""

from __future__ import annotations

from fleet.packet import ExitNotice, is_newer

MAX_SENDS = 5
"""How often a notice is put on the air at most (five attempts leave 0.24 % unheard at 30 % loss)."""


class NoticeRepeater:
    """One exit notice, sent in every event until the hub has heard of a newer inference.

    The hub cannot know whether a write without response arrived, so it goes on repeating after the
    notice was delivered; only a packet of a newer inference tells it.
    """

    def __init__(self) -> None:
        self._notice: ExitNotice | None = None
        self._sends = 0
        self._delivered = False
        self._heard: int | None = None

    def put(self, notice: ExitNotice) -> bool:
        """Send a notice from the next event on.

        Returns:
            False for a notice that is out of date (a newer one was put, or the hub has heard of a newer
            inference) or that was put before: it is still sent five times in all and no more.
        """
        current = self._notice
        if current is not None and not is_newer(notice.inference_id, current.inference_id):
            return False
        if self._heard is not None and is_newer(self._heard, notice.inference_id):
            return False
        self._notice = notice
        self._sends = 0
        self._delivered = False
        return True

    def take(self) -> ExitNotice | None:
        """The notice that the next event carries, or None."""
        notice = self._notice
        if notice is None or self._sends >= MAX_SENDS:
            return None
        if self._heard is not None and is_newer(self._heard, notice.inference_id):
            return None
        self._sends += 1
        return notice

    def arrived(self) -> ExitNotice | None:
        """The notice reached the camera: itself the first time, None for a repeat."""
        if self._delivered:
            return None
        self._delivered = True
        return self._notice

    def hub_heard(self, inference_id: int) -> None:
        """A packet of this inference survived the uplink."""
        if self._heard is None or is_newer(inference_id, self._heard):
            self._heard = inference_id
