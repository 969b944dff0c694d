"""From a provider into the lake: what is new or changed is appended, what failed is recorded, nothing is overwritten.

The lake keeps observations. A value that is the same as the last one known is not stored again; a null never
replaces a value, it is only stored where nothing was known; a zone that fails leaves a row in `carbon_fetches`
and everything that was there before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.carbon.provider import FORECAST, Provider
from greenops_pipelines.errors import GreenopsError, ProviderError, TransientError
from greenops_pipelines.lake import Lake, Written
from greenops_pipelines.lake.tables import CARBON_FETCHES, CARBON_FORECAST, CARBON_INTENSITY

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """One zone's outcome."""

    zone: str
    intervals: int = 0
    new_rows: int = 0
    revised_rows: int = 0
    null_rows: int = 0
    error: str | None = None

    @property
    def outcome(self) -> str:
        return "failed" if self.error else "gaps" if self.null_rows else "complete"


@dataclass(frozen=True)
class Ingested:
    """What one ingestion did over all zones."""

    zones: tuple[Fetched, ...]
    written: Written

    @property
    def failed(self) -> list[Fetched]:
        return [z for z in self.zones if z.error]

    def total(self, field: str) -> int:
        """Sum of a count over all zones."""
        return sum(int(getattr(zone, field)) for zone in self.zones)


def ingest_history(
    provider: Provider, lake: Lake, zones: Iterable[str], start: datetime, end: datetime, run_id: str, now: datetime
) -> Ingested:
    """Fetch [start, end) for every zone and append what the lake does not know yet.

    If every zone failed, raises the first error that no retry can help, or else a `TransientError`. A zone's failure is
    logged, recorded and shown either way, and the others are kept.
    """
    points, outcomes, errors = _each(provider, zones, lambda zone: provider.history(zone, start, end))
    if errors and not points:
        _record(lake, provider.name, "history", outcomes, start, end, run_id, now)
        raise _worst(errors)
    rows = _stamped(points, provider.name, now)
    fresh, revised = _news(lake, rows, provider.name)
    written = lake.append(CARBON_INTENSITY, fresh, now, run_id)
    counted = [_counted(o, points.get(o.zone), fresh, revised) for o in outcomes]
    _record(lake, provider.name, "history", counted, start, end, run_id, now)
    return Ingested(tuple(counted), written)


def ingest_forecast(provider: Provider, lake: Lake, zones: Iterable[str], run_id: str, now: datetime) -> Ingested:
    """Fetch the newest forecast of every zone and append it; forecasts already stored are not stored again.

    Raises as `ingest_history` does.
    """
    points, outcomes, errors = _each(provider, zones, provider.forecast)
    if errors and not points:
        _record(lake, provider.name, "forecast", outcomes, now, now, run_id, now)
        raise _worst(errors)
    rows = pa.concat_tables([*points.values(), FORECAST.empty_table()])
    rows = _with(
        rows, {"provider": provider.name, "observed_at": now, "day": now.astimezone(UTC).date()}, CARBON_FORECAST.schema
    )
    known = lake.query(
        "select distinct zone, issued_at, signal, emission_factor_type from carbon_forecast_all where provider = ?",
        [provider.name],
    )
    keys = known.column_names
    fresh = (
        rows.join(known, keys, join_type="left anti").select(CARBON_FORECAST.schema.names).cast(CARBON_FORECAST.schema)
    )
    written = lake.append(CARBON_FORECAST, fresh, now, run_id)
    counts = {z["values"]: z["counts"] for z in pc.value_counts(fresh["zone"]).to_pylist()}
    done = [
        Fetched(o.zone, points[o.zone].num_rows, counts.get(o.zone, 0)) if o.zone in points else o for o in outcomes
    ]
    until = pc.max(rows["datetime"]).as_py() or now
    _record(lake, provider.name, "forecast", done, now, until, run_id, now)
    return Ingested(tuple(done), written)


def _each(
    provider: Provider, zones: Iterable[str], fetch: Callable[[str], pa.Table]
) -> tuple[dict[str, pa.Table], list[Fetched], list[GreenopsError]]:
    """What every zone answered, its outcome, and the errors of those that failed."""
    points: dict[str, pa.Table] = {}
    outcomes: list[Fetched] = []
    errors: list[GreenopsError] = []
    for zone in zones:
        try:
            points[zone] = _of_zone(provider, zone, fetch(zone))
            outcomes.append(Fetched(zone))
        except GreenopsError as error:
            _log.warning("zone %s: %s", zone, error)
            errors.append(error)
            outcomes.append(Fetched(zone, error=str(error)[:500]))
    return points, outcomes, errors


def _worst(errors: list[GreenopsError]) -> GreenopsError:
    """The first that no retry can help, else the last."""
    return next((e for e in errors if not isinstance(e, TransientError)), errors[-1])


def _of_zone(provider: Provider, zone: str, rows: pa.Table) -> pa.Table:
    strangers = pc.unique(rows["zone"]).to_pylist()
    if strangers not in ([], [zone]):
        raise ProviderError(f"{provider.name}: asked for zone {zone}, found {strangers}")
    return rows


def _stamped(points: dict[str, pa.Table], provider: str, now: datetime) -> pa.Table:
    tables = [t for t in points.values() if t.num_rows]
    if not tables:
        return CARBON_INTENSITY.schema.empty_table()
    rows = pa.concat_tables(tables)
    rows = rows.append_column("day", rows["datetime"].cast(pa.timestamp("us")).cast(pa.date32()))
    return _with(rows, {"provider": provider, "observed_at": now}, CARBON_INTENSITY.schema)


def _with(rows: pa.Table, constants: dict[str, object], schema: pa.Schema) -> pa.Table:
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, schema.field(name).type), rows.num_rows))
    return rows.select(schema.names).cast(schema)


_CONTENT = ("carbon_intensity_g_per_kwh", "resolution_minutes", "is_estimated", "is_flow_traced")
"""What makes an observation news when it differs."""


def _packed(prefix: str) -> str:
    return f"struct_pack({', '.join(f'{name} := {prefix}{name}' for name in _CONTENT)})"


_NEWS = f"""
with known as (
    select zone, datetime, signal, emission_factor_type,
        arg_max({_packed("")}, observed_at) filter (carbon_intensity_g_per_kwh is not null) as seen,
        true as is_known
    from known_rows
    group by all
)

select f.*, k.is_known is not null as is_revision
from fetched as f
left join known as k using (zone, datetime, signal, emission_factor_type)
where case
    when f.carbon_intensity_g_per_kwh is null then k.is_known is null
    else k.seen is distinct from {_packed("f.")}
end
"""


def _news(lake: Lake, rows: pa.Table, provider: str) -> tuple[pa.Table, pa.Table]:
    """Rows that say something the lake does not know yet, and those of them that change a known value."""
    if not rows.num_rows:
        return rows, rows
    days = pc.min_max(rows["day"]).as_py()
    known = lake.read(CARBON_INTENSITY, {"provider": provider, "day": (days["min"], days["max"])})
    with lake.bare() as connection:
        connection.register("fetched", rows)
        connection.register("known_rows", known)
        found = connection.sql(_NEWS).to_arrow_table()
    revised = found.filter(found["is_revision"])
    names = CARBON_INTENSITY.schema.names
    return found.select(names).cast(CARBON_INTENSITY.schema), revised.select(names).cast(CARBON_INTENSITY.schema)


def _counted(outcome: Fetched, points: pa.Table | None, fresh: pa.Table, revised: pa.Table) -> Fetched:
    if points is None:
        return outcome
    nulls = points["carbon_intensity_g_per_kwh"].null_count
    changed = pc.sum(pc.equal(revised["zone"], outcome.zone)).as_py() or 0
    news = (pc.sum(pc.equal(fresh["zone"], outcome.zone)).as_py() or 0) - changed
    return Fetched(outcome.zone, points.num_rows - nulls, news, changed, nulls)


def _record(
    lake: Lake,
    provider: str,
    kind: str,
    outcomes: list[Fetched],
    start: datetime,
    end: datetime,
    run_id: str,
    now: datetime,
) -> None:
    day = now.astimezone(UTC).date()
    rows = [
        {
            "provider": provider,
            "kind": kind,
            "zone": o.zone,
            "requested_from": start,
            "requested_to": end,
            "outcome": o.outcome,
            "intervals": o.intervals,
            "new_rows": o.new_rows,
            "revised_rows": o.revised_rows,
            "null_rows": o.null_rows,
            "error": o.error,
            "observed_at": now,
            "day": day,
        }
        for o in outcomes
    ]
    lake.append(CARBON_FETCHES, pa.Table.from_pylist(rows, schema=CARBON_FETCHES.schema), now, run_id)
