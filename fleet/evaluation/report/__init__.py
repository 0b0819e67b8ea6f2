# SPDX-License-Identifier: Apache-2.0
"""The paper's tables and figures from recorded sweeps, each number beside the paper's own.

==================  ==========================================================================
module              what it holds
==================  ==========================================================================
``sweeps``          the files of ``fleet sweep`` as rows that can be asked
``paper``           what the paper prints, with the place it stands
``measures``        where FLEET wins, by how much, what limits it
``scoreboard``      measure, paper, floor, goal, ours, verdict
``document``        sections of tables and figures, without a look
``html``            one self-contained page
``markdown``        the same as Markdown with figures beside it
``drawing``         figures as SVG, the same bytes from the same numbers
``build``           which sections there are, in order
==================  ==========================================================================

The remaining modules make one section each. No sentence here knows a result: what is said of numbers is computed from
them.
"""
