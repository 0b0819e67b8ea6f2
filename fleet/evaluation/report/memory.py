# SPDX-License-Identifier: Apache-2.0
"""Peak activation memory of every stage, against the RAM of the paper's smallest devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from fleet.evaluation.report import paper
from fleet.evaluation.report.context import Context
from fleet.evaluation.report.document import Block, Cell, Figure, NotRun, Section, Table
from fleet.evaluation.report.drawing import MUTED, legend, new_figure, style_of, titled

KB = 1024


@dataclass(frozen=True)
class StageMemory:
    """What one stage needs.

    Attributes:
        name: of the stage.
        values: alive at its peak: input and output of its hungriest layer, and what its shortcut holds meanwhile.
        sent: whether the hub has an exit behind it.
        macs: multiply-accumulates.
    """

    name: str
    values: int
    sent: bool
    macs: int

    def kilobytes(self, bytes_each: int) -> float:
        """In units of 1024 bytes."""
        return self.values * bytes_each / KB


@cache
def stage_memory(backbone: str, input_size: int, classes: int) -> tuple[StageMemory, ...]:
    """Every stage of a network, the head last, from the shapes of one blank image.

    Args:
        backbone: name, as in ``build_backbone``.
        input_size: pixels a side.
        classes: outputs.

    Raises:
        FleetError: there is no such network.
    """
    from fleet.backbones import build_backbone  # noqa: PLC0415 - with torch, seconds that --help should not take
    from fleet.baselines.cost import backbone_steps  # noqa: PLC0415

    network = build_backbone(backbone, input_size=input_size, classes=classes)
    steps = backbone_steps(network)
    return tuple(
        StageMemory(s.name, s.activations, k <= network.exit_stages, s.macs.total) for k, s in enumerate(steps, start=1)
    )


def section(context: Context) -> Section:
    """The bundle's own stages, and all networks and sizes in one line each."""
    backbone, size, classes = context.backbone, context.input_size, context.classes or 100
    blocks: list[Block] = []
    if backbone is None or size is None:
        blocks.append(
            NotRun(
                "memory of the bundle's stages", "fleet report SWEEP.json --model models/backyard --output docs/results"
            )
        )
    else:
        blocks += _own(stage_memory(backbone, size, classes), backbone, size)
    blocks.append(_all(classes))
    return Section("memory", "Memory of the device", tuple(blocks))


_NOTES = (
    "Layer by layer, the largest sum of a layer's input, its output and what the block's shortcut holds; norms "
    "folded into their "
    "convolutions, activations in place. Weights, code, the radio's stack and a runtime's scratch are not in it; nor "
    "are the "
    "camera's frame and the packets of one stage.",
    f"{paper.RAM_KB} KB is the RAM of the Cortex-M33 and the L2 of the GAP8 (paper, Table 2). 1 KB is 1024 bytes.",
)


def _own(stages: Sequence[StageMemory], backbone: str, size: int) -> list[Block]:
    lines: list[tuple[Cell | str, ...]] = []
    for stage in stages:
        whole, real = stage.kilobytes(1), stage.kilobytes(4)
        lines.append((stage.name, f"{stage.macs / 1e6:.2f}", f"{whole:.1f}", _fits(whole), f"{real:.1f}", _fits(real)))
    conditions = (f"{backbone} at {size}×{size}", "one image", "from the network's shapes, not measured on a device")
    table = Table(
        "memory-stages",
        "Peak activation memory of each stage",
        (
            "stage",
            "#M multiply-accumulates",
            "#int8, KB",
            f"of {paper.RAM_KB} KB",
            "#float32, KB",
            f"of {paper.RAM_KB} KB",
        ),
        tuple(lines),
        conditions,
        _NOTES,
    )
    sheet = new_figure("memory-by-stage", height=3.0)
    (axes,) = sheet.panels
    xs = range(1, len(stages) + 1)
    integers, floats = style_of("fleet"), style_of("local")
    handles: dict[str, object] = {
        "int8": axes.bar([x - 0.2 for x in xs], [s.kilobytes(1) for s in stages], 0.38, color=integers["color"]),
        "float32": axes.bar(
            [x + 0.2 for x in xs], [s.kilobytes(4) for s in stages], 0.38, color=floats["color"], alpha=0.75
        ),
        f"{paper.RAM_KB} KB": axes.axhline(paper.RAM_KB, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2),
    }
    axes.set_xticks(list(xs), [s.name.removeprefix("stage ") for s in stages])
    axes.grid(visible=False, axis="x")
    titled(axes, "", "stage", "peak activations, KB")
    legend(sheet, handles)
    top = max(stages, key=lambda s: s.values)
    alt = (
        f"Peak activation memory by stage: at most {top.kilobytes(1):.0f} KB in int8 and {top.kilobytes(4):.0f} KB "
        "in float32, both in "
        f"{top.name}, against {paper.RAM_KB} KB."
    )
    return [
        Figure(sheet.name, "Peak activation memory of each stage, int8 and float32", alt, sheet.svg(alt), conditions),
        table,
    ]


def _fits(kilobytes: float) -> Cell:
    share = f"{kilobytes / paper.RAM_KB:.0%}"
    return Cell(share) if kilobytes <= paper.RAM_KB else Cell(f"{share}, too much", "", "bad")


def _all(classes: int) -> Table:
    from fleet.backbones.build import BACKBONES, INPUT_SIZES  # noqa: PLC0415

    lines: list[tuple[Cell | str, ...]] = []
    for backbone in BACKBONES:
        for size in INPUT_SIZES:
            stages = stage_memory(backbone, size, classes)
            top = max(stages, key=lambda s: s.values)
            sent = max((s for s in stages if s.sent), key=lambda s: s.values)
            whole, real = top.kilobytes(1), top.kilobytes(4)
            lines.append(
                (
                    f"{backbone}, {size}×{size}",
                    f"{top.name}",
                    f"{whole:.0f}",
                    _fits(whole),
                    f"{real:.0f}",
                    _fits(real),
                    f"{sent.kilobytes(1):.0f}",
                )
            )
    return Table(
        "memory-networks",
        "The hungriest stage of every network and image size",
        (
            "network",
            "stage",
            "#int8, KB",
            f"of {paper.RAM_KB} KB",
            "#float32, KB",
            f"of {paper.RAM_KB} KB",
            "#stages with exits only, int8, KB",
        ),
        tuple(lines),
        ("from the networks' shapes, not measured on a device", f"{classes} classes"),
    )
