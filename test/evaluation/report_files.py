# SPDX-License-Identifier: Apache-2.0
"""Sweeps as `fleet sweep` writes them, from a handful of formulas in place of a trace: made up, and said so in them."""

from __future__ import annotations

import json
import math
from itertools import product

CIS = (7.5, 10.0, 15.0, 30.0, 65.0, 100.0, 500.0, 4000.0)
RATE = {"125k": 8.0, "500k": 2.0, "1M": 1.0, "2M": 0.6}
SPEED = {"cortex-m33-64": 6.0, "gap8-175": 0.67}
SCHEMES = {
    "fleet": ("fleet", "fleet", ""),
    "fleet-single": ("fleet", "fleet", "one threshold for all exits"),
    "fleet-race": ("fleet", "fleet", "local exits beside the radio"),
    "branchynet": ("local", "local", "three epochs of joint training"),
    "shallow-deep": ("local", "local", "frozen base network"),
    "ensemble": ("local", "local", ""),
    "clio": ("offload", "partition", ""),
    "neurosurgeon": ("offload", "partition", ""),
    "jpeg": ("offload", "jpeg", ""),
    "jpeg-stripped": ("offload", "jpeg-stripped", ""),
    "webp": ("offload", "webp", "not one of the baselines"),
}
FAMILIES = ("local", "partition", "jpeg", "jpeg-stripped", "webp", "all")
PAPERS = ("next_event", True)
REAL = ("link_layer", False)


def around(value, share=0.03):
    return [round(value * (1 - share), 5), round(value * (1 + share), 5)]


def row(
    ci=10.0, phy="1M", packets=4, account=PAPERS, platform="cortex-a77-200", scale=1.0, unit="group", loss=0.0, **more
):
    """One row; every latency follows from the arguments."""
    ack, as_published = account
    speed = scale * SPEED.get(platform, 1.0) * (200 / int(platform.rsplit("-", 1)[1]) if "a77" in platform else 1)
    events = RATE[phy] * 4 / packets / (1 - min(loss, 0.95))
    reliable = 2 if ack == "next_event" else 1
    stage = 6 * speed
    latency = {
        "fleet": max(stage, ci / 2) + ci + 5 + 0.2 * events * ci,
        "branchynet": 60 * speed,
        "shallow-deep": 64 * speed,
        "ensemble": 70 * speed,
        "clio": 14 * speed + ci / 2 + ci * math.ceil(1.3 * events) * reliable + 5,
        "neurosurgeon": 15 * speed + ci / 2 + ci * math.ceil(1.2 * events) * reliable + 5,
        "jpeg": speed + ci / 2 + ci * math.ceil(1.6 * events) * reliable + 5,
        "jpeg-stripped": speed + ci / 2 + ci * math.ceil(1.0 * events) * reliable + 5,
        "webp": 2 * speed + ci / 2 + ci * math.ceil(0.9 * events) * reliable + 5,
    }
    latency["fleet-single"] = 1.15 * latency["fleet"]
    latency["fleet-race"] = min(1.01 * latency["branchynet"], latency["fleet"])
    bytes_ = {
        "fleet": 420,
        "fleet-single": 450,
        "fleet-race": 400,
        "clio": 900,
        "neurosurgeon": 800,
        "jpeg": 1200,
        "jpeg-stripped": 850,
        "webp": 780,
    }
    schemes = {}
    for name, ms in latency.items():
        energy = 0.04 * min(ms, 80 * speed) + 0.002 * bytes_.get(name, 0) * RATE[phy]
        schemes[name] = {
            "reached": True,
            "point": {"threshold": 0.8},
            "calibration": {"accuracy": 0.872, "latency_ms": round(ms, 3)},
            "accuracy": round(0.868 - (0.3 * loss if name.startswith("fleet") else 0), 4),
            "accuracy_95": [0.855, 0.881],
            "latency_ms": round(ms, 3),
            "latency_ms_95": around(ms, 0.02),
            "median_ms": round(ms, 3),
            "p95_ms": round(1.4 * ms, 3),
            "hub_latency_ms": round(ms, 3),
            "energy_mj": round(energy, 4),
            "energy_mj_95": around(energy, 0.02),
            "processor_mj": round(0.8 * energy, 4),
            "radio_mj": round(0.2 * energy, 4),
            "bytes": bytes_.get(name, 0),
            "packets": 2.0,
            "events": 2.0,
            "exits": {"1": 0.2, "2": 0.3, "3": 0.2, "4": 0.2, "device": 0.1}
            if name.startswith("fleet")
            else {"exit 5": 1.0},
        }
    if latency["fleet-race"] < latency["fleet"]:
        schemes["fleet-race"]["exits"] = {"1": 0.1, "local 5": 0.9}
    if loss > 0.7:
        schemes["fleet"]["reached"] = False
    bound = 1.5 * ci + 5
    best = {f: fastest(schemes, members(f)) for f in FAMILIES}
    return {
        "link": {
            "ci_ms": ci,
            "phy": phy,
            "packets": packets,
            "effective_packets": packets,
            "payload": 244,
            "ack": ack,
            "as_published": as_published,
            "loss": loss,
        },
        "platform": platform,
        "time_scale": scale,
        "cloud_ms": 5.0,
        "unit": unit,
        "target": 0.871,
        "bound_ms": bound,
        "schemes": schemes,
        "best": best,
        "speed_up": speed_ups(schemes, best, bound),
        **more,
    }


def members(family):
    return [n for n, (_, f, _) in SCHEMES.items() if f == family or (family == "all" and f not in ("fleet", "webp"))]


def fastest(schemes, names):
    there = [n for n in names if n in schemes and schemes[n]["reached"]]
    return min(there, key=lambda n: schemes[n]["latency_ms"], default=None)


def speed_ups(schemes, best, bound):
    found = {}
    for ours in [n for n in schemes if n.startswith("fleet") and schemes[n]["reached"]]:
        found[ours] = {}
        for family, rival in best.items():
            if rival is not None:
                theirs = schemes[rival]["latency_ms"]
                value = theirs / schemes[ours]["latency_ms"]
                found[ours][family] = {"value": round(value, 4), "95": around(value), "bound": round(theirs / bound, 4)}
    return found


def curves(found):
    """Operating points around those that were chosen."""
    drawn = {}
    for name, result in found["schemes"].items():
        drawn[name] = [
            {
                "accuracy": round(0.6 + 0.3 * (1 - math.exp(-3 * t)), 4),
                "calibration_accuracy": round(0.605 + 0.3 * (1 - math.exp(-3 * t)), 4),
                "latency_ms": round(result["latency_ms"] * (0.3 + t), 3),
                "energy_mj": 1.0,
                "bytes": round(result["bytes"] * (0.4 + t)),
                "point": {"threshold": round(t, 1)},
                "exits": {"1": round(1 - t, 2), "4": round(t * 0.9, 3), "device": round(t * 0.1, 3)},
            }
            for t in (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9)
        ]
    return {**found, "curves": drawn}


def document(name, rows, **conditions):
    return {
        "format": 1,
        "name": name,
        "conditions": {
            "bundle": "backyard",
            "identity": "0123456789abcdef",
            "trace": "fedcba98",
            "test": {"data": "val.tar.gz", "pictures": 2500},
            "calibration": {"data": "train-4.tar.gz", "pictures": 2500},
            "seed": 0,
            "phase": "uniformly random",
            "intervals": "95 %, paired percentile bootstrap, 1000 resamples",
            "radio": "nRF5340",
            "radio_note": "Currents are data-sheet values.",
            "machine": "made up",
            "version": "0.1.0",
            **conditions,
        },
        "schemes": {n: {"kind": kind, "family": family, "note": note} for n, (kind, family, note) in SCHEMES.items()},
        "rows": rows,
    }


def whole():
    """Rows for every table."""
    scales = (1.0, 3.56)
    rows = [
        row(ci, phy, packets, account, scale=scale)
        for ci, phy, packets, account, scale in product(CIS, ("1M", "2M"), (1, 2, 3, 4), (PAPERS, REAL), scales)
    ]
    rows += [row(ci, phy, 4, a, scale=s) for ci, phy, a, s in product(CIS, ("125k", "500k"), (PAPERS, REAL), scales)]
    rows += [
        row(ci, phy, 4, a, platform, s)
        for ci, phy, a, platform, s in product(CIS, RATE, (PAPERS, REAL), ("cortex-m33-64", "gap8-175"), scales)
    ]
    rows = [curves(r) if is_headline(r) else r for r in rows]
    return document("paper", rows)


def is_headline(found):
    link = found["link"]
    return (found["platform"], link["phy"], link["packets"], link["ci_ms"]) == ("cortex-a77-200", "1M", 4, 10.0)


def compute():
    return document(
        "compute",
        [
            row(ci, platform=f"cortex-a77-{mhz}", scale=s)
            for ci, mhz, s in product(CIS, range(200, 1501, 100), (1.0, 3.56))
        ],
    )


def wake_words():
    intervals = (7.5, 10.0, 20.0, 30.0, 45.0, 65.0)
    return document(
        "wake-words", [row(ci, platform="cortex-a77-500", scale=s) for ci, s in product(intervals, (1.0, 3.56))]
    )


def losses():
    links = (("500k", 2), ("500k", 4), ("1M", 4))
    rows = [
        row(25.0, phy, k, scale=s, loss=tenth / 10) for (phy, k), s, tenth in product(links, (1.0, 3.56), range(10))
    ]
    return {**document("losses", rows, test={"data": "val.tar.gz", "pictures": 500}), "kind": "losses"}


PLAN = {
    "format": 1,
    "base": {"name": "backyard", "images_seen": 1170000},
    "machine": "two x86-64 cores",
    "schemes": [
        {
            "name": "branchynet",
            "trained": "all weights",
            "epochs": 3,
            "images": 135000,
            "seconds": 5400.0,
            "variant": None,
            "full_command": "fleet baselines train branchynet",
        },
        {"scheme": "clio", "trained": "heads"},
    ],
}


def write(folder, **documents):
    """Write documents as ``NAME.json``; returns their paths in order."""
    paths = []
    for name, entries in documents.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(entries))
        paths.append(path)
    return paths
