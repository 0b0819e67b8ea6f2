# SPDX-License-Identifier: Apache-2.0
"""ROS node around the hub's session: packets in, exits and labels out."""
