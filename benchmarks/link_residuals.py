# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of docs/link.md, and benchmarks/link_residuals.json behind them.

python benchmarks/link_residuals.py            print the residuals, rewrite both files
python benchmarks/link_residuals.py --check    exit 1 when the document is not what would be written
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fleet.errors import FleetError  # noqa: E402
from fleet.link.airtime import GENERIC, MIC_OCTETS, NO_GUARD, SOFTDEVICE, pair_us, payloads_that_fit  # noqa: E402
from fleet.link.capacity import capacity  # noqa: E402
from fleet.link.energy import event_phases  # noqa: E402
from fleet.link.parameters import LinkParameters  # noqa: E402
from fleet.link.published import Figure, energy_figures, timing_figures  # noqa: E402
from fleet.link.radios import NRF5340, RADIOS  # noqa: E402
from fleet.link.transfer import payloads_with_closing  # noqa: E402

DOCUMENT = ROOT / "docs" / "link.md"
RESULTS = ROOT / "benchmarks" / "link_residuals.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    timing, energy = timing_figures(), energy_figures()
    text = DOCUMENT.read_text(encoding="utf-8")
    written = document_with_tables(text)
    for name, figures in (("timing", timing), ("energy", energy)):
        for figure in figures:
            numbers = f"{figure.residual:+8.3%}  {figure.computed:10.3f} {figure.published:10.3f}"
            print(f"{numbers} {figure.unit:7s} {figure.what}")
        print(f"{name}: {len(figures)} figures, worst residual {worst(figures):.2%}\n")
    if check:
        return int(written != text)
    DOCUMENT.write_text(written, encoding="utf-8")
    RESULTS.write_text(json.dumps(as_json(timing, energy), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def worst(figures: Iterable[Figure]) -> float:
    return max(abs(figure.residual) for figure in figures)


def as_json(timing: Sequence[Figure], energy: Sequence[Figure]) -> dict[str, object]:
    def rows(figures: Sequence[Figure]) -> list[dict[str, object]]:
        return [
            {
                "what": figure.what,
                "unit": figure.unit,
                "computed": round(figure.computed, 4),
                "published": figure.published,
                "residual": round(figure.residual, 6),
                "source": figure.source,
            }
            for figure in figures
        ]

    return {
        "timing": {"worst": round(worst(timing), 6), "figures": rows(timing)},
        "energy": {"worst": round(worst(energy), 6), "figures": rows(energy)},
    }


def document_with_tables(text: str) -> str:
    """The document with every block between its two markers written anew."""
    for name, block in blocks().items():
        begin, end = f"<!-- {name}: benchmarks/link_residuals.py -->", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise SystemExit(f"{DOCUMENT.name} needs the two markers of '{name}' exactly once")
        whole = f"{begin}\n\n{block}\n\n{end}"
        text = pattern.sub(lambda _, whole=whole: whole, text)
    return text


def blocks() -> dict[str, str]:
    timing, energy = timing_figures(), energy_figures()
    return {
        "summary": (
            f"{len(timing)} published timing figures, worst residual {worst(timing):.2%}; "
            f"{len(energy)} published energy figures, worst residual {worst(energy):.1%}."
        ),
        "air": air_table(),
        "fit": fit_table(),
        "timing": residual_table(timing),
        "energy": residual_table(energy),
        "phases": phase_table(),
        "radios": radio_table(),
        "closing": closing_table(),
    }


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right_from: int = 1) -> str:
    rule = ["---" if k < right_from else "---:" for k in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def residual_table(figures: Sequence[Figure]) -> str:
    rows = [
        (f.what, f.unit, f"{f.computed:.5g}", f"{f.published:.6g}", f"{f.residual:+.2%}", f.source) for f in figures
    ]
    header = ("figure", "unit", "computed", "published", "residual", "published by")
    return table(header, rows).replace("---: |\n", "--- |\n", 1)


def air_table() -> str:
    formulas = {
        "1M": "8 (10 + N + MIC)",
        "2M": "4 (11 + N + MIC)",
        "500k": "462 + 16 (N + MIC)",
        "125k": "720 + 64 (N + MIC)",
    }
    rows = [(phy, formula, f"{pair_us(phy, 27):g}", f"{pair_us(phy, 251):g}") for phy, formula in formulas.items()]
    note = f"\n\nMIC is {MIC_OCTETS} octets on an encrypted link, 0 otherwise and for empty packets."
    return table(("PHY", "air(N) in µs", "27 octets and ack, µs", "251 octets and ack, µs"), rows, 2) + note


def fit_table() -> str:
    rows = []
    for ci_ms in (7.5, 10, 15, 30, 50, 100):
        cells = [f"{ci_ms:g}"]
        for phy in ("1M", "2M", "500k", "125k"):
            counts = [payloads_that_fit(ci_ms, phy, 244, controller=c) for c in (GENERIC, SOFTDEVICE, NO_GUARD)]
            cells.append(f"**{counts[0]}** ({counts[1]}, {counts[2]})")
        rows.append(cells)
    return table(("CI ms", "1M", "2M", "500k", "125k"), rows)


def phase_table() -> str:
    phases = event_phases(NRF5340, "1M", [251] * 3, ci_ms=10.0)
    rows = [
        (p.name, f"{p.duration_us:.1f}", f"{p.current_ma:g}", f"{p.charge_nc * NRF5340.voltage_v / 1000:.2f}")
        for p in phases
    ]
    total = sum(p.charge_nc for p in phases) * NRF5340.voltage_v / 1000
    rows.append(("**sum**", f"{sum(p.duration_us for p in phases):.1f}", "", f"**{total:.2f}**"))
    return table(("phase", "µs", "mA", "µJ"), rows)


def radio_table() -> str:
    rows = []
    for phy in ("1M", "2M", "500k", "125k"):
        for radio in RADIOS.values():
            if phy not in radio.rx_ma:
                continue
            cells = [phy, radio.name]
            for packets in (0, 1, 4):
                link = LinkParameters(ci_ms=100, phy=phy, packets=max(1, packets))
                carried = capacity(link, radio=radio)
                cells.append(f"{carried.energy_uj if packets else carried.idle_energy_uj:.1f}")
            cells.append(f"{carried.mean_power_uw / 1000:.3f}")
            rows.append(cells)
    header = ("PHY", "radio", "µJ, empty event", "µJ, 1 payload", "µJ, 4 payloads", "mW, 4 payloads")
    notes = "\n".join(f"- {radio.name}: {radio.note}.\n  Source: {radio.source}." for radio in RADIOS.values())
    return table(header, rows, 2) + "\n\n" + notes


def closing_table() -> str:
    rows = []
    for loss in (0.0, 0.1, 0.3, 0.6):
        try:
            link = LinkParameters(ci_ms=15, loss=loss)
        except FleetError as err:
            raise SystemExit(str(err)) from err
        k = link.effective_packets
        rows.append((f"{loss:.0%}", f"{k * (1 - loss):.2f}", f"{payloads_with_closing(k, loss):.2f}"))
    return table(
        ("loss", "payloads an event, each lost by itself", "payloads an event, closing at the first loss"), rows
    )


if __name__ == "__main__":
    sys.exit(main())
