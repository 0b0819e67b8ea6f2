# SPDX-License-Identifier: Apache-2.0
"""A report as Markdown: a front page with the first section, a file for each other one, figures beside them."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.evaluation.report.document import (
    Block,
    Bullets,
    Cell,
    Content,
    Figure,
    Link,
    NotRun,
    Report,
    Section,
    Table,
    Text,
    cell,
)

NOTICE = "<!-- Written by `fleet report`; changes made here are lost. -->"


def files(report: Report) -> dict[str, str]:
    """Texts by file name; figures are expected under ``figures/``."""
    first, *others = report.sections
    lines = [NOTICE, f"# {report.title}", *report.lead, "The same as one page: [index.html](index.html)."]
    lines += _section(first)
    lines += ["## All results", _contents(report, first)] if others else []
    found = {"README.md": _joined(lines)}
    return found | dict(map(page, others))


def page(section: Section) -> tuple[str, str]:
    """A section's file and its text."""
    top = [NOTICE, f"# {section.title}", "[All results](README.md)"]
    return f"{section.name}.md", _joined([*top, *_blocks(section)])


def _contents(report: Report, first: Section) -> str:
    return "\n".join(f"- [{s.title}]({s.name}.md)" for s in report.sections if s is not first)


def _section(section: Section) -> Iterator[str]:
    yield f"## {section.title}"
    yield from _blocks(section)


def _blocks(section: Section) -> Iterator[str]:
    for block in section.blocks:
        yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Text):
        yield _escaped(block.text)
    elif isinstance(block, Bullets):
        yield "\n".join(f"- {_escaped(item)}" for item in block.items)
    elif isinstance(block, Link):
        yield f"{_escaped(block.what)}: [{block.title}]({block.folder}/README.md)."
    elif isinstance(block, NotRun):
        yield f"**Not run:** {_escaped(block.what)}" + (f". {_escaped(block.because)}" if block.because else "")
        if block.command:
            yield f"    {block.command}"
    elif isinstance(block, Figure):
        yield f"![{_escaped(block.alt)}](figures/{block.name}.svg)"
        yield f"*{_escaped(block.caption)}*"
        yield from _small(block.conditions, block.notes)
    else:
        yield f"**{_escaped(block.caption)}**"
        table = "\n".join(_table(block))
        yield f"<details><summary>{len(block.rows)} rows</summary>\n\n{table}\n\n</details>" if block.folded else table
        yield from _small(block.conditions, block.notes)


def _small(conditions: tuple[str, ...], notes: tuple[str, ...]) -> Iterator[str]:
    if conditions:
        yield f"Conditions: {_escaped('; '.join(conditions))}."
    if notes:
        yield "\n".join(f"- {_escaped(note)}" for note in notes)


def _table(table: Table) -> Iterator[str]:
    yield _line(column.lstrip("#") for column in table.columns)
    yield _line("---:" if column.startswith("#") else "---" for column in table.columns)
    for row in table.rows:
        yield _line(_cell(content) for content in row)


def _line(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(content: Content) -> str:
    found: Cell = cell(content)
    text = f"`{found.text}`" if found.code and found.text else _escaped(found.text)
    if found.tone in ("good", "bad") and text:
        text = f"**{text}**"
    written = f"{text}<br><sub>{_escaped(found.note)}</sub>" if found.note else text
    return written.replace("|", "\\|").replace("\n", "<br>")


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


def _joined(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
