"""From minute counts to burn alerts: where a budget burns now, and every spell in which it did since the last decision.

    burn(S, m) = sum(bad) / sum(total) / (1 - objective)      over the known minutes among (m - S, m]

A pair is above its factor while both its windows are; an alert holds while any of its pairs does (`windows.py`). A burn
that equals the factor is not above it, as in `certificate.py`. A spell begins with the first minute above; it is over when
no shorter window has been above for 5 known minutes on end, and it ended with the first of these.

Decided is as of the newest known minute, which may be long ago where data come late. Counts that change after they were
decided on open and close nothing, and a position never goes back: a clock that was set back, or minutes that are gone, leave
it where it is. Not here: what was decided before (`incidents.py`), who is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.instants import micros
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import SLO_MINUTES
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.burn_statements import SAME, column, pairs_of, rates, spells
from greenops_pipelines.slo.model import Alert, Slo
from greenops_pipelines.slo.windows import Window, Windows

State = Literal["burning", "quiet", "unknown"]
Severity = Literal["page", "ticket"]

STALE = timedelta(minutes=15)
CATCH_UP = timedelta(days=3)
"""Minutes before the newest that are still decided on: after a longer pause the rest is left alone, and that is said."""
_MINUTE = timedelta(minutes=1)
_LOOK_BACK_DAYS = 7


@dataclass(frozen=True)
class Position:
    """How far was decided: the minutes up to `through`. `incident` is the one that was open then; empty: none."""

    through: datetime
    incident: str = ""


@dataclass(frozen=True)
class PairBurn:
    """A pair at the newest known minute; burns as multiples of what is allowed."""

    short: timedelta
    long: timedelta
    factor: float
    short_burn: float
    long_burn: float

    @property
    def is_above(self) -> bool:
        return min(self.short_burn, self.long_burn) > self.factor * (1 + SAME)


@dataclass(frozen=True)
class Spell:
    """Minutes in which one alert held. Sums are over the known minutes from `opened_at` to `counted_to`.

    `continues`: it goes on from the incident of the position, and the sums are what came to it. `closed_at`: the first
    minute below; None while it goes on. `silent_since`: the first minute without events, where none came in those that
    closed it. `peak_burn` is of the shortest window.
    """

    opened_at: datetime
    closed_at: datetime | None
    silent_since: datetime | None
    counted_to: datetime
    continues: bool
    peak_burn: float
    bad: float
    total: float
    known_minutes: int


@dataclass(frozen=True)
class Burn:
    """One alert of an SLO, decided on. `since` is the position it was decided from, `through` the one to go on from."""

    slo: Slo
    severity: Severity
    source: str
    state: State
    why: str
    newest: datetime | None
    """Start of the newest known minute."""
    since: Position | None
    through: datetime | None
    """The last minute that is settled: in an open spell the last one that was not calm. None: nothing was decided."""
    pairs: tuple[PairBurn, ...] = ()
    spells: tuple[Spell, ...] = ()

    @property
    def alert(self) -> Alert:
        found = self.slo.page if self.severity == "page" else self.slo.ticket
        if found is None:
            raise AssertionError(f"unreachable: {self.slo.id} has no {self.severity} alert")
        return found


def burning(
    lake: Lake,
    slos: Iterable[Slo],
    windows_of: Callable[[Slo], Windows],
    source: str,
    now: datetime,
    positions: Mapping[tuple[str, str], Position] | None = None,
) -> list[Burn]:
    """Every burn alert of the SLOs, over the minutes of SLO_MINUTES of a source since its position.

    `positions` by SLO and severity, as `incidents.Incidents.positions` gives them for this source; without one, the last 3
    days are decided on. Unknown is an alert whose SLO is 15 minutes behind the others, or behind now with nothing new: nothing of it is
    decided, and its minutes wait until they come.
    """
    positions = positions or {}
    alerting = [slo for slo in slos if slo.page or slo.ticket]
    minutes, newest = _minutes(lake, source, now, alerting, windows_of, positions)
    groups: dict[Windows, list[Slo]] = {}
    for slo in alerting:
        groups.setdefault(windows_of(slo), []).append(slo)
    found = [
        burn
        for windows, group in groups.items()
        for burn in _decided(lake, group, windows, source, now, positions, minutes, newest)
    ]
    order = {slo.id: index for index, slo in enumerate(alerting)}
    return sorted(found, key=lambda burn: (order[burn.slo.id], burn.severity))


def alerts_of(slo: Slo) -> list[tuple[str, Severity]]:
    """SLO and severity of every burn alert that is declared."""
    alerts: tuple[tuple[Severity, Alert | None], ...] = (("page", slo.page), ("ticket", slo.ticket))
    return [(slo.id, severity) for severity, alert in alerts if alert]


def figure(value: float) -> str:
    """A number for people: three digits, from 100 on whole ones, and no exponent. 14.4; 0.0231; 1,000."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return "under 0.001" if 0 < value < 0.001 else f"{value:.3g}"


def _minutes(
    lake: Lake,
    source: str,
    now: datetime,
    slos: Sequence[Slo],
    windows_of: Callable[[Slo], Windows],
    positions: Mapping[tuple[str, str], Position],
) -> tuple[pa.Table, datetime | None]:
    """Rows of the minutes that are needed, and the newest that is known of any SLO. Only their days are read."""
    place = SLO_MINUTES.partition_by.index("day") + 2
    days = sorted(
        {
            date.fromisoformat(path.split("/")[place].removeprefix("day="))
            for path in lake.files(SLO_MINUTES, {"source": source})
        }
    )
    columns = ["slo_id", "minute", "total", "bad"]
    newest = None
    # The last file may hold nothing but gaps, and one in the future nothing that is over.
    for day in reversed(days[-_LOOK_BACK_DAYS:]):
        rows = lake.read(SLO_MINUTES, {"source": source, "day": day}, columns)
        if (newest := _newest(rows, now)) is not None:
            break
    if newest is None:
        return SLO_MINUTES.schema.empty_table().select(columns), None
    oldest = newest - CATCH_UP
    since = min((_begin(positions.get(key), oldest) for slo in slos for key in alerts_of(slo)), default=oldest)
    longest = max((windows_of(slo).lengths[-1] for slo in slos), default=timedelta())
    first = (since - longest).date()
    return lake.read(SLO_MINUTES, {"source": source, "day": (first, newest.date())}, columns), newest


def _newest(rows: pa.Table, now: datetime) -> datetime | None:
    """The newest minute that is over and known."""
    known = pc.and_(pc.is_valid(rows["total"]), pc.is_valid(rows["bad"]))
    over = pc.less_equal(rows["minute"], pa.scalar(now - _MINUTE, rows.schema.field("minute").type))
    newest: datetime | None = pc.max(rows["minute"].filter(pc.and_(known, over))).as_py()
    return newest


def _begin(position: Position | None, oldest: datetime) -> datetime:
    return oldest if position is None else max(position.through, oldest)


def _decided(
    lake: Lake,
    slos: Sequence[Slo],
    windows: Windows,
    source: str,
    now: datetime,
    positions: Mapping[tuple[str, str], Position],
    minutes: pa.Table,
    newest: datetime | None,
) -> list[Burn]:
    """The alerts of SLOs that share their windows."""
    oldest = newest - CATCH_UP if newest else now
    keys = [(slo, severity) for slo in slos for _, severity in alerts_of(slo)]
    given = [
        {
            "slo_id": slo.id,
            "severity": severity,
            "after": _number(_begin(positions.get((slo.id, severity)), oldest)),
            "is_open": int(bool((known := positions.get((slo.id, severity))) and known.incident)),
            "allowed": (100 - slo.objective) / 100,
        }
        for slo, severity in keys
    ]
    with lake.bare() as connection:
        connection.register("minutes", minutes)
        connection.register("given", pa.Table.from_pylist(given, schema=_GIVEN))
        connection.execute(rates(windows), [_number(now - _MINUTE)])
        latest = {row["slo_id"]: row for row in _rows(connection.sql(_LATEST))}
        rows = _rows(connection.sql(spells(windows)))
    by_key: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_key.setdefault((row["slo_id"], row["severity"]), []).append(row)
    return [
        _burn(
            slo,
            severity,
            source,
            now,
            newest,
            positions.get((slo.id, severity)),
            pairs_of(windows, severity),
            windows.period,
            latest.get(slo.id),
            by_key.get((slo.id, severity), []),
        )
        for slo, severity in keys
    ]


_LATEST = "select * from rates qualify row_number() over (partition by slo_id order by m desc) = 1"


def _rows(answer: Any) -> list[dict[str, Any]]:
    found: pa.Table = answer.to_arrow_table()
    return list(found.to_pylist())


_GIVEN = pa.schema(
    [
        ("slo_id", pa.string()),
        ("severity", pa.string()),
        ("after", pa.int64()),
        ("is_open", pa.int64()),
        ("allowed", pa.float64()),
    ]
)


def _burn(
    slo: Slo,
    severity: Severity,
    source: str,
    now: datetime,
    newest: datetime | None,
    since: Position | None,
    windows: Sequence[Window],
    period: timedelta,
    latest: Mapping[str, Any] | None,
    rows: Sequence[Mapping[str, Any]],
) -> Burn:
    mine = _moment(latest["m"]) if latest else None

    def unknown(why: str) -> Burn:
        return Burn(slo, severity, source, "unknown", why, mine, since, None)

    if mine is None or latest is None or newest is None:
        return unknown("no minute of it is known")
    if newest - mine > STALE:
        return unknown(f"nothing is known of it since {mine:%Y-%m-%d %H:%M}, and of others until {newest:%H:%M}")
    if since and mine <= since.through and now - mine > STALE:
        return unknown(f"nothing new is known since {mine:%Y-%m-%d %H:%M}")
    pairs = tuple(
        PairBurn(each.short, each.long, each.factor(period), latest[column(each.short)], latest[column(each.long)])
        for each in windows
    )
    found = tuple(_spell(row) for row in rows)
    is_above = any(pair.is_above for pair in pairs)
    is_open = found[-1].closed_at is None if found else bool(since and since.incident)
    said = _said(pairs, is_above=is_above, mine=mine)
    if since and since.through < newest - CATCH_UP:
        said += (
            f"; minutes before {newest - CATCH_UP:%Y-%m-%d %H:%M} were left out, since the last look was before that"
        )
    if not is_open:
        through = max(mine, since.through) if since else mine
    elif found:
        through = found[-1].counted_to
    else:
        through = since.through if since else mine
    return Burn(slo, severity, source, "burning" if is_above else "quiet", said, mine, since, through, pairs, found)


def _said(pairs: Sequence[PairBurn], *, is_above: bool, mine: datetime) -> str:
    shown = ", ".join(
        f"{figure(pair.short_burn)}x over {durations.text(pair.short)} and {figure(pair.long_burn)}x over "
        f"{durations.text(pair.long)} ({figure(pair.factor)}x allowed)"
        for pair in pairs
    )
    return f"{'above' if is_above else 'not above'} at {mine:%Y-%m-%d %H:%M}: {shown}"


def _spell(row: Mapping[str, Any]) -> Spell:
    return Spell(
        _moment(row["opened"]),
        None if row["closed"] is None else _moment(row["closed"]),
        None if row["silent"] is None else _moment(row["silent"]),
        _moment(row["counted_to"]),
        bool(row["continues"]),
        float(row["peak"] or 0.0),
        float(row["bad"] or 0.0),
        float(row["total"] or 0.0),
        int(row["known"]),
    )


def _number(moment: datetime) -> int:
    """Minutes since 1970."""
    return micros(moment) // 60_000_000


def _moment(number: int) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC)) + timedelta(minutes=number)
