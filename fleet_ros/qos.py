# SPDX-License-Identifier: Apache-2.0
"""Quality of service by purpose; every publisher and subscription names one of these."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions


def _reliable(depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> QoSProfile:
    return QoSProfile(
        depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE, durability=durability
    )


LATCHED = _reliable(1, DurabilityPolicy.TRANSIENT_LOCAL)
"""State: late joiners get the last message."""

LABELS = _reliable(16, DurabilityPolicy.TRANSIENT_LOCAL)
"""Labels: state, and one a frame. With depth 1 a burst at the moment of discovery was cut to its last label."""

REPORTS = _reliable(64, DurabilityPolicy.TRANSIENT_LOCAL)
"""One a frame, for records: a monitor that is found late misses none of the first frames."""

EVENTS = _reliable(64)
"""One message a frame or a stage."""

PACKETS = _reliable(512)
"""Bursts of packets. Best effort would be a lie: the radio already dropped what it drops."""

IMAGES = _reliable(2)
"""Pictures, published reliable; subscribe with the sensor-data profile."""

OVERRIDABLE = QoSOverridingOptions.with_default_policies()
"""Lets a user override these by parameter (``qos_overrides.<topic>...``)."""
