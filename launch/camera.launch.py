# SPDX-License-Identifier: Apache-2.0
"""The camera's machine of two: device node and the camera's half of the radio. The other one runs hub.launch.py.

A real radio, Bluetooth Low Energy between the two machines (config/radio_camera.yaml):

    ros2 launch fleet camera.launch.py source:=0                                    # on the camera
    ros2 launch fleet hub.launch.py                                                 # on the hub

Nothing of ROS 2 has to travel between them then. Where both are on one ROS network all the same, they are two radios
with topics of the same names: the camera's namespace therefore is backyard_camera, and backyard is the hub's, with the
labels. A camera without ROS 2 runs `fleet camera` in place of this file.

No radio, the emulated link on the camera's machine, ROS 2 between the two (config/emulated_camera.yaml):

    ros2 launch fleet camera.launch.py config:=emulated_camera source:=0            # on the camera
    ros2 launch fleet hub.launch.py config:=emulated_hub                            # on the hub

Both machines then need the same ROS_DOMAIN_ID, namespace and bundle, and clocks that agree if `hub_latency` is to mean
something.
"""

from launch import LaunchDescription

from fleet_ros.launching import system


def generate_launch_description() -> LaunchDescription:
    return system("radio_camera", without=["cameras", "behaviours"])
