# SPDX-License-Identifier: Apache-2.0
"""The hub's machine of two: its half of the radio, the cloud node, and behaviours. The other one runs camera.launch.py.

    ros2 launch fleet hub.launch.py                                                 # over a real radio
    ros2 launch fleet hub.launch.py config:=emulated_hub                            # over ROS 2, with a monitor
    ros2 launch fleet hub.launch.py behaviours:=doorbell model:=my_bundle

camera.launch.py says what the two forms need. Behaviours are those of config/behaviours.yaml; `behaviours:=''` has
none. A hub of several real cameras is a description of yours with a /NAME/bridge_node (its `camera_address`) for each.
"""

from launch import LaunchDescription

from fleet_ros.launching import system


def generate_launch_description() -> LaunchDescription:
    device = ["source", "platform", "time_scale", "frame_rate"]
    return system("radio_hub", behaviours="alarm doorbell", without=["cameras", "link", *device])
