"""CSV and Parquet files that people hand in, ready for SQL. Not here: what the columns mean, and which values fit."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv

from greenops_pipelines.errors import ConfigurationError, ProviderError
from greenops_pipelines.redaction import one_line

# A time of day has to stand before the offset: the "-01" that ends a bare date is none.
_ZONED = r"\d:\d\d(:\d\d(\.\d+)?)?\s*(Z|[+-]\d\d(:?\d\d)?)$"
_DELIMITERS = ",;\t"
_EMPTY = pa.schema([pa.field("position", pa.int64()), pa.field("line", pa.int64())]).empty_table()


def matching(pattern: str, variable: str) -> list[Path]:
    """The files that a path or glob names; `ConfigurationError` naming the variable where there is none."""
    paths = [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]
    if not paths:
        raise ConfigurationError(f"{variable}: no file matches {pattern!r}")
    for path in paths:
        if path.suffix.lower() not in {".csv", ".parquet"}:
            raise ConfigurationError(
                f"{variable}: {path.name}: found {path.suffix or 'no ending'}, allowed: .csv, .parquet"
            )
    return paths


@contextmanager
def opened(path: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, Mapping[str, str]]]:
    """A connection in UTC with the table `rows_of_file`, and DuckDB's type of each column.

    A column `line` in front holds the line of a CSV file (whose columns are all text), or the row of a Parquet file.
    Raises `ProviderError` where the file cannot be read, on entry or while the block works with it.
    """
    if not path.stat().st_size:
        raise ProviderError(f"{path.name}: the file is empty")
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        try:
            rows = _csv(path) if _is_csv(path) else connection.sql("from read_parquet(?)", params=[str(path)])
            connection.register("file", rows if isinstance(rows, pa.Table) else rows.to_arrow_table())
            connection.register("numbers", _lines(path, rows.num_rows) if isinstance(rows, pa.Table) else _EMPTY)
            number = "select coalesce(n.line, f.position) as line, f.* exclude (position) from"
            numbered = connection.sql(
                f"{number} (select row_number() over () as position, * from file) as f "
                "left join numbers as n on n.position = f.position order by f.position"
            )
            types = dict(zip(numbered.columns, map(str, numbered.types), strict=True))
            connection.register("rows_of_file", numbered.to_arrow_table())
            yield connection, types
        except (duckdb.Error, pa.ArrowInvalid) as error:
            reason = str(error).splitlines()[0]
            raise ProviderError(f"{path.name}: cannot be read: {one_line(reason, 200)}") from None


def place(path: Path, line: int) -> str:
    """Where a fault is, for a message."""
    return f"{path.name}, {'line' if _is_csv(path) else 'row'} {line}"


def instant(column: str, types: Mapping[str, str], path: Path) -> str:
    """SQL for a column of times that say their zone themselves; null where a text does not.

    Raises `ProviderError` for a column whose type holds no zone: such a time could be anyone's.
    """
    kind = types[column]
    if kind == "VARCHAR":
        return f"case when regexp_matches({column}, '{_ZONED}') then try_cast({column} as timestamptz) end"
    if kind in {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"}:
        return f"{column}::timestamptz"
    raise ProviderError(f"{path.name}: column {column}: found {kind} (no zone), allowed: a time with a zone")


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _lines(path: Path, rows: int) -> pa.Table:
    """The line that each row begins in. Empty lines are no rows; a text of several lines makes that all but unknown."""
    filled = [number for number, line in enumerate(path.read_bytes().splitlines(), 1) if line]
    lines = filled[1:] if len(filled) == rows + 1 else list(range(2, rows + 2))
    return pa.table({"position": range(1, rows + 1), "line": lines}, schema=_EMPTY.schema)


def _csv(path: Path) -> pa.Table:
    """All columns as text. Arrow's reader, because DuckDB's guesses: it takes a ragged file for one of one column."""
    with path.open("rb") as file:
        header = file.readline(65_536).decode("utf-8", errors="replace")
    form = pa.csv.ParseOptions(delimiter=max(_DELIMITERS, key=header.count), newlines_in_values=True)
    with pa.csv.open_csv(path, parse_options=form) as reader:
        names = reader.schema.names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ProviderError(f"{path.name}: found the column {repeated[0]!r} twice, allowed: once")
    text = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return pa.csv.read_csv(path, parse_options=form, convert_options=text)
