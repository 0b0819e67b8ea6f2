# SPDX-License-Identifier: Apache-2.0
"""``fleet up --view``: the real stack on a page in a real browser."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import time
import urllib.request
from pathlib import Path
from types import ModuleType

import psutil
import pytest

pytestmark = pytest.mark.ros
pytest.importorskip("aiohttp", reason="the live view's server (aiohttp) is not installed")

ROOT = Path(__file__).resolve().parents[2]
VIEW = ("--view-port", "0")


@pytest.fixture(scope="module")
def live_view() -> ModuleType:
    """The tool that takes the page's picture; it knows how to start a browser."""
    spec = importlib.util.spec_from_file_location("live_view_tool", ROOT / "tools" / "live_view.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def address(stack) -> str:
    return stack.wait_for_line(lambda line: line.startswith("view: ")).removeprefix("view: ")


def state_of(url: str) -> dict:
    with urllib.request.urlopen(url + "state", timeout=10) as answer:
        return json.loads(answer.read())


def wait_for_state(stack, url: str, wanted, what: str, deadline: float = 60.0) -> dict:
    end = time.monotonic() + deadline
    while not wanted(state := state_of(url)):
        assert time.monotonic() < end, (
            f"never {what}; state {json.dumps(state)[:2000]}; the stack said:\n{stack.output}"
        )
        assert stack.process.poll() is None, stack.output
        time.sleep(0.05)  # asked without a pause, the view takes a core from the nodes
    return state


def test_the_page_shows_what_the_real_stack_does(fleet_up, live_view, monkeypatch):
    pytest.importorskip("playwright", reason="playwright is not installed: it drives the browser")
    if live_view.browser_path() is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    monkeypatch.setenv("CI", "true")  # or it would open a browser of its own
    stack = fleet_up("--source", "photos", "--view", *VIEW, "--duration", "0", model="backyard")
    url = address(stack)
    complaints: list[str] = []
    with live_view.browser(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda err: complaints.append(str(err)))
        page.set_default_timeout(60_000)
        page.goto(url)
        page.wait_for_selector("#picture:not([hidden])")
        page.wait_for_selector("#events img:not([hidden])")  # the cat or the motorcycle
        # All lanes of one frame: what the device ran, what the radio carried, what the hub ran and found.
        for shape in (".block.s0", ".packet", ".wake", ".run", ".threshold", ".answer"):
            page.wait_for_selector(f"#timeline {shape}", state="attached")
        page.wait_for_selector("#exits .bar >> nth=8", state="attached")  # eight exits and the device
        page.wait_for_selector("#recent .bar >> nth=5", state="attached")
        assert page.inner_text("#group").lower() in ("vehicle", "pet", "animal", "none")
        assert re.fullmatch(r"(hub, exit \d|the device itself)", page.inner_text("#who"))
        assert re.search(r"#\d+ · [\d.]+ ms · \d+ packets", page.inner_text("#frame-facts"))
        page.wait_for_selector("#comparison .row:nth-child(4) output:not(.quiet)")
        assert page.inner_text("#comparison").count("not known") == 0
        assert page.inner_text("#status") == "live"
        assert "cortex-a77-500" in page.inner_text("#chips")
    assert not complaints
    told = state_of(url)
    assert told["conditions"]["source"] == "photos"
    assert told["comparison"]["rows"]["local"]["latency_ms"]["p50"] == pytest.approx(4 * 94.0, rel=0.1)
    assert told["comparison"]["jpeg_bytes"] > 500
    assert stack.interrupt() < 3.5
    assert stack.process.returncode == 0, stack.output
    assert "Traceback" not in stack.output


def test_times_on_the_page_fit_what_the_device_reports(fleet_up):
    stack = fleet_up("--source", "photos", *VIEW, "--link", "loss=0.3")
    url = address(stack)
    told = wait_for_state(stack, url, lambda s: s["totals"]["frames"] > 15 and s["totals"]["lost"], "fifteen frames")
    for entry in told["recent"][-10:]:
        with urllib.request.urlopen(f"{url}frames/{entry['seq']}", timeout=10) as answer:
            frame = json.loads(answer.read())
        done = [block for block in frame["stages"] if block["state"] == "done"]
        assert [block["n"] for block in done] == list(range(1, len(done) + 1))
        assert all(0 <= block["begin"] <= block["end"] for block in frame["stages"]), frame
        assert frame["held"] == pytest.approx(frame["report"]["latency_ms"], abs=0.01)
        sent = [packet for event in frame["events"] for packet in event["packets"]]
        # The account closes with the answer; what was on the air later is of the same frame all the same.
        assert len(sent) >= frame["report"]["packets"]
        every, first = frame["wake"]["every"], frame["wake"]["first"]
        for event in frame["events"]:
            off = (event["at"] - first) / every
            assert off == pytest.approx(round(off), abs=0.3), "an event is where the radio wakes up"
        for packet in sent:
            assert packet["end"] - packet["begin"] == pytest.approx(2.4, abs=2.4)


def test_looking_on_is_not_taken_for_a_hub(fleet_up):
    stack = fleet_up("--source", "photos", *VIEW, "--only", "bridge_node", "--only", "device_node")
    url = address(stack)
    told = wait_for_state(stack, url, lambda s: s["totals"]["frames"] > 3, "four frames")
    assert told["link"]["connected"] is False
    assert told["histogram"]["device"] == told["totals"]["frames"]
    assert "the hub is there" not in stack.output


def test_a_run_with_a_page_ends_when_it_should(fleet_up):
    stack = fleet_up("--source", "photos", *VIEW, "--duration", "2")
    url = address(stack)
    assert state_of(url)["cameras"] == ["backyard"]
    assert stack.finish() == 0, stack.output
    assert "Traceback" not in stack.output


def test_ctrl_c_ends_the_page_too(fleet_up):
    stack = fleet_up("--source", "photos", *VIEW)
    url = address(stack)
    children = psutil.Process(stack.process.pid).children(recursive=True)
    assert stack.interrupt() < 3.5
    assert stack.process.returncode == 0, stack.output
    assert "Traceback" not in stack.output
    assert not [child for child in children if child.is_running()]
    with pytest.raises(OSError, match=r"refused"):
        state_of(url)


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(fleet_up):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = fleet_up("--source", "photos", "--view-port", str(port))
        assert stack.finish() == 2, stack.output
    assert [line for line in stack.lines if "view" in line] == [
        f"view_node: port {port} is taken: give the view another one (fleet up --view-port, 0 takes any free one)"
    ]
    assert "Traceback" not in stack.output


def test_a_port_that_cannot_be_is_refused_before_anything_starts(fleet_up):
    stack = fleet_up("--source", "photos", "--view-port", "65536")
    assert stack.finish() == 2
    assert stack.lines == ["fleet: a port is a number from 0 to 65535, not 65536"]
