# SPDX-License-Identifier: Apache-2.0
"""A yard camera and its hub on one machine: the same processes and parameters as `fleet up`.

    ros2 launch fleet backyard_camera.launch.py namespace:=yard7 source:=photos link:="ci_ms=100 packets=1"
    ros2 launch fleet backyard_camera.launch.py source:=0 platform:=native behaviours:="alarm doorbell"

The processes and their parameters are those of config/backyard_camera.yaml.
"""

from launch import LaunchDescription

from fleet_ros.launching import system


def generate_launch_description() -> LaunchDescription:
    return system("backyard_camera", namespace="backyard", without=["cameras"])
