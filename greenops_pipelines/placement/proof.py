"""The proof of J2.5: what carbon-aware placement saves on real intensity, under limits that make it hard.

Half of the demand is bound to the EU (home eu-central-1), half to the US (home us-east-1). Every region away from home has
room for at most a tenth of the *total* mean demand. Work lasts an hour, is submitted evenly, and has 6, 12 or 24 hours of
slack. Plans are made again every hour from what was known by then: jobs that were submitted, forecasts from values that
had ended. Regional PUE, moving the data and the machines' manufacture are included. Weeks are spread over the record;
each begins and ends with empty regions.

Beside it: the clairvoyant bound, other policies, other limits, and what other factors would make of the same plan.

Here: the scenario and its figures. Not here: the simulator, and where the intensity comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from greenops_pipelines.carbon.factors import embodied_g_per_kwh, read_factors, values
from greenops_pipelines.carbon.regions import Region
from greenops_pipelines.instants import instant
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.tables import PLACEMENT_PROOF
from greenops_pipelines.placement import optimise, policies, simulator
from greenops_pipelines.placement.belief import Belief, believe
from greenops_pipelines.placement.files import Series, series
from greenops_pipelines.placement.model import HOUR, Account, Floats, Grid, Ints, Jobs, Schedule, account
from greenops_pipelines.placement.sight import Sight

WEEKS = 8
JOBS_PER_HOUR = 5
"""Of each side; 1 kW and 1 h each."""
SLACK_HOURS = (6, 12, 24)
SLACK_SHARES = (0.2, 0.3, 0.5)
DATA_GB = 10.0
SEED = 2022
CAPACITY_SHARE = 0.10
_RESAMPLES = 2_000
_MAX_DAYS = 400
"""Of record that are looked at: a year, and what the forecast learns from."""
_BLOCKS = 8
"""Weeks from which on weeks are resampled; below, days."""

HOMES = {"eu": "eu-central-1", "us": "us-east-1"}
MAIN = ("eu-central-1", "eu-west-1", "eu-west-3", "eu-south-2", "us-east-1", "us-west-2", "us-west-1")
FEW = ("eu-central-1", "eu-west-1", "us-east-1", "us-west-1")
STOCKHOLM = "eu-north-1"
FORECAST = "ridge"

FLAT_PUE = 1.135
"""AWS, all regions, as Cloud Carbon Footprint has it."""
TEADS_WATTS_PER_CCF_WATT = 14.1 / 4.9
"""An m5.large at 50 %: 14.1 W by Teads, 4.9 W by Cloud Carbon Footprint."""
NETWORK_END_TO_END = 0.14
"""kWh/GB, the highest published figure (Krug et al., 2014)."""
BPAT_SHARE = 0.5
"""Bonneville Power's intensity per PacifiCorp West's, about: the other grid that us-west-2 may be said to be on."""


@dataclass(frozen=True)
class Row:
    """One scenario under one policy. Figures in kg and percent; `regret_pct`: of the bound's saving, what was missed."""

    scenario: str
    policy: str
    forecast: str
    jobs: int
    baseline_kg: float
    total_kg: float
    operational_kg: float
    transfer_kg: float
    embodied_kg: float
    saving_pct: float
    saving_low_pct: float
    saving_high_pct: float
    saving_without_embodied_pct: float
    embodied_share_pct: float
    bound_saving_pct: float | None
    regret_pct: float | None
    gap_pct: float | None
    deadline_misses: int
    residency_violations: int
    capacity_exceeded: int
    note: str


@dataclass(frozen=True)
class Proof:
    """All rows; the first one is the promise."""

    rows: tuple[Row, ...]
    start: datetime
    end: datetime
    weeks: int
    blocks: str
    sides: tuple[str, ...]

    @property
    def main(self) -> Row:
        return self.rows[0]


@dataclass(frozen=True)
class Factors:
    """What holds everywhere: kWh per GB moved, and manufacture in gCO2e per kWh of IT energy."""

    network_kwh_per_gb: float
    embodied_g_per_kwh: float


def prove(
    source: Series,
    regions: Sequence[Region],
    held: Factors,
    *,
    weeks: int = WEEKS,
    seconds: float = 60.0,
    extended: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Proof | None:
    """The proof on hourly intensity; None where no side has a home with a record of 23 days.

    `extended` adds what takes minutes: more policies and forecasts, and work of several hours.
    A side whose home has no intensity is left out (`Proof.sides` says which are there), and so is a region without.
    """
    begins = _weeks(source, weeks)
    declared = {region.region: region for region in regions if region.zone in source.zones}
    sides = [side for side, home in HOMES.items() if home in declared]
    if not sides or not len(begins):
        return None
    rows: list[Row] = []
    made = _Case(source, declared, held, begins, sides, MAIN, CAPACITY_SHARE)
    bound = made.bound(seconds)
    main = made.run("optimal", FORECAST)
    rows.append(made.row("the promise", "optimal", FORECAST, main, bound, ""))
    progress(f"optimal on {FORECAST}: {rows[0].saving_pct:.1f} % saved")
    rows.append(made.row("the promise", "clairvoyant", "perfect", bound.schedule, bound, f"knows all: {bound.method}"))
    for policy in ("greedy", "wait-awhile", *(("carbon-first", "run-now-best-region") if extended else ())):
        rows.append(made.row("the promise", policy, FORECAST, made.run(policy, FORECAST), bound, ""))
        progress(f"{policy}: {rows[-1].saving_pct:.1f} % saved")
    others = [("persistence", "yesterday's values"), ("perfect", "knows intensity, not the jobs to come")]
    for forecast, note in others if extended else others[:1]:
        rows.append(made.row("other forecasts", "optimal", forecast, made.run("optimal", forecast), bound, note))
        progress(f"optimal on {forecast}: {rows[-1].saving_pct:.1f} % saved")
    rows += _other_factors(made, main)
    dear = replace(held, network_kwh_per_gb=NETWORK_END_TO_END)
    for name, chosen, share, other, note in (
        ("a quarter of the demand in each other region", FEW, 0.25, held, ", ".join(FEW)),
        ("home regions only", tuple(HOMES.values()), CAPACITY_SHARE, held, "shifting in time alone"),
        ("with Stockholm", (*MAIN, STOCKHOLM), CAPACITY_SHARE, held, f"and {STOCKHOLM}"),
        (
            "other factors: network",
            MAIN,
            CAPACITY_SHARE,
            dear,
            f"{NETWORK_END_TO_END} kWh/GB, the highest published, and planned for",
        ),
    ):
        case = _Case(source, declared, other, begins, sides, chosen, share)
        limit = case.bound(seconds)
        rows.append(case.row(name, "optimal", FORECAST, case.run("optimal", FORECAST), limit, note))
        progress(f"{name}: {rows[-1].saving_pct:.1f} % saved")
    if extended:
        rows += _longer_work(_Case(source, declared, held, begins, sides, MAIN, CAPACITY_SHARE, longer=True), seconds)
        progress(f"longer work: {rows[-2].saving_pct:.1f} % saved")
    step = timedelta(microseconds=HOUR)
    return Proof(
        tuple(rows),
        instant(source.start + int(begins[0]) * HOUR),
        instant(source.start + int(begins[-1]) * HOUR) + 168 * step,
        len(begins),
        "weeks" if len(begins) >= _BLOCKS else "days",
        tuple(sides),
    )


def _weeks(source: Series, wanted: int) -> Ints:
    """First slots of whole weeks, spread evenly; before the first there is a record for the forecast to learn from."""
    slots = source.values.shape[1]
    warm = 24 * (60 if slots >= 24 * 150 else 14)
    last = slots - 168 - max(SLACK_HOURS) - 6
    fitting = min(wanted, (last - warm) // 168 + 1)
    if fitting < 1:
        return np.zeros(0, dtype=np.int64)
    first = np.linspace(warm, last, fitting).astype(np.int64)
    midnight = -(source.start // HOUR) % 24
    return np.asarray(np.maximum((first - midnight) // 24 * 24 + midnight, 0))


class _Case:
    """Jobs and grid of one choice of regions and room."""

    def __init__(
        self,
        source: Series,
        declared: dict[str, Region],
        held: Factors,
        begins: Ints,
        sides: Sequence[str],
        chosen: Sequence[str],
        share: float,
        *,
        longer: bool = False,
    ) -> None:
        areas = {declared[HOMES[side]].residency: side for side in sides}
        used = [declared[name] for name in chosen if name in declared and declared[name].residency in areas]
        names = tuple(region.region for region in used)
        self.homes = [names.index(HOMES[side]) for side in sides]
        self.begins = begins
        side_of = np.array([sides.index(areas[region.residency]) for region in used])
        self.jobs, self.week = _jobs(source, begins, self.homes, side_of, longer)
        demand = float(self.jobs.energy_kwh.sum()) / (len(begins) * 168)
        # Whole jobs of 1 kW: what is left of a tenth is no room.
        limits = np.full((len(used), source.values.shape[1]), np.floor(share * demand + 1e-9))
        limits[self.homes] = np.inf
        self.grid = Grid(
            names,
            source.start,
            source.step,
            source.values[[source.zones.index(region.zone) for region in used]],
            np.array([region.pue for region in used]),
            limits,
            held.network_kwh_per_gb,
            held.embodied_g_per_kwh,
        )
        self._beliefs: dict[str, Belief] = {}
        self.baseline = policies.decide(
            "run-now-home", self.jobs, Sight(self.grid, Belief("none", self.grid.intensity))
        )

    def bound(self, seconds: float) -> optimise.Optimised:
        return optimise.optimise(self.jobs, Sight(self.grid, Belief("perfect", self.grid.intensity)), seconds=seconds)

    def run(self, policy: str, forecast: str) -> Schedule:
        if forecast not in self._beliefs:
            ahead = np.unique(self.begins[:, None] + np.arange(168 + max(SLACK_HOURS) + 8))
            self._beliefs[forecast] = believe(forecast, self.grid, ahead, max(SLACK_HOURS) + 8)
        return simulator.run(policy, self.jobs, self.grid, self._beliefs[forecast])

    def row(
        self,
        scenario: str,
        policy: str,
        forecast: str,
        schedule: Schedule,
        bound: optimise.Optimised | None,
        note: str,
        grid: Grid | None = None,
    ) -> Row:
        grid = grid or self.grid
        before, after = account(self.jobs, grid, self.baseline), account(self.jobs, grid, schedule)
        known = np.isfinite(before.total_g) & np.isfinite(after.total_g)
        start, total = _sum(before.total_g, known), _sum(after.total_g, known)
        found = simulator.outcome(policy, self.jobs, grid, schedule, after, known, start, 0.0, max(total, 1e-9))
        saved, least = start - total, None
        if bound is not None:
            least = start - bound.bound - _sum(before.embodied_g, known)
        low, high = _interval(before, after, known, self.week, len(self.begins))
        bare = start - _sum(before.embodied_g, known)
        return Row(
            scenario,
            policy,
            forecast,
            int(known.sum()),
            start / 1000,
            total / 1000,
            found.operational_g / 1000,
            found.transfer_g / 1000,
            found.embodied_g / 1000,
            100 * saved / start,
            low,
            high,
            100 * saved / bare,
            100 * found.embodied_g / total,
            None if least is None else 100 * least / start,
            None if least is None or least <= 0 else 100 * (least - saved) / least,
            bound.gap_pct if bound is not None and policy == "clairvoyant" else None,
            found.deadline_misses,
            found.residency_violations,
            0 if grid is not self.grid else found.capacity_exceeded,
            note,
        )


def _sum(values: Floats, chosen: np.ndarray) -> float:
    return float(values[chosen].sum())


def _jobs(source: Series, begins: Ints, homes: Sequence[int], side_of: Ints, longer: bool) -> tuple[Jobs, Ints]:
    """The same number from every side in every hour; slack is drawn once, with a fixed seed."""
    draw = np.random.default_rng(SEED)
    per_hour = JOBS_PER_HOUR * len(homes)
    hour = np.repeat((begins[:, None] + np.arange(168)).ravel(), per_hour)
    week = np.repeat(np.arange(len(begins)), 168 * per_hour)
    count = len(hour)
    side = np.tile(np.repeat(np.arange(len(homes)), JOBS_PER_HOUR), count // per_hour)
    slack = draw.choice(SLACK_HOURS, count, p=SLACK_SHARES)
    hours = draw.choice((1, 2, 4), count, p=(0.7, 0.2, 0.1)) if longer else np.ones(count, dtype=np.int64)
    contiguous = (draw.random(count) < 0.2) if longer else np.ones(count, dtype=bool)
    release = source.start + hour * HOUR
    return Jobs(
        tuple(map(str, range(count))),
        release,
        release,
        release + (hours + slack) * HOUR,
        hours * HOUR,
        np.ones(count),
        ~contiguous,
        np.asarray(homes)[side],
        side_of[None, :] == side[:, None],
        np.full(count, DATA_GB) * hours,
    ), week


def _interval(before: Account, after: Account, known: np.ndarray, week: Ints, weeks: int) -> tuple[float, float]:
    """95 % of resampled savings: whole weeks together where there are eight, since neighbouring days resemble each other."""
    block = week
    if weeks < _BLOCKS:
        block = np.unique((before.start // (24 * HOUR)), return_inverse=True)[1]
    start = np.bincount(block[known], before.total_g[known])
    saved = start - np.bincount(block[known], after.total_g[known])
    drawn = np.random.default_rng(SEED).integers(0, len(start), (_RESAMPLES, len(start)))
    shares = 100 * saved[drawn].sum(axis=1) / start[drawn].sum(axis=1)
    low, high = np.percentile(shares, (2.5, 97.5))
    return float(low), float(high)


def _longer_work(case: _Case, seconds: float) -> list[Row]:
    limit = case.bound(seconds)
    note = "1, 2 and 4 h, a fifth of them contiguous; the bound lets all be cut"
    return [
        case.row("longer work", "optimal", FORECAST, case.run("optimal", FORECAST), limit, note),
        case.row("longer work", "clairvoyant", "perfect", limit.schedule, limit, limit.method),
    ]


def _other_factors(made: _Case, main: Schedule) -> Iterator[Row]:
    """The same plan, charged by other factors: what if these were wrong? No bound: it was made for the others."""
    grid = made.grid
    pacw = np.array([BPAT_SHARE if name == "us-west-2" else 1.0 for name in grid.places])[:, None]
    for name, other, note in (
        (
            "other factors: PUE",
            replace(grid, pue=np.full(len(grid.places), FLAT_PUE)),
            f"{FLAT_PUE} everywhere (AWS flat)",
        ),
        (
            "other factors: zone mapping",
            replace(grid, intensity=grid.intensity * pacw),
            "us-west-2 on Bonneville Power instead of PacifiCorp: about half the intensity",
        ),
        (
            "other factors: power",
            replace(grid, embodied_g_per_kwh=grid.embodied_g_per_kwh / TEADS_WATTS_PER_CCF_WATT),
            "14.1 W (Teads) where Cloud Carbon Footprint has 4.9 W: manufacture weighs less beside it",
        ),
    ):
        yield made.row(name, "optimal", FORECAST, main, None, note, other)


def table(found: Proof | None, provider: str) -> pa.Table:
    """Rows of PLACEMENT_PROOF; none where nothing could be proven."""
    if found is None:
        return PLACEMENT_PROOF.schema.empty_table()
    common = {
        "provider": provider,
        "evaluated_from": found.start,
        "evaluated_to": found.end,
        "weeks": found.weeks,
        "interval_of": found.blocks,
        "sides": ", ".join(found.sides),
    }
    return pa.Table.from_pylist([asdict(row) | common for row in found.rows], schema=PLACEMENT_PROOF.schema)


def factors() -> Factors:
    """Those that come with the project."""
    factor = values(read_factors())
    return Factors(factor["network_kwh_per_gb"], embodied_g_per_kwh(factor))


def record(lake: Lake, regions: Sequence[Region]) -> Series | None:
    """The configured provider's newest year and more, hour by hour, for the zones of the regions; None: there is none."""
    rows = lake.query(
        """
        select zone, datetime, resolution_minutes, carbon_intensity_g_per_kwh
        from carbon_intensity
        where list_contains($zones, zone) and signal = 'average'
            and datetime > (select max(datetime) from carbon_intensity) - to_days($days::integer)
        """,
        {"zones": sorted({region.zone for region in regions}), "days": _MAX_DAYS},
    )
    return series(rows, 60) if rows.num_rows else None


def from_lake(lake: Lake, provider: str, regions: Sequence[Region]) -> pa.Table:
    """The proof on the lake's record, as rows of PLACEMENT_PROOF, without what takes minutes; none: nothing to prove on."""
    found = record(lake, regions)
    return table(None if found is None else prove(found, regions, factors(), extended=False), provider)
