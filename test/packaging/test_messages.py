# SPDX-License-Identifier: Apache-2.0
"""Messages say what their numbers mean, and nothing in them is without bound."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

INTERFACES = sorted((Path(__file__).resolve().parents[2] / "fleet_msgs").glob("*/*.[ms][sr][gv]"))
FIELD = re.compile(r"^(?P<type>[a-zA-Z]\S*)\s+(?P<name>[a-z]\w*)(?:\s+[-\w.\"]+)?\s*(?:#\s*(?P<comment>.*))?$")
CONSTANT = re.compile(r"^\S+\s+[A-Z][A-Z0-9_]*\s*=")
UNIT = re.compile(r"\[\w+\]|0\.\.1|_per_second\b|_per_second$")


def fields(path: Path) -> list[re.Match[str]]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "---")) and not CONSTANT.match(line)]
    matches = [FIELD.match(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return [match for match in matches if match]


@pytest.fixture(params=INTERFACES, ids=lambda path: path.name)
def interface(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_messages_and_a_service():
    assert {path.suffix for path in INTERFACES} == {".msg", ".srv"}


def test_it_says_first_who_tells_whom_what(interface: Path):
    licence, purpose, *_ = interface.read_text().splitlines()
    assert licence.startswith("# SPDX")
    assert purpose.startswith("# ")
    assert len(purpose) > 20


def test_every_real_number_has_its_unit(interface: Path):
    bare = [f["name"] for f in fields(interface) if f["type"].startswith("float")]
    told = [f["name"] for f in fields(interface) if UNIT.search(f"{f['name']} {f['comment'] or ''}")]
    assert not set(bare) - set(told), f"no unit in the comment of {sorted(set(bare) - set(told))}"


def test_every_array_and_string_is_bounded(interface: Path):
    for field in fields(interface):
        assert not field["type"].endswith("[]"), f"{field['name']} has no bound"
        if field["type"] == "string":
            # the answer of a service is for a person and is read once
            assert interface.suffix == ".srv", f"{field['name']} has no bound"


def test_what_comes_from_an_image_carries_its_header(interface: Path):
    names = [field["name"] for field in fields(interface)]
    if "inference_id" in names:
        assert names[0] == "header"


def test_it_is_built(interface: Path):
    cmake = (interface.parents[1] / "CMakeLists.txt").read_text()
    assert f'"{interface.parent.name}/{interface.name}"' in cmake
