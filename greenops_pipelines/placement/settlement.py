"""What launched work really emitted, against the same work at home at its earliest start: by actual intensity alone.

The terms are those of the plan (`model.account`), so that expected and settled grams compare. Where an hour has no actual
yet, the row waits. What was thrown away by a failure or a loss counts against placement; the counterfactual had no such
luck to have. A decision by marginal intensity is settled by the average as any other; what it expected is other grams, and
stays null. Not here: forecasts, and marginal intensity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.carbon.factors import embodied_g_per_kwh, read_factors, values
from greenops_pipelines.lake.tables import PLACEMENT_SETTLEMENTS
from greenops_pipelines.placement import files
from greenops_pipelines.placement.model import (
    HOUR,
    MINUTE,
    Bools,
    Floats,
    Grid,
    Ints,
    Jobs,
    Schedule,
    account,
    integral,
)

if TYPE_CHECKING:
    from greenops_pipelines.carbon.regions import Region
    from greenops_pipelines.lake import Lake

_SLOT_MINUTES = 15


def from_lake(lake: Lake, provider: str, regions: Sequence[Region]) -> pa.Table:
    """Rows of PLACEMENT_SETTLEMENTS for every dispatch in the lake, by the actuals of one provider."""
    dispatches = lake.query("from placement_dispatches order by key")
    attempts = lake.query("from placement_attempts order by key, attempt")
    first = pc.min(dispatches["earliest_start"]).as_py()
    actuals = lake.query(_ACTUALS, {"provider": provider, "first": first})
    return settle(dispatches, attempts, actuals, regions, provider)


# An hour before: an interval that began earlier may reach into the first minutes.
_ACTUALS = """
select zone, datetime, resolution_minutes, carbon_intensity_g_per_kwh, is_estimated, observed_at from carbon_intensity
where provider = $provider and signal = 'average' and carbon_intensity_g_per_kwh is not null
    and datetime >= $first::timestamptz - interval 1 hour
"""


def settle(
    dispatches: pa.Table, attempts: pa.Table, actuals: pa.Table, regions: Sequence[Region], provider: str
) -> pa.Table:
    """Rows of PLACEMENT_SETTLEMENTS, one per dispatch, from rows of PLACEMENT_DISPATCHES and PLACEMENT_ATTEMPTS.

    `actuals` has zone, datetime, resolution_minutes, carbon_intensity_g_per_kwh, is_estimated, observed_at.
    """
    table, factors = read_factors(), {}
    factors = values(table)
    ran = _ran(dispatches, attempts)
    grid, estimated = _grids(actuals, regions, factors)
    work = _Work(dispatches, grid, regions)
    job, place = (
        ran["job"].to_numpy(),
        np.array([work.position.get(r, -1) for r in ran["region"].to_pylist()], dtype=np.int64),
    )
    start, end = (ran[name].cast(pa.int64()).to_numpy() for name in ("began_at", "ended_at"))
    is_useful = ran["is_useful"].to_numpy(zero_copy_only=False).astype(bool)
    known = place >= 0
    count = dispatches.num_rows
    total = np.bincount(job, end - start, minlength=count).astype(np.int64)
    useful = np.bincount(job[is_useful], (end - start)[is_useful], minlength=count).astype(np.int64)
    schedule = _schedule(job[known], place[known], start[known], end[known], count)
    actual = account(work.jobs(total), grid, schedule)
    at_home = work.home >= 0
    earliest = dispatches["earliest_start"].cast(pa.int64()).to_numpy()
    home = _schedule(
        np.flatnonzero(at_home), work.home[at_home], earliest[at_home], (earliest + useful)[at_home], count
    )
    counterfactual = account(work.jobs(useful), grid, home)
    thrown = known & ~is_useful
    power = work.power[job]
    wasted = np.bincount(
        job[thrown],
        (power * grid.pue[place.clip(0)] * integral(grid, grid.intensity, place.clip(0), start, end))[thrown],
        minlength=count,
    )
    seen = np.bincount(
        np.concatenate([job[known], np.flatnonzero(at_home)]),
        np.concatenate(
            [
                integral(estimated, estimated.intensity, place[known], start[known], end[known]),
                integral(
                    estimated, estimated.intensity, work.home[at_home], earliest[at_home], (earliest + useful)[at_home]
                ),
            ]
        ),
        minlength=count,
    )
    figures = pa.table(
        {
            "job": np.arange(count),
            "ran_minutes": total / MINUTE,
            "useful_minutes": useful / MINUTE,
            "energy_kwh": work.power * total / HOUR,
            "operational_g": _nullable(actual.operational_g),
            "transfer_g": _nullable(actual.transfer_g),
            "embodied_g": _nullable(actual.embodied_g),
            "wasted_g": _nullable(wasted.astype(float)),
            "counterfactual_g": _nullable(counterfactual.total_g),
            "is_estimated": pa.array(np.nan_to_num(seen, nan=0.0) > 0),
        }
    )
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        for name, rows in {
            "dispatches": _numbered(dispatches),
            "ran": ran,
            "figures": figures,
            "attempts": attempts,
        }.items():
            connection.register(name, rows)
        known_by = {
            "provider": provider,
            "as_of": pc.max(actuals["observed_at"]).as_py(),
            "vintage": str(max(table["vintage"].to_pylist(), default="")),
        }
        found = connection.sql(_ROWS, params=known_by).to_arrow_table()
    return found.select(PLACEMENT_SETTLEMENTS.schema.names).cast(PLACEMENT_SETTLEMENTS.schema)


class _Work:
    """Dispatches as jobs of the placement model."""

    def __init__(self, dispatches: pa.Table, grid: Grid, regions: Sequence[Region]) -> None:
        self.position = {region.region: number for number, region in enumerate(regions)}
        self.power = dispatches["power_kw"].to_numpy()
        self.home = np.array([self.position.get(r, -1) for r in dispatches["home_region"].to_pylist()], dtype=np.int64)
        self._keys = tuple(dispatches["key"].to_pylist())
        self._data = dispatches["data_gb"].to_numpy()
        self._places = len(grid.places)

    def jobs(self, duration: Ints) -> Jobs:
        """Only what an account needs of them."""
        count, none = len(self._keys), np.zeros(len(self._keys), dtype=np.int64)
        allowed: Bools = np.ones((count, self._places), dtype=bool)
        free = np.ones(count, dtype=bool)
        return Jobs(
            self._keys, none, none, none, duration, self.power, free, self.home.clip(0), allowed, self._data,
            np.zeros(count),
        )  # fmt: skip


def _schedule(job: Ints, place: Ints, start: Ints, end: Ints, count: int) -> Schedule:
    return Schedule.of([(job, place, start, end)], count)


def _grids(actuals: pa.Table, regions: Sequence[Region], factors: dict[str, float]) -> tuple[Grid, Grid]:
    """Actual intensity per region; and, of the same shape, 1 where it is an estimate."""
    estimates = actuals.set_column(
        actuals.schema.get_field_index("carbon_intensity_g_per_kwh"),
        "carbon_intensity_g_per_kwh",
        pa.array(actuals["is_estimated"].fill_null(False).to_numpy().astype(float)),
    )
    found = []
    for rows in (actuals, estimates):
        if rows.num_rows:
            series = files.series(rows, _SLOT_MINUTES)
        else:
            series = files.Series((), 0, _SLOT_MINUTES * MINUTE, np.zeros((0, 1)))
        slots = series.values.shape[1]
        empty = np.full(slots, np.nan)
        values_of = [series.values[series.zones.index(r.zone)] if r.zone in series.zones else empty for r in regions]
        found.append(
            Grid(
                tuple(region.region for region in regions),
                series.start,
                series.step,
                np.stack(values_of),
                np.array([region.pue for region in regions]),
                np.full((len(regions), slots), np.inf),
                factors["network_kwh_per_gb"],
                embodied_g_per_kwh(factors),
            )
        )
    return found[0], found[1]


def _ran(dispatches: pa.Table, attempts: pa.Table) -> pa.Table:
    """Attempts that ran and ended, with the row of their dispatch, and whether what they did was of use."""
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("dispatches", _numbered(dispatches))
        connection.register("attempts", attempts)
        return connection.sql(_RAN).to_arrow_table()


def _numbered(dispatches: pa.Table) -> pa.Table:
    return dispatches.append_column("job", pa.array(np.arange(dispatches.num_rows)))


def _nullable(values: Floats) -> pa.Array:
    return pa.array(np.asarray(values, dtype=float), from_pandas=True)


# What an interruptible program did before it was lost is saved, as far as anyone knows; all else begins anew.
_RAN = """
select d.job, a.region, a.began_at, greatest(a.ended_at, a.began_at) as ended_at,
    a.outcome in ('succeeded', 'paused') or (a.outcome = 'lost' and d.interruptible) as is_useful
from attempts as a inner join dispatches as d on d.key = a.key
where a.attempt > 0 and a.ended_at is not null
    and a.outcome in ('succeeded', 'failed', 'timed out', 'paused', 'lost')
order by d.job, a.attempt
"""

_ROWS = """
with tried as (
    select key, arg_max(outcome, attempt) as last, bool_or(outcome = 'succeeded') as done,
        count(*) filter (outcome in ('failed', 'timed out')) as failures
    from attempts where attempt > 0 and outcome <> 'refused' group by key
),

places as (
    select job, count(*) as attempts, min(began_at) as began_at, max(ended_at) as ended_at
    from ran group by job
),

longest as (
    select job, arg_max(region, seconds) as region from (
        select job, region, sum(epoch(ended_at - began_at)) as seconds from ran group by all
    ) group by job
),

put_together as (
    select d.*, p.attempts, p.began_at, p.ended_at, l.region as ran_in, t.last, t.done,
        f.* exclude (job),
        f.operational_g + f.transfer_g + f.embodied_g as actual_g
    from dispatches as d
    inner join figures as f on f.job = d.job
    left join places as p on p.job = d.job
    left join longest as l on l.job = d.job
    left join tried as t on t.key = d.key
),

judged as (
    select *, case
        when last is null or last = 'rendered' then 'not run'
        when not done and last in ('running', 'paused', 'lost') then 'open'
        when not done then 'failed'
        when actual_g is null or counterfactual_g is null then 'awaiting actuals'
        else 'settled'
    end as state_now
    from put_together
)

select key, workload, kind, tenant, service, home_region, ran_in as region, state_now as state, began_at, ended_at, deadline,
    coalesce(attempts, 0) as attempts, ran_minutes, useful_minutes, energy_kwh,
    case when ran_in is not null then operational_g end as operational_g,
    case when ran_in is not null then transfer_g end as transfer_g,
    case when ran_in is not null then embodied_g end as embodied_g,
    case when ran_in is not null then actual_g end as actual_g,
    case when ran_in is not null then wasted_g end as wasted_g,
    case when state_now = 'settled' then counterfactual_g end as counterfactual_g,
    case when state_now = 'settled' then counterfactual_g - actual_g end as avoided_g,
    case when signal = 'average' then avoided_g end as expected_avoided_g,
    case when state_now = 'settled' then is_estimated end as is_estimated,
    $provider as provider, $as_of::timestamptz as actuals_as_of, $vintage as factor_vintage
from judged order by key
"""
