"""What `greenops slo budget` and `incidents` say of a warehouse whose rows stand below."""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from greenops_pipelines.cli import app
from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import query
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.slo import budget_listing
from greenops_pipelines.slo.budget_listing import Ask

_TABLES = """
    create table slo_error_budget as select * from (values
        ('api-availability', 'api', date '2026-03-01', 1000, 5, 0.5e0, 'green', 0.6e0, 0),
        ('api-availability', 'api', date '2026-03-02', 2000, 15, 0.25e0, 'yellow', 0.4e0, 7),
        ('web-latency', 'web', date '2026-03-02', 100, 2, -1.0e0, 'red', -0.9e0, 0),
        ('web-lcp', 'web', date '2026-03-02', 0, 0, null, 'unknown', null, 1440)
    ) as t(slo_id, service, day, total, bad, remaining_ratio, status, sloth_remaining_ratio, gap_minutes);
    alter table slo_error_budget add column objective double default 99;
    alter table slo_error_budget add column budget_remaining double default 5;
    alter table slo_error_budget add column known_minutes bigint default 2880;
    alter table slo_error_budget add column is_sample boolean default true;
    alter table slo_error_budget add column unread_minutes bigint default 1500;
    alter table slo_error_budget add column first_minute timestamptz default timestamptz '2026-02-01 10:05+00';
    alter table slo_error_budget add column through timestamptz default timestamptz '2026-03-03 10:05+00';
    create table slo_burn as select * from (values
        ('api-availability', timestamp '2026-03-02 21:00', true, 9.0e0, 9.5e0),
        ('api-availability', timestamp '2026-03-02 22:00', true, 1.5e0, 2.5e0),
        ('api-availability', timestamp '2026-03-02 23:00', false, 7.0e0, 7.5e0)
    ) as t(slo_id, hour, is_sample, burn_1h, burn_6h);
    create table slo_budget_calendar as
        select calendar, date '2026-03-01' as period_start, timestamptz '2026-03-31 22:00+00' as ends_at, t.* exclude (day)
        from (values ('month'), ('quarter')) as c(calendar), slo_error_budget as t where day = date '2026-03-02';
    create table slo_incidents as select * from (values
        ('a', 'open', timestamptz '2026-03-01 10:00+00', null),
        ('b', 'closed', timestamptz '2026-03-02 10:00+00', timestamptz '2026-03-02 10:30+00'),
        ('c', 'closed', timestamptz '2026-03-02 11:00+00', timestamptz '2026-03-02 11:30+00')
    ) as t(incident, state, opened_at, closed_at);
    alter table slo_incidents add column slo_id varchar default 'api-availability';
    alter table slo_incidents add column severity varchar default 'page';
    alter table slo_incidents add column told varchar default 'dry run';
    alter table slo_incidents add column peak_burn double default 20.04e0;
    alter table slo_incidents add column budget_spent_percent double default 3.126e0;
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with duckdb.connect(tmp_path / "warehouse.duckdb") as connection:
        connection.execute(_TABLES)
    return tmp_path


@pytest.fixture
def ask(home: Path) -> Ask:
    return functools.partial(query.run, home / "warehouse.duckdb", LocalFolder(home / "lake"))


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("GREENOPS_HOME", str(home))
    return lambda *words: CliRunner().invoke(app, ["slo", *words])


def test_the_emptiest_budget_comes_first_as_it_stood_last(ask: Ask) -> None:
    rows = budget_listing.budgets(ask, "rolling")
    assert [(row["slo_id"], row["left_percent"], row["status"]) for row in rows] == [
        ("web-latency", -100.0, "red"),
        ("api-availability", 25.0, "yellow"),
        ("web-lcp", None, "unknown"),
    ]
    assert [row["through"] for row in rows] == ["2026-03-03T10:05:00Z"] * 3
    assert [row["first_minute"] for row in rows] == ["2026-02-01T10:05:00Z"] * 3


def test_burns_are_those_of_the_newest_hour_of_the_same_source(ask: Ask) -> None:
    by_name = {row["slo_id"]: row for row in budget_listing.budgets(ask, "rolling")}
    assert (by_name["api-availability"]["burn_1h"], by_name["api-availability"]["burn_6h"]) == (1.5, 2.5)
    assert by_name["web-latency"]["burn_1h"] is None
    assert by_name["api-availability"]["sloth_left_percent"] == 40.0


def test_one_service(ask: Ask) -> None:
    assert {row["slo_id"] for row in budget_listing.budgets(ask, "month", "web")} == {"web-latency", "web-lcp"}
    with pytest.raises(BadInput, match=re.escape("--service: found 'shop', allowed: api, web")):
        budget_listing.budgets(ask, "rolling", "shop")


def test_a_calendar_period_ends_at_a_moment_of_utc_wherever_it_is_read(ask: Ask) -> None:
    row = budget_listing.budgets(ask, "quarter", "api")[0]
    assert (row["period_start"], row["ends_at"]) == ("2026-03-01", "2026-03-31T22:00:00Z")
    assert (row["first_minute"], row["through"]) == ("2026-02-01T10:05:00Z", "2026-03-03T10:05:00Z")


def test_open_incidents_come_first_then_the_newest(ask: Ask) -> None:
    assert [row["incident"] for row in budget_listing.incidents(ask, 30)] == ["a", "c", "b"]
    assert [row["incident"] for row in budget_listing.incidents(ask, 2)] == ["a", "c"]
    assert [row["incident"] for row in budget_listing.incidents(ask, 30, only_open=True)] == ["a"]


def test_a_warehouse_without_the_ledger_says_what_makes_it(ask: Ask, home: Path) -> None:
    with duckdb.connect(home / "warehouse.duckdb") as connection:
        connection.execute("drop table slo_error_budget")
    with pytest.raises(BadInput, match="slo_error_budget: not in the warehouse yet; `greenops run` makes it"):
        budget_listing.budgets(ask, "rolling")


def test_budgets_as_a_table(cli: Callable[..., Any]) -> None:
    done = cli("budget")
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert "api-availability 99 25.0 40.0 1.50 2.50 5 7 1,500" in lines
    assert "web-lcp 99 5 1,440 1,500" in lines, "what is not known is empty, not 0"
    assert "2026-02-01T10:05:00Z through 2026-03-03T10:05:00Z; 1 of 3 overspent" in lines
    assert "sample data: GREENOPS_PROMETHEUS_URL names yours" in lines
    assert done.exit_code == 1, "a budget is overspent"


def test_a_budget_that_is_left_is_exit_0_and_json_is_one_document(cli: Callable[..., Any]) -> None:
    done = cli("budget", "--service", "api", "--period", "month", "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["period"] == "month"
    assert [row["left_percent"] for row in document["budgets"]] == [25.0]


def test_a_calendar_period_says_how_much_of_it_there_is(cli: Callable[..., Any]) -> None:
    """A quarter whose ledger began in February is not read as one of three months."""
    lines = [" ".join(line.split()) for line in cli("budget", "--period", "quarter").output.splitlines()]
    assert (
        "quarter from 2026-03-01 until 2026-03-31T22:00:00Z: 2026-02-01T10:05:00Z through 2026-03-03T10:05:00Z; "
        "1 of 3 overspent"
    ) in lines


def test_a_period_that_is_none(cli: Callable[..., Any]) -> None:
    refused = cli("budget", "--period", "week").exception
    assert isinstance(refused, BadInput)
    assert str(refused) == "--period: found 'week', allowed: rolling, month, quarter"


def test_incidents_as_a_table_and_as_json(cli: Callable[..., Any]) -> None:
    done = cli("incidents")
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert "api-availability page 2026-03-01 10:00 open dry run 20.0 3.13" in lines
    assert "api-availability page 2026-03-02 11:00 2026-03-02 11:30 dry run 20.0 3.13" in lines
    assert done.exit_code == 0
    still = cli("incidents", "--open", "--json")
    assert still.exit_code == 1, "one goes on"
    assert [row["opened_at"] for row in json.loads(still.stdout)["incidents"]] == ["2026-03-01T10:00:00+00:00"]
