"""Charts of the FinOps report: described with Altair, drawn as SVG in this process, without a browser or a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from greenops_pipelines.report.charts import COLOURS, HEIGHT, WIDTH, chart_of, svg

if TYPE_CHECKING:
    import altair as alt

    from greenops_pipelines.report.finops_figures import Row


def daily(rows: Sequence[Row], currency: str, first: date, last: date) -> str:
    """Amortised cost per day, stacked by provider."""
    import altair as alt

    shown = [
        {"day": _local(row["day"]), "provider": _drawable(row["provider"]) or "not said", "cost": row["effective_cost"]}
        for row in rows
        if row["currency"] == currency
    ]
    chart = (
        chart_of(shown, f"Amortised cost per day by provider, {currency}")
        .mark_bar(size=_bar((last - first).days + 1), clip=True)
        .encode(
            x=alt.X("day:T", title=None, axis=_days((last - first).days + 1), scale=_span(first, last)),
            y=alt.Y("cost:Q", title=currency, axis=alt.Axis(format="~s", tickCount=5)),
            color=alt.Color("provider:N", title=None, scale=alt.Scale(range=COLOURS)),
            order=alt.Order("provider:N"),
        )
    )
    return svg(chart)


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
    base = chart_of(shown, f"Spent so far and expected for the month, {currency}")
    x = alt.X("day:T", title=None, axis=_days(len(shown)))
    y = alt.Y("low:Q", title=currency, axis=alt.Axis(format="~s", tickCount=5))
    band = base.mark_area(color=COLOURS[1], opacity=0.25).encode(x=x, y=y, y2="high:Q")
    line = base.mark_line(color=COLOURS[1], strokeWidth=2).encode(x=x, y="expected:Q")
    spent = base.mark_line(color=COLOURS[0], strokeWidth=2).encode(x=x, y="spent:Q")
    layered: Any = alt.layer(band, line, spent).properties(width=WIDTH, height=HEIGHT)
    return svg(layered)


def _local(day: date) -> str:
    """A day that Vega draws where it is: without a time of day it would be taken for UTC, and drawn in local time."""
    return f"{day}T00:00:00"


def _drawable(text: str) -> str:
    """Without what XML cannot hold: vl-convert ends the process over it."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\N{REPLACEMENT CHARACTER}", text)


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
    return max(3.0, min(28.0, 0.7 * WIDTH / max(days, 1)))
