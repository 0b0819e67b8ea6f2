# SPDX-License-Identifier: Apache-2.0
"""The bridge node as a process: `python -m fleet_ble_bridge` and the executable `bridge_node`."""

from fleet_ros.early import die_quietly_until_ready


def main() -> None:
    """Run the bridge node."""
    die_quietly_until_ready()
    from fleet_ble_bridge.node import main as run  # noqa: PLC0415 - after the signal handler, for it takes seconds

    run()


if __name__ == "__main__":
    main()
