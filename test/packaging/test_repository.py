# SPDX-License-Identifier: Apache-2.0
"""What is under version control works on any machine and says whose it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

# Put together here, so that this file does not find itself.
HOSTS = ("py" + "pi.org", "python" + "hosted", "npm" + "js.org", "deb." + "debian.org", "packages.ros" + ".org")
OPTIONS = ("--index" + "-url", "--extra-index" + "-url", "--find" + "-links")
FORBIDDEN = re.compile("|".join(re.escape(word) for word in (*HOSTS, *OPTIONS)))
MACHINE_PATH = re.compile(r"(?<![\w.~$}-])/(?:work|root|home/\w+|Users/\w+|opt/(?:wheels|pypi))/")

SOURCES = (".py", ".sh", ".cfg", ".toml", ".yaml", ".yml", ".msg", ".srv", ".cmake", ".xml")
NAMED_SOURCES = ("Makefile", "CMakeLists.txt", ".ci/run")
BINARY = (".onnx", ".safetensors", ".png", ".jpg", ".npz", ".gz", ".tar", ".bin", ".avi", ".mp4")


def text_of(root: Path, path: Path) -> str:
    return (root / path).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def texts(root: Path, tracked: list[Path]) -> dict[Path, str]:
    return {path: text_of(root, path) for path in tracked if path.suffix not in BINARY}


def test_no_file_names_a_package_registry(texts: dict[Path, str]):
    assert not {path.as_posix(): FORBIDDEN.findall(text) for path, text in texts.items() if FORBIDDEN.search(text)}


def test_no_file_names_a_folder_of_somebodys_machine(texts: dict[Path, str]):
    found = {path.as_posix(): MACHINE_PATH.findall(text) for path, text in texts.items() if path.suffix != ".json"}
    assert not {path: hits for path, hits in found.items() if hits}


def test_every_source_file_begins_with_its_licence(texts: dict[Path, str]):
    def is_source(path: Path) -> bool:
        requirements = path.parts[0] == "requirements"
        return path.suffix in SOURCES or path.name in NAMED_SOURCES or str(path) in NAMED_SOURCES or requirements

    heads = {path.as_posix(): "".join(text.splitlines()[:3]) for path, text in texts.items() if is_source(path)}
    assert heads
    bare = [path for path, head in heads.items() if "SPDX-License-Identifier: Apache-2.0" not in head]
    assert not bare


def test_scripts_can_be_run(root: Path, tracked: list[Path]):
    scripts = [path for path in tracked if path.suffix == ".sh" or path.as_posix() == ".ci/run"]
    assert scripts
    assert all(os.access(root / path, os.X_OK) for path in scripts)


def test_nothing_is_larger_than_a_model_bundle_may_be(root: Path, tracked: list[Path]):
    sizes = {path.as_posix(): (root / path).stat().st_size for path in tracked}
    assert max(sizes.values()) < 30e6, max(sizes, key=sizes.get)
    bundles = {path.parts[:2] for path in tracked if path.parts[0] == "models" and len(path.parts) > 2}
    for bundle in bundles:
        assert sum(size for name, size in sizes.items() if Path(name).parts[:2] == bundle) <= 30e6, bundle


def test_the_makefile_explains_every_target(root: Path):
    makefile = (root / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    explained = set(re.findall(r"^([a-z]+):[^#\n]*## ", makefile, re.MULTILINE))
    assert targets == explained
    assert {"demo", "test", "lint", "types", "unit", "smoke", "clean", "help"} <= targets
