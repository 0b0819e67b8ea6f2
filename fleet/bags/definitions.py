# SPDX-License-Identifier: Apache-2.0
"""The topics that a bag of FLEET has, and the definitions of their messages, for which no ROS is needed."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.errors import FleetError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

IMAGE = "image/compressed"
LABEL = "label"
INFERENCE = "inference"
EXIT = "exit"
LINK_EXIT = "link/exit"
FEATURES = "features"
PACKETS = "link/packets"
LINK = "link/parameters"
REPORT = "link/report"
DIAGNOSTICS = "/diagnostics"


@dataclass(frozen=True)
class Topic:
    """What a topic carries.

    Attributes:
        type: message type, ``PACKAGE/msg/NAME``.
        depth: messages that its publishers keep for a slow subscriber.
        latched: whether late joiners get the last ones.
        needs: fields without which nothing can be replayed.
    """

    type: str
    depth: int
    latched: bool = False
    needs: tuple[str, ...] = ("header",)


TOPICS: Mapping[str, Topic] = {
    IMAGE: Topic("sensor_msgs/msg/CompressedImage", 2, needs=("header", "format", "data")),
    LABEL: Topic(
        "fleet_msgs/msg/Label",
        16,
        latched=True,
        needs=("header", "inference_id", "group", "class_name", "class_index", "source", "stage", "hub_latency"),
    ),
    INFERENCE: Topic(
        "fleet_msgs/msg/InferenceReport",
        64,
        latched=True,
        needs=("header", "inference_id", "name", "truth", "latency", "compute_energy_mj", "radio_energy_mj"),
    ),
    LINK_EXIT: Topic("fleet_msgs/msg/ExitDecision", 64),
    EXIT: Topic("fleet_msgs/msg/ExitDecision", 64),
    FEATURES: Topic("fleet_msgs/msg/StageFeatures", 64),
    PACKETS: Topic("fleet_msgs/msg/FeaturePacket", 512, needs=("header", "data")),
    LINK: Topic(
        "fleet_msgs/msg/LinkParameters", 1, latched=True, needs=("ci_ms", "phy", "payload", "packets", "loss", "ack")
    ),
    REPORT: Topic("fleet_msgs/msg/LinkReport", 64),
}
"""A camera's topics, by their names below its namespace; a longer one before one that it ends in."""

OF_ALL: Mapping[str, Topic] = {DIAGNOSTICS: Topic("diagnostic_msgs/msg/DiagnosticArray", 64, needs=("status",))}
"""Topics of all cameras together, by their full names."""

ALL: Mapping[str, Topic] = {**TOPICS, **OF_ALL}

FLEET_MESSAGES = "fleet_msgs"


def place_of(topic: str, msgtype: str) -> tuple[str, str] | None:
    """Camera and name of a topic: ``/porch`` and ``link/packets``; the camera is empty for what is of all cameras.

    Args:
        topic: its full name.
        msgtype: what it carries.

    Returns:
        None where name or type is none of FLEET's.
    """
    if topic in OF_ALL:
        return ("", topic) if OF_ALL[topic].type == msgtype else None
    for name, known in TOPICS.items():
        if known.type == msgtype and topic.endswith(f"/{name}"):
            return topic.removesuffix(f"/{name}") or "/", name
    return None


def full_name(camera: str, name: str) -> str:
    """The topic of a camera, the opposite of :func:`place_of`."""
    return f"{camera.rstrip('/')}/{name}" if camera else name


@cache
def typestore() -> Typestore:
    """The standard messages of ROS 2 and ours, as this installation has them.

    Raises:
        FleetError: the definitions of ``fleet_msgs`` are not there.
    """
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: PLC0415 - only bags need it

    store = get_typestore(Stores.ROS2_KILTED)
    for path in sorted(_folder().glob("*.msg")):
        store.register(get_types_from_msg(quoted(path.read_text()), f"{FLEET_MESSAGES}/msg/{path.stem}"))
    return store


def quoted(definition: str) -> str:
    """A message definition with its text constants in quotes.

    ROS takes them without as well; rosbags stumbles over such a text that begins with a digit, which it writes itself.
    """
    return re.sub(r"^(\s*string\s+[A-Z]\w*\s*=\s*)([^\s\"'].*?)\s*$", r'\1"\2"', definition, flags=re.MULTILINE)


def definition(msgtype: str) -> tuple[str, str]:
    """Text and hash (REP 2016) of a message type, as they are stored in a bag."""
    store = typestore()
    return quoted(store.generate_msgdef(msgtype, ros_version=2)[0]), store.hash_rihs01(msgtype)


def _folder() -> Path:
    for folder in _candidates():
        if (folder / "Label.msg").is_file():
            return folder
    raise FleetError(f"the message definitions of {FLEET_MESSAGES} are not installed: pip install ./fleet_msgs")


def _candidates() -> Iterator[Path]:
    """The installed definitions first: the bytes of a recording are those of the messages that are installed."""
    with contextlib.suppress(ImportError, LookupError, OSError):
        from ament_index_python.packages import get_package_share_directory  # noqa: PLC0415 - ROS is optional

        yield Path(get_package_share_directory(FLEET_MESSAGES)) / "msg"
    yield Path(sys.prefix) / "share" / FLEET_MESSAGES / "msg"
    yield Path(__file__).absolute().parents[2] / FLEET_MESSAGES / "msg"
