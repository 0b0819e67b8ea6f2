# SPDX-License-Identifier: Apache-2.0
"""The order of the tests: whole systems last, for what is wrong with a part shows sooner in the part's own tests.

Where `make unit` runs two at a time, whole systems take as long as everything else: one worker begins with them and has
them one after another, for they measure time and number their ROS domains; the other has the rest, a file at a time.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Move the tests that start ROS 2 nodes to one end; the order is kept otherwise."""
    distributed = hasattr(config, "workerinput")
    items.sort(key=lambda item: (item.get_closest_marker("ros") is not None) != distributed)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays together, for its tests share what was expensive to make, and all files with whole systems do."""
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 - there is none without pytest-xdist

    @cache
    def scope(file: str) -> str:  # who hands out the tests knows their names alone
        return "systems" if "pytest.mark.ros" in (config.rootpath / file).read_text(encoding="utf-8") else file

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid.partition("::")[0])

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None
