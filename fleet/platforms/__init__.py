# SPDX-License-Identifier: Apache-2.0
"""Device profiles: how long each stage takes on a platform, and its power."""

from fleet.platforms.loading import available, load_profile, to_yaml
from fleet.platforms.profile import LAYER_TYPES, PlatformProfile

__all__ = ["LAYER_TYPES", "PlatformProfile", "available", "load_profile", "to_yaml"]
