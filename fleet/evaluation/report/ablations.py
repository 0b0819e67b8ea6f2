# SPDX-License-Identifier: Apache-2.0
"""What each step past the paper brings, against the version without it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fleet.evaluation.report import studies
from fleet.evaluation.report.context import Context, missing_sweep
from fleet.evaluation.report.document import Block, Cell, NotRun, Section, Table
from fleet.evaluation.report.estimate import NONE, NOT_REACHED, NOT_RUN
from fleet.evaluation.report.sweeps import Row, scale_name

STEPS: Mapping[int, tuple[str, str]] = {
    1: ("few-bit latents with a tabled range coder", ""),
    2: ("the reversible ladder in place of eq. 6", ""),
    3: ("ordered channels by tail-drop training", "fleet-no-tail-drop"),
    4: ("stage 0: the picture itself, while stage 1 would run", "fleet-picture"),
    5: ("bursts, not bytes: the stop rule", "fleet-no-stop-rule"),
    6: ("exit on more than the top-1 softmax", "fleet-single"),
    7: ("the race against local exits", "fleet-race"),
    8: ("distilled cloud exits", "fleet-not-distilled"),
    9: ("temporal gating for video", ""),
}
"""Design section 12: step, and the scheme of a sweep that has it or lacks it."""
ABLATION_CI_MS = 10.0
_MANNERS = {
    "patient": "an unsure last exit leaves the answer to the device",
    "parts": "thresholds of their own for stages that have only begun",
    "fill": "events are filled up with the stage before",
    "thirds": "a threshold for each third of the picture while it arrives",
}
SCHEME_STEP = {
    "fleet-no-tail-drop": 3,
    "fleet-picture": 4,
    "fleet-picture-one": 4,
    "fleet-picture-race": 4,
    "fleet-picture-thrifty": 4,
    "fleet-no-stop-rule": 5,
    "fleet-whole-rungs": 5,
    "fleet-patient": 5,
    "fleet-parts": 5,
    "fleet-fill": 5,
    "fleet-best": 5,
    "fleet-best-race": 7,
    "fleet-single": 6,
    "fleet-entropy": 6,
    "fleet-margin": 6,
    "fleet-agreement": 6,
    "fleet-race": 7,
    "fleet-not-distilled": 8,
}


def section(context: Context) -> Section:
    """Every step of design section 12, against the version without it."""
    evidence = context.evidence
    blocks: list[Block] = []
    variants = [
        n
        for n, about in evidence.schemes.items()
        if about.get("family") == "fleet" and n != "fleet" and evidence.has(n)
    ]
    rows = [
        row for row in evidence.rows if row.setting.unit == evidence.unit and any(v in row.schemes for v in variants)
    ]
    chosen = _ablation_rows(context, rows)
    lines: list[tuple[Cell | str, ...]] = []
    for step, (what, usual) in STEPS.items():
        schemes = [v for v in variants if _step(evidence.schemes[v], v) == step]
        if step in (1, 2) and not schemes:
            lines.append((f"{step}. {what}", Cell("in bytes: below", "one codec has both"), *([NONE] * len(chosen))))
            continue
        if not schemes:
            lines.append(
                (
                    f"{step}. {what}",
                    Cell(usual or NOT_RUN, f"{NOT_RUN}: {_missing(step, study=context.study)}", "quiet"),
                    *([NONE] * len(chosen)),
                )
            )
        for scheme in schemes:
            about = _about(evidence.schemes[scheme])
            lines.append((f"{step}. {what}", Cell(scheme, about), *(_gain(row, scheme) for row in chosen)))
    others = [v for v in variants if _step(evidence.schemes[v], v) not in STEPS]
    for scheme in others:
        about = _about(evidence.schemes[scheme])
        lines.append(("not numbered", Cell(scheme, about), *(_gain(row, scheme) for row in chosen)))
    heads = [
        f"#{r.setting.packets} payload{'s' * (r.setting.packets > 1)}, {scale_name(r.setting.time_scale)}"
        for r in chosen
    ]
    blocks.append(
        Table(
            "ablations-table",
            "What each step past the paper brings: latency of the variant over FLEET's at the same accuracy target",
            ("step", "variant", *heads),
            tuple(lines),
            context.conditions(
                chosen,
                "platform cortex-a77-200",
                "PHY 1M",
                f"CI {', '.join(sorted({f'{r.ci_ms:g}' for r in chosen})) or 'not run'} ms",
                f"acknowledgements {evidence.papers}",
                f"judged by {evidence.unit}",
            ),
            (
                "Above 1: the variant is slower than FLEET. fleet-race and fleet-picture add a step to FLEET, the "
                "others take one away "
                "or change it.",
                "Below each ratio: the variant's accuracy on the test split. Intervals of the ratio are the widest "
                "that the two "
                "latencies' own allow.",
            ),
        )
    )
    blocks += _codec(context)
    return Section("ablations", "Past the paper, step by step", tuple(blocks))


def _ablation_rows(context: Context, rows: Sequence[Row]) -> list[Row]:
    """The headline link at one interval, both scales."""
    nearest = min({r.ci_ms for r in rows}, key=lambda ci: abs(math.log(ci / ABLATION_CI_MS)), default=None)
    chosen = [
        r
        for r in rows
        if (r.setting.platform, r.setting.phy, r.setting.account) == ("cortex-a77-200", "1M", context.evidence.papers)
        and r.setting.packets in (1, 4)
        and r.ci_ms == nearest
    ]
    return sorted(chosen, key=lambda r: (r.setting.time_scale, r.setting.packets, r.ci_ms))


def _step(scheme: Mapping[str, Any], name: str) -> int | None:
    """The step that a scheme is about; the first of those that it names."""
    named = re.match(r"\d+", str(scheme.get("step", "")))
    return int(named.group()) if named else SCHEME_STEP.get(name)


def _about(scheme: Mapping[str, Any]) -> str:
    """A scheme's note, or how its variant differs from the plain one."""
    note = str(scheme.get("note", ""))
    variant = scheme.get("variant")
    if note or not isinstance(variant, Mapping):
        return note
    words = {"race": "local exits beside the radio", **_MANNERS}
    told = [words.get(str(key), str(key)) for key, value in variant.items() if value is True and key != "each"]
    told += ["one threshold for all exits"] if variant.get("each") is False else []
    return ", ".join([str(variant["rule"])] * ("rule" in variant) + told)


def _missing(step: int, *, study: bool) -> str:
    if step == 9:
        return "reported apart, never mixed into tables of single images"
    if step in (3, 8):
        accuracy = f"what it brings in accuracy: {studies.FOLDER}/README.md; " if study else ""
        return f"{accuracy}needs a bundle trained without it (fleet train, trace, sweep)"
    return missing_sweep("ablations")


def _gain(row: Row, scheme: str) -> Cell | str:
    variant, plain = row.schemes.get(scheme), row.schemes.get("fleet")
    if variant is None or plain is None:
        return NONE
    if not variant.reached or not plain.reached:
        return Cell(NOT_REACHED, "" if plain.reached else "nor does FLEET", "quiet")
    theirs, ours = variant.estimate("latency_ms"), plain.estimate("latency_ms")
    accuracy = variant.estimate("accuracy")
    if theirs is None or ours is None:
        return NONE
    return Cell(theirs.over(ours).written(2, "×"), "" if accuracy is None else accuracy.percent())


def _codec(context: Context) -> list[Block]:
    """Bytes of our codec against the paper's at equal accuracy, from `fleet evaluate`."""
    found = context.evaluation.get("bytes_at_equal_accuracy")
    conditions = context.evaluation.get("conditions", {})
    if not isinstance(found, Mapping) or not found:
        command = "fleet evaluate models/backyard DATA/val.tar.gz --json models/backyard/evaluation.json"
        return [NotRun("bytes of our codec against the paper's (steps 1 and 2)", command)]
    lines: list[tuple[Cell | str, ...]] = [
        (
            f"{pair}, exit {e['stage']}",
            *(
                str(v)
                for v in (
                    *e["full_ladder"]["bytes"],
                    e["full_ladder"]["ratio"],
                    *e["fewest"]["bytes"],
                    e["fewest"]["ratio"],
                )
            ),
        )
        for pair, about in found.items()
        for e in about["exits"]
    ]
    for pair, about in found.items():
        lines.append(
            (f"{pair}, mean", "", "", str(about["mean_ratio_full_ladder"]), "", "", str(about["mean_ratio_fewest"]))
        )
    return [
        Table(
            "codec-bytes",
            "Steps 1 and 2: bytes of our codec and of the paper's (8-bit means of eq. 6, gzip) for the same exit",
            ("codecs, exit", "#ours, whole ladder", "#paper's", "#ratio", "#ours, fewest rungs", "#paper's", "#ratio"),
            tuple(lines),
            (
                f"bundle {conditions.get('bundle', '?')} {conditions.get('identity', '')}",
                f"{conditions.get('pictures', '?')} pictures of {str(conditions.get('data', '?')).rpartition('/')[2]}",
                f"packets of {conditions.get('payload', '?')} bytes",
                f"bytes of {conditions.get('bytes_of', 'all')}",
            ),
            ("Fewest rungs: those that reach the lower of the two whole ladders' accuracies less half a point.",),
        )
    ]
