# SPDX-License-Identifier: Apache-2.0
"""How trainings show how far they are: a bar in a terminal, else a line now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY = 100
"""Steps between lines where there is no terminal for a bar."""


Tell = Callable[[int, int, str], None]
"""Shows where a training is: steps done, steps of the whole run, a few words."""


@contextmanager
def steps_bar(console: Console, name: str) -> Iterator[Tell]:
    """A training's bar; what it yields is to be called after every step.

    Args:
        console: where it is shown.
        name: of the training.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        def tell(step: int, steps: int, text: str) -> None:
            bar.update(task, completed=step, total=steps, description=f"{name} {text}")
            if not console.is_terminal and step % LINE_EVERY == 0:
                console.print(f"{name} step {step}/{steps} {text}")

        yield tell
