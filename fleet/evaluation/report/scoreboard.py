# SPDX-License-Identifier: Apache-2.0
"""What this system set out to show: measure, paper, floor, goal, ours, verdict. Every verdict is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from fleet.evaluation.report import paper
from fleet.evaluation.report.context import Context, name_of
from fleet.evaluation.report.document import Block, Cell, Section, Table, Text
from fleet.evaluation.report.estimate import NONE, NOT_REACHED, NOT_RUN, Estimate, interval_ms
from fleet.evaluation.report.measures import energy_ratio, tolerated_loss, wins
from fleet.evaluation.report.sweeps import REAL, Row, Setting, scale_name
from fleet.evaluation.report.verdicts import Mark, Measure, Outcome, verdict

A77: Final = "cortex-a77-200"
BYTES_CI_MS: Final = 10.0
ENERGY_CI_MS: Final = 10.0
RACE_GOAL_MS: Final = 4000.0


class Board:
    """Makes the lines from the evidence."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.evidence = context.evidence
        self.ours = list(self.evidence.ours)
        matched = self.evidence.matched
        self.matched = paper.MATCH if matched is None else matched
        self.scales = (1.0, self.matched)

    def measures(self) -> list[Measure]:
        """All lines in order."""
        found: list[Measure] = []
        for one in (self._speed, self._race, self._bytes, self._energy, self._losses, self._wake_words):
            found += one()
        return found

    def _setting(self, scale: float, phy: str = "1M", packets: int = 4, platform: str = A77) -> Setting:
        return Setting(platform, phy, packets, self.evidence.papers, scale, self.evidence.unit)

    def _each(self, family: str, outcome: Callable[..., Outcome], *details: Any) -> dict[str, Outcome]:
        """An outcome for each of ours; without all of a family's rivals it is shown and not judged."""
        found = {name: outcome(name, *details) for name in self.ours}
        if absent := self.evidence.absent(family):
            status = f"without {', '.join(absent)}"
            return {n: o if o.value is None else replace(o, status=status) for n, o in found.items()}
        return found

    def _speed(self) -> Iterator[Measure]:
        bound = (Mark(None, "85 % of the bound"), Mark(None, "95 % of the bound"))
        harder = (Mark(None, "80 % of the bound"), bound[1])
        for family, packets, printed, kind in (
            ("all", 4, "3.9× (3.1× at 2M)", "bound"),
            ("all", 1, "3.2×", "bound"),
            ("local", 4, "4.7× (4.5× at 1M)", 4.7),
            ("partition", 4, "3.2× (3.9× at 1M)", 3.2),
            ("jpeg", 4, "3.4× (4.0× at 1M)", "bound"),
            ("jpeg-stripped", 4, "not given", "bound"),
            ("all", 4, "not given", "harder"),
        ):
            for scale in self.scales:
                setting = self._setting(scale, packets=packets)
                if kind == "harder":
                    setting = Setting(A77, "1M", packets, REAL, scale, self.evidence.unit)
                shares = {"bound": (0.85, 0.95), "harder": (0.80, 0.95)}.get(str(kind))
                if isinstance(kind, float):
                    floor, goal = Mark(kind, f"{kind:g}×"), Mark(1.3 * kind, f"{1.3 * kind:.2f}×")
                    if scale == 1:
                        floor, goal = Mark(None, "time-matched only"), Mark(None, "time-matched only")
                else:
                    floor, goal = harder if kind == "harder" else bound
                words = "largest speed-up over " + _family(family)
                yield Measure(
                    words,
                    _words(setting),
                    scale,
                    printed,
                    floor,
                    goal,
                    self._each(family, self._largest, setting, family, shares),
                )

    def _largest(self, ours: str, setting: Setting, family: str, shares: tuple[float, float] | None) -> Outcome:
        found = wins(self.evidence.series(setting), ours, family)
        if found.best is None:
            return Outcome(None, "", status=found.status)
        row, comparison = found.best
        assert comparison.ratio is not None
        note = f"at {interval_ms(row.ci_ms)}, over {comparison.rival}"
        note += _right(row, ours, comparison.rival)
        value = comparison.ratio.value
        if comparison.bound is not None:
            note += f"; bound {comparison.bound:.2f}×, of it {value / comparison.bound:.0%}"
            note += _of_whole_intervals(row, ours)
        if found.unreached:
            note += f"; target missed at {found.unreached} of {len(found.points)} intervals"
        floor = goal = None
        if shares is not None and comparison.bound is not None:
            floor, goal = (Mark(s * comparison.bound, f"{s * comparison.bound:.2f}×") for s in shares)
        return Outcome(value, comparison.ratio.written(2, "×"), note, "", floor, goal)

    def _race(self) -> Iterator[Measure]:
        marks = Mark(64.5, "64.5 ms"), Mark(RACE_GOAL_MS, "4 s (the race)")
        for scale in self.scales:
            setting = self._setting(scale)
            yield Measure(
                "largest CI up to which it is not slower than the best baseline × 1.02",
                _words(setting),
                scale,
                "64.5 ms",
                *marks,
                self._each("all", self._last, setting),
            )

    def _last(self, ours: str, setting: Setting) -> Outcome:
        found = wins(self.evidence.series(setting), ours, "all")
        if not found.compared:
            return Outcome(None, "", status=found.status)
        last, following = found.last_not_slower()
        if last is None:
            first = found.points[0][0].ci_ms
            return Outcome(0.0, NONE, f"slower already at {interval_ms(first)}")
        note = f"slower at the grid's next, {interval_ms(following)}" if following else "the largest that was run"
        return Outcome(last, interval_ms(last), note)

    def _bytes(self) -> Iterator[Measure]:
        for scale in self.scales:
            setting = self._setting(scale)
            yield Measure(
                "bytes against JPEG with stripped headers, at equal accuracy",
                f"{_words(setting)}, CI {BYTES_CI_MS:g} ms",
                scale,
                "about 1/3",
                Mark(0.6, "0.6"),
                Mark(paper.BYTES_OF_JPEG, "1/3"),
                self._each("jpeg-stripped", self._byte_ratio, setting),
                higher=False,
            )

    def _byte_ratio(self, ours: str, setting: Setting) -> Outcome:
        row = self.evidence.row(setting, BYTES_CI_MS)
        if row is None or ours not in row.schemes:
            return Outcome(None, "", status=NOT_RUN)
        found = row.entries.get("byte_ratio", {}).get(ours, {}).get("jpeg-stripped", {})
        ratio = Estimate.of(found.get("value"), found.get("95"))
        mine = row.schemes[ours]
        rivals = [row.schemes[n] for n in self.context.members("jpeg-stripped") if n in row.schemes]
        if not rivals:
            return Outcome(None, "", status=NOT_RUN)
        theirs = next((r for r in rivals if r.reached), None)
        if not mine.reached or theirs is None:
            return Outcome(None, "", status=NOT_REACHED if not mine.reached else "JPEG does not reach the target")
        own, other = mine.estimate("bytes"), theirs.estimate("bytes")
        if own is None or other is None:
            return Outcome(None, "", status=NOT_RUN)
        ratio = ratio or own.over(other)
        note = f"{own.value:.0f} of {other.value:.0f} bytes{_right(row, ours, theirs.name)}"
        return Outcome(ratio.value, ratio.written(2), note)

    def _energy(self) -> Iterator[Measure]:
        for phy, printed, floor, goal in (("125k", 2.5, 1.5, 2.5), ("500k", 0.8, 0.8, 1.2)):
            for scale in self.scales:
                setting = self._setting(scale, phy=phy)
                yield Measure(
                    f"energy against the best baseline at {paper.MBPS[phy]:g} Mbps",
                    _words(setting),
                    scale,
                    f"{printed:g}×",
                    Mark(floor, f"{floor:g}×"),
                    Mark(goal, f"{goal:g}×"),
                    self._each("all", self._energy_ratio, setting),
                )

    def _energy_ratio(self, ours: str, setting: Setting) -> Outcome:
        rows = self.evidence.series(setting)
        row = next((r for r in rows if r.ci_ms >= ENERGY_CI_MS), None)
        if row is None:
            return Outcome(None, "", status=NOT_RUN)
        found = energy_ratio(row, ours, "all", self.context.members("all"))
        if found.ratio is None:
            return Outcome(None, "", status=NOT_REACHED if found.status == "ours" else NOT_RUN)
        note = f"at CI {interval_ms(row.ci_ms)}, over {found.rival}{_right(row, ours, found.rival)}"
        return Outcome(found.ratio.value, found.ratio.written(2, "×"), note)

    def _losses(self) -> Iterator[Measure]:
        for phy, packets, printed in paper.LOSS_AT:
            for scale in self.scales:
                floor, goal = Mark(printed, f"{printed:.0%}"), Mark(1.3 * printed, f"{1.3 * printed:.0%}")
                if scale == 1:
                    floor, goal = Mark(None, "time-matched only"), Mark(None, "time-matched only")
                yield Measure(
                    "loss at which local early exit becomes faster",
                    f"{phy}, {packets} payloads, CI {paper.LOSS_CI_MS:g} ms, {scale_name(scale)}",
                    scale,
                    f"{printed:.0%}",
                    floor,
                    goal,
                    self._each("local", self._tolerated, phy, packets, scale),
                )

    def _tolerated(self, ours: str, phy: str, packets: int, scale: float) -> Outcome:
        rows = [r for r in self.evidence.lossy if _is_loss_row(r.setting, r.ci_ms, phy, packets, scale)]
        found = tolerated_loss(rows, ours)
        if found is None:
            return Outcome(None, "", status=NOT_RUN)
        if found.loss is None or found.estimate is None:
            return (
                Outcome(0.0, NONE, "slower without any loss")
                if found.ended == "slower"
                else Outcome(None, "", status=NOT_REACHED)
            )
        written = found.estimate.percent(0)
        if found.ended == "never":
            return Outcome(found.loss, f"more than {found.loss:.0%}", "the largest loss that was run")
        return Outcome(found.loss, written, "then the target is missed" if found.ended == "target missed" else "")

    def _wake_words(self) -> Iterator[Measure]:
        setting = self._setting(self.matched, platform=paper.WAKE_PLATFORM)
        yield Measure(
            "wake words: latency of local early exit / ours, at the best CI of 7.5 to 65 ms",
            _words(setting),
            self.matched,
            "1.6×",
            Mark(1.6, "1.6×"),
            Mark(2.5, "2.5×"),
            self._each("local", self._wake, setting),
        )

    def _wake(self, ours: str, setting: Setting) -> Outcome:
        found = wins([r for r in self.evidence.series(setting) if r.ci_ms <= 65], ours, "local")
        if found.best is None:
            return Outcome(None, "", status=found.status)
        row, comparison = found.best
        assert comparison.ratio is not None
        note = f"at {interval_ms(row.ci_ms)}, over {comparison.rival}{_right(row, ours, comparison.rival)}"
        return Outcome(comparison.ratio.value, comparison.ratio.written(2, "×"), note)


def _of_whole_intervals(row: Row, ours: str) -> str:
    """The share of what a hub that takes no time would reach: the answer comes in the event after the first."""
    mine = row.schemes[ours].estimate("latency_ms")
    return "" if mine is None else f"; of 1.5 CI alone {1.5 * row.ci_ms / mine.value:.0%}"


def _right(row: Row, ours: str, rival: str | None) -> str:
    """How often ours and a rival are right in a row, for a note; nothing where that was not recorded."""
    shares = [None if n not in row.schemes else row.schemes[n].estimate("accuracy") for n in (ours, str(rival))]
    if None in shares:
        return ""
    return "; right " + " against ".join(f"{share.value:.1%}" for share in shares if share is not None)


def _is_loss_row(setting: Setting, ci_ms: float, phy: str, packets: int, scale: float) -> bool:
    link = (setting.platform, setting.phy, setting.packets, setting.time_scale, ci_ms)
    return link == (A77, phy, packets, scale, paper.LOSS_CI_MS)


def _family(family: str) -> str:
    return {
        "all": "the best of all baselines",
        "local": "local early exit alone",
        "partition": "partition alone",
        "jpeg": "JPEG alone, standard headers",
        "jpeg-stripped": "JPEG alone, stripped headers",
    }[family]


def _words(setting: Setting) -> str:
    where = "" if setting.platform == A77 else f"{setting.platform}, "
    count = f"{setting.packets} payload{'s' * (setting.packets > 1)}"
    return f"{where}{setting.phy}, {count}, {setting.account}, {scale_name(setting.time_scale)}"


def section(context: Context) -> tuple[Section, dict[str, Any]]:
    """The scoreboard, and its numbers as data."""
    board = Board(context)
    measures = board.measures()
    columns = ["measure", "paper", "floor", "goal"]
    for name in board.ours:
        columns += [name_of(name), "verdict"]
    rows = []
    data = []
    for m in measures:
        cells: list[Cell | str] = [Cell(m.name, m.setting), m.paper, m.floor.text, m.goal.text]
        for name in board.ours:
            outcome = m.outcomes[name]
            words, tone = verdict(outcome, m.floor, m.goal, higher=m.higher)
            marks = "" if outcome.floor is None else f"floor {outcome.floor.text}, goal {outcome.goal.text}"  # type: ignore[union-attr]
            cells += [Cell(outcome.text or NONE, outcome.note), Cell(words, marks, tone)]
            data.append(
                {
                    "measure": m.name,
                    "setting": m.setting,
                    "ours": name,
                    "paper": m.paper,
                    "value": outcome.value,
                    "text": outcome.text,
                    "note": outcome.note,
                    "verdict": words,
                    "floor": (outcome.floor or m.floor).value,
                    "goal": (outcome.goal or m.goal).value,
                }
            )
        rows.append(tuple(cells))
    blocks: tuple[Block, ...] = (
        Text(_summary(data, board.ours)),
        *([Text(by_class)] if (by_class := _by_class(context, board.ours)) else []),
        Table(
            "scoreboard-table",
            "What was to be shown on the Cortex-A77 at 200 MHz, and what is",
            tuple(columns),
            tuple(rows),
            context.conditions(context.evidence.rows, f"judged by {context.evidence.unit}"),
            (
                "Bound: best baseline / (mean wait for the first event + one CI + cloud constant). It counts the hub's "
                "time and the interval one after the other; a hub that has answered before the next event is faster by "
                "its time, so more than 100 % is possible where the CI is longer than the cloud constant. Of 1.5 CI "
                "alone: of what no scheme that sends anything can surpass, with a hub that takes no time at all.",
                "Largest speed-ups are sought among the connection intervals at which the hub answers most images; "
                "what the device "
                "answers by itself is not bounded by the link.",
                "Time-matched: every time on the device is multiplied so that 64×64 costs what 224×224 does.",
                "A speed-up is the ratio of mean latencies, each scheme at its fastest operating point that reaches "
                "the target "
                "accuracy on the calibration split; the number is of the test split.",
                "Right: the accuracies of ours and of the rival there, on the test split, which chose nothing. Equal "
                "accuracy is the same target on the calibration split: a rival's smaller upload that just misses it "
                "there is not used, though it may be as right on the test split (Figures 7 to 9 show all of them).",
            ),
        ),
    )
    return Section("scoreboard", "Scoreboard", blocks), {"scoreboard": data}


def _by_class(context: Context, ours: list[str]) -> str:
    """What the scoreboard, which is of groups, does not show: whether ours tells single classes well enough."""
    rows = [row for row in context.evidence.rows if row.setting.unit == "class"]
    lines = []
    for name in ours:
        run = [row.schemes[name] for row in rows if name in row.schemes]
        if run:
            count = f"{sum(result.reached for result in run)} of {len(run)}"
            lines.append(f"{name_of(name)} reaches the target accuracy in {count} rows")
    if not lines:
        return ""
    return (
        f"The lines below are judged by {context.evidence.unit}. Judged by single class, as the paper does, "
        f"{', '.join(lines)}; the other rows are lost (latency.md, wake-words.md)."
    )


def _summary(data: list[dict[str, Any]], ours: list[str]) -> str:
    lines = []
    for name in ours:
        verdicts = [str(d["verdict"]) for d in data if d["ours"] == name]
        judged = [v for v in verdicts if v not in (NOT_RUN, "shown for comparison") and not v.startswith("not judged")]
        unjudged = sum(v.startswith("not judged") for v in verdicts)
        held = sum(v == "goal held" for v in judged)
        floor = sum(v.startswith("floor held") for v in judged)
        lines.append(
            f"{name_of(name)}: of {len(judged)} lines that were run and have a floor, {held} hold the goal, {floor} "
            "hold the floor "
            f"only, {len(judged) - held - floor} miss it; {verdicts.count(NOT_RUN)} lines were not run, "
            f"{unjudged} not judged because rivals are missing."
        )
    return " ".join(lines)
