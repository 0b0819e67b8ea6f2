# SPDX-License-Identifier: Apache-2.0
"""ROS node that serves a page on which a person sees what cameras, radios and hub are doing."""
