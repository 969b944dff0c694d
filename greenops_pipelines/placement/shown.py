"""Results as lines of text, for the command line. Not here: what is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.errors import BadInput
from greenops_pipelines.placement.simulator import Simulation

if TYPE_CHECKING:
    from greenops_pipelines.lake import Lake
    from greenops_pipelines.placement.ledger import Ledger


def aligned(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """A header and rows; numbers to the right, with up to two decimals; `-` where there is nothing."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) if cells else len(name) for i, name in enumerate(names)]
    right = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(names))]
    for line in (list(names), *cells):
        shown = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        yield "  ".join(shown).rstrip()


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def simulation(found: Simulation) -> Iterator[str]:
    """The policies, and the bound."""
    yield f"{int(found.measured.sum()):,} jobs, forecast {found.forecast}"
    yield ""
    names = ("policy", "kgCO2e", "saved %", "of the oracle's %", "wait min", "late", "outside", "above bound %")
    yield from aligned(
        names,
        [
            (
                each.policy,
                each.total_g / 1000,
                each.saving_pct,
                each.oracle_share_pct,
                each.mean_wait_minutes,
                each.deadline_misses,
                each.residency_violations,
                each.gap_pct,
            )
            for each in found.outcomes
        ],
    )
    yield ""
    if found.bound_g is None:
        yield "There is no bound: of no job enough is known."
        return
    saved = "" if found.bound_saving_pct is None else f" ({found.bound_saving_pct:.2f} % saved)"
    yield f"Nobody who keeps deadlines, areas and rooms emits less than {found.bound_g / 1000:,.3f} kg{saved}: {found.bound_method}."


def notes(found: Simulation) -> Iterator[str]:
    """What a person has to know before reading the figures: what is not in them, and who decided blindly."""
    total = len(found.measured)
    left_out = int((~found.measured).sum())
    if left_out:
        unknown = ", ".join(f"{each.policy} {each.unknown:,}" for each in found.outcomes if each.unknown)
        unfinished = ", ".join(f"{each.policy} {each.unfinished:,}" for each in found.outcomes if each.unfinished)
        why = [f"ran where the intensity is not known ({unknown})"] if unknown else []
        why += [f"found no room ({unfinished})"] if unfinished else []
        yield (
            f"{left_out:,} of {total:,} jobs are left out of every figure: "
            f"{'; '.join(why) or 'the baseline ran them where the intensity is not known'}"
        )
    for each in found.outcomes:
        if each.fallbacks:
            yield f"{each.policy}: nothing was known of the windows of {each.fallbacks:,} of {total:,} jobs: they ran at once"


def proof(rows: pa.Table) -> Iterator[str]:
    """The scenarios of PLACEMENT_PROOF, the promise first."""
    first = rows.slice(0, 1).to_pylist()[0]
    sample = " (sample data)" if first["provider"] == "sample" else ""
    yield (
        f"{first['weeks']} weeks of {first['provider']} intensity{sample}, "
        f"{first['evaluated_from']:%Y-%m-%d} to {first['evaluated_to']:%Y-%m-%d}; "
        f"interval: 95 % of resampled {first['interval_of']}"
    )
    yield ""
    names = (
        "scenario",
        "policy",
        "forecast",
        "saved %",
        "from",
        "to",
        "no manufacture %",
        "bound %",
        "missed %",
        "gap %",
    )
    columns = ("scenario", "policy", "forecast", "saving_pct", "saving_low_pct", "saving_high_pct",
               "saving_without_embodied_pct", "bound_saving_pct", "regret_pct", "gap_pct")  # fmt: skip
    listed = rows.to_pylist()
    yield from aligned(names, [[row[column] for column in columns] for row in listed])
    yield ""
    late, outside, over = (
        sum(row[name] for row in listed) for name in ("deadline_misses", "residency_violations", "capacity_exceeded")
    )
    yield f"{late} deadlines missed, {outside} jobs outside their area, {over} slots above capacity, in all of them."


def plan(rows: pa.Table) -> Iterator[str]:
    """What runs where and when, and why."""
    columns = ("key", "state", "region", "start_at", "end_at", "reason")
    listed = [
        [value.strftime("%d %b %H:%M") if hasattr(value, "strftime") else value for value in (row[c] for c in columns)]
        for row in rows.to_pylist()
    ]
    yield from aligned(("work", "state", "region", "start UTC", "end UTC", "why"), listed)


def settled(rows: pa.Table) -> dict[str, int | float]:
    """The figures of rows of PLACEMENT_SETTLEMENTS that a person asks for first; kilograms over what is settled."""
    states = {each["values"]: each["counts"] for each in pc.value_counts(rows["state"]).to_pylist()}
    done = rows.filter(pc.equal(rows["state"], "settled"))
    kilograms = {
        name: round((pc.sum(done[column]).as_py() or 0.0) / 1000, 3)
        for name, column in {
            "avoided, kgCO2e": "avoided_g",
            "expected to be avoided, kgCO2e": "expected_avoided_g",
            "emitted, kgCO2e": "actual_g",
            "at home at once, kgCO2e": "counterfactual_g",
        }.items()
    }
    return kilograms | {
        state: states.get(state, 0) for state in ("settled", "awaiting actuals", "open", "failed", "not run")
    }


def history(lake: Lake, ledger: Ledger, key: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest pieces of work in the ledger, with what the lake has settled of them; raises `BadInput` for no such key."""
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("decisions", ledger.dispatches())
        connection.register("attempts", ledger.attempts())
        connection.register("settlements", lake.query("from placement_settlements"))
        rows = connection.sql(_HISTORY, params={"key": key, "limit": limit}).to_arrow_table()
    found: list[dict[str, Any]] = rows.to_pylist()
    if key is not None and not found:
        raise BadInput(f"--key: found {key}, allowed: a key of the ledger; nothing of that key was launched or closed")
    return found


_HISTORY = """
with tried as (
    select key, any_value(tenant) as tenant, max(deadline) as deadline, max(began_at) as newest,
        string_agg(attempt || ' ' || outcome, ', ' order by attempt) as attempts, arg_max(outcome, attempt) as outcome,
        arg_max(detail, attempt) as detail, arg_max(region, attempt) as ran_in
    from attempts group by key
)

select t.key, t.tenant, coalesce(d.region, t.ran_in) as region, d.home_region, d.dispatched_at, t.deadline, t.attempts,
    t.outcome, t.detail, d.reason, s.state, d.avoided_g as expected_avoided_g, s.avoided_g
from tried as t left join decisions as d on d.key = t.key left join settlements as s on s.key = t.key
where $key::varchar is null or t.key = $key
order by t.newest desc, t.key limit $limit
"""


def ledger(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line per piece of work, the newest first."""
    names = ["key", "tenant", "region", "attempts", "state", "expected g", "avoided g"]
    columns = ["key", "tenant", "region", "attempts", "state", "expected_avoided_g", "avoided_g"]
    yield from aligned(names, [[row[column] for column in columns] for row in found])
    yield f"{len(found)} pieces of work; grams against running at home at once, by forecast and by actuals"
