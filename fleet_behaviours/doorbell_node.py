# SPDX-License-Identifier: Apache-2.0
"""The doorbell node as a process: `python -m fleet_behaviours.doorbell_node` and the executable `doorbell_node`."""

from fleet_ros.early import die_quietly_until_ready


def main() -> None:
    """Run the doorbell node."""
    die_quietly_until_ready()
    from fleet_behaviours.doorbell import main as run  # noqa: PLC0415 - after the signal handler, for it takes seconds

    run()


if __name__ == "__main__":
    main()
