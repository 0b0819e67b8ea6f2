# SPDX-License-Identifier: Apache-2.0
"""What docs/protocol.md says between a stage's latent and its packets, in integers alone: codecs 0 and 2.

It was written from the document and shares nothing with ``fleet``; where the two differ, one of them is wrong.
Only :func:`level_of` sees numbers that are none: the latent itself.
"""

import math
import struct

import integer_range_coder


class Stage:
    """What a camera computes once from the manifest's ``latent``.

    Args:
        number: of the stage.
        latent: as the manifest has it.
    """

    def __init__(self, number, latent):
        self.number = number
        self.low, self.step, self.levels = latent["low"], latent["step"], latent["levels"]
        self.base, self.doublings, self.order_of_bands = latent["base"], latent["doublings"], latent["order"]
        self.tables = latent.get("tables")
        self.channels, self.side = len(self.low), self.base << self.doublings
        self.count = self.channels * self.side**2
        self.kinds, self.cells = [0] * self.side**2, [None] * self.side**2
        for i in range(self.base):
            for k in range(self.base):
                self.cells[i * self.base + k] = (i, k)
        for level in range(self.doublings):
            for i, k, *places in self.places(level):
                for where, place in enumerate(places):
                    self.kinds[place] = (1 if where == 0 else 2) + 2 * level
                    self.cells[place] = (i >> level, k >> level)
        ends = [rung**2 for rung in latent["rungs"]]
        self.rung_order = self.sorted(ends, lambda channel, place: 0, [self.channels])
        spread = [end for end in ends if end >= latent.get("spread", 0) ** 2]
        self.spread_order = self.sorted(spread, self.lattice, latent.get("waves", [self.channels]))

    def rank(self, level, band):
        """When a band of a level is split."""
        bands = self.base << level
        if self.order_of_bands == "corner":
            return band
        return abs(2 * band - bands + 1) - (1 if 2 * band < bands - 1 else 0)

    def places(self, level):
        """For every cell of a level: its row and column, and the places of ``whole``, ``half 0`` and ``half 1``."""
        bands = self.base << level
        rank = [self.rank(level, band) for band in range(bands)]

        def before(n, r):
            return sum(rank[m] < r for m in range(n))

        for i in range(bands):
            for k in range(bands):
                s, t = rank[i], rank[k]
                by_row = (bands + s) ** 2 + k + before(k, s)
                by_column = (bands + t) ** 2 + bands + t + i + before(i, t + 1)
                whole, half = (by_row, by_column) if s <= t else (by_column, by_row)
                yield i, k, whole, half, half + 1

    def lattice(self, channel, place):
        """Which of the four lattices a coefficient belongs to."""
        row, column = self.cells[place]
        return (row + 2 * column + channel) % 4

    def sorted(self, ends, lattice, waves):
        """Flat indices by wave, group, lattice, and themselves."""
        order, first = [], 0
        for wave in waves:
            begin = 0
            for end in ends:
                for which in range(4):
                    for channel in range(first, first + wave):
                        order += [
                            channel * self.side**2 + place
                            for place in range(begin, end)
                            if lattice(channel, place) == which
                        ]
                begin = end
            first += wave
        return order

    def quantise(self, latent):
        """Levels of a latent: channels of rows of numbers."""
        return [
            [[level_of(x, low, step, self.levels) for x in row] for row in channel]
            for channel, low, step in zip(latent, self.low, self.step, strict=True)
        ]

    def split(self, levels):
        """A channel's coefficients by place, of its rows of levels."""
        fine, out = levels, [None] * self.side**2
        for level in reversed(range(self.doublings)):
            bands = self.base << level
            coarse = [[None] * bands for _ in range(bands)]
            for i, k, whole, half0, half1 in self.places(level):
                a, b = fine[2 * i][2 * k], fine[2 * i][2 * k + 1]
                c, d = fine[2 * i + 1][2 * k], fine[2 * i + 1][2 * k + 1]
                if self.rank(level, i) > self.rank(level, k):
                    b, c = c, b
                upper, lower = (a + b) // 2, (c + d) // 2
                out[whole], out[half0], out[half1] = upper - lower, a - b, c - d
                coarse[i][k] = (upper + lower) // 2
            fine = coarse
        out[: self.base**2] = [value for row in fine for value in row]
        return out

    def merge(self, coefficients):
        """A channel's rows of levels, of its coefficients by place."""
        coarse = [coefficients[at : at + self.base] for at in range(0, self.base**2, self.base)]
        for level in range(self.doublings):
            side = 2 * (self.base << level)
            fine = [[None] * side for _ in range(side)]
            for i, k, *places in self.places(level):
                whole, half0, half1 = (coefficients[place] for place in places)
                upper = coarse[i][k] + (whole + 1) // 2
                lower = upper - whole
                a, c = upper + (half0 + 1) // 2, lower + (half1 + 1) // 2
                b, d = a - half0, c - half1
                if self.rank(level, i) > self.rank(level, k):
                    b, c = c, b
                fine[2 * i][2 * k : 2 * k + 2] = a, b
                fine[2 * i + 1][2 * k : 2 * k + 2] = c, d
            coarse = fine
        return coarse

    def coefficients(self, levels):
        """All coefficients by flat index, of channels of rows of levels."""
        return [value for channel in levels for value in self.split(channel)]

    def is_base(self, flat):
        """Whether a coefficient is a base value."""
        return self.kinds[flat % self.side**2] == 0

    def symbol(self, flat, value):
        """A coefficient as what is coded: from 0 on."""
        return value if self.is_base(flat) else value + self.levels - 1

    def table(self, flat):
        """Which frequency table codes a coefficient."""
        channel, place = divmod(flat, self.side**2)
        return channel * (1 + 2 * self.doublings) + self.kinds[place]

    def packets(self, codec, levels, *, inference, payload):
        """All packets of a stage, age and sequence 0."""
        order, body_of = {0: (self.rung_order, self.plain), 2: (self.spread_order, self.ranged)}[codec]
        coefficients, packets, first = self.coefficients(levels), [], 0
        while first < self.count:
            run = order[first : min(first + 4095, self.count)]
            count, body = body_of(run, [self.symbol(flat, coefficients[flat]) for flat in run], payload - 8)
            packets.append(struct.pack("<HBHHB", inference, self.number | codec << 4, first, count, 0) + body)
            first += count
        return packets

    def plain(self, run, symbols, room):
        """Codec 0: how many symbols fit, and their body."""
        narrow = (self.levels - 1).bit_length()
        count = used = number = 0
        for flat, symbol in zip(run, symbols, strict=True):
            width = narrow if self.is_base(flat) else narrow + 1
            if used + width > 8 * room:
                break
            count, used, number = count + 1, used + width, number << width | symbol
        filled = -(-used // 8)
        return count, (number << 8 * filled - used).to_bytes(filled, "big")

    def ranged(self, run, symbols, room):
        """Codec 2: how many symbols fit, and their body."""
        places = [self.table(flat) for flat in run]
        often = [self.tables[place][symbol] for place, symbol in zip(places, symbols, strict=True)]
        count, product = 0, 1
        for n, frequency in enumerate(often, 1):
            product *= frequency
            if product << 8 * room < 4096**n:
                break
            count = n
        count = max(count, 1)
        body = integer_range_coder.encode(self.tables, places[:count], symbols[:count])
        while len(body) > room:
            count = dropped(often[:count], 8 * (len(body) - room) - 7)
            body = integer_range_coder.encode(self.tables, places[:count], symbols[:count])
        return count, body


def dropped(often, bits):
    """How many symbols stay where those that are dropped from the end hold that many bits or more."""
    product = 1
    for n, frequency in enumerate(reversed(often), 1):
        product *= frequency
        if product << bits <= 4096**n:
            return len(often) - n
    raise ValueError(f"all {len(often)} symbols hold less than {bits} bits")


def level_of(x, low, step, levels):
    """The level of a number."""
    y = single(single(single(x) - single(low)) / single(step))
    if not y > 0:
        return 0
    if y >= levels - 1:
        return levels - 1
    return round(y)  # of two integers equally near the even one


def single(x):
    """A double rounded to single precision; one operation on two singles, so rounded, is single precision's own."""
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)
