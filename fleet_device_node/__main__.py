# SPDX-License-Identifier: Apache-2.0
"""`python -m fleet_device_node`: the device node as a process."""

from fleet_ros.early import die_quietly_until_ready

die_quietly_until_ready()

from fleet_device_node.node import main  # noqa: E402 - after the signal handler, for it takes seconds

main()
