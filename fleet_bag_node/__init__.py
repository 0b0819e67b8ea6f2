# SPDX-License-Identifier: Apache-2.0
"""ROS node that records what a replay needs."""
