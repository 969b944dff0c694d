"""Figures that the cost tables are held against: deliveries, allocation, invoices, anomalies, forecasts.

Not here: reconciliation.
"""

from __future__ import annotations

from greenops_pipelines.cost import sample
from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement


def deliveries(lake: Lake) -> Measurement:
    """Deliveries that count and still repeat a part of each other's charges: nobody can tell whether both are meant."""
    rows = lake.query(
        "select name, reason, billing_period from cost_files where state = 'counts' and overlap is not null order by overlap desc"
    ).to_pylist()
    counted = lake.query("select state, count(*) as n from cost_files group by all order by 1").to_pylist()
    return Measurement(
        check="cost/charges:deliveries",
        measured=float(len(rows)),
        target=0,
        comparison="==",
        unit="deliveries",
        detail=f"{rows[0]['name']}, {rows[0]['billing_period']:%Y-%m}: {rows[0]['reason']}"
        if rows
        else "each delivery is a snapshot that is the newest, or shares no charge with another",
        figures={f"files: {row['state']}": row["n"] for row in counted},
    )


def allocated(lake: Lake) -> Measurement:
    """The least share, of any currency's effective cost, that names a tenant or is split by a rule."""
    rows = lake.query(
        """
        -- Where nothing names a tenant, there is nobody to split what is shared among.
        select billing_currency as currency,
            100 * coalesce(
                sum(abs(effective_cost)) filter (where tenant is not null or (shared_by is not null and is_somebodys)), 0
            )::double / nullif(sum(abs(effective_cost)), 0)::double as share
        from (select *, bool_or(tenant is not null) over (partition by billing_currency, billing_period) as is_somebodys from cost_charges)
        group by all order by 2
        """
    ).to_pylist()
    known = [row for row in rows if row["share"] is not None]
    return Measurement(
        check="cost/charges:allocated",
        measured=known[0]["share"] if known else None,
        target=80,
        comparison=">=",
        unit="%",
        detail=", ".join(f"{row['currency']} {row['share']:.1f} %" for row in known) or "nothing was billed",
        missing=None if known else "a charge",
    )


def invoices(lake: Lake) -> Measurement:
    """Invoices whose charges name more than one account, issuer or currency: their sum could not be the invoice's."""
    rows = lake.query(
        """
        select invoice_id, count(distinct billing_account_id) as accounts, count(distinct billing_currency) as currencies,
            count(distinct invoice_issuer_name) as issuers
        from cost_charges where invoice_id is not null group by all
        """
    ).to_pylist()
    bad = [row for row in rows if max(row["accounts"], row["currencies"], row["issuers"]) > 1]
    shown = bad[0] if bad else None
    return Measurement(
        check="cost/charges:invoices",
        measured=float(len(bad)) if rows else None,
        target=0,
        comparison="==",
        unit="invoices",
        detail=f"{shown['invoice_id']}: {shown['accounts']} accounts, {shown['currencies']} currencies, {shown['issuers']} issuers"
        if shown
        else f"{len(rows)} invoices, each of one account, issuer and currency",
        missing=None if rows else "an InvoiceId",
        figures={"invoices": len(rows)},
    )


def anomalies(lake: Lake) -> Measurement:
    """Anomalies of the last seven days that bills cover."""
    rows = lake.query(
        """
        select since, max(day) as until, currency, service_name, tenant, sum(deviation) as deviation from cost_anomalies_daily
        where is_anomaly and day > (select max(day) - 7 from cost_anomalies_daily)
        group by since, currency, provider, service_name, tenant, service, deviation > 0 order by abs(sum(deviation)) desc
        """
    ).to_pylist()
    judged = lake.query(
        "select count(*) as n, max(day) as last from cost_anomalies_daily where is_judged and day > (select max(day) - 7 from cost_anomalies_daily)"
    ).to_pylist()[0]
    worst = rows[0] if rows else None
    return Measurement(
        check="cost/anomalies_daily:recent",
        measured=float(len(rows)) if judged["n"] else None,
        target=0,
        comparison="==",
        unit="anomalies",
        detail=f"{worst['service_name']}, {worst['tenant'] or 'not allocated'}, since {worst['since']}: {worst['deviation']:+,.2f} {worst['currency']}"
        if worst
        else f"none in the seven days up to {judged['last']}",
        missing=None if judged["n"] else "a series of costs that is five weeks long",
        figures={"series and days judged": judged["n"]},
    )


def false_alarms(lake: Lake) -> Measurement:
    """On the sample, where it is known which days are wrong: alarms that were none, per 1,000 judged days of a series."""
    found = lake.query(
        """
        with days as (
            select is_anomaly, is_sample, service_name = ? and tenant = ? and day(day) = ? and month(day) % 2 = 0 as is_planted
            from cost_anomalies_daily where is_judged
        )

        select count(*) filter (where not is_planted) as quiet, count(*) filter (where is_anomaly and not is_planted) as alarms,
            count(*) filter (where is_planted) as planted, count(*) filter (where is_planted and is_anomaly) as found,
            coalesce(bool_and(is_sample), false) as is_sample
        from days
        """,
        [sample.ANOMALY_SERVICE, sample.ANOMALY_TENANT, sample.ANOMALY_DAY],
    ).to_pylist()[0]
    missing = None if found["is_sample"] else "bills of which it is known what is wrong; the sample is such"
    return Measurement(
        check="cost/anomalies_daily:false_alarms",
        # The silence of what misses an anomaly says nothing.
        measured=(1000.0 if found["found"] < found["planted"] else 1000 * found["alarms"] / found["quiet"])
        if missing is None and found["quiet"]
        else None,
        target=1,
        comparison="<=",
        unit="per 1,000",
        detail=f"{found['alarms']} alarms in {found['quiet']} judged days of series that are as they should be; {found['found']} of {found['planted']} planted anomalies found",
        missing=missing,
        figures={
            "planted": found["planted"],
            "found": found["found"],
            "sample data": "yes" if found["is_sample"] else "no",
        },
    )


def intervals(lake: Lake) -> Measurement:
    """Per cent of forecasts, made in months that are over, whose interval held what came."""
    found = lake.query(
        """
        with final as (select scope, currency, month, spent::double as spent from cost_forecasts_daily where days_left = 0)

        -- A float's last digits are no reason to have been wrong.
        select 100.0 * avg((abs(final.spent - f.expected) <= f.high - f.expected + 1e-9 * abs(final.spent))::integer) as share, count(*) as n,
            100 * avg(abs(f.expected / final.spent - 1)) as error
        from cost_forecasts_daily as f inner join final on f.scope = final.scope and f.currency = final.currency and f.month = final.month
        where f.days_left > 0 and f.low is not null and final.spent <> 0
        """
    ).to_pylist()[0]
    return Measurement(
        check="cost/forecasts_daily:intervals",
        measured=found["share"],
        target=80,
        comparison=">=",
        unit="%",
        detail=f"{found['n']} forecasts of months that are over, wrong by {found['error'] or 0:.2f} % on average",
        missing=None if found["n"] else "a month that is over, with five weeks of bills before its end",
        figures={"forecasts": found["n"]},
    )


def budgets(lake: Lake) -> Measurement:
    """Budgets that the newest forecast sees exceeded."""
    rows = lake.query(
        """
        select scope, currency, budget::double as budget, greatest(expected, spent::double) as expected from cost_forecasts_daily
        where budget is not null and (expected is not null or spent > budget)
        qualify row_number() over (partition by scope order by as_of desc) = 1 order by expected / budget desc
        """
    ).to_pylist()
    over = [row for row in rows if row["expected"] > row["budget"]]
    return Measurement(
        check="cost/forecasts_daily:budgets",
        measured=float(len(over)) if rows else None,
        target=0,
        comparison="==",
        unit="budgets",
        detail=", ".join(
            f"{row['scope']}: {row['expected']:,.0f} of {row['budget']:,.0f} {row['currency']} expected"
            for row in over or rows
        )
        or "no budget",
        missing=None if rows else "a budget in ops/cost.yaml, and a week of bills",
        figures={"budgets": len(rows)},
    )
