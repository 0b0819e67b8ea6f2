# SPDX-License-Identifier: Apache-2.0
"""The order of the tests: whole systems last, for what is wrong with a part shows sooner in the part's own tests.

Where `make unit` runs two at a time, whole systems take as long as everything else: one worker begins with them and has
them one after another, for they measure time and number their ROS domains; the other has the rest, a file at a time.
"""

from __future__ import annotations

from typing import Any

import pytest

SYSTEMS = "ros"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Move the tests that start ROS 2 nodes to one end; the order is kept otherwise."""
    distributed = hasattr(config, "workerinput")
    items.sort(key=lambda item: (item.get_closest_marker("ros") is not None) != distributed)
    for item in items if distributed else ():
        if item.get_closest_marker("ros") is not None:
            item.add_marker(pytest.mark.xdist_group(SYSTEMS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays together: its tests share what was expensive to make."""
    from xdist.scheduler import LoadGroupScheduling  # noqa: PLC0415 - there is none without pytest-xdist

    class ByFile(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            scope = super()._split_scope(nodeid)
            return scope if scope == SYSTEMS else nodeid.partition("::")[0]

    return ByFile(config, log) if config.getoption("dist") == "loadgroup" else None
