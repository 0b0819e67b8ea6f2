# SPDX-License-Identifier: Apache-2.0
"""ROS node around the link scheduler: features wait here for the radio to wake up."""
