# SPDX-License-Identifier: Apache-2.0
"""Where frames come from: cameras, streams, files, archives and sample photographs."""

from fleet.sources.frame import Frame, Source, SourceGone, SourceTimeout
from fleet.sources.opening import open_source
from fleet.sources.region import RegionSource, Roi, roi_named

__all__ = ["Frame", "RegionSource", "Roi", "Source", "SourceGone", "SourceTimeout", "open_source", "roi_named"]
