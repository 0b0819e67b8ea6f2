# SPDX-License-Identifier: Apache-2.0
"""Where FLEET wins and by how much is read off rows as it stands in them."""

from __future__ import annotations

import pytest
from report_files import REAL, document, row, write

from fleet.evaluation.report.estimate import NOT_REACHED, NOT_RUN, Estimate, interval_ms, span_ms
from fleet.evaluation.report.measures import (
    early_share,
    energy_ratio,
    frugal,
    hub_share,
    hub_stage,
    largest_term,
    latency_terms,
    tolerated_loss,
    wins,
)
from fleet.evaluation.report.sweeps import Evidence, Result, Row, load_sweep
from fleet.evaluation.report.verdicts import Mark, Outcome, verdict


def ratios(by_interval, family="all", **changes):
    """Rows with a given speed-up of FLEET over a family; None: FLEET misses the target, "rival": nobody reaches it."""
    rows = []
    for ci, value in by_interval.items():
        entries = row(ci)
        if value is None:
            entries["schemes"]["fleet"]["reached"] = False
            entries["speed_up"].pop("fleet")
        elif value == "rival":
            entries["speed_up"]["fleet"].pop(family)
            entries["best"][family] = None
        else:
            entries["speed_up"]["fleet"][family] = {"value": value, "95": [value - 0.1, value + 0.1], "bound": 2.0}
        entries.update(changes)
        rows.append(Row(entries, "made up"))
    return rows


# Ranges -------------------------------------------------------------------------------------------------------
def test_the_range_of_a_win_is_that_of_neighbouring_intervals():
    found = wins(ratios({7.5: 2.0, 10: 1.5, 30: 1.2, 65: 0.9, 4000: 0.1}), "fleet", "all")
    assert found.won == ((7.5, 30),)
    assert found.range_text() == "7.5–30 ms"


def test_a_range_with_a_gap_is_written_as_two():
    found = wins(ratios({7.5: 1.1, 10: 0.9, 30: 1.2, 65: 1.3, 1000: 1.1, 4000: 0.5}), "fleet", "all")
    assert found.range_text() == "7.5 ms, 30 ms–1 s"


def test_as_fast_is_no_win():
    assert wins(ratios({7.5: 1.0, 10: 0.9}), "fleet", "all").won == ()


def test_the_largest_speed_up_keeps_its_interval_and_bound():
    best_row, best = wins(ratios({7.5: 1.4, 10: 1.6, 30: 1.2}), "fleet", "all").best
    assert (best_row.ci_ms, best.ratio, best.bound) == (10, Estimate(1.6, 1.5, 1.7000000000000002), 2.0)


def test_what_the_device_answers_by_itself_is_no_speed_up_of_the_link():
    rows = ratios({7.5: 1.5, 4000: 200.0})
    rows[1].entries["schemes"]["fleet"]["exits"] = {"1": 0.2, "local 5": 0.8}
    best_row, _ = wins(rows, "fleet", "all").best
    assert best_row.ci_ms == 7.5
    only = wins(rows[1:], "fleet", "all")
    assert only.best is None
    assert only.status == "the device answers most images"
    assert only.won == ((4000, 4000),)


@pytest.mark.parametrize(
    ("values", "status"),
    [({}, NOT_RUN), ({7.5: None}, NOT_REACHED), ({7.5: "rival"}, "no rival reaches the target")],
)
def test_without_any_ratio_the_reason_is_said(values, status):
    found = wins(ratios(values), "fleet", "all")
    assert found.best is None
    assert found.status == status
    assert found.range_text() == status


def test_a_scheme_that_no_row_knows_was_not_run():
    assert wins(ratios({7.5: 1.2}), "fleet-k3", "all").status == NOT_RUN


def test_not_slower_up_to_the_last_interval_before_the_first_loss():
    rows = ratios({7.5: 1.5, 10: 0.99, 30: 0.97, 65: 1.4})
    assert wins(rows, "fleet", "all").last_not_slower() == (10, 30)


def test_a_missed_target_ends_the_range_and_an_absent_rival_does_not():
    assert wins(ratios({7.5: 1.5, 10: None, 30: 1.5}), "fleet", "all").last_not_slower() == (7.5, 10)
    assert wins(ratios({7.5: 1.5, 10: "rival", 30: 1.5}), "fleet", "all").last_not_slower() == (30, None)


# Energy and latency -------------------------------------------------------------------------------------------
def test_energy_is_compared_with_the_most_frugal_rival_that_reaches_the_target():
    entries = row()
    for name, mj in (("branchynet", 9.0), ("clio", 3.0), ("jpeg", 6.0)):
        entries["schemes"][name].update(energy_mj=mj, energy_mj_95=[mj - 0.3, mj + 0.3])
    entries["schemes"]["clio"]["reached"] = False
    entries["schemes"]["fleet"].update(energy_mj=2.0, energy_mj_95=[1.9, 2.1])
    found = energy_ratio(Row(entries, ""), "fleet", "all", ("branchynet", "clio", "jpeg"))
    assert (found.rival, found.ratio.value) == ("jpeg", 3.0)
    assert found.ratio.low == pytest.approx(5.7 / 2.1)
    assert found.ratio.high == pytest.approx(6.3 / 1.9)
    assert frugal(Row(entries, ""), ("clio",)) is None


def test_a_paired_interval_of_the_sweep_goes_before_our_own():
    saving = {"fleet": {"all": {"value": 1.7, "95": [1.6, 1.8], "scheme": "jpeg"}}}
    found = energy_ratio(Row(row(energy_saving=saving), ""), "fleet", "all", ("jpeg",))
    assert (found.ratio, found.rival) == (Estimate(1.7, 1.6, 1.8), "jpeg")


def test_recorded_terms_name_the_largest():
    entries = row()
    entries["schemes"]["fleet"]["latency_parts_ms"] = {"compute": 3.0, "wait": 12.0, "cloud": 5.0}
    terms = latency_terms(Row(entries, ""), Row(entries, "").schemes["fleet"])
    assert largest_term(terms) == "waiting for connection events, 60%"


def test_unrecorded_terms_are_those_of_the_bound_and_what_lies_beyond():
    entries = row(10.0)  # 5 ms of first event, 10 ms of interval, 5 ms of hub
    entries["schemes"]["fleet"]["latency_ms"] = 50.0
    terms = latency_terms(Row(entries, ""), Row(entries, "").schemes["fleet"])
    assert terms == {"first": 5.0, "interval": 10.0, "cloud": 5.0, "beyond": 30.0}
    assert largest_term(terms).startswith("beyond the bound")
    entries["schemes"]["fleet"]["latency_ms"] = 19.9  # the phases of these images happened to be kind
    assert latency_terms(Row(entries, ""), Row(entries, "").schemes["fleet"])["beyond"] == 0
    entries["schemes"]["fleet"]["latency_ms"] = 12.0
    assert latency_terms(Row(entries, ""), Row(entries, "").schemes["fleet"]) == {}


def test_shares_of_the_first_stages_count_the_hub_s_exits_only():
    result = Row(row(), "").schemes["fleet"]
    assert early_share(result) == pytest.approx(0.7)
    shown = Result("fleet", {"exits": {"0 begun, part 1 of 3": 0.5, "5": 0.25, "device": 0.25}})
    assert early_share(shown) == pytest.approx(0.5)
    assert hub_share(shown) == pytest.approx(0.75)
    assert hub_share(result) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("name", "stage"), [("3", 3), ("3 begun", 3), ("local 5", None), ("device", None), ("stage 5", None)]
)
def test_who_answered_is_read_from_the_name_of_the_exit(name, stage):
    assert hub_stage(name) == stage


# Evidence from several files ----------------------------------------------------------------------------------
def evidence(tmp_path, *documents, ours=("fleet", "fleet-race")):
    paths = write(tmp_path, **{f"file{k}": d for k, d in enumerate(documents)})
    return Evidence.of([load_sweep(path) for path in paths], ours)


def test_rows_of_one_link_in_two_files_are_one_row_with_all_schemes(tmp_path):
    first, second = document("first", [row()]), document("second", [row()])
    first["rows"][0]["schemes"]["fleet"]["latency_ms"] = 11.0
    result = dict(second["rows"][0]["schemes"]["fleet"], latency_ms=12.0)
    second["rows"][0]["schemes"]["fleet-entropy"] = result
    (found,) = evidence(tmp_path, first, second).rows
    assert found.schemes["fleet"].estimate("latency_ms").value == 11.0
    assert found.schemes["fleet-entropy"].estimate("latency_ms").value == 12.0


def test_rows_of_another_target_are_not_joined(tmp_path):
    first, second = document("first", [row()]), document("second", [row()])
    second["rows"][0]["target"] = 0.7
    second["rows"][0]["schemes"]["fleet-entropy"] = second["rows"][0]["schemes"]["fleet"]
    (found,) = evidence(tmp_path, first, second).rows
    assert "fleet-entropy" not in found.schemes


def test_a_grid_s_nearest_interval_is_taken_if_it_is_near(tmp_path):
    found = evidence(tmp_path, document("grid", [row(7.5), row(11.25), row(65.0)]))
    setting = found.rows[0].setting
    assert found.row(setting, 10.0).ci_ms == 11.25
    assert found.row(setting, 30.0) is None


def test_another_codec_s_sweep_does_not_mix_with_the_first(tmp_path):
    found = evidence(tmp_path, document("ours", [row()], codec="fleet"), document("theirs", [row(30.0)], codec="paper"))
    assert [r.ci_ms for r in found.rows] == [10.0]
    assert [s.name for s in found.others] == ["theirs"]


def test_a_file_with_lost_packets_is_known_by_its_rows(tmp_path):
    found = evidence(
        tmp_path, document("lossy", [row(25.0, loss=0.0), row(25.0, loss=0.3)]), document("sweep", [row()])
    )
    assert [r.setting.loss for r in found.rows] == [0.0]
    assert [r.setting.loss for r in found.lossy] == [0.0, 0.3]


def test_only_those_of_ours_that_were_run_are_followed(tmp_path):
    entries = row()
    del entries["schemes"]["fleet-race"]
    assert evidence(tmp_path, document("few", [entries])).ours == ("fleet",)
    assert evidence(tmp_path, document("few", [entries]), ours=("fleet-best",)).ours == ("fleet-best",)


# Loss ---------------------------------------------------------------------------------------------------------
def lossy(by_loss):
    rows = ratios(dict.fromkeys(range(len(by_loss)), 1.0), family="local")
    for found, (loss, value) in zip(rows, by_loss.items(), strict=True):
        found.entries["link"]["loss"] = loss
        if value is None:
            found.entries["schemes"]["fleet"]["reached"] = False
        else:
            found.entries["speed_up"]["fleet"]["local"] = {
                "value": value,
                "95": [value - 0.2, value + 0.2],
                "bound": 9.0,
            }
    return rows


def test_the_tolerated_loss_lies_on_the_line_between_two_losses():
    found = tolerated_loss(lossy({0.0: 2.0, 0.1: 1.5, 0.2: 0.5}), "fleet")
    assert found.loss == pytest.approx(0.15)
    assert found.ended == "slower"
    assert found.estimate.low == pytest.approx(0.13)
    assert found.estimate.high == pytest.approx(0.17)


def test_a_target_that_is_missed_ends_the_tolerated_loss():
    found = tolerated_loss(lossy({0.0: 2.0, 0.1: 1.5, 0.2: None}), "fleet")
    assert (found.loss, found.ended) == (0.1, "target missed")


def test_the_largest_loss_is_no_end():
    found = tolerated_loss(lossy({0.0: 2.0, 0.9: 1.5}), "fleet")
    assert (found.loss, found.ended) == (0.9, "never")


def test_slower_without_any_loss():
    assert tolerated_loss(lossy({0.0: 0.8, 0.1: 0.7}), "fleet").loss is None
    assert tolerated_loss([], "fleet") is None


# Verdicts and words -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "higher", "words"),
    [
        (2.5, True, "goal held"),
        (2.0, True, "floor held, goal missed by 20\u00a0%"),
        (1.425, True, "floor missed by 5.0\u00a0%"),
        (1.0, False, "goal held"),
        (2.6, False, "floor missed by 73\u00a0%"),
    ],
)
def test_a_verdict_is_computed_from_floor_and_goal(value, higher, words):
    floor, goal = Mark(1.5, "1.5×"), Mark(2.5, "2.5×")
    if not higher:
        goal = Mark(1.2, "1.2×")
    assert verdict(Outcome(value, ""), floor, goal, higher=higher)[0] == words


def test_a_bound_s_share_goes_before_the_measure_s_own_marks():
    outcome = Outcome(1.8, "", floor=Mark(1.7, ""), goal=Mark(1.9, ""))
    assert verdict(outcome, Mark(None, ""), Mark(None, ""))[0] == "floor held, goal missed by 5.3\u00a0%"


@pytest.mark.parametrize("status", [NOT_RUN, NOT_REACHED])
def test_without_a_number_the_verdict_is_the_reason(status):
    assert verdict(Outcome(None, "", status=status), Mark(1.0, ""), Mark(2.0, ""))[0] == status


def test_numbers_are_written_with_their_intervals():
    assert Estimate(3.119, 3.0, 3.25).written(2, "×") == "3.12× (3.00–3.25)"
    assert Estimate(0.87, 0.85, 0.89).percent() == "87.0\u00a0% (85.0–89.0)"
    assert Estimate(2.0).written(1, " ms") == "2.0 ms"
    assert Estimate.of(float("nan")) is None
    assert Estimate.of("3") is None
    assert (interval_ms(7.5), interval_ms(4000), span_ms(7.5, 65), span_ms(30, 4000)) == (
        "7.5 ms",
        "4 s",
        "7.5–65 ms",
        "30 ms–4 s",
    )


def test_a_row_says_under_which_account_it_was_run():
    assert str(Row(row(account=REAL), "").setting.account) == "link_layer, packets that fit"
