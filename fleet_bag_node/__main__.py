# SPDX-License-Identifier: Apache-2.0
"""The bag node as a process: `python -m fleet_bag_node` and the executable `bag_node`."""

from fleet_ros.early import die_quietly_until_ready


def main() -> None:
    """Run the bag node."""
    die_quietly_until_ready()
    from fleet_bag_node.node import main as run  # noqa: PLC0415 - after the signal handler, for it takes seconds

    run()


if __name__ == "__main__":
    main()
