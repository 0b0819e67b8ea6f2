# SPDX-License-Identifier: Apache-2.0
"""One version, wherever it is written."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import fleet


def test_every_place_names_the_same_version(root: Path):
    found = {
        "package.xml": ET.parse(root / "package.xml").findtext("version"),
        "setup.py": re.search(r'version="([^"]+)"', (root / "setup.py").read_text())[1],
        "fleet/__init__.py": fleet.__version__,
        "fleet_msgs/package.xml": ET.parse(root / "fleet_msgs" / "package.xml").findtext("version"),
        "fleet_msgs/pyproject.toml": re.search(
            r'^version = "([^"]+)"', (root / "fleet_msgs" / "pyproject.toml").read_text(), re.MULTILINE
        )[1],
        "CHANGELOG.md": re.search(r"^## (\S+)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)[1],
    }
    assert len(set(found.values())) == 1, found


def test_both_packages_are_format_3_with_the_same_licence(root: Path):
    for path in (root / "package.xml", root / "fleet_msgs" / "package.xml"):
        package = ET.parse(path).getroot()
        assert package.get("format") == "3"
        assert package.findtext("license") == "Apache-2.0"
    assert "Apache License" in (root / "LICENSE").read_text()[:200]


def test_the_resource_marker_is_there(root: Path):
    assert (root / "resource" / "fleet").is_file()
