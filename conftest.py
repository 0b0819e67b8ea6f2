# SPDX-License-Identifier: Apache-2.0
"""The order of the tests: whole systems last, for what is wrong with a part shows sooner in the part's own tests."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests that start ROS 2 nodes behind all others; the order is kept otherwise."""
    items.sort(key=lambda item: item.get_closest_marker("ros") is not None)
