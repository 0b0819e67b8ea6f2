# SPDX-License-Identifier: Apache-2.0
"""Worlds with a camera, a hub and a virtual radio between them."""

import pytest
from world import World


@pytest.fixture
def make_world():
    worlds = []

    def make(**air):
        worlds.append(World(**air))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(make_world):
    return make_world()
