# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in a training: what was done is saved, and never half a step."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass, field

import pytest

from fleet.training.saving import Saving
from fleet.training.steps import StepProgress, run_steps


@dataclass(frozen=True)
class Plan:
    steps: int = 5
    batch: int = 1


@dataclass
class Training:
    """Two numbers that belong together change in every step; Ctrl-C is pressed while the third one runs."""

    presses: int = 1
    step: int = 0
    loss: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    plan: Plan = Plan()
    twice: int = 0
    saved: list[tuple[int, int]] = field(default_factory=list)

    def train_step(self) -> float:
        self.twice += 2
        if self.step == 2:
            for _ in range(self.presses):
                signal.raise_signal(signal.SIGINT)
        self.step += 1
        return 0.0

    def running(self) -> dict[str, float]:
        return {}

    def save(self) -> None:
        self.saved.append((self.step, self.twice))


def test_ctrl_c_lets_the_step_come_to_its_end_and_saves_it() -> None:
    training, before = Training(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_steps(training, lambda _: None, save_every_s=1e9)
    assert training.saved == [(3, 6)]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_does_not_wait_for_the_step_and_saves_nothing_half_done() -> None:
    training = Training(presses=2)
    with pytest.raises(KeyboardInterrupt):
        run_steps(training, lambda _: None, save_every_s=1e9)
    assert (training.step, training.twice) == (2, 6)
    assert training.saved == []


def test_ctrl_c_between_two_steps_ends_the_run_at_once() -> None:
    training = Training(presses=0)

    def listen(now: StepProgress) -> None:
        if now.step == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_steps(training, listen, save_every_s=1e9)
    assert training.saved == [(4, 8)]


def test_what_goes_wrong_is_not_saved() -> None:
    training = Training(presses=0)

    def listen(now: StepProgress) -> None:
        raise ValueError(now.step)

    with pytest.raises(ValueError, match="1"):
        run_steps(training, listen, save_every_s=1e9)
    assert training.saved == []


def test_checkpoints_are_written_every_so_often_in_any_thread() -> None:
    training = Training(presses=0)
    thread = threading.Thread(target=run_steps, args=(training, lambda _: None), kwargs={"save_every_s": -1.0})
    thread.start()
    thread.join()
    assert list(dict.fromkeys(training.saved)) == [(n, 2 * n) for n in range(1, 6)]


def test_the_last_step_is_saved_before_anything_that_comes_behind_it() -> None:
    training = Training(presses=0)
    run_steps(training, lambda _: None, save_every_s=1e9)
    assert training.saved == [(5, 10)]
    run_steps(training, lambda _: None, save_every_s=1e9)  # nothing was left to do
    assert training.saved == [(5, 10)]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Saving(lambda: None, 1.0):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
