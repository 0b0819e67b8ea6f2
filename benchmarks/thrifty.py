# SPDX-License-Identifier: Apache-2.0
"""How much of the picture a thrifty device should send at a time, on pictures that decide nothing else in the results.

python benchmarks/thrifty.py TRACE               print the table, write benchmarks/thrifty.json

Everything here is of the calibration split: it is where FLEET's constants come from. A packet is the least that can be
sent, so on links with packets of 244 bytes there is nothing to choose.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import fleet.inference as inference  # noqa: E402, PLR0402
from fleet.errors import FleetError  # noqa: E402
from fleet.evaluation.contest import Contest  # noqa: E402
from fleet.evaluation.judge import Judge  # noqa: E402
from fleet.evaluation.plan import VARIANTS, parse_plan  # noqa: E402
from fleet.evaluation.stopping import choose_each  # noqa: E402
from fleet.evaluation.trace import Trace  # noqa: E402
from fleet.link.parameters import LinkParameters  # noqa: E402
from fleet.platforms import load_profile  # noqa: E402

RESULTS = ROOT / "benchmarks" / "thrifty.json"
SIZES = (60, 80, 100, 120, 140, 160, 180, 200, 220, 240, 280, 320)
NAME = "fleet-picture-thrifty"
LINKS = (
    LinkParameters(ci_ms=10.0, packets=4, phy="1M", ack="next_event", as_published=True),
    LinkParameters(ci_ms=10.0, packets=4, phy="125k", payload=20, ack="next_event", as_published=True),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path, help="folder that `fleet trace` has written")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the numbers")
    arguments = parser.parse_args()
    try:
        found = measure(Trace.load(arguments.trace))
    except FleetError as err:
        print(f"benchmark: {err}", file=sys.stderr)
        return 2
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{'PHY':>5} {'at a time':>9} {'accuracy':>8} {'bytes':>6} {'mJ':>7} {'ms':>6}")
    for row in found["rows"]:
        print(
            f"{row['phy']:>5} {row['at_a_time']:9} {100 * row['accuracy']:7.1f}% {row['bytes']:6.0f} "
            f"{row['energy_mj']:7.4f} {row['latency_ms']:6.1f}"
        )
    return 0


def measure(trace: Trace) -> dict[str, Any]:
    """Bytes, joules and time of every size on every link."""
    profile = load_profile("cortex-a77-200")
    plan = parse_plan({"fleet": [NAME], "rivals": [], "links": [{"ci_ms": 10.0}]}, default_name="thrifty")
    rows = []
    shipped = inference.THRIFTY_BYTES
    for link in LINKS:
        usual = max(1, shipped // link.payload)
        bursts = {max(1, size // link.payload): size for size in (*SIZES, shipped)}
        for burst, size in sorted(bursts.items()):
            inference.THRIFTY_BYTES = size
            contest = Contest(Judge(trace, "group"), plan, profile)
            at_a_time = burst * link.payload
            rows.append(
                {"phy": link.phy, "payload": link.payload, "at_a_time": at_a_time, "shipped": burst == usual}
                | row_of(contest, link)
            )
    inference.THRIFTY_BYTES = shipped
    index = trace.index
    return {
        "bundle": index.bundle["identity"],
        "split": {key: index.splits["calibration"][key] for key in ("data", "pictures")},
        "platform": profile.name,
        "ci_ms": 10.0,
        "packets": 4,
        "rows": rows,
    }


def row_of(contest: Contest, link: LinkParameters) -> dict[str, Any]:
    """The fastest of the ways in which the hub may decide, on the calibration split."""
    best = None
    for manner in VARIANTS[NAME].manners:
        race = contest.race(VARIANTS[NAME], manner, "calibration", link, ())
        choice = choose_each(race.runs, contest.target + contest.guard(NAME, link))
        if best is None or choice.score.better(best[0].score, contest.target):
            best = choice, race
    assert best is not None
    outcomes, right, _ = best[1].end(best[0].thresholds)
    return {
        "accuracy": round(float(right.mean()), 4),
        "target": round(contest.target, 4),
        "bytes": round(float(outcomes.sent_bytes.mean()), 1),
        "energy_mj": round(float(outcomes.energy_mj(contest.profile).mean()), 5),
        "latency_ms": round(float(outcomes.latency.mean()) * 1000.0, 2),
    }


if __name__ == "__main__":
    raise SystemExit(main())
