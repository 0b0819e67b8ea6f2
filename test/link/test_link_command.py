# SPDX-License-Identifier: Apache-2.0
"""``fleet link`` prints what a link carries, with its conditions, and writes the same as JSON."""

import json

import pytest
import typer
from typer.testing import CliRunner

from fleet.commands.link import link
from fleet.errors import FleetError
from fleet.link.radios import RADIOS

app = typer.Typer()
app.command()(link)


def run(*arguments, columns=100):
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns)})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_table_covers_the_usual_intervals_and_every_phy_of_the_radio():
    text = run().output
    for phy in ("1M", "2M", "500k", "125k"):
        assert f"\n {phy} " in text
    assert "3 of 4" in text
    assert "125k at 7.5 ms: payload=66 or less fits" in text


def test_what_every_number_rests_on_is_printed():
    text = " ".join(run("ci_ms=10", "phy=1M", "loss=0.1").output.split())
    for condition in (
        "244 bytes",
        "guard",
        "800 µs",
        "encrypted: yes",
        "0.1",
        "link_layer",
        "nRF5340",
        "±15 % at best",
    ):
        assert condition in text
    assert "encrypted: no" in run("--unencrypted").output


def test_settings_narrow_the_table(tmp_path):
    file = tmp_path / "link.json"
    run("ci_ms=7.5,phy=1M", "packets=4", "--json", str(file))
    document = json.loads(file.read_text())
    (row,) = document["rows"]
    assert (row["packets"], row["fit"], row["effective_packets"]) == (4, 2, 2)
    assert row["best_effort_bps"] == pytest.approx(520_533.3, rel=1e-6)
    assert document["conditions"]["encrypted"].startswith("yes")


def test_a_row_where_nothing_fits_says_what_would(tmp_path):
    file = tmp_path / "link.json"
    run("phy=125k", "--json", str(file))
    first = json.loads(file.read_text())["rows"][0]
    assert (first["ci_ms"], first["effective_packets"], first["longest_payload"]) == (7.5, 0, 66)


def test_as_published_takes_the_request_for_what_it_is(tmp_path):
    file = tmp_path / "link.json"
    text = run("ci_ms=7.5", "phy=1M", "--as-published", "--json", str(file)).output
    assert "4 of 4" in text
    assert "as published" in text
    assert json.loads(file.read_text())["rows"][0]["fit"] == 2


@pytest.mark.parametrize("radio", RADIOS)
@pytest.mark.parametrize("settings", [["packets=64"], ["packets=64", "ci_ms=3998.75"], ["packets=64", "ci_ms=7.5"]])
def test_no_number_is_cut_and_the_widest_table_fits_a_terminal(radio, settings):
    for columns in (80, 40):
        lines = run("--as-published", *settings, "--radio", radio, columns=columns).output.splitlines()
        assert not [line for line in lines if "…" in line]
        table = [line for line in lines if "64 of 64" in line]
        assert table
        assert max(map(len, table)) <= 80


def test_without_a_mic_a_longer_payload_fits(tmp_path):
    """18,604 of 18,750 µs with the guard; encrypted it would be 18,860."""
    file = tmp_path / "link.json"
    run("phy=125k", "ci_ms=18.75", "--unencrypted", "--json", str(file))
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["fit"], row["effective_packets"], row["longest_payload"]) == (1, 1, 244)
    run("phy=125k", "--unencrypted", "--json", str(file))
    at = {row["ci_ms"]: row for row in json.loads(file.read_text())["rows"]}
    assert (at[7.5]["effective_packets"], at[7.5]["longest_payload"]) == (0, 70)


def test_what_does_not_fit_unencrypted_is_told_what_would_fit_unencrypted():
    with pytest.raises(FleetError, match=r"unencrypted, .* use ci_ms=18\.75 or more or payload=226 or less"):
        run("phy=125k", "ci_ms=17.5", "--unencrypted")
    assert "1 of 4" in run("phy=125k", "ci_ms=17.5", "payload=226", "--unencrypted").output
    assert "1 of 4" in run("phy=125k", "ci_ms=18.75", "--unencrypted").output


def test_a_radio_shows_only_the_phys_that_it_has():
    text = run("--radio", "nrf52832").output
    assert "2M" in text
    assert "125k" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ci_ms=5"], "outside BLE's 7.5 to 4000 ms"),
        (["colour=red"], "'colour' is not a setting of a link"),
        (["transport=bleak"], "'transport' does nothing here: choose from ci_ms, packets, phy, payload, loss, ack$"),
        (["ci_ms=7.5", "phy=125k"], "use ci_ms=20 or more or payload=66 or less"),
        (["phy=125k", "--radio", "nRF52832"], "the nRF52832 has no 125k PHY"),
        (["--radio", "abacus"], "no radio is called 'abacus'"),
        (["--json", "/nowhere/at/all.json"], "cannot write /nowhere/at/all.json"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    with pytest.raises(FleetError, match=message) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
