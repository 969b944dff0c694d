"""How every chart of a report looks, and how it is drawn: SVG, in this process, without a browser or a network.

Not here: any particular chart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

WIDTH, HEIGHT = 930, 210
COLOURS = ["#2e7d4f", "#4c78a8", "#e6a23c", "#8e6bb0", "#b5594b", "#6b8f9c", "#a3a34d", "#7a7a7a"]
_INK, _SOFT, _LINE = "#17231c", "#5b6b62", "#dfe6e1"


def chart_of(rows: Sequence[Mapping[str, Any]], description: str) -> alt.Chart:
    """A chart over rows, with the name that those hear who do not see it."""
    import altair as alt

    data = alt.InlineData(values=list(rows))
    return alt.Chart(data, description=description).properties(width=WIDTH, height=HEIGHT)


def svg(chart: Any) -> str:
    """It grows and shrinks with the page, and is an image with a name to those who do not see it."""
    import vl_convert

    font = "system-ui, Segoe UI, Liberation Sans, sans-serif"
    axis = {
        "labelColor": _SOFT,
        "titleColor": _SOFT,
        "domainColor": _LINE,
        "tickColor": _LINE,
        "gridColor": _LINE,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelFont": font,
        "titleFont": font,
        "titleFontWeight": "normal",
    }
    legend = {"orient": "top", "labelColor": _INK, "labelFontSize": 12, "labelFont": font}
    described: dict[str, Any] = {
        **chart.to_dict(),
        "config": {"axis": axis, "legend": legend, "view": {"stroke": None}},
        "background": "transparent",
    }
    name = _escaped(described.get("description") or chart_name(described))
    drawn: str = vl_convert.vegalite_to_svg(described)
    opening, rest = drawn.split(">", 1)
    box = opening[opening.index("viewBox=") :].split('"')[1]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="marks" viewBox="{box}" role="img" aria-label="{name}">{rest}'
    )


def chart_name(described: dict[str, Any]) -> str:
    """The description of a chart of layers: that of its first."""
    layers = described.get("layer") or [{}]
    return str(layers[0].get("description", "Chart"))


def _escaped(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))
