#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a bundle's README.md from what ``fleet evaluate BUNDLE DATA --json`` wrote beside it.

Usage: ``model_card.py BUNDLE``. Reads ``manifest.json`` and ``evaluation.json``; no number is typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def card(manifest: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """The text of the model card.

    Args:
        manifest: of the bundle.
        evaluation: as ``fleet evaluate --json`` writes it.
    """
    notes, conditions = manifest["notes"], evaluation["conditions"]
    lines = [
        f"# {manifest['name']}",
        "",
        f"{manifest['backbone']} at {manifest['input']['size']}×{manifest['input']['size']} pixels, "
        f"{len(manifest['classes'])} classes in the groups {', '.join(manifest['groups'])}. "
        "Written by `tools/model_card.py` from `manifest.json` and `evaluation.json`.",
        "",
        *(f"- **{key.replace('_', ' ')}**: {text}" for key, text in notes.items()),
        "",
        "## Accuracy",
        "",
        f"On {conditions['pictures']} pictures of `{Path(conditions['data']).name}`, which nothing was trained or "
        f"chosen on; {conditions['precision']} stages, packets of {conditions['payload']} bytes; in brackets the 95 % "
        "bootstrap interval. Everything of the stage before has arrived; of the exit's own stage, everything up to "
        "the rung.",
        "",
        "| exit | rung | bytes | packets | four groups | vehicle / pet / animal | classes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for codec, measured in evaluation["codecs"].items():
        for entry in measured["exits"]:
            for rung in (entry["rungs"][0], entry["rungs"][len(entry["rungs"]) // 2], entry["rungs"][-1]):
                where = f"{entry['stage']} ({codec}) | {rung['size']} | {rung['bytes']:.0f} | {rung['packets']:.1f}"
                lines.append(f"| {where} | {_shares(rung)} |")
    lines.append(f"| the device itself | | | | {_shares(evaluation['device'])} |")
    return "\n".join(lines) + "\n"


def _shares(found: dict[str, Any]) -> str:
    keys = ("accuracy_groups", "accuracy_wake_words", "accuracy_classes")
    return " | ".join(
        "" if found[key] is None else f"{found[key]:.1%} ({found[f'{key}_95'][0]:.1%}–{found[f'{key}_95'][1]:.1%})"
        for key in keys
    )


def main(arguments: list[str]) -> int:
    """Write the card; returns the exit code."""
    if len(arguments) != 1:
        print("usage: model_card.py BUNDLE", file=sys.stderr)  # noqa: T201
        return 2
    bundle = Path(arguments[0])
    try:
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        evaluation = json.loads((bundle / "evaluation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        print(f"model_card.py: {err}", file=sys.stderr)  # noqa: T201
        return 2
    (bundle / "README.md").write_text(card(manifest, evaluation), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
