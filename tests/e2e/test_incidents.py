"""A budget that burns, a real daemon, and a webhook that counts: told once, over a SIGKILL and a restart, and closed once."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from greenops_pipelines import wiring
from greenops_pipelines.integrations.once import prepare_home
from greenops_pipelines.lake.budget_tables import SLO_INCIDENTS, SLO_MINUTES
from greenops_pipelines.process.child import Child
from greenops_pipelines.settings import Settings, load_settings
from tests.notify.servers import PostServer
from tests.patience import PATIENCE

# Five minutes of two daemons' lives; what they do then, tests/slo/test_incidents.py and the sensor's show every time.
pytestmark = pytest.mark.soak

_ROOT = Path(__file__).parents[2]
SLO = "api-gateway-availability"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def webhook() -> Iterator[PostServer]:
    server = PostServer()
    server.answer()
    yield server
    server.close()


def count(settings: Settings, since: datetime, bad: Callable[[datetime], float], until: datetime) -> None:
    """Minutes of 1,000 requests each, of which `bad` failed; a day's are replaced whole."""
    minutes = [since + n * MINUTE for n in range(int((until - since) / MINUTE))]
    for day, of in groupby(minutes, key=datetime.date):
        rows = [
            {
                "source": "sample",
                "day": day,
                "slo_id": SLO,
                "minute": minute,
                "total": 1000.0,
                "bad": bad(minute),
                "unplaced_total": 0.0,
                "unplaced_bad": 0.0,
            }
            for minute in of
        ]
        wiring.lake(settings).write(SLO_MINUTES, pa.Table.from_pylist(rows, schema=SLO_MINUTES.schema))


def test_an_incident_is_told_once_over_a_restart_and_closed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, webhook: PostServer
) -> None:
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(_ROOT / "ops"))
    monkeypatch.setenv("GREENOPS_DBT_DIR", str(_ROOT / "dbt"))
    monkeypatch.setenv("GREENOPS_EVIDENCE_GPG", "off")
    monkeypatch.setenv("GREENOPS_NOTIFY_SLACK_URL", f"{webhook.url}/services/secret")
    settings = load_settings()
    prepare_home(settings)
    # Seven quiet hours, then every request fails for an hour; the newest minute is half an hour old.
    burnt = datetime.now(UTC).replace(second=0, microsecond=0) - 30 * MINUTE
    since, begin = burnt - timedelta(hours=8), burnt - timedelta(hours=1)

    def bad(minute: datetime) -> float:
        return 1000.0 if begin <= minute < burnt else 0.0

    count(settings, since, bad, burnt)
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(
        f"load_from:\n  - python_module:\n      module_name: tests.e2e.incidents_only\n"
        f"      working_directory: {_ROOT}\n      location_name: greenops\n",
        encoding="utf-8",
    )
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(settings.dagster_home),
        "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    log = tmp_path / "daemon.log"

    def daemon() -> Child:
        command = [Path(sys.executable).parent / "dagster-daemon", "run", "-w", workspace]
        return Child.start(command, log=log, env=environment, cwd=_ROOT)

    def until(look: Callable[[], bool], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds * PATIENCE
        while not look():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds * PATIENCE} s; the daemon's log ends:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)

    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:

        def looked() -> int:
            [state] = instance.all_instigator_state()
            return len(instance.get_ticks(state.instigator_origin_id, state.selector_id))

        first = daemon()
        try:
            until(lambda: len(webhook.posts) == 1)
            until(lambda: instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])) >= 1)
            first.send_signal(signal.SIGKILL)
        finally:
            first.terminate()
        before = looked()
        second = daemon()
        try:
            until(lambda: looked() >= before + 2)
            assert len(webhook.posts) == 1
            count(settings, since, bad, datetime.now(UTC).replace(second=0, microsecond=0))
            until(lambda: len(webhook.posts) == 2)
            before = looked()
            until(lambda: looked() >= before + 2)
            # What became of the last message comes after the change itself, and is written down too.
            until(lambda: not wiring.outstanding_incidents(settings))
        finally:
            second.terminate()
    opened, closed = (str(post.body) for post in webhook.posts)
    assert f"[sample data] {SLO} burns" in opened
    assert f"[sample data] {SLO} no longer burns" in closed
    [told] = [row["told"] for row in wiring.lake(settings).read(SLO_INCIDENTS).to_pylist() if row["severity"] == "page"]
    assert told == "trigger: slack delivered; resolve: slack delivered"
    page, ticket = sorted(wiring.incidents(settings).incidents(), key=lambda each: each.severity)
    assert (page.severity, ticket.severity) == ("page", "ticket")
    # 14.4 times 0.1 % of 61 minutes, one of which failed: above within the first minute.
    assert page.opened_at == begin
    assert page.closed_at is not None
    # The shorter window of a page is 5 minutes: quiet 5 minutes after the last failure.
    assert burnt <= page.closed_at <= burnt + 6 * MINUTE
    assert page.bad == 60_000
    assert page.evidence is not None
    assert "secret" not in log.read_text(encoding="utf-8")
