"""Incidents: opened and closed once, told once, through restarts, twins and kill -9 at every step."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from greenops_pipelines.evidence.opening import Evidence
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import METRIC_SAMPLES, METRIC_SERIES, SLO_INCIDENTS, SLO_MINUTES
from greenops_pipelines.lake.parquet import conform
from greenops_pipelines.notify.outbox import Outbox
from greenops_pipelines.notify.pagerduty import PagerDuty
from greenops_pipelines.notify.slack import Slack
from greenops_pipelines.settings import Settings
from greenops_pipelines.slo.burning import Burn, alerts_of, burning
from greenops_pipelines.slo.incident_evidence import prepare
from greenops_pipelines.slo.incident_filing import file_all, outstanding
from greenops_pipelines.slo.incidents import Changes, Incidents, table, untold
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.profiles import PROFILES
from greenops_pipelines.slo.series import label_text, series_id
from tests.notify.servers import PostServer
from tests.slo.burning_minutes import BEGIN, LINKS, Counts, at, bad, good, lake_in, slo, write

FORK = multiprocessing.get_context("fork")
KEY = "0123456789abcdefSECRET9876543210"
PATH = "/services/T0SECRET1/B0SECRET2/xyzSECRETxyz"
PAGE = "shop-availability:page:2026-03-02T01:40Z:sample"
TICKET = "shop-availability:ticket:2026-03-02T01:40Z:sample"


class Site:
    """A lake with minutes, and a ledger and an outbox that are opened anew each time, as by a new process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lake = lake_in(home)
        self.slos = [slo()]
        self.url = ""
        self.source = "sample"

    def open(self, reached: Callable[[str], None] = lambda _: None, now: datetime = BEGIN) -> tuple[Incidents, Outbox]:
        box = Outbox(self.home / "notify", window=timedelta(0), clock=lambda: now)
        return Incidents(self.home / "incidents", box, self.targets(), reached, lambda: now), box

    def targets(self) -> list[PagerDuty | Slack]:
        if not self.url:
            return []
        return [PagerDuty(SecretStr(KEY), self.url), Slack(SecretStr(self.url + PATH))]

    def burns(self, minute: int) -> list[Burn]:
        since = self.open()[0].positions(self.source)
        return burning(self.lake, self.slos, lambda _: PROFILES["workbook"], self.source, at(minute), since)

    def advance(self, burns: list[Burn], minute: int, reached: Callable[[str], None] = lambda _: None) -> Changes:
        declared = {alert for slo in self.slos for alert in alerts_of(slo)}
        return self.open(reached)[0].advance(burns, at(minute), source=self.source, declared=declared)

    def tick(self, minute: int) -> Changes:
        return self.advance(self.burns(minute), minute)

    def titles(self) -> dict[str, str]:
        """What was said by key: first lines as they were meant to be sent."""
        with sqlite3.connect(self.home / "incidents" / "incidents.sqlite") as connection:
            rows = connection.execute("select key, body from tellings order by number").fetchall()
        return {key: json.loads(body)["title"] for key, body in rows}

    def texts(self) -> dict[str, str]:
        with sqlite3.connect(self.home / "incidents" / "incidents.sqlite") as connection:
            rows = connection.execute("select key, body from tellings order by number").fetchall()
        return {key: json.loads(body)["text"] for key, body in rows}

    def said(self) -> list[str]:
        """Keys of what the outbox has."""
        _, box = self.open()
        [*files] = box.outcomes(self.keys())
        return files

    def keys(self) -> list[str]:
        return [f"{key}:{told}" for key in (PAGE, TICKET) for told in ("trigger", "resolve", "over")]

    def rows(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = table(self.open()[0]).to_pylist()
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def server() -> Iterator[PostServer]:
    server = PostServer()
    yield server
    server.close()


BURST: list[Counts] = good(100) + bad(5) + good(75)
"""From 01:40 the page burns, and from 01:45 on there are no errors: it is below from 01:49, and over at 01:53.
The ticket: the hour's 30 minutes hold the errors until 02:14, its half hour falls below with the minute after."""


def test_an_incident_from_its_first_minute_to_its_end(site: Site) -> None:
    write(site.lake, {"shop-availability": BURST})
    assert site.tick(100) == Changes(unknown={})
    changes = site.tick(101)
    assert (changes.opened, changes.closed) == ((PAGE, TICKET), ())
    assert changes.messages == (f"{PAGE}:trigger",)
    [page] = [row for row in site.rows() if row["severity"] == "page"]
    assert page["state"] == "open"
    assert (page["opened_at"], page["noticed_at"], page["closed_at"]) == (at(100), at(101), None)
    assert site.tick(113) == Changes(unknown={})
    assert site.tick(114).closed == (PAGE,)
    [page] = [row for row in site.rows() if row["severity"] == "page"]
    assert page | {"told": ""} == {
        "incident": PAGE,
        "slo_id": "shop-availability",
        "service": "shop",
        "source": "sample",
        "severity": "page",
        "state": "closed",
        "opened_at": at(100),
        "noticed_at": at(101),
        "closed_at": at(109),
        "peak_burn": pytest.approx(1000),
        # 9 minutes at 5/9 of the events: 555.6x, of 43,200 minutes.
        "budget_spent_percent": pytest.approx(100 * 5 / 9 / 0.001 * 9 / 43_200),
        "bad": 5000,
        "told": "",
        "evidence": None,
    }
    assert page["told"] == "trigger: nobody dry run; resolve: nobody dry run"
    conform(SLO_INCIDENTS, table(site.open()[0]))


def test_the_same_input_twice_changes_nothing(site: Site) -> None:
    write(site.lake, {"shop-availability": BURST})
    for minute in (101, 103, 107, 114, 150, 180):
        burns = site.burns(minute)
        site.advance(burns, minute)
        before = site.rows()
        assert not site.advance(burns, minute)
        assert not site.tick(minute)
        assert site.rows() == before


def test_one_look_at_the_end_finds_what_looks_all_along_find(tmp_path: Path) -> None:
    """The sums too; only who noticed it when, and what was said, differ."""
    rows = []
    for name, looks in (("often", (95, 101, 102, 106, 110, 114, 133, 139, 141, 180)), ("once", [95, 180])):
        (tmp_path / name).mkdir()
        site = Site(tmp_path / name)
        write(site.lake, {"shop-availability": BURST})
        for minute in looks:
            site.tick(minute)
        rows.append([row | {"noticed_at": 0, "told": 0} for row in site.rows()])
    assert rows[0] == rows[1]


def test_what_was_over_before_anybody_looked_wakes_nobody(site: Site, server: PostServer) -> None:
    server.answer()
    site.url = server.url
    write(site.lake, {"shop-availability": BURST})
    site.tick(100)
    assert site.tick(180).messages == (f"{PAGE}:over",)
    ledger, box = site.open()
    box.deliver(site.targets())
    channel = [post.body["text"] for post in server.posts if post.path == PATH]
    assert channel == [
        "RESOLVED [sample data] shop-availability burnt its error budget 1,000x too fast, and it is over"
    ]
    events = [post.body["event_action"] for post in server.posts if post.path != PATH]
    assert events == ["resolve"]
    assert ledger.told()[TICKET] == "not told: its page was"


def test_a_ticket_under_a_page_is_not_told_and_one_that_burns_on_is(site: Site) -> None:
    """An outage, and 8x after it. The page is below from the 5th minute after, as in `BURST`: 8x is no page. The ticket's half
    hour holds the outage until 30 minutes after, and what burns then is told."""
    write(site.lake, {"shop-availability": good(400) + bad(5) + bad(120, 0.008)})
    # 3 failed minutes of the last 360 are 8.3x; 2 are 5.6x.
    page = "shop-availability:page:2026-03-02T06:40Z:sample"
    ticket = "shop-availability:ticket:2026-03-02T06:42Z:sample"
    looks = (401, 403, 413, 414, 439, 440, 441, 520)
    said = {minute: keys for minute in looks if (keys := site.tick(minute).messages)}
    assert said == {401: (f"{page}:trigger",), 414: (f"{page}:resolve",), 440: (f"{ticket}:trigger",)}
    closed = next(each.closed_at for each in site.open()[0].incidents() if each.severity == "page")
    # 409 + 30 is the newest minute of the look at 440.
    assert closed == at(409)


def test_a_ticket_alone_is_told(site: Site) -> None:
    """0.8 % for hours is 8x: never above 14.4x."""
    write(site.lake, {"shop-availability": bad(300, 0.008) + good(60)})
    assert site.tick(200).messages == ("shop-availability:ticket:2026-03-02T00:00Z:sample:trigger",)
    assert site.tick(360).messages == ("shop-availability:ticket:2026-03-02T00:00Z:sample:resolve",)


def test_data_that_stop_neither_close_nor_open(site: Site) -> None:
    site.slos = [slo(), slo("latency")]
    counts = good(100) + bad(1)
    write(site.lake, {"shop-availability": counts, "shop-latency": good(101)})
    site.tick(101)
    write(site.lake, {"shop-availability": counts, "shop-latency": good(200)})
    changes = site.tick(200)
    assert not changes
    assert changes.unknown == {
        f"shop-availability:{name}": "nothing is known of it since 2026-03-02 01:40, and of others until 03:19"
        for name in ("page", "ticket")
    }
    assert {row["state"] for row in site.rows()} == {"open"}


def test_an_alert_that_nobody_declares_any_more_is_closed(site: Site) -> None:
    site.slos = [slo(), slo("latency")]
    write(site.lake, {"shop-availability": good(100) + bad(30), "shop-latency": good(130)})
    site.tick(110)
    site.slos = [slo("latency")]
    changes = site.tick(115)
    assert set(changes.closed) == {PAGE, TICKET}
    assert changes.messages == (f"{PAGE}:withdrawn",)
    assert site.titles()[f"{PAGE}:withdrawn"] == (
        "the page alert of shop-availability is no longer declared; its incident is closed"
    )
    assert site.texts()[f"{PAGE}:withdrawn"].startswith(
        "Whether the budget still burns is not looked at any more. From"
    )
    # And where it comes back, it is another incident.
    site.slos = [slo(), slo("latency")]
    assert len(site.tick(120).opened) == 2
    assert len(site.rows()) == 4


def test_where_no_alert_is_declared_any_more_nothing_stays_open(site: Site) -> None:
    write(site.lake, {"shop-availability": good(100) + bad(30)})
    site.tick(110)
    site.slos = []
    assert set(site.tick(115).closed) == {PAGE, TICKET}
    assert {row["incident"]: row["told"] for row in site.rows()} == {
        PAGE: "trigger: nobody dry run; withdrawn: nobody dry run",
        TICKET: "not told: its page was",
    }
    assert not site.tick(116)


def test_a_page_alone_can_be_withdrawn(site: Site) -> None:
    """The ticket burns on, and now there is no page that would tell of it."""
    write(site.lake, {"shop-availability": good(100) + bad(200)})
    site.tick(110)
    site.slos = [slo(page=False)]
    assert site.tick(115).messages == (f"{PAGE}:withdrawn",)
    assert [site.tick(minute).messages for minute in (144, 146)] == [(), (f"{TICKET}:trigger",)]


def test_a_change_of_source_ends_its_incidents_in_words_and_nothing_else(site: Site) -> None:
    """The real counts are quiet, and neither add to the sample's incident nor say that it is over."""
    write(site.lake, {"shop-availability": good(100) + bad(30)})
    site.tick(130)
    before = {row["incident"]: row for row in site.rows()}
    write(site.lake, {"shop-availability": good(145)}, source="prometheus")
    site.source = "prometheus"
    changes = site.tick(145)
    assert (changes.opened, set(changes.closed)) == ((), {PAGE, TICKET})
    assert changes.messages == (f"{PAGE}:source changed",)
    assert site.titles()[f"{PAGE}:source changed"] == (
        "source changed: the incident of shop-availability is closed, for its counts now come from elsewhere"
    )
    after = {row["incident"]: row for row in site.rows()}
    assert [after[key]["bad"] for key in (PAGE, TICKET)] == [before[key]["bad"] for key in (PAGE, TICKET)]
    assert {row["closed_at"] for row in after.values()} == {at(145)}
    assert not site.tick(146)


def test_the_other_source_has_positions_and_incidents_of_its_own(site: Site) -> None:
    """The same minutes burn in both. Neither hides the other's, and a sample page is no page of a real ticket."""
    counts = good(100) + bad(5) + good(75)
    write(site.lake, {"shop-availability": counts})
    write(site.lake, {"shop-availability": counts}, source="prometheus")
    site.tick(125)
    site.source, site.slos = "prometheus", [slo(page=False)]
    real = TICKET.replace("sample", "prometheus")
    changes = site.tick(125)
    assert (changes.opened, changes.messages) == ((real,), (f"{real}:trigger",))
    assert site.tick(180).messages == (f"{real}:resolve",)
    # Back to the sample: it goes on where it was, and what was closed meanwhile is not opened again.
    site.source, site.slos = "sample", [slo()]
    assert site.tick(180).opened == ("shop-availability:ticket:2026-03-02T02:05Z:sample",)


@pytest.mark.parametrize(
    ("counts", "looks"),
    [
        (good(100) + bad(2) + good(78), (101, 112, 99, 113, 114)),
        (good(100) + bad(10) + good(78), (101, 125, 105, 126)),
        (good(100) + bad(5) + good(75), (101, 125, 112, 130)),
    ],
)
def test_a_clock_that_was_set_back_alerts_nobody_again(
    site: Site, counts: list[Counts], looks: tuple[int, ...]
) -> None:
    """Before the burst, and into it."""
    write(site.lake, {"shop-availability": counts})
    said = [message for minute in looks for message in site.tick(minute).messages]
    assert said == [f"{PAGE}:trigger", f"{PAGE}:resolve"]
    assert [row["incident"] for row in site.rows()] == [PAGE, TICKET]


@hypothesis_settings(max_examples=5)
@given(looks=st.lists(st.integers(60, 180), min_size=2, max_size=4))
def test_looks_in_any_order_find_what_one_look_finds(
    tmp_path_factory: pytest.TempPathFactory, looks: list[int]
) -> None:
    site = Site(tmp_path_factory.mktemp("site"))
    site.slos = [slo(ticket=False)]
    write(site.lake, {"shop-availability": good(60) + bad(4) + good(60) + bad(1) + good(55)})
    said = Counter(key for minute in (*looks, 180) for key in site.tick(minute).messages)
    assert set(said.values()) == {1}
    assert [(row["opened_at"], row["closed_at"], row["bad"]) for row in site.rows()] == [
        (at(60), at(68), 4000),
        (at(124), at(129), 1000),
    ]


@pytest.mark.parametrize("minute", [104, 114])
def test_without_its_position_a_known_incident_is_the_same_one(site: Site, minute: int) -> None:
    """Open or closed: it is told once, and its sums are those of all its minutes."""
    write(site.lake, {"shop-availability": BURST})
    site.tick(101)
    site.tick(minute)
    with sqlite3.connect(site.home / "incidents" / "incidents.sqlite") as connection:
        connection.execute("delete from decided")
    before = site.rows()
    assert not site.tick(minute)
    assert site.rows() == before
    assert site.tick(180).messages == ((f"{PAGE}:resolve",) if minute == 104 else ())
    assert [row["bad"] for row in site.rows()] == [5000, 5000]


def test_traffic_that_stops_is_not_told_as_a_recovery(site: Site) -> None:
    write(site.lake, {"shop-availability": good(100) + bad(10) + [(0.0, 0.0)] * 40})
    site.tick(105)
    assert site.tick(130).messages == (f"{PAGE}:resolve",)
    assert site.titles()[f"{PAGE}:resolve"] == (
        "shop-availability has no traffic since 2026-03-02 01:50 UTC, and no longer burns its error budget"
    )
    assert site.texts()[f"{PAGE}:resolve"].endswith(" An outage in front of it would look the same.")


def test_what_is_not_written_down_yet_is_outstanding(site: Site, server: PostServer) -> None:
    """Until the lake has it as it is: also where only what became of a message is new."""
    incidents, _ = site.open()
    assert not outstanding(incidents, site.lake)
    server.answer(404, "no_service")
    site.url = server.url
    site.slos = [slo(page=False)]
    write(site.lake, {"shop-availability": BURST})
    site.tick(101)
    incidents, box = site.open()
    found = outstanding(incidents, site.lake)
    assert (found.is_recorded, found.unfiled, bool(found)) == (False, 0, True)
    site.lake.write(SLO_INCIDENTS, table(incidents), refresh=False)
    assert outstanding(incidents, site.lake) == replace(found, is_recorded=True)
    assert not outstanding(incidents, site.lake)
    box.deliver(site.targets())
    assert incidents.told()[TICKET] == "trigger: slack refused"
    later = outstanding(incidents, site.lake)
    assert later.version != found.version
    assert not later.is_recorded
    site.lake.write(SLO_INCIDENTS, table(incidents), refresh=False)
    assert not outstanding(incidents, site.lake)


def test_a_page_that_has_waited_too_long_is_overdue(site: Site) -> None:
    site.url = "http://127.0.0.1:9"
    write(site.lake, {"shop-availability": BURST})
    site.tick(101)
    told = [site.open(now=at(minute))[0].told()[PAGE] for minute in (116, 117)]
    assert told == [
        "trigger: pagerduty waiting, slack waiting",
        "trigger: pagerduty overdue, slack overdue",
    ]


@pytest.mark.parametrize(
    ("told", "closed_days_ago", "is_lost"),
    [
        ("trigger: slack refused", None, True),
        ("trigger: slack unknown, pagerduty delivered; resolve: slack delivered", 29, True),
        ("trigger: slack unknown, pagerduty delivered; resolve: slack delivered", 31, False),
        ("trigger: pagerduty overdue", 1, True),
        ("trigger: slack too late", 1, True),
        ("trigger: slack waiting", None, False),
        ("trigger: nobody dry run; source changed: nobody dry run", 1, False),
    ],
)
def test_who_was_not_told(told: str, closed_days_ago: int | None, is_lost: bool) -> None:
    """Of open ones, and for thirty days."""
    closed_at = None if closed_days_ago is None else BEGIN - timedelta(days=closed_days_ago)
    row = {"incident": "x", "state": "closed" if closed_at else "open", "closed_at": closed_at, "told": told}
    assert untold([row], BEGIN) == ({"x": told} if is_lost else {})


def test_what_was_not_handed_over_in_time_is_by_the_next_call(site: Site) -> None:
    write(site.lake, {"shop-availability": BURST})
    burns = site.burns(101)

    class Stopped(Exception):
        pass

    def reached(step: str) -> None:
        if step == "decided":
            raise Stopped

    with pytest.raises(Stopped):
        site.advance(burns, 101, reached)
    incidents, box = site.open()
    incidents.hand_over(budget_seconds=0)
    assert incidents.told()[PAGE] == "trigger: not in the outbox yet"
    assert site.open(now=at(117))[0].told()[PAGE] == "trigger: not in the outbox yet, overdue"
    incidents.hand_over()
    assert list(box.outcomes([f"{PAGE}:trigger"])) == [f"{PAGE}:trigger"]


def test_what_cannot_be_gathered_keeps_nothing_else_from_being_filed(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The minutes of the first day are damaged; the second incident is of the second day."""
    site.slos = [slo(ticket=False)]
    write(site.lake, {"shop-availability": BURST})
    write(site.lake, {"shop-availability": BURST}, begin=BEGIN + timedelta(days=1))
    site.tick(1440 + 180)
    [path] = site.lake.files(SLO_MINUTES, {"source": "sample", "day": BEGIN.date()})
    damaged = site.home / "lake" / path
    whole = damaged.read_bytes()
    damaged.write_bytes(b"PAR1 no more")
    archive = Evidence(Settings(_env_file=None, home=site.home, evidence_gpg="off")).archive
    incidents, _ = site.open()
    assert len(file_all(incidents, site.lake, archive, "")) == 1
    assert [each.incident for each in incidents.unfiled()] == [PAGE]
    assert f"incident {PAGE}: its rollback is not prepared" in caplog.text
    assert outstanding(incidents, site.lake).unfiled == 1
    damaged.write_bytes(whole)
    assert len(file_all(incidents, site.lake, archive, "")) == 1
    assert incidents.unfiled() == []
    assert file_all(incidents, site.lake, archive, "") == []


def test_the_message_says_where_to_look(site: Site) -> None:
    site.url = "http://127.0.0.1:9"
    write(site.lake, {"shop-availability": BURST})
    site.tick(101)
    said: list[str] = []
    box = Outbox(site.home / "notify", window=timedelta(0), clock=lambda: at(102), reached=said.append)
    box.deliver(site.targets())
    [attempt] = [each for each in box.attempts() if each.target == "slack"]
    assert attempt.said == (
        "CRITICAL [sample data] shop-availability burns its error budget 200x too fast\n"
        "shop burns\n"
        "Since 2026-03-02 01:40 UTC; the threshold is 14.4x over 5m and 1h, the objective 99.9 %. "
        "2.31 % of the 30-day budget is spent since then.\n"
        "Team: web\n"
        f"dashboard: {LINKS['dashboard']}\n"
        f"runbook: {LINKS['runbook']}"
    )


STEPS = ["decided, not committed", "decided", "handed over"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("minute", [101, 114])
def test_kill_9_between_every_step(site: Site, server: PostServer, step: str, minute: int) -> None:
    """At its opening and at its close: afterwards it is there once, and was told once."""
    server.answer(202, "ok")
    site.url = server.url
    write(site.lake, {"shop-availability": BURST})
    if minute == 114:
        site.tick(101)
    burns = site.burns(minute)

    def work() -> None:
        def reached(name: str) -> None:
            if name == step:
                os.kill(os.getpid(), signal.SIGKILL)

        site.advance(burns, minute, reached)

    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert site.tick(minute).opened == ((PAGE, TICKET) if (step, minute) == (STEPS[0], 101) else ())
    for _ in range(2):
        site.tick(minute)
        site.open()[1].deliver(site.targets())
    assert Counter(row["incident"] for row in site.rows()) == {PAGE: 1, TICKET: 1}
    wanted = ["trigger"] if minute == 101 else ["trigger", "resolve"]
    assert [post.body["event_action"] for post in server.posts if post.path != PATH] == wanted
    assert len([post for post in server.posts if post.path == PATH]) == 1
    [page] = [row for row in site.rows() if row["severity"] == "page"]
    assert page["bad"] == (1000 if minute == 101 else 5000)


def test_two_processes_at_once_tell_it_once(site: Site, server: PostServer) -> None:
    server.answer(202, "ok")
    site.url = server.url
    write(site.lake, {"shop-availability": BURST})
    burns = {minute: site.burns(minute) for minute in (101,)}

    def work() -> None:
        _, box = site.open()
        site.advance(burns[101], 101)
        box.deliver(site.targets())
        for minute in (105, 114, 180):
            site.tick(minute)
            box.deliver(site.targets())

    processes = [FORK.Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    site.open()[1].deliver(site.targets())
    assert Counter(post.body["event_action"] for post in server.posts if post.path != PATH) == {
        "trigger": 1,
        "resolve": 1,
    }
    assert [row["bad"] for row in site.rows() if row["severity"] == "page"] == [5000]
    said = Counter(key for row in site.rows() for key in str(row["told"]).split("; "))
    assert said["trigger: pagerduty delivered, slack delivered"] == 1


def test_secrets_are_nowhere_in_the_home(site: Site, server: PostServer) -> None:
    server.answer(404, f"{PATH} {KEY}")
    site.url = server.url
    write(site.lake, {"shop-availability": BURST})
    site.tick(101)
    site.open()[1].deliver(site.targets())
    files = [path for path in site.home.rglob("*") if path.is_file()]
    assert {"incidents.sqlite", "outbox.sqlite"} <= {path.name for path in files}
    assert not [path.name for path in files if b"SECRET" in path.read_bytes()]


def _series(lake: Lake, spans: dict[str, tuple[datetime, datetime]], service: str) -> None:
    """A sample every 10 minutes of each version's span."""
    series, samples = [], []
    for version, (begin, end) in spans.items():
        labels = {"service": service, "version": version}
        number = series_id("http_server_requests_total", labels)
        times = [begin + timedelta(minutes=10 * n) for n in range(int((end - begin) / timedelta(minutes=10)) + 1)]
        samples += [
            {"source": "sample", "day": t.date(), "series_id": number, "time": t, "value": 1.0, "is_stale": False}
            for t in times
        ]
        for day in sorted({t.date() for t in times}):
            series.append(
                {
                    "source": "sample",
                    "day": day,
                    "series_id": number,
                    "metric": "http_server_requests_total",
                    "labels": label_text(labels),
                    "samples": sum(t.date() == day for t in times),
                    "stale_markers": 0,
                    "unusable_samples": 0,
                    "duplicate_samples": 0,
                }
            )
    lake.write(METRIC_SERIES, pa.Table.from_pylist(series, schema=METRIC_SERIES.schema), refresh=False)
    samples.sort(key=lambda row: (row["day"], row["series_id"], row["time"]))
    lake.write(METRIC_SAMPLES, pa.Table.from_pylist(samples, schema=METRIC_SAMPLES.schema), refresh=False)


def test_what_a_rollback_needs_is_prepared(site: Site) -> None:
    write(site.lake, {"shop-availability": BURST})
    long_ago = datetime(2026, 2, 20, tzinfo=UTC)
    rollout = at(97) - timedelta(minutes=7)
    _series(site.lake, {"1.4.0": (long_ago, at(90)), "1.5.0": (rollout, at(100))}, "shop")
    site.tick(101)
    [incident] = site.open()[0].unfiled()
    found = prepare(site.lake, incident, "production")
    assert json.loads(json.dumps(found)) == found
    assert found["undo"] == "kubectl argo rollouts undo shop -n production"
    assert (found["runbook"], found["team"], found["objective_percent"]) == (LINKS["runbook"], "web", 99.9)
    assert found["windows"] == [{"short": "5m", "long": "1h", "factor": 14.4}]
    assert found["recent_rollouts"] == [
        {"version": "1.5.0", "first_seen": "2026-03-02T01:30:00+00:00", "last_seen": "2026-03-02T01:40:00+00:00"},
        {"version": "1.4.0", "first_seen": None, "last_seen": "2026-03-02T01:30:00+00:00"},
    ]
    assert [(each["minute"][11:16], each["bad"]) for each in found["minutes"]] == [
        ("01:35", 0),
        ("01:36", 0),
        ("01:37", 0),
        ("01:38", 0),
        ("01:39", 0),
        ("01:40", 1000),
    ]
    assert (found["minutes_left_out"], found["as_of"]) == (0, "2026-03-02T01:40:00+00:00")
    site.open()[0].filed(PAGE, "bundle-1")
    site.open()[0].filed(PAGE, "bundle-2")
    assert site.open()[0].unfiled() == []
    assert [row["evidence"] for row in site.rows() if row["severity"] == "page"] == ["bundle-1"]


def test_without_metrics_the_rest_is_prepared(site: Site) -> None:
    write(site.lake, {"shop-availability": BURST})
    site.tick(101)
    found = prepare(site.lake, site.open()[0].incidents()[0])
    assert (found["recent_rollouts"], found["undo"]) == ([], "kubectl argo rollouts undo shop")


def test_a_long_incident_leaves_minutes_out_and_says_how_many(site: Site) -> None:
    write(site.lake, {"shop-availability": bad(800)})
    site.tick(800)
    found = prepare(site.lake, site.open()[0].incidents()[0])
    assert (len(found["minutes"]), found["minutes_left_out"]) == (720, 80)


def test_nothing_at_all_is_an_empty_table(site: Site) -> None:
    found = table(site.open()[0])
    assert (found.num_rows, found.schema) == (0, SLO_INCIDENTS.schema)
    assert site.open()[0].positions("sample") == {}
    assert list(site.home.iterdir()) == []


def test_an_slo_without_links_or_team_is_told_too(site: Site) -> None:
    bare: Slo = slo()
    assert bare.page is not None
    site.slos = [replace(bare, page=replace(bare.page, labels={}, annotations={}), ticket=None)]
    write(site.lake, {"shop-availability": BURST})
    assert site.tick(101).messages == (f"{PAGE}:trigger",)
    assert date(2026, 3, 2) == site.open()[0].incidents()[0].opened_at.date()
