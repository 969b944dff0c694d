"""Files -> the lake: charges that count, what was found, and what each billing period came to. Re-running changes nothing.

A billing period is replaced whole, from all the files that count for it. A period whose files are gone from the source stays as
it is: bills are archived, and are no less true for that. Not here: which files count (`deliveries.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from greenops_pipelines.cost import allocation, charges, deliveries, usage
from greenops_pipelines.cost.allocation import CostOps
from greenops_pipelines.cost.deliveries import Delivered, Key, Verdict
from greenops_pipelines.cost.reading import opened
from greenops_pipelines.cost.sources import Found
from greenops_pipelines.lake import Lake, Written
from greenops_pipelines.lake.catalog import quoted
from greenops_pipelines.lake.cost_tables import COST_CHARGES, COST_FILES, COST_PERIODS

_BATCH = 65_536


@dataclass(frozen=True)
class Ingested:
    """What was done: the writes of charges, files and periods, verdicts, and periods whose sums changed."""

    written: Written
    files: Written
    periods: Written
    verdicts: tuple[Verdict, ...]
    restated: tuple[str, ...]
    totals: dict[str, Decimal]

    def count(self, state: str) -> int:
        """Files, per billing period, of that state."""
        return sum(v.state == state for v in self.verdicts)


def look(found: Found) -> tuple[list[Delivered], list[Verdict]]:
    """Every file read, and whether it counts. Nothing is stored."""
    files = [deliveries.scan(path, found.root) for path in found.files]
    return files, deliveries.judge(files, found.manifests)


def ingest(lake: Lake, found: Found, declared: CostOps, run_id: str, now: datetime) -> Ingested:
    """Bring the files' charges into the lake. Raises `BadInput` for a file that cannot be counted; nothing is written then."""
    _, verdicts = look(found)
    counting: dict[date, list[tuple[Delivered, list[Key]]]] = defaultdict(list)
    by_file: dict[str, tuple[Delivered, list[Key]]] = {}
    for verdict in verdicts:
        if verdict.state == "counts":
            by_file.setdefault(verdict.file.name, (verdict.file, []))[1].append(verdict.key)
    for file, keys in by_file.values():
        for period in sorted({key[2] for key in keys}):
            counting[period].append((file, [key for key in keys if key[2] == period]))
    paths: list[str] = []
    digests: list[str] = []
    rows = size = 0
    for period, files in sorted(counting.items()):
        ordered = sorted(files, key=lambda item: item[0].digest)
        done = lake.load(
            COST_CHARGES,
            {"source": found.source, "billing_period": period},
            _batches(found.source, period, ordered, declared),
            refresh=False,
        )
        paths += done.paths
        digests += done.digests
        rows += done.rows
        size += done.bytes
    listed = _write_files(lake, found.source, verdicts, now)
    sums = _sums(verdicts)
    restated, periods = _write_periods(lake, found.source, sums, run_id, now)
    lake.refresh()
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for (_, currency), values in sums.items():
        totals[currency] += values[1]
    return Ingested(
        written=Written(COST_CHARGES, rows, tuple(paths), size, tuple(digests)),
        files=listed,
        periods=periods,
        verdicts=tuple(verdicts),
        restated=restated,
        totals=dict(totals),
    )


def _batches(
    source: str, period: date, files: Sequence[tuple[Delivered, list[Key]]], declared: CostOps
) -> Iterator[pa.RecordBatch]:
    schema = COST_CHARGES.schema
    for file, keys in files:
        with opened(file.path) as reading:
            shape = charges.shape_of(reading)
            wanted = " or ".join(
                f"(coalesce(service_provider_name, '') = {quoted(provider)} and coalesce(billing_account_id, '') = {quoted(account)})"
                for provider, account, _ in keys
            )
            sql = (
                f"with charges as ({charges.charges_sql(shape)}) "
                f"select {quoted(source)} as source, date '{period}' as billing_period, {quoted(file.digest)} as file, *, "
                f"{allocation.columns_sql(declared)}, coalesce(region_id, region_name) as region, {usage.columns_sql()} "
                f"from charges where billing_period_start::date = date '{period}' and ({wanted}) order by row_number"
            )
            reader = reading.connection.sql(sql).to_arrow_reader(_BATCH)
            for batch in reader:
                yield pa.RecordBatch.from_arrays(
                    [batch.column(field.name).cast(field.type) for field in schema], schema=schema
                )


def _write_files(lake: Lake, source: str, verdicts: Sequence[Verdict], now: datetime) -> Written:
    rows: list[dict[str, Any]] = []
    seen = set()
    for verdict in verdicts:
        file = verdict.file
        seen.add(verdict.key[2])
        for part in file.parts:
            if part.key != verdict.key:
                continue
            rows.append(
                {
                    "source": source,
                    "file": file.digest,
                    "name": file.name,
                    "billing_period": part.period,
                    "provider": part.provider,
                    "billing_account_id": part.account,
                    "currency": part.currency,
                    "format": file.format,
                    "charges": part.charges,
                    "billed_cost": part.billed,
                    "effective_cost": part.effective,
                    "state": verdict.state,
                    "counts_instead": verdict.instead,
                    "reason": verdict.reason,
                    "overlap": verdict.overlap,
                    "rounded_values": file.rounded_values,
                    "rounded_by": file.rounded_by,
                    "observed_at": now,
                }
            )
    before = [
        r
        for r in lake.read(COST_FILES, {"source": source}).to_pylist()
        if r["billing_period"] not in seen and r["state"] == "counts"
    ]
    kept = [r | {"reason": "no longer at the source; what was counted stays"} for r in before]
    return lake.write(
        COST_FILES, pa.Table.from_pylist([*rows, *kept], schema=COST_FILES.schema), [{"source": source}], refresh=False
    )


def _sums(verdicts: Sequence[Verdict]) -> dict[tuple[date, str], tuple[int, Decimal, Decimal]]:
    """Charges, billed and effective cost of what counts, per billing period and currency."""
    sums: dict[tuple[date, str], tuple[int, Decimal, Decimal]] = defaultdict(lambda: (0, Decimal(0), Decimal(0)))
    for verdict in verdicts:
        for part in verdict.file.parts:
            if verdict.state == "counts" and part.key == verdict.key:
                count, billed, effective = sums[part.period, part.currency]
                sums[part.period, part.currency] = (
                    count + part.charges,
                    billed + part.billed,
                    effective + part.effective,
                )
    return dict(sums)


def _write_periods(
    lake: Lake, source: str, sums: dict[tuple[date, str], tuple[int, Decimal, Decimal]], run_id: str, now: datetime
) -> tuple[tuple[str, ...], Written]:
    known: dict[tuple[date, str], tuple[Any, ...]] = {}
    for row in sorted(lake.read(COST_PERIODS, {"source": source}).to_pylist(), key=lambda r: r["observed_at"]):
        known[row["billing_period"], row["currency"]] = (row["charges"], row["billed_cost"], row["effective_cost"])
    changed = {key: values for key, values in sums.items() if known.get(key) != values}
    names = ("charges", "billed_cost", "effective_cost")
    rows = [
        {"source": source, "billing_period": p, "currency": c, **dict(zip(names, v, strict=True)), "observed_at": now}
        for (p, c), v in changed.items()
    ]
    written = lake.append(COST_PERIODS, pa.Table.from_pylist(rows, schema=COST_PERIODS.schema), now, run_id)
    restated = tuple(
        f"{p:%Y-%m} {c}: {known[p, c][1]} is now {v[1]}" for (p, c), v in sorted(changed.items()) if (p, c) in known
    )
    return restated, written
