# SPDX-License-Identifier: Apache-2.0
"""The alarm node: labels in, a latched alarm out, and a service for silence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from rclpy.duration import Duration
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from fleet.behaviours.alarm import Alarm, AlarmRules, Change, State
from fleet.behaviours.hours import ActiveHours, time_of_day, zone_named
from fleet.behaviours.sighting import Sighting, Watch
from fleet_behaviours.labels import Labels, clock_seconds
from fleet_msgs.msg import Alarm as AlarmMsg
from fleet_msgs.msg import Label
from fleet_ros.diagnostics import Health
from fleet_ros.messages import bounded
from fleet_ros.node import ManagedNode
from fleet_ros.node import main as run_node
from fleet_ros.qos import LATCHED, OVERRIDABLE
from fleet_ros.settings import declare, setting

DAY = 86400.0


@dataclasses.dataclass(frozen=True)
class AlarmSettings:
    """Parameters of the alarm node."""

    react_to: tuple[str, ...] = setting(("vehicle",), "groups, or classes in words, that put the alarm on")
    min_confidence: float = setting(0.7, "confidence below which a frame does not count, 0 to 1", within=(0.0, 1.0))
    k: int = setting(1, "frames that must count before the alarm goes on", within=(1, 32))
    n: int = setting(1, "consecutive frames among which k must count", within=(1, 32))
    hold: float = setting(10.0, "time that the alarm stays on [s]", within=(0.0, DAY))
    cool_down: float = setting(
        60.0, "time after going on in which the alarm does not go on again [s]", within=(0.0, DAY)
    )
    active_hours: str = setting("", "HH:MM-HH:MM in which the alarm may go on, also past midnight; empty: always")
    time_zone: str = setting("", "of active_hours, for example Europe/Vienna; empty: of this machine")
    silence_duration: float = setting(
        600.0, "time that alarm/silence lasts [s]; 0: until it is ended", within=(0.0, 7 * DAY)
    )

    def __post_init__(self) -> None:
        """Check what a range cannot say.

        Raises:
            FleetError: rules that cannot be.
        """
        self.rules()
        zone_named(self.time_zone)

    def rules(self) -> AlarmRules:
        """The rules."""
        # An empty list on the command line arrives as None: it has no type.
        watch = Watch(tuple(self.react_to or ()))
        names = ("min_confidence", "k", "n", "hold", "cool_down", "silence_duration")
        return AlarmRules(
            watch=watch,
            hours=ActiveHours.parse(self.active_hours),
            **{name: getattr(self, name) for name in names},
        )


class AlarmNode(ManagedNode):
    """Gives labels, time and people's wishes to :class:`fleet.behaviours.alarm.Alarm`, and publishes its changes."""

    part = "alarm"
    settings: AlarmSettings

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("alarm_node", **kwargs)
        declare(self, AlarmSettings, self._on_settings)
        self._alarm = Alarm(self.settings.rules(), self.seconds())
        self._labels = Labels(self, self._on_sighting)
        self._publisher = self.create_publisher(AlarmMsg, "alarm", LATCHED, qos_overriding_options=OVERRIDABLE)
        self.create_service(SetBool, "alarm/silence", self._on_silence)
        self.create_timer(0.1, self._on_tick)

    # Life cycle -------------------------------------------------------------------------------------------
    def activate(self) -> None:
        """Watch, with nothing remembered."""
        self._alarm = Alarm(self.settings.rules(), self.seconds())
        self._publish(self._alarm.current)
        self._labels.open()

    def deactivate(self) -> None:
        """Stop watching; a siren must not wail on because nobody is left to switch it off."""
        self._labels.close()
        ended = self._alarm.current.cause if self._alarm.state is State.ON else None
        self._publish(Change(State.OFF, "not watching", ended))
        self._publisher.wait_for_all_acked(Duration(seconds=0.5))

    def _on_settings(self, _old: AlarmSettings, new: AlarmSettings) -> None:
        self._alarm.rules = new.rules()

    # Callbacks --------------------------------------------------------------------------------------------
    def _on_sighting(self, sighting: Sighting) -> None:
        local = time_of_day(clock_seconds(self), zone_named(self.settings.time_zone))
        verdict = self._alarm.see(sighting, self.seconds(), local)
        self._tell(verdict.changes)
        self._labels.tell(verdict.suppressed)

    def _on_tick(self) -> None:
        if self.is_active:
            self._tell(self._alarm.pass_time(self.seconds()))

    def _on_silence(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not self.is_active:
            response.success, response.message = False, "the alarm is not watching"
            return response
        change = self._alarm.silence if request.data else self._alarm.end_silence
        self._tell(change(self.seconds()))
        response.success, response.message = True, self._alarm.current.reason
        return response

    # Messages ---------------------------------------------------------------------------------------------
    def _tell(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.get_logger().warning(f"alarm {change.state.name}: {change.reason}")
            self._publish(change)

    def _publish(self, change: Change) -> None:
        stamp = Header(stamp=self.get_clock().now().to_msg(), frame_id=self.get_namespace().strip("/"))
        cause = change.cause.message if change.cause is not None else Label()
        self._publisher.publish(
            AlarmMsg(header=stamp, state=int(change.state), reason=bounded(change.reason), cause=cause)
        )

    def health(self) -> Health:
        """See the base class."""
        values = {"state": self._alarm.state.name, "reason": self._alarm.current.reason, "alarms": self._alarm.alarms}
        return self._labels.health(self._alarm.log, values)


def main() -> None:
    """Run the alarm node."""
    run_node(AlarmNode)
