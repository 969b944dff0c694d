"""Ad-hoc SQL: what is answered, what is refused, and that nothing that is refused writes a byte."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import Lake, query
from tests.lake.declared import CHARGES, RATES, at, charge, rate, rows

ANSWERED = {
    "select 1": 1,
    "SELECT 1;": 1,
    "  \n select 1 -- and nothing else": 1,
    "/* one; two */ select 1": 1,
    "(select 1)": 1,
    "select ';'": ";",
    "select 'drop table rates'": "drop table rates",
    "select 'ü 日本 🌍'": "ü 日本 🌍",
    "with one as (select 1 as x) select x from one": 1,
    "from rates select count(*)": 2,
    "table rates": "EUR",
    "values (1)": 1,
    "select count(*) from query('select 1')": 1,
    "explain select 1": "physical_plan",
    "explain (format json) select 1": "physical_plan",
    "explain analyze select 'ü', count(*) from rates": "analyzed_plan",
    "explain analyze /* ü; */ from rates": "analyzed_plan",
    "explain (analyze) with one as (select 1) from one": "analyzed_plan",
    "describe rates": "currency",
    "describe select 1 as x": "x",
    "show tables": "carbon_intensity",
    "show timezone": "UTC",
    "summarize rates": "currency",
    "select current_setting('TimeZone')": "UTC",
    "select currency from rates order by rate limit 1": "EUR",
    "select count(*) from read_parquet('{lake}/marts/rates/*.parquet')": 2,
}

REFUSED = {
    "": "found 0 statements, allowed: one SELECT",
    " -- nothing": "found 0 statements",
    "select 1; select 2": "found 2 statements",
    "selct 1": "syntax error",
    "select": "without selection list",
    "explain": "syntax error",
    "copy rates to '{lake}/out.csv'": "COPY",
    "copy (select 1) to '{lake}/out.parquet' (format parquet)": "COPY",
    "explain copy rates to '{lake}/out.csv'": "COPY",
    "explain analyze copy rates to '{lake}/out.csv'": "COPY",
    "explain (analyze, format json) copy rates to '{lake}/out.csv'": "COPY",
    "explain analyze /* select 1 */ copy rates to '{lake}/ü.csv'": "COPY",
    "explain analyze create table x as select 1": "CREATE",
    "explain analyze insert into rates values ('X', 1, 1)": "INSERT",
    "attach '{lake}/other.duckdb'": "ATTACH",
    "detach warehouse": "DETACH",
    "use memory": "SET",
    "install httpfs": "LOAD",
    "load httpfs": "LOAD",
    "set threads = 1": "SET",
    "reset threads": "SET",
    "set variable x = 1": "SET",
    "pragma database_list": "PRAGMA",
    "pragma enable_profiling": "PRAGMA",
    "create table x as select 1": "CREATE",
    "create temp table x as select 1": "CREATE",
    "create or replace view rates as select 1": "CREATE",
    "create macro m() as 1": "CREATE",
    "create secret s (type s3)": "CREATE",
    "insert into rates values ('X', 1, 1)": "INSERT",
    "with new as (insert into rates values ('X', 1, 1) returning *) select * from new": "rates",
    "with gone as (delete from rates returning *) select * from gone": "",
    "update rates set rate = 0": "UPDATE",
    "delete from rates": "DELETE",
    "truncate rates": "DELETE",
    "merge into rates using rates as r on true when matched then delete": "MERGE",
    "drop view rates": "DROP",
    "alter view rates rename to x": "ALTER",
    "comment on view rates is 'x'": "ALTER",
    "call pragma_version()": "CALL",
    "checkpoint": "",
    "vacuum": "VACUUM",
    "begin": "TRANSACTION",
    "prepare p as select 1": "PREPARE",
    "execute p": "EXECUTE",
    "export database '{lake}/out'": "EXPORT",
    "import database '{lake}/out'": "",
    "select * from nowhere": "nowhere does not exist",
    "select nothing from rates": '"nothing" not found',
    "select * from enable_logging()": "locked",
    "select * from query('copy rates to ''{lake}/out.csv''')": "SELECT",
    # The file system beyond the lake.
    "select * from read_text('/etc/passwd')": "disabled by configuration",
    "select * from read_csv('/etc/passwd')": "disabled by configuration",
    "select * from glob('/etc/*')": "disabled by configuration",
    "select * from read_text('{lake}/../secret')": "disabled by configuration",
    "select * from read_blob('{lake}x/secret')": "disabled by configuration",
    "from '/etc/passwd.csv'": "disabled by configuration",
}


@pytest.fixture
def filled(lake: Lake) -> Lake:
    lake.write(RATES, rows(RATES, rate("EUR", "1.1"), rate("USD", "1.25")))
    beside = Path(lake.storage.root + "x")
    beside.mkdir()
    for secret in (beside / "secret", beside.with_name("secret")):
        secret.write_text("not part of the lake")
    return lake


def tree(home: Path) -> dict[str, bytes]:
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in home.rglob("*") if path.is_file()}


@pytest.mark.parametrize("sql", ANSWERED)
def test_statements_that_read_are_answered(filled: Lake, sql: str) -> None:
    answer = query.run(filled.warehouse, filled.storage, sql.format(lake=filled.storage.root))
    assert answer.column(0)[0].as_py() == ANSWERED[sql]


@pytest.mark.parametrize("sql", REFUSED)
def test_everything_else_is_refused_and_writes_nothing(filled: Lake, home: Path, sql: str) -> None:
    before = tree(home)
    with pytest.raises(BadInput) as refused:
        query.run(filled.warehouse, filled.storage, sql.format(lake=filled.storage.root))
    assert REFUSED[sql] in str(refused.value)
    assert tree(home) == before


def test_a_refusal_says_what_was_found_and_what_is_allowed() -> None:
    with pytest.raises(BadInput) as refused:
        query.check("copy x to 'y'")
    assert str(refused.value) == (
        "found a COPY statement, allowed: one SELECT, EXPLAIN, DESCRIBE, SHOW or SUMMARIZE statement"
    )


def test_a_long_statement_is_not_repeated_in_its_error() -> None:
    with pytest.raises(BadInput) as refused:
        query.check("select " + "1, " * 5000 + "from from")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_the_callers_variables_are_no_tables(filled: Lake) -> None:
    """DuckDB would otherwise find Python objects by their names."""
    warehouse_rows = pa.table({"x": [1]})
    with pytest.raises(BadInput, match="warehouse_rows does not exist"):
        query.run(filled.warehouse, filled.storage, "from warehouse_rows")
    assert warehouse_rows.num_rows == 1


def test_without_a_warehouse_it_says_how_to_get_one(lake: Lake) -> None:
    with pytest.raises(BadInput, match=r"warehouse\.duckdb: not there yet; `greenops run` makes it"):
        query.run(lake.warehouse, lake.storage, "select 1")


def test_a_bucket_is_asked_alike_and_nothing_else_of_the_machine(any_lake: Lake) -> None:
    any_lake.write(RATES, rows(RATES, rate("EUR", "1.1")))
    assert query.run(any_lake.warehouse, any_lake.storage, "select rate from rates")["rate"].to_pylist() == [
        Decimal("1.1")
    ]
    with pytest.raises(BadInput, match="disabled by configuration"):
        query.run(any_lake.warehouse, any_lake.storage, "select * from read_text('/etc/passwd')")


def objects(lake: Lake, sql: str) -> object:
    return query.as_objects(query.run(lake.warehouse, lake.storage, sql))


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("null", None),
        ("true", True),
        ("9223372036854775807", 2**63 - 1),
        ("sum(x) from range(4) t(x)", 6),
        ("170141183460469231731687303715884105727::hugeint", 2**127 - 1),
        ("1.25::decimal(9, 2)", 1.25),
        ("0.1::decimal(18, 6)", 0.1),
        ("12345678901234567.89::decimal(19, 2)", "12345678901234567.89"),
        ("'nan'::double", "nan"),
        ("'-infinity'::double", "-inf"),
        ("date '2026-03-01'", "2026-03-01"),
        ("time '10:00'", "10:00:00"),
        ("timestamptz '2026-03-01 10:00+02'", "2026-03-01T08:00:00+00:00"),
        ("timestamp '2026-03-01 10:00'", "2026-03-01T10:00:00"),
        ("'a'::blob", "61"),
        ("[1, null]", [1, None]),
        ("{'a': date '2026-03-01', 'b': [1.5::decimal(3, 1)]}", {"a": "2026-03-01", "b": [1.5]}),
        ("map {'k': 'nan'::double}", [["k", "nan"]]),
        ("uuid '6ba7b810-9dad-11d1-80b4-00c04fd430c8'", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    ],
)
def test_values_as_json(filled: Lake, sql: str, value: object) -> None:
    (only,) = query.as_objects(query.run(filled.warehouse, filled.storage, f"select {sql}"))
    (found,) = only.values()
    assert (found, type(found)) == (value, type(value))


def test_columns_of_one_name_are_kept_apart(filled: Lake) -> None:
    assert objects(filled, "select 1 as a, 2 as a, 3 as a, 4 as a_2") == [{"a": 1, "a_3": 2, "a_4": 3, "a_2": 4}]
    assert objects(filled, "select 1 as a_3, 2 as a, 3 as a") == [{"a_3": 1, "a": 2, "a_2": 3}]
    assert query.as_objects(pa.table([[1], [2], [3]], names=["a", "a", "a"])) == [{"a": 1, "a_2": 2, "a_3": 3}]


def test_csv(lake: Lake) -> None:
    lake.write(CHARGES, rows(CHARGES, charge("a", at(10), billed="0.1", note='x,"y"', usage=None)))
    file = io.BytesIO()
    sql = (
        "select account, hour, billed, usage, note, day, is_spot, [1.5, null] as list, {'a': day} as struct, "
        "interval 1 day as span, 'nan'::double as odd from charges"
    )
    query.write_csv(query.run(lake.warehouse, lake.storage, sql), file)
    header, line = file.getvalue().decode().splitlines()
    assert header == '"account","hour","billed","usage","note","day","is_spot","list","struct","span","odd"'
    assert line == (
        '"a",2026-03-01 10:00:00.000000Z,0.100000,,"x,""y""",2026-03-01,false,"[1.5, null]",'
        '"{""a"": ""2026-03-01""}","[0, 1, 0]",nan'
    )
