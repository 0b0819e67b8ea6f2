# SPDX-License-Identifier: Apache-2.0
"""A model's directory: what is sound loads, what is not is refused in one line that names the file."""

import copy
import hashlib
import json
import math
import os
import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.bundle import MANIFEST, Bundle, LocalExit, sha256_of
from fleet.errors import FleetError
from fleet.manifest import layout_from_manifest, layout_to_manifest


@pytest.fixture
def directory(small_bundle, tmp_path):
    """A bundle whose networks are a few bytes of nothing."""
    for name in ("cloud.safetensors", *(f for s in small_bundle.stages for f in s.files.values())):
        (tmp_path / name).write_bytes(b"weights of " + name.encode())
    replace(small_bundle, path=tmp_path).save({"licence": "none"})
    return tmp_path


@pytest.fixture(scope="session")
def shared_directory(small_bundle, tmp_path_factory):
    """The same for properties, which write their manifests beside it."""
    path = tmp_path_factory.mktemp("bundle")
    for name in ("cloud.safetensors", *(f for s in small_bundle.stages for f in s.files.values())):
        (path / name).write_bytes(b"weights of " + name.encode())
    replace(small_bundle, path=path).save({})
    return path


def manifest_of(directory):
    return json.loads((directory / MANIFEST).read_text())


def write(directory, manifest):
    (directory / MANIFEST).write_text(json.dumps(manifest))


def refused(directory):
    """The one line with which a bundle is refused."""
    with pytest.raises(FleetError) as problem:
        Bundle.load(directory)
    line = str(problem.value)
    assert "\n" not in line
    assert str(directory) in line
    return line


# What is sound ------------------------------------------------------------------------------------------------
def test_a_bundle_comes_back_as_it_was_saved(directory, small_bundle):
    loaded = Bundle.load(directory)
    assert replace(loaded, path=small_bundle.path, identity=small_bundle.identity, checksums={}) == small_bundle
    assert Bundle.load(str(directory)) == loaded


def test_the_identity_is_the_first_eight_bytes_of_the_manifest_s_sha256(directory):
    digest = hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest()
    assert Bundle.load(directory).identity.hex() == digest[:16]


def test_a_manifest_that_differs_in_one_threshold_is_another_bundle(directory):
    before = Bundle.load(directory)
    manifest = manifest_of(directory)
    manifest["decision"]["thresholds"]["3"] = 0.81
    write(directory, manifest)
    after = Bundle.load(directory)
    assert after.identity != before.identity
    assert after.decider.thresholds[3] == 0.81


def test_a_layout_comes_back_from_the_manifest(small_bundle):
    for stage, layout in small_bundle.layouts.items():
        assert layout_from_manifest(stage, json.loads(json.dumps(layout_to_manifest(layout)))) == layout


def test_a_key_that_a_newer_version_added_is_no_obstacle(directory):
    manifest = manifest_of(directory)
    manifest["teacher"] = "a larger network"
    write(directory, manifest)
    assert Bundle.load(directory).name == "small"


def test_saving_writes_the_notes_and_a_checksum_for_every_file(directory):
    manifest = manifest_of(directory)
    assert manifest["notes"] == {"licence": "none"}
    assert manifest["files"] == {p.name: sha256_of(p) for p in directory.iterdir() if p.name != MANIFEST}


def test_notes_are_read_back_and_survive_a_rewrite(directory):
    loaded = Bundle.load(directory)
    assert loaded.notes == {"licence": "none"}
    assert replace(loaded, name="other").save().notes == {"licence": "none"}
    assert manifest_of(directory)["notes"] == {"licence": "none"}
    assert [p.name for p in directory.glob("*.part")] == []


def test_an_exit_without_a_bound_on_its_threshold_survives_the_manifest(directory, small_bundle):
    decider = replace(small_bundle.decider, thresholds={1: math.inf})
    assert replace(small_bundle, path=directory, decider=decider).save({}).decider.thresholds == {1: math.inf}


def test_two_thresholds_an_exit_and_patience_survive_the_manifest(directory, small_bundle):
    decider = replace(small_bundle.decider, begun={0: (0.9, 0.8), 1: (0.7,), 2: (math.inf,)}, patient=True)
    again = replace(small_bundle, path=directory, decider=decider).save({}).decider
    assert (again.begun, again.patient) == ({0: (0.9, 0.8), 1: (0.7,), 2: (math.inf,)}, True)
    content = json.loads((directory / MANIFEST).read_text())
    assert content["decision"]["thresholds_begun"] == {"0": [0.9, 0.8], "1": 0.7, "2": math.inf}
    content["decision"]["patient"] = "yes"
    (directory / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(FleetError, match="patient must be true or false"):
        Bundle.load(directory)


@pytest.mark.parametrize("levels", [True, "0.5", None, [], [[0.5]], [0.5, "0.6"], [0.5] * 65, [math.nan]], ids=str)
def test_thresholds_of_begun_stages_that_are_no_numbers_are_refused_in_one_line(directory, levels):
    content = json.loads((directory / MANIFEST).read_text())
    content["decision"]["thresholds_begun"] = {"1": levels}
    (directory / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(FleetError) as caught:
        Bundle.load(directory)
    assert "\n" not in str(caught.value)


def test_the_files_of_a_precision_that_was_not_exported_are_named(directory):
    bundle = Bundle.load(directory)
    assert bundle.stage_path(bundle.stages[0], "float") == directory / "1.onnx"
    assert bundle.cloud_path == directory / "cloud.safetensors"
    with pytest.raises(FleetError, match="no int8 stages; it has: float"):
        bundle.stage_path(bundle.stages[0], "int8")


# What is missing or has changed -------------------------------------------------------------------------------
def test_a_directory_that_is_not_there_is_refused(tmp_path):
    assert "not a model bundle" in refused(tmp_path / "nowhere")


def test_a_directory_without_a_manifest_is_refused(tmp_path):
    assert "cannot read manifest.json (No such file or directory)" in refused(tmp_path)


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "model").write_text("")
    assert "not a model bundle" in refused(tmp_path / "model")


def test_a_directory_in_place_of_the_manifest_is_refused(tmp_path):
    (tmp_path / MANIFEST).mkdir()
    assert "not a model bundle" in refused(tmp_path)


@pytest.mark.parametrize("name", ["5.onnx", "10.onnx", "cloud.safetensors"])
def test_a_missing_file_is_named(directory, name):
    (directory / name).unlink()
    assert f"'{name}' cannot be read (No such file or directory)" in refused(directory)


@pytest.mark.parametrize("name", ["5.onnx", "cloud.safetensors"])
@pytest.mark.parametrize("at", [0, -1])
def test_a_file_with_one_flipped_bit_is_named(directory, name, at):
    data = bytearray((directory / name).read_bytes())
    data[at] ^= 1
    (directory / name).write_bytes(data)
    assert f"{name} is not the file that the manifest describes" in refused(directory)


def test_a_file_that_was_cut_short_is_named(directory):
    (directory / "2.onnx").write_bytes(b"")
    assert "2.onnx is not the file" in refused(directory)


def test_what_is_no_regular_file_is_not_waited_for(directory):
    (directory / "2.onnx").unlink()
    os.mkfifo(directory / "2.onnx")
    assert "2.onnx" in refused(directory)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "sub/1.onnx", "..\\secret", "..", ".", "", "a\0b", "C:\\1.onnx"], ids=repr
)
def test_a_name_that_leads_out_of_the_bundle_is_refused(directory, name):
    (directory.parent / "secret").write_bytes(b"secret")
    for key in ("cloud", "stage"):
        manifest = manifest_of(directory)
        manifest["files"][name] = hashlib.sha256(b"secret").hexdigest()
        if key == "cloud":
            manifest["cloud"] = name
        else:
            manifest["stages"][0]["files"]["float"] = name
        write(directory, manifest)
        refused(directory)


def test_a_file_without_a_checksum_is_refused(directory):
    manifest = manifest_of(directory)
    del manifest["files"]["3.onnx"]
    write(directory, manifest)
    assert "no checksum for '3.onnx'" in refused(directory)


# What is no manifest ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"manifest"',
        b"\xff\xfe\x00",
        b'{"format": 1}',
        b'{"format": 1, "classes": []}',
        b"[" * 100_000,
        b'{"format": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_no_manifest_is_refused(tmp_path, raw):
    (tmp_path / MANIFEST).write_bytes(raw)
    refused(tmp_path)


def test_a_manifest_that_is_far_too_large_is_not_read(tmp_path):
    with (tmp_path / MANIFEST).open("wb") as file:
        file.truncate(1 << 40)
    assert "too large" in refused(tmp_path)


@pytest.mark.parametrize("found", [0, 1, "2", None, [2]])
def test_another_format_says_what_to_do(directory, found):
    manifest = manifest_of(directory)
    manifest["format"] = found
    write(directory, manifest)
    assert "this version reads 2: export it again" in refused(directory)


KEYS = ["name", "trained", "backbone", "input", "groups", "classes", "codec", "decision", "stages", "cloud", "files"]


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(directory, key):
    manifest = manifest_of(directory)
    del manifest[key]
    write(directory, manifest)
    assert f"'{key}'" in refused(directory)


def at(*path):
    def change(manifest, value):
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = value

    return change


LATENT = ("stages", 2, "latent")
INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("name",), 7, "name"),
        (("name",), None, "name"),
        (("trained",), "false", "trained"),
        (("backbone",), ["mobilenetv3"], "backbone"),
        (("input", "size"), "64x64", "damaged"),
        (("input", "size"), 0, "input size"),
        (("input", "size"), -32, "input size"),
        (("input", "size"), 10**9, "input size"),
        (("input", "size"), INF, "damaged"),
        (("input", "size"), NAN, "damaged"),
        (("input", "size"), None, "damaged"),
        (("input", "mean"), [0.5], "damaged"),
        (("input", "mean"), [0.5, NAN, 0.5], "mean"),
        (("input", "std"), [0.5, 0.0, 0.5], "std"),
        (("input", "std"), 0.5, "damaged"),
        (("groups",), ["vehicle", "pet"], "damaged"),
        (("groups",), 4, "damaged"),
        (("groups",), ["vehicle", "pet", "animal", "none", 5], "text"),
        (("classes",), [], "every class"),
        (("classes", 1, "group"), "people", "damaged"),
        (("classes", 1, "name"), 7, "class"),
        (("classes",), {"n01": "vehicle"}, "damaged"),
        (("codec",), "gzip", "no codec 'gzip'"),
        (("codec",), ["plain"], "no codec"),
        (("decision", "trigger"), "always", "trigger"),
        (("decision", "trigger"), [], "trigger"),
        (("decision", "unit"), None, "unit"),
        (("decision", "temperatures"), {"1": 0}, "temperature of exit 1"),
        (("decision", "temperatures"), {"1": "warm"}, "damaged"),
        (("decision", "temperatures"), [1.0], "damaged"),
        (("decision", "thresholds"), {"one": 0.5}, "damaged"),
        (("decision", "thresholds"), {"1": NAN}, "threshold of exit 1"),
        (("stages",), [], "stages"),
        (("stages",), {}, "stages"),
        (("stages", 4, "n"), 4, "stages"),
        (("stages", 0, "n"), 99, "stages"),
        (("stages", 0, "files"), {}, "stage 1"),
        (("stages", 0, "files"), {"float": 7}, "stage 1"),
        (("stages", 0, "files"), {"float": ["1.onnx"]}, "stage 1"),
        (("stages", 0, "files"), "1.onnx", "damaged"),
        (("stages", 0, "macs"), {"conv": "many"}, "damaged"),
        (("stages", 0, "macs"), {"conv": -5}, "stage 1"),
        (("stages", 9, "latent"), {}, "damaged"),
        (("cloud",), 7, "cloud"),
        (("cloud",), ["cloud.safetensors"], "cloud"),
        (("files",), 7, "damaged"),
        (("files",), {}, "no checksum"),
        (("files", "1.onnx"), 7, "not the file"),
        ((*LATENT, "low"), [], "quantiser"),
        ((*LATENT, "low"), ["a", "b"], "damaged"),
        ((*LATENT, "step"), [0.1, -0.1], "positive"),
        ((*LATENT, "step"), [0.1, NAN], "positive"),
        ((*LATENT, "levels"), 257, "2 to 256 levels"),
        ((*LATENT, "levels"), INF, "damaged"),
        ((*LATENT, "base"), 0, "base"),
        ((*LATENT, "base"), 10**15, "cells a side"),
        ((*LATENT, "doublings"), 10**15, "cells a side"),
        ((*LATENT, "doublings"), -1, "levels"),
        ((*LATENT, "order"), "spiral", "spiral"),
        ((*LATENT, "order"), ["centre"], "order"),
        ((*LATENT, "rungs"), [2, 4], "rungs"),
        ((*LATENT, "rungs"), 8, "damaged"),
        ((*LATENT, "mean_levels"), [8], "mean level"),
        ((*LATENT, "mean_levels"), [8, 16], "mean level"),
        (LATENT, None, "damaged"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else str(value)[:20],
)
def test_a_value_that_makes_no_model_is_refused(directory, path, value, words):
    manifest = manifest_of(directory)
    at(*path)(manifest, value)
    write(directory, manifest)
    assert re.search(words, refused(directory))


LOCAL = {"n": 5, "file": "local05.onnx", "macs": {"linear": 80}, "temperature": 1.5, "threshold": 0.7}


@pytest.fixture
def racing(directory, small_bundle):
    """The same directory with a local exit behind stage 5."""
    (directory / "local05.onnx").write_bytes(b"a head")
    bundle = replace(small_bundle, path=directory, local_exits={5: LocalExit(**LOCAL)})
    bundle.save({})
    return directory


def test_local_exits_come_back_as_they_were_saved(racing):
    assert manifest_of(racing)["local_exits"] == [LOCAL]
    loaded = Bundle.load(racing)
    assert loaded.local_exits == {5: LocalExit(**LOCAL)}
    assert loaded.local_path(loaded.local_exits[5]) == racing / "local05.onnx"


def test_a_local_exit_is_judged_by_its_own_numbers_and_the_bundle_s_trigger(racing):
    bundle = Bundle.load(racing)
    assert bundle.local_decider == replace(bundle.decider, temperatures={5: 1.5}, thresholds={5: 0.7})


def test_the_file_of_a_local_exit_is_guarded_like_any_other(racing):
    (racing / "local05.onnx").write_bytes(b"another")
    assert "local05.onnx is not the file" in refused(racing)
    (racing / "local05.onnx").unlink()
    assert "'local05.onnx' cannot be read" in refused(racing)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "must be a list"),
        ({"5": LOCAL}, "must be a list"),
        ("local05.onnx", "must be a list"),
        ([5], "damaged"),
        ([LOCAL, LOCAL], "behind stage 5"),
        ([LOCAL | {"n": 0}], "behind stage 0"),
        ([LOCAL | {"n": 10}], "behind stage 10: there is one at most behind each of 1 to 9"),
        ([LOCAL | {"n": "five"}], "damaged"),
        ([LOCAL | {"file": 7}], "file of a local exit"),
        ([LOCAL | {"file": "../secret"}], "no checksum"),
        ([LOCAL | {"file": "absent.onnx"}], "no checksum"),
        ([LOCAL | {"macs": {"conv": -1}}], "local exit 5 has negative"),
        ([LOCAL | {"macs": 7}], "damaged"),
        ([LOCAL | {"temperature": 0}], "local exit 5 needs a positive temperature"),
        ([LOCAL | {"temperature": INF}], "local exit 5 needs a positive temperature"),
        ([LOCAL | {"threshold": NAN}], "threshold"),
        ([{key: LOCAL[key] for key in LOCAL if key != "threshold"}], "'threshold'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_local_exit_that_cannot_be_is_refused(racing, value, words):
    manifest = manifest_of(racing)
    manifest["local_exits"] = value
    write(racing, manifest)
    assert words in refused(racing)


def test_a_stage_that_is_left_out_of_what_is_sent_is_refused(directory):
    manifest = manifest_of(directory)
    del manifest["stages"][3]["latent"]
    write(directory, manifest)
    assert "numbered from 1 on" in refused(directory)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """Every place in a manifest."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_stands_anywhere_in_a_manifest_it_loads_or_is_refused_in_one_line(shared_directory, data):
    manifest = copy.deepcopy(manifest_of(shared_directory))
    original = (shared_directory / MANIFEST).read_bytes()
    at(*data.draw(st.sampled_from(list(places(manifest)))))(manifest, data.draw(JSON))
    try:
        write(shared_directory, manifest)
        Bundle.load(shared_directory)
    except FleetError as err:
        assert len(str(err).splitlines()) == 1  # noqa: PT017 - either way is right
    finally:
        (shared_directory / MANIFEST).write_bytes(original)
