"""The outbox: once by its key, in order, grouped, within its rate, and through kill -9 at every step."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from greenops_pipelines.notify.opening import targets
from greenops_pipelines.notify.outbox import Outbox
from greenops_pipelines.notify.pagerduty import PagerDuty
from greenops_pipelines.notify.posting import Target
from greenops_pipelines.notify.slack import Slack
from greenops_pipelines.redaction import reveal
from tests.notify.conftest import BEGIN, Clock, say
from tests.notify.servers import PostServer

PATH = "/services/T0SECRET1/B0SECRET2/xyzSECRETxyz"
KEY = "0123456789abcdefSECRET9876543210"
SHORT = (0.3, 0.3)
FORK = multiprocessing.get_context("fork")
"""A fresh interpreter costs seconds of imports, and there are many to be killed."""


def slack(server: PostServer, per_hour: int = 30) -> Slack:
    return Slack(SecretStr(server.url + PATH), per_hour, SHORT)


def pagerduty(server: PostServer) -> PagerDuty:
    return PagerDuty(SecretStr(KEY), server.url, SHORT)


def outbox(root: Path, clock: Clock, window_seconds: float = 30) -> Outbox:
    return Outbox(root, window=timedelta(seconds=window_seconds), clock=clock)


def states(box: Outbox, *keys: str) -> list[str]:
    return [f"{each.target} {each.state}" for key in keys for each in box.outcomes([key]).get(key, ())]


def titles(server: PostServer) -> list[str]:
    return [post.body["text"] for post in server.posts]


def test_without_a_target_it_records_what_would_have_been_said(tmp_path: Path, clock: Clock) -> None:
    box = outbox(tmp_path, clock)
    assert box.put(say("a"), ())
    assert box.deliver(()) == Counter()
    [delivery] = box.outcomes(["a"])["a"]
    assert (delivery.target, delivery.state, delivery.settled_at) == ("nobody", "dry run", BEGIN)
    assert delivery.detail.startswith("would have been said: CRITICAL a burns\n37 x\nTeam: platform\n")
    assert box.waiting() == {}


def test_what_was_a_dry_run_is_not_said_when_a_target_comes(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    box = outbox(tmp_path, clock)
    box.put(say("a"), ())
    assert not box.put(say("a"), [slack(server)])
    assert box.deliver([slack(server)]) == Counter()
    assert server.posts == []


def test_reading_makes_no_file(tmp_path: Path, clock: Clock) -> None:
    box = outbox(tmp_path, clock)
    assert (box.outcomes(["a"]), box.attempts(), box.waiting()) == ({}, [], {})
    assert not box.file.exists()


def test_a_message_is_put_and_sent_once(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.answer()
    targets = [slack(server)]
    assert outbox(tmp_path, clock, 0).put(say("a"), targets)
    assert not outbox(tmp_path, clock, 0).put(say("a", title="another"), targets)
    for _ in range(3):
        outbox(tmp_path, clock, 0).deliver(targets)
    assert titles(server) == ["CRITICAL a burns"]
    assert states(outbox(tmp_path, clock), "a") == ["slack delivered"]
    [attempt] = outbox(tmp_path, clock).attempts()
    assert (attempt.outcome, attempt.detail, attempt.said[:16]) == ("delivered", "ok", "CRITICAL a burns")


def test_pages_go_to_pagerduty_and_all_to_the_channel(
    tmp_path: Path, clock: Clock, server: PostServer, second: PostServer
) -> None:
    server.answer()
    second.answer(202, "{}")
    box, targets = outbox(tmp_path, clock, 0), [pagerduty(second), slack(server)]
    box.put(say("page"), targets)
    box.put(say("ticket", severity="warning"), targets)
    assert box.deliver(targets) == Counter(delivered=3)
    assert [post.body["dedup_key"] for post in second.posts] == ["page"]
    assert states(box, "page", "ticket") == ["pagerduty delivered", "slack delivered", "slack delivered"]


def test_a_warning_goes_to_pagerduty_where_nobody_else_would_hear_of_it(
    tmp_path: Path, clock: Clock, second: PostServer
) -> None:
    second.answer(202, "{}")
    box = outbox(tmp_path, clock)
    box.put(say("ticket", severity="warning"), [pagerduty(second)])
    box.deliver([pagerduty(second)])
    assert second.posts[0].body["payload"]["severity"] == "warning"


def test_what_a_service_says_within_the_window_is_one_message(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.answer()
    box, targets = outbox(tmp_path, clock), [slack(server)]
    box.put(say("a"), targets)
    clock.pass_by(seconds=20)
    box.put(say("b"), targets)
    box.put(say("c", service="cockpit"), targets)
    clock.pass_by(seconds=9)
    assert box.deliver(targets) == Counter()
    clock.pass_by(seconds=1)
    assert box.deliver(targets) == Counter(delivered=2)
    assert titles(server) == ["api-gateway: 2 triggered, 0 resolved"]
    clock.pass_by(seconds=20)
    box.deliver(targets)
    assert titles(server)[1:] == ["CRITICAL c burns"]


def test_beyond_the_rate_all_the_rest_is_one_message(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.answer()
    box, targets = outbox(tmp_path, clock, 0), [slack(server, per_hour=3)]
    for n in range(6):
        box.put(say(f"m{n}", service=f"s{n}"), targets)
    assert box.deliver(targets) == Counter(delivered=6)
    assert titles(server) == [
        "CRITICAL m0 burns",
        "CRITICAL m1 burns",
        "s2, s3, s4, s5: 4 triggered, 0 resolved",
    ]
    clock.pass_by(minutes=30)
    for n in range(6, 9):
        box.put(say(f"m{n}", service=f"s{n}"), targets)
    assert box.deliver(targets) == Counter()
    assert box.waiting() == {"slack": 3}
    clock.pass_by(minutes=30)
    # The three of an hour ago have left: two places for single ones, and the last for the rest.
    assert box.deliver(targets) == Counter(delivered=3)
    assert titles(server)[3:] == ["CRITICAL m6 burns", "CRITICAL m7 burns", "CRITICAL m8 burns"]


def test_a_failure_is_tried_again_after_twice_the_time(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.answer(500, "rollup_error")
    server.answer(503, "")
    server.answer()
    box, targets = outbox(tmp_path, clock, 0), [slack(server)]
    box.put(say("a"), targets)
    tried = []
    for second in range(0, 121, 10):
        if box.deliver(targets):
            tried.append(second)
        clock.pass_by(seconds=10)
    assert tried == [0, 30, 90]
    assert [attempt.outcome for attempt in box.attempts()] == ["not sent", "not sent", "delivered"]
    assert box.attempts()[0].detail == "slack (127.0.0.1): answered 500 Internal Server Error: rollup_error"


def test_a_target_that_asks_for_a_pause_gets_it(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.answer(429, "", Retry_After="100")
    server.answer()
    box, targets = outbox(tmp_path, clock, 0), [slack(server)]
    box.put(say("a"), targets)
    box.put(say("b", service="cockpit"), targets)
    assert box.deliver(targets) == Counter({"not sent": 1})
    clock.pass_by(seconds=99)
    assert box.deliver(targets) == Counter()
    clock.pass_by(seconds=1)
    assert box.deliver(targets) == Counter(delivered=2)
    assert titles(server) == ["CRITICAL a burns", "CRITICAL a burns", "CRITICAL b burns"]


def test_a_pause_of_years_is_one_of_fifteen_minutes(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.answer(429, "", Retry_After="99999999")
    server.answer()
    box, targets = outbox(tmp_path, clock, 0), [slack(server)]
    box.put(say("a"), targets)
    assert box.deliver(targets) == Counter({"not sent": 1})
    clock.pass_by(minutes=14, seconds=59)
    assert box.deliver(targets) == Counter()
    clock.pass_by(seconds=1)
    assert box.deliver(targets) == Counter(delivered=1)


def test_a_clock_that_was_ahead_and_is_put_right_holds_nothing_up(
    tmp_path: Path, clock: Clock, server: PostServer, second: PostServer
) -> None:
    """A year ahead: a message in its window, one that failed, and a pause were written; and the hour's only place was used."""
    server.answer()
    server.answer(429, "", Retry_After="100")
    server.answer()
    second.answer(500, "")
    second.answer(202, "{}")
    box, targets = outbox(tmp_path, clock), [pagerduty(second), slack(server, per_hour=1)]
    clock.pass_by(days=365)
    box.put(say("before", severity="warning"), targets)
    clock.pass_by(seconds=30)
    assert box.deliver(targets) == Counter(delivered=1)
    clock.pass_by(hours=2)
    box.put(say("paused", severity="warning"), targets)
    clock.pass_by(seconds=30)
    assert box.deliver(targets) == Counter({"not sent": 1})
    box.put(say("failed"), targets)
    assert box.deliver([targets[0]]) == Counter({"not sent": 1})
    clock.now = BEGIN
    assert box.deliver(targets) == Counter(delivered=3)
    assert box.waiting() == {}


def test_what_was_put_by_a_clock_a_minute_ahead_is_due(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.answer()
    box = outbox(tmp_path, clock)
    clock.pass_by(minutes=1)
    box.put(say("a"), [slack(server)])
    clock.now = BEGIN
    assert box.deliver([slack(server)]) == Counter(delivered=1)


def test_what_a_clock_that_was_ahead_put_waits_twice_as_long_after_each_failure_too(
    tmp_path: Path, clock: Clock, server: PostServer
) -> None:
    server.answer(503, "")
    box = outbox(tmp_path, clock, 0)
    clock.pass_by(days=365)
    box.put(say("a"), [slack(server)])
    clock.now = BEGIN
    assert box.deliver([slack(server)]) == Counter({"not sent": 1})
    clock.pass_by(seconds=29)
    assert box.deliver([slack(server)]) == Counter()
    clock.pass_by(days=1)
    box.deliver(())
    assert states(box, "a") == ["slack too late"]


def test_a_failure_while_the_clock_was_ahead_is_tried_again_when_it_is_right(
    tmp_path: Path, clock: Clock, server: PostServer
) -> None:
    server.answer(503, "")
    server.answer()
    box = outbox(tmp_path, clock, 0)
    box.put(say("a"), [slack(server)])
    clock.pass_by(hours=12)
    assert box.deliver([slack(server)]) == Counter({"not sent": 1})
    clock.pass_by(hours=-11)
    assert box.deliver([slack(server)]) == Counter(delivered=1)


def test_a_clock_that_steps_back_a_little_waits_a_little(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    """What failed a moment ago is not asked again at once for a clock that was put back by two seconds."""
    server.answer(503, "")
    server.answer()
    box, targets = outbox(tmp_path, clock, 0), [slack(server)]
    box.put(say("a"), targets)
    clock.pass_by(seconds=60)
    box.deliver(targets)
    clock.pass_by(seconds=-2)
    assert box.deliver(targets) == Counter()
    clock.pass_by(seconds=32)
    assert box.deliver(targets) == Counter(delivered=1)


def test_a_claim_of_a_clock_that_was_ahead_ends(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.answer(202, "{}")
    killed(tmp_path, "pagerduty", server.url, "claimed")
    clock.pass_by(days=-365)
    assert outbox(tmp_path, clock).deliver([pagerduty(server)]) == Counter(delivered=1)


def test_what_waits_for_a_target_that_is_gone_is_too_late_after_a_day(
    tmp_path: Path, clock: Clock, server: PostServer
) -> None:
    box = outbox(tmp_path, clock, 0)
    box.put(say("a"), [slack(server)])
    clock.pass_by(hours=23)
    box.deliver(())
    assert states(box, "a") == ["slack waiting"]
    clock.pass_by(hours=1)
    box.deliver(())
    [delivery] = box.outcomes(["a"])["a"]
    assert (delivery.state, delivery.detail) == ("too late", "waited for a day: no send came about")


def test_a_wrong_setting_is_refused_and_the_others_are_told(tmp_path: Path, clock: Clock, second: PostServer) -> None:
    second.answer(202, "{}")
    box = outbox(tmp_path, clock, 0)
    found = targets(SecretStr("not-a-url"), SecretStr(KEY), pagerduty_url=second.url)
    box.put(say("page"), found)
    box.put(say("ticket", severity="warning"), found)
    assert box.deliver(found) == Counter(refused=2, delivered=1)
    assert states(box, "page", "ticket") == ["pagerduty delivered", "slack refused", "slack refused"]
    assert box.outcomes(["ticket"])["ticket"][0].detail == (
        "GREENOPS_NOTIFY_SLACK_URL: found (hidden), allowed: an address as the service gives it, https://..."
    )


def test_a_secret_that_is_a_word_of_ours_leaves_the_message_readable(
    tmp_path: Path, clock: Clock, server: PostServer
) -> None:
    """A mail's password may be anything: that of a field, of a service, of a key."""
    server.answer()
    # Secrets are known for as long as the process lives: these are in no other test.
    for word in ("service_zq", "key_zq", "text_zq"):
        reveal(SecretStr(word))
    box = outbox(tmp_path, clock, 0)
    said = say(
        "key_zq",
        service="service_zq",
        text="text_zq",
        title="title text_zq",
        links={"runbook": "https://a.example/text_zq"},
        details={"text": "text_zq", "burn": 1.5},
    )
    box.put(said, [slack(server)])
    assert box.deliver([slack(server)]) == Counter(delivered=1)
    body = str(server.posts[0].body)
    assert "title ***" in body
    assert "https://a.example/***" in body
    assert "service_zq" in body
    assert "text_zq" not in body
    assert b"text_zq" not in box.file.read_bytes()


def test_what_is_refused_is_not_tried_again_and_holds_nothing_up(
    tmp_path: Path, clock: Clock, server: PostServer
) -> None:
    server.answer(400, "invalid_payload")
    server.answer()
    box, targets = outbox(tmp_path, clock, 0), [slack(server)]
    box.put(say("a"), targets)
    box.put(say("b", service="cockpit"), targets)
    assert box.deliver(targets) == Counter(refused=1, delivered=1)
    assert states(box, "a", "b") == ["slack refused", "slack delivered"]


def test_a_webhook_that_hangs_or_breaks_off_is_not_told_twice(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.hang()
    server.hang_up()
    server.answer(200, "o", declared_bytes=2)
    server.answer()
    box, targets = outbox(tmp_path, clock, 0), [slack(server)]
    for n in range(4):
        box.put(say(f"m{n}", service=f"s{n}"), targets)
    assert box.deliver(targets) == Counter(unknown=3, delivered=1)
    clock.pass_by(hours=1)
    assert box.deliver(targets) == Counter()
    assert titles(server) == [f"CRITICAL m{n} burns" for n in range(4)]
    assert states(box, "m0", "m1", "m2") == ["slack unknown"] * 3


def test_pagerduty_is_asked_again_where_nobody_knows(tmp_path: Path, clock: Clock, second: PostServer) -> None:
    second.hang_up()
    second.answer(202, "{}")
    box, targets = outbox(tmp_path, clock), [pagerduty(second)]
    box.put(say("a"), targets)
    assert box.deliver(targets) == Counter(unknown=1)
    clock.pass_by(seconds=30)
    assert box.deliver(targets) == Counter(delivered=1)
    assert [post.body["dedup_key"] for post in second.posts] == ["a", "a"]
    assert [attempt.outcome for attempt in box.attempts()] == ["unknown", "delivered"]


def test_a_resolve_never_overtakes_its_trigger(tmp_path: Path, clock: Clock, second: PostServer) -> None:
    """Overtaken, the trigger would open an alert that nothing resolves."""
    second.answer(500, "")
    second.answer(202, "{}")
    box, targets = outbox(tmp_path, clock), [pagerduty(second)]
    box.put(say("a:trigger", dedup_key="a"), targets)
    assert box.deliver(targets) == Counter({"not sent": 1})
    box.put(say("a:resolve", dedup_key="a", action="resolve"), targets)
    box.put(say("b"), targets)
    assert box.deliver(targets) == Counter(delivered=1)
    clock.pass_by(seconds=30)
    assert box.deliver(targets) == Counter(delivered=2)
    assert [(post.body["dedup_key"], post.body["event_action"]) for post in second.posts] == [
        ("a", "trigger"),
        ("b", "trigger"),
        ("a", "trigger"),
        ("a", "resolve"),
    ]


def test_a_resolve_waits_while_its_trigger_is_being_sent(tmp_path: Path, clock: Clock, second: PostServer) -> None:
    """Whoever claimed the trigger was killed: it is asked again first, when the lease is over."""
    second.answer(202, "{}")
    killed(tmp_path, "pagerduty", second.url, "claimed")
    box, targets = outbox(tmp_path, clock), [pagerduty(second)]
    box.put(say("a:resolve", dedup_key="a", action="resolve"), targets)
    assert box.deliver(targets) == Counter()
    clock.pass_by(seconds=121)
    assert box.deliver(targets) == Counter(delivered=2)
    assert [post.body["event_action"] for post in second.posts] == ["trigger", "resolve"]


def test_after_a_day_it_is_too_late(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.answer()
    box = outbox(tmp_path, clock, 0)
    box.put(say("a"), [slack(server)])
    clock.pass_by(hours=23, minutes=59)
    box.put(say("b"), [slack(server)])
    clock.pass_by(minutes=1)
    assert box.deliver([slack(server)]) == Counter(delivered=1)
    assert states(box, "a", "b") == ["slack too late", "slack delivered"]


def killed(root: Path, kind: str, url: str, step: str) -> None:
    """A process that puts a message, delivers it, and is killed at a step."""

    def work() -> None:
        def reached(name: str) -> None:
            if name == step:
                os.kill(os.getpid(), signal.SIGKILL)

        box = Outbox(root, window=timedelta(0), clock=Clock(), reached=reached)
        target: Target = PagerDuty(SecretStr(KEY), url) if kind == "pagerduty" else Slack(SecretStr(url + PATH))
        box.put(say("a"), [target])
        box.deliver([target])

    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


STEPS = [
    "put, not committed",
    "put",
    "claimed, not committed",
    "claimed",
    "sent",
    "recorded, not committed",
    "recorded",
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["slack", "pagerduty"])
def test_kill_9_at_every_step(tmp_path: Path, clock: Clock, server: PostServer, kind: str, step: str) -> None:
    """Nothing is forgotten; the webhook is told at most once; PagerDuty at least once, under one key."""
    server.answer(202 if kind == "pagerduty" else 200, "{}" if kind == "pagerduty" else "ok")
    killed(tmp_path, kind, server.url, step)
    target: Target = pagerduty(server) if kind == "pagerduty" else slack(server)
    box = outbox(tmp_path, clock, 0)
    box.put(say("a"), [target])
    box.deliver([target])
    # Whoever was killed may be alive, as far as the others know, until its lease is over.
    clock.pass_by(seconds=121)
    box.deliver([target])
    sent_before = step in ("sent", "recorded, not committed", "recorded")
    if kind == "pagerduty":
        assert states(box, "a") == ["pagerduty delivered"]
        assert len(server.posts) == (2 if sent_before and step != "recorded" else 1)
        assert {post.body["dedup_key"] for post in server.posts} == {"a"}
    else:
        lost = step in ("claimed", "sent", "recorded, not committed")
        assert states(box, "a") == ["slack unknown" if lost else "slack delivered"]
        assert len(server.posts) == (0 if step == "claimed" else 1)


def test_a_lease_holds_others_off(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.answer(202, "{}")
    killed(tmp_path, "pagerduty", server.url, "claimed")
    box = outbox(tmp_path, clock)
    clock.pass_by(seconds=119)
    assert box.deliver([pagerduty(server)]) == Counter()
    clock.pass_by(seconds=2)
    assert box.deliver([pagerduty(server)]) == Counter(delivered=1)


def test_who_comes_back_after_its_lease_knows_what_came_of_it(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    """A process that stood still for minutes: others wrote `unknown`, and it says that it was delivered."""
    server.answer()
    other = outbox(tmp_path, clock, 0)

    def reached(step: str) -> None:
        if step == "sent":
            clock.pass_by(minutes=5)
            other.deliver([slack(server)])
            assert states(other, "a") == ["slack unknown"]

    box = Outbox(tmp_path, window=timedelta(0), clock=clock, reached=reached)
    box.put(say("a"), [slack(server)])
    box.deliver([slack(server)])
    assert states(box, "a") == ["slack delivered"]
    assert len(server.posts) == 1


def _deliver(root: str, url: str, count: int) -> None:
    clock = Clock()
    box, targets = outbox(Path(root), clock, 0), [Slack(SecretStr(url + PATH), 1000)]
    for n in range(count):
        box.put(say(f"m{n}", service=f"s{n}"), targets)
        box.deliver(targets)


def test_processes_at_once_send_each_message_once(tmp_path: Path, clock: Clock, server: PostServer) -> None:
    server.answer()
    processes = [FORK.Process(target=_deliver, args=(str(tmp_path), server.url, 25)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert Counter(titles(server)) == Counter({f"CRITICAL m{n} burns": 1 for n in range(25)})


def test_threads_that_make_the_file_at_once(tmp_path: Path, clock: Clock) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: outbox(tmp_path, clock).put(say("a"), ()), range(8)))
    assert Counter(done) == Counter({True: 1, False: 7})


def test_no_secret_is_in_the_file_or_a_log(
    tmp_path: Path, clock: Clock, server: PostServer, second: PostServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer(503, f"{PATH} is unknown")
    server.answer(404, f"{PATH} xyzSECRETxyz")
    second.answer(400, f"bad key {KEY}")
    box, targets = outbox(tmp_path, clock, 0), [pagerduty(second), slack(server)]
    # Whoever calls may have put a credential into a text.
    box.put(say("a", text=f"posted to {server.url}{PATH}"), targets)
    for _ in range(3):
        box.deliver(targets)
        clock.pass_by(seconds=40)
    assert states(box, "a") == ["pagerduty refused", "slack refused"]
    files = list(tmp_path.iterdir())
    assert box.file in files
    assert not [path.name for path in files if b"SECRET" in path.read_bytes()]
    assert "SECRET" not in caplog.text
