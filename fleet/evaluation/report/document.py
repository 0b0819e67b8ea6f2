# SPDX-License-Identifier: Apache-2.0
"""A report without a look: sections of text, tables and figures, which ``html`` and ``markdown`` render."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["", "good", "fair", "bad", "quiet"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what it says; may have several lines.
        note: a second, quieter line; the paper's own number as a rule.
        tone: how a verdict fell. Never the only bearer of a meaning.
        code: whether the text is a command.
    """

    text: str
    note: str = ""
    tone: Tone = ""
    code: bool = False


Content = Cell | str


def cell(content: Content) -> Cell:
    """A text as a cell."""
    return Cell(content) if isinstance(content, str) else content


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        name: anchor.
        caption: what it shows.
        columns: headings; one that begins with ``#`` is right-aligned, without the ``#``.
        rows: cells.
        conditions: under which all of its numbers hold.
        notes: footnotes.
        folded: whether a page shows it only on request.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Content, ...], ...]
    conditions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folded: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.name}: a row of {len(row)} cells under {len(self.columns)} headings")


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        name: of its file and anchor.
        caption: what it shows.
        alt: what somebody who does not see it should know; from its numbers.
        svg: the drawing.
        conditions: under which all of its numbers hold.
        notes: footnotes.
    """

    name: str
    caption: str
    alt: str
    svg: str
    conditions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class NotRun:
    """What is missing, and how to get it.

    Attributes:
        what: is missing.
        command: that would give it; empty where none does yet.
        because: why it is missing or what the command needs.
    """

    what: str
    command: str = ""
    because: str = ""


@dataclass(frozen=True)
class Link:
    """Another report.

    Attributes:
        what: it is about.
        title: its heading.
        folder: where it is, from this one.
    """

    what: str
    title: str
    folder: str


Block = Table | Figure | Text | Bullets | NotRun | Link


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        name: anchor and, in Markdown, file.
        title: heading.
        blocks: in order.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """Everything.

    Attributes:
        title: heading.
        lead: first lines.
        sections: in order; the first one is shown on the front page.
        data: what ``scoreboard.json`` holds, for documents that quote numbers.
    """

    title: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...]
    data: dict[str, object] = field(default_factory=dict)

    def figures(self) -> Iterator[Figure]:
        """All figures in order."""
        for section in self.sections:
            yield from (block for block in section.blocks if isinstance(block, Figure))
