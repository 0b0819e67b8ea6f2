# SPDX-License-Identifier: Apache-2.0
"""What the code imports, pip, rosdep and make all know about."""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

OURS = re.compile(r"fleet(_\w+)?$")
# module -> (distribution for pip, key for rosdep; None where rosdep has none)
KNOWN = {
    "aiohttp": ("aiohttp", "python3-aiohttp"),
    "ament_index_python": ("ros-ament-index-python", "ament_index_python"),
    "bleak": ("bleak", None),
    "bumble": ("bumble", None),
    "constriction": ("constriction", None),
    "cv2": ("opencv-python-headless", "python3-opencv"),
    "diagnostic_msgs": ("ros-diagnostic-msgs", "diagnostic_msgs"),
    "hypothesis": ("hypothesis", "python3-hypothesis"),
    "launch": (None, "launch"),
    "launch_ros": (None, "launch_ros"),
    "lifecycle_msgs": ("ros-lifecycle-msgs", "lifecycle_msgs"),
    "matplotlib": ("matplotlib", "python3-matplotlib"),
    "numpy": ("numpy", "python3-numpy"),
    "onnx": ("onnx", None),
    "onnxruntime": ("onnxruntime", "python3-onnxruntime-pip"),
    "playwright": ("playwright", None),
    "PIL": ("pillow", "python3-pil"),
    "psutil": ("psutil", "python3-psutil"),
    "pytest": ("pytest", "python3-pytest"),
    "rcl_interfaces": ("ros-rcl-interfaces", "rcl_interfaces"),
    "rclpy": ("ros-rclpy", "rclpy"),
    "rich": ("rich", "python3-rich"),
    "rosbags": ("rosbags", None),
    "safetensors": ("safetensors", None),
    "scipy": ("scipy", "python3-scipy"),
    "sensor_msgs": ("ros-sensor-msgs", "sensor_msgs"),
    "skimage": ("scikit-image", "python3-skimage"),
    "std_msgs": ("ros-std-msgs", "std_msgs"),
    "std_srvs": ("ros-std-srvs", "std_srvs"),
    "torch": ("torch", "python3-torch"),
    "typer": ("typer", "python3-typer"),
    "yaml": ("PyYAML", "python3-yaml"),
}
OPTIONAL = {"vision_msgs"}  # published too where it is installed


def imports_of(path: Path) -> set[str]:
    """Top-level names of all absolute imports of a file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names


@pytest.fixture(scope="module")
def imported(root: Path, tracked: list[Path]) -> set[str]:
    """What the product and its tests import from others."""
    ours = {path.stem for path in tracked if path.parts[0] in ("test", "benchmarks")}  # helpers beside the tests
    files = [path for path in tracked if path.suffix == ".py" and re.match(r"fleet|launch|test", path.parts[0])]
    names = set().union(*(imports_of(root / path) for path in files))
    return {name for name in names if not OURS.match(name)} - OPTIONAL - ours


@pytest.fixture(scope="module")
def pinned(root: Path) -> dict[str, str]:
    """Requirement lines of the three files that are installed, by distribution."""
    lines: dict[str, str] = {}
    for name in ("base", "ros", "dev"):
        for line in (root / "requirements" / f"{name}.txt").read_text().splitlines():
            if line and not line.startswith("#"):
                lines[re.split(r"[\[=<>~! ]", line)[0]] = line
    return lines


def test_nothing_is_imported_that_is_not_known(imported: set[str]):
    assert not imported - set(KNOWN), "add it to requirements/, setup.py, package.xml and the table in this file"


def test_make_installs_what_is_imported(imported: set[str], pinned: dict[str, str], root: Path):
    constraints = (root / "requirements" / "constraints.txt").read_text()
    for module in imported:
        distribution, _ = KNOWN[module]
        known = distribution is None or distribution in pinned or f"\n{distribution}==" in constraints
        assert known, f"{distribution} is not in requirements/"


def test_rosdep_installs_what_is_imported(imported: set[str], root: Path):
    package = ET.parse(root / "package.xml").getroot()
    declared = {element.text for element in package if element.tag.endswith("depend")}
    missing = {KNOWN[module][1] for module in imported} - {None} - declared
    assert not missing, f"package.xml lacks {sorted(missing)}"


def test_package_xml_says_how_to_get_what_rosdep_has_not(imported: set[str], root: Path):
    comments = re.findall(r"<!--(.*?)-->", (root / "package.xml").read_text(), re.DOTALL)
    for module in imported:
        distribution, key = KNOWN[module]
        if key is None:
            assert any(distribution in comment for comment in comments), f"{distribution} has no rosdep key"


def test_pip_is_told_what_is_imported(imported: set[str], root: Path):
    setup = (root / "setup.py").read_text()
    for module in imported:
        distribution, _ = KNOWN[module]
        told = distribution is None or f'"{distribution}' in setup or module in ("rcl_interfaces", "ament_index_python")
        assert told, f"setup.py does not mention {distribution}"


@pytest.mark.parametrize("name", ["base", "ros", "dev", "constraints"])
def test_every_requirement_is_one_exact_version(root: Path, name: str):
    for line in (root / "requirements" / f"{name}.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.]+", line), line


def test_nothing_is_pinned_twice(root: Path):
    names = [
        re.split(r"[\[=]", line)[0].lower().replace("_", "-")
        for path in (root / "requirements").glob("*.txt")
        for line in path.read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert sorted(names) == sorted(set(names))


def test_a_camera_never_loads_the_framework_of_the_hub(root: Path):
    # torch costs a second and 200 MB; the device process runs ONNX alone. Imports at the top of a module count.
    def at_the_top(path: Path) -> set[str]:
        body = ast.Module(
            [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)], []
        )
        names = set()
        for node in body.body:
            names |= {a.name for a in node.names} if isinstance(node, ast.Import) else {node.module or ""}
        return names

    todo, seen = [*(root / "fleet_device_node").glob("*.py")], set()
    while todo:
        path = todo.pop()
        seen.add(path)
        for name in at_the_top(path):
            assert name.partition(".")[0] != "torch", f"{path.relative_to(root)} imports torch"
            if OURS.match(name.partition(".")[0]):
                place = root / Path(*name.split("."))
                todo += [p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file() and p not in seen]
