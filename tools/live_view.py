# SPDX-License-Identifier: Apache-2.0
"""Takes the picture of the live view in docs/images: a real run on the sample photographs, seen by a real browser.

    .venv/bin/python tools/live_view.py docs/images/live-view.png
    .venv/bin/python tools/live_view.py slow.png --dark --link ci_ms=100 loss=0.2       # more words for `fleet up`

Needs Debian's chromium (`apt-get install chromium`); nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MOST_BYTES = 400_000


def browser_path() -> str | None:
    """Where a Chromium of this machine is, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser(**options: Any) -> Iterator[Any]:
    """A context of a fresh headless browser, as Playwright calls it.

    Args:
        options: of Playwright's ``launch_persistent_context``: viewport, color_scheme and so on.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - a test may be skipped for want of it

    with tempfile.TemporaryDirectory(prefix="fleet-browser-") as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=browser_path(), headless=True, args=list(FLAGS), **options
        )
        try:
            yield context
        finally:
            context.close()


def shrink(path: Path) -> int:
    """Write a PNG anew with as few colours and bytes as it needs, and return its size."""
    from PIL import Image  # noqa: PLC0415 - comes with the sample photographs

    with Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    return path.stat().st_size


def telling(page: Any) -> bool:
    """Whether the frame on the page woke the hub up, was answered by it, and rightly."""
    found = page.evaluate(
        "['group', 'who', 'verdict'].map((id) => document.getElementById(id).textContent)"
        ".concat(document.querySelectorAll('#timeline .run, #timeline .notice').length)"
    )
    return found[0] != "none" and found[1].startswith("hub") and found[2] == "right" and found[3] > 1


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=25.0, help="how long the run is looked at")
    parser.add_argument("--size", default="1280x800")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--whole", action="store_true", help="the whole page, not only what fits the window")
    words, more = parser.parse_known_args()  # the rest is for `fleet up`
    if browser_path() is None:
        print("there is no chromium here: apt-get install chromium", file=sys.stderr)  # noqa: T201
        return 2
    width, height = map(int, words.size.split("x"))
    command = [sys.executable, "-m", "fleet", "up", "--source", "photos", "--view-port", "0", *more]
    environment = {**os.environ, "CI": "true"}  # no browser of its own
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as stack:
        try:
            assert stack.stdout is not None
            url = next(found[1] for line in stack.stdout if (found := re.match(r"view: (\S+)", line)))
            scheme = "dark" if words.dark else "light"
            with browser(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
                page = context.new_page()
                # Without a graphics card a browser takes as much of the processor as the nodes: it looks briefly.
                page.wait_for_timeout(words.seconds * 1000)
                page.goto(url)
                page.wait_for_selector("#events img:not([hidden])", timeout=60_000)
                page.wait_for_timeout(2000)
                while not telling(page):  # of all frames one that shows what the page is for
                    page.wait_for_timeout(20)
                page.screenshot(path=words.output, full_page=words.whole)
        finally:
            stack.terminate()
            stack.communicate(timeout=10)
    size = shrink(words.output)
    picture = cv2.imread(str(words.output))
    print(f"{words.output}: {picture.shape[1]}x{picture.shape[0]}, {size} bytes")  # noqa: T201
    return 0 if size < MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
