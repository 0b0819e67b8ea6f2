# SPDX-License-Identifier: Apache-2.0
"""Several cameras in one node, each by the namespace of its topics."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fleet.errors import FleetError

_NAME = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*/?", re.ASCII)


def check_cameras(names: Sequence[str]) -> None:
    """Look at a parameter that lists cameras; an empty name is the node's own namespace.

    Raises:
        FleetError: no camera, one that is named twice, or a name that is no namespace.
    """
    if not names or len(set(names)) != len(names):
        raise FleetError(f"cameras must list every camera's namespace once, not {list(names)}")
    for name in filter(None, names):
        if not _NAME.fullmatch(name) or "__" in name:
            raise FleetError(f"'{name}' is not a camera's namespace: letters, digits and single _, with / between")


def topic_of(camera: str, name: str) -> str:
    """A camera's topic; the camera without a name is in the node's own namespace."""
    return f"{camera.rstrip('/')}/{name}" if camera else name
