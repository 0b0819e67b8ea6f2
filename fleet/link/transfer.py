# SPDX-License-Identifier: Apache-2.0
"""How many connection events a transfer takes that needs every byte (JPEG, partitioned networks).

FLEET's features never wait for an acknowledgement; what they are compared with must. Two models:

``link_layer``
    BLE as it is: the link layer acknowledges within the event, and a lost packet is repeated in a later
    one. Every event carries the first packets that have not arrived yet.
``next_event``
    The paper's (FLEET 1): a burst in one event, its acknowledgements in the next, so data moves in every
    second event only and the bandwidth is halved. An acknowledgement may be lost like any packet; the
    whole burst is then repeated.

Both lose packets as FLEET's features are lost, one by one. A real controller is harder on the
transfer: it closes the event at the first packet that is not heard, in either direction. What is left then is
:func:`payloads_with_closing`; it is what a radio is measured against.
"""

from __future__ import annotations

import numpy as np

from fleet.errors import FleetError
from fleet.link.loss import Independent, LossModel
from fleet.link.parameters import LinkParameters


def packet_sizes(n_bytes: int, payload: int) -> list[int]:
    """Payload bytes of each packet of a transfer, all full but the last."""
    full, rest = divmod(n_bytes, payload)
    return [payload] * full + ([rest] if rest else [])


def reliable_bursts(
    n_bytes: int,
    parameters: LinkParameters,
    *,
    rng: np.random.Generator | None = None,
    loss: LossModel | None = None,
) -> tuple[tuple[int, ...], ...]:
    """What travels up in each connection event until the hub holds every byte.

    Args:
        n_bytes: length of the transfer; its packets have no header of ours.
        parameters: link and acknowledgement model.
        rng: chance; a fixed seed when left out.
        loss: independent losses of ``parameters.loss`` when left out.

    Returns:
        One tuple an event, the payload bytes of its packets in order. An event that only carries
        acknowledgements is an empty tuple. The first event is the first one after the data is ready.

    Raises:
        FleetError: nothing ever arrives on this link.
    """
    if parameters.loss >= 1.0 and loss is None and n_bytes > 0:
        raise FleetError("a link that loses every packet never completes a transfer: give a loss below 1")
    rng = np.random.default_rng(0) if rng is None else rng
    model: LossModel = Independent(parameters.loss) if loss is None else loss
    per_event = parameters.effective_packets
    unacknowledged = packet_sizes(n_bytes, parameters.payload)
    arrived = [False] * len(unacknowledged)
    events: list[tuple[int, ...]] = []
    while not all(arrived):
        burst = tuple(unacknowledged[:per_event])
        events.append(burst)
        for k in range(len(burst)):
            if not model.lost(rng):
                arrived[k] = True
        if all(arrived):
            break
        acknowledged = True
        if parameters.ack == "next_event":
            events.append(())
            acknowledged = not model.lost(rng)
        if acknowledged:
            unacknowledged = [n for n, done in zip(unacknowledged, arrived, strict=True) if not done]
            arrived = [False] * len(unacknowledged)
    return tuple(events)


def reliable_events(
    n_bytes: int,
    parameters: LinkParameters,
    *,
    rng: np.random.Generator | None = None,
    loss: LossModel | None = None,
) -> int:
    """Connection events until the hub holds every byte; arguments as :func:`reliable_bursts`.

    Without loss, for b bursts: b under ``link_layer``, 2b - 1 under ``next_event``.
    """
    return len(reliable_bursts(n_bytes, parameters, rng=rng, loss=loss))


def payloads_with_closing(packets: int, loss: float) -> float:
    """Mean payloads an event of a real controller carries when ``packets`` always wait.

    The hub polls, the camera answers; the event goes on only while both are heard, so payload i
    arrives with probability (1 - loss)^(2i). Nothing is sent twice that arrived: the next poll
    acknowledges it, be it an event later.

    Args:
        packets: payloads that fit one event.
        loss: probability that one packet is lost, each direction.

    Source: Core 5.4 Vol 6 Part B 4.5.6 (closing of connection events) and 4.5.9 (acknowledgement).
    """
    both = (1.0 - loss) ** 2
    return sum(both**i for i in range(1, packets + 1))
