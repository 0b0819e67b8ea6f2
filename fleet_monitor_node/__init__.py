# SPDX-License-Identifier: Apache-2.0
"""ROS node that tells a person, or a file, what one camera does."""
