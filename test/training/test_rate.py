# SPDX-License-Identifier: Apache-2.0
"""What training believes a picture's numbers to cost is what the codec then makes of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fleet.codec import Quantiser, StageLayout, coder_named, encode_stage
from fleet.contexts import count_contexts
from fleet.ladder import Ladder
from fleet.packet import Header
from fleet.training.rate import ConditionalRate

CHANNELS, GRID, LEVELS = 4, 6, 32


def maps(count: int, seed: int) -> npt.NDArray[np.int32]:
    """Maps whose neighbours and channels have to do with each other."""
    random = np.random.default_rng(seed)
    field = random.normal(size=(count, 1, GRID, GRID)).cumsum(axis=2).cumsum(axis=3) / GRID
    field = field / (1 + np.arange(CHANNELS)[:, None, None])
    field = field + random.normal(size=(count, CHANNELS, GRID, GRID)) * 0.2
    return np.clip(np.rint(field * LEVELS / 8 + LEVELS / 2), 0, LEVELS - 1).astype(np.int32)


def learned(samples: npt.NDArray[np.int32], steps: int = 400) -> ConditionalRate:
    torch.manual_seed(0)
    rate = ConditionalRate(CHANNELS, GRID)
    with torch.no_grad():
        rate.zero.fill_(LEVELS / 2)
    optimiser = torch.optim.Adam(rate.parameters(), lr=0.02)
    x = torch.from_numpy(samples).float()
    for step in range(steps):
        part = x[step * 64 % len(x) :][:64]
        optimiser.zero_grad()
        rate(part).mean().backward()
        optimiser.step()
    return rate


def test_the_rate_that_training_presses_on_is_the_codec_s_to_a_tenth() -> None:
    samples, fresh = maps(1024, 1), maps(40, 2)
    rate = learned(samples)
    with torch.no_grad():
        estimate = float(rate(torch.from_numpy(fresh).float()).mean()) / 8
    quantiser = Quantiser((0.0,) * CHANNELS, (1.0,) * CHANNELS, LEVELS)
    layout = StageLayout(
        0,
        quantiser,
        Ladder(GRID, 0),
        (GRID,),
        (LEVELS // 2,) * CHANNELS,
        waves=(1,) * CHANNELS,
        contexts=count_contexts(samples, LEVELS, widths=6),
    )
    coder = coder_named("fleet")
    sizes = []
    for levels in fresh:
        features = quantiser.dequantise(levels)
        packets = encode_stage(layout, features, inference_id=1, payload=244, coder=coder)
        sizes.append(sum(len(packet) - Header.unpack(packet).size for packet in packets))
    assert abs(np.mean(sizes) / estimate - 1) < 0.1


def test_a_number_costs_nothing_of_those_behind_it() -> None:
    rate = learned(maps(256, 1), steps=20)
    x = torch.from_numpy(maps(1, 3)).float().requires_grad_()
    last = int(rate.lattice[-1].argmax())  # of the last channel, a cell of the last lattice
    rate(x).sum().backward()
    assert x.grad is not None
    assert (x.grad[0, -1].flatten()[last] != 0).item()
    changed = x.detach().clone()
    changed[0, -1].view(-1)[last] += 3
    with torch.no_grad():
        apart = _bits_but_of(rate, changed, last) - _bits_but_of(rate, x.detach(), last)
    assert float(apart.abs().max()) < 1e-4


def _bits_but_of(rate: ConditionalRate, x: torch.Tensor, place: int) -> torch.Tensor:
    """Bits of all numbers but the last channel's at one place, told apart by what each alone adds."""
    off = x - rate.zero[:, None, None]
    guess = rate._guess(off, "value")
    width = rate._guess(off.abs(), "size")
    found = torch.stack([guess, width])[:, 0].clone()
    found[:, -1].view(2, -1)[:, place] = 0
    return found
