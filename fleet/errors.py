# SPDX-License-Identifier: Apache-2.0
"""One exception for everything that a user can put right."""


class FleetError(Exception):
    """A problem whose one-line message names the cause and the cure.

    The command line and the nodes print the message alone, without a traceback, and exit with code 2.
    """
