# SPDX-License-Identifier: Apache-2.0
"""What `pip install .` and colcon put on a machine."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = dict(re.findall(r'"(\w+) = ([\w.]+:\w+)"', (ROOT / "setup.py").read_text()))
NODES = ("device_node", "bridge_node", "cloud_node", "monitor_node", "alarm_node", "doorbell_node", "view_node")


@pytest.fixture(scope="module")
def wheel(root: Path, tracked: list[Path], tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of the tracked files, built in a copy: a build leaves things behind in the folder it runs in."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in tracked:
        (source / path.parent).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, source / path)
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "-w", target, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        pytest.skip("this environment has no pip to build with")
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = target.glob("*.whl")
    return zipfile.ZipFile(file)


def share_files(wheel: zipfile.ZipFile) -> set[str]:
    marker = ".data/data/share/fleet/"
    return {name.partition(marker)[2] for name in wheel.namelist() if marker in name}


def test_every_node_and_the_command_have_a_script():
    of_no_description = {"bag_node"}  # `fleet bag record` starts it
    assert set(SCRIPTS) == {"fleet", *NODES} | of_no_description


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_has_a_function_to_call(script: str):
    module, _, function = SCRIPTS[script].partition(":")
    package = module.partition(".")[0]
    if not (ROOT / package).is_dir():
        pytest.skip(f"{package} is not written yet")
    path = ROOT / Path(*module.split(".")).with_suffix(".py")
    assert path.is_file(), f"there is no module {module}"
    defined = {getattr(node, "name", "") for node in ast.parse(path.read_text()).body}
    assert function in defined, f"{module} has no {function}"


def test_every_package_of_the_checkout_is_installed(wheel: zipfile.ZipFile, tracked: list[Path]):
    ours = {path.as_posix() for path in tracked if path.suffix == ".py" and re.match(r"fleet(?!_msgs)", path.parts[0])}
    assert ours <= set(wheel.namelist())


def test_nothing_else_is_importable(wheel: zipfile.ZipFile):
    top = {PurePosixPath(name).parts[0] for name in wheel.namelist()}
    assert {name for name in top if not re.match(r"fleet(_\w+)?$|fleet-.*\.(data|dist-info)$", name)} == set()


def test_configurations_launch_files_and_bundles_are_shared(wheel: zipfile.ZipFile, tracked: list[Path]):
    wanted = {
        path.as_posix()
        for path in tracked
        if (path.parts[0] == "launch" and path.name.endswith(".launch.py"))
        or (path.parts[0] == "config" and path.suffix in (".yaml", ".json"))
        or (path.parts[0] == "models" and len(path.parts) == 3)
    }
    assert share_files(wheel) == wanted | {"package.xml"}


def test_ros_finds_the_package(wheel: zipfile.ZipFile):
    assert any(name.endswith("share/ament_index/resource_index/packages/fleet") for name in wheel.namelist())


def test_no_file_is_installed_twice(wheel: zipfile.ZipFile):
    contents = Counter((info.CRC, info.file_size) for info in wheel.infolist() if info.file_size > 4096)
    twice = [i.filename for i in wheel.infolist() if contents[i.CRC, i.file_size] > 1]
    assert not twice


def test_an_editable_install_finds_the_files_of_the_checkout():
    code = "import fleet.resources as r; print(r.share_directory())"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(ROOT)
