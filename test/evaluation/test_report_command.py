# SPDX-License-Identifier: Apache-2.0
"""``fleet report``: what it writes, and one line for what it cannot read."""

from __future__ import annotations

import copy
import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
import report_files
from typer.testing import CliRunner

from fleet.cli import app
from fleet.errors import FleetError
from fleet.evaluation.report import build
from fleet.evaluation.report.drawing import ON_DARK

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("torch", reason="torch is not installed")


def report(*arguments):
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    if isinstance(result.exception, FleetError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments):
    with pytest.raises(FleetError) as problem:
        report(*arguments)
    assert "\n" not in str(problem.value)
    return str(problem.value)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    documents = {
        "paper": report_files.whole(),
        "compute": report_files.compute(),
        "wake": report_files.wake_words(),
        "losses": report_files.losses(),
        "plan": report_files.PLAN,
    }
    report_files.write(folder, **documents)
    return folder


def everything(inputs, output, *more):
    names = ("paper", "compute", "wake")
    sweeps = [inputs / f"{name}.json" for name in names]
    return (*sweeps, "--losses", inputs / "losses.json", "--plan", inputs / "plan.json", "--output", output, *more)


@pytest.fixture(scope="module")
def results(inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("report") / "results"
    report(*everything(inputs, output))
    return output


@pytest.fixture(scope="module")
def poor(tmp_path_factory):
    """A report from two rows, without curves, losses, plan and model."""
    folder = tmp_path_factory.mktemp("poor")
    report_files.write(folder, few=report_files.document("few", [report_files.row(10.0), report_files.row(30.0)]))
    report(folder / "few.json", "--output", folder / "results")
    return folder / "results"


def texts(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


class Page(HTMLParser):
    """Tags and attributes of a page, in order."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def values(self, name):
        return [attrs[name] for _, attrs in self.tags if attrs.get(name)]


# What is written ----------------------------------------------------------------------------------------------
def test_made_twice_a_report_is_the_same_byte_for_byte(inputs, results, tmp_path):
    report(*everything(inputs, tmp_path / "again"))
    assert texts(tmp_path / "again") == texts(results)


def test_the_page_loads_nothing_and_runs_nothing(results):
    page = Page((results / "index.html").read_text())
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    outside = [
        value for name in ("href", "src", "xlink:href") for value in page.values(name) if not value.startswith("#")
    ]
    assert outside == []
    assert "@import" not in (results / "index.html").read_text()


def test_the_page_can_be_read_without_seeing_it(results):
    page = Page((results / "index.html").read_text())
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert set(page.values("aria-labelledby")) <= set(ids)
    assert {value.removeprefix("#") for value in page.values("href")} <= set(ids)
    drawings = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(drawings) > 10
    assert all(attrs.get("role") == "img" and attrs.get("aria-labelledby") for attrs in drawings)
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in page.tags if tag == "th")
    assert sum(tag == "caption" for tag, _ in page.tags) == sum(tag == "table" for tag, _ in page.tags)


def test_page_and_figures_have_colours_for_dark_screens(results):
    assert "prefers-color-scheme:dark" in (results / "index.html").read_text()
    for path in (results / "figures").glob("*.svg"):
        assert "prefers-color-scheme:dark" in path.read_text(), path.name


def test_figures_are_sound_svg_with_a_description_and_without_a_date(results):
    for path in (results / "figures").glob("*.svg"):
        root = ET.fromstring(path.read_text())
        told = root.find("{http://www.w3.org/2000/svg}desc")
        assert told is not None, path.name
        assert any(c.isdigit() for c in told.text), path.name
        assert "<dc:date>" not in path.read_text()


def test_every_colour_of_a_figure_has_one_for_dark_screens(results):
    for path in (results / "figures").glob("*.svg"):
        used = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", path.read_text().partition("</style>")[2]))
        assert used <= set(ON_DARK), path.name


def test_markdown_tables_are_whole_and_their_figures_are_there(results):
    for path in results.glob("*.md"):
        widths = []
        for line in path.read_text().splitlines():
            if line.startswith("| "):
                widths.append(len(re.findall(r"(?<!\\)\|", line)))
                assert widths[-1] == widths[0], f"{path.name}: {line[:80]}"
            else:
                widths = []
        for name in re.findall(r"\]\((figures/[^)]+)\)", path.read_text()):
            assert (results / name).is_file()
        for name in re.findall(r"\]\(([a-z0-9-]+\.(?:md|html))\)", path.read_text()):
            assert (results / name).is_file()


def test_every_table_names_its_conditions(results):
    latency = (results / "latency.md").read_text()
    for words in (
        "backyard 0123456789abcdef",
        "val.tar.gz (2500 pictures)",
        "seed 0",
        "cloud constant 5 ms",
        "time_scale 3.56",
    ):
        assert words in latency
    assert "link_layer, packets that fit" in latency
    assert latency.count("Conditions: ") == latency.count("**Table 3") + latency.count("**What limits") + latency.count(
        "**Where local"
    ) + latency.count("![")


def test_the_paper_s_numbers_stand_beside_ours_and_its_slips_are_named(results):
    assert "paper: 7.5–64.5 ms, 1–4.7×" in (results / "latency.md").read_text()
    assert "14.15–8.11" in (results / "energy.md").read_text()
    slips = (results / "sources.md").read_text()
    assert "75 ms under All, 25.5 ms under local early exit" in slips
    assert "1.41 mJ" in slips


def test_what_a_better_result_says_follows_from_the_file(tmp_path):
    rows = [report_files.row(ci) for ci in report_files.CIS]
    before = report_files.document("slow", rows)
    after = copy.deepcopy(before)
    for row in after["rows"]:
        row["speed_up"]["fleet"]["all"].update({"value": 1.99, "95": [1.9, 2.1], "bound": 2.0})
    report_files.write(tmp_path, before=before, after=after)
    verdicts = {}
    for name in ("before", "after"):
        report(tmp_path / f"{name}.json", "--output", tmp_path / name)
        board = json.loads((tmp_path / name / "scoreboard.json").read_text())["scoreboard"]
        verdicts[name] = next(
            e for e in board if e["ours"] == "fleet" and e["setting"].startswith("1M, 4 payloads, next_event")
        )
    assert verdicts["after"]["verdict"] == "goal held"
    assert verdicts["after"]["value"] == 1.99
    assert verdicts["before"]["verdict"].startswith("floor held, goal missed by")
    assert verdicts["before"]["value"] == max(r["speed_up"]["fleet"]["all"]["value"] for r in rows)


def test_the_scoreboard_has_every_measure_twice(results):
    board = json.loads((results / "scoreboard.json").read_text())["scoreboard"]
    lines = [entry for entry in board if entry["ours"] == "fleet"]
    assert len(lines) == 29
    named = [e for e in lines if "as named" in e["setting"]]
    matched = [e for e in lines if "time-matched" in e["setting"]]
    assert (len(named), len(matched)) == (14, 15)  # wake words are run time-matched
    assert not [e for e in lines if e["verdict"] == "not run"]
    assert [e["paper"] for e in lines if e["measure"].startswith("loss")] == ["18%", "18%", "40%", "40%", "60%", "60%"]


def test_the_scoreboard_tells_how_right_both_were_and_what_is_left_to_win(tmp_path):
    """The bound counts the hub's time beside an interval in which it may pass; 1.5 CI is what nobody can surpass."""
    rows = [report_files.row(10.0), report_files.row(10.0, unit="class")]
    rows[1]["schemes"]["fleet"] = {"reached": False, "calibration": {"accuracy": 0.5}}
    rows[1]["speed_up"].pop("fleet")
    ours, rival = rows[0]["schemes"]["fleet"], rows[0]["schemes"][rows[0]["best"]["all"]]
    ours["accuracy"], rival["accuracy"] = 0.861, 0.872
    report_files.write(tmp_path, few=report_files.document("few", rows))
    report(tmp_path / "few.json", "--output", tmp_path / "results")
    board = json.loads((tmp_path / "results" / "scoreboard.json").read_text())["scoreboard"]
    note = next(e["note"] for e in board if e["ours"] == "fleet")
    assert "right 86.1% against 87.2%" in note
    assert f"of 1.5 CI alone {15.0 / ours['latency_ms']:.0%}" in note
    assert "reaches the target accuracy in 0 of 1 rows" in (tmp_path / "results" / "README.md").read_text()


# What is missing ----------------------------------------------------------------------------------------------
def test_what_was_not_run_says_so_with_the_command(poor):
    found = texts(poor)
    assert "fleet sweep runs/trace config/sweeps/losses.yaml" in found["losses.md"]
    assert "fleet sweep runs/trace config/sweeps/compute.yaml" in found["compute.md"]
    assert "fleet sweep runs/trace config/sweeps/wake-words.yaml" in found["wake-words.md"]
    assert "fleet train config/training/imagenet-100.yaml" in found["models.md"]
    assert "--plan models/baselines" in found["compute-plan.md"]
    for name in ("losses.md", "compute.md", "wake-words.md", "curves.md", "figure-1.md"):
        assert "**Not run:**" in found[name], name
    board = json.loads(found["scoreboard.json"])["scoreboard"]
    assert {e["verdict"] for e in board if e["measure"].startswith(("loss", "wake", "energy"))} == {"not run"}


def test_without_a_rival_no_verdict_is_given_on_what_needs_it(tmp_path):
    few = report_files.document("few", [report_files.row(10.0), report_files.row(30.0)])
    for row in few["rows"]:
        del row["schemes"]["clio"]
    report_files.write(tmp_path, few=few)
    report(tmp_path / "few.json", "--output", tmp_path / "results")
    board = json.loads((tmp_path / "results" / "scoreboard.json").read_text())["scoreboard"]
    headline = "1M, 4 payloads, next_event, packets as asked for, as named"
    verdicts = {e["measure"]: e["verdict"] for e in board if e["setting"] == headline}
    assert verdicts["largest speed-up over the best of all baselines"] == "not judged: without clio"
    assert not verdicts["largest speed-up over JPEG alone, stripped headers"].startswith("not judged")
    assert "Rivals that were not run: clio." in (tmp_path / "results" / "README.md").read_text()


def test_a_family_that_no_file_has_was_not_run(tmp_path):
    few = report_files.document("few", [report_files.row(10.0), report_files.row(30.0)])
    few["schemes"] = {n: about for n, about in few["schemes"].items() if about["family"] in ("fleet", "local")}
    for row in few["rows"]:
        row["schemes"] = {n: result for n, result in row["schemes"].items() if n in few["schemes"]}
        row["best"] = {f: n if n in few["schemes"] else None for f, n in row["best"].items()}
        row["speed_up"] = {o: {f: s for f, s in of.items() if f == "local"} for o, of in row["speed_up"].items()}
    report_files.write(tmp_path, few=few)
    report(tmp_path / "few.json", "--output", tmp_path / "results")
    board = json.loads((tmp_path / "results" / "scoreboard.json").read_text())["scoreboard"]
    partition = [e["verdict"] for e in board if e["measure"].endswith("partition alone") and "as named" in e["setting"]]
    assert set(partition) == {"not run"}


def test_a_missed_target_is_not_reached_and_no_number(tmp_path):
    rows = [report_files.row(ci) for ci in (10.0, 30.0)]
    for row in rows:
        row["schemes"]["fleet"] = {"reached": False, "calibration": {"accuracy": 0.8}}
        row["speed_up"].pop("fleet")
    report_files.write(tmp_path, missed=report_files.document("missed", rows))
    report(tmp_path / "missed.json", "--output", tmp_path / "results")
    board = json.loads((tmp_path / "results" / "scoreboard.json").read_text())["scoreboard"]
    first = next(e for e in board if e["ours"] == "fleet")
    assert (first["verdict"], first["value"]) == ("not reached", None)


def test_another_bundle_stands_in_table_5_alone_and_cifar_10_is_not_comparable(inputs, tmp_path):
    conditions = {
        "bundle": "cifar-10",
        "identity": "ff" * 8,
        "backbone": "mobilenetv3",
        "input_size": 32,
        "classes": 10,
    }
    rows = [report_files.row(ci, "2M", platform="cortex-m33-64") for ci in (10.0, 30.0)]
    report_files.write(tmp_path, cifar=report_files.document("cifar", rows, **conditions))
    report(inputs / "wake.json", tmp_path / "cifar.json", "--output", tmp_path / "results")
    found = texts(tmp_path / "results")
    assert "not comparable: CIFAR-10 in place of CIFAR-100" in found["models.md"]
    assert "cifar-10" not in found["latency.md"]


def test_pages_of_an_earlier_report_go_and_other_files_stay(poor, tmp_path):
    folder = tmp_path / "results"
    (folder / "figures").mkdir(parents=True)
    old, own = folder / "figures" / "old.svg", folder / "notes.md"
    old.write_text((poor / "figures" / "speed-up-fleet.svg").read_text())
    own.write_text("# mine\n")
    report(poor.parent / "few.json", "--output", folder)
    assert not old.exists()
    assert own.read_text() == "# mine\n"


def test_the_tables_follow_the_variant_that_is_asked_for(inputs, tmp_path):
    report(inputs / "wake.json", "--ours", "fleet-single", "--output", tmp_path / "results")
    board = json.loads((tmp_path / "results" / "scoreboard.json").read_text())["scoreboard"]
    assert {entry["ours"] for entry in board} == {"fleet-single"}
    words = refused(inputs / "wake.json", "--ours", "fleet-k9", "--output", tmp_path / "out")
    assert words == "no sweep has 'fleet-k9'; of ours there are: fleet, fleet-single, fleet-race"


# Bad input ----------------------------------------------------------------------------------------------------
def test_a_missing_file_is_named(tmp_path):
    assert (
        refused(tmp_path / "no.json", "--output", tmp_path / "out")
        == f"cannot read {tmp_path}/no.json: No such file or directory"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[1, 2]", "is no result of `fleet sweep`"),
        ('{"conditions": {}, "summary": {}, "frames": []}', "is no result of `fleet sweep`"),
        ('{"format": 7, "conditions": {}, "rows": []}', "has format 7, this version reads 1"),
        ('{"format": 1, "conditions": [], "rows": 3}', "is damaged"),
        ('{"format": 1, "conditions": {}, "rows": [{"link": {"ci_ms": 10}}]}', "row 1 has no 'ack'"),
        ('{"format": 1, "conditions": {}, "rows": [3]}', "row 1 is ill-formed"),
    ],
)
def test_a_foreign_file_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "foreign.json"
    path.write_text(text)
    assert words in refused(path, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "odd",
    [
        {"schemes": {"fleet": "fast"}},
        {"best": ["jpeg"]},
        {"speed_up": {"fleet": {"all": 2.0}}},
        {"speed_up": {"fleet": 2.0}},
    ],
)
def test_a_row_with_a_number_in_the_place_of_a_mapping_is_refused(tmp_path, odd):
    entries = report_files.document("odd", [report_files.row(**odd)])
    report_files.write(tmp_path, odd=entries)
    assert "row 1 is ill-formed" in refused(tmp_path / "odd.json", "--output", tmp_path / "out")


def test_losses_and_sweeps_are_told_apart(inputs, tmp_path):
    words = refused(inputs / "losses.json", "--output", tmp_path / "out")
    assert words == "give at least one SWEEP.json that `fleet sweep` wrote"
    words = refused(inputs / "wake.json", "--losses", inputs / "compute.json", "--output", tmp_path / "out")
    assert "give it as an argument, not with --losses" in words


def test_a_plan_a_model_and_an_output_that_are_none_are_refused(inputs, tmp_path):
    sweep = inputs / "wake.json"
    assert "is no compute plan" in refused(sweep, "--plan", sweep, "--output", tmp_path / "out")
    assert "nowhere" in refused(sweep, "--model", "nowhere", "--output", tmp_path / "out")
    assert "it is no folder" in refused(sweep, "--output", sweep)


def test_a_model_that_the_sweeps_are_not_of_is_refused(inputs, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"name": "frontyard"}')
    words = refused(inputs / "wake.json", "--model", tmp_path / "other", "--output", tmp_path / "out")
    assert "is the bundle frontyard, the sweeps are of backyard" in words


def test_a_section_is_written_anew_and_the_rest_stays(inputs, results, tmp_path):
    there = tmp_path / "there"
    shutil.copytree(results, there)
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    sweep = json.loads((inputs / "paper.json").read_text())
    sweep["schemes"]["fleet-single"]["note"] = "a note that was not there before"
    (tmp_path / "changed.json").write_text(json.dumps(sweep))
    report(tmp_path / "changed.json", "--output", there, "--only", "ablations")
    changed = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert changed == {"ablations.md", "index.html"}
    assert "a note that was not there before" in (there / "index.html").read_text()
    # With the same file it is what the whole report had.
    report(*everything(inputs, there, *(o for name in build.SECTIONS for o in ("--only", name))))
    assert all(path.read_bytes() == content for path, content in before.items())


def test_every_section_has_the_name_by_which_it_is_asked_for(results):
    page = (results / "index.html").read_text()
    assert re.findall(r'<section id="([^"]*)"', page) == ["scoreboard", *build.SECTIONS]
    assert all((results / f"{name}.md").is_file() for name in build.SECTIONS)


def test_what_cannot_be_written_anew_is_told(inputs, results, tmp_path):
    again = inputs / "paper.json", "--output", tmp_path, "--only", "ablations"
    assert "no section 'figure-2'" in refused(inputs / "paper.json", "--output", tmp_path, "--only", "figure-2")
    assert "no report to write anew" in refused(*again)
    index = tmp_path / "index.html"
    index.write_bytes(b"\xff\xfe")
    assert "it is no text" in refused(*again)
    index.write_text("<p>nothing</p>")
    assert "is about another model" in refused(*again)
    whole = (results / "index.html").read_text()
    begun = whole.index('<section id="ablations"')
    end = whole.index("</section>", begun)
    index.write_text(whole[:end] + whole[end + len("</section>") :])  # what is behind it must not go with it
    assert "no whole section 'ablations'" in refused(*again)
    assert index.read_text() == whole[:end] + whole[end + len("</section>") :]
