"""Logs and revised facts: nothing is replaced, the latest is told from what was known when, sources never mix."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from greenops_pipelines.errors import SchemaViolation
from greenops_pipelines.lake import Lake, query
from greenops_pipelines.lake.tables import CARBON_INTENSITY, RESOURCE_USAGE
from tests.lake.declared import DEPLOYMENTS, SAMPLE, TABLES, at, charge, deployment, intensity, plain, rows


def test_each_append_is_a_file_named_by_time_run_and_content(any_lake: Lake) -> None:
    batch = rows(DEPLOYMENTS, deployment("a", at(1)), deployment("b", at(2)))
    written = any_lake.append(DEPLOYMENTS, batch, at(3), "0f3a-77c2-zz-long-run-id")
    (path,) = written.paths
    assert (
        path
        == f"bronze/deployments/day=2026-03-01/20260301T030000.000000Z-0f3a77c2zzlo-{written.digests[0][:12]}.parquet"
    )
    assert any_lake.append(DEPLOYMENTS, batch, at(3), "0f3a-77c2-zz-long-run-id").paths == (path,)
    assert any_lake.files(DEPLOYMENTS) == [path]
    assert any_lake.read(DEPLOYMENTS).equals(batch)


def test_the_time_is_an_instant_whatever_its_zone(lake: Lake) -> None:
    batch = rows(DEPLOYMENTS, deployment("a", at(1)))
    nepal = at(3).astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert lake.append(DEPLOYMENTS, batch, nepal, "r").paths == lake.append(DEPLOYMENTS, batch, at(3), "r").paths
    with pytest.raises(SchemaViolation, match="append at 2026-03-01 03:00:00: found a time without a zone"):
        lake.append(DEPLOYMENTS, batch, datetime(2026, 3, 1, 3), "r")  # noqa: DTZ001


def test_two_runs_at_one_time_are_both_kept(any_lake: Lake) -> None:
    any_lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("a", at(1))), at(3), "run-1")
    any_lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("b", at(1))), at(3), "run-2")
    any_lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("c", at(1))), at(3), "run-2")
    assert len(any_lake.files(DEPLOYMENTS)) == 3
    assert plain(any_lake.query("select service from deployments order by 1")) == [("a",), ("b",), ("c",)]


def test_equal_rows_of_two_runs_count_once_in_the_view_and_stay_in_the_files(lake: Lake) -> None:
    for run in ("run-1", "run-2"):
        lake.append(DEPLOYMENTS, rows(DEPLOYMENTS, deployment("a", at(1))), at(3), run)
    assert lake.read(DEPLOYMENTS).num_rows == 2
    assert plain(lake.query("select count(*) as n from deployments")) == [(1,)]


def test_an_append_over_several_days_is_a_file_a_day_and_none_for_no_rows(lake: Lake) -> None:
    two_days = rows(DEPLOYMENTS, deployment("a", at(1)), deployment("a", at(1) + timedelta(days=1)))
    assert [path.split("/")[2] for path in lake.append(DEPLOYMENTS, two_days, at(3), "r").paths] == [
        "day=2026-03-01",
        "day=2026-03-02",
    ]
    assert lake.append(DEPLOYMENTS, DEPLOYMENTS.schema.empty_table(), at(4), "r").paths == ()
    assert len(lake.files(DEPLOYMENTS)) == 2


def observe(lake: Lake, observed_at: datetime, *values: float | None, provider: str = "sample") -> None:
    """Hour 0, 1, ... of the day, as seen at a time."""
    seen = [intensity(v, observed_at, hour=hour, provider=provider) for hour, v in enumerate(values)]
    lake.append(CARBON_INTENSITY, rows(CARBON_INTENSITY, *seen), observed_at, provider)


def values(lake: Lake, view: str = "carbon_intensity") -> list[float | None]:
    sql = f"select carbon_intensity_g_per_kwh as g from {view} order by provider, datetime, observed_at"
    return query.run(lake.warehouse, lake.storage, sql)["g"].to_pylist()


def as_of(when: datetime) -> str:
    return f"carbon_intensity_as_of('{when.isoformat()}')"


def test_latest_history_and_as_of(any_lake: Lake) -> None:
    observe(any_lake, at(5), 300.0, 310.0)
    observe(any_lake, at(6), 305.0)
    assert values(any_lake) == [305.0, 310.0]
    assert values(any_lake, "carbon_intensity_history") == [300.0, 305.0, 310.0]
    just_before = timedelta(microseconds=1)
    assert values(any_lake, as_of(at(5) - just_before)) == []
    assert values(any_lake, as_of(at(5))) == [300.0, 310.0], "what was observed exactly then was known"
    assert values(any_lake, as_of(at(6) - just_before)) == [300.0, 310.0]
    assert values(any_lake, as_of(at(6))) == [305.0, 310.0]
    assert values(any_lake, as_of(at(6).astimezone(timezone(timedelta(hours=-8))))) == [305.0, 310.0]


def test_an_older_observation_that_arrives_late_changes_only_the_past(lake: Lake) -> None:
    observe(lake, at(6), 305.0)
    observe(lake, at(5), 300.0)
    assert values(lake) == [305.0]
    assert values(lake, as_of(at(5))) == [300.0]


def test_null_never_replaces_a_value_and_is_never_a_number(lake: Lake) -> None:
    observe(lake, at(5), 300.0, None)
    observe(lake, at(6), None, None)
    assert values(lake) == [300.0], "hour 0 keeps what was known, hour 1 was never known"
    assert values(lake, "carbon_intensity_history") == [300.0, None, None, None]
    assert values(lake, as_of(at(6))) == [300.0]
    observe(lake, at(7), 0.0, 0.0)
    assert values(lake) == [0.0, 0.0], "zero is a value"


def configured_for(lake: Lake, provider: str) -> Lake:
    selection = {"carbon_intensity": SAMPLE["carbon_intensity"] | {"provider": provider}}
    return Lake(lake.storage, lake.warehouse, selection, TABLES)


def test_providers_never_mix(any_lake: Lake) -> None:
    lake = any_lake
    observe(lake, at(5), 300.0, 310.0)
    observe(lake, at(6), 99.0, provider="uk-neso")
    assert values(lake) == [300.0, 310.0]
    assert values(lake, as_of(at(7))) == [300.0, 310.0]
    assert values(lake, "carbon_intensity_history") == [300.0, 310.0, 99.0], "the history shows all, with their names"

    neso = configured_for(lake, "uk-neso")
    assert neso.refresh()
    assert values(neso) == [99.0]
    assert values(neso, as_of(at(7))) == [99.0]
    assert lake.refresh()
    assert values(lake) == [300.0, 310.0]


def test_an_observation_of_another_signal_or_kind_of_factor_is_another_fact(lake: Lake) -> None:
    observe(lake, at(5), 300.0)
    marginal = intensity(700.0, at(6)) | {"signal": "marginal"}
    direct = intensity(250.0, at(6)) | {"emission_factor_type": "direct"}
    lake.append(CARBON_INTENSITY, rows(CARBON_INTENSITY, marginal, direct), at(6), "r")
    assert values(lake) == [300.0]


def test_the_plain_view_of_a_snapshot_shows_the_configured_source_and_all_shows_both(home: Path, lake: Lake) -> None:
    usage = {c.name: 1.0 for c in RESOURCE_USAGE.columns if c.name not in charge()}
    usage |= {"hour": at(), "service": "s", "tenant": "t", "region": "r", "day": at().date()}
    chosen = Lake(lake.storage, lake.warehouse, {"resource_usage": {"source": "file"}}, [RESOURCE_USAGE])
    chosen.write(RESOURCE_USAGE, rows(RESOURCE_USAGE, *(usage | {"source": s} for s in ("file", "sample"))))
    assert plain(chosen.query("select source from resource_usage")) == [("file",)]
    assert plain(chosen.query("select source from resource_usage_all order by 1")) == [("file",), ("sample",)]
    unchosen = Lake(lake.storage, lake.warehouse, {}, [RESOURCE_USAGE])
    assert plain(unchosen.query("select source from resource_usage order by 1")) == [("file",), ("sample",)]
