# SPDX-License-Identifier: Apache-2.0
"""A stage's layout as a manifest holds it, and the manifest's text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fleet.contexts import TOTAL as CONTEXT_TOTAL
from fleet.contexts import Contexts, Look, Outlook
from fleet.ladder import Ladder
from fleet.layout import Quantiser, StageLayout
from fleet.tables import TOTAL, Tables


def layout_from_manifest(stage: int, latent: Mapping[str, Any]) -> StageLayout:
    """A stage's layout as the manifest describes it (the inverse of :func:`layout_to_manifest`)."""
    return StageLayout(
        stage=stage,
        quantiser=Quantiser(tuple(map(float, latent["low"])), tuple(map(float, latent["step"])), int(latent["levels"])),
        ladder=Ladder(int(latent["base"]), int(latent["doublings"]), latent["order"]),
        rungs=tuple(map(int, latent["rungs"])),
        mean_levels=tuple(map(int, latent["mean_levels"])),
        spread=int(latent.get("spread", 0)),
        tables=_tables(latent["tables"], TOTAL) if "tables" in latent else None,
        waves=tuple(map(int, latent.get("waves", ()))),
        contexts=_contexts(latent["contexts"]) if "contexts" in latent else None,
    )


def _tables(rows: Sequence[Sequence[Any]], total: int) -> Tables:
    return Tables(tuple(tuple(map(int, row)) for row in rows), total)


def _contexts(said: Mapping[str, Any]) -> Contexts:
    return Contexts(
        tuple(map(int, said["zero"])),
        tuple(Outlook(_looks(o["values"]), _looks(o["sizes"]), int(o["bias"])) for o in said["outlooks"]),
        tuple(tuple(map(int, edges)) for edges in said["edges"]),
        _tables(said["tables"], CONTEXT_TOTAL),
    )


def _looks(rows: Sequence[Sequence[Any]]) -> tuple[Look, ...]:
    return tuple((int(at), int(down), int(across), int(weight)) for at, down, across, weight in rows)


def layout_to_manifest(layout: StageLayout) -> dict[str, Any]:
    """What the manifest says of a stage's layout."""
    tables = {} if layout.tables is None else {"tables": [list(table) for table in layout.tables.entries]}
    return {
        "low": list(layout.quantiser.low),
        "step": list(layout.quantiser.step),
        "levels": layout.quantiser.levels,
        "base": layout.ladder.base,
        "doublings": layout.ladder.levels,
        "order": layout.ladder.order,
        "rungs": list(layout.rungs),
        "mean_levels": list(layout.mean_levels),
        "spread": layout.spread,
        **({"waves": list(layout.waves)} if layout.waves else {}),
        **tables,
        **({} if layout.contexts is None else {"contexts": _said(layout.contexts)}),
    }


def _said(contexts: Contexts) -> dict[str, Any]:
    return {
        "zero": list(contexts.zero),
        "outlooks": [
            {"values": [list(look) for look in o.values], "sizes": [list(look) for look in o.sizes], "bias": o.bias}
            for o in contexts.outlooks
        ],
        "edges": [list(edges) for edges in contexts.edges],
        "tables": [list(table) for table in contexts.tables.entries],
    }


def as_json(manifest: Mapping[str, Any]) -> str:
    """Readable, but with a list of numbers on one line."""
    text = json.dumps(manifest, indent=1)
    return re.sub(r"\[[-+0-9.eE,\s]*\]", lambda found: re.sub(r"\s+", " ", found.group()), text) + "\n"
