# SPDX-License-Identifier: Apache-2.0
"""A data set small enough to train on within a test."""

from __future__ import annotations

from pathlib import Path

import pytest
from colour_images import COLOURS, GROUPS, write_tar


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A folder with a tar of 40 images of four classes in turn, and their class table."""
    root = tmp_path / "colours"
    root.mkdir()
    write_tar(root / "train.tar.gz", list(COLOURS) * 10)
    rows = [f"{name}\t{GROUPS[name]}\ta {name}, so called" for name in COLOURS]
    (root / "classes.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root
