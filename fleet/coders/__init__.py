# SPDX-License-Identifier: Apache-2.0
"""Codecs: how a stage's features become the bodies of packets, and what a hub makes of those that arrive."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.coders.coder import Coder, view
from fleet.coders.paper import PaperCoder
from fleet.coders.plain import PlainCoder
from fleet.coders.ranged import RangeCoder
from fleet.errors import FleetError

__all__ = ["CODERS", "Coder", "PaperCoder", "PlainCoder", "RangeCoder", "coder_named", "view"]

CODERS: Mapping[int, Coder] = {
    coder.number: coder for coder in (PlainCoder(), PaperCoder.gzip(), RangeCoder(), PaperCoder.deflate())
}
"""By the codec field of the header."""


def coder_named(name: str) -> Coder:
    """The coder of that name.

    Raises:
        FleetError: there is none.
    """
    for coder in CODERS.values():
        if coder.name == name:
            return coder
    raise FleetError(f"there is no codec '{name}'; there are: {', '.join(c.name for c in CODERS.values())}")
