# SPDX-License-Identifier: Apache-2.0
"""Bags made on the spot: by the simulator, as a running system would give them, or by hand."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bag_facts import BEGIN_NS, FIRST_ID, FRAMES, ROOT

pytest.importorskip("rosbags", reason="rosbags is not installed")


@pytest.fixture(scope="session")
def simulated() -> ModuleType:
    """benchmarks/simulated_bag.py."""
    spec = importlib.util.spec_from_file_location("simulated_bag", ROOT / "benchmarks" / "simulated_bag.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_system(simulated: ModuleType, tiny_bundle: Any) -> Any:
    """The tiny model on a slow platform, so that a frame spans several connection events."""
    from fleet.bags.evaluation import forward_many  # noqa: PLC0415
    from fleet.fusion import load_cloud  # noqa: PLC0415
    from fleet.inference import Device  # noqa: PLC0415
    from fleet.link.parameters import LinkParameters  # noqa: PLC0415
    from fleet.platforms import load_profile  # noqa: PLC0415
    from fleet.runtime import DeviceNetwork  # noqa: PLC0415

    cloud = load_cloud(tiny_bundle)
    network = DeviceNetwork(tiny_bundle)
    return simulated.System(
        device=Device(tiny_bundle, network, load_profile("cortex-a77-200", time_scale=4.0)),
        prepare=network.prepare,
        forward=forward_many(cloud),
        fused=cloud.fused,
        link=LinkParameters(ci_ms=15, packets=2),
    )


@pytest.fixture
def make_bag(tmp_path: Path, simulated: ModuleType, tiny_system: Any) -> Callable[..., Path]:
    """Makes a bag of some frames of the sample photographs; every camera begins a minute after the one before."""
    from fleet.bags.writer import BagWriter  # noqa: PLC0415
    from fleet.sources.photos import PhotoSource  # noqa: PLC0415

    def make(
        name: str = "bag",
        *,
        storage: str = "mcap",
        cameras: tuple[str, ...] = ("/backyard",),
        system: Any = tiny_system,
        frames: int = FRAMES,
        pictures: str = "png",
        **options: Any,
    ) -> Path:
        path = tmp_path / name
        with BagWriter(path, storage) as writer:
            for k, camera in enumerate(cameras):
                source = PhotoSource(seed=k, resolution=(96, 64))
                simulated.record(
                    writer,
                    camera,
                    system,
                    islice(iter(source.read, None), frames),
                    begin_ns=BEGIN_NS + k * 60_000_000_000,
                    period_s=2.0,
                    pictures=pictures,
                    **{"first_id": FIRST_ID, **options},
                )
        return path

    return make


@pytest.fixture
def unsure(tiny_system: Any) -> Any:
    """The same system with exits that are never sure: the last exit, once complete, or the device answers."""
    device = tiny_system.device
    bundle = device.bundle
    decider = replace(bundle.decider, thresholds=dict.fromkeys(bundle.layouts, 1.5))
    return replace(tiny_system, device=replace(device, bundle=replace(bundle, decider=decider)))
