# SPDX-License-Identifier: Apache-2.0
"""Video files: every frame when pulled, the newest one when played in place of a camera."""

import itertools
import queue

import numpy as np
import pytest
from source_files import drain, encoded, film, picture, refusal

from fleet.sources import open_source


def level(frame) -> int:
    """Which frame of ``film`` this is."""
    return round(float(frame.image.mean()) / 20)


def test_a_pulled_film_gives_every_frame_with_its_time(tmp_path):
    path = film(tmp_path / "yard.avi", frames=10, fps=50)

    source = open_source(str(path), realtime=False)
    frames = drain(source)

    assert not source.live
    assert [level(f) for f in frames] == list(range(10))
    assert [f.captured for f in frames] == pytest.approx([n / 50 for n in range(10)])
    assert [f.name for f in frames[:2]] == ["yard.avi#0", "yard.avi#1"]
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image.dtype == np.uint8


def test_a_pulled_film_can_go_round(tmp_path):
    path = film(tmp_path / "yard.avi", frames=3)

    with open_source(str(path), realtime=False, loop=True) as source:
        assert [level(source.read()) for _ in range(8)] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_a_played_film_is_live_keeps_its_pace_and_ends(tmp_path):
    path = film(tmp_path / "yard.avi", frames=12, fps=60)

    source = open_source(str(path))
    frames = drain(source)

    levels = [level(f) for f in frames]
    assert source.live
    assert levels[0] == 0  # the beginning waits for the first reader
    assert levels == sorted(set(levels))
    assert [f.captured for f in frames] == pytest.approx([n / 60 for n in levels])


def test_a_played_film_does_not_wait_for_a_slow_reader(tmp_path):
    path = film(tmp_path / "yard.avi", frames=12, fps=100)
    source = open_source(str(path))

    assert level(source.read(5)) == 0
    source._thread.join(10)  # read nothing until the film is over

    assert level(source.read(5)) == 11
    assert source.read(5) is None


def test_a_played_film_goes_round(tmp_path):
    path = film(tmp_path / "yard.avi", frames=3, fps=200)

    with open_source(str(path), loop=True) as source:
        levels = [level(source.read(5)) for _ in range(8)]

    assert any(b < a for a, b in itertools.pairwise(levels))


def test_what_is_no_film_is_refused(tmp_path, capfd):
    cases = {
        "text.avi": b"these are words\n" * 100,
        "noise.mp4": bytes(range(256)) * 20,
        "list.avi": b"#EXTM3U\n/etc/passwd\n",
        "header.avi": b"RIFF\0\0\0\0AVI LIST" + b"\0" * 600,
        "zero.mp4": b"\0" * 2000,
        "half.mp4": film(tmp_path / "whole.mp4", codec="mp4v").read_bytes()[:900],
    }
    for realtime, (name, content) in itertools.product([True, False], cases.items()):
        path = tmp_path / name
        path.write_bytes(content)
        assert name in refusal(open_source, str(path), realtime=realtime)
    assert capfd.readouterr().err == ""


def test_a_film_that_breaks_off_says_so(tmp_path, capfd):
    path = film(tmp_path / "yard.avi", frames=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    lines = []

    source = open_source(str(path), realtime=False, on_skip=lines.append)
    frames = drain(source)

    assert 0 < len(frames) < 40
    assert lines == [f"video {path} ends after {len(frames)} of 40 frames"]
    assert source.skipped == 1
    assert capfd.readouterr().err == ""


def test_a_film_without_an_ending_in_its_name_is_recognised(tmp_path):
    path = film(tmp_path / "yard.avi", frames=2)
    bare = path.rename(tmp_path / "yard")

    assert len(drain(open_source(str(bare), realtime=False))) == 2


def test_an_image_that_is_called_a_film_is_one_frame(tmp_path):
    path = tmp_path / "cat.avi"
    path.write_bytes(encoded(picture(), ".jpg"))

    assert len(drain(open_source(str(path), realtime=False))) == 1


@pytest.mark.parametrize("realtime", [True, False])
def test_closing_a_film_ends_it(tmp_path, realtime):
    source = open_source(str(film(tmp_path / "yard.avi")), realtime=realtime)

    source.close()
    source.close()

    assert source.read(5) is None


def test_a_film_that_goes_round_waits_for_its_file_where_that_is_away(tmp_path, monkeypatch):
    monkeypatch.setattr("fleet.sources.live.FIRST_RETRY_S", 0.01)
    path = film(tmp_path / "yard.avi", frames=3)
    lines: queue.Queue = queue.Queue()
    with open_source(str(path), loop=True, on_skip=lines.put) as source:
        assert level(source.read(5)) == 0
        path.rename(tmp_path / "away")
        assert lines.get(timeout=5).endswith("yard.avi went away, trying again")
        (tmp_path / "away").rename(path)
        assert lines.get(timeout=5).endswith("yard.avi is back")
        assert source.read(5) is not None
