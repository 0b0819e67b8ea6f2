# SPDX-License-Identifier: Apache-2.0
"""The device node as a process: `python -m fleet_device_node` and the executable `device_node`."""

from fleet_ros.early import die_quietly_until_ready


def main() -> None:
    """Run the device node."""
    die_quietly_until_ready()
    from fleet_device_node.node import main as run  # noqa: PLC0415 - after the signal handler, for it takes seconds

    run()


if __name__ == "__main__":
    main()
