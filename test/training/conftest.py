# SPDX-License-Identifier: Apache-2.0
"""A data set small enough to train on within a test."""

from __future__ import annotations

from pathlib import Path

import pytest
from colour_images import write_colours


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A folder with a tar of 40 images of four classes in turn, and their class table."""
    return write_colours(tmp_path / "colours")
