"""Pages out of templates, and files put in their place whole."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    from jinja2 import Environment


def render(template: str, **data: Any) -> str:
    """A page from a template of this package; what is put in is escaped, and a name that is missing is an error."""
    return _environment().get_template(template).render(**data)


def significant(value: float) -> str:
    """Three digits that count, without an exponent: 0.000548, 12.3, 1,235."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def put(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then move it there: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def put_text(path: Path, text: str) -> Path:
    """The same for a text."""
    return put(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def put_rows(
    connection: duckdb.DuckDBPyConnection, path: Path, sql: str, parameters: dict[str, Any] | None = None
) -> None:
    """The rows of a statement beside `path`, as Parquet, and as CSV, where a text that a spreadsheet would take for a formula begins with an
    apostrophe."""
    import pyarrow as pa
    import pyarrow.parquet

    rows = connection.sql(sql, params=parameters).to_arrow_table()
    put(path.with_suffix(".parquet"), lambda temporary: pyarrow.parquet.write_table(rows, temporary))
    listed = ", ".join(
        f"case when regexp_matches({name}, '^[=+@\\-\\t\\r]') then '''' || {name} else {name} end as {name}"
        if pa.types.is_string(kind) or pa.types.is_large_string(kind)
        else name
        for name, kind in zip(rows.schema.names, rows.schema.types, strict=True)
    )
    connection.register("rows", rows)
    safe = connection.sql(f"select {listed} from rows")
    put(path.with_suffix(".csv"), lambda temporary: safe.write_csv(str(temporary), header=True))
    connection.unregister("rows")


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files("greenops_pipelines.report")

    def load(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["significant"] = significant
    return environment
