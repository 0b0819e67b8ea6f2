# SPDX-License-Identifier: Apache-2.0
"""Image files and directories of them."""

import os
import threading

import numpy as np
import pytest
from source_files import drain, encoded, picture, refusal

from fleet.sources import open_source


def write(root, names):
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(seed)))
    return root


def test_an_image_file_gives_one_frame(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(encoded(picture()))

    (frame,) = drain(open_source(str(path)))

    assert np.array_equal(frame.image, picture())
    assert (frame.name, frame.truth, frame.captured) == ("cat.png", None, None)


def test_files_come_in_sorted_order_with_their_folder_as_truth(tmp_path):
    write(tmp_path, ["dog/2.png", "cat/b.png", "cat/a.png", "zebra.png", "train/n01/images/x.png"])

    frames = drain(open_source(str(tmp_path)))

    assert [(f.name, f.truth) for f in frames] == [
        ("cat/a.png", "cat"),
        ("cat/b.png", "cat"),
        ("dog/2.png", "dog"),
        ("train/n01/images/x.png", "n01"),
        ("zebra.png", None),
    ]


def test_a_source_that_loops_begins_again_and_reports_a_bad_image_once(tmp_path):
    write(tmp_path, ["a.png", "c.png"])
    (tmp_path / "b.png").write_bytes(b"not a picture")
    lines = []

    with open_source(str(tmp_path), loop=True, on_skip=lines.append) as source:
        names = [source.read().name for _ in range(5)]

    assert names == ["a.png", "c.png", "a.png", "c.png", "a.png"]
    assert len(lines) == source.skipped == 1
    assert "b.png" in lines[0]
    assert "\n" not in lines[0]


def test_other_files_and_hidden_ones_are_passed_over_in_silence(tmp_path):
    write(tmp_path, ["a.png"])
    for name in ("classes.tsv", ".a.png", "._a.png"):
        (tmp_path / name).write_text("x")
    lines = []

    assert [f.name for f in drain(open_source(str(tmp_path), on_skip=lines.append))] == ["a.png"]
    assert lines == []


def test_links_that_go_round_in_circles_do_no_harm(tmp_path):
    write(tmp_path, ["cat/a.png"])
    (tmp_path / "cat" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere")
    lines = []

    assert [f.name for f in drain(open_source(str(tmp_path), on_skip=lines.append))] == ["cat/a.png"]
    assert "gone.png" in lines[0]


def test_a_pipe_among_the_images_is_stepped_over(tmp_path):
    write(tmp_path, ["a.png"])
    os.mkfifo(tmp_path / "b.png")
    lines = []

    assert len(drain(open_source(str(tmp_path), on_skip=lines.append))) == 1
    assert "not a regular file" in lines[0]


def test_a_directory_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    write(tmp_path, ["cat/a.png", "dog/a.png"])
    real = os.scandir

    def scandir(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    lines = []

    assert [f.name for f in drain(open_source(str(tmp_path), on_skip=lines.append))] == ["dog/a.png"]
    assert "cat" in lines[0]
    assert "permission denied" in lines[0]
    assert "permission denied" in refusal(open_source, str(tmp_path / "cat"))


def test_directories_without_anything_to_show_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"x")
    (tmp_path / "bad" / "b.png").write_bytes(b"")

    assert "empty" in refusal(open_source, str(tmp_path / "empty"))
    assert "no image in it" in refusal(open_source, str(tmp_path / "texts"))
    message = refusal(open_source, str(tmp_path / "bad"))
    assert "none of its 2 images can be read" in message
    assert "a.png" in message


def test_many_bad_images_do_not_flood_the_terminal(tmp_path):
    write(tmp_path, ["z.png"])
    for n in range(60):
        (tmp_path / f"{n:02}.png").write_bytes(b"x")
    lines = []

    source = open_source(str(tmp_path), on_skip=lines.append)

    assert source.skipped == 60
    assert len(lines) == 21


def test_names_from_outside_cannot_play_tricks_on_the_terminal(tmp_path):
    write(tmp_path, ["ok.png"])
    (tmp_path / "a\x1b[2J\nb.png").write_bytes(b"x")
    lines = []

    open_source(str(tmp_path), on_skip=lines.append).close()

    assert lines[0].isprintable()


def test_reading_ends_when_another_thread_closes(tmp_path):
    write(tmp_path, ["a.png", "b.png"])
    source = open_source(str(tmp_path), loop=True)
    read_some = threading.Event()

    def close():
        read_some.wait(10)
        source.close()

    closer = threading.Thread(target=close)
    closer.start()
    count = 0
    while source.read() is not None:
        count += 1
        read_some.set()
    closer.join(10)

    assert count >= 1
    assert source.read() is None


@pytest.mark.parametrize("close_twice", [False, True])
def test_closing_from_the_report_of_a_bad_image_is_safe(tmp_path, close_twice):
    write(tmp_path, ["a.png", "c.png"])
    (tmp_path / "b.png").write_bytes(b"x")
    source = open_source(str(tmp_path), on_skip=lambda _line: source.close())

    assert source.read().name == "a.png"
    assert source.read() is None
    if close_twice:
        source.close()
