# SPDX-License-Identifier: Apache-2.0
"""Trainings that differ in one thing: what depth, fusion and what arrives in training bring (Figures 1b and 1c)."""
