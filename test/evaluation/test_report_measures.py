# SPDX-License-Identifier: Apache-2.0
"""Where FLEET wins and by how much is read off rows as it stands in them."""

from __future__ import annotations

import pytest
from report_files import REAL, row

from fleet.evaluation.report.estimate import NOT_REACHED, NOT_RUN, Estimate, interval_ms, span_ms
from fleet.evaluation.report.measures import (
    early_share,
    energy_ratio,
    frugal,
    hub_share,
    largest_term,
    latency_terms,
    tolerated_loss,
    wins,
)
from fleet.evaluation.report.sweeps import Row
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


def test_unrecorded_terms_follow_from_the_processor_s_energy():
    entries = row(platform="cortex-a77-200")  # 40 mW
    entries["schemes"]["fleet"].update(latency_ms=25.0, processor_mj=0.4)
    found = latency_terms(Row(entries, ""), Row(entries, "").schemes["fleet"])
    assert found == {"compute": pytest.approx(10.0), "rest": pytest.approx(15.0)}


def test_shares_of_the_first_stages_count_the_hub_s_exits_only():
    result = Row(row(), "").schemes["fleet"]
    assert early_share(result) == pytest.approx(0.7)
    assert hub_share(result) == pytest.approx(0.9)


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
