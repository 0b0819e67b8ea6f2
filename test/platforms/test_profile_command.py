# SPDX-License-Identifier: Apache-2.0
"""``fleet profile`` measures this machine, and what it writes paces a device."""

import pytest
from typer.testing import CliRunner

from fleet.cli import app
from fleet.errors import FleetError
from fleet.platforms import load_profile


def test_every_stage_is_timed_and_the_profile_loads(tiny_bundle, tmp_path):
    out = tmp_path / "here.yaml"
    result = CliRunner().invoke(
        app, ["profile", str(tiny_bundle.path), "--output", str(out), "--rounds", "5", "--power-mw", "120"]
    )
    assert result.exit_code == 0, result.output
    found = load_profile(str(out))
    assert set(found.stage_seconds) == {stage.n for stage in tiny_bundle.stages}
    assert all(0 < seconds < 1 for seconds in found.stage_seconds.values())
    assert found.power_mw == 120
    assert tiny_bundle.identity.hex() in found.source
    assert found.seconds({"conv": 10**9}, 3) == found.stage_seconds[3]


def test_an_unknown_power_stays_unknown(tiny_bundle, tmp_path):
    out = tmp_path / "here.yaml"
    CliRunner().invoke(app, ["profile", str(tiny_bundle.path), "--output", str(out), "--rounds", "3"])
    assert load_profile(str(out)).power_mw is None


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--precision", "int4"), "float or int8"), (("--output", "/nowhere/at/all.yaml"), "/nowhere/at")],
)
def test_bad_options_are_one_line(tiny_bundle, options, words):
    result = CliRunner().invoke(app, ["profile", str(tiny_bundle.path), *options])
    assert isinstance(result.exception, FleetError)
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)
