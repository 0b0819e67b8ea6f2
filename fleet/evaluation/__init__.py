# SPDX-License-Identifier: Apache-2.0
"""Measures bundles on labelled images, through the same code that device and hub run."""
