# SPDX-License-Identifier: Apache-2.0
"""The live view without its server: what a page shows of a camera, and what the same frames would cost otherwise.

Pure like the rest of this package: facts come in with their times, a snapshot for the page goes out. ``page/`` holds
the page itself.
"""
