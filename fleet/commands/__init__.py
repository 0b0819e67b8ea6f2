# SPDX-License-Identifier: Apache-2.0
"""The verbs of the `fleet` command, a file each; they are loaded when they are called."""
