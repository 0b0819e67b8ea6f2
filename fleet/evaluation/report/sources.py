# SPDX-License-Identifier: Apache-2.0
"""What the numbers mean and where they come from: schemes, files, definitions, the paper's slips."""

from __future__ import annotations

from fleet.evaluation.report import paper
from fleet.evaluation.report.context import Context
from fleet.evaluation.report.document import Block, Bullets, Section, Table, Text
from fleet.evaluation.report.estimate import NONE


def section(context: Context) -> Section:
    """All of it."""
    evidence = context.evidence
    schemes = Table(
        "schemes",
        "Schemes",
        ("name", "family", "note"),
        tuple((n, str(a.get("family", NONE)), str(a.get("note", "") or NONE)) for n, a in evidence.schemes.items()),
    )
    files = Table(
        "files",
        "Files that this report was made from",
        ("file", "name", "bundle", "#rows", "SHA-256 begins"),
        tuple(
            (s.path.name, s.name, f"{s.conditions.get('bundle', '?')} {s.identity}", str(len(s.rows)), s.digest)
            for s in (*evidence.main, *evidence.others, *evidence.losses)
        ),
    )
    notes = [note for s in (*evidence.main, *evidence.losses, *evidence.others) for note in s.notes]
    blocks: list[Block] = [
        Text(f"The paper is {paper.TITLE}."),
        Bullets(_DEFINITIONS),
        Text("Slips of the paper, kept as they are printed:"),
    ]
    blocks += [Bullets(paper.SLIPS), schemes, files]
    if notes:
        blocks += [Text("Notes of the sweeps:"), Bullets(tuple(dict.fromkeys(notes)))]
    return Section("sources", "Definitions, sources and the paper's slips", tuple(blocks))


_DEFINITIONS = (
    "Latency runs from the moment the frame is ready on the device until the device holds the answer. For FLEET, "
    "JPEG and partition "
    "that is the end of the downlink packet with the answer; for local early exit the end of its head.",
    "Everything that the device does counts: stages, heads, codecs, JPEG encoding. The hub's work counts as a "
    "constant.",
    "Target accuracy: the best local early exit's on the calibration split, less one point. Every scheme runs at its "
    "fastest operating "
    "point that reaches it there; the numbers are of the test split, on which nothing was chosen.",
    "Bound of a speed-up: best baseline / (mean wait for the first event + one connection interval + cloud constant).",
    "link_layer: BLE as it is, lost packets repeat in later events. next_event: the paper's account, a reliable "
    "transfer halves the "
    "bandwidth. FLEET's features are best effort under both; JPEG and partition need every byte.",
    "Packets that fit: a controller starts no exchange that would not end before the next event. Packets as asked "
    "for: the paper's "
    "account, whether or not they fit.",
    "time_scale multiplies every time on the device; 3.56 makes 64×64 images cost what 224×224 do (time-matched).",
    "Local: BranchyNet, Shallow-Deep, Ensemble. Partition: CLIO, Neurosurgeon. WebP is shown, and is not part of all "
    "baselines.",
)
