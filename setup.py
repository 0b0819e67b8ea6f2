# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 package ``fleet`` (ament_python), which pip installs as well.

Dependencies: ``package.xml`` tells rosdep what a ROS workspace needs, ``requirements/`` pins what ``make`` installs,
and the lists below say what pip needs at least. A test holds the three to what the code imports.
"""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "fleet"
SHARE = f"share/{NAME}"

PACKAGES = [
    "fleet",
    "fleet_bag_node",
    "fleet_behaviours",
    "fleet_ble_bridge",
    "fleet_cloud_node",
    "fleet_device_node",
    "fleet_monitor_node",
    "fleet_ros",
    "fleet_view_node",
]


def share_files(*patterns: str) -> list[tuple[str, list[str]]]:
    """List what goes to the share directory: ``DIR/FILE`` of the checkout becomes ``share/fleet/DIR/FILE``."""
    files: dict[str, list[str]] = {}
    for pattern in patterns:
        for path in sorted(Path().glob(pattern)):
            if path.is_file():
                files.setdefault(path.parent.as_posix(), []).append(path.as_posix())
    return [(f"{SHARE}/{folder}", names) for folder, names in sorted(files.items())]


setup(
    name=NAME,
    version="0.1.0",
    description="Early-exit inference for cameras whose radio sleeps most of the time",
    author="The FLEET authors",
    author_email="fleet@example.com",
    maintainer="The FLEET authors",
    maintainer_email="fleet@example.com",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[name for package in PACKAGES for name in (package, f"{package}.*")]),
    package_data={"": ["py.typed", "*.yaml", "*.json"], "fleet.view": ["page/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        *share_files(
            "launch/*.launch.py",
            "config/**/*.yaml",
            "config/**/*.json",
            "models/*/*",
        ),
    ],
    zip_safe=False,
    install_requires=[
        "aiohttp>=3.9",
        "constriction>=0.4",
        "numpy>=1.24",
        "onnxruntime>=1.17",
        "PyYAML>=6.0",
        "rich>=13.0",
        "safetensors>=0.4",
        "typer>=0.9",
    ],
    extras_require={
        # OpenCV comes in two builds that must not be installed together.
        "headless": ["opencv-python-headless>=4.6"],
        "desktop": ["opencv-python>=4.6"],
        "hub": ["torch>=2.1"],
        "bags": ["rosbags>=0.11"],
        "radio": ["bleak>=3.1", "bumble>=0.0.236"],  # a real one: bleak on the hub, bumble on the camera
        "photos": ["scikit-image>=0.20"],
        "train": ["torch>=2.1", "onnx>=1.15", "matplotlib>=3.6"],
        # `colcon test` looks for this one
        "test": ["hypothesis>=6", "pillow", "playwright", "psutil", "pytest>=7", "pytest-timeout", "pytest-xdist"],
        # ROS 2 where no distribution of it is installed: CPython 3.11 on x86-64 Linux.
        "wheels": [
            "ros-fleet-msgs",  # first: pip install ./fleet_msgs
            "ros-rclpy[fastrtps]>=9.1,<10",
            "ros-kilted-rclpy>=9.1,<10",
            "ros-diagnostic-msgs",
            "ros-lifecycle-msgs",
            "ros-rcl-interfaces",
            "ros-sensor-msgs",
            "ros-std-msgs",
            "ros-std-srvs",
        ],
    },
    entry_points={
        "console_scripts": [
            "fleet = fleet.__main__:main",
            "device_node = fleet_device_node.__main__:main",
            "bridge_node = fleet_ble_bridge.__main__:main",
            "cloud_node = fleet_cloud_node.__main__:main",
            "monitor_node = fleet_monitor_node.__main__:main",
            "bag_node = fleet_bag_node.__main__:main",
            "alarm_node = fleet_behaviours.alarm_node:main",
            "doorbell_node = fleet_behaviours.doorbell_node:main",
            "view_node = fleet_view_node.__main__:main",
        ],
    },
)
