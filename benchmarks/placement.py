"""What an optimal plan costs: 1,000 to 50,000 jobs over 168 hours and 8 regions, against OR-Tools' flow and HiGHS.

Jobs of an hour and 1 kW, slack of 6 to 24 hours, a third bound to four regions, a third to the other four, a third free;
every region but two has room for a tenth of the mean demand. The peers solve the same problem as it stands, a node (or a
row) per job: the first up to 20,000 jobs, the second up to 1,000, beyond which they take minutes. Then work of mixed power, length
and data, where no flow is a plan; and the simulator on a year of half-hours.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from benchmarks.measure import Row, in_own_process, report
from greenops_pipelines.placement import optimise, policies, simulator, windows
from greenops_pipelines.placement.belief import Belief
from greenops_pipelines.placement.model import HOUR, Grid, Jobs
from greenops_pipelines.placement.sight import Sight

SIZES = (1_000, 5_000, 20_000, 50_000)
_FLOW_UP_TO = 50_000
_LP_UP_TO = 20_000
_SLOTS, _PLACES = 168, 8


def instance(count: int, mixed: bool = False) -> tuple[Jobs, Grid]:
    """Seeded jobs and intensity; `mixed` power, length, data and whether they may be cut."""
    draw = np.random.default_rng(1)
    hour = np.arange(_SLOTS)
    level, phase = draw.uniform(50, 500, _PLACES)[:, None], draw.uniform(0, 24, _PLACES)[:, None]
    wander = np.cumsum(draw.normal(size=(_PLACES, _SLOTS)), axis=1) * 0.02
    intensity = np.maximum(level * (1 + 0.2 * np.sin(2 * np.pi * (hour - phase) / 24) + wander), 5)
    hours = draw.choice((1, 2, 4), count, p=(0.5, 0.3, 0.2)) if mixed else np.ones(count, dtype=np.int64)
    release = draw.integers(0, _SLOTS - 30, count) * HOUR
    bound = draw.integers(0, 3, count)
    allowed = np.ones((count, _PLACES), dtype=bool)
    allowed[bound == 0, _PLACES // 2 :] = False
    allowed[bound == 1, : _PLACES // 2] = False
    power = draw.choice((0.5, 1.0, 2.0, 3.3), count) if mixed else np.ones(count)
    limits = np.full((_PLACES, _SLOTS), 0.1 * float((power * hours).sum()) / _SLOTS)
    limits[[0, _PLACES // 2]] = np.inf
    jobs = Jobs(
        tuple(map(str, range(count))),
        release,
        release,
        release + (hours + draw.choice((6, 12, 24), count)) * HOUR,
        hours * HOUR,
        power,
        draw.random(count) < 0.6 if mixed else np.ones(count, dtype=bool),
        np.where(bound == 1, _PLACES // 2, 0),
        allowed,
        draw.choice((0.0, 50.0), count) if mixed else np.zeros(count),
    )
    names = tuple(f"region-{number}" for number in range(_PLACES))
    return jobs, Grid(names, 0, HOUR, intensity, np.full(_PLACES, 1.1), limits, 0.001)


def _sight(grid: Grid) -> Sight:
    return Sight(grid, Belief("perfect", grid.intensity), "both", free_kw=grid.capacity_kw)


def _costs(jobs: Jobs, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(job, place, slot, grams) of everything that every job could do: what the peers are given."""
    view = windows.window(jobs, grid)
    sight = Sight(grid, Belief("perfect", grid.intensity))
    found = []
    for place in range(_PLACES):
        price = sight.price(jobs, view, np.full(len(jobs), place))
        job, piece = np.nonzero(np.isfinite(price) & jobs.allowed[:, [place]] & (view.end > view.start))
        found.append((job, np.full(len(job), place), view.slot[job, piece], price[job, piece]))
    job, place, slot, price = (np.concatenate([part[i] for part in found]) for i in range(4))
    return job, place, slot, price


def _ours(count: int, mixed: bool) -> None:
    jobs, grid = instance(count, mixed)
    begun = time.perf_counter()
    found = optimise.optimise(jobs, _sight(grid), seconds=30)
    report(time.perf_counter() - begun, gap_pct=found.gap_pct, grams=found.objective)


def _flow(count: int) -> None:
    from ortools.graph.python import min_cost_flow

    jobs, grid = instance(count)
    begun = time.perf_counter()
    job, place, slot, price = _costs(jobs, grid)
    cells = place * _SLOTS + slot
    end = count + _PLACES * _SLOTS
    solver = min_cost_flow.SimpleMinCostFlow()
    arcs = solver.add_arcs_with_capacity_and_unit_cost(
        job.astype(np.int32),
        (count + cells).astype(np.int32),
        np.ones(len(job), np.int64),
        (price * 10_000).astype(np.int64),
    )
    room = np.where(np.isfinite(grid.capacity_kw), np.floor(grid.capacity_kw + 1e-9), count).ravel().astype(np.int64)
    everywhere = np.arange(_PLACES * _SLOTS)
    solver.add_arcs_with_capacity_and_unit_cost(
        (count + everywhere).astype(np.int32),
        np.full(len(everywhere), end, np.int32),
        room,
        np.zeros(len(everywhere), np.int64),
    )
    solver.set_nodes_supplies(np.arange(count, dtype=np.int32), np.ones(count, np.int64))
    solver.set_node_supply(end, -count)
    if solver.solve() != solver.OPTIMAL:
        raise SystemExit("the peer's flow has no optimum")
    report(time.perf_counter() - begun, grams=float(price[np.asarray(solver.flows(arcs)) > 0].sum()))


def _highs(count: int) -> None:
    import highspy

    jobs, grid = instance(count)
    begun = time.perf_counter()
    job, place, slot, price = _costs(jobs, grid)
    order = np.argsort(job, kind="stable")
    job, cells, price = job[order], (place * _SLOTS + slot)[order], price[order]
    limited = np.isfinite(grid.capacity_kw).ravel()
    row_of = np.cumsum(limited) - 1
    rows = count + int(limited.sum())
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(job), rows
    model.col_cost_, model.col_lower_, model.col_upper_ = price, np.zeros(len(job)), np.ones(len(job))
    model.row_lower_ = np.concatenate([np.ones(count), np.full(rows - count, -highspy.kHighsInf)])
    model.row_upper_ = np.concatenate([np.ones(count), np.floor(grid.capacity_kw.ravel()[limited] + 1e-9)])
    second = limited[cells]
    index = np.stack([job, np.where(second, count + row_of[cells], -1)], axis=1).ravel()
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.concatenate([[0], np.cumsum(1 + second)]).astype(np.int32)
    model.a_matrix_.index_ = index[index >= 0].astype(np.int32)
    model.a_matrix_.value_ = np.ones(int((index >= 0).sum()))
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.passModel(model)
    solver.run()
    report(time.perf_counter() - begun, grams=solver.getInfo().objective_function_value)


def _simulator() -> None:
    draw = np.random.default_rng(2)
    slots, half = 17_568, HOUR // 2
    level = 400 + 120 * np.sin(2 * np.pi * np.arange(slots) / 48) + np.cumsum(draw.normal(size=slots)) * 0.5
    grid = Grid(("DE",), 0, half, np.maximum(level, 20)[None, :], np.ones(1), np.full((1, slots), np.inf))
    count = 3_400
    release = draw.integers(0, slots - 700, count) * half
    duration = draw.integers(8, 180, count) * half
    jobs = Jobs(
        tuple(map(str, range(count))), release, release, release + duration + draw.integers(2, 200, count) * half, duration,
        np.ones(count), draw.random(count) < 0.5, np.zeros(count, dtype=np.int64), np.ones((count, 1), dtype=bool), np.zeros(count),
    )  # fmt: skip
    begun = time.perf_counter()
    found = simulator.simulate(jobs, grid, policies.POLICIES)
    report(time.perf_counter() - begun, saving=found.of("wait-awhile").saving_pct or 0.0)


def main() -> list[Row]:
    """Seconds, gap and memory, each in its own process; the peers in the same run."""
    rows: list[Row] = []
    module = "benchmarks.placement"
    for count in SIZES:
        ours = in_own_process(module, "ours", str(count))
        note = f"gap {ours.extra['gap_pct']:.4f} %, peak {ours.peak_mb:,.0f} MB"
        rows.append(
            Row(
                f"{count:,} jobs x 168 h x 8 regions",
                ours.seconds,
                "s",
                note + ("; aim 30 s" if count == SIZES[-1] else ""),
            )
        )
        for name, case, limit in (
            ("OR-Tools' flow, a node per job", "flow", _FLOW_UP_TO),
            ("HiGHS, an LP", "highs", _LP_UP_TO),
        ):
            if count <= limit:
                peer = in_own_process(module, case, str(count))
                apart = 100 * (ours.extra["grams"] - peer.extra["grams"]) / peer.extra["grams"]
                note = f"peak {peer.peak_mb:,.0f} MB; we take {ours.seconds / peer.seconds:.2f}x, {apart:+.4f} % grams"
                rows.append(Row(f"  {name}", peer.seconds, "s", note))
    for count in (1_000, 5_000):
        mixed = in_own_process(module, "mixed", str(count))
        note = f"gap {mixed.extra['gap_pct']:.2f} % (aim 2 %), peak {mixed.peak_mb:,.0f} MB"
        rows.append(Row(f"{count:,} jobs of mixed power, length and data", mixed.seconds, "s", note))
    year = in_own_process(module, "simulator")
    note = f"{len(policies.POLICIES)} policies and the bound; peak {year.peak_mb:,.0f} MB; aim 2 s"
    return [*rows, Row("simulator, 3,400 jobs x 17,568 half-hours", year.seconds, "s", note)]


if __name__ == "__main__":
    case, *arguments = sys.argv[1:]
    if case == "ours":
        _ours(int(arguments[0]), mixed=False)
    elif case == "mixed":
        _ours(int(arguments[0]), mixed=True)
    elif case == "flow":
        _flow(int(arguments[0]))
    elif case == "highs":
        _highs(int(arguments[0]))
    else:
        _simulator()
