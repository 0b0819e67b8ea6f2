# SPDX-License-Identifier: Apache-2.0
"""Who may bond with the camera, and where the keys are kept."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bumble.keys import JsonKeyStore
from bumble.pairing import PairingDelegate

from fleet.errors import FleetError


def check_bonds(path: Path) -> None:
    """Find out before a hub bonds whether the bond can be kept.

    Raises:
        FleetError: the file is damaged, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.with_name(f"{path.name}.tmp").open("a"):
            pass
        path.with_name(f"{path.name}.tmp").unlink()
        bonds = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except OSError as err:
        raise FleetError(f"cannot keep bonds in {path}: {err.strerror}") from err
    except ValueError:
        bonds = None
    if not isinstance(bonds, dict) or not all(isinstance(of_one, dict) for of_one in bonds.values()):
        raise FleetError(f"{path} is not a file of bonds: move it away to bond anew")


class PrivateKeyStore(JsonKeyStore):
    """Bonds in a file that nobody else may read: who has a bond's key can listen, and can be the hub."""

    async def save(self, db: Any) -> None:
        """See bumble."""
        try:
            self.directory_name.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.filename.with_name(f"{self.filename.name}.tmp").touch(mode=0o600)
            await super().save(db)
        except OSError as err:
            raise FleetError(f"cannot keep bonds in {self.filename}: {err.strerror}") from err


class Doorkeeper(PairingDelegate):
    """Lets the first hub in, and others only while the user says so. Neither end has a display or a key."""

    def __init__(self, may_bond: Callable[[], Awaitable[bool]]) -> None:
        super().__init__(PairingDelegate.NO_OUTPUT_NO_INPUT)
        self._may_bond = may_bond

    async def accept(self) -> bool:
        """See bumble."""
        return await self._may_bond()
