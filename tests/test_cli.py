"""The `greenops` command as a person and as a script meet it: exit codes, stdout, stderr."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from greenops_pipelines import __version__, cli, console, wiring
from greenops_pipelines.lake.results import record
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.settings import Settings
from tests.carbon.small_lake import ROOT, at, intensity, put_intensity

PYTHON = Path(sys.executable)
ZONES = "select zone, count(*) as n, max(carbon_intensity_g_per_kwh) as top from carbon_intensity group by 1 order by 1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three intervals, one met criterion, and a warehouse."""
    home = tmp_path_factory.mktemp("home")
    lake = wiring.lake(Settings(_env_file=None, home=home, dbt_dir=ROOT / "dbt"))
    rows = [intensity(zone, at(hour), value) for zone, hour, value in (("DE", 0, 400), ("DE", 1, 410.5), ("FR", 0, 50))]
    put_intensity(lake, *(row | {"provider": "sample"} for row in rows))
    met = Measurement("carbon/intensity:completeness", 99.5, 95, ">=", "%", "a sentence")
    record(lake, [met], "run-1", datetime.now(UTC))
    lake.refresh()
    return home


@pytest.fixture(autouse=True)
def environment(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in os.environ if name.startswith("GREENOPS_")]:
        monkeypatch.delenv(name)
    for name, value in {"HOME": home, "OPS_DIR": ROOT / "ops", "DBT_DIR": ROOT / "dbt"}.items():
        monkeypatch.setenv(f"GREENOPS_{name}", str(value))
    monkeypatch.delenv("COLUMNS", raising=False)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        assert self.err == ""
        return json.loads(self.out)


Greenops = Callable[..., Ended]


@pytest.fixture
def greenops(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Greenops:
    def greenops(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["greenops", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return greenops


def refused(ended: Ended) -> str:
    """The one line on stderr of a command that was given something wrong."""
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("greenops: ")
    assert ended.err.count("\n") == 1
    return ended.err.removeprefix("greenops: ").rstrip("\n")


# Asking for something that is not there


def test_the_version(greenops: Greenops) -> None:
    assert greenops("--version") == Ended(0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--nope"], "No such option: --nope (see greenops --help)"),
        (["status", "--nope"], "No such option: --nope (see greenops status --help)"),
        (["carbon", "fetch", "--zonee", "DE"], "No such option: --zonee"),
        (["carbon", "fetch", "--zone", "DE"], "Missing option '--from'. (see greenops carbon fetch --help)"),
        (["statsu"], "No such command 'statsu'. Did you mean 'status'? (see greenops --help)"),
        (["sql"], "Missing argument 'query'. (see greenops sql --help)"),
        (["sql", "select", "1"], "Got unexpected extra argument"),
    ],
)
def test_a_mistyped_command_is_one_line_with_where_to_look(greenops: Greenops, arguments: list[str], line: str) -> None:
    assert refused(greenops(*arguments)).startswith(line)


@pytest.mark.parametrize("arguments", [[], ["carbon"]])
def test_no_command_shows_the_help(greenops: Greenops, arguments: list[str]) -> None:
    ended = greenops(*arguments)
    assert (ended.code, ended.err) == (2, "")
    assert "Usage: greenops" in ended.out


def test_help_is_no_failure(greenops: Greenops) -> None:
    ended = greenops("sql", "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "DESCRIBE" in ended.out


@pytest.mark.parametrize("command", [["status"], ["sql", "select 1"], ["run", "--list"]])
def test_a_wrong_setting_is_one_line(greenops: Greenops, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setenv("GREENOPS_CARBON_PROVIDER", "elecmaps")
    assert refused(greenops(*command)).startswith("GREENOPS_CARBON_PROVIDER: found 'elecmaps'; input should be ")


# sql


def test_sql_as_json_is_a_list_of_objects(greenops: Greenops) -> None:
    ended = greenops("sql", ZONES, "--json")
    assert ended.code == 0
    assert ended.json == [{"zone": "DE", "n": 2, "top": 410.5}, {"zone": "FR", "n": 1, "top": 50.0}]
    assert greenops("sql", ZONES + " limit 0", "--json").json == []


def test_sql_as_json_keeps_what_json_has_no_word_for(greenops: Greenops) -> None:
    query = (
        "select 'nan'::double as a, 0.1::decimal(3,1) as b, timestamptz '2026-03-01 00:00Z' as c, null as d, [1] as e"
    )
    assert greenops("sql", query, "--json").json == [
        {"a": "nan", "b": 0.1, "c": "2026-03-01T00:00:00+00:00", "d": None, "e": [1]}
    ]


def test_sql_as_csv(greenops: Greenops) -> None:
    ended = greenops("sql", ZONES, "--csv")
    assert list(csv.reader(io.StringIO(ended.out))) == [["zone", "n", "top"], ["DE", "2", "410.5"], ["FR", "1", "50"]]
    assert (ended.code, ended.err) == (0, "")


def test_sql_as_a_table(greenops: Greenops) -> None:
    ended = greenops("sql", ZONES)
    lines = [line.split() for line in ended.out.splitlines() if line.strip(" ─")]
    assert lines == [["zone", "n", "top"], ["DE", "2", "410.5"], ["FR", "1", "50"]]
    assert (ended.code, ended.err) == (0, "")


def test_sql_without_rows_says_so(greenops: Greenops) -> None:
    assert "no rows" in greenops("sql", ZONES + " limit 0").out


def test_sql_cuts_a_long_table_and_says_how_to_get_the_rest(greenops: Greenops) -> None:
    out = greenops("sql", "select range as n from range(1000)").out
    assert "200 of 1,000 rows shown; --json and --csv give all" in out
    assert " 199 " in out
    assert " 200 " not in out.split("rows shown")[0].replace("200 of", "")


def test_sql_reads_stdin(monkeypatch: pytest.MonkeyPatch, greenops: Greenops) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("select 1 as one\n"))
    assert greenops("sql", "-", "--json").json == [{"one": 1}]


@pytest.mark.parametrize("query", ["describe regions", "show tables", "summarize select 1 as a", "explain select 1"])
def test_sql_answers_every_statement_that_reads(greenops: Greenops, query: str) -> None:
    ended = greenops("sql", query)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("copy regions to 'x.csv'", "found a COPY statement, allowed: one SELECT"),
        ("attach 'x.duckdb'", "found a ATTACH statement, allowed: one SELECT"),
        ("create table t as select 1", "found a CREATE statement, allowed: one SELECT"),
        ("select 1; select 2", "found 2 statements, allowed: one SELECT"),
        ("", "found 0 statements, allowed: one SELECT"),
        ("selekt 1", "Parser Error: syntax error at or near"),
        ("select * from nothing", "Catalog Error: Table with name nothing does not exist"),
        ("select zon from regions", 'Binder Error: Referenced column "zon" not found'),
        ("from read_csv('/etc/passwd')", "Permission Error: "),
    ],
)
def test_sql_refuses_the_rest_in_one_line(greenops: Greenops, query: str, line: str) -> None:
    assert refused(greenops("sql", query)).startswith(line)


def test_sql_wants_one_form_of_output(greenops: Greenops) -> None:
    assert refused(greenops("sql", "select 1", "--json", "--csv")) == "found --json and --csv, allowed: one of them"


def test_sql_before_the_first_run_says_what_to_do(
    greenops: Greenops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path / "fresh"))
    assert refused(greenops("sql", "select 1")) == "warehouse.duckdb: not there yet; `greenops run` makes it"
    assert not (tmp_path / "fresh").exists()


# The table itself


def wide(columns: int) -> str:
    return "select " + ", ".join(f"'{'v' * 12}{n}' as column_{n}" for n in range(columns)) + " from range(2)"


def test_a_result_wider_than_the_window_is_shown_a_column_per_line(
    greenops: Greenops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = greenops("sql", wide(3)).out.splitlines()
    assert lines[1].split() == ["column_0", "column_1", "column_2"]
    lines = greenops("sql", wide(10)).out.splitlines()
    assert [line.split() for line in lines if not line.startswith("-[")] == [
        [f"column_{n}", f"vvvvvvvvvvvv{n}"] for n in range(10)
    ] * 2
    assert [line.rstrip("-") for line in lines if line.startswith("-[")] == ["-[ row 1 ]", "-[ row 2 ]"]


def test_a_long_value_is_shown_whole_and_unfolded(greenops: Greenops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert greenops("sql", "select 1 as n, repeat('ab ', 100) as long").out.splitlines()[1:] == [
        "n     1",
        "long  " + ("ab " * 100),
    ]


def test_records_are_cut_too(greenops: Greenops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = greenops("sql", "select repeat('x', 80) as wide, range as n from range(60)").out
    assert "50 of 60 rows shown" in out
    assert "-[ row 50 ]" in out
    assert "-[ row 51 ]" not in out


def test_what_looks_like_markup_or_moves_the_cursor_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    rows = pa.table({"[red]name": ["[bold]x[/bold]", "a[/]b", "\x1b]0;title\x07", "back\\", None]})
    console.show_rows(rows)
    out = capsys.readouterr().out
    assert "[red]name" in out
    assert "[bold]x[/bold]" in out
    assert "a[/]b" in out
    assert "back\\" in out
    assert "null" in out
    assert "\x1b" not in out


def test_figures_and_times_are_shown_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    rows = pa.table(
        {
            "f": [0.1, 1 / 3, 1e-9, 12345678.5, 0.0],
            "t": pa.array([datetime(2026, 3, 1, 6, 7, s, tzinfo=UTC) for s in (0, 0, 0, 0, 9)]),
            "naive": [datetime(2026, 3, 1)] * 5,  # noqa: DTZ001
        }
    )
    console.show_rows(rows)
    cells = [line.split("  ") for line in capsys.readouterr().out.splitlines() if "2026" in line]
    shown = [[cell.strip() for cell in row if cell.strip()] for row in cells]
    assert [row[0] for row in shown] == ["0.1", "0.333333", "1e-09", "12345678.5", "0"]
    assert [row[1] for row in shown] == ["2026-03-01 06:07Z"] * 4 + ["2026-03-01 06:07:09Z"]
    assert shown[0][2] == "2026-03-01 00:00"


# status, doctor


def test_status_as_json(greenops: Greenops) -> None:
    ended = greenops("status", "--json")
    assert ended.code == 0
    found = {row["id"]: (row["measured"], row["verdict"]) for row in ended.json["criteria"]}
    assert len(found) == 34
    assert found["J2.1"] == (99.5, "met")
    assert found["J1.1"] == (None, "not yet measured")


def test_status_for_people(greenops: Greenops) -> None:
    ended = greenops("status")
    assert ended.code == 0
    (line,) = (line for line in ended.out.splitlines() if line.split()[:1] == ["J2.1"])
    promise = ["J2.1", "Carbon", "intensity", "ingested:", "share", "of", "expected", "intervals"]
    assert line.split()[:-2] == [*promise, ">=", "95", "%", "99.5", "met"]
    assert ended.out.rstrip().endswith("1 met, 33 not yet measured")


def test_a_missed_criterion_exits_with_1(greenops: Greenops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path / "home"))
    lake = wiring.lake(Settings(_env_file=None, home=tmp_path / "home", dbt_dir=ROOT / "dbt"))
    unmeasured = Measurement("slo/rules:alerts", None, 24, "==", "alerts", "x", missing="the [slo] folder")
    missed = Measurement("carbon/intensity:completeness", 94.0, 95, ">=", "%", "a sentence")
    record(lake, [missed, unmeasured], "run-1", datetime.now(UTC))
    ended = greenops("status")
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.rstrip().endswith("1 missed, 1 cannot be measured here, 32 not yet measured")
    assert greenops("status", "--json").code == 1
    assert "[slo] folder" in " ".join(ended.out.split())


def test_doctor_as_json(greenops: Greenops) -> None:
    ended = greenops("doctor", "--json")
    assert ended.code == 0
    found = {row["subject"]: row["state"] for row in ended.json["findings"]}
    assert (found["ops/"], found["warehouse"], found["carbon intensity"]) == ("fine", "fine", "missing")
    assert {frozenset(row) for row in ended.json["findings"]} == {frozenset({"subject", "state", "detail", "advice"})}


def test_doctor_exits_with_1_where_something_is_broken(greenops: Greenops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_RUN_DAYS", "many")
    ended = greenops("doctor")
    assert (ended.code, ended.err) == (1, "")
    assert "GREENOPS_RUN_DAYS: found 'many'" in ended.out
    assert greenops("doctor", "--json").code == 1


# carbon fetch

FETCH = ["carbon", "fetch", "--zone", "DE", "--from", "2026-03-01", "--to", "2026-03-01T03:00Z"]


def test_fetch_as_json(greenops: Greenops) -> None:
    found = greenops(*FETCH, "--json").json
    assert {name: found[name] for name in ("provider", "zone", "is_sample")} == {
        "provider": "sample",
        "zone": "DE",
        "is_sample": True,
    }
    assert [row["datetime"] for row in found["rows"]] == [f"2026-03-01T0{hour}:00:00+00:00" for hour in range(3)]


def test_fetch_shows_zone_provider_and_rows_and_stores_nothing(greenops: Greenops, home: Path) -> None:
    before = sorted(home.rglob("*.parquet"))
    lines = greenops(*FETCH).out.splitlines()
    assert lines[0].strip() == "DE, sample"
    assert [line.split()[:2] for line in lines if line.startswith(" 2026")] == [
        ["2026-03-01", f"0{hour}:00Z"] for hour in range(3)
    ]
    assert sorted(home.rglob("*.parquet")) == before


def test_fetch_takes_an_offset(greenops: Greenops) -> None:
    arguments = [*FETCH[:5], "2026-03-01T01:00+01:00", "--to", "2026-03-01T02:00+01:00", "--json"]
    assert [row["datetime"] for row in greenops(*arguments).json["rows"]] == ["2026-03-01T00:00:00+00:00"]


@pytest.mark.parametrize(
    ("zone", "start", "end", "line"),
    [
        ("DE", "yesterday", "2026-03-02", "--from: found 'yesterday', allowed: a date or time like 2026-01-01 or"),
        ("DE", "2026-03-01", "2026-02-30", "--to: found '2026-02-30', allowed: a date or time like"),
        ("DE", "2026-03-01", "", "--to: found '', allowed: a date or time like"),
        ("DE", "0001-01-01T00:00+14:00", "2026-03-01", "--from: found '0001-01-01T00:00+14:00', allowed: a date"),
        ("DE", "2026-03-02", "2026-03-01", "--from 2026-03-02, --to 2026-03-01: found an empty range, allowed: --from"),
        ("DE", "2026-03-01", "2026-03-01", "--from 2026-03-01, --to 2026-03-01: found an empty range"),
        ("DE", "0202-03-01", "2026-03-01", "--from 0202-03-01, --to 2026-03-01: found 666,"),
        ("XX", "2026-03-01", "2026-03-02", "--zone: found 'XX', which the provider sample does not have"),
    ],
)
def test_fetch_refuses_in_one_line(greenops: Greenops, zone: str, start: str, end: str, line: str) -> None:
    assert refused(greenops("carbon", "fetch", "--zone", zone, "--from", start, "--to", end)).startswith(line)


def test_a_provider_that_may_answer_later_exits_with_1(
    greenops: Greenops, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ci.csv").write_text("datetime,zone,carbon_intensity_g_per_kwh\n2026-03-01T00:00Z,DE,-5\n")
    monkeypatch.setenv("GREENOPS_CARBON_PROVIDER", "file")
    monkeypatch.setenv("GREENOPS_CARBON_PATH", "ci.csv")
    ended = greenops(*FETCH)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("greenops: ci.csv, line 2: carbon intensity: found '-5', ")


# In a process of its own


def start(*arguments: str, code: str = "", **other: Any) -> subprocess.Popen[str]:
    command = [str(PYTHON), "-c", code] if code else [str(PYTHON), "-m", "greenops_pipelines.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **other)


@pytest.mark.parametrize("form", ["--json", "--csv", ""])
def test_a_pipe_that_is_closed_early_is_no_failure(form: str) -> None:
    """As `greenops sql ... | head -1` closes it: 2 MB do not fit into the pipe."""
    query = "select range as n, repeat('x', 1000) as text from range(2000)"
    with start("sql", query, *filter(None, [form])) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


def test_a_pipe_that_is_closed_before_a_short_answer_is_no_failure() -> None:
    """Then the write succeeds, into a buffer, and it is the flush that fails."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [PYTHON, "-m", "greenops_pipelines.cli", "sql", "select 1", "--json"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_sql_loads_neither_dagster_nor_dbt(home: Path) -> None:
    """`import dagster` alone takes longer than the question."""
    code = (
        "import sys; from greenops_pipelines import cli; sys.argv = ['greenops', 'sql', 'select 1 as one', '--json']\n"
        "cli.main()\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'dagster', 'dbt', 'pandas', 'boto3', 'grpc', 'sqlalchemy'}), file=sys.stderr)\n"
    )
    with start(code=code) as process:
        out, err = process.communicate(timeout=60)
    assert json.loads(out) == [{"one": 1}]
    assert err == "[]\n"


def test_ctrl_c_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys, signal, os; from greenops_pipelines import cli\n"
        "class Waiting:\n"
        "    def read(self): os.kill(os.getpid(), signal.SIGINT); signal.pause()\n"
        "sys.stdin = Waiting(); sys.argv = ['greenops', 'sql', '-']\n"
        "cli.main()\n"
    )
    with start(code=code) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "greenops: interrupted\n")


def test_the_installed_command_is_this_one() -> None:
    program = PYTHON.parent / "greenops"
    if not program.exists():
        pytest.skip("the project is not installed beside this Python")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (f"{__version__}\n", "")


def test_a_report_of_no_bills_says_where_bills_come_from(greenops: Greenops) -> None:
    assert refused(greenops("cost", "report")) == "the lake has no bills; `greenops run` brings them in"
    assert refused(greenops("cost", "report", "--period", "2026-10")).startswith(
        "period: found 2026-10, which has no charge; allowed: nothing, until bills are there"
    )
