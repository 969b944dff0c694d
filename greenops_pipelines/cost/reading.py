"""One file of charges, as it was delivered: CSV (also .gz) or Parquet, ready for SQL. Nothing is converted here.

CSV is read strictly: a line with too many or too few fields, a quote that is never closed and a gzip that ends early are
errors with their line. `NULL` and an empty field are null; a quoted empty field is an empty text. Not here: what the
columns mean (`charges.py`), whether they fit the specification (`validate.py`), which files count (`deliveries.py`).
"""

from __future__ import annotations

import csv
import gzip
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake.catalog import quoted
from greenops_pipelines.redaction import one_line

ENDINGS = (".csv", ".csv.gz", ".parquet")
_DELIMITERS = ",;\t|"
_LONGEST_LINE = 4_000_000
_HEADER_BYTES = 1_000_000
_NULLS = ["", "NULL", "null"]
_CSV_ERROR = re.compile(r"CSV Error on Line: (?P<line>\d+)")


@dataclass(frozen=True)
class Opened:
    """A file that is open: the tables `file` and `numbered` of `connection` hold its rows.

    `numbered` has the row's number besides, as `#row`, 1 for the first; a scan of it is slower.
    """

    connection: duckdb.DuckDBPyConnection
    name: str
    types: Mapping[str, str]
    """The file's own column names, in its order, with DuckDB's type. Of a CSV file all are VARCHAR."""
    is_text: bool

    @property
    def place(self) -> str:
        """What a row is called in a message: the rows of a CSV file begin below its header."""
        return f"{self.name}, row"


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """The file at `path`, for as long as the block runs.

    Raises `BadInput` naming file, line, found and allowed where it cannot be read, on entry or while the block works with it.
    """
    kind = ending(path)
    if not path.is_file():
        raise BadInput(f"{path.name}: no such file")
    if not path.stat().st_size:
        raise BadInput(f"{path.name}: the file is empty")
    with (
        tempfile.TemporaryDirectory(prefix="greenops-cost-") as folder,
        duckdb.connect(config={"temp_directory": folder}) as connection,
    ):
        connection.execute("set TimeZone = 'UTC'")
        try:
            types = _parquet(connection, path) if kind == ".parquet" else _csv(connection, path)
            yield Opened(connection, path.name, types, kind != ".parquet")
        except duckdb.Error as error:
            raise BadInput(f"{path.name}: {_reason(error)}") from None


def ending(path: Path) -> str:
    """The kind of file, by its name; `BadInput` for one that is not read."""
    name = path.name.lower()
    for kind in ENDINGS:
        if name.endswith(kind):
            return kind
    raise BadInput(f"{path.name}: found {path.suffix or 'no ending'}, allowed: {', '.join(ENDINGS)}")


def _parquet(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    found = connection.sql("from read_parquet(?, hive_partitioning = false)", params=[str(path)])
    types = dict(zip(found.columns, map(str, found.types), strict=True))
    _refuse_names(path, list(types))
    scan = f"read_parquet({quoted(str(path))}, hive_partitioning = false"
    connection.execute(f"create view file as from {scan})")
    connection.execute(
        'create view numbered as select file_row_number + 1 as "#row", * exclude (file_row_number) '
        f"from {scan}, file_row_number = true)"
    )
    return types


def _csv(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    names, delimiter = _header(path)
    _refuse_names(path, names)
    columns = "{" + ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in names) + "}"
    scan = (
        f"read_csv({quoted(str(path))}, columns = {columns}, delim = {quoted(delimiter)}, quote = '\"', escape = '\"', header = true, "
        f"auto_detect = false, nullstr = {_NULLS}, allow_quoted_nulls = false, strict_mode = true, null_padding = false, "
        f"max_line_size = {_LONGEST_LINE})"
    )
    connection.execute(f"create view file as from {scan}")
    # Numbering rows keeps one thread busy: it is asked for apart.
    connection.execute(f'create view numbered as select row_number() over () as "#row", * from {scan}')
    return dict.fromkeys(names, "VARCHAR")


def _header(path: Path) -> tuple[list[str], str]:
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except (OSError, EOFError) as error:
        raise BadInput(f"{path.name}: cannot be read: {one_line(str(error), 200)}") from None
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"{path.name}: found UTF-16 text, allowed: UTF-8 (in Excel: save as CSV UTF-8)")
    lines = head.decode("utf-8-sig", errors="replace").splitlines()
    if not lines:
        raise BadInput(f"{path.name}: the file is empty")
    delimiter = max(_DELIMITERS, key=lines[0].count)
    return next(csv.reader(lines, delimiter=delimiter)), delimiter


def _refuse_names(path: Path, names: list[str]) -> None:
    lower = [name.lower() for name in names]
    repeated = sorted({name for name, low in zip(names, lower, strict=True) if lower.count(low) > 1})
    if repeated:
        raise BadInput(f"{path.name}: found the column {repeated[0]!r} twice, allowed: once")
    if any(not name for name in names):
        raise BadInput(f"{path.name}: found a column without a name (the {names.index('') + 1}.)")


def _reason(error: duckdb.Error) -> str:
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if place := _CSV_ERROR.search(text):
        found = next(
            (line for line in lines if line.startswith(("Expected Number", "Invalid unicode", "Value with"))), ""
        )
        return f"line {place['line']}: {one_line(found or lines[1], 200)}"
    return f"cannot be read: {one_line(lines[0], 240)}"
