# SPDX-License-Identifier: Apache-2.0
"""``fleet link``: what a link can carry, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from fleet.errors import FleetError
from fleet.link.airtime import GENERIC, PHYS, Phy, largest_payload
from fleet.link.capacity import Capacity, capacity
from fleet.link.energy import RadioProfile
from fleet.link.parameters import KEYS as LINK_KEYS
from fleet.link.parameters import LinkParameters
from fleet.link.radios import NRF5340, RADIOS, radio_profile

KEYS = tuple(key for key in LINK_KEYS if key != "transport")
"""Settings that change what a link carries."""
WIDEST = 200
INTERVALS_MS = (7.5, 10.0, 15.0, 30.0, 50.0, 100.0, 400.0, 1000.0, 4000.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        phy: the physical layer.
        ci_ms: connection interval in ms.
        capacity: what the link carries, or None where no payload fits.
        longest_payload: the longest payload that fits, in bytes; None where not even the shortest does.
    """

    phy: Phy
    ci_ms: float
    capacity: Capacity | None
    longest_payload: int | None


def link(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="ci_ms, packets, phy (1M, 2M, 500k, 125k), payload, loss, ack (link_layer, next_event). "
            "Without ci_ms or phy the table runs over the usual ones.",
            show_default=False,
        ),
    ] = None,
    radio: Annotated[str, typer.Option(help=f"Whose energy: {', '.join(RADIOS)}.")] = NRF5340.name,
    unencrypted: Annotated[bool, typer.Option("--unencrypted", help="Packets without a MIC.")] = False,
    as_published: Annotated[
        bool, typer.Option("--as-published", help="Ignore what fits the interval, as the paper does.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write conditions and rows here, too.", show_default=False)
    ] = None,
) -> None:
    """Show what a BLE link can carry: payloads per event, throughput, energy.

    For example: fleet link ci_ms=30 phy=2M packets=4 loss=0.1
    """
    profile = radio_profile(radio)
    chosen, rows = link_rows(settings or [], profile, encrypted=not unencrypted, as_published=as_published)
    conditions = _conditions(chosen, profile, encrypted=not unencrypted, as_published=as_published)
    if json_file is not None:
        document = {"conditions": conditions, "rows": [_row_as_json(row) for row in rows]}
        try:
            json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        except OSError as err:
            raise FleetError(f"cannot write {json_file}: {err.strerror}") from err
    console, table = Console(), _table(rows)
    # A terminal too narrow for the table wraps its lines; cut digits would be wrong numbers.
    needed = console.measure(table, options=console.options.update(max_width=WIDEST)).maximum
    Console(width=max(console.width, needed)).print(table)
    for name, value in conditions.items():
        console.print(f"[dim]{name.replace('_', ' ')}:[/dim] {value}", highlight=False)


def link_rows(
    settings: Iterable[str], radio: RadioProfile, *, encrypted: bool = True, as_published: bool = False
) -> tuple[LinkParameters, list[Row]]:
    """One row for each interval and PHY that the settings leave open.

    Args:
        settings: ``KEY=VALUE`` texts.
        radio: whose energy is counted; of the PHYs left open only those that it has are shown.
        encrypted: whether packets carry a MIC.
        as_published: whether the packets asked for are taken as they are, even if they do not fit.

    Returns:
        What all rows have in common, and the rows.

    Raises:
        FleetError: a setting that is wrong whatever the open ones are.
    """
    texts = " ".join(settings).replace(",", " ").split()
    named = {text.partition("=")[0] for text in texts}
    # What fits is looked at below: the record's own check is for encrypted links only.
    chosen = LinkParameters.parse(texts, LinkParameters(as_published=True), keys=KEYS)
    if "phy" in named:
        radio.check(chosen.phy)
    phys = [chosen.phy] if "phy" in named else [phy for phy in PHYS if phy in radio.rx_ma]
    intervals = [chosen.ci_ms] if "ci_ms" in named else INTERVALS_MS
    rows = []
    for phy in phys:
        for ci_ms in intervals:
            longest = largest_payload(ci_ms, phy, encrypted=encrypted)
            parameters = chosen.replace(phy=phy, ci_ms=ci_ms)
            try:
                carried = capacity(parameters, radio=radio, encrypted=encrypted, as_published=as_published)
            except FleetError:
                if {"phy", "ci_ms"} <= named:
                    raise
                rows.append(Row(phy, ci_ms, None, longest))
            else:
                rows.append(Row(phy, ci_ms, carried, longest))
    return chosen, rows


def _conditions(chosen: LinkParameters, radio: RadioProfile, *, encrypted: bool, as_published: bool) -> dict[str, str]:
    guard = f"{GENERIC.guard_us:g} µs between the last exchange and the next event"
    return {
        "payload": f"{chosen.payload} bytes, {chosen.ll_octets} on the link layer",
        "packets": f"{chosen.packets} payloads an event asked for"
        + (", taken as they are (as published)" if as_published else ""),
        "guard": "ignored (as published)" if as_published else guard,
        "encrypted": "yes, 4 bytes of MIC a packet" if encrypted else "no",
        "loss": f"{chosen.loss:g}, each packet by itself",
        "acknowledgement": f"{chosen.ack} (of reliable transfers; features are best effort)",
        "radio": f"{radio.name}, camera's side only, sleep between events included",
        "energy": radio.note,
        "source": radio.source,
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    document: dict[str, Any] = {"phy": row.phy, "ci_ms": row.ci_ms, "longest_payload": row.longest_payload}
    carried = row.capacity
    if carried is None:
        return {**document, "effective_packets": 0}
    return {
        **document,
        "packets": carried.parameters.packets,
        "fit": carried.fit,
        "effective_packets": carried.carried,
        "best_effort_bps": carried.best_effort_bps,
        "reliable_bps": carried.reliable_bps,
        "closing_bps": carried.closing_bps,
        "air_us": carried.air_us,
        "duty_cycle": carried.duty_cycle,
        "energy_uj": carried.energy_uj,
        "idle_energy_uj": carried.idle_energy_uj,
        "mean_power_uw": carried.mean_power_uw,
        "idle_power_uw": carried.idle_power_uw,
    }


def _table(rows: list[Row]) -> Table:
    table = Table(title="What the link can carry", caption=_caption(rows), padding=(0, 1, 0, 0), box=box.SIMPLE_HEAD)
    table.add_column("\n\nPHY", no_wrap=True)
    for heading in (
        "\nCI\nms",
        "carried\nof\nasked",
        "best\neffort\nkbit/s",
        "\nreliable\nkbit/s",
        "on\nair\n%",
        "an\nevent\nµJ",
        "\nmean\nmW",
        "idle\nmean\nµW",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = rows[0].phy
    for row in rows:
        if row.phy != previous:
            table.add_section()
        previous = row.phy
        table.add_row(row.phy, f"{row.ci_ms:g}", *_cells(row))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    carried = row.capacity
    if carried is None:
        return ("none",)
    return (
        f"{carried.carried} of {carried.parameters.packets}",
        f"{carried.best_effort_bps / 1000:.1f}",
        f"{carried.reliable_bps / 1000:.1f}",
        f"{100 * carried.duty_cycle:.1f}",
        f"{carried.energy_uj:.1f}",
        f"{carried.mean_power_uw / 1000:.3f}",
        f"{carried.idle_power_uw:.1f}",
    )


def _caption(rows: list[Row]) -> str:
    lines = ["every event full, but for the last column: nothing to send"]
    for row in rows:
        if row.capacity is None:
            fits = "no payload fits"
            if row.longest_payload is not None:
                fits = f"payload={row.longest_payload} or less fits"
            lines.append(f"{row.phy} at {row.ci_ms:g} ms: {fits}")
    return "\n".join(lines)
