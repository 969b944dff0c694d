"""Charts of the FinOps report: described with Altair, drawn as SVG in this process, without a browser or a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

    from greenops_pipelines.report.finops_figures import Row

_WIDTH, _HEIGHT = 930, 210
_COLOURS = ["#2e7d4f", "#4c78a8", "#e6a23c", "#8e6bb0", "#b5594b", "#6b8f9c", "#a3a34d", "#7a7a7a"]
_INK, _SOFT, _LINE = "#17231c", "#5b6b62", "#dfe6e1"


def daily(rows: Sequence[Row], currency: str, first: date, last: date) -> str:
    """Amortised cost per day, stacked by provider."""
    import altair as alt

    shown = [
        {"day": _local(row["day"]), "provider": _drawable(row["provider"]) or "not said", "cost": row["effective_cost"]}
        for row in rows
        if row["currency"] == currency
    ]
    chart = (
        _chart(shown, f"Amortised cost per day by provider, {currency}")
        .mark_bar(size=_bar((last - first).days + 1), clip=True)
        .encode(
            x=alt.X("day:T", title=None, axis=_days((last - first).days + 1), scale=_span(first, last)),
            y=alt.Y("cost:Q", title=currency, axis=alt.Axis(format="~s", tickCount=5)),
            color=alt.Color("provider:N", title=None, scale=alt.Scale(range=_COLOURS)),
            order=alt.Order("provider:N"),
        )
    )
    return _svg(chart)


def outlook(rows: Sequence[Row], currency: str) -> str:
    """What the month was spent so far on each day, and what it was then expected to cost, with its interval."""
    import altair as alt

    shown = [
        {
            "day": _local(row["as_of"]),
            "spent": row["spent"],
            "expected": row["expected"],
            "low": row["low"],
            "high": row["high"],
        }
        for row in rows
        if row["currency"] == currency
    ]
    base = _chart(shown, f"Spent so far and expected for the month, {currency}")
    x = alt.X("day:T", title=None, axis=_days(len(shown)))
    y = alt.Y("low:Q", title=currency, axis=alt.Axis(format="~s", tickCount=5))
    band = base.mark_area(color=_COLOURS[1], opacity=0.25).encode(x=x, y=y, y2="high:Q")
    line = base.mark_line(color=_COLOURS[1], strokeWidth=2).encode(x=x, y="expected:Q")
    spent = base.mark_line(color=_COLOURS[0], strokeWidth=2).encode(x=x, y="spent:Q")
    layered: Any = alt.layer(band, line, spent).properties(width=_WIDTH, height=_HEIGHT)
    return _svg(layered)


def _local(day: date) -> str:
    """A day that Vega draws where it is: without a time of day it would be taken for UTC, and drawn in local time."""
    return f"{day}T00:00:00"


def _drawable(text: str) -> str:
    """Without what XML cannot hold: vl-convert ends the process over it."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\N{REPLACEMENT CHARACTER}", text)


def _chart(rows: Sequence[Row], description: str) -> alt.Chart:
    import altair as alt

    data = alt.InlineData(values=list(rows))
    return alt.Chart(data, description=description).properties(width=_WIDTH, height=_HEIGHT)


def _days(days: int) -> alt.Axis:
    import altair as alt

    # Vega's own choice for a week is every twelve hours, which names each day twice.
    every: Any = {"interval": "day", "step": max(1, days // 15)}
    return alt.Axis(format="%-d %b", grid=False, labelOverlap=True, tickCount=every)


def _span(first: date, last: date) -> alt.Scale:
    import altair as alt

    # Half a day around, so that the first and the last bar are whole.
    half = timedelta(hours=12)
    ends = (datetime(d.year, d.month, d.day) for d in (first, last))  # noqa: DTZ001 - Vega's own days have no zone
    begin, end = next(ends) - half, next(ends) + half
    return alt.Scale(domain=[begin.isoformat(), end.isoformat()])


def _bar(days: int) -> float:
    return max(3.0, min(28.0, 0.7 * _WIDTH / max(days, 1)))


def _svg(chart: Any) -> str:
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
    svg: str = vl_convert.vegalite_to_svg(described)
    opening, rest = svg.split(">", 1)
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
