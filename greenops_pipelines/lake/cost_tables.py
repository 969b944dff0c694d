"""The lake's tables of cost, part of `tables.py`: charges in FOCUS' columns, and the files they came from.

Money is DECIMAL(38, 12). Names of FOCUS are in snake case (`cost/columns.py`); comments follow its glossary.
"""

from __future__ import annotations

import pyarrow as pa

from greenops_pipelines.lake.schema import TIMESTAMP, Column, Kind, Table

_text = pa.string()
_int = pa.int64()
_float = pa.float64()
_date = pa.date32()
_money = pa.decimal128(38, 12)

_FOCUS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("allocated_method_details", _text, "How a split cost was allocated, JSON"),
    ("allocated_method_id", _text, "Method by which a shared cost was split"),
    ("allocated_resource_id", _text, "Resource that a share of the cost was allocated to"),
    ("allocated_resource_name", _text, "Its name"),
    ("allocated_tags", _text, "Its tags, JSON"),
    ("availability_zone", _text, "Availability zone"),
    ("billed_cost", _money, "What is invoiced: the basis of payment, in the billing currency"),
    ("billing_account_id", _text, "Account that is billed"),
    ("billing_account_name", _text, "Its name"),
    ("billing_account_type", _text, "Its kind, in the provider's words"),
    ("billing_currency", _text, "Currency of all costs of the row, ISO 4217"),
    ("billing_period_end", TIMESTAMP, "End of the billing period, exclusive"),
    ("billing_period_start", TIMESTAMP, "Start of the billing period"),
    ("capacity_reservation_id", _text, "Capacity reservation"),
    ("capacity_reservation_status", _text, "Used or Unused"),
    ("charge_category", _text, "Usage, Purchase, Tax, Credit or Adjustment"),
    ("charge_class", _text, "Correction, of an earlier invoiced period; else null"),
    ("charge_description", _text, "The provider's words for the charge"),
    ("charge_frequency", _text, "One-Time, Recurring or Usage-Based"),
    ("charge_period_end", TIMESTAMP, "End of the charge, exclusive"),
    ("charge_period_start", TIMESTAMP, "Start of the charge"),
    ("commitment_discount_category", _text, "Spend or Usage"),
    ("commitment_discount_id", _text, "Commitment (savings plan, reservation) that the charge belongs to"),
    ("commitment_discount_name", _text, "Its name"),
    ("commitment_discount_quantity", _money, "Quantity of the commitment that was bought, used or not used"),
    ("commitment_discount_status", _text, "Used or Unused"),
    ("commitment_discount_type", _text, "Its kind, in the provider's words"),
    ("commitment_discount_unit", _text, "Unit of the commitment"),
    ("commitment_program_eligibility_details", _text, "Programs that the charge counts towards, JSON"),
    ("consumed_quantity", _money, "Quantity consumed; null: not metered"),
    ("consumed_unit", _text, "Its unit"),
    ("contract_applied", _text, "Contracts applied, JSON"),
    ("contracted_cost", _money, "Cost at negotiated prices, before commitments"),
    ("contracted_unit_price", _money, "Negotiated unit price"),
    ("effective_cost", _money, "Amortised cost: after all discounts, with purchases spread over their use"),
    ("host_provider_name", _text, "Who runs what the service is deployed on"),
    ("invoice_detail_id", _text, "Line of the invoice"),
    ("invoice_id", _text, "Invoice"),
    ("invoice_issuer_name", _text, "Who invoices"),
    ("list_cost", _money, "Cost at list prices"),
    ("list_unit_price", _money, "List price of a unit"),
    ("pricing_category", _text, "Standard, Dynamic, Committed or Other"),
    ("pricing_currency", _text, "Currency of the price list"),
    ("pricing_currency_contracted_unit_price", _money, "Negotiated unit price in the pricing currency"),
    ("pricing_currency_effective_cost", _money, "Amortised cost in the pricing currency"),
    ("pricing_currency_list_unit_price", _money, "List price in the pricing currency"),
    ("pricing_quantity", _money, "Quantity that was priced"),
    ("pricing_unit", _text, "Its unit"),
    ("publisher_name", _text, "Who makes the service (until FOCUS 1.3)"),
    ("region_id", _text, "Region of the provider"),
    ("region_name", _text, "Its name"),
    ("resource_id", _text, "Resource"),
    ("resource_name", _text, "Its name"),
    ("resource_type", _text, "Its kind"),
    ("service_category", _text, "Category of the service"),
    ("service_name", _text, "Service of the provider"),
    ("service_provider_name", _text, "Who sells the service: ProviderName until 1.2, ServiceProviderName since 1.3"),
    ("service_subcategory", _text, "Subcategory of the service"),
    ("sku_id", _text, "Stock keeping unit"),
    ("sku_meter", _text, "What is metered"),
    ("sku_price_details", _text, "Properties of the price, JSON"),
    ("sku_price_id", _text, "Price"),
    ("sub_account_id", _text, "Account under the billing account"),
    ("sub_account_name", _text, "Its name"),
    ("sub_account_type", _text, "Its kind"),
    ("tags", _text, "Tags, JSON"),
)

_REQUIRED = {
    "billed_cost", "effective_cost", "billing_currency", "billing_period_start", "billing_period_end", "charge_category",
    "charge_period_start", "charge_period_end",
}  # fmt: skip

COST_CHARGES = Table(
    layer="bronze",
    name="cost_charges",
    comment="Every charge that counts, as billed, in the columns of FOCUS 1.4, with whom it is for and what it used.",
    columns=(
        Column("source", _text, "sample, file or opencost"),
        Column("billing_period", _date, "First day of the billing period, UTC"),
        Column("file", _text, "File that it came from: first 16 digits of its SHA-256 (see cost_files)"),
        Column("row_number", _int, "Row of that file, 1 for the first"),
        *(Column(name, kind, comment, name not in _REQUIRED) for name, kind, comment in _FOCUS),
        Column("tenant", _text, "Tenant, by ops/cost.yaml; null: nothing says whose it is", nullable=True),
        Column("service", _text, "Service of the platform, by ops/cost.yaml", nullable=True),
        Column("environment", _text, "Environment, by ops/cost.yaml", nullable=True),
        Column("region", _text, "Region: the provider's identifier, else its name", nullable=True),
        Column(
            "shared_by", _text, "Rule of ops/cost.yaml that splits it among tenants; null: not shared", nullable=True
        ),
        Column("vcpu_hours", _float, "vCPU hours that it used; null: not known", nullable=True),
        Column("memory_gb_hours", _float, "GB hours of memory that it used; null: not known", nullable=True),
        Column("storage_gb_hours", _float, "GB hours of storage that it used; null: not known", nullable=True),
        Column("network_gb", _float, "GB that it moved; null: not known", nullable=True),
        Column("gpu_hours", _float, "GPU hours that it used; null: not known", nullable=True),
        Column("tokens", _float, "Tokens of a language model that it used; null: none", nullable=True),
    ),
    unique=("source", "billing_period", "file", "row_number"),
    partition_by=("source", "billing_period"),
    selected_by=("source",),
)

COST_FILES = Table(
    layer="bronze",
    name="cost_files",
    comment="What was found at the source the last time: per file, billing period and currency its sums, and whether it counts.",
    columns=(
        Column("source", _text, "sample, file or opencost"),
        Column("file", _text, "First 16 digits of the file's SHA-256"),
        Column("name", _text, "Path of the file below the folder that is read"),
        Column("billing_period", _date, "First day of the billing period, UTC"),
        Column("provider", _text, "Who sells the service; empty: the file does not say"),
        Column("billing_account_id", _text, "Account that is billed; empty: the file does not say"),
        Column("currency", _text, "Currency of the sums"),
        Column("format", _text, "FOCUS with its version, AWS CUR, or OpenCost"),
        Column("charges", _int, "Rows of that period"),
        Column("billed_cost", _money, "Sum of BilledCost, read from the file apart from the charges"),
        Column("effective_cost", _money, "Sum of EffectiveCost, read the same way"),
        Column("state", _text, "counts, superseded, duplicate, or not in the manifest"),
        Column("counts_instead", _text, "Name of the file that counts in its place", nullable=True),
        Column("reason", _text, "Why"),
        Column("overlap", _float, "Share of its charges that the other delivery repeats, in [0, 1]", nullable=True),
        Column("rounded_values", _int, "Costs with more than twelve decimals, which were rounded"),
        Column("rounded_by", _text, "What rounding added to the sum of BilledCost, exactly"),
        Column("observed_at", TIMESTAMP, "When it was looked at"),
    ),
    unique=("source", "file", "name", "billing_period", "provider", "billing_account_id", "currency"),
    partition_by=("source",),
    selected_by=("source",),
)

COST_PERIODS = Table(
    layer="bronze",
    name="cost_periods",
    comment="What each billing period came to whenever that changed: a restated period shows as two rows. Nothing is replaced.",
    columns=(
        Column("source", _text, "sample, file or opencost"),
        Column("billing_period", _date, "First day of the billing period, UTC"),
        Column("currency", _text, "Currency"),
        Column("charges", _int, "Charges that count"),
        Column("billed_cost", _money, "Sum of BilledCost"),
        Column("effective_cost", _money, "Sum of EffectiveCost"),
        Column("observed_at", TIMESTAMP, "When it came to that"),
    ),
    unique=("source", "billing_period", "currency", "observed_at"),
    partition_by=("source",),
    kind=Kind.LOG,
    selected_by=("source",),
)

COST_RECONCILIATION = Table(
    layer="bronze",
    name="cost_reconciliation",
    comment="The sums of each billing period and currency at every stage, from the raw files to the marts. They are equal.",
    columns=(
        Column("billing_period", _date, "First day of the billing period, UTC"),
        Column("currency", _text, "Currency"),
        Column("stage", _text, "raw files, charges, or the name of a mart"),
        Column("charges", _int, "Charges that the stage holds or stands for"),
        Column("billed_cost", _money, "Sum of BilledCost"),
        Column("effective_cost", _money, "Sum of EffectiveCost"),
        Column("billed_difference", _money, "Less the sum of the raw files; 0"),
        Column("effective_difference", _money, "Less the sum of the raw files; 0"),
    ),
    unique=("billing_period", "currency", "stage"),
)

COST_SHARES = Table(
    layer="bronze",
    name="cost_shares",
    comment="How shared costs are split among the tenants, as declared in ops/cost.yaml: one row per rule, or per fixed share.",
    columns=(
        Column("name", _text, "Rule, as it stands in shared_by"),
        Column("split", _text, "effective_cost, even or fixed"),
        Column("tenant", _text, "Tenant of a fixed share; empty: every tenant"),
        Column("share", _money, "Part of a fixed share; null for the others", nullable=True),
    ),
    unique=("name", "tenant"),
)

COST_BUDGETS = Table(
    layer="bronze",
    name="cost_budgets",
    comment="Money per month that may be spent, as declared in ops/cost.yaml.",
    columns=(
        Column("name", _text, "Name of the budget"),
        Column("amount", _money, "Money per month"),
        Column("currency", _text, "Its currency"),
        Column("tenant", _text, "Tenant it is for; null: any", nullable=True),
        Column("service", _text, "Service it is for; null: any", nullable=True),
        Column("provider", _text, "Provider it is for; null: any", nullable=True),
    ),
    unique=("name",),
)

COST_UNITS = Table(
    layer="bronze",
    name="cost_units",
    comment="What costs are divided by, as declared in ops/cost.yaml: a request, a report, 1,000 tokens.",
    columns=(
        Column("name", _text, "Name of the unit"),
        Column("measure", _text, "requests (of resource_usage) or tokens (of charges)"),
        Column("per", _int, "How many of them are one unit"),
        Column("service", _text, "Service whose cost is divided; null: each service by itself", nullable=True),
    ),
    unique=("name",),
)

COST_REPORTS = Table(
    layer="bronze",
    name="cost_reports",
    comment="The FinOps reports that were made: what each says per currency, read back from its file, and where it is.",
    columns=(
        Column("source", _text, "sample, file or opencost"),
        Column("period", _text, "2026-10: a month, as billed; 2026-W44: an ISO week, by the day of the charge"),
        Column("kind", _text, "month or week"),
        Column("first_day", _date, "First day of the period"),
        Column("last_day", _date, "Last day of the period"),
        Column("currency", _text, "Currency of the sums"),
        Column("billed_cost", _money, "Sum of BilledCost, as the report says it"),
        Column("effective_cost", _money, "Sum of EffectiveCost, as the report says it"),
        Column("file", _text, "The report, below reports/"),
        Column("sha256", _text, "Its digest"),
        Column("bytes", _int, "Its size"),
        Column("statements", _int, "Statements of tenants beside it"),
        Column("attribution", _text, "Digest of whose each of its costs is: it changes where the sums do not"),
        Column("made_at", TIMESTAMP, "When it was made"),
    ),
    unique=("source", "period", "currency"),
    partition_by=("source", "period"),
    selected_by=("source",),
)

COST_TABLES = (
    COST_SHARES,
    COST_BUDGETS,
    COST_UNITS,
    COST_CHARGES,
    COST_FILES,
    COST_PERIODS,
    COST_RECONCILIATION,
    COST_REPORTS,
)
