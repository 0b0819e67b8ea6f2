# SPDX-License-Identifier: Apache-2.0
"""A report as one page that needs nothing else: no script, no font, no image from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from fleet.evaluation.report.document import (
    Block,
    Bullets,
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
from fleet.evaluation.report.drawing import on_dark_pages, without_style
from fleet.evaluation.report.theme import CSS


def page(report: Report) -> str:
    """The whole page."""
    links = "\n".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in report.sections)
    lead = "\n".join(f"<p>{_text(line)}</p>" for line in report.lead)
    body = "\n".join(_section(section) for section in report.sections)
    return f"""<!doctype html>
<!-- Written by `fleet report`; changes made here are lost. -->
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(report.title)}</title>
<style>
{CSS}{on_dark_pages(".drawing ")}
</style>
</head>
<body>
<a class="skip" href="#main">Skip to the results</a>
<nav aria-label="Sections"><p>{escape(report.title)}</p>
<ol>
{links}
</ol></nav>
<main id="main">
<header><h1>{escape(report.title)}</h1>
{lead}
</header>
{body}
</main>
</body>
</html>
"""


def shown(text: str) -> str:
    """A text as it stands in a page."""
    return _text(text)


def with_section(page: str, section: Section) -> str | None:
    """A page with one section written anew; None where it has no such section."""
    begun = f'<section id="{section.name}" '
    if page.count(begun) != 1:
        return None
    before, _, rest = page.partition(begun)
    old, end, after = rest.partition("</section>")
    return before + _section(section) + after if end and "<section" not in old else None


def _section(section: Section) -> str:
    """Of sections there is none within another (:func:`with_section`)."""
    blocks = "\n".join(part for block in section.blocks for part in _block(block))
    heading = f'<h2 id="{section.name}-title">{escape(section.title)}</h2>'
    return f'<section id="{section.name}" aria-labelledby="{section.name}-title">\n{heading}\n{blocks}\n</section>'


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Text):
        yield f"<p>{_text(block.text)}</p>"
    elif isinstance(block, Bullets):
        yield "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in block.items) + "</ul>"
    elif isinstance(block, Link):
        yield f'<p>{_text(block.what)}: <a href="{escape(block.folder)}/index.html">{escape(block.title)}</a>.</p>'
    elif isinstance(block, NotRun):
        because = f" {_text(block.because)}" if block.because else ""
        command = f"<pre><code>{escape(block.command)}</code></pre>" if block.command else ""
        yield f'<div class="missing"><p><strong>Not run.</strong> {_text(block.what)}.{because}</p>{command}</div>'
    elif isinstance(block, Figure):
        small = "".join(_small(block.conditions, block.notes))
        yield f'<figure id="{block.name}">\n<div class="drawing">{without_style(block.svg)}</div>'
        yield f"<figcaption>{_text(block.caption)}{small}</figcaption></figure>"
    else:
        yield from _table(block)


def _small(conditions: tuple[str, ...], notes: tuple[str, ...]) -> Iterator[str]:
    if conditions:
        yield f'<p class="small">Conditions: {_text("; ".join(conditions))}.</p>'
    if notes:
        yield '<ul class="small">' + "".join(f"<li>{_text(note)}</li>" for note in notes) + "</ul>"


def _table(table: Table) -> Iterator[str]:
    right = [column.startswith("#") for column in table.columns]
    heads = (
        f'<th scope="col"{_side(side)}>{escape(column.lstrip("#"))}</th>'
        for column, side in zip(table.columns, right, strict=True)
    )
    rows = ("<tr>" + "".join(_cells(row, right)) + "</tr>" for row in table.rows)
    inner = (
        f'<div class="wide" role="region" aria-label="{escape(table.caption)}" tabindex="0"><table>'
        f"<caption>{_text(table.caption)}</caption>\n<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n"
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )
    inner += "".join(_small(table.conditions, table.notes))
    if table.folded:
        inner = f"<details><summary>{_text(table.caption)}</summary>\n{inner}\n</details>"
    yield f'<div class="table" id="{table.name}">{inner}</div>'


def _cells(row: tuple[Content, ...], right: list[bool]) -> Iterator[str]:
    for place, (content, side) in enumerate(zip(row, right, strict=True)):
        found = cell(content)
        text = f"<code>{escape(found.text)}</code>" if found.code and found.text else _lines(found.text)
        if found.tone:
            text = f'<span class="{found.tone}">{text}</span>'
        note = f'<span class="note">{_lines(found.note)}</span>' if found.note else ""
        kind = 'th scope="row"' if place == 0 else "td"
        yield f"<{kind}{_side(side)}>{text}{note}</{kind.split(maxsplit=1)[0]}>"


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _side(right: bool) -> str:
    return ' class="n"' if right else ""


def _text(text: str) -> str:
    """Escaped, with `code` between backticks."""
    parts = escape(text, quote=False).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
