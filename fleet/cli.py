# SPDX-License-Identifier: Apache-2.0
"""The ``fleet`` command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer

from fleet.commands.calibrate import calibrate
from fleet.commands.camera import camera
from fleet.commands.evaluate import evaluate
from fleet.commands.export import export
from fleet.commands.link import link
from fleet.commands.profile import profile
from fleet.commands.train import train
from fleet.commands.up import up
from fleet.errors import FleetError

app = typer.Typer(
    name="fleet",
    help="Early-exit inference for cameras whose radio sleeps most of the time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _fleet() -> None:
    """Keep `fleet VERB` even while there is one verb."""


def _verb(function: Callable[..., Any]) -> None:
    app.command(name=function.__name__)(function)


for _function in (up, camera, link, evaluate, train, calibrate, export, profile):
    _verb(_function)


def main() -> None:
    """Run the command; what the user can mend ends in one line and exit code 2."""
    try:
        app()
    except FleetError as err:
        print(f"fleet: {err}", file=sys.stderr)  # noqa: T201 - the user's line
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
