# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: what it shows, that it finds its server again, and that no name is ever run."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from told_frames import FACTS, LINK, START, FilledFeed, answer, live_through

from fleet.view.journey import Answer, Report, StageDone
from fleet.view.state import CameraView, Facts

HOSTILE = '"><img src=x onerror="window.owned=1"><script>window.owned=1</script>'


@pytest.fixture
def porch(photograph) -> CameraView:
    """A camera that has seen thirty frames."""
    view = CameraView(FACTS)
    view.on_link(LINK, connected=True)
    for k in range(30):
        said = answer(by="device") if k % 5 == 4 else answer(stage=1 + k % 3)
        view.on_picture(live_through(view, k, START + k, said), photograph)
    return view


def test_it_shows_the_frame_its_timeline_the_others_and_the_events(serve, look, porch):
    feed = FilledFeed(porch=porch)
    feed.now = START + 30
    _, url, _ = serve(feed)
    seen = look(url)
    seen.wait_for("document.querySelector('#picture').naturalWidth > 0")
    seen.wait_for("document.querySelector('#events img')?.naturalWidth > 0")
    assert seen.text("#group").lower() == "pet"
    assert seen.text("#who") == "the device itself"
    assert seen.text("#verdict") == "right"
    assert "CI 10 ms" in seen.text("#chips")
    for lane in ("Device", "Radio", "Hub"):
        assert lane in seen.page.text_content("#timeline")
    assert seen.page.locator("#timeline .block").count() == 3
    assert seen.page.locator("#timeline .packet").count() == 3
    assert seen.page.locator("#timeline .packet.lost").count() == 1
    assert seen.page.locator("#timeline .run").count() == 1
    assert seen.page.locator("#timeline .threshold").count() == 1
    assert seen.page.locator("#exits .bar").count() == 4  # three exits and the device
    assert seen.page.locator("#comparison .row").count() == 6
    assert "not known" not in seen.text("#comparison")
    assert seen.page.locator("#recent .hit").count() == 30
    assert seen.page.locator("#events li").count() == 1
    seen.page.click("summary")
    assert "64×64 pixels, quality 75" in seen.text("#conditions")
    assert not seen.complaints
    assert {urlsplit(asked).netloc for asked in seen.asked} == {urlsplit(url).netloc}


def test_an_older_frame_can_be_held_and_let_go(serve, look, porch):
    feed = FilledFeed(porch=porch)
    feed.now = START + 30
    _, url, _ = serve(feed)
    seen = look(url)
    seen.wait_for("document.querySelectorAll('#recent .hit').length === 30")
    # The browser's own click: a page under way may draw the bar anew between looking for it and pressing it.
    seen.page.evaluate("document.querySelectorAll('#recent .hit')[7].dispatchEvent(new MouseEvent('click'))")
    seen.wait_for("document.querySelector('#frame-facts').textContent.startsWith('#7 ')")
    seen.page.click("#unpin")
    seen.wait_for("document.querySelector('#frame-facts').textContent.startsWith('#29 ')")
    seen.page.click("#pause")
    assert seen.page.get_attribute("#pause", "aria-pressed") == "true"
    assert not seen.complaints


def test_names_from_the_air_and_from_files_are_only_ever_text(serve, look, photograph):
    conditions = {"model": HOSTILE, "source": HOSTILE, "codec": HOSTILE, "description": HOSTILE}
    view = CameraView(Facts(exit_stages=3, input_size=64, profile=FACTS.profile, conditions=conditions))
    view.on_link(LINK, connected=True)
    said = Answer(HOSTILE, HOSTILE, 0.9, "hub", 2)
    for k in range(3):
        view.on_stage(k, f"{k}.0", START + k, StageDone(1, START + k + 0.004, 1, 20))
        view.on_notice(k, START + k + 0.02)
        view.on_label(k, f"{k}.0", START + k, said, START + k + 0.02)
        report = Report(said, 0.02, 0.02, 1.0, 0.1, 1, 1, 0, 20, HOSTILE, HOSTILE)
        view.on_report(k, f"{k}.0", START + k, report, START + k + 0.03)
        view.on_picture(f"{k}.0", photograph)
    feed = FilledFeed(**{HOSTILE: view, "javascript:window.owned=1": CameraView(Facts())})
    feed.now = START + 3
    _, url, _ = serve(feed)
    seen = look(url)
    seen.wait_for("document.querySelector('#events img')?.naturalWidth > 0")
    assert HOSTILE in seen.page.text_content("#group")
    assert HOSTILE in seen.page.text_content("#frame-facts")
    assert HOSTILE in seen.page.text_content("#cameras")
    assert HOSTILE in seen.page.text_content("#events")
    assert HOSTILE in seen.page.get_attribute("#picture", "alt")
    assert seen.page.locator("main script, main [onerror], nav script").count() == 0
    seen.page.click("#cameras button:nth-child(2)")
    seen.wait_for("document.querySelector('#status').textContent === 'waiting for the first frame'")
    assert seen.page.evaluate("window.owned") is None
    assert not seen.complaints


def test_what_is_not_known_is_said_to_be_so(serve, look):
    # The hub of a real radio: labels and packets, and no device, platform or picture.
    view = CameraView(Facts())
    view.on_link(LINK.replace(transport="bleak"), connected=True)
    for k in range(3):
        view.on_packet(k, f"{k}.0", START + k, 2, 200, START + k + 0.02)
        view.on_label(k, f"{k}.0", START + k, answer(stage=2), START + k + 0.03)
    feed = FilledFeed(porch=view)
    feed.now = START + 20
    _, url, _ = serve(feed)
    seen = look(url)
    seen.wait_for("document.querySelectorAll('#timeline .packet').length === 1")
    assert "not heard here" in seen.page.text_content("#timeline")
    assert "not seen here" in seen.page.text_content("#timeline")
    assert seen.text("#comparison").count("not known") == 4
    assert seen.page.is_visible("#no-picture")
    assert seen.page.locator("#exits .bar").count() == 3
    assert not seen.complaints


def test_a_page_finds_its_server_again_and_begins_anew(serve, look, porch, photograph):
    feed = FilledFeed(porch=porch)
    feed.now = START + 30
    server, url, _ = serve(feed)
    seen, other = look(url), look(url)
    seen.wait_for("document.querySelector('#frame-facts').textContent.startsWith('#29 ')")
    server.stop()
    seen.wait_for("document.querySelector('#status').dataset.state === 'lost'")
    fresh = CameraView(FACTS)
    fresh.on_link(LINK, connected=True)
    fresh.on_picture(live_through(fresh, 500, START), photograph)
    again = FilledFeed(porch=fresh)
    again.now = START + 1
    serve(again, port=urlsplit(url).port)
    for page in (seen, other):
        page.wait_for("document.querySelector('#frame-facts').textContent.startsWith('#500 ')")
        page.wait_for("document.querySelector('#status').dataset.state === 'live'")
        page.wait_for("document.querySelectorAll('#events li').length === 1")


def test_the_page_of_an_hour_is_no_larger_than_that_of_a_minute(serve, look, porch, photograph):
    feed = FilledFeed(porch=porch)
    _, url, _ = serve(feed)
    seen = look(url)
    groups = ("pet", "vehicle", "animal")

    def live(first: int, count: int) -> int:
        """Elements of the page after so many frames."""
        for k in range(first, first + count):
            view_at = START + 5 * k
            porch.on_picture(live_through(porch, k, view_at, answer(group=groups[k % 3])), photograph)
            feed.now = view_at + 1
        seen.wait_for(f"document.querySelector('#frame-facts').textContent.startsWith('#{first + count - 1} ')")
        return seen.page.evaluate("document.querySelectorAll('*').length")

    assert live(5000, 200) * 1.02 >= live(5200, 1500)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_nothing_sticks_out_of_a_screen(serve, look, porch, width, scheme):
    feed = FilledFeed(porch=porch)
    feed.now = START + 30
    _, url, _ = serve(feed)
    seen = look(url, viewport={"width": width, "height": 800}, color_scheme=scheme)
    seen.wait_for("document.querySelectorAll('#timeline .block').length > 0")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    dark = seen.page.evaluate(
        "getComputedStyle(document.body).colorScheme || getComputedStyle(document.documentElement).colorScheme"
    )
    assert scheme in dark
