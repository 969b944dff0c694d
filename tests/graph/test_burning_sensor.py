"""What a burning budget asks for, tick by tick: a run that writes incidents down, until they are written, whoever was killed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pyarrow as pa
import pytest

from greenops_pipelines import wiring
from greenops_pipelines.lake.budget_tables import SLO_INCIDENTS, SLO_MINUTES
from greenops_pipelines.resources import Platform
from greenops_pipelines.settings import Settings, load_settings
from greenops_pipelines.slo.incidents import table
from sensors.slo import INCIDENTS, slo_burning

_ROOT = Path(__file__).parents[2]
SLO = "api-gateway-availability"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home in which everything fails since 12 minutes ago, after two good hours."""
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(_ROOT / "ops"))
    found = load_settings()
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    minutes = [now - n * MINUTE for n in range(130, 2, -1)]
    rows = [
        {"source": "sample", "day": minute.date(), "slo_id": SLO, "minute": minute, "total": 1000.0}
        | {"bad": 1000.0 * (minute >= now - 12 * MINUTE), "unplaced_total": 0.0, "unplaced_bad": 0.0}
        for minute in minutes
    ]
    wiring.lake(found).write(SLO_MINUTES, pa.Table.from_pylist(rows, schema=SLO_MINUTES.schema), refresh=False)
    return found


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> tuple[int, str, str]:
    """How many runs it asks for, the cursor afterwards, and why it skips."""
    resources = {"platform": Platform()}
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
        found = slo_burning.evaluate_tick(context)
    return len(found.run_requests or []), found.cursor or "", found.skip_message or ""


def write_down(settings: Settings) -> None:
    """What the run that was asked for does, without keys and signatures."""
    incidents = wiring.incidents(settings)
    for each in incidents.unfiled():
        incidents.filed(each.incident, "bundle")
    wiring.lake(settings).write(SLO_INCIDENTS, table(incidents), refresh=False)


def test_a_tick_that_was_killed_leaves_nothing_undone(settings: Settings, instance: dg.DagsterInstance) -> None:
    """The incident was opened and the daemon killed before the tick was recorded: the next tick changes nothing, and asks."""
    assert wiring.watch_budgets(settings, datetime.now(UTC)).opened
    assert not wiring.watch_budgets(settings, datetime.now(UTC))
    runs, cursor, _ = tick(instance)
    assert runs == 1
    version, _, asked = cursor.partition("@")
    assert version == wiring.outstanding_incidents(settings).version
    # Not again within five minutes; after that, where the run failed or was killed; and where the clock was set back.
    runs, kept, why = tick(instance, cursor)
    assert (runs, kept, why) == (0, cursor, f"a run was asked to write this down at {asked}")
    for ago in (6 * MINUTE, -90 * MINUTE):
        assert tick(instance, f"{version}@{(datetime.now(UTC) - ago).isoformat()}")[0] == 1
    # What changed since is asked for at once.
    assert tick(instance, f"another@{asked}")[0] == 1
    write_down(settings)
    for known in (cursor, None):
        runs, _, why = tick(instance, known)
        assert runs == 0
        assert why.startswith("nothing opened or closed: ")


def test_a_page_without_evidence_is_asked_for_every_hour(settings: Settings, instance: dg.DagsterInstance) -> None:
    wiring.watch_budgets(settings, datetime.now(UTC))
    wiring.lake(settings).write(SLO_INCIDENTS, table(wiring.incidents(settings)), refresh=False)
    runs, cursor, _ = tick(instance)
    assert runs == 1
    version = cursor.partition("@")[0]
    asked = [
        tick(instance, f"{version}@{(datetime.now(UTC) - ago).isoformat()}")[0] for ago in (59 * MINUTE, 61 * MINUTE)
    ]
    assert asked == [0, 1]


def test_one_that_waits_is_enough(settings: Settings) -> None:
    """A run that has begun may have read what was there before, so it is no reason to wait."""
    for status, runs in ((dg.DagsterRunStatus.NOT_STARTED, 0), (dg.DagsterRunStatus.STARTED, 1)):
        with dg.DagsterInstance.ephemeral() as other:
            other.add_run(dg.DagsterRun(job_name=INCIDENTS.name, run_id=str(uuid4()), status=status))
            assert tick(other)[0] == runs
