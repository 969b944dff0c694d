"""From the raw files to the marts: the same sums at every stage, to the last digit. Not here: what makes the stages."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.cost_tables import COST_RECONCILIATION
from greenops_pipelines.measurement import Measurement

# The raw sums were read from the files apart from the charges: another statement, over the files' own columns.
_SQL = """
with raw as (
    select billing_period, currency, sum(charges)::bigint as charges, sum(billed_cost) as billed, sum(effective_cost) as effective
    from cost_files where state = 'counts' group by all
),

stages as (
    select billing_period, currency, 'raw files' as stage, charges, billed, effective from raw
    union all
    select billing_period, billing_currency, 'charges', count(*), sum(billed_cost), sum(effective_cost) from cost_charges group by all
    union all
    select billing_period, currency, 'cost_monthly', sum(charges)::bigint, sum(billed_cost), sum(effective_cost) from cost_monthly group by all
    union all
    select billing_period, currency, 'cost_daily', sum(charges)::bigint, sum(billed_cost), sum(effective_cost) from cost_daily group by all
),

-- Every stage of every period: one that lost a period shows as nothing instead of not at all.
expected as (
    select p.billing_period, p.currency, n.stage
    from (select distinct billing_period, currency from stages) as p cross join (select distinct stage from stages) as n
)

select
    e.billing_period, e.currency, e.stage, coalesce(s.charges, 0)::bigint as charges, coalesce(s.billed, 0)::decimal(38, 12) as billed_cost,
    coalesce(s.effective, 0)::decimal(38, 12) as effective_cost, (coalesce(s.billed, 0) - coalesce(r.billed, 0))::decimal(38, 12) as billed_difference,
    (coalesce(s.effective, 0) - coalesce(r.effective, 0))::decimal(38, 12) as effective_difference
from expected as e
left join stages as s on s.billing_period = e.billing_period and s.currency = e.currency and s.stage = e.stage
left join raw as r on r.billing_period = e.billing_period and r.currency = e.currency
order by 1, 2, 3
"""


def reconcile(lake: Lake) -> pa.Table:
    """Rows of COST_RECONCILIATION."""
    return lake.query(_SQL).cast(COST_RECONCILIATION.schema)


def measurement(rows: pa.Table) -> Measurement:
    """The largest difference of any stage, period and currency from the raw files. Only exactly 0 will do."""
    listed = rows.to_pylist()
    differences = [(abs(r[column]), r) for r in listed for column in ("billed_difference", "effective_difference")]
    # A charge lost and another doubled may cancel each other out: their number is compared as well.
    raw = {(r["billing_period"], r["currency"]): r["charges"] for r in listed if r["stage"] == "raw files"}
    lost = [r for r in listed if r["charges"] != raw.get((r["billing_period"], r["currency"]), 0)]
    worst, where = max(differences, key=lambda pair: pair[0], default=(Decimal(0), None))
    detail = f"{len(raw)} billing periods and currencies agree from the raw files to the marts"
    if worst and where:
        detail = f"{where['stage']}, {where['billing_period']:%Y-%m} {where['currency']}: differs by {_plain(where['billed_difference'])} billed, {_plain(where['effective_difference'])} effective"
    elif lost:
        detail = (
            f"{lost[0]['stage']}, {lost[0]['billing_period']:%Y-%m} {lost[0]['currency']}: {lost[0]['charges']} charges"
        )
    return Measurement(
        check="cost/reconciliation:exact",
        measured=None if not listed else float(worst) if worst else float(len(lost)),
        target=0,
        comparison="==",
        unit="money difference",
        detail=detail,
        missing=None if listed else "a bill",
        figures={"billing periods": len(raw), "stages": len({r["stage"] for r in listed})},
    )


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
