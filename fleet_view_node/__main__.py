# SPDX-License-Identifier: Apache-2.0
"""The view node as a process: `python -m fleet_view_node` and the executable `view_node`."""

from fleet_ros.early import die_quietly_until_ready


def main() -> None:
    """Run the view node."""
    die_quietly_until_ready()
    from fleet_view_node.node import main as run  # noqa: PLC0415 - after the signal handler, for it takes seconds

    run()


if __name__ == "__main__":
    main()
