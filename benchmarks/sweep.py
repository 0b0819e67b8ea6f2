# SPDX-License-Identifier: Apache-2.0
"""Times `fleet sweep`: a thousand links, every image of a trace, every scheme in it.

python benchmarks/sweep.py TRACE               print the table, write benchmarks/sweep.json

The processor time is that of all processes together; on a machine that has other work the wall time says little.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fleet.errors import FleetError  # noqa: E402
from fleet.evaluation.plan import parse_plan  # noqa: E402
from fleet.evaluation.sweep import run_sweep  # noqa: E402
from fleet.evaluation.trace import Trace  # noqa: E402

RESULTS = ROOT / "benchmarks" / "sweep.json"
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
LIMIT_S = 120.0
LINKS = [
    {
        "ci_ms": {"from": 7.5, "to": 4000, "count": 42},
        "packets": [1, 2, 3, 4],
        "phy": ["1M", "2M", "500k"],
        "ack": ["link_layer", "next_event"],
    }
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path, help="folder that `fleet trace` has written")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument(
        "--fleet", action="append", help="variant of FLEET, again for more; default: fleet, fleet-single"
    )
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the numbers")
    arguments = parser.parse_args()
    for name in THREADS:
        os.environ.setdefault(name, "1")  # of the workers: each has a processor to itself
    try:
        found = measure(Trace.load(arguments.trace), arguments.workers, arguments.fleet or ["fleet", "fleet-single"])
    except FleetError as err:
        print(f"benchmark: {err}", file=sys.stderr)
        return 2
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    width = max(map(len, found))
    for key, value in found.items():
        print(f"{key:<{width}}  {value}")
    print(f"written to {arguments.json}")
    return 0


def measure(trace: Trace, workers: int, variants: list[str]) -> dict[str, Any]:
    """Run the sweep once, the processes' start and the trace's loading included."""
    plan = parse_plan({"links": LINKS, "fleet": variants}, default_name="benchmark")
    began, used = time.perf_counter(), processor_s()
    document = run_sweep(trace, plan, workers=workers)
    wall_s, used_s = time.perf_counter() - began, processor_s() - used
    rows = document["rows"]
    return {
        "links": len(rows),
        "pictures": document["conditions"]["test"]["pictures"],
        "calibration_pictures": document["conditions"]["calibration"]["pictures"],
        "schemes": sorted(rows[0]["schemes"]),
        "workers": workers,
        "wall_s": round(wall_s, 1),
        "processor_s": round(used_s, 1),
        "processor_ms_per_link": round(1000 * used_s / len(rows), 1),
        "seconds_on_idle_processors": round(used_s / workers, 1),
        "limit_s": LIMIT_S,
        "load_before": round(os.getloadavg()[0], 2),
        "processor": processor_name(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }


def processor_s() -> float:
    """Processor time of this process and of its finished children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def processor_name() -> str:
    """As Linux has it, or the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


if __name__ == "__main__":
    sys.exit(main())
