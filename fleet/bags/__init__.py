# SPDX-License-Identifier: Apache-2.0
"""Bags: recordings of a running system, written and read without ROS, and replayed through the code that ran it.

Nothing of rosbags is imported with this package: only reading or writing a bag needs it.
"""
