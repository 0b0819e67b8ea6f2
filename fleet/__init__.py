# SPDX-License-Identifier: Apache-2.0
"""FLEET: early-exit inference for cameras whose radio sleeps most of the time.

The method of the paper (Huang, Guan, Ganesan, MobiCom 2023) as pure functions and small classes:
no ROS, no thread and no file is touched by importing it.
"""

__version__ = "0.1.0"
