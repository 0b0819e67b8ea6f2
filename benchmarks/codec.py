# SPDX-License-Identifier: Apache-2.0
"""Times the codecs on a bundle's stages, beside gzip of the same features at 8 bits and JPEG of a 64x64 image.

python benchmarks/codec.py                     print the table, write benchmarks/codec.json
python benchmarks/codec.py --bundle DIRECTORY  another model than the one that comes with the package

A ratio is the median of ratios that were taken back to back in one run, in processor time of one thread: a busy machine
stretches both sides alike, so ratios can be compared between machines where microseconds cannot.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from fleet.bundle import Bundle  # noqa: E402
from fleet.codec import StageBuffer, StageLayout, encode_stage  # noqa: E402
from fleet.coders import Coder, coder_named  # noqa: E402
from fleet.errors import FleetError  # noqa: E402
from fleet.packet import MAX_PAYLOAD, PICTURE, Header  # noqa: E402
from fleet.resources import find_model  # noqa: E402
from fleet.runtime import DeviceNetwork  # noqa: E402
from fleet.sources import open_source  # noqa: E402

RESULTS = ROOT / "benchmarks" / "codec.json"
JPEG_SIZE = 64
JPEG_QUALITY = 75
CODECS = ("plain", "paper", "fleet")
COLUMNS = ("encode", "decode", "gzip", "gunzip")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="backyard", help="directory, or the name of one in models/")
    parser.add_argument("--codec", action="append", help=f"again for more; default: {', '.join(CODECS)}")
    parser.add_argument("--payload", type=int, default=MAX_PAYLOAD, help="bytes of a packet, 20 to 244")
    parser.add_argument("--repeats", type=int, default=200, help="rounds; the median of them counts")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the numbers")
    arguments = parser.parse_args()
    try:
        bundle = Bundle.load(find_model(arguments.bundle))
        image = photograph()
        latents = latents_of(bundle, image)
        jpeg = jpeg_of(image)
        rows = [
            measure(coder_named(name), bundle.layouts[n], latent, jpeg, arguments.payload, max(1, arguments.repeats))
            for name in arguments.codec or CODECS
            for n, latent in latents.items()
        ]
    except FleetError as err:
        print(f"codec: {err}", file=sys.stderr)
        return 2
    conditions = {
        "bundle": bundle.name,
        "identity": bundle.identity.hex(),
        "trained": bundle.trained,
        "payload": arguments.payload,
        "repeats": arguments.repeats,
        "image": "the first of the sample photographs",
        "jpeg": {"size": JPEG_SIZE, "quality": JPEG_QUALITY, "bytes": len(jpeg())},
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    show(rows, conditions)
    try:
        arguments.json.write_text(json.dumps({"conditions": conditions, "stages": rows}, indent=1) + "\n")
    except OSError as err:
        print(f"codec: cannot write {arguments.json}: {err.strerror}", file=sys.stderr)
        return 2
    return 0


def photograph() -> np.ndarray:
    """One sample photograph, RGB, shape (H, W, 3)."""
    source = open_source("photos")
    try:
        frame = source.read(10.0)
    finally:
        source.close()
    assert frame is not None
    return frame.image


def latents_of(bundle: Bundle, image: np.ndarray) -> dict[int, np.ndarray]:
    """What every stage has to send of the photograph, by stage, shapes (channels, grid, grid)."""
    network = DeviceNetwork(bundle)
    features, latents = network.prepare(image), {}
    if bundle.picture is not None:
        latents[PICTURE] = network.run_picture(features)
    for n in network.stage_numbers:
        output = network.run(n, features)
        features = output.features
        if output.latent is not None:
            latents[n] = output.latent
    return latents


def jpeg_of(image: np.ndarray) -> Callable[[], bytes]:
    """Encodes the photograph as the JPEG baseline would, 64x64."""
    cv2.setNumThreads(1)
    side = min(image.shape[:2])
    square = np.ascontiguousarray(image[:side, :side, ::-1])
    small = cv2.resize(square, (JPEG_SIZE, JPEG_SIZE), interpolation=cv2.INTER_AREA)

    def encode() -> bytes:
        return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()

    return encode


def measure(
    coder: Coder, layout: StageLayout, latent: np.ndarray, jpeg: Callable[[], bytes], payload: int, repeats: int
) -> dict[str, Any]:
    """Times one stage; every round runs every contender once."""
    # Two in turn, for a coder remembers what it guessed for the packets of one picture.
    turn = itertools.cycle((latent, latent[:, ::-1]))

    def encode() -> list[bytes]:
        return encode_stage(layout, next(turn), inference_id=1, payload=payload, coder=coder)

    packets = encode()

    def decode() -> np.ndarray:
        buffer = StageBuffer(layout)
        for packet in packets:
            buffer.add(Header.unpack(packet), packet)
        return buffer.view()

    span = np.asarray(layout.quantiser.step) * (layout.quantiser.levels - 1)
    share = (latent - np.asarray(layout.quantiser.low)[:, None, None]) / span[:, None, None]
    eight_bits = np.clip(np.rint(share * 255), 0, 255).astype(np.uint8).tobytes()
    zipped = gzip.compress(eight_bits, mtime=0)
    contenders: dict[str, Callable[[], object]] = {
        "encode": encode,
        "decode": decode,
        "gzip": lambda: gzip.compress(eight_bits, mtime=0),
        "gunzip": lambda: gzip.decompress(zipped),
        "jpeg": jpeg,
    }
    rounds = [{name: microseconds(run) for name, run in contenders.items()} for _ in range(repeats + 1)][1:]

    def ratio(ours: str, theirs: str) -> float:
        return round(statistics.median(r[ours] / r[theirs] for r in rounds), 3)

    return {
        "codec": coder.name,
        "stage": layout.stage,
        "channels": layout.channels,
        "grid": layout.ladder.finest,
        "levels": layout.quantiser.levels,
        "packets": len(packets),
        "bytes": sum(map(len, packets)),
        "bytes_gzip_8_bits": len(zipped),
        "us": {name: round(statistics.median(r[name] for r in rounds), 1) for name in contenders},
        "encode_to_gzip": ratio("encode", "gzip"),
        "decode_to_gunzip": ratio("decode", "gunzip"),
        "encode_to_jpeg": ratio("encode", "jpeg"),
        "decode_to_jpeg": ratio("decode", "jpeg"),
    }


def microseconds(run: Callable[[], object]) -> float:
    """Processor time of one call in this thread, never zero."""
    begun = time.thread_time_ns()
    run()
    return max(1, time.thread_time_ns() - begun) / 1e3


def show(rows: list[dict[str, Any]], conditions: dict[str, Any]) -> None:
    trained = "" if conditions["trained"] else " (untrained)"
    print(
        f"bundle {conditions['bundle']} {conditions['identity']}{trained}, payload {conditions['payload']} B; "
        f"median of {conditions['repeats']} rounds, processor time in µs"
    )
    print(
        "codec stage      sends packets bytes  gzip B "
        + "".join(f"{name:>8s}" for name in COLUMNS)
        + "  enc/gzip enc/jpeg"
    )
    for row in rows:
        sends = f"{row['channels']}x{row['grid']}x{row['grid']}"
        times = "".join(f"{row['us'][name]:8.0f}" for name in COLUMNS)
        print(
            f"{row['codec']:5s} {row['stage']:5d} {sends:>10s} {row['packets']:7d} {row['bytes']:5d} "
            f"{row['bytes_gzip_8_bits']:7d} {times} {row['encode_to_gzip']:9.2f} {row['encode_to_jpeg']:8.2f}"
        )
    jpeg = statistics.median(row["us"]["jpeg"] for row in rows)
    print(f"JPEG {JPEG_SIZE}x{JPEG_SIZE}, quality {JPEG_QUALITY}: {conditions['jpeg']['bytes']} bytes, {jpeg:.0f} µs")


if __name__ == "__main__":
    sys.exit(main())
