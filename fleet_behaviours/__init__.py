# SPDX-License-Identifier: Apache-2.0
"""ROS nodes that do something about a label: an alarm and a doorbell, made to be copied."""
