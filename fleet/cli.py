# SPDX-License-Identifier: Apache-2.0
"""The ``fleet`` command."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from fleet.commands.bag import bag
from fleet.commands.baselines import baselines
from fleet.commands.calibrate import calibrate
from fleet.commands.camera import camera
from fleet.commands.evaluate import evaluate
from fleet.commands.export import export
from fleet.commands.link import link
from fleet.commands.profile import profile
from fleet.commands.report import report
from fleet.commands.study import study
from fleet.commands.sweep import sweep
from fleet.commands.trace import trace
from fleet.commands.train import train
from fleet.commands.up import up
from fleet.errors import FleetError

INTERRUPTED = 130
# What every complaint of the parser derives from: click's class or, in newer releases, typer's own copy of it.
_USAGE_PROBLEM: type[typer.BadParameter] = typer.BadParameter.__mro__[2]

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


for _function in (up, camera, link, evaluate, train, calibrate, export, profile, trace, sweep, report, study):
    _verb(_function)
app.add_typer(bag)
app.add_typer(baselines)


def main() -> None:
    """Run the command; what the user can mend ends in one line and exit code 2."""
    interrupted = []

    def on_interrupt(_number: int, _frame: object) -> NoReturn:
        interrupted.append(True)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)
    try:
        code = app(standalone_mode=False)  # otherwise a wrong option is a box of five lines
    except FleetError as err:
        _fail(str(err))
    except _USAGE_PROBLEM as err:
        _fail(_advice(err))
    except typer.Abort:
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception:
        if interrupted:  # a library that was just being imported makes something else of it
            sys.exit(INTERRUPTED)
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _advice(problem: typer.BadParameter) -> str:
    """One line from the parser's complaint, and where to read on; the help itself where nothing was asked for."""
    message = " ".join(problem.format_message().split()).rstrip(".")
    context = getattr(problem, "ctx", None)
    if context is None:
        return message
    return f"{message} ({context.command_path} --help lists what there is)"


def _fail(line: str) -> NoReturn:
    print(f"fleet: {line}", file=sys.stderr)  # noqa: T201 - the user's line
    sys.exit(2)


if __name__ == "__main__":
    main()
