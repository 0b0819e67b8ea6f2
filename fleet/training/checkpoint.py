# SPDX-License-Identifier: Apache-2.0
"""Averaged weights, and checkpoints that are either whole or not there."""

from __future__ import annotations

import copy
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fleet.errors import FleetError

FORMAT = 1


class Ema:
    """Exponential moving average of a network's weights and running statistics.

    Args:
        model: the network that is trained.
        decay: weight of the past at each update; the first updates use less, so that the random start
            is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the network's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        present = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(present[name])
            else:
                average.copy_(present[name])
        torch._foreach_lerp_(averages, values, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Weights and number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of another average of the same network."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]


@contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """Hold the output folder of a run: two runs would overwrite each other's checkpoints.

    Raises:
        FleetError: another process holds it, or the folder cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = (output / "lock").open("w")
    except OSError as err:
        raise FleetError(f"cannot write to {output}: {err.strerror}") from err
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however it ends
        except OSError as err:
            raise FleetError(f"another training is writing to {output}; stop it or choose another --output") from err
        yield


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers, strings, lists and dictionaries, atomically.

    A process killed at any moment leaves the old file or the new one in its place.

    Raises:
        FleetError: it cannot be written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except (OSError, RuntimeError) as err:  # torch makes the second of a full disk
        reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err).partition("\n")[0]
        raise FleetError(f"cannot write {path}: {reason}") from err
    finally:
        draft.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote; no code in the file is run.

    Raises:
        FleetError: missing, damaged, or of another format.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as err:
        msg = f"no checkpoint at {path}; start the training without --resume"
        raise FleetError(msg) from err
    except Exception as err:  # torch raises whatever the damaged part of the file leads to
        msg = f"{path} is damaged or no checkpoint; delete it and start again"
        raise FleetError(msg) from err
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        msg = f"{path} is not a checkpoint of this version; delete it and start again"
        raise FleetError(msg)
    return state
