# SPDX-License-Identifier: Apache-2.0
"""What the bridge node says on its topics of a link, an event, an inference and the whole run."""

from __future__ import annotations

from std_msgs.msg import Header

from fleet.link.accounting import Event, InferenceAccount, LinkTotals
from fleet.link.parameters import LinkParameters
from fleet.packet import ExitNotice
from fleet.packet import Header as PacketHeader
from fleet_msgs.msg import ExitDecision, LinkEvent, LinkReport, LinkStatistics
from fleet_msgs.msg import LinkParameters as LinkParametersMsg


def exit_message(header: Header, notice: ExitNotice) -> ExitDecision:
    """An exit notice that reached the camera; ``header`` is its frame's."""
    return ExitDecision(
        header=header,
        inference_id=notice.inference_id,
        stage=notice.stage,
        class_index=notice.class_index,
        confidence=notice.confidence,
    )


def event_message(header: Header, event: Event) -> LinkEvent:
    """A connection event; ``header`` says when it took place."""
    heads = [PacketHeader.unpack(packet) for packet in event.sent]
    notice_id = event.notice.inference_id if event.notice is not None else 0
    return LinkEvent(
        header=header,
        inference_id=heads[0].inference_id if heads else notice_id,
        index=event.index,
        air_time=event.air_us * 1e-6,
        stages=[head.stage for head in heads],
        sizes=[len(packet) for packet in event.sent],
        lost=list(event.losses),
        notice=event.notice is not None,
        notice_id=notice_id,
        notice_heard=event.exit is not None,
    )


def parameters_message(header: Header, link: LinkParameters, *, connected: bool) -> LinkParametersMsg:
    """The link as it is now."""
    return LinkParametersMsg(
        header=header,
        ci_ms=link.ci_ms,
        phy=link.phy,
        payload=link.payload,
        packets=link.packets,
        effective_packets=link.effective_packets,
        loss=link.loss,
        ack=link.ack,
        transport=link.transport,
        connected=connected,
    )


def report_message(header: Header, account: InferenceAccount) -> LinkReport:
    """What the radio did for one inference; ``header`` is its frame's."""
    return LinkReport(
        header=header,
        inference_id=account.inference_id,
        events=account.events,
        packets_sent=account.packets_sent,
        packets_lost=account.packets_lost,
        packets_dropped=account.packets_dropped,
        bytes_sent=account.bytes_sent,
        energy_mj=account.energy_uj * 1e-3,
        exit_delivered=account.exit_delivered,
    )


def statistics_message(header: Header, totals: LinkTotals, before: LinkTotals, span: float) -> LinkStatistics:
    """The whole run, and rates over the last ``span`` seconds, at whose beginning it was as ``before`` says."""
    return LinkStatistics(
        header=header,
        events=totals.events,
        packets_offered=totals.offered,
        packets_sent=totals.sent,
        packets_lost=totals.lost,
        packets_dropped=totals.dropped,
        bytes_sent=totals.bytes_sent,
        exits_sent=totals.exits_sent,
        energy_mj=totals.energy_uj * 1e-3,
        # A real camera's totals begin again with every connection.
        packets_per_second=max(0.0, (totals.sent - before.sent) / span),
        bytes_per_second=max(0.0, (totals.bytes_sent - before.bytes_sent) / span),
        radio_power_mw=max(0.0, (totals.energy_uj - before.energy_uj) * 1e-3 / span),
    )
