#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a bundle's README.md from what ``fleet evaluate BUNDLE DATA --json`` wrote beside it.

Usage: ``model_card.py BUNDLE``. Reads ``manifest.json``, ``evaluation.json`` and, where they are there,
``evaluation-int8.json`` and ``origin.md`` (what the commands alone do not say); no result is typed by hand.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

FEW = 4


def card(manifest: dict[str, Any], evaluation: dict[str, Any], int8: dict[str, Any] | None, origin: str) -> str:
    """The text of the model card.

    Args:
        manifest: of the bundle.
        evaluation: as ``fleet evaluate --json`` writes it.
        int8: the same with ``--precision int8``.
        origin: a paragraph on where the weights began, or nothing.
    """
    notes, conditions = manifest["notes"], evaluation["conditions"]
    went_on = "--bundle" in notes.get("training", "")
    config = (
        f"{manifest['name']}-exits.yaml --bundle models/{manifest['name']}" if went_on else f"{manifest['name']}.yaml"
    )
    lines = [
        f"# {manifest['name']}",
        "",
        f"{manifest['backbone']} at {manifest['input']['size']}×{manifest['input']['size']} pixels, "
        f"{len(manifest['classes'])} classes in the groups {', '.join(manifest['groups'])}. "
        "Written by `tools/model_card.py` from `manifest.json` and `evaluation.json`.",
        "",
        *(f"- **{key.replace('_', ' ')}**: {text}" for key, text in notes.items()),
        "",
        "Trained and written with",
        "",
        f"    fleet train config/training/{config} --output RUN",
        f"    fleet export RUN --output models/{manifest['name']}",
        "",
        *([origin, ""] if origin else []),
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
            for rung in entry["rungs"] if len(entry["rungs"]) < FEW else (entry["rungs"][0], entry["rungs"][-1]):
                where = f"{entry['stage']} ({codec}) | {rung['size']} | {rung['bytes']:.0f} | {rung['packets']:.1f}"
                lines.append(f"| {where} | {_shares(rung)} |")
    lines.append(f"| the device itself | | | | {_shares(evaluation['device'])} |")
    lines += _bytes(evaluation.get("bytes_at_equal_accuracy", {}))
    lines += _losses(evaluation.get("losses"))
    if int8 is not None:
        lines += _int8(evaluation, int8)
    return "\n".join(lines) + "\n"


def _bytes(pairs: dict[str, Any]) -> list[str]:
    """What the codecs need for the same accuracy."""
    if not pairs:
        return []
    lines = [
        *("", "## Bytes at equal accuracy", ""),
        "All bytes of all packets, headers too. *Full ladder*: both codecs send everything. *Fewest rungs*: both send "
        "the fewest rungs that reach the lower of the two full ladders' accuracies (four groups) less half a point.",
        "",
        "| codecs | exit | full ladder, bytes | four groups | ratio | fewest rungs, bytes | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for pair, found in pairs.items():
        for entry in found["exits"]:
            full, fewest = entry["full_ladder"], entry["fewest"]
            lines.append(
                f"| {pair} | {entry['stage']} | {full['bytes'][0]:.0f} / {full['bytes'][1]:.0f} | "
                f"{full['accuracy_groups'][0]:.1%} / {full['accuracy_groups'][1]:.1%} | {full['ratio']:.2f} | "
                f"{fewest['bytes'][0]:.0f} / {fewest['bytes'][1]:.0f} | {fewest['ratio']:.2f} |"
            )
        lines.append(
            f"| {pair} | mean | | | **{found['mean_ratio_full_ladder']:.2f}** | | "
            f"**{found['mean_ratio_fewest']:.2f}** |"
        )
    return lines


def _losses(losses: dict[str, Any] | None) -> list[str]:
    """What a lost half of the packets costs."""
    if losses is None:
        return []
    conditions = losses["conditions"]
    return [
        *("", "## Half of an exit's packets lost", ""),
        f"Four groups, {conditions['pictures']} pictures, packets of {conditions['payload']} bytes, "
        f"{conditions['draws']} draws (seed {conditions['seed']}), against the first half of the packets in order.",
        "",
        "| exit | packets | half in order | random half lost | change |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {e['stage']} | {e['packets']:.1f} | {e['in_order']:.1%} | {e['lost']:.1%} "
            f"({e['lost_range'][0]:.1%}–{e['lost_range'][1]:.1%}) | {100 * (e['lost'] - e['in_order']):+.1f} points |"
            for e in losses["exits"]
        ),
    ]


def _int8(evaluation: dict[str, Any], int8: dict[str, Any]) -> list[str]:
    """Full ladders and the device itself, in both precisions."""
    codec = next(iter(evaluation["codecs"]))
    rows = [
        (f"exit {a['stage']}", a["rungs"][-1], b["rungs"][-1])
        for a, b in zip(evaluation["codecs"][codec]["exits"], int8["codecs"][codec]["exits"], strict=True)
    ]
    rows.append(("the device itself", evaluation["device"], int8["device"]))
    return [
        *("", "## Int8 stages against float stages", ""),
        f"Four groups, the same {int8['conditions']['pictures']} pictures, full ladders.",
        "",
        "| | float | int8 | change |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {a['accuracy_groups']:.1%} | {b['accuracy_groups']:.1%} | "
            f"{100 * (b['accuracy_groups'] - a['accuracy_groups']):+.1f} points |"
            for name, a, b in rows
        ),
    ]


def _shares(found: dict[str, Any]) -> str:
    keys = ("accuracy_groups", "accuracy_wake_words", "accuracy_classes")
    return " | ".join(
        "" if found[key] is None else f"{found[key]:.1%} ({found[f'{key}_95'][0]:.1%}–{found[f'{key}_95'][1]:.1%})"
        for key in keys
    )


def identity_of(bundle: Path) -> str:
    """What evaluations call a bundle: the first bytes of its manifest's SHA-256."""
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()[:16]


def main(arguments: list[str]) -> int:
    """Write the card; returns the exit code."""
    if len(arguments) != 1:
        print("usage: model_card.py BUNDLE", file=sys.stderr)  # noqa: T201
        return 2
    bundle = Path(arguments[0])
    try:
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        evaluation = json.loads((bundle / "evaluation.json").read_text(encoding="utf-8"))
        other = bundle / "evaluation-int8.json"
        beginning = bundle / "origin.md"
        origin = beginning.read_text(encoding="utf-8").strip() if beginning.exists() else ""
        int8 = json.loads(other.read_text(encoding="utf-8")) if other.exists() else None
        for name, found in (("evaluation.json", evaluation), (other.name, int8 or evaluation)):
            if found["conditions"]["identity"] != identity_of(bundle):
                raise ValueError(f"{bundle / name} is of another bundle: measure it anew with fleet evaluate")
    except KeyError as err:
        print(f"model_card.py: {bundle}: there is no {err}", file=sys.stderr)  # noqa: T201
        return 2
    except (OSError, ValueError) as err:
        print(f"model_card.py: {err}", file=sys.stderr)  # noqa: T201
        return 2
    (bundle / "README.md").write_text(card(manifest, evaluation, int8, origin), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
