# SPDX-License-Identifier: Apache-2.0
"""What people read about the baselines: a card beside the weights, and the compute plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fleet.baselines.registry import FAMILIES
from fleet.baselines.store import Index
from fleet.bundle import Bundle

_HEADER = "| part | what is trained | epochs | images | steps | minutes | weights fine-tuned | new weights |"
_FULL = (
    "Raise `epochs` in `config/baselines.yaml` and run `fleet baselines train config/baselines.yaml --runs NEW`; "
    "`shallow-deep-joint` there (a budget of its own) trains Shallow-Deep's backbone too, as published. "
    "`fleet baselines export config/baselines.yaml --runs NEW` writes the result."
)


def write_card(directory: Path, index: Index) -> None:
    """Write ``README.md`` beside the weights."""
    lines = [
        "# Baselines",
        "",
        "Weights of what FLEET is compared with; what equals the base network of `models/backyard` is not stored "
        "again. Written by `fleet baselines export`.",
        "",
        *(f"- **{key}**: {note}" for key, note in index.notes.items()),
        "",
        "## Training",
        "",
        *_spent(index),
        "",
        "Minutes are those of one processor core that other work shared.",
        "",
        *_accuracies(index),
    ]
    (directory / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def compute_plan(index: Index, bundle: Bundle) -> str:
    """What every scheme was given, ours beside theirs."""
    lines = [
        "# Compute plan",
        "",
        "Every scheme begins with the same base network and sees the same training images with the same augmentation "
        "and loss; nothing is trained on the calibration split (the last 5,000 images) or chosen on the test split.",
        "",
        f"**FLEET** ({bundle.name}): {bundle.notes.get('training', 'not noted')}",
        "",
        *_spent(index),
        "",
        "Minutes are those of one processor core that other work shared.",
        "",
        "## What was made cheaper",
        "",
        "- Shallow-Deep: the published IC-only training; the backbone is frozen, as it is for FLEET's exits.",
        "- Ensemble: networks cut from the base network and fine-tuned, not trained from the beginning; the deepest is "
        "the base network itself.",
        "- JPEG, WebP: one network for all qualities, sizes and both formats.",
        "- CLIO, Neurosurgeon: the device's half and the last stages stay frozen; taught by the base network's "
        "answers, as FLEET's exits are (the papers do without).",
        "",
        f"In full: {_FULL}",
    ]
    return "\n".join(lines) + "\n"


def _spent(index: Index) -> Iterator[str]:
    yield _HEADER
    yield "|" + " --- |" * _HEADER.count(" | ") + " --- |"
    for family in FAMILIES:
        entry = index.entries.get(family.name)
        for part in entry.spent if entry else ():
            yield (
                f"| {part['scheme']} | {part['trained']} | {part['epochs']} | {part['images']:,} | {part['steps']:,} | "
                f"{part['seconds'] / 60:.0f} | {part['weights_fine_tuned']:,} | {part['weights_new']:,} |"
            )


def _accuracies(index: Index) -> Iterator[str]:
    for entry in index.entries.values():
        for name, found in entry.accuracy.items():
            yield f"## {name}"
            yield ""
            yield f"On {found['pictures']} pictures of the calibration split."
            yield ""
            yield from _table(found)
            yield ""


def _table(found: Mapping[str, Any]) -> Iterator[str]:
    rows: Mapping[str, Mapping[str, float]] = found["rows"]
    keys = list(next(iter(rows.values())))
    yield "| | " + " | ".join(key.removeprefix("accuracy_").replace("_", " ") for key in keys) + " |"
    yield "| --- |" + " --- |" * len(keys)
    for name, accuracy in rows.items():
        yield f"| {name} | " + " | ".join(f"{100 * accuracy[key]:.1f}%" for key in keys) + " |"
    if "bytes" in found:
        yield ""
        yield "| what is sent | bytes |"
        yield "| --- | --- |"
        for name, size in found["bytes"].items():
            yield f"| {name} | {size:.0f} |"
