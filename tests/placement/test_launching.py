"""Launching: claimed once, run where it may, ended as its program ended, whoever is killed and whatever is tampered with."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from greenops_pipelines import wiring
from greenops_pipelines.errors import PermanentError
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.tables import CARBON_OUTLOOK, PLACEMENT_PLAN, PLACEMENT_REQUESTS
from greenops_pipelines.placement import due, launching, queue
from greenops_pipelines.placement.launches import Ended
from greenops_pipelines.placement.ledger import Ledger
from greenops_pipelines.placement.submissions import submit
from greenops_pipelines.placement.workloads import Workloads, read_workloads
from greenops_pipelines.settings import Settings
from tests.placement.small_ops import ROOT, document, small_ops

MINUTE = timedelta(minutes=1)


class Site:
    """A small platform whose submissions are planned and launched by hand."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home, ops_dir=small_ops(home / "ops"))
        self.lake: Lake = wiring.lake(self.settings)
        self.ledger = Ledger(self.settings.dispatches)

    @property
    def workloads(self) -> Workloads:
        return read_workloads(self.settings.ops_dir)

    def submit(self, key: str, command: list[str], **changes: Any) -> None:
        start = datetime.now(UTC).replace(second=0, microsecond=0) - MINUTE
        runner = {"kind": "local", "command": command, "timeout_minutes": 1}
        fields = {"earliest_start": start.isoformat(), "duration_minutes": 1, "runner": runner} | changes
        submit(self.settings, document(key, **fields), now=start)

    def plan(self, now: datetime | None = None) -> list[dict[str, Any]]:
        """Without a forecast: everything runs at once, at home."""
        workloads = self.workloads
        now = now or datetime.now(UTC)
        self.lake.write(PLACEMENT_REQUESTS, queue.gather(self.settings, workloads, now).rows)
        self.lake.write(CARBON_OUTLOOK, CARBON_OUTLOOK.schema.empty_table())
        found = queue.plan(self.lake, self.ledger, workloads, now)
        # A plan begins on the next full minute, and the tests do not wait for it.
        rows = found.rows.to_pylist()
        for row in rows:
            row |= {"start_at": row["start_at"] - MINUTE, "end_at": row["end_at"] - MINUTE}
            runs = [{**run, **{end: _earlier(run[end]) for end in ("start", "end")}} for run in json.loads(row["runs"])]
            row["runs"] = json.dumps(runs)
        self.store(rows)
        return rows

    def store(self, rows: list[dict[str, Any]]) -> None:
        self.lake.write(PLACEMENT_PLAN, pa.Table.from_pylist(rows, schema=PLACEMENT_PLAN.schema))

    def launch(self, key: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> launching.Report:
        return launching.launch(self.settings, self.lake, self.workloads, key, "run", now)

    def attempts(self, key: str) -> list[tuple[int, str]]:
        return [(each.attempt, each.outcome) for each in self.ledger.tried(key)]


def _earlier(text: str) -> str:
    return (datetime.fromisoformat(text) - MINUTE).isoformat()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_due_work_runs_once_where_it_was_planned_and_all_of_it_is_recorded(site: Site) -> None:
    marks = site.settings.home / "marks"
    script = f"echo $GREENOPS_PLACEMENT_KEY $GREENOPS_PLACEMENT_REGION $GREENOPS_PLACEMENT_ATTEMPT >> {marks}"
    site.submit("month-end", ["sh", "-c", script])
    [row] = site.plan()
    assert [each.key for each in due.find(site.lake, site.ledger, datetime.now(UTC)).due] == ["month-end"]
    report = site.launch("month-end")
    assert (report.state, report.attempt, report.region) == ("succeeded", 1, "eu-central-1")
    assert site.launch("month-end").state == "closed before"
    assert marks.read_text() == "month-end eu-central-1 1\n"
    assert due.find(site.lake, site.ledger, datetime.now(UTC)).due == []
    [decision] = site.ledger.dispatches().to_pylist()
    assert {name: decision[name] for name in ("key", "tenant", "region", "zone", "state", "power_kw")} == {
        "key": "month-end", "tenant": "acme", "region": "eu-central-1", "zone": "DE", "state": "fallback", "power_kw": 0.5,
    }  # fmt: skip
    assert decision["reason"] == row["reason"]
    [attempt] = site.ledger.attempts().to_pylist()
    assert (attempt["outcome"], attempt["exit_code"], attempt["runner"]) == ("succeeded", 0, "local")
    assert attempt["began_at"] <= attempt["ended_at"]
    assert site.plan() == []


def test_a_program_gets_a_plain_environment_and_no_shell(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_CARBON_TOKEN", "s3cret")
    out = site.settings.home / "out"
    code = f"import json, os, sys; open({str(out)!r}, 'w').write(json.dumps([sys.argv[1:], dict(os.environ)]))"
    site.submit("k", [sys.executable, "-c", code, "$(id); *"])
    site.plan()
    assert site.launch("k").state == "succeeded"
    arguments, environment = json.loads(out.read_text())
    assert arguments == ["$(id); *"]
    assert "s3cret" not in environment.values()
    assert environment["GREENOPS_PLACEMENT_RESUMED"] == "0"


def test_a_tampered_plan_is_refused_and_recorded_and_not_asked_for_again_until_it_changes(site: Site) -> None:
    site.submit("k", ["true"])
    [row] = site.plan()
    runs = json.dumps([{**run, "region": "us-east-1"} for run in json.loads(row["runs"])])
    # The tenant as well: what counts is what was accepted.
    site.store([row | {"tenant": "beta", "region": "us-east-1", "zone": "US-MIDA-PJM", "runs": runs}])
    report = site.launch("k")
    assert report.state == "refused"
    assert report.detail.startswith(
        "k: found tenant acme (bound to eu) in region us-east-1 (of us), allowed: eu-central-1"
    )
    assert site.attempts("k") == [(1, "refused")]
    assert site.ledger.dispatches().num_rows == 0
    found = due.find(site.lake, site.ledger, datetime.now(UTC))
    assert (found.due, found.refused) == ([], 1)
    site.plan()
    assert [each.key for each in due.find(site.lake, site.ledger, datetime.now(UTC)).due] == ["k"]
    assert site.launch("k").state == "succeeded"
    assert site.attempts("k") == [(1, "refused"), (2, "succeeded")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"runs": "[]"}, "k: runs: found none, allowed: one or more"),
        ({"runs": "{"}, "k: runs: found JSONDecodeError, allowed: what a plan writes"),
        ({"runs": '[{"region": "eu-west-1"}]'}, "k: runs: found KeyError, allowed: what a plan writes"),
    ],
)
def test_a_plan_that_says_nonsense_is_refused(site: Site, change: dict[str, str], reason: str) -> None:
    site.submit("k", ["true"])
    [row] = site.plan()
    site.store([row | change])
    assert (site.launch("k").state, site.launch("k").detail) == ("refused", reason)


def test_a_region_outside_the_works_own_list_is_refused(site: Site) -> None:
    site.submit("k", ["true"], regions=["eu-central-1"])
    [row] = site.plan()
    site.store([row | {"runs": row["runs"].replace("eu-central-1", "eu-west-1")}])
    assert site.launch("k").detail == "k: found the region eu-west-1, allowed for this work: eu-central-1"


def test_a_program_that_fails_is_tried_three_times_with_growing_pauses(site: Site) -> None:
    site.submit("k", ["sh", "-c", "echo no such bucket >&2; exit 3"])
    site.plan()
    report = site.launch("k")
    assert (report.state, report.detail) == ("failed", "exit code 3; no such bucket")
    ended = site.ledger.tried("k")[-1].ended_at
    assert ended is not None
    assert due.find(site.lake, site.ledger, ended + timedelta(seconds=59)).due == []
    assert [each.key for each in due.find(site.lake, site.ledger, ended + MINUTE).due] == ["k"]
    site.launch("k")
    ended = site.ledger.tried("k")[-1].ended_at
    assert ended is not None
    assert due.find(site.lake, site.ledger, ended + timedelta(seconds=119)).due == []
    assert len(due.find(site.lake, site.ledger, ended + 2 * MINUTE).due) == 1
    site.launch("k")
    assert site.attempts("k") == [(1, "failed"), (2, "failed"), (3, "failed")]
    assert site.ledger.outcome("k") == "failed"
    assert site.launch("k").state == "closed before"


def test_a_program_that_is_not_there_says_so(site: Site) -> None:
    site.submit("k", ["no-such-program"])
    site.plan()
    assert site.launch("k").detail == "exit code 127; no-such-program: No such file or directory"


def test_a_program_that_hangs_is_ended_at_its_limit_with_all_it_started(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "limit_minutes", lambda _: 1 / 60)
    site.submit("k", ["sh", "-c", "sleep 1000 & echo $!; sleep 1000"])
    site.plan()
    report = site.launch("k")
    assert report.state == "timed out"
    log = next(site.settings.dispatches.rglob("attempt-1.log")).read_text()
    assert not psutil.pid_exists(int(log))


def test_work_in_two_runs_pauses_and_goes_on_and_is_told(site: Site) -> None:
    """The first run ends 8 s from now, when a program has begun on any machine; it saves when asked to, and the second run finishes."""
    marks = site.settings.home / "marks"
    script = (
        f"trap 'echo saved >> {marks}; exit 0' TERM; echo $GREENOPS_PLACEMENT_RESUMED >> {marks};"
        "if [ $GREENOPS_PLACEMENT_RESUMED = 0 ]; then sleep 1000 & wait; fi"
    )
    site.submit("k", ["sh", "-c", script], interruptible=True, duration_minutes=2)
    [row] = site.plan()
    now = datetime.now(UTC)
    first_end, second = now + timedelta(seconds=8), now + timedelta(minutes=30)
    runs = [
        {"region": "eu-west-1", "start": (now - MINUTE).isoformat(), "end": first_end.isoformat()},
        {"region": "eu-west-1", "start": second.isoformat(), "end": (second + MINUTE).isoformat()},
    ]
    changed = {"region": "eu-west-1", "zone": "IE", "start_at": now - MINUTE, "runs": json.dumps(runs)}
    site.store([row | changed])
    begin = now - timedelta(seconds=59)
    assert site.launch("k", lambda: begin).state == "paused"
    assert site.launch("k").state == "not due"
    assert due.find(site.lake, site.ledger, datetime.now(UTC)).due == []
    # Until then its room is taken, in the hour to come as well.
    assert [each.region for each in queue.busy(site.ledger, first_end)] == ["eu-west-1"]
    [again] = due.find(site.lake, site.ledger, second).due
    assert (again.key, again.region, again.start_at) == ("k", "eu-west-1", second)
    assert site.launch("k", lambda: second).state == "succeeded"
    assert marks.read_text() == "0\nsaved\n1\n"
    assert queue.busy(site.ledger, second) == []


def test_a_tenant_bound_since_goes_home_or_nowhere(site: Site) -> None:
    site.submit("k", ["false"], tenant="beta", home_region="eu-central-1")
    [row] = site.plan()
    site.store([row | {"runs": row["runs"].replace("eu-central-1", "us-east-1"), "region": "us-east-1"}])
    assert site.launch("k").region == "us-east-1"
    tenants = site.settings.ops_dir / "tenants.yaml"
    tenants.write_text(
        tenants.read_text().replace(
            "residency: any, home_region: us-east-1", "residency: eu, home_region: eu-central-1"
        )
    )
    assert site.launch("k").region == "eu-central-1"
    tenants.write_text(
        tenants.read_text().replace(
            "{tenant: beta, residency: eu, home_region: eu-central-1}",
            "{tenant: beta, residency: uk, home_region: eu-west-2}",
        )
    )
    report = site.launch("k")
    assert (report.state, site.ledger.outcome("k")) == ("refused", "failed")


def test_work_that_was_not_accepted_for_home_does_not_go_there(site: Site) -> None:
    """Not where its attempts were lost, and not where its tenant was bound to home's area since."""
    site.submit("k", ["false"], tenant="beta", home_region="eu-central-1", regions=["us-east-1"])
    site.plan()
    assert site.launch("k").region == "us-east-1"
    [attempt] = site.ledger.attempts().to_pylist()
    for _ in range(launching.ELSEWHERE):
        lost = Ended("lost", None, datetime.now(UTC), "")
        site.ledger.end("k", site.ledger.begin(attempt), lost)
    assert site.launch("k").region == "us-east-1"
    tenants = site.settings.ops_dir / "tenants.yaml"
    tenants.write_text(
        tenants.read_text().replace(
            "residency: any, home_region: us-east-1", "residency: eu, home_region: eu-central-1"
        )
    )
    report = site.launch("k")
    assert (report.state, site.ledger.outcome("k")) == ("refused", "failed")
    assert report.detail.startswith("k: found tenant beta (bound to eu) in region us-east-1 (of us), allowed: eu-")


def test_a_slot_that_was_missed_waits_for_a_new_plan_while_its_deadline_leaves_time(site: Site) -> None:
    site.submit("k", ["true"], window_minutes=600)
    [row] = site.plan()
    site.store([row | {"state": "planned"}])
    later = row["start_at"] + timedelta(minutes=31)
    found = due.find(site.lake, site.ledger, later)
    assert (found.due, found.missed_slot) == ([], 1)
    last = row["deadline"] - timedelta(minutes=61)
    assert [each.key for each in due.find(site.lake, site.ledger, last).due] == ["k"]


def test_what_nobody_launched_runs_late_and_is_recorded_as_missed_after_another_window(site: Site) -> None:
    site.submit("k", ["true"], window_minutes=60)
    over = datetime.now(UTC) + timedelta(minutes=90)
    [row] = site.plan(over)
    assert (row["state"], row["region"]) == ("late", "eu-central-1")
    assert row["reason"] == "Too late for its deadline: it runs in eu-central-1 as soon as there is room."
    assert site.plan(over + timedelta(minutes=60)) == []
    [attempt] = site.ledger.attempts().to_pylist()
    assert (attempt["key"], attempt["attempt"], attempt["outcome"]) == ("k", 0, "missed")
    assert site.launch("k").state == "closed before"


def test_a_new_platform_does_not_make_up_for_the_past_and_an_old_one_does(tmp_path: Path) -> None:
    """Every hour, within 20 minutes, 10 long: at 12:50 the one of 12:00 is too late; half a day down leaves twelve."""
    site = Site(tmp_path)
    runner = "{kind: local, command: ['true'], timeout_minutes: 5}"
    (site.settings.ops_dir / "workloads.yaml").write_text(
        "placement: {horizon_hours: 1}\nworkloads:\n  - {workload: tidy, kind: batch, tenant: acme, cron: '0 * * * *', "
        f"window_minutes: 20, duration_minutes: 10, power_kw: 1, runner: {runner}}}\n"
    )
    first = datetime(2026, 11, 25, 12, 50, tzinfo=UTC)
    assert [row["key"] for row in site.plan(first)] == ["tidy:2026-11-25T13:00Z"]
    assert queue.waiting(site.settings, site.workloads, first).num_rows == 1
    again = first + timedelta(hours=12, minutes=-20)
    assert [(row["key"], row["state"]) for row in site.plan(again)] == [
        ("tidy:2026-11-26T00:00Z", "late"),
        ("tidy:2026-11-26T01:00Z", "fallback"),
    ]
    missed = site.ledger.attempts()
    assert [key[-6:] for key in missed["key"].to_pylist()] == [f"{hour}:00Z" for hour in range(13, 24)]
    assert set(missed["outcome"].to_pylist()) == {"missed"}


def test_cancelled_work_is_not_launched(site: Site) -> None:
    site.submit("k", ["true"])
    site.plan()
    assert launching.cancel(site.settings, site.workloads, "k", "a mistake", datetime.now(UTC))
    assert site.launch("k").detail == "cancelled"
    with pytest.raises(PermanentError, match="nobody: found no such work"):
        launching.cancel(site.settings, site.workloads, "nobody", "", datetime.now(UTC))


def test_rows_of_the_ledger_cannot_be_changed(site: Site) -> None:
    site.submit("k", ["true"])
    site.plan()
    site.launch("k")
    with sqlite3.connect(site.settings.dispatches / "ledger.sqlite") as connection:
        for table in ("claims", "attempts", "ends", "closed", "watched", "gathered"):
            for change in (f"delete from {table}", f"update {table} set rowid = rowid"):
                if connection.execute(f"select count(*) from {table}").fetchone()[0]:
                    with pytest.raises(sqlite3.IntegrityError, match="added, never changed"):
                        connection.execute(change)


def test_a_damaged_ledger_is_named(site: Site) -> None:
    site.settings.dispatches.mkdir()
    (site.settings.dispatches / "ledger.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(PermanentError, match=r"ledger.sqlite: file is not a database; allowed: the ledger"):
        site.ledger.dispatches()


# Workers that are killed.

_WORKER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from greenops_pipelines import wiring
from greenops_pipelines.placement import launching
from greenops_pipelines.placement.workloads import read_workloads
from greenops_pipelines.settings import Settings
settings = Settings(home=Path(sys.argv[1]), ops_dir=Path(sys.argv[1]) / "ops")
workloads = read_workloads(settings.ops_dir)
report = launching.launch(settings, wiring.lake(settings), workloads, sys.argv[2], "run", lambda: datetime.now(UTC))
print(report.state, flush=True)
"""


def worker(site: Site, key: str) -> subprocess.Popen[str]:
    args = [sys.executable, "-c", _WORKER, str(site.settings.home), key]
    return subprocess.Popen(args, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def started(marks: Path) -> None:
    limit = time.monotonic() + 30
    while not marks.exists():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_sixteen_workers_of_one_key_run_it_once(site: Site) -> None:
    marks = site.settings.home / "marks"
    site.submit("k", ["sh", "-c", f"echo done >> {marks}; sleep 1"])
    site.plan()
    workers = [worker(site, "k") for _ in range(4)]
    states = sorted(each.communicate(timeout=300)[0].strip() for each in workers)
    assert states.count("succeeded") == 1
    assert set(states) <= {"succeeded", "closed before", "under way elsewhere"}
    assert marks.read_text() == "done\n"


def test_a_killed_workers_program_ends_with_it_and_is_tried_again(site: Site) -> None:
    marks = site.settings.home / "marks"
    site.submit("k", ["sh", "-c", f"echo $$ >> {marks}; if [ $GREENOPS_PLACEMENT_RESUMED = 0 ]; then sleep 1000; fi"])
    site.plan()
    first = worker(site, "k")
    started(marks)
    assert due.find(site.lake, site.ledger, datetime.now(UTC)).due == []
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert [each.key for each in due.find(site.lake, site.ledger, datetime.now(UTC)).due] == ["k"]
    assert site.launch("k").state == "succeeded"
    assert site.attempts("k") == [(1, "lost"), (2, "succeeded")]
    one, two = marks.read_text().split()
    assert not psutil.pid_exists(int(one))
    assert one != two


def test_a_program_that_ended_while_its_worker_was_dead_is_not_run_again(site: Site) -> None:
    """It cannot be interrupted, and takes its time to end: the guard waits for it, and it says 0."""
    marks = site.settings.home / "marks"
    site.submit("k", ["sh", "-c", f"trap '' TERM; echo begun >> {marks}; sleep 2; echo done >> {marks}"])
    site.plan()
    first = worker(site, "k")
    started(marks)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    report = site.launch("k")
    assert (report.state, report.attempt) == ("succeeded", 1)
    assert marks.read_text() == "begun\ndone\n"
    assert site.ledger.outcome("k") == "succeeded"


def test_a_killed_program_is_lost_and_tried_again(site: Site) -> None:
    marks = site.settings.home / "marks"
    site.submit("k", ["sh", "-c", f"echo $PPID >> {marks}; [ $GREENOPS_PLACEMENT_RESUMED = 1 ] || sleep 1000"])
    site.plan()
    first = worker(site, "k")
    started(marks)
    os.kill(int(marks.read_text()), signal.SIGKILL)
    assert first.communicate(timeout=300)[0] == "lost\n"
    assert site.launch("k").state == "succeeded"
    assert site.attempts("k") == [(1, "lost"), (2, "succeeded")]
