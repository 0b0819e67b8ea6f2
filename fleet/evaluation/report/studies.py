# SPDX-License-Identifier: Apache-2.0
"""What depth, fusion and the way exits are trained bring (Figures 1b and 1c), from what ``fleet study`` wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.errors import FleetError
from fleet.evaluation.report import paper
from fleet.evaluation.report.context import read_mapping
from fleet.evaluation.report.document import (
    Block,
    Bullets,
    Cell,
    Content,
    Figure,
    Link,
    NotRun,
    Report,
    Section,
    Table,
    Text,
)
from fleet.evaluation.report.drawing import curve, legend, new_figure, style_of, titled
from fleet.evaluation.report.estimate import NONE, Estimate

FOLDER = "exits"
"""Of the pages, below the report's."""
COMMAND = (
    "fleet study config/studies/exits.yaml --data DATA --test DATA/val.tar.gz --output runs/study "
    "--json benchmarks/exits.json"
)
TITLE = "Depth, fusion and training of the exits (Figures 1b and 1c)"
CLASSES, GROUPS = "accuracy_classes", "accuracy_groups"
FUSED = ("k1", "k2", "k3")
_SHARED_OUT = (
    "Every training takes as many steps. Where each combination of sizes has a block, the steps are shared out among "
    "them: what such blocks lose here is what the paper calls their training cost (section 3.3), not their limit.",
)
_STYLES = ("fleet", "local", "partition")


@dataclass(frozen=True)
class Study:
    """What ``fleet study --json`` found.

    Attributes:
        conditions: under which all of it holds.
        depth: exits of several depths on the device; empty where they were not trained.
        variants: trainings of exits, by name.
    """

    conditions: Mapping[str, Any]
    depth: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]

    def told(self) -> tuple[str, ...]:
        """The conditions in words."""
        c = self.conditions
        test = c["test"]
        return (
            f"bundle {c['bundle']} {str(c['identity'])[:16]} ({c['backbone']} {c['input_size']}×{c['input_size']})",
            f"base network frozen, as that bundle's device has it; {c['classes']} classes",
            f"trained on {c['trained_on']} pictures",
            f"test split {test['data']} ({test['pictures']} pictures)",
            f"seed {c['seed']}",
            f"intervals {c['intervals']}",
        )


def load_study(path: Path) -> Study:
    """Read what ``fleet study --json`` wrote.

    Raises:
        FleetError: unreadable, or something else.
    """
    found = read_mapping(path)
    if found.get("kind") != "study":
        raise FleetError(f"{path} is no result of `fleet study --json`")
    study = Study(found.get("conditions", {}), found.get("depth", {}), found.get("variants", {}))
    try:
        study.told()
        report(study)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as err:
        raise FleetError(f"{path} is damaged: {type(err).__name__} {' '.join(str(err).split())}") from err
    return study


def report(study: Study) -> Report:
    """The pages."""
    lead = (
        "Trainings behind the same finished base network that differ in one thing, each beside what the paper says of "
        "it. Written by `fleet report --study` from what `fleet study` measured.",
        f"Conditions of all numbers: {'; '.join(study.told())}.",
    )
    blocks: list[Block] = [*_depth(study), *_fusion(study), *_training(study)]
    return Report(TITLE, lead, (Section("exits", "Results", tuple(blocks)),))


def reference(*, found: bool) -> tuple[Block, ...]:
    """What the page of Figure 1 says of 1b and 1c.

    Args:
        found: whether there is a study.
    """
    if found:
        return (Link("Figures 1b (deeper exits) and 1c (fused stages)", TITLE, FOLDER),)
    return (NotRun("Figures 1b (deeper exits) and 1c (fused stages)", COMMAND),)


def _estimate(found: Sequence[float]) -> Estimate:
    value, low, high = map(float, found)
    if not 0 <= low <= value <= high <= 1:
        raise ValueError(f"{found} is no share with its interval")
    return Estimate(value, low, high)


def _points(found: Sequence[float]) -> str:
    """A difference of accuracies, in points with its sign and interval."""
    value, low, high = (100 * float(v) for v in found)
    if not -100 <= low <= value <= high <= 100:
        raise ValueError(f"{found} is no difference of shares with its interval")
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def _layers(count: int) -> str:
    return f"{count} Conv + 1 FC" if count else "1 FC"


def _depth(study: Study) -> Iterable[Block]:
    yield Text("Figure 1b: deeper exits on the device.")
    if not study.depth:
        yield NotRun("Figure 1b: deeper exits", COMMAND)
        return
    rows = study.depth["exits"]
    kinds = sorted({row["convolutions"] for row in rows})
    stages = sorted({row["stage"] for row in rows})
    by = {(row["stage"], row["convolutions"]): row for row in rows}
    lines = {_layers(count): [(n, by[n, count][CLASSES]) for n in stages] for count in kinds}
    yield _drawn("figure-1b", "Figure 1b: accuracy of exits on the device, by depth", lines, study)
    columns = ["exit behind stage", *(f"#{_layers(count)}" for count in kinds)]
    columns += [f"#gain of {_layers(count)}, points" for count in kinds[1:]]
    table: list[tuple[Content, ...]] = []
    for n in stages:
        cells: list[Content] = [_accuracy(by[n, count]) for count in kinds]
        gains: list[Content] = [_gain(by[n, count]["gain"]) for count in kinds[1:]]
        table.append((str(n), *cells, *gains))
    printed = "; ".join(f"{what}: {gain}" for what, gain in paper.FIGURE_1B)
    yield Table(
        "figure-1b-table",
        "Figure 1b in numbers: accuracy of the classes, and below it of the groups",
        tuple(columns),
        tuple(table),
        (*study.told(), f"{study.depth['images']} images, the same for every exit"),
        (
            f"The paper prints: {printed}.",
            f"The paper does not say how wide its convolutions are: here {study.depth['width']} channels, 3x3, and "
            "each halves a map of more than eight cells a side.",
            "A gain is over the depth before, paired image by image.",
            "Unlike the paper's, these pictures have 64x64 pixels, and the network before the exits is frozen. Which "
            "of these a difference comes from was not tried.",
        ),
    )


def _fusion(study: Study) -> Iterable[Block]:
    yield Text("Figure 1c: exits on the hub that fuse k stages.")
    there = [name for name in FUSED if name in study.variants]
    if len(there) < 2:
        yield NotRun("Figure 1c: fused stages", COMMAND)
        return
    lines = {
        f"{name}: {study.variants[name]['about']}": [
            (row["stage"], row[CLASSES]) for row in study.variants[name]["states"]["complete"]
        ]
        for name in there
    }
    yield _drawn("figure-1c", "Figure 1c: accuracy of exits on the hub, by fused stages", lines, study)
    yield _by_exit(
        study, there, "figure-1c-table", "Figure 1c in numbers: accuracy of the classes, below it of the groups"
    )


def _by_exit(study: Study, names: Sequence[str], name: str, caption: str) -> Table:
    """A row an exit, the stage complete; a column a variant, and its gain."""
    variants = [study.variants[n] for n in names]
    gained = [(n, v) for n, v in zip(names, variants, strict=True) if "gain" in v["mean"]["complete"]]
    columns = ["exit", *(f"#{n}" for n in names), *(f"#gain of {n} over {v['against']}, points" for n, v in gained)]
    rows: list[tuple[Content, ...]] = []
    for place, row in enumerate(variants[0]["states"]["complete"]):
        found = [v["states"]["complete"][place] for v in variants]
        cells: list[Content] = [_accuracy(one) for one in found]
        gains: list[Content] = [_gain(v["states"]["complete"][place]["gain"]) for _, v in gained]
        rows.append((str(row["stage"]), *cells, *gains))
    means = [v["mean"]["complete"] for v in variants]
    rows.append(("mean of all", *map(_accuracy, means), *(_gain(v["mean"]["complete"]["gain"]) for _, v in gained)))
    return Table(
        name,
        caption,
        tuple(columns),
        tuple(rows),
        (*study.told(), f"{_list(sorted({v['images'] for v in variants}))} images each", "everything has arrived"),
        ("The paper draws accuracies and prints none: it says that they rise with k (section 2.2).",),
    )


def _training(study: Study) -> Iterable[Block]:
    names = [n for n, about in study.variants.items() if about["against"] and n not in FUSED]
    yield Text("What steps past the paper bring to the training of exits.")
    if not names:
        yield NotRun("fusion blocks for every combination of sizes, tail drop, distillation", COMMAND)
        return
    states = list(study.conditions["states"])
    references = list(dict.fromkeys(study.variants[n]["against"] for n in names))
    rows: list[tuple[Content, ...]] = []
    for reference in references:
        about = study.variants.get(reference)
        if about is not None:
            means = [about["mean"][state] for state in states]
            rows.append((Cell(reference, about["about"]), *(_accuracy(mean) for mean in means)))
        for n in names:
            about = study.variants[n]
            if about["against"] == reference:
                found = [about["mean"][state] for state in states]
                rows.append((Cell(n, about["about"]), *(_changed(mean) for mean in found)))
    yield Table(
        "training-table",
        "Accuracy of the classes, mean of all exits, by what has arrived of the exit's own stage; for a variant the "
        "change from the training above it",
        ("training", *(f"#{state}" for state in states)),
        tuple(rows),
        study.told(),
        (
            *(f"{state}: {told}, the stages before complete." for state, told in study.conditions["states"].items()),
            *_SHARED_OUT * any(about["settings"]["combinations"] for about in study.variants.values()),
        ),
    )
    yield Text("Every training's settings, as configuration files have them:")
    yield Bullets(_settings(study))


def _settings(study: Study) -> tuple[str, ...]:
    """What all variants share, and what each has for itself."""
    plans = {name: about["settings"] for name, about in study.variants.items()}
    keys = list(dict.fromkeys(key for plan in plans.values() for key in plan))
    own = [key for key in keys if len({repr(plan.get(key)) for plan in plans.values()}) > 1]
    shared = next(iter(plans.values()))
    told = [f"all: {', '.join(f'{key} {_value(shared[key])}' for key in keys if key not in own)}"]
    for name, about in study.variants.items():
        plan = plans[name]
        told.append(f"{name} ({about['about']}): {', '.join(f'{k} {_value(plan[k])}' for k in own if k in plan)}")
    return tuple(told)


def _value(value: Any) -> str:
    return _list(value) if isinstance(value, list | tuple) else str(value)


def _list(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


def _accuracy(row: Mapping[str, Any]) -> Cell:
    return Cell(_estimate(row[CLASSES]).percent(), _estimate(row[GROUPS]).percent())


def _gain(row: Mapping[str, Any]) -> Cell:
    return Cell(_points(row[CLASSES]), _points(row[GROUPS]))


def _changed(row: Mapping[str, Any]) -> Cell | str:
    if "gain" not in row:
        return NONE
    return Cell(f"{_points(row['gain'][CLASSES])} points", f"groups {_points(row['gain'][GROUPS])}")


def _drawn(name: str, caption: str, lines: Mapping[str, Sequence[tuple[int, Sequence[float]]]], study: Study) -> Figure:
    """Accuracy of the classes by exit."""
    sheet = new_figure(name, height=3.2, width=6.4)
    (axes,) = sheet.panels
    handles: dict[str, object] = {}
    words = []
    for place, (label, points) in enumerate(lines.items()):
        scaled = [Estimate(*(100 * float(v) for v in numbers)) for _, numbers in points]
        stages = [float(n) for n, _ in points]
        handles[label] = curve(axes, stages, scaled, style_of(_STYLES[place % len(_STYLES)]))
        words.append(f"{label}: {', '.join(f'{e.value:.0f} % at {n:g}' for n, e in zip(stages, scaled, strict=True))}.")
    axes.set_xticks(sorted({n for points in lines.values() for n, _ in points}))
    titled(axes, "", "exit behind stage", "accuracy of the classes, %")
    legend(sheet, handles)
    alt = f"{caption}. {' '.join(words)}"
    return Figure(name, caption, alt, sheet.svg(alt), study.told())
