"""The plan of this moment: every request that waits, where and when it runs, why, and how good the plan can be.

Here: requests and an outlook in, rows of PLACEMENT_PLAN out. Not here: the search itself (`optimise.py`), and launching.
Residency is applied here again, from the declarations of this moment: a request that was accepted under others is held
to today's. Work whose deadline can no longer be met is planned at home, as soon as there is room: late is better than
never, and it has no choice left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa

from greenops_pipelines.carbon.factors import embodied_g_per_kwh, read_factors, values
from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.instants import micros
from greenops_pipelines.lake.tables import PLACEMENT_PLAN
from greenops_pipelines.placement import files, optimise, policies
from greenops_pipelines.placement.belief import Belief
from greenops_pipelines.placement.model import MINUTE, Bools, Floats, Grid, Jobs, Schedule, account
from greenops_pipelines.placement.residency import allowed_regions
from greenops_pipelines.placement.sight import Sight

if TYPE_CHECKING:
    from greenops_pipelines.carbon.regions import Region, Tenant
    from greenops_pipelines.placement.workloads import Placement

CARBON_AWARE = frozenset({"optimal", "greedy", "carbon-first"})
"""Policies that look at the grid; `cost-first` and `run-now-home` do not."""

SLOT_MINUTES = 15
"""Room is counted by slots that a job touches: in whole hours, half an hour of work would take a whole one."""


@dataclass(frozen=True)
class Busy:
    """Room of a region that work which was launched before takes, or is to take when it goes on."""

    region: str
    start: datetime
    end: datetime
    power_kw: float


@dataclass(frozen=True)
class Plan:
    """Rows of PLACEMENT_PLAN, and the figures a person asks for first. Grams, manufacture included."""

    rows: pa.Table
    method: str
    expected_g: float
    baseline_g: float
    bound_g: float
    gap_pct: float
    refused: Mapping[str, str]
    """Requests that may run nowhere under today's declarations, and why."""


def make(
    requests: pa.Table,
    outlook: pa.Table,
    regions: Sequence[Region],
    tenants: Sequence[Tenant],
    settings: Placement,
    now: datetime,
    *,
    done: Collection[str] = (),
    busy: Collection[Busy] = (),
    signal: str = "average",
    seconds: float = 20.0,
) -> Plan:
    """The plan for rows of PLACEMENT_REQUESTS that are not `done`, by an outlook, in the room that `busy` leaves.

    `signal` says what the outlook's grams are, average or marginal, and so those of the plan.
    Raises `ConfigurationError` where money counts and a region has no price.
    """
    grid = _grid(outlook, regions, settings, now, busy)
    index, refused = _open(requests, regions, tenants, done)
    jobs, overdue = _jobs(requests.take(pa.array(index)), regions, tenants, settings, now)
    if settings.policy == "cost-first" or (jobs.cost_weight_g is not None and jobs.cost_weight_g.any()):
        missing = [region.region for region in regions if region.price_per_kwh is None]
        if missing:
            raise ConfigurationError(
                f"ops/workloads.yaml: placement: money counts (policy {settings.policy}, cost_weight_g), but "
                f"ops/regions.yaml has no price_per_kwh for {', '.join(missing)}"
            )
    sight = Sight(grid, Belief("outlook", grid.intensity), "both")
    best = optimise.optimise(jobs, sight, seconds=seconds)
    schedule, method = best.schedule, best.method
    if settings.policy != "optimal":
        limited = bool(jobs.allowed[:, grid.is_limited].any())
        schedule = policies.decide(
            settings.policy, jobs, Sight(grid, sight.belief, "both", free_kw=grid.capacity_kw if limited else None)
        )
        method = settings.policy
    baseline = policies.decide("run-now-home", jobs, sight)
    expected, before = account(jobs, grid, schedule), account(jobs, grid, baseline)
    known = np.isfinite(expected.total_g) & ~schedule.fallbacks
    embodied = float(expected.embodied_g[known].sum())
    total = float(expected.total_g[known].sum())
    # Of work whose grid nobody knows there is no bound either: both sides are over what is known.
    bound = best.bound + embodied
    gap = 100 * (total - bound) / bound if bound > 0 and total > bound and settings.policy == "optimal" else 0.0
    if settings.policy != "optimal" and bound > 0:
        gap = max(100 * (total - bound) / bound, 0.0)
    state = np.where(schedule.late | overdue, "late", np.where(schedule.fallbacks, "fallback", "planned"))
    rows = _rows(
        requests.take(pa.array(index)), jobs, grid, regions, schedule, expected.total_g, before.total_g, settings.policy,
        state,
    )  # fmt: skip
    rows = _worded(rows, method, bound, gap, signal, now)
    comparable = known & np.isfinite(before.total_g)
    return Plan(
        rows,
        method,
        float(expected.total_g[comparable].sum()),
        float(before.total_g[comparable].sum()),
        bound,
        gap,
        refused,
    )


def _grid(
    outlook: pa.Table, regions: Sequence[Region], settings: Placement, now: datetime, busy: Collection[Busy]
) -> Grid:
    """Regions over the slots of the outlook; a region whose zone it does not have is there, without values."""
    factor = values(read_factors())
    if outlook.num_rows:
        found = files.series(outlook, SLOT_MINUTES)
    else:
        begin = int(now.timestamp()) // 3600 * 3_600_000_000
        found = files.Series((), begin, SLOT_MINUTES * MINUTE, np.zeros((0, 1)))
    slots = found.values.shape[1]
    empty = np.full(slots, np.nan)
    series = [found.values[found.zones.index(r.zone)] if r.zone in found.zones else empty for r in regions]
    limits = np.array([settings.capacity_kw.get(region.region, np.inf) for region in regions], dtype=float)
    room = np.repeat(limits[:, None], slots, axis=1)
    position = {region.region: number for number, region in enumerate(regions)}
    for each in busy:
        if each.region in position:
            first = max((micros(each.start) - found.start) // found.step, 0)
            last = -((found.start - micros(each.end)) // found.step)
            room[position[each.region], first : max(last, 0)] -= each.power_kw
    prices = [region.price_per_kwh for region in regions]
    return Grid(
        tuple(region.region for region in regions),
        found.start,
        found.step,
        np.stack(series),
        np.array([region.pue for region in regions]),
        np.maximum(room, 0.0),
        factor["network_kwh_per_gb"],
        embodied_g_per_kwh(factor),
        None if any(price is None for price in prices) else np.array([float(price or 0) for price in prices]),
    )


def refusals(
    requests: pa.Table, regions: Sequence[Region], tenants: Sequence[Tenant], done: Collection[str] = ()
) -> Mapping[str, str]:
    """Requests not `done` that may run nowhere under today's declarations, and why."""
    return _open(requests, regions, tenants, done)[1]


def _open(
    requests: pa.Table, regions: Sequence[Region], tenants: Sequence[Tenant], done: Collection[str]
) -> tuple[np.ndarray, dict[str, str]]:
    """Requests that are still to be planned, and those that may run nowhere today."""
    known = {tenant.tenant: tenant for tenant in tenants}
    refused: dict[str, str] = {}
    finished = set(done)
    possible = np.ones(requests.num_rows, dtype=bool)
    names = {region.region for region in regions}
    pairs = zip(*(requests[c].to_pylist() for c in ("key", "tenant", "regions", "home_region")), strict=True)
    reasons: dict[tuple[str, str, str], str] = {}
    for row, (key, tenant, listed, home) in enumerate(pairs):
        if (tenant, listed, home) not in reasons:
            reasons[tenant, listed, home] = _refusal(known.get(tenant), tenant, listed, home, names, regions)
        if key in finished:
            possible[row] = False
        elif reasons[tenant, listed, home]:
            refused[key] = reasons[tenant, listed, home]
            possible[row] = False
    return np.flatnonzero(possible), refused


def _refusal(
    tenant: Tenant | None, name: str, listed: str, home: str, names: Collection[str], regions: Sequence[Region]
) -> str:
    if tenant is None:
        return f"tenant {name} is not declared"
    if home not in names:
        return f"home region {home} is not declared"
    if not allowed_regions(tenant, regions, listed.split(",")):
        return f"no region is left for {name}: {listed} are not declared, or outside its area {tenant.residency}"
    return ""


def _jobs(
    requests: pa.Table, regions: Sequence[Region], tenants: Sequence[Tenant], settings: Placement, now: datetime
) -> tuple[Jobs, Bools]:
    """Beside the jobs, which of them can no longer meet their deadline."""
    position = {region.region: number for number, region in enumerate(regions)}
    known = {tenant.tenant: tenant for tenant in tenants}
    count = requests.num_rows
    allowed = np.zeros((count, len(regions)), dtype=bool)
    tenant_names, listed = requests["tenant"].to_pylist(), requests["regions"].to_pylist()
    chosen: dict[tuple[str, str], Bools] = {}
    for pair in set(zip(tenant_names, listed, strict=True)):
        row = np.zeros(len(regions), dtype=bool)
        row[[position[name] for name in allowed_regions(known[pair[0]], regions, pair[1].split(","))]] = True
        chosen[pair] = row
    if count:
        allowed = np.stack([chosen[pair] for pair in zip(tenant_names, listed, strict=True)])
    # Nothing runs before now: what could have started earlier is compared with starting now. On whole minutes, as
    # everything that is declared: the optimiser counts in the largest unit that all times share.
    soonest = -(-micros(now) // MINUTE) * MINUTE
    earliest = np.maximum(requests["earliest_start"].cast(pa.int64()).to_numpy(), soonest)
    weight = requests["cost_weight_g"].fill_null(settings.cost_weight_g).to_numpy()
    duration = requests["duration_minutes"].to_numpy() * MINUTE
    deadline = requests["deadline"].cast(pa.int64()).to_numpy()
    home = np.array([position[name] for name in requests["home_region"].to_pylist()], dtype=np.int64)
    overdue = np.asarray(deadline - duration < earliest)
    if count:
        # Where it may run at home it does: what is left to choose is neither the hour nor, for its data, the place.
        stays = overdue & allowed[np.arange(count), home]
        allowed[stays] = np.arange(len(regions)) == home[stays, None]
    jobs = Jobs(
        tuple(requests["key"].to_pylist()),
        earliest,
        earliest,
        np.where(overdue, earliest + duration, deadline),
        duration,
        requests["power_kw"].to_numpy() * requests["width"].to_numpy(),
        requests["interruptible"].to_numpy(zero_copy_only=False).astype(bool),
        home,
        allowed,
        requests["data_gb"].to_numpy(),
        np.asarray(weight, dtype=float),
    )
    return jobs, overdue


def _rows(
    requests: pa.Table,
    jobs: Jobs,
    grid: Grid,
    regions: Sequence[Region],
    schedule: Schedule,
    expected: Floats,
    before: Floats,
    policy: str,
    state: np.ndarray,
) -> pa.Table:
    """One row per request, with its runs as a list still."""
    zone = np.array([region.zone for region in regions], dtype=object)
    place = np.array(grid.places, dtype=object)
    time = pa.timestamp("us", tz="UTC")
    runs = pa.table(
        {
            "row": schedule.job,
            "region": pa.array(place[schedule.place], pa.string()),
            "zone": pa.array(zone[schedule.place], pa.string()),
            "start_at": pa.array(schedule.start).cast(time),
            "end_at": pa.array(schedule.end).cast(time),
        }
    )
    named = requests.select(
        ["key", "workload", "kind", "tenant", "service", "home_region", "earliest_start", "deadline"]
    )
    figures = pa.table(
        {
            "row": np.arange(len(jobs)),
            "state": pa.array(state.tolist(), pa.string()),
            "policy": pa.array([policy] * len(jobs), pa.string()),
            "energy_kwh": jobs.energy_kwh,
            "expected_g": pa.array(expected, from_pandas=True),
            "baseline_g": pa.array(before, from_pandas=True),
        }
    )
    for name in named.column_names:
        figures = figures.append_column(name, named[name])
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("figures", figures)
        connection.register("runs", runs)
        return connection.sql(_ONE_ROW_EACH).to_arrow_table()


_ONE_ROW_EACH = """
with listed as (
    select
        row, arg_min(region, start_at) as region, arg_min(zone, start_at) as zone, min(start_at) as start_at,
        max(end_at) as end_at, count(*) as runs_count,
        to_json(list({
            'region': region,
            'start': strftime(start_at, '%Y-%m-%dT%H:%M:%SZ'),
            'end': strftime(end_at, '%Y-%m-%dT%H:%M:%SZ')
        } order by start_at)) as runs
    from runs group by row
)

select f.*, l.region, l.zone, l.start_at, l.end_at, coalesce(l.runs::varchar, '[]') as runs, l.runs_count
from figures as f left join listed as l on f.row = l.row
"""

_WORDED = """
select * exclude (row, runs_count),
    baseline_g - expected_g as avoided_g,
    case
        when start_at is null then 'No room on the whole horizon: it waits for the next plan.'
        when state = 'fallback' then 'Nothing is known of its window: it runs as soon as it may, at home.'
        when state = 'late' and deadline <= $now::timestamptz + (end_at - start_at) then
            'Too late for its deadline: it runs in ' || region || ' as soon as there is room.'
        when state = 'late' then 'No room before its deadline: it runs in ' || region || ' as soon as there is some.'
        when baseline_g is null or expected_g is null then
            'In ' || region || ' from ' || strftime(start_at, '%d %b %H:%M') || ' UTC; part of it is not forecast.'
        when baseline_g - expected_g < baseline_g * 0.0005 then
            'Nowhere cleaner than at home, ' || home_region || ', from ' || strftime(start_at, '%d %b %H:%M') || ' UTC.'
        else printf(
            '%s from %s UTC%s: %.0f g instead of %.0f g at home at once, %.0f %% less.',
            region, strftime(start_at, '%d %b %H:%M'),
            case when runs_count > 1 then ' in ' || runs_count || ' runs' else '' end,
            expected_g, baseline_g, 100 * (baseline_g - expected_g) / baseline_g
        )
    end || case when $signal = 'average' or expected_g is null then '' else ' (' || $signal || ' grams)' end as reason,
    $method as method, $signal as signal, $bound::double as plan_bound_g, $gap::double as plan_gap_pct, $now::timestamptz as planned_at
from rows_made order by start_at nulls last, key
"""


def _worded(rows: pa.Table, method: str, bound: float, gap: float, signal: str, now: datetime) -> pa.Table:
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("rows_made", rows)
        words = {"method": method, "bound": bound, "gap": gap, "signal": signal, "now": now}
        found = connection.sql(_WORDED, params=words).to_arrow_table()
    return found.select(PLACEMENT_PLAN.schema.names).cast(PLACEMENT_PLAN.schema)
