"""Figures that the cost tables are held against: deliveries, allocation, invoices. Not here: reconciliation."""

from __future__ import annotations

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
        select billing_currency as currency, 100 * (sum(abs(effective_cost)) filter (where tenant is not null or shared_by is not null))::double
            / nullif(sum(abs(effective_cost)), 0)::double as share
        from cost_charges group by all order by 2
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
