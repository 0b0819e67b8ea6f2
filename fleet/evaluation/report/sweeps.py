# SPDX-License-Identifier: Apache-2.0
"""The files that ``fleet sweep`` writes, checked once and then asked for rows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fleet.errors import FleetError
from fleet.evaluation.report.estimate import Estimate

FORMAT = 1
Kind = Literal["sweep", "losses"]
OURS = ("fleet", "fleet-race")
"""Which of ours the tables follow: without and with local exits beside the radio (design section 12.7)."""
RIVALS: Mapping[str, tuple[str, ...]] = {
    "local": ("branchynet", "shallow-deep", "ensemble"),
    "partition": ("clio", "neurosurgeon"),
    "jpeg": ("jpeg",),
    "jpeg-stripped": ("jpeg-stripped",),
}
"""Whom the paper compares with; a verdict over a family needs all of them, one over all needs all families."""
NEAR = 1.2
"""By which factor an interval of the grid may differ from the one that a table asks for."""
FAMILIES = ("local", "partition", "jpeg", "jpeg-stripped", "webp", "all")


@dataclass(frozen=True, order=True)
class Account:
    """How a reliable transfer is counted.

    Attributes:
        ack: ``next_event`` (the paper's) or ``link_layer`` (BLE as it is).
        as_published: packets an event are taken as asked for, whether or not they fit.
    """

    ack: str
    as_published: bool

    def __str__(self) -> str:
        return f"{self.ack}, {'packets as asked for' if self.as_published else 'packets that fit'}"


PAPERS = Account("next_event", True)
REAL = Account("link_layer", False)


@dataclass(frozen=True, order=True)
class Setting:
    """Everything of a row but its connection interval."""

    platform: str
    phy: str
    packets: int
    account: Account
    time_scale: float
    unit: str
    loss: float = 0.0

    def __str__(self) -> str:
        return f"{self.platform}, {self.phy}, {self.packets} payloads, {self.account}, {scale_name(self.time_scale)}"


def scale_name(time_scale: float) -> str:
    """``as named`` or ``time-matched (3.56)``."""
    return "as named" if time_scale == 1 else f"time-matched ({time_scale:g})"


@dataclass(frozen=True)
class Result:
    """What one scheme did in one row; see the format's own description for the keys."""

    name: str
    entries: Mapping[str, Any]

    @property
    def reached(self) -> bool:
        """Whether an operating point reached the target on the calibration split."""
        return bool(self.entries.get("reached"))

    def estimate(self, key: str) -> Estimate | None:
        """A number of the test split with its interval."""
        return Estimate.of(self.entries.get(key), self.entries.get(f"{key}_95"))

    @property
    def exits(self) -> Mapping[str, float]:
        """Share of the answers by where they came from."""
        found = self.entries.get("exits")
        return found if isinstance(found, Mapping) else {}

    @property
    def parts_ms(self) -> Mapping[str, float]:
        """Mean terms of the latency, where they were recorded."""
        found = self.entries.get("latency_parts_ms")
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True)
class Comparison:
    """Ours against the best of a family in one row.

    Attributes:
        ours: which of ours.
        family: of the rivals.
        status: ``ok``, ``ours`` (ours did not reach the target), ``rival`` (nobody there did), ``missing``.
        ratio: rival's latency (or energy) over ours.
        bound: the largest ratio that the link allows; None where there is none.
        rival: its name.
    """

    ours: str
    family: str
    status: Literal["ok", "ours", "rival", "missing"]
    ratio: Estimate | None = None
    bound: float | None = None
    rival: str | None = None


@dataclass(frozen=True)
class Row:
    """One link on one platform.

    Attributes:
        entries: as they stand in the file.
        sweep: the file's name.
        families: of the schemes that were run; None where that is not known.
    """

    entries: Mapping[str, Any]
    sweep: str
    families: frozenset[str] | None = None

    @cached_property
    def setting(self) -> Setting:
        """Everything but the connection interval."""
        link, e = self.entries["link"], self.entries
        account = Account(str(link["ack"]), bool(link["as_published"]))
        loss = float(link.get("loss", 0.0))
        scale, unit = float(e.get("time_scale", 1.0)), str(e.get("unit", "group"))
        return Setting(str(e["platform"]), str(link["phy"]), int(link["packets"]), account, scale, unit, loss)

    @property
    def ci_ms(self) -> float:
        """Connection interval in ms."""
        return float(self.entries["link"]["ci_ms"])

    @property
    def cloud_ms(self) -> float | None:
        """What an exit takes on the hub, in ms."""
        found = self.entries.get("cloud_ms")
        return None if found is None else float(found)

    @property
    def carried(self) -> int:
        """Payloads an event that the row was run with."""
        link = self.entries["link"]
        return int(link.get("effective_packets", link["packets"]))

    @cached_property
    def schemes(self) -> Mapping[str, Result]:
        """Everybody's result."""
        return {name: Result(name, entries) for name, entries in self.entries["schemes"].items()}

    def compare(self, ours: str, family: str) -> Comparison:
        """Ours against the fastest of a family that reaches the target."""
        mine = self.schemes.get(ours)
        if mine is None or (self.families is not None and family != "all" and family not in self.families):
            return Comparison(ours, family, "missing")
        rival = self.entries.get("best", {}).get(family)
        if not mine.reached:
            return Comparison(ours, family, "ours", rival=rival)
        found = self.entries.get("speed_up", {}).get(ours, {}).get(family)
        ratio = None if found is None else Estimate.of(found.get("value"), found.get("95"))
        if ratio is None:
            return Comparison(ours, family, "rival" if rival is None else "missing", rival=rival)
        bound = found.get("bound")
        return Comparison(ours, family, "ok", ratio, None if bound is None else float(bound), rival)


@dataclass(frozen=True)
class Sweep:
    """One file."""

    path: Path
    name: str
    kind: Kind
    conditions: Mapping[str, Any]
    schemes: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    digest: str

    @property
    def identity(self) -> str:
        """Of the bundle."""
        return str(self.conditions.get("identity", ""))

    def members(self, family: str) -> tuple[str, ...]:
        """Names of a family's schemes, in the file's order."""
        return tuple(name for name, about in self.schemes.items() if about.get("family") == family)


def load_sweep(path: Path) -> Sweep:
    """Read and check one file.

    Raises:
        FleetError: it cannot be read, is not JSON, is no sweep, has another format, or a row lacks what every row has.
    """
    try:
        text = path.read_text(encoding="utf-8")
        entries = json.loads(text)
    except OSError as err:
        raise FleetError(f"cannot read {path}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise FleetError(f"{path} is not JSON: {' '.join(str(err).split())}") from err
    if not isinstance(entries, dict) or not {"format", "conditions", "rows"} <= entries.keys():
        raise FleetError(f"{path} is no result of `fleet sweep`: it has no format, conditions and rows")
    if entries["format"] != FORMAT:
        raise FleetError(f"{path} has format {entries['format']!r}, this version reads {FORMAT}: sweep again")
    name = str(entries.get("name", path.stem))
    try:
        about = {str(key): dict(scheme) for key, scheme in entries.get("schemes", {}).items()}
        families = frozenset(str(scheme.get("family")) for scheme in about.values()) if about else None
        rows = tuple(_row(row, k, name, families) for k, row in enumerate(entries["rows"], start=1))
        return Sweep(
            path,
            name,
            "losses" if entries.get("kind") == "losses" or any(row.setting.loss > 0 for row in rows) else "sweep",
            dict(entries["conditions"]),
            about,
            tuple(str(note) for note in entries.get("notes", ())),
            rows,
            hashlib.sha256(text.encode()).hexdigest()[:12],
        )
    except FleetError as err:
        raise FleetError(f"{path}: {err}") from err
    except (TypeError, ValueError, AttributeError) as err:
        raise FleetError(f"{path} is damaged: {' '.join(str(err).split())}") from err


def _row(entries: Any, number: int, sweep: str, families: frozenset[str] | None) -> Row:
    row = Row(entries, sweep, families)
    try:
        _ = row.setting, row.ci_ms, row.cloud_ms, row.carried
        results = row.schemes.values()
        nested = [row.entries.get(key, {}) for key in ("speed_up", "energy_saving", "byte_ratio")]
        inner = [of for one in nested for by in one.values() for of in (by, *by.values())]
        tops = (row.entries.get("best", {}), row.entries.get("curves", {}))
        mappings = (*tops, *nested, *inner, *(r.entries for r in results))
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        what = f"has no {err}" if isinstance(err, KeyError) else f"is ill-formed ({err})"
        raise FleetError(f"row {number} {what}") from err
    if not all(isinstance(found, Mapping) for found in mappings):
        raise FleetError(f"row {number} is ill-formed (a scheme, best, curves or a ratio is no mapping)")
    return row


@dataclass(frozen=True)
class Evidence:
    """All that a report is made from.

    Attributes:
        main: sweeps of the first file's bundle and codec, in the order given.
        others: sweeps of other bundles or codecs.
        losses: random-loss runs of the first file's bundle.
        asked: which of ours the tables are to follow.
    """

    main: tuple[Sweep, ...]
    others: tuple[Sweep, ...] = ()
    losses: tuple[Sweep, ...] = ()
    asked: tuple[str, ...] = OURS

    @classmethod
    def of(cls, sweeps: Iterable[Sweep], ours: Sequence[str] = OURS) -> Evidence:
        """Sort files by what they are.

        Args:
            sweeps: the files.
            ours: which of ours the tables are to follow.

        Raises:
            FleetError: there is no sweep among them.
        """
        found = list(sweeps)
        first = next((s for s in found if s.kind == "sweep"), None)
        if first is None:
            raise FleetError("give at least one SWEEP.json that `fleet sweep` wrote")
        same = [s for s in found if s.identity == first.identity and _codec(s) == _codec(first)]
        return cls(
            tuple(s for s in same if s.kind == "sweep"),
            tuple(s for s in found if s not in same and s.kind == "sweep"),
            tuple(s for s in same if s.kind == "losses"),
            tuple(ours),
        )

    @cached_property
    def ours(self) -> tuple[str, ...]:
        """Those of ours that any row has; the first that was asked for where none does."""
        return tuple(name for name in self.asked if self.has(name)) or self.asked[:1]

    @property
    def conditions(self) -> Mapping[str, Any]:
        """Those of the first file."""
        return self.main[0].conditions

    @cached_property
    def schemes(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known of every scheme, from all files."""
        found: dict[str, Mapping[str, Any]] = {}
        for sweep in (*self.main, *self.losses):
            for name, about in sweep.schemes.items():
                found.setdefault(name, about)
        return found

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Rows of the main sweeps; those of one link are one row, with all schemes."""
        return _unique(row for sweep in self.main for row in sweep.rows)

    @cached_property
    def lossy(self) -> tuple[Row, ...]:
        """Rows of the random-loss runs, by setting and loss."""
        return _unique(row for sweep in self.losses for row in sweep.rows)

    @cached_property
    def _by_setting(self) -> Mapping[Setting, tuple[Row, ...]]:
        found: dict[Setting, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.setting, []).append(row)
        return {setting: tuple(sorted(rows, key=lambda r: r.ci_ms)) for setting, rows in found.items()}

    def series(self, setting: Setting) -> tuple[Row, ...]:
        """A setting's rows by connection interval."""
        return self._by_setting.get(setting, ())

    def row(self, setting: Setting, ci_ms: float) -> Row | None:
        """The row at the grid's interval nearest to one; None where the grid has none near it."""
        near = min(self.series(setting), key=lambda row: abs(math.log(row.ci_ms / ci_ms)), default=None)
        return None if near is None or not ci_ms / NEAR <= near.ci_ms <= ci_ms * NEAR else near

    @cached_property
    def unit(self) -> str:
        """What the headline rows are judged by: groups where the bundle has them."""
        units = {row.setting.unit for row in self.rows}
        return "group" if "group" in units or not units else sorted(units)[0]

    @cached_property
    def units(self) -> tuple[str, ...]:
        """All that rows are judged by, the headline's first."""
        return (self.unit, *sorted({row.setting.unit for row in self.rows} - {self.unit}))

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """Time scales; the rows as named are listed even where they are missing."""
        return tuple(sorted({1.0} | {row.setting.time_scale for row in self.rows}))

    @cached_property
    def matched(self) -> float | None:
        """The time scale of the time-matched rows."""
        return max((scale for scale in self.scales if scale != 1), default=None)

    @cached_property
    def papers(self) -> Account:
        """The account nearest to the paper's that was run."""
        there = {row.setting.account for row in self.rows}
        fitting = Account("next_event", False)
        return PAPERS if PAPERS in there or fitting not in there else fitting

    @cached_property
    def accounts(self) -> tuple[Account, ...]:
        """All accounts that were run, the paper's and the real one first."""
        there = {row.setting.account for row in self.rows}
        first = [account for account in (self.papers, REAL) if account in there]
        return (*first, *sorted(there - set(first)))

    def has(self, scheme: str) -> bool:
        """Whether any row knows a scheme."""
        return any(scheme in row.schemes for row in self.rows)

    def absent(self, family: str) -> tuple[str, ...]:
        """The paper's rivals of a family, or of all, that no row has."""
        wanted = RIVALS.get(family) or [name for names in RIVALS.values() for name in names]
        return tuple(name for name in wanted if not self.has(name))


def _codec(sweep: Sweep) -> str:
    return str(sweep.conditions.get("codec", ""))


def _unique(rows: Iterable[Row]) -> tuple[Row, ...]:
    found: dict[tuple[Setting, float], Row] = {}
    for row in rows:
        key = row.setting, row.ci_ms
        found[key] = _joined(found[key], row) if key in found else row
    return tuple(found.values())


def _joined(first: Row, second: Row) -> Row:
    """One row of two of the same link: what the first lacks is the second's, if both were run for the same target."""
    if first.entries.get("target") != second.entries.get("target"):
        return first
    parts = ("schemes", "speed_up", "energy_saving", "byte_ratio", "curves", "best")
    families = None if None in (first.families, second.families) else first.families | second.families  # type: ignore[operator]
    joined = {p: {**second.entries.get(p, {}), **first.entries.get(p, {})} for p in parts}
    return Row({**second.entries, **first.entries, **{p: j for p, j in joined.items() if j}}, first.sweep, families)


def load_evidence(paths: Sequence[Path]) -> Evidence:
    """Read all files.

    Raises:
        FleetError: see :func:`load_sweep` and :meth:`Evidence.of`.
    """
    return Evidence.of([load_sweep(path) for path in paths])
