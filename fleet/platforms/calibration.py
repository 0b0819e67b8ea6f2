# SPDX-License-Identifier: Apache-2.0
"""The speed of the Cortex-M33, which the paper does not print, from an energy that it does print.

Table 4 gives 4.04 mJ for the best local early exit on CIFAR-100 and Table 2 gives 9.3 mW, so that exit takes
4.04 / 9.3 s = 434 ms. What is missing is which exit it is. The paper's local exits sit behind layers 1-3, 5, 8, 11,
13 and at the end (Section 4.1), and two other cells of Table 4 narrow the choice:

* Model partition runs the device up to layer 5 and costs 1.25 mJ at best, its radio included. So layer 5 takes at most
  1.25 / 4.04 of the local exit's work: 2.81 M of at least 9.09 M multiply-accumulates. Exits 5, 8 and 11 are too early.
* What remains are exit 13 (11.4 M: 0.41 multiply-accumulates a cycle at 64 MHz) and the whole network (30.1 M: 1.07 a
  cycle, close to what the core could do at all, two 16-bit products a cycle, without a single load).

So exit 13 it is. The profile's YAML names it, and another one can be put there. Either way the 4.04 mJ
come out by construction and are no evidence for anything.
"""

from __future__ import annotations

from fleet.errors import FleetError

# Multiply-accumulates of MobileNetV3-Large in the paper's CIFAR variant (32x32 input, layers 3 and 14 with stride 1)
# up to and including a stage, squeeze-and-excite included, activations and batch norm not. With (cells, kernel,
# input, expanded, output channels) of each inverted residual, and q the squeezed channels where there is an SE block:
#
#   cells_in * in * expanded  +  cells_out * kernel^2 * expanded  +  2 * expanded * q  +  cells_out * expanded * out
#
#   stage  1  16x16, 3x3 stem 3 -> 16                              110,592
#   stage  2  16x16, k3, 16 -> (16) -> 16, no expansion            102,400
#   stage  3  16x16, k3, 16 -> 64 -> 24, stride 1 here             802,816
#   stage  4  16x16, k3, 24 -> 72 -> 24                          1,050,624
#   stage  5  8x8,   k5, 24 -> 72 -> 40, q 24, stride 2            745,344
#   stage  6  8x8,   k5, 40 -> 120 -> 40, q 32                     814,080
#   stage  7  8x8,   the same                                      814,080
#   stage  8  4x4,   k3, 40 -> 240 -> 80, stride 2                 956,160
#   stage  9  4x4,   k3, 80 -> 200 -> 80                           540,800
#   stage 10  4x4,   k3, 80 -> 184 -> 80                           497,536
#   stage 11  4x4,   the same                                      497,536
#   stage 12  4x4,   k3, 80 -> 480 -> 112, q 120                 1,658,880
#   stage 13  4x4,   k3, 112 -> 672 -> 112, q 168                2,731,008
CIFAR_MACS_TO_STAGE = {5: 2_811_776, 8: 5_396_096, 11: 6_931_968, 13: 11_321_856}
CIFAR_CHANNELS = {5: 40, 8: 80, 11: 80, 13: 112}

EXIT_POOL = 2  # cells a side before a deep exit's classifier (Section 4.1: 4x4 or 2x2, by depth)
CIFAR_CLASSES = 100


def local_exit_macs(stage: int) -> int:
    """Multiply-accumulates of the paper's 32x32 network up to a local early exit, its classifier included.

    Args:
        stage: 5, 8, 11 or 13.

    Raises:
        FleetError: another stage; the paper's exits in front of these are no candidates.
    """
    if stage not in CIFAR_MACS_TO_STAGE:
        known = ", ".join(str(n) for n in CIFAR_MACS_TO_STAGE)
        msg = f"cannot calibrate on a local exit behind stage {stage}; use one of {known}"
        raise FleetError(msg)
    return CIFAR_MACS_TO_STAGE[stage] + EXIT_POOL**2 * CIFAR_CHANNELS[stage] * CIFAR_CLASSES


def rate_from_energy(macs: int, energy_mj: float, power_mw: float) -> float:
    """Multiply-accumulates a second of a processor that spends ``energy_mj`` on ``macs`` of them.

    Args:
        macs: multiply-accumulates.
        energy_mj: their energy in mJ.
        power_mw: power of the busy processor in mW.
    """
    return macs * power_mw / energy_mj
