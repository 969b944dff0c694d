"""Submissions: three ways in, every key once whatever happens, and the line for every document that is wrong."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import yaml

from greenops_pipelines.errors import BadInput, ConfigurationError, PermanentError
from greenops_pipelines.lake.tables import PLACEMENT_REQUESTS
from greenops_pipelines.placement import submissions
from greenops_pipelines.placement.acceptance import Submissions, stored
from greenops_pipelines.placement.requests import Request
from greenops_pipelines.placement.submissions import submissions_table, submit, submit_text, take_inbox
from greenops_pipelines.settings import Settings
from tests.placement import small_ops
from tests.placement.small_ops import NOW, PLACEMENT, document

SEED = 20261125
OLD = NOW - timedelta(minutes=10)
FIELDS = (
    "workload, kind, tenant, service, duration_minutes, window_minutes, power_kw, vcpus, memory_gb, gpus, width, "
    "data_gb, interruptible, regions, home_region, max_rtt_ms, cost_weight_g, runner, key, earliest_start"
)
POWER = "either power_kw, or any of vcpus, memory_gb, gpus"
ZONED = "a time with a zone, such as 2026-11-25T02:00:00Z"
ALL = "eu-central-1, eu-north-1, eu-west-1, eu-west-2, us-east-1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", ops_dir=small_ops.small_ops(tmp_path / "ops"))


@pytest.fixture
def inbox(settings: Settings) -> Path:
    folder = settings.inbox / "placement"
    folder.mkdir(parents=True)
    return folder


def put(folder: Path, name: str, content: object, changed: datetime = OLD) -> Path:
    """A file of the inbox: a document by the ending of its name, or text or bytes as they are."""
    path = folder / name
    if isinstance(content, dict):
        content = json.dumps(content) if name.endswith(".json") else yaml.safe_dump(content)
    path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
    os.utime(path, (changed.timestamp(), changed.timestamp()))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def objects(settings: Settings) -> list[Path]:
    return [path for path in settings.submissions.glob("*/*.json") if path.parent.name != ".incoming"]


def refusal(settings: Settings, **changes: Any) -> str:
    with pytest.raises(BadInput) as error:
        submit(settings, document(**changes), now=NOW)
    assert not settings.submissions.exists()
    return str(error.value)


def test_a_submission_is_the_request_a_person_would_write(settings: Settings) -> None:
    accepted = submit(settings, document("Month end, № 11", power_kw=..., vcpus=4, memory_gb=16, width=2), now=NOW)
    assert (accepted.state, accepted.accepted_at) == ("accepted", NOW)
    assert accepted.request == Request(
        key="Month end, № 11",
        workload="ad-hoc-report",
        kind="batch",
        tenant="acme",
        service=None,
        submitted_at=NOW,
        earliest_start=datetime.fromisoformat("2026-11-26T18:00:00+00:00"),
        deadline=datetime.fromisoformat("2026-11-27T04:00:00+00:00"),
        duration_minutes=45,
        # 4 x 2.12 W and 16 x 0.392 W.
        power_kw=pytest.approx(0.014752),  # type: ignore[arg-type]
        width=2,
        data_gb=0.0,
        interruptible=False,
        home_region="eu-central-1",
        regions=("eu-central-1", "eu-west-1", "eu-north-1"),
        cost_weight_g=None,
        runner='{"command":["true"],"kind":"local","timeout_minutes":60}',
        source="submitted",
    )
    (found,) = stored(settings.submissions)
    assert found == accepted


def test_the_three_ways_in_end_in_the_same_table(settings: Settings, inbox: Path) -> None:
    changed = NOW - timedelta(hours=1)
    put(inbox, "c.json", document("c", regions=["eu-north-1", "eu-west-1"], cost_weight_g=12), changed)
    swept = take_inbox(settings, now=NOW)
    submit(settings, document("a", service="reporting"), now=NOW + timedelta(seconds=1))
    submit_text(settings, yaml.safe_dump(document("b")).encode(), "-", now=NOW + timedelta(seconds=2))
    assert [accepted.request.key for accepted in swept.accepted] == ["c"]
    table = submissions_table(settings)
    assert table.schema.equals(PLACEMENT_REQUESTS.schema, check_metadata=True)
    assert table["key"].to_pylist() == ["c", "a", "b"]
    assert table["accepted_at"].to_pylist() == [NOW + timedelta(seconds=n) for n in range(3)]
    assert table.to_pylist()[0] == {
        "key": "c",
        "workload": "ad-hoc-report",
        "kind": "batch",
        "tenant": "acme",
        "service": None,
        # When it was put into the inbox.
        "submitted_at": changed,
        "earliest_start": datetime.fromisoformat("2026-11-26T18:00:00+00:00"),
        "deadline": datetime.fromisoformat("2026-11-27T04:00:00+00:00"),
        "duration_minutes": 45,
        "power_kw": 0.5,
        "width": 1,
        "data_gb": 0.0,
        "interruptible": False,
        "home_region": "eu-central-1",
        "regions": "eu-west-1,eu-north-1",
        "cost_weight_g": 12.0,
        "runner": '{"command":["true"],"kind":"local","timeout_minutes":60}',
        "source": "submitted",
        "accepted_at": NOW,
    }


def test_without_submissions_the_table_is_empty_and_nothing_is_made(settings: Settings) -> None:
    assert submissions_table(settings).schema.equals(PLACEMENT_REQUESTS.schema)
    assert submissions_table(settings).num_rows == 0
    assert not settings.home.exists()


def test_an_answer_is_a_document_too(settings: Settings) -> None:
    answer = json.loads(json.dumps(submit(settings, document(), now=NOW).as_document()))
    assert (answer["state"], answer["accepted_at"]) == ("accepted", "2026-11-25T12:00:00.000000Z")
    assert answer["request"]["deadline"] == "2026-11-27T04:00:00.000000Z"
    assert answer["request"]["regions"] == ["eu-central-1", "eu-west-1", "eu-north-1"]
    assert answer["request"]["runner"] == {"kind": "local", "command": ["true"], "timeout_minutes": 60}
    assert submit(settings, document("other"), now=NOW, dry_run=True).as_document()["accepted_at"] is None


def test_a_dry_run_checks_everything_and_stores_nothing(settings: Settings) -> None:
    answer = submit(settings, document(), now=NOW, dry_run=True)
    assert (answer.state, answer.accepted_at, answer.request.regions[0]) == ("valid", None, "eu-central-1")
    assert not settings.home.exists()
    submit(settings, document(), now=NOW)
    assert submit(settings, document(), now=NOW, dry_run=True).state == "already accepted"
    with pytest.raises(BadInput, match="width: found 3 under the key 'month-end', allowed: the default"):
        submit(settings, document(width=3), now=NOW, dry_run=True)


def test_the_same_again_is_answered_with_the_first_answer_even_when_it_would_be_refused_today(
    settings: Settings,
) -> None:
    first = submit(settings, document(), now=NOW)
    same = document(width=1, data_gb=0, earliest_start="2026-11-26T19:00:00+01:00", regions=None)
    small_ops.small_ops(settings.ops_dir)
    (settings.ops_dir / "tenants.yaml").write_text(small_ops.TENANTS.replace("acme", "renamed"))
    again = submit(settings, same, now=NOW + timedelta(days=365))
    assert (again.state, again.request, again.accepted_at) == ("already accepted", first.request, NOW)
    assert len(objects(settings)) == 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"width": 3}, "width: found 3 under the key 'month-end', allowed: the default"),
        ({"kind": "etl", "width": 3}, 'kind: found "etl" under the key \'month-end\', allowed: "batch"'),
        (
            {"earliest_start": "2026-11-26T18:00:00+01:00"},
            'earliest_start: found "2026-11-26T17:00:00Z" under the key \'month-end\', allowed: "2026-11-26T18:00:00Z"',
        ),
        (
            {"runner": {"kind": "local", "command": ["true"], "timeout_minutes": 61}},
            "runner.timeout_minutes: found 61 under the key 'month-end', allowed: 60",
        ),
        ({"power_kw": ..., "vcpus": 1}, "power_kw: found the default under the key 'month-end', allowed: 0.5"),
    ],
)
def test_the_same_key_with_other_content_is_refused(settings: Settings, changes: dict[str, Any], line: str) -> None:
    submit(settings, document(), now=NOW)
    with pytest.raises(BadInput) as error:
        submit(settings, document(**changes), now=NOW)
    expected = f"submission: {line}, as accepted at 2026-11-25T12:00:00.000000Z, or another key"
    assert str(error.value) == expected
    assert submissions_table(settings)["width"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"window_minutes": -600}, "window_minutes: found -600, allowed: a whole number > 0 and <= 44640"),
        ({"earliest_start": "2026-11-25T02:00:00Z"}, "window_minutes: found the deadline 2026-11-25T12:00Z, allowed: one in the future; it is 2026-11-25T12:00Z"),
        ({"earliest_start": "2026-11-25T02:44:00Z"}, "window_minutes: found the deadline 2026-11-25T12:44Z, allowed: one at least duration_minutes, 45, ahead; it is 2026-11-25T12:00Z"),
        ({"window_minutes": 44}, "window_minutes: found 44, allowed: at least duration_minutes, 45"),
        ({"duration_minutes": 601}, "window_minutes: found 600, allowed: at least duration_minutes, 601"),
        ({"power_kw": -0.5}, "power_kw: found -0.5, allowed: a number > 0 or no value"),
        ({"power_kw": "0.5"}, "power_kw: found '0.5', allowed: a number > 0 or no value"),
        ({"power_kw": ...}, f"found neither, allowed: {POWER}"),
        ({"gpus": 1}, f"found power_kw beside gpus, allowed: {POWER}"),
        ({"regions": ["eu-west-1"], "max_rtt_ms": 24}, "max_rtt_ms: found 24, allowed: a limit that one of the regions keeps; rtt_ms from eu-central-1: eu-north-1 24, eu-west-1 25, eu-west-2 15"),
        ({"regions": ["eu-west-1", "us-east-1"]}, "regions[1]: found 'us-east-1', allowed: a region with residency eu, as the tenant's: eu-central-1, eu-north-1, eu-west-1"),
        ({"regions": ["eu-mars-1"]}, f"regions[0]: found 'eu-mars-1', allowed: a region of regions.yaml: {ALL}"),
        ({"home_region": "us-east-1"}, "home_region: found 'us-east-1', allowed: a region with residency eu, as the tenant's: eu-central-1, eu-north-1, eu-west-1"),
        ({"earliest_start": "2026-11-26T18:00:00"}, f"earliest_start: found '2026-11-26T18:00:00', allowed: {ZONED}"),
        ({"earliest_start": datetime(2026, 11, 26)}, f"earliest_start: found '2026-11-26T00:00:00', allowed: {ZONED}"),  # noqa: DTZ001
        ({"earliest_start": "1764180000"}, f"earliest_start: found '1764180000', allowed: {ZONED}"),
        ({"earliest_start": 1764180000}, f"earliest_start: found 1764180000, allowed: {ZONED}"),
        ({"earliest_start": None}, f"earliest_start: found no value, allowed: {ZONED}"),
        ({"earliest_start": ...}, "earliest_start: found nothing, allowed: a time such as 2026-01-31T12:00:00Z"),
        ({"tenant": "gamma"}, "tenant: found 'gamma', allowed: a tenant of tenants.yaml: acme, beta"),
        ({"colour": "green"}, f"colour: found an unknown field, allowed: {FIELDS}"),
        ({"cron": "0 2 * * *"}, f"cron: found an unknown field, allowed: {FIELDS}"),
        ({"windowminutes": 5}, f"windowminutes: found an unknown field, allowed: {FIELDS}; did you mean window_minutes?"),
        ({"key": ...}, "key: found nothing, allowed: text of at least 1 and at most 120 characters, such as month-end-2026-11"),
        ({"key": ""}, "key: found '', allowed: text of at least 1 and at most 120 characters, such as month-end-2026-11"),
        ({"key": "x" * 121}, f"key: found '{'x' * 56}..., allowed: text of at least 1 and at most 120 characters, such as month-end-2026-11"),
        ({"key": "a\nb"}, r"key: found 'a\nb', allowed: printable text without blanks at its ends"),
        ({"key": "month-end "}, "key: found 'month-end ', allowed: printable text without blanks at its ends"),
        ({"key": "nightly:2026-11-25T02:00Z"}, "key: found 'nightly:2026-11-25T02:00Z', allowed: another form than <name>:<time>, which names occurrences of declared workloads"),
        ({"key": 5}, "key: found 5, allowed: text of at least 1 and at most 120 characters, such as month-end-2026-11"),
        ({"key": "\ud800"}, "found what JSON cannot hold (unexpected end of hex escape at line 1 column 16), allowed: plain values in Unicode"),
        ({"data_gb": float("nan")}, "data_gb: found nan, allowed: a number >= 0"),
        ({"interruptible": "yes"}, "interruptible: found 'yes', allowed: true or false"),
        ({"runner": "true"}, "runner: found 'true', allowed: a mapping with the fields kind, command, timeout_minutes or a mapping with the fields kind, image, command, namespace"),
        ({"runner": {"kind": "docker"}}, "runner: found no kind or an unknown one, allowed: local, kubernetes"),
        ({"runner": {"kind": "local", "command": ["true"]}}, "runner.timeout_minutes: found nothing, allowed: a whole number > 0 and <= 10080"),
        ({"runner": {"kind": "local", "command": [5], "timeout_minutes": 1}}, r"runner.command[0]: found 5, allowed: text that matches ^[^\x00]*$"),
        ({"runner": {"kind": "local", "command": ["a\0"], "timeout_minutes": 1}}, r"runner.command[0]: found 'a\x00', allowed: text that matches ^[^\x00]*$"),
        ({"service": Path("x")}, "found what JSON cannot hold (PosixPath), allowed: plain values in Unicode"),
    ],
)  # fmt: skip
def test_a_wrong_submission_is_refused_in_one_clear_line(
    settings: Settings, changes: dict[str, Any], line: str
) -> None:
    assert refusal(settings, **changes) == f"submission: {line}"


def test_all_faults_are_told_together(settings: Settings) -> None:
    assert refusal(settings, kind="stream", width=0, colour=1).splitlines() == [
        "submission: kind: found 'stream', allowed: one of 'batch', 'embeddings', 'etl'",
        "submission: width: found 0, allowed: a whole number >= 1 and <= 100000",
        f"submission: colour: found an unknown field, allowed: {FIELDS}",
    ]
    lines = refusal(settings, earliest_start="2025-01-01T00:00:00Z", window_minutes=5, tenant="gamma").splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "submission: window_minutes: found 5",
        "submission: tenant: found 'gamma'",
        "submission: window_minutes: found the deadline 2025-01-01T00:05Z",
    ]


@pytest.mark.parametrize(
    ("content", "name", "line"),
    [
        (b"", "-", "-: found no mapping, allowed: the fields of one submission"),
        (b"[]", "a.json", "a.json: found no mapping, allowed: the fields of one submission"),
        (b'{"key": ', "-", "-: found unusable JSON (Expecting value at character 7), allowed: one valid document"),
        (b'{"key": 1, "key": 2}', "-", "-: found unusable JSON (the key 'key' stands twice in one object), allowed: one valid document"),
        (b'{"key": NaN}', "-", "-: found unusable JSON (NaN is not a number in JSON), allowed: one valid document"),
        (b"key: a\nkey: b\n", "a.yaml", "a.yaml:2: key: found a second time, first in line 1, allowed: once"),
        (b"key: !!python/name:os.system x\n", "-", "-:1: key: found the tag !!python/name:os.system, allowed: plain values without a tag"),
        (b"key: [a\n", "a.yaml", "a.yaml:2: found unusable YAML (expected ',' or ']', but got '<stream end>'), allowed: one valid document, at most 32 levels deep"),
        (b"key: caf\xe9\n", "a.yaml", "a.yaml: found the byte 0xe9, allowed: UTF-8"),
        (b"#" * 65_537, "a.yaml", "a.yaml: found more than 65536 bytes, allowed: at most that"),
    ],
)  # fmt: skip
def test_text_that_is_no_document(settings: Settings, content: bytes, name: str, line: str) -> None:
    with pytest.raises(BadInput) as error:
        submit_text(settings, content, name, now=NOW)
    assert str(error.value) == line


def test_faults_of_ops_are_not_the_submissions(settings: Settings, inbox: Path) -> None:
    path = put(inbox, "a.json", document())
    (settings.ops_dir / "workloads.yaml").write_text(PLACEMENT.replace("24", "0"))
    with pytest.raises(ConfigurationError, match=r"workloads\.yaml:2: placement\.horizon_hours: found 0"):
        take_inbox(settings, now=NOW)
    assert path.exists()


def test_a_damaged_object_is_named(settings: Settings) -> None:
    submit(settings, document(), now=NOW)
    (path,) = objects(settings)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PermanentError) as error:
        submissions_table(settings)
    assert not isinstance(error.value, BadInput)
    assert str(error.value).startswith(f"{path}: found TruncatedJsonError: ")
    assert str(error.value).endswith("allowed: a submission as it was stored; restore it, or move it away")


def test_what_stands_in_an_objects_way_is_not_the_submissions_fault(settings: Settings, inbox: Path) -> None:
    submit(settings, document(), now=NOW)
    (path,) = objects(settings)
    path.unlink()
    path.mkdir()
    file = put(inbox, "a.json", document())
    with pytest.raises(PermanentError, match="found a file, folder or link in the way") as error:
        take_inbox(settings, now=NOW)
    assert not isinstance(error.value, BadInput)
    assert file.exists()


def test_files_go_where_their_answer_says(settings: Settings, inbox: Path) -> None:
    put(inbox, "good.json", document("good"))
    put(inbox, "good.yaml", document("fine"))
    put(inbox, "again.json", document("good"))
    put(inbox, "other.yml", document("good", width=2))
    put(inbox, "bad.json", document("bad", tenant="gamma", kind="etl"))
    put(inbox, "torn.json", '{"key": "torn')
    put(inbox, ".hidden.json", document("hidden"))
    put(inbox, "notes.txt", "nothing to see")
    swept = take_inbox(settings, now=NOW)
    # In the order of names: the first of two is the one that counts.
    assert [each.request.key for each in swept.accepted] == ["good", "fine"]
    assert [each.request.key for each in swept.already_accepted] == ["good"]
    assert {each.file: each.reason for each in swept.refused} == {
        "bad.json": "bad.json: tenant: found 'gamma', allowed: a tenant of tenants.yaml: acme, beta",
        "other.yml": "other.yml: width: found 2 under the key 'good', allowed: the default, as accepted at "
        "2026-11-25T12:00:00.000000Z, or another key",
        "torn.json": "torn.json: found unusable JSON (Unterminated string starting at at character 8), "
        "allowed: one valid document",
    }
    assert swept.left == ()
    assert names(inbox) == ["notes.txt"]
    assert names(inbox / "done") == ["again.json", "good.json", "good.yaml"]
    assert names(inbox / "refused") == [
        "bad.json",
        "bad.json.reason.txt",
        "other.yml",
        "other.yml.reason.txt",
        "torn.json",
        "torn.json.reason.txt",
    ]
    for each in swept.refused:
        assert (inbox / "refused" / f"{each.file}.reason.txt").read_text() == each.reason + "\n"
    assert json.loads((inbox / "refused" / "bad.json").read_text())["tenant"] == "gamma"
    assert (inbox / ".hidden.json").exists()
    empty = take_inbox(settings, now=NOW)
    assert (empty.accepted, empty.already_accepted, empty.refused, empty.left) == ((), (), (), ())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b""),
        ("a.json", b'{"key": "a", "workl'),
        ("a.yaml", b"key: a\nworkload: [x"),
        ("a.yaml", b"key"),
        # Half of `data_gb: 120`: a document like any other, but for the end of its last line.
        ("a.yaml", (yaml.safe_dump(document("a")) + "data_gb: 12").encode()),
    ],
)
def test_a_file_that_may_still_be_being_written_waits_for_the_next_look(
    settings: Settings, inbox: Path, name: str, content: bytes
) -> None:
    path = put(inbox, name, content, NOW - timedelta(seconds=4.9))
    swept = take_inbox(settings, now=NOW)
    assert (swept.left, swept.refused, swept.accepted) == ((name,), (), ())
    assert path.read_bytes() == content
    put(inbox, name, document("a", data_gb=120), NOW)
    (accepted,) = take_inbox(settings, now=NOW).accepted
    assert accepted.request.data_gb == 120


def test_what_can_be_read_does_not_wait(settings: Settings, inbox: Path) -> None:
    put(inbox, "good.json", document("good"), NOW)
    put(inbox, "bad.json", document("bad", width=0), NOW)
    swept = take_inbox(settings, now=NOW)
    assert (len(swept.accepted), len(swept.refused), swept.left) == (1, 1, ())


def test_after_five_seconds_half_a_file_is_refused(settings: Settings, inbox: Path) -> None:
    put(inbox, "a.json", "{", NOW - timedelta(seconds=5))
    # The clock of the machine that wrote it is an hour ahead: it would be young for an hour.
    put(inbox, "b.json", "{", NOW + timedelta(hours=1))
    assert [each.file for each in take_inbox(settings, now=NOW).refused] == ["a.json", "b.json"]


def test_a_name_that_comes_again_replaces_nothing(settings: Settings, inbox: Path) -> None:
    for key in ("first", "second", "second"):
        put(inbox, "a.json", document(key))
        take_inbox(settings, now=NOW)
    kept = [json.loads((inbox / "done" / name).read_text())["key"] for name in names(inbox / "done")]
    assert sorted(kept) == ["first", "second"]
    for kind in ("x", "y", "y"):
        put(inbox, "a.json", document("third", kind=kind))
        take_inbox(settings, now=NOW)
    refused = names(inbox / "refused")
    assert len(refused) == 4
    assert sorted(json.loads((inbox / "refused" / n).read_text())["kind"] for n in refused if n.endswith("json")) == [
        "x",
        "y",
    ]


@pytest.mark.parametrize("name", [f"{'n' * 250}.json", "a\nb.json", "caf\udce9.json"])
def test_no_name_stops_a_sweep(settings: Settings, inbox: Path, name: str) -> None:
    put(inbox, name, document("good"))
    assert len(take_inbox(settings, now=NOW).accepted) == 1
    put(inbox, name, document("bad", width=0))
    (refused,) = take_inbox(settings, now=NOW).refused
    assert len(refused.reason.splitlines()) == 1
    assert names(inbox) == []


def test_what_is_no_file_is_refused_and_not_followed(settings: Settings, inbox: Path, tmp_path: Path) -> None:
    secret = put(tmp_path, "secret.json", document("secret"))
    for _ in range(3):
        (inbox / "folder.json").mkdir()
        put(inbox / "folder.json", "a.json", document())
        assert len(take_inbox(settings, now=NOW).refused) == 1
    (inbox / "folder.json").mkdir()
    (inbox / "link.json").symlink_to(secret)
    os.mkfifo(inbox / "pipe.yaml")
    assert [each.reason for each in take_inbox(settings, now=NOW).refused] == [
        "folder.json: found something that is not a file, allowed: a file",
        "link.json: found something that is not a file, allowed: a file",
        "pipe.yaml: found something that is not a file, allowed: a file",
    ]
    assert secret.exists()
    assert submissions_table(settings).num_rows == 0
    assert take_inbox(settings, now=NOW).refused == ()


def test_a_file_that_took_the_place_of_the_one_that_was_read_is_not_lost(
    settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a file and its move, its submitter puts another one there."""
    put(inbox, "a.json", document("first"))
    read = submissions.read_document

    def read_and_replace(content: bytes, name: str) -> Any:
        put(inbox, "new", json.dumps(document("second"))).rename(inbox / "a.json")
        return read(content, name)

    with monkeypatch.context() as patch:
        patch.setattr(submissions, "read_document", read_and_replace)
        assert [each.request.key for each in take_inbox(settings, now=NOW).accepted] == ["first"]
    assert names(inbox) == ["a.json"]
    assert [each.request.key for each in take_inbox(settings, now=NOW).accepted] == ["second"]


def test_what_a_killed_sweep_had_in_its_hands_is_taken_again(settings: Settings, inbox: Path) -> None:
    submit(settings, document("stored"), now=NOW)
    (inbox / ".taking").mkdir()
    put(inbox / ".taking", "a.json", document("stored"))
    put(inbox / ".taking", "b.json", document("not yet"))
    put(inbox, "b.json", document("of the same name"))
    swept = take_inbox(settings, now=NOW)
    assert [each.request.key for each in swept.already_accepted] == ["stored"]
    assert sorted(each.request.key for each in swept.accepted) == ["not yet", "of the same name"]
    assert list((inbox / ".taking").iterdir()) == []


# Processes


@pytest.fixture(scope="module")
def warm() -> ForkServerContext:
    """Where children are forked from: a server that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.placement.small_ops"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(small_ops.ROOT))
        multiprocessing.forkserver.ensure_running()  # type: ignore[attr-defined]
    return context


Start = Callable[..., ForkServerProcess]


@pytest.fixture
def start(warm: ForkServerContext) -> Iterator[Start]:
    started: list[ForkServerProcess] = []

    def child(job: Callable[..., None], *arguments: Any) -> ForkServerProcess:
        process = warm.Process(target=job, args=arguments)
        process.start()
        started.append(process)
        return process

    yield child
    for process in started:
        process.kill()
        process.join()
        process.close()


def test_two_processes_that_submit_the_same_keys_accept_each_once(
    warm: ForkServerContext, start: Start, settings: Settings
) -> None:
    keys, begin = [f"key-{n}" for n in range(300)], warm.Barrier(2)
    pipes = [warm.Pipe(duplex=False) for _ in range(2)]
    for _, sender in pipes:
        start(small_ops.submit_all, settings, keys, begin, sender)
    answers = [receiver.recv() for receiver, _ in pipes]
    assert sum(answer["accepted"] for answer in answers) == 300
    assert sum(answer["already accepted"] for answer in answers) == 300
    assert sorted(submissions_table(settings)["key"].to_pylist()) == sorted(keys)


def test_of_two_processes_with_other_content_one_wins_each_key(
    warm: ForkServerContext, start: Start, settings: Settings
) -> None:
    keys, begin = [f"key-{n}" for n in range(200)], warm.Barrier(2)
    pipes = [warm.Pipe(duplex=False) for _ in range(2)]
    for width, (_, sender) in enumerate(pipes, start=2):
        start(small_ops.submit_different, settings, keys, width, begin, sender)
    won = [receiver.recv() for receiver, _ in pipes]
    assert sorted(won[0] + won[1]) == sorted(keys)
    table = submissions_table(settings)
    widths = dict(zip(table["key"].to_pylist(), table["width"].to_pylist(), strict=True))
    assert widths == dict.fromkeys(won[0], 2) | dict.fromkeys(won[1], 3)


def test_a_sweep_waits_for_another_one(warm: ForkServerContext, start: Start, settings: Settings, inbox: Path) -> None:
    file = put(inbox, "a.json", document())
    ready, sender = warm.Pipe(duplex=False)
    with (inbox / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = start(small_ops.sweep, settings, sender)
        ready.recv()
        child.join(0.5)
        assert child.is_alive()
        assert file.exists()
    child.join()
    assert (child.exitcode, names(inbox), names(inbox / "done")) == (0, [], ["a.json"])


def test_a_sweep_killed_at_any_moment_loses_nothing_and_takes_nothing_twice(
    warm: ForkServerContext, start: Start, settings: Settings, inbox: Path
) -> None:
    chance, count, interrupted = random.Random(SEED), 60, 0
    (inbox / "done").mkdir()
    for attempt in range(10):
        expected = {f"{attempt}-{n}" for n in range(count)}
        for key in sorted(expected):
            put(inbox, f"{key}.json", document(key))
        put(inbox, f"{attempt}-wrong.json", document("wrong", width=0))
        ready, sender = warm.Pipe(duplex=False)
        child = start(small_ops.sweep, settings, sender)
        ready.recv()
        enough = attempt * count + chance.randrange(count)
        while child.is_alive() and len(list((inbox / "done").iterdir())) < enough:
            time.sleep(0.0002)
        child.kill()
        child.join()
        before = {each.request.key: each for each in stored(settings.submissions)}
        interrupted += count * attempt < len(before) < count * (attempt + 1)
        swept = take_inbox(settings, now=NOW + timedelta(minutes=attempt))
        accepted = [each.request.key for each in swept.accepted]
        assert len(accepted) == len(set(accepted))
        assert not set(accepted) & set(before)
        after = {each.request.key: each for each in stored(settings.submissions)}
        assert {key for key in after if key.startswith(f"{attempt}-")} == expected
        assert before.items() <= after.items()
        assert names(inbox) == []
        assert {f"{key}.json" for key in expected} <= set(names(inbox / "done"))
        assert f"{attempt}-wrong.json.reason.txt" in names(inbox / "refused")
    assert len(names(inbox / "done")) == len(objects(settings)) == 10 * count
    assert interrupted >= 5


@pytest.mark.soak
def test_a_thousand_files_are_taken_in_one_sweep(settings: Settings, inbox: Path) -> None:
    """How fast is a matter of `benchmarks/`."""
    for n in range(1_000):
        put(inbox, f"{n}.json", document(f"key-{n}"))
    assert len(take_inbox(settings, now=NOW).accepted) == 1_000
    assert submissions_table(settings).num_rows == 1_000
    assert len(list((inbox / "done").iterdir())) == 1_000


def test_a_key_held_by_two_submissions_is_one_object(settings: Settings) -> None:
    desk = Submissions.of(settings)
    assert [desk.accept(document(), now=NOW).state for _ in range(3)] == ["accepted"] + ["already accepted"] * 2
    (path,) = objects(settings)
    assert path.relative_to(settings.submissions) == Path("a2") / (
        "a2b289be59d698748a486b00d10b1096276ef874ee423ecf141e5ec07384d1ca.json"
    )
    assert set(json.loads(path.read_bytes())) == {"accepted_at", "nonce", "request", "submission"}
