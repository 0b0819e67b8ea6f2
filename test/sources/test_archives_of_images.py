# SPDX-License-Identifier: Apache-2.0
"""Tar archives: streamed, labelled by folder, and harmless whatever is in them."""

import gzip
import io
import re
import tarfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_files import archive, drain, encoded, picture, refusal

from fleet.errors import FleetError
from fleet.sources import archive as archive_module
from fleet.sources import open_source

PNG = encoded(picture())


def with_headers(path, *headers: tarfile.TarInfo):
    """An archive of bare headers, then one good image."""
    with tarfile.open(path, "w") as tar:
        for info in headers:
            tar.addfile(info, None if info.size == 0 or not info.isreg() else io.BytesIO(b"\0" * info.size))
        good = tarfile.TarInfo("good.png")
        good.size = len(PNG)
        tar.addfile(good, io.BytesIO(PNG))
    return path


def info(name, **values) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a", "w:gz")])
def test_members_come_in_the_archives_order_with_their_folder_as_truth(tmp_path, name, mode):
    members = {
        "n02/x.png": PNG,
        "n01/y.png": encoded(picture(1)),
        "./n01/z.png": PNG,
        "readme.txt": b"x",
        "top.png": PNG,
    }
    path = archive(tmp_path / name, members, mode)

    frames = drain(open_source(str(path)))

    assert [(f.name, f.truth) for f in frames] == [
        ("n02/x.png", "n02"),
        ("n01/y.png", "n01"),
        ("n01/z.png", "n01"),
        ("top.png", None),
    ]
    assert np.array_equal(frames[1].image, picture(1))
    assert [entry.name for entry in tmp_path.iterdir()] == [name]  # nothing was unpacked


def test_an_archive_can_be_read_round_and_round(tmp_path):
    path = archive(tmp_path / "a.tar.gz", {"a.png": PNG, "b.png": PNG})

    with open_source(str(path), loop=True) as source:
        assert [source.read().name for _ in range(5)] == ["a.png", "b.png", "a.png", "b.png", "a.png"]


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read_in_every_dialect(tmp_path, format_):
    name = f"n01/{'d' * 60}/{'x' * 90}.png"
    with tarfile.open(tmp_path / "a.tar", "w", format=format_) as tar:
        tar.addfile(info(name, size=len(PNG)), io.BytesIO(PNG))

    (frame,) = drain(open_source(str(tmp_path / "a.tar")))

    assert frame.truth == "d" * 60


def test_an_unreadable_image_is_stepped_over_with_one_line_that_names_it(tmp_path):
    path = archive(tmp_path / "a.tar", {"n/a.png": PNG, "n/bad.jpg": b"oops", "n/c.png": PNG}, "w")
    lines = []

    source = open_source(str(path), on_skip=lines.append)
    frames = drain(source)

    assert [f.name for f in frames] == ["n/a.png", "n/c.png"]
    assert len(lines) == source.skipped == 1
    assert "n/bad.jpg" in lines[0]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (info("/etc/evil.png"), "leads out"),
        (info("../../evil.png"), "leads out"),
        (info("evil.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link"),
        (info("evil.png", type=tarfile.LNKTYPE, linkname="/etc/passwd"), "a link"),
        (info("evil.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5), "a device"),
        (info("evil.png", type=tarfile.FIFOTYPE), "a device"),
        (info("evil\x1b[31m.png", size=3), "not an image"),
    ],
)
def test_hostile_members_are_stepped_over_with_a_line(tmp_path, header, said):
    path = with_headers(tmp_path / "a.tar", header)
    lines = []

    frames = drain(open_source(str(path), on_skip=lines.append))

    assert [f.name for f in frames] == ["good.png"]
    assert len(lines) == 1
    assert "evil" in lines[0]
    assert said in lines[0]
    assert lines[0].isprintable()


@pytest.mark.parametrize("packed", [False, True])
def test_a_member_that_is_too_large_is_stepped_over_without_being_read(tmp_path, packed, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_FILE_BYTES", 10_000)
    path = archive(tmp_path / "a", {"big.png": b"\0" * 10_001, "good.png": PNG}, "w:gz" if packed else "w")
    lines = []

    assert [f.name for f in drain(open_source(str(path), on_skip=lines.append))] == ["good.png"]
    assert "big.png" in lines[0]
    assert "10001 bytes" in lines[0]


def test_a_compression_bomb_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "FREE_EXPANSION", 1 << 20)
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb") as packed:
        packed.write(info("huge.png", size=1 << 33).tobuf())
        packed.write(b"\0" * (16 << 20))

    assert "unpacks to more than 200 times" in refusal(open_source, str(path))


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(info("x", type=tarfile.XHDTYPE, size=1 << 32).tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096)

    assert "header is too long" in refusal(open_source, str(path))


def test_a_negative_size_does_not_go_round_for_ever(tmp_path):
    good = info("a.png", size=len(PNG)).tobuf() + PNG + b"\0" * (-len(PNG) % 512)
    evil = bytearray(info("b.png", size=0).tobuf(tarfile.GNU_FORMAT))
    evil[124:136] = b"\xff" + (-4096).to_bytes(11, "big", signed=True)
    evil[148:156] = b" " * 8
    evil[148:156] = b"%06o\0 " % sum(evil)
    path = tmp_path / "a.tar"
    path.write_bytes(good + bytes(evil) + b"\0" * 1024)

    source = open_source(str(path))

    assert source.read().name == "a.png"
    assert "damaged after 1 image" in refusal(source.read)
    assert source.read() is None


def test_a_chain_of_headers_is_given_up(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(info("x", type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT) * 5000)

    assert "not a usable tar" in refusal(open_source, str(path))


def test_what_is_no_tar_is_refused(tmp_path):
    for name, content in {
        "text.tar": b"hello\n" * 200,
        "text.tar.gz": b"hello\n" * 200,
        "packed.tar.gz": gzip.compress(b"hello\n" * 200),
        "nothing.tgz": gzip.compress(b""),
        "half.tar.gz": b"\x1f\x8b\x08\0",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert "tar" in refusal(open_source, str(tmp_path / name))
    for name, content in {
        "a.zip": b"PK\x03\x04" + b"\0" * 99,
        "a.tar.bz2": b"BZh91AY",
        "a.tar.xz": b"\xfd7zXZ\0",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert "only .tar and .tar.gz" in refusal(open_source, str(tmp_path / name))


def test_archives_without_a_readable_image_are_refused(tmp_path):
    empty = archive(tmp_path / "empty.tar", {}, "w")
    texts = archive(tmp_path / "texts.tar.gz", {"a.txt": b"x"})
    bad = archive(tmp_path / "bad.tar.gz", {"n/a.png": b"x", "n/b.jpg": b""})

    assert "no image in it" in refusal(open_source, str(empty))
    assert "no image in it" in refusal(open_source, str(texts))
    assert "none of its 2 images can be read (n/a.png" in refusal(open_source, str(bad))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_cut_off_archive_gives_its_whole_images_and_then_says_so(tmp_path, mode):
    noise = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
    path = archive(tmp_path / "a", {f"{n}.png": encoded(noise[n]) for n in range(8)}, mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(str(path))

    assert [source.read().name for _ in range(3)] == ["0.png", "1.png", "2.png"]
    assert re.search(r"damaged after [34] images: it is cut short", refusal(lambda: [source.read(), source.read()]))


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path):
    path = archive(tmp_path / "a.tar", {"a.png": PNG, "b.png": PNG}, "w")
    content = bytearray(path.read_bytes())
    second = 512 + (len(PNG) + 511) // 512 * 512
    content[second : second + 20] = b"?" * 20
    path.write_bytes(content)
    source = open_source(str(path))

    assert source.read().name == "a.png"
    assert "header is damaged" in refusal(source.read)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(0, 4000),
    junk=st.binary(min_size=1, max_size=40),
    cut=st.integers(1, 6000),
    packed=st.booleans(),
)
def test_no_damage_raises_anything_but_one_clear_line(tmp_path, place, junk, cut, packed):
    path = archive(tmp_path / "a", {"n/a.png": PNG, "n/b.png": PNG}, "w:gz" if packed else "w")
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place : place + len(junk)] = junk
    path.write_bytes(content[:cut])

    try:
        drain(open_source(str(path)))
    except FleetError as err:
        assert str(err).isprintable()  # noqa: PT017 - most examples are expected not to raise


@pytest.mark.data
def test_the_evaluation_images_can_be_read(data):
    with open_source(str(data / "tiny-imagenet-100" / "val.tar.gz")) as source:
        frames = [source.read() for _ in range(200)]

    assert {frame.image.shape for frame in frames} == {(64, 64, 3)}
    assert len({frame.truth for frame in frames}) > 50
    assert all(frame.truth.startswith("n0") or frame.truth.startswith("n1") for frame in frames)
