# SPDX-License-Identifier: Apache-2.0
"""Figures as SVG: one look, readable on light and dark pages, and the same bytes from the same numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from fleet.errors import FleetError
from fleet.evaluation.report.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure

INK: Final = "#1b1f24"
MUTED: Final = "#57606a"
GRID: Final = "#dfe3e8"
SURFACE: Final = "#ffffff"
ON_DARK: Final[Mapping[str, str]] = {
    INK: "#e8eaed",
    MUTED: "#a0a8b2",
    GRID: "#333a42",
    SURFACE: "#14171a",
    "#0b57d0": "#8ab4f8",
    "#5c8fe8": "#5d8fe6",
    "#b3440e": "#f2a274",
    "#6f3fb0": "#c5a3f5",
    "#12715b": "#5fcfae",
    "#7a6a00": "#d8c24a",
    "#a31f5b": "#f08bb8",
}
"""Every colour of a figure and what it becomes on a dark page. Told apart in greyscale by marker and dash, too."""

OURS, OURS_TOO, LOCAL, PARTITION, JPEG, STRIPPED, WEBP = (c for c in ON_DARK if c not in (INK, MUTED, GRID, SURFACE))
STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "fleet": {"color": OURS, "marker": "o", "linestyle": "-"},
    "fleet-race": {"color": OURS_TOO, "marker": "D", "linestyle": "--"},
    "fleet-single": {"color": OURS_TOO, "marker": "s", "linestyle": ":"},
    "fleet-thrifty": {"color": OURS, "marker": "h", "linestyle": ":"},
    "local": {"color": LOCAL, "marker": "s", "linestyle": "-"},
    "partition": {"color": PARTITION, "marker": "^", "linestyle": "-"},
    "jpeg": {"color": JPEG, "marker": "v", "linestyle": "-"},
    "jpeg-stripped": {"color": STRIPPED, "marker": "P", "linestyle": "-"},
    "webp": {"color": WEBP, "marker": "X", "linestyle": "-"},
    "all": {"color": OURS, "marker": "o", "linestyle": "-"},
}
_RIVALS: Final = (LOCAL, PARTITION, JPEG, STRIPPED, WEBP)
_MARKERS: Final = "s^vPX"


def style_of(name: str, place: int = 0) -> Mapping[str, Any]:
    """Colour, marker and dash of a scheme or family; of unknown ones by their place."""
    found = STYLES.get(name)
    if found is None and name.startswith("fleet"):
        found = STYLES.get(f"fleet-{name.rpartition('-')[2]}", STYLES["fleet"])
    if found is not None:
        return found
    return {"color": _RIVALS[place % 5], "marker": _MARKERS[place % 5], "linestyle": "-"}


def new_figure(name: str, *, rows: int = 1, columns: int = 1, height: float = 3.0, width: float = 9.2) -> Sheet:
    """An empty figure.

    Args:
        name: makes its ids its own, so that many fit one page.
        rows: of panels.
        columns: of panels.
        height: of a row, in inches.
        width: of the whole, in inches.

    Raises:
        FleetError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - no pyplot: no window, no global state
    except ImportError as err:
        raise FleetError(
            "`fleet report` draws with matplotlib, which is not installed: pip install matplotlib"
        ) from err
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    found = [panel for line in axes for panel in line]
    for panel in found:
        _plain(panel)
    return Sheet(name, figure, found)


class Sheet:
    """A figure while it is drawn.

    Attributes:
        name: of the file.
        figure: of matplotlib.
        panels: its axes, row by row.
    """

    def __init__(self, name: str, figure: Figure, panels: list[Axes]) -> None:
        self.name = name
        self.figure = figure
        self.panels = panels

    def svg(self, description: str) -> str:
        """The drawing as an SVG document.

        Args:
            description: for those who do not see it.
        """
        from matplotlib import rc_context  # noqa: PLC0415

        buffer = io.StringIO()
        settings: Any = {"svg.hashsalt": self.name, "svg.fonttype": "none", "font.family": ["sans-serif"]}
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with rc_context(settings):
            self.figure.savefig(buffer, format="svg", metadata=nothing, facecolor=SURFACE)
        return _finished(buffer.getvalue(), self.name, description)


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=3, which="both", width=0.8)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def titled(axes: Axes, title: str, xlabel: str = "", ylabel: str = "") -> None:
    """Give a panel its words."""
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, fontweight="bold")
    axes.set_xlabel(xlabel, fontsize=9, color=MUTED)
    axes.set_ylabel(ylabel, fontsize=9, color=MUTED)


def curve(
    axes: Axes, xs: Sequence[float], estimates: Sequence[Estimate], style: Mapping[str, Any], *, width: float = 1.5
) -> Any:
    """Draw numbers as a line with marks, and their intervals as a band where all have one; returns the line."""
    (line,) = axes.plot(xs, [e.value for e in estimates], **style, linewidth=width, markersize=4)
    ends = [(e.low, e.high) for e in estimates if e.low is not None and e.high is not None]
    if len(ends) == len(estimates):
        low, high = zip(*ends, strict=True)
        axes.fill_between(xs, low, high, color=style["color"], alpha=0.14, linewidth=0)
    return line


def legend(sheet: Sheet, handles: Mapping[str, Any]) -> None:
    """One legend for all panels, above them."""
    width = sheet.figure.get_figwidth()
    longest = max(map(len, handles), default=1)
    columns = max(1, min(len(handles), int(width / (0.075 * longest + 0.55))))
    found = sheet.figure.legend(
        handles.values(), handles.keys(), loc="outside upper left", ncols=columns, frameon=False, fontsize=8.5
    )
    for text in found.get_texts():
        text.set_color(INK)


def log_axis(axis: XAxis | YAxis, *, low: float | None = None, high: float | None = None) -> None:
    """A logarithmic axis with 1, 2 and 5 of every decade written out.

    Args:
        axis: of a panel whose data is drawn.
        low: end of the axis; None leaves it to the data.
        high: the other end.
    """
    from matplotlib.ticker import LogLocator, NullLocator  # noqa: PLC0415

    vertical = axis.axis_name == "y"
    if vertical:
        axis.axes.set_yscale("log")
        axis.axes.set_ylim(low, high)
    else:
        axis.axes.set_xscale("log")
        axis.axes.set_xlim(low, high)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def interval_axis(axes: Axes, values: list[float]) -> None:
    """A logarithmic axis of connection intervals, with the values that people know."""
    axes.set_xscale("log")
    known = [7.5, 15, 30, 65, 100, 250, 500, 1000, 2000, 4000]
    ticks = [v for v in known if min(values) <= v <= max(values)]
    axes.set_xticks(ticks, [f"{v / 1000:g} s" if v >= 1000 else f"{v:g}" for v in ticks])
    axes.set_xticks([], minor=True)


_ID = re.compile(r'(\bid="|url\(#|xlink:href="#|(?<!xlink:)href="#)')
_DEFAULTS = re.compile(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", flags=re.S)
_FONT = re.compile(r"font: ((?:[a-z0-9 ]*?)[\d.]+px) [^;\"]*")
_FONTS = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"


def _finished(svg: str, name: str, description: str) -> str:
    """Own ids, a description, the reader's fonts, and colours for dark pages."""
    body = svg[svg.index("<svg") :]
    body = _ID.sub(lambda m: m.group(1) + f"{name}-", body)
    body = _FONT.sub(lambda m: f"font: {m.group(1)} {_FONTS}", body)
    body = _DEFAULTS.sub("", body)
    head, _, rest = body.partition(">")
    label = f' role="img" aria-labelledby="{name}-desc" stroke-linejoin="round" stroke-linecap="butt"'
    words = f'<desc id="{name}-desc">{_escaped(description)}</desc>'
    style = f"<style>{on_dark_pages('')}</style>"
    text = head + label + ">\n " + words + "\n " + style + rest
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def without_style(svg: str) -> str:
    """A drawing for a page that holds :func:`on_dark_pages` itself."""
    return re.sub(r" *<style>.*?</style>\n?", "", svg, count=1, flags=re.S)


def on_dark_pages(scope: str) -> str:
    """CSS that changes a figure's colours on a dark page.

    Args:
        scope: selector before each rule.
    """
    rules = []
    for light, dark in ON_DARK.items():
        for kind in ("fill", "stroke"):
            rules.append(f'{scope}[style*="{kind}: {light}"]{{{kind}:{dark}!important}}')
    return f"@media (prefers-color-scheme:dark){{{''.join(rules)}}}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
