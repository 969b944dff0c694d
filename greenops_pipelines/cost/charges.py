"""Charges of any generation of FOCUS, and of AWS' older Cost and Usage Report, as rows of one schema.

Names are FOCUS' own in snake case; ProviderName is `service_provider_name` whichever generation a file is of. Money is
DECIMAL(38, 12): a value with more decimals is rounded half away from zero, which is counted and shown. Signs are kept. A time
without a zone is UTC, as FOCUS demands. An empty text is null. Not here: which files count (`deliveries.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from greenops_pipelines.cost import aws_cur
from greenops_pipelines.cost.columns import FocusColumn, focus_columns
from greenops_pipelines.cost.reading import Opened
from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake.catalog import identifier

MONEY = "decimal(38, 12)"
EXACT = "decimal(38, 18)"
"""What sums over a file are made in: providers print up to fourteen decimals."""

_NUMBER = r"-?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
_DATE_TIME = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?\s*(Z|UTC|[+-]\d\d(:?\d\d)?)?)?"

REQUIRED = ("BilledCost", "EffectiveCost", "BillingCurrency", "ChargeCategory", "BillingPeriodStart", "BillingPeriodEnd",
            "ChargePeriodStart", "ChargePeriodEnd")  # fmt: skip
"""What a charge cannot be counted without."""


@dataclass(frozen=True)
class Shape:
    """How a file's columns say what FOCUS says: SQL per column of FOCUS, over the file's own columns."""

    format: str
    expressions: Mapping[str, str]
    is_typed: Mapping[str, str]
    """DuckDB's type of each expression."""


def shape_of(file: Opened) -> Shape:
    """What kind of file it is. Raises `BadInput` naming the columns that are missing."""
    if aws_cur.is_cur(file.types):
        expressions = aws_cur.expressions(file.types)
        return Shape("AWS CUR", expressions, dict.fromkeys(expressions, "VARCHAR"))
    by_name = {name.lower(): name for name in file.types}
    expressions, types = {}, {}
    for name in focus_columns():
        found = by_name.get(name.lower())
        if found is None and name == "ServiceProviderName":
            found = by_name.get("providername")
        if found is not None:
            expressions[name], types[name] = _plain(identifier(found), file.types[found]), file.types[found]
    if {"providername", "serviceprovidername"} <= by_name.keys():
        # Files of 1.3 may carry both generations, and fill one.
        older = _plain(identifier(by_name["providername"]), file.types[by_name["providername"]])
        expressions["ServiceProviderName"] = f"coalesce({expressions['ServiceProviderName']}, {older})"
    return Shape("FOCUS", expressions, types)


def require(file: Opened, shape: Shape, names: tuple[str, ...] = REQUIRED) -> None:
    """Raises `BadInput` where columns are missing that a charge cannot be counted without."""
    missing = [name for name in names if name not in shape.expressions]
    if missing:
        raise BadInput(
            f"{file.name}: columns: missing {', '.join(missing)}; found {len(file.types)}: {_some(list(file.types))}"
        )


def refuse_values(file: Opened, shape: Shape, names: tuple[str, ...]) -> None:
    """Raises `BadInput` for the first value that is no number or no time, or is missing where it must not be.

    Names file, row, field, found and allowed.
    """
    asked = [name for name in names if name in shape.expressions]
    bad = [_is_bad(name, shape, name in REQUIRED) for name in asked]
    if not asked or not any(
        file.connection.sql(f"select {', '.join(f'bool_or({sql})' for sql in bad)} from file").fetchall()[0]
    ):
        return
    # Only now, because numbering rows keeps one thread busy.
    checks = [f'min("#row") filter (where {sql})' for sql in bad]
    rows = file.connection.sql(f"select {', '.join(checks)} from numbered").fetchall()[0]
    faults = sorted((row, name) for row, name in zip(rows, asked, strict=True) if row is not None)
    if faults:
        row, name = faults[0]
        found = file.connection.sql(
            f'select ({shape.expressions[name]})::varchar from numbered where "#row" = {row}'
        ).fetchall()[0][0]
        column = focus_columns()[name]
        allowed = {
            "decimal": "a number such as -1234.56, without separators of thousands",
            "time": "a date and time such as 2026-01-31T00:00:00Z",
        }
        hint = (
            "; it looks like a date of Excel: export as ISO 8601"
            if column.type == "time" and found and found.replace(".", "").isdigit()
            else ""
        )
        shown = "nothing" if found is None else repr(found)
        raise BadInput(
            f"{file.name}, row {row}: {name}: found {shown}, allowed: {allowed.get(column.type, 'a value')}{hint}"
        )


def typed(name: str, shape: Shape, money: str = MONEY) -> str:
    """SQL of one column of FOCUS in the schema's type; null where the file lacks it."""
    column = focus_columns()[name]
    target = {"text": "varchar", "json": "varchar", "decimal": money, "time": "timestamptz"}[column.type]
    if name not in shape.expressions:
        return f"null::{target}"
    sql, kind = shape.expressions[name], shape.is_typed[name]
    if column.type == "decimal":
        # The shortest text of a double is the number that the provider printed; a cast would carry its binary tail along.
        return (
            f"try_cast(({sql})::varchar as {money})" if kind in ("DOUBLE", "FLOAT", "VARCHAR") else f"({sql})::{money}"
        )
    if column.type == "time":
        return f"try_cast({sql} as timestamptz)"
    return f"nullif(({sql})::varchar, '')"


def charges_sql(shape: Shape) -> str:
    """SELECT of all rows of `numbered` in the schema's columns, with `row_number` in front."""
    columns = [f"{typed(c.name, shape)} as {c.snake}" for c in schema_columns()]
    return f"""select "#row"::bigint as row_number, {", ".join(columns)} from numbered"""


def schema_columns() -> list[FocusColumn]:
    """The columns of FOCUS that the schema has: every one but ProviderName, which ServiceProviderName stands for."""
    return [column for column in focus_columns().values() if column.name != "ProviderName"]


def rounded(file: Opened, shape: Shape) -> dict[str, tuple[int, str]]:
    """Per cost column: how many values had more than twelve decimals, and by how much rounding changed their sum, exactly."""
    names = [n for n in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost") if n in shape.expressions]
    parts = []
    for name in names:
        exact, kept = typed(name, shape, EXACT), typed(name, shape)
        parts += [f"count(*) filter (where {exact} <> {kept})", f"sum({kept}::{EXACT} - {exact})::varchar"]
    if not parts:
        return {}
    found = file.connection.sql(f"select {', '.join(parts)} from file").fetchall()[0]
    return {name: (found[2 * n], found[2 * n + 1]) for n, name in enumerate(names)}


def _is_bad(name: str, shape: Shape, is_required: bool) -> str:
    sql, kind, column = shape.expressions[name], shape.is_typed[name], focus_columns()[name]
    missing = f"nullif(({sql})::varchar, '') is null"
    if column.type == "decimal":
        if kind in ("DOUBLE", "FLOAT"):
            wrong = f"not isfinite({sql}) or try_cast(({sql})::varchar as {MONEY}) is null"
        elif kind == "VARCHAR":
            # A cast would take "1_000" and " 1 " for numbers.
            wrong = f"try_cast({sql} as {MONEY}) is null or not regexp_full_match({sql}, '{_NUMBER}')"
        else:
            wrong = f"try_cast({sql} as {MONEY}) is null"
    elif column.type == "time":
        is_text = kind == "VARCHAR"
        wrong = (
            f"not regexp_full_match({sql}, '{_DATE_TIME}') or try_cast({sql} as timestamptz) is null"
            if is_text
            else f"try_cast({sql} as timestamptz) is null"
        )
    else:
        wrong = "false"
    return (
        f"({missing})"
        if wrong == "false" and is_required
        else f"({missing}) or coalesce({wrong}, false)"
        if is_required
        else f"not ({missing}) and coalesce({wrong}, false)"
    )


def _plain(sql: str, kind: str) -> str:
    return f"to_json({sql})::varchar" if kind.startswith(("MAP", "STRUCT")) else sql


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def count(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    """The single number that a statement answers."""
    return int(connection.sql(sql).fetchall()[0][0] or 0)
