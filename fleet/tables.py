# SPDX-License-Identifier: Apache-2.0
"""How often each symbol occurs, as a manifest holds it and as the range coder wants it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from fleet.errors import FleetError

TOTAL = 4096
"""What a table's frequencies add up to, where nothing else is said."""


@dataclass(frozen=True)
class Tables:
    """Static frequency tables, one for every kind of symbol.

    Attributes:
        entries: positive integers that add up to ``total``, by table.
        total: of each table.
    """

    entries: tuple[tuple[int, ...], ...]
    total: int = TOTAL

    def __post_init__(self) -> None:
        if not all(table and min(table) > 0 and sum(table) == self.total for table in self.entries):
            raise FleetError(f"a frequency table's entries must be positive and add up to {self.total}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Symbols of each table."""
        return tuple(map(len, self.entries))

    @cached_property
    def models(self) -> list[Any]:
        """The range coder's model of every table.

        Its intervals are left(i) of ``docs/protocol.md``. The library computes them in the precision it is given, and
        double precision holds every product exactly; single precision would not, nor would ``perfect=True``.
        """
        return [
            constriction.stream.model.Categorical(np.asarray(table, np.float64) / self.total, perfect=False)
            for table in self.entries
        ]

    @cached_property
    def shares(self) -> npt.NDArray[np.float64]:
        """Frequencies as parts of 1, shape (tables, symbols); for tables of one size only."""
        return np.asarray(self.entries, np.float64) / self.total

    @cached_property
    def bits(self) -> npt.NDArray[np.float64]:
        """Information of each symbol, shape (tables, largest table); infinite where there is no such symbol."""
        out = np.full((len(self.entries), max(self.sizes)), np.inf)
        for k, table in enumerate(self.entries):
            out[k, : len(table)] = -np.log2(np.asarray(table) / self.total)
        return out


def scaled(counts: npt.NDArray[np.intp], total: int = TOTAL) -> tuple[int, ...]:
    """Counts scaled to ``total``, none zero: what did not occur among the samples may occur later."""
    room = total - len(counts)
    shares = (counts + 1e-3) / (counts + 1e-3).sum() * room
    whole = np.floor(shares).astype(int)
    # The largest remainders get what rounding down left over.
    whole[np.argsort(whole - shares, kind="stable")[: room - int(whole.sum())]] += 1
    return tuple(int(n) + 1 for n in whole)
