# SPDX-License-Identifier: Apache-2.0
"""Where frames come from: cameras, streams, files, archives and sample photographs."""

from fleet.sources.frame import Frame, Source, SourceTimeout
from fleet.sources.opening import open_source

__all__ = ["Frame", "Source", "SourceTimeout", "open_source"]
