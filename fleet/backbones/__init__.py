# SPDX-License-Identifier: Apache-2.0
"""Backbones as lists of stages: ``build_backbone("mobilenetv3", input_size=64, classes=100)``."""

from fleet.backbones.build import BACKBONES, MEAN, STD, build_backbone
from fleet.backbones.stage import Backbone, Macs, StageSpec
from fleet.backbones.weights import IN_BUNDLE, load_weights, save_weights

__all__ = [
    "BACKBONES",
    "IN_BUNDLE",
    "MEAN",
    "STD",
    "Backbone",
    "Macs",
    "StageSpec",
    "build_backbone",
    "load_weights",
    "save_weights",
]
