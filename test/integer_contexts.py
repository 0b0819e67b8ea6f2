# SPDX-License-Identifier: Apache-2.0
"""Codec 2's contexts as docs/protocol.md tells them, in integers alone: what a firmware author would write.

It was written from the document and shares nothing with ``fleet``; where the two differ, one of them is wrong.
"""

import integer_range_coder


class Stage:
    """A stage with contexts.

    Args:
        latent: of the manifest.
    """

    def __init__(self, latent):
        self.side, self.levels, self.channels = latent["base"], latent["levels"], len(latent["low"])
        self.said = latent["contexts"]
        self.first_table = [0]
        for edges in self.said["edges"]:
            self.first_table.append(self.first_table[-1] + len(edges) + 1)
        #: (channel, row, column) in the order in which they travel.
        self.order = [
            (c, r, k)
            for c in range(self.channels)
            for way in range(4)
            for r in range(self.side)
            for k in range(self.side)
            if (r + 2 * k + c) % 4 == way
        ]

    def outlook(self, numbers, c, r, k):
        """The level that symbol 0 stands for, and the frequency table."""
        said = self.said["outlooks"][4 * c + (r + 2 * k + c) % 4]

        def at(channel, down, across):
            return numbers.get((channel, r + down, k + across), 0)

        guess = (128 + sum(w * at(ch, d, a) for ch, d, a, w in said["values"])) // 256
        width = said["bias"] + sum(w * abs(at(ch, d, a)) for ch, d, a, w in said["sizes"])
        index = sum(edge < width for edge in self.said["edges"][c])
        table = self.said["tables"][self.first_table[c] + index]
        return self.said["zero"][c] + guess - self.levels // 2, table

    def encode(self, levels, first, count):
        """The body of a packet; ``levels`` of all that is before it, too, in order."""
        numbers, tables, symbols = {}, [], []
        for n, (c, r, k) in enumerate(self.order[: first + count]):
            if n >= first:
                zero, table = self.outlook(numbers, c, r, k)
                tables.append(table)
                symbols.append((levels[n] - zero) % self.levels)
            numbers[c, r, k] = levels[n] - self.said["zero"][c]
        return integer_range_coder.encode(tables, range(count), symbols)
