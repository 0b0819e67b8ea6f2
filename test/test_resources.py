# SPDX-License-Identifier: Apache-2.0
"""Files that are not code are found in a checkout, an installation and a workspace, or refused in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleet import resources
from fleet.errors import FleetError


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A share directory of its own, installed below a made-up prefix, with no checkout and no workspace."""
    root = tmp_path / "prefix" / "share" / "fleet"
    (root / "config" / "platforms").mkdir(parents=True)
    (root / "config" / "yard.yaml").write_text("a: 1\n")
    (root / "config" / "platforms" / "tiny.yaml").write_text("b: 2\n")
    (root / "models" / "cat").mkdir(parents=True)
    (root / "models" / "cat" / "manifest.json").write_text("{}")
    (root / "models" / "empty").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "site-packages" / "fleet" / "resources.py"))
    monkeypatch.setattr(resources, "_ament_share", lambda: None)
    monkeypatch.chdir(tmp_path)
    return root


def test_code_from_a_checkout_uses_the_files_of_the_checkout():
    assert (resources.share_directory() / "package.xml").is_file()
    assert resources.share_directory() / "fleet" / "resources.py" == Path(resources.__file__)


def test_an_installation_is_found_below_the_prefix(share: Path):
    assert resources.share_directory() == share


def test_a_workspace_comes_before_the_prefix(share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workspace = tmp_path / "install" / "fleet" / "share" / "fleet"
    (workspace / "config").mkdir(parents=True)
    monkeypatch.setattr(resources, "_ament_share", lambda: workspace)
    assert resources.share_directory() == workspace


def test_a_workspace_without_the_files_is_passed_over(share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resources, "_ament_share", lambda: tmp_path / "gone")
    assert resources.share_directory() == share


def test_nothing_installed_is_one_line_that_names_the_cure(tmp_path: Path, share: Path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "elsewhere"))
    with pytest.raises(FleetError, match="pip install") as caught:
        resources.share_directory()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["yard.yaml", "yard", "config/yard.yaml"])
def test_a_configuration_is_found_by_name(share: Path, name: str):
    assert resources.find_config(name) == share / "config" / "yard.yaml"


def test_a_configuration_is_found_in_a_folder_of_config(share: Path):
    assert resources.find_config("platforms/tiny") == share / "config" / "platforms" / "tiny.yaml"


def test_a_path_wins_over_a_name(share: Path, tmp_path: Path):
    (tmp_path / "yard.yaml").write_text("mine: true\n")
    assert resources.find_config("yard.yaml") == tmp_path / "yard.yaml"


def test_an_unknown_configuration_is_answered_with_the_known_ones(share: Path):
    with pytest.raises(FleetError, match=r"'garden'.*platforms/tiny\.yaml, yard\.yaml"):
        resources.find_config("garden")


@pytest.mark.parametrize("name", ["cat", "models/cat"])
def test_a_bundle_is_found_by_name(share: Path, name: str):
    assert resources.find_model(name) == share / "models" / "cat"


def test_a_bundle_is_found_by_path(share: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    assert resources.find_model("mine") == tmp_path / "mine"


def test_a_directory_without_a_manifest_is_no_bundle(share: Path, tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(FleetError, match=r"'pictures' is not a model bundle: it has no manifest\.json"):
        resources.find_model("pictures")


def test_an_unknown_bundle_is_answered_with_the_known_ones(share: Path):
    with pytest.raises(FleetError, match=r"no model bundle 'dog': .* cat$"):
        resources.find_model("dog")


def test_importing_looks_nothing_up_and_needs_no_ros():
    code = "import sys, fleet.resources; sys.exit('ament_index_python' in sys.modules or 'rclpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
