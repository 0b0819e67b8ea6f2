# SPDX-License-Identifier: Apache-2.0
"""What stands beside the weights: a card for people, and the compute plan, which `fleet report` prints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from fleet.baselines.config import Budget
from fleet.baselines.registry import FAMILIES
from fleet.baselines.store import Index
from fleet.bundle import Bundle
from fleet.training.config import PictureConfig, TrainingConfig
from fleet.training.exits import noted_images, noted_number
from fleet.training.picture import PICTURE_IMAGES_NOTE, PICTURE_NOTE

PLAN = "plan.json"
LOCAL_EXITS_NOTE = "local exits"
"""The bundle's note of how the local exits that it has were trained."""
_HEADER: Final = "| part | what is trained | epochs | images | steps | minutes | weights fine-tuned | new weights |"
_COMMAND: Final = "fleet baselines train config/baselines.yaml --runs NEW --only {part}"
_FULL: Final = "raise its `epochs` in config/baselines.yaml, then " + _COMMAND
_TOLD: Final[dict[str, tuple[str | None, str, str]]] = {
    # family: (what was made cheaper, what its paper does, how to do it in full)
    "shallow-deep": (
        "internal classifiers only, on the frozen base network (published as IC-only training)",
        "IC-only training, or training of everything with weights that grow",
        "give `shallow-deep-joint` a budget in config/baselines.yaml, then "
        + _COMMAND.format(part="shallow-deep-joint"),
    ),
    "branchynet": (
        "fine-tuned from the base network for a few epochs",
        "trains network and exits jointly from the beginning",
        _FULL.format(part="branchynet"),
    ),
    "ensemble": (
        "members are cut from the base network, of which the last two stages are fine-tuned; the deepest is the base "
        "network itself",
        "trains every member from the beginning",
        "give `ensemble-1-whole` … `ensemble-13-whole` budgets in config/baselines.yaml, then "
        + _COMMAND.format(part="ensemble-1-whole …"),
    ),
    "clio": (
        "the device's stages and the hub's last ones stay frozen; taught by the base network, as FLEET's exits are",
        "trains both ends and a head for every width",
        _FULL.format(part="clio"),
    ),
    "neurosurgeon": (
        "the base network stays frozen and teaches, as with FLEET's exits",
        "cuts a trained network without training; pooled features are FLEET's addition (section 4.1)",
        _FULL.format(part="neurosurgeon"),
    ),
    "jpeg": (
        "one network for all qualities, sizes and both formats",
        "fine-tunes on images of every quality (FLEET section 4.2)",
        _FULL.format(part="jpeg"),
    ),
}


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
        "Minutes are those of one processor core that other work shared. What was made cheaper, and how to do it in "
        f"full, stands in `{PLAN}`.",
        "",
        *_accuracies(index),
    ]
    (directory / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def write_plan(directory: Path, index: Index, bundle: Bundle, config: TrainingConfig) -> None:
    """Write the compute plan: what the training of every scheme was given, FLEET's own among them.

    Args:
        directory: of the baselines.
        index: of what is there.
        bundle: whose base network all begin with.
        config: of that network's training, with its exits.
    """
    plan = {
        "format": 1,
        "base": {
            "name": bundle.name,
            "identity": bundle.identity.hex(),
            "backbone": bundle.backbone,
            "input_size": bundle.input_size,
            "note": bundle.notes.get("training", ""),
        },
        "machine": "one core a training of a shared two-core x86-64 machine",
        "schemes": [
            *_fleet(bundle, config),
            *(_entry(family.name, index, config) for family in FAMILIES if family.name in index.entries),
        ],
    }
    (directory / PLAN).write_text(json.dumps(plan, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _fleet(bundle: Bundle, config: TrainingConfig) -> Iterator[dict[str, Any]]:
    if config.exits is None:
        return
    images = noted_images(bundle.notes, config.exits.steps * config.exits.batch)
    yield {
        "name": "fleet",
        "parts": "encoders, exit blocks, the hub's trunk",
        "trained": bundle.notes.get("training", ""),
        "frozen": False,
        "images": images,
        "batch": config.exits.batch,
        "seed": config.seed,
        "variant": "a short training behind the device's frozen base network",
        "published": "a fusion block for every combination of sizes (FLEET section 3.3)",
        "full_command": "raise exits.steps in config/training/backyard-exits.yaml, then "
        "fleet train config/training/backyard-exits.yaml --bundle models/backyard --output NEW",
    }
    if bundle.picture is not None:
        yield {
            "name": "fleet-picture",
            "parts": "stage 0's transform, exit 0 and first stages of its own",
            "trained": bundle.notes.get(PICTURE_NOTE, ""),
            "frozen": False,
            "images": noted_number(bundle.notes, PICTURE_IMAGES_NOTE, 0),
            "batch": PictureConfig().batch,
            "seed": config.seed,
            "variant": "a short training beside the finished networks",
            "published": "not in the paper (design section 12.4)",
            "full_command": "raise picture.steps in config/training/backyard-picture.yaml, then "
            "fleet train config/training/backyard-picture.yaml --bundle models/backyard --output NEW",
        }
    if (told := bundle.notes.get(LOCAL_EXITS_NOTE)) is not None:
        seen = re.search(r"([\d,]+) images", told)
        yield {
            "name": "fleet-picture-race",
            "parts": "small convolutional heads, for the race",
            "trained": told,
            "frozen": True,
            "images": int(seen[1].replace(",", "")) if seen is not None else 0,
            "batch": Budget(epochs=1).batch,
            "seed": config.seed,
            "variant": "heads only: the backbone runs forward, and its own answer is learned from, too",
            "published": "not in the paper (design section 12.7)",
            "full_command": "raise local-exits in config/baselines.yaml, then "
            "fleet baselines train config/baselines.yaml --only local-exits",
        }


def _entry(family: str, index: Index, config: TrainingConfig) -> dict[str, Any]:
    spent = index.entries[family].spent
    variant, published, command = _TOLD[family]
    return {
        "name": family,
        "parts": ", ".join(part["scheme"] for part in spent),
        "trained": "; ".join(dict.fromkeys(part["trained"] for part in spent)),
        "frozen": not any(part["weights_fine_tuned"] for part in spent),
        "epochs": max(part["epochs"] for part in spent),
        "images": sum(part["images"] for part in spent),
        "seconds": float(sum(part["seconds"] for part in spent)),
        "batch": max(part["batch"] for part in spent),
        "seed": config.seed,
        "variant": variant,
        "published": published,
        "full_command": command,
    }


def _spent(index: Index) -> Iterator[str]:
    yield _HEADER
    yield "|" + " --- |" * (_HEADER.count("|") - 1)
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
            yield from (f"## {name}", "", f"On {found['pictures']} pictures of the calibration split.", "")
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
        yield from ("", "| what is sent | bytes |", "| --- | --- |")
        for name, size in found["bytes"].items():
            yield f"| {name} | {size:.0f} |"
