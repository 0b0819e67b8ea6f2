# SPDX-License-Identifier: Apache-2.0
"""Codec 2's coder as docs/protocol.md tells it, in integers alone: what a firmware author would write.

It was written from the document and shares nothing with ``fleet``; where the two differ, one of them is wrong.
"""

from bisect import bisect_right

FULL = 1 << 64
WORD = 1 << 32


def edges(table):
    """left(0) to left(K) of a frequency table."""
    counts = [0]
    for often in table:
        counts.append(counts[-1] + often)
    return [count * ((1 << 24) - len(table)) // counts[-1] + k for k, count in enumerate(counts)]


def encode(tables, places, symbols, edges_of=edges):
    """The body of a packet.

    Args:
        tables: frequency tables.
        places: which of them each coefficient has, in the packet's order.
        symbols: the coefficients, those that are differences with ``levels`` - 1 added.
        edges_of: the rule for a table's intervals.
    """
    low, width, words = 0, FULL - 1, []
    for where in sorted(range(len(places)), key=places.__getitem__):  # stable
        left, symbol = edges_of(tables[places[where]]), symbols[where]
        unit = width >> 24
        low += unit * left[symbol]
        width = unit * (left[symbol + 1] - left[symbol])
        if low >= FULL:
            low -= FULL
            carry(words)
        if width < WORD:
            words.append(low >> 32)
            low = low % WORD * WORD
            width *= WORD
    words.append(last_word(low, min((low + width - 1) >> 32, WORD - 1)))
    if words[-1] == WORD:
        words[-1] = 0
        carry(words, len(words) - 2)
    body = b"".join(word.to_bytes(4, "big") for word in words)
    return body.rstrip(b"\0") or b"\0"


def carry(words, at=-1):
    """Add one to a word, and where it overflows to the word before."""
    words[at] += 1
    while words[at] == WORD:
        words[at] = 0
        at -= 1
        words[at] += 1


def last_word(low, highest):
    """The word with the most zero bytes at its end that lies in the interval."""
    least = -(-low // WORD)
    for step in (1 << 24, 1 << 16, 1 << 8):
        rounded = -(-least // step) * step
        if rounded <= highest:
            return rounded
    return least


def decode(tables, places, body):
    """The symbols of a body in the packet's order; None where no encoder gives these bytes."""
    symbols = symbols_of(tables, places, body)
    return symbols if symbols is not None and encode(tables, places, symbols) == body else None


def symbols_of(tables, places, body):
    """The symbols that a number stands for, whether or not an encoder would have given it; None for too large a one."""
    body += bytes(8 + 4 * len(places))
    ahead, at_byte = int.from_bytes(body[:8], "big"), 8
    width, symbols = FULL - 1, [0] * len(places)
    for where in sorted(range(len(places)), key=places.__getitem__):  # stable
        left = edges(tables[places[where]])
        unit = width >> 24
        at = ahead // unit
        if at >= 1 << 24:
            return None
        symbol = bisect_right(left, at) - 1
        ahead -= unit * left[symbol]
        width = unit * (left[symbol + 1] - left[symbol])
        if width < WORD:
            ahead = ahead * WORD + int.from_bytes(body[at_byte : at_byte + 4], "big")
            at_byte += 4
            width *= WORD
        symbols[where] = symbol
    return symbols
