# SPDX-License-Identifier: Apache-2.0
"""Any number of cameras and one hub for all of them.

    ros2 launch fleet fleet_of_cameras.launch.py
    ros2 launch fleet fleet_of_cameras.launch.py cameras:="porch=photos gate=0 drive=rtsp://10.0.0.7/1"
    ros2 launch fleet fleet_of_cameras.launch.py behaviours:=alarm platform:=native

Every camera is a namespace: /backyard/porch/label. config/fleet_of_cameras.yaml says what holds for all of them and
what for one; `cameras` replaces the file's cameras.
"""

from launch import LaunchDescription

from fleet_ros.launching import system


def generate_launch_description() -> LaunchDescription:
    return system("fleet_of_cameras", namespace="backyard", without=["source"])
