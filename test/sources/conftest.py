# SPDX-License-Identifier: Apache-2.0
"""Where the image sets are."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def data() -> Path:
    """The image sets beside the repository."""
    folder = Path(os.environ.get("FLEET_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
    if not (folder / "tiny-imagenet-100" / "val.tar.gz").is_file():
        pytest.skip(f"no image sets in {folder} (set FLEET_DATA)")
    return folder
