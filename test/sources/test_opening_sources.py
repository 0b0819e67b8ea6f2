# SPDX-License-Identifier: Apache-2.0
"""What may stand behind --source, and what is said when it may not."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from source_files import encoded, picture, refusal

from fleet.errors import FleetError
from fleet.sources import camera, open_source
from fleet.sources.live import LiveSource, Sample


@pytest.fixture
def devices(tmp_path, monkeypatch):
    """An empty directory in place of /dev, on Linux whatever this machine is."""
    folder = tmp_path / "dev"
    folder.mkdir()
    monkeypatch.setattr(camera, "DEVICES", folder)
    monkeypatch.setattr(camera.sys, "platform", "linux")
    return folder


class Working:
    finite = False

    def grab(self, stop):
        stop.wait(0.01)
        return Sample(np.zeros((2, 2, 3), np.uint8), "", 0.0)

    def close(self) -> None:
        pass


def test_without_a_camera_auto_shows_the_photographs_and_says_why(devices, capfd):
    before = time.monotonic()
    source = open_source("auto")

    assert time.monotonic() - before < 1.0
    assert source.description.startswith("photos")
    assert "no camera" in source.description
    assert source.read().image.shape[2] == 3
    assert capfd.readouterr() == ("", "")


def test_auto_takes_the_first_camera_that_works(devices, monkeypatch):
    for name in ("video0", "video2", "video10", "videos"):
        (devices / name).touch()

    def open_(index, resolution):
        if index == 0:
            msg = "camera 0 is busy"
            raise FleetError(msg)
        assert resolution == (320, 240)
        return Working()

    monkeypatch.setattr(camera, "_open", open_)
    with open_source("auto", resolution=(320, 240)) as source:
        assert source.description == "camera 2 (the first camera that gives a picture)"
        assert source.live
        assert source.read(5) is not None


def test_auto_passes_over_devices_that_are_no_cameras(devices, capfd):
    (devices / "video0").write_text("no camera")

    source = open_source("auto")

    assert source.description.startswith("photos")
    assert capfd.readouterr() == ("", "")


def test_a_camera_that_is_not_there_is_refused_with_those_that_are(devices):
    (devices / "video1").touch()

    assert refusal(open_source, "0").startswith("camera 0 is not there; cameras found: 1")
    assert "/dev/video77 is not there" in refusal(open_source, "/dev/video77")


def test_a_device_that_is_no_camera_is_refused():
    assert "is not a camera" in refusal(open_source, "/dev/null")


@pytest.mark.parametrize("spec", ["ros:/camera/image", "ros:image"])
def test_a_ros_topic_is_left_to_the_device_node(spec):
    assert "only the device node can read it" in refusal(open_source, spec)


@pytest.mark.parametrize("spec", ["", "  ", "a\0b"])
def test_nothing_is_no_source(spec):
    assert "use auto, photos" in refusal(open_source, spec)


def test_schemes_that_nobody_reads_are_refused():
    assert "file:// addresses" in refusal(open_source, "file:///etc/passwd")


def test_files_that_are_no_source_are_refused(tmp_path, capfd):
    cases = {
        "absent.png": (None, "there is no file"),
        "empty.png": (b"", "empty (0 bytes)"),
        "empty.mp4": (b"", "empty (0 bytes)"),
        "empty.tar.gz": (b"", "empty (0 bytes)"),
        "notes.txt": (b"dear diary\n", "text file"),
        "photo.jpg": (b"dear diary\n", "text file"),
        "data.bin": (bytes(range(256)) * 8, "not an image"),
        "broken.png": (encoded(picture())[:60], "is damaged"),
    }
    for name, (content, said) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        message = refusal(open_source, str(tmp_path / name))
        assert name in message
        assert said in message
    assert capfd.readouterr() == ("", "")


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture()))

    def denied(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)

    assert refusal(open_source, str(path)) == f"cannot read {path}: permission denied"


def test_an_absurd_resolution_is_refused():
    for resolution in ((0, 480), (640, -1), (10**6, 1)):
        assert "a resolution is" in refusal(open_source, "photos", resolution=resolution)


def test_importing_the_sources_loads_neither_opencv_nor_scikit_image():
    code = "import sys, fleet.sources; sys.exit(any(name in sys.modules for name in ('cv2', 'skimage', 'torch')))"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_missing_opencv_is_one_line(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture()))
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from fleet.errors import FleetError; from fleet.sources import open_source\n"
        f"try: open_source({str(path)!r})\n"
        "except FleetError as err: print(err)"
    )

    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)

    assert "pip install opencv-python-headless" in done.stdout


def test_every_source_is_a_context_manager(devices, monkeypatch, tmp_path):
    (devices / "video0").touch()
    monkeypatch.setattr(camera, "_open", lambda index, resolution: Working())
    (tmp_path / "a.png").write_bytes(encoded(picture()))

    for spec in ("0", "photos", str(tmp_path / "a.png"), str(tmp_path)):
        with open_source(spec) as source:
            assert isinstance(source.live, bool)
            assert source.live == isinstance(source, LiveSource)
            assert source.skipped == 0
        assert source.read(1) is None
