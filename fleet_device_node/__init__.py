# SPDX-License-Identifier: Apache-2.0
"""ROS node around the device's side of an inference: frames in, features out, answers out."""
