"""Filing: what goes in comes out, wrong input is refused before anything is written, and outages only delay."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
from moto.server import ThreadedMotoServer

from greenops_pipelines.errors import BadInput, ConfigurationError, PermanentError
from greenops_pipelines.evidence import bundle as form
from greenops_pipelines.evidence.archive import key
from greenops_pipelines.evidence.bundle import read
from greenops_pipelines.evidence.opening import Evidence
from greenops_pipelines.evidence.statement import SCHEMAS, schema
from tests.evidence.conftest import FIGURES, FILES, Specimens, TimeStamper, filed, settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("verdict", ["passed", "failed", "aborted", "cannot be measured"])
def test_every_outcome_is_filed_with_its_figures_and_files(evidence: Evidence, verdict: str) -> None:
    bundle = filed(evidence, verdict=verdict)
    report = evidence.verify(bundle, evidence.trust())
    assert report.ok
    assert report.statement is not None
    predicate = report.statement.predicate
    assert (predicate.control, predicate.subject, predicate.verdict) == ("J4.2", "drill 2026-11", verdict)
    assert predicate.figures == FIGURES
    assert read(evidence.archive.get(bundle)).files == FILES


def test_a_file_may_be_given_by_its_path_and_bundles_may_have_none(evidence: Evidence, tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(b"%PDF")
    assert read(evidence.archive.get(filed(evidence, files={"r.pdf": tmp_path / "report.pdf"}))).files == {
        "r.pdf": b"%PDF"
    }
    assert read(evidence.archive.get(filed(evidence, files={}))).files == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"control": ""}, "control: "),
        ({"control": "J4\nJ5"}, "control: "),
        ({"subject": "x" * 201}, "subject: "),
        ({"verdict": "excellent"}, "verdict: "),
        ({"figures": {"RPO": math.nan}}, "nan is not representable"),
        ({"figures": {"RPO": 2**53 + 1}}, ""),
        ({"figures": {"RPO": [1]}}, "figures.RPO"),
        ({"figures": {"note": "\ud800"}}, ""),
        ({"files": {"../escape": b""}}, "'../escape'"),
        ({"files": {"/etc/passwd": b""}}, "'/etc/passwd'"),
        ({"files": {".hidden": b""}}, "'.hidden'"),
        ({"files": {"a b": b""}}, "'a b'"),
        ({"files": {"a\\b": b""}}, "allowed: letters"),
        ({"files": {"": b""}}, "allowed: letters"),
        ({"files": {"a" * 91: b""}}, "at most 90 characters"),
        ({"files": {"A.txt": b"", "a.txt": b""}}, "names that differ in letters"),
        ({"files": {"a": b"", "a/b": b""}}, "found the file 'a' and 'a/b' below it"),
        ({"files": {"a": Path("/nowhere")}}, "No such file"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(
    evidence: Evidence, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput) as caught:
        filed(evidence, **changes)
    assert said in str(caught.value)
    assert evidence.archive.waiting() == []
    assert evidence.archive.ids() == []


def test_the_same_parts_pack_to_the_same_bytes(specimens: Specimens) -> None:
    backwards = dict(sorted(specimens.one.parts.items(), reverse=True))
    assert form.pack(specimens.one) == form.pack(form.Bundle(specimens.one.id, backwards))


def test_a_bundle_is_filed_once_and_cannot_be_overwritten(evidence: Evidence) -> None:
    bundle = filed(evidence)
    with pytest.raises(PermanentError, match="found an object with other bytes"):
        evidence.store.put(key(bundle), b"other")
    [path] = (evidence.settings.home / "evidence/store").rglob(f"{bundle}.tar")
    assert path.stat().st_mode & 0o222 == 0


def test_a_second_place_that_does_not_exist_and_bad_addresses_are_named(opened: Callable[..., Evidence]) -> None:
    for changes, said in (
        ({"evidence_url": "ftp://x"}, "GREENOPS_EVIDENCE_URL: found 'ftp://x'"),
        ({"evidence_url": "s3://"}, "GREENOPS_EVIDENCE_URL: found 's3://'"),
        ({"evidence_retention_days": 3}, "GREENOPS_EVIDENCE_RETENTION_DAYS: found a retention, and a folder"),
        ({"evidence_tsa_url": "http://127.0.0.1:9/"}, "GREENOPS_EVIDENCE_TSA_CA: found nothing"),
        ({"evidence_checkpoints": "https://x"}, "GREENOPS_EVIDENCE_CHECKPOINTS: found 'https://x'"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            opened(**changes).archive.file("J4.2", "x", {}, {}, "passed")
        assert said in str(caught.value)


def test_a_time_stamp_that_cannot_be_had_now_is_had_later(tmp_path: Path, authority: TimeStamper) -> None:
    stamped = {"evidence_tsa_url": authority.url, "evidence_tsa_ca": str(authority.roots)}
    evidence = Evidence(settings(tmp_path / "home", **stamped))
    authority.status = 503
    try:
        receipt = evidence.archive.file("J4.2", "drill", {}, {}, "passed")
        assert receipt.state == "queued"
        assert "answered 503" in receipt.detail
        assert evidence.archive.flush()[0].state == "queued"
        authority.status = 403
        assert "answered 403" in evidence.archive.flush()[0].detail
    finally:
        authority.status = 200
    assert evidence.archive.flush()[0].state == "filed"
    report = evidence.verify(receipt.id, evidence.trust())
    assert report.ok
    assert next(f.state for f in report.findings if f.property == "timestamp") == "passed"


def test_an_authority_that_is_not_the_one_vouched_for_is_refused(
    tmp_path: Path, authority: TimeStamper, other_authority: TimeStamper
) -> None:
    crossed = {"evidence_tsa_url": authority.url, "evidence_tsa_ca": str(other_authority.roots)}
    with pytest.raises(PermanentError, match="its answer does not stand"):
        filed(Evidence(settings(tmp_path / "home", **crossed)))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


def test_on_s3_bundles_are_locked_and_a_store_that_goes_away_gets_them_later(
    tmp_path: Path, s3: ThreadedMotoServer
) -> None:
    host, port = s3.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name="eu-central-1")
    # moto's buckets belong to the whole process: other tests in it have theirs.
    first, second = (f"{name}-{secrets.token_hex(4)}" for name in ("evidence", "second"))
    for bucket, locked in ((first, True), (second, False)):
        place = {"LocationConstraint": "eu-central-1"}
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=locked, CreateBucketConfiguration=place)  # type: ignore[arg-type]
    on_s3 = {
        "s3_endpoint": endpoint,
        "evidence_url": f"s3://{first}/prod",
        "evidence_retention_days": 30,
        "evidence_checkpoints": f"s3://{second}/greenops",
    }
    evidence = Evidence(settings(tmp_path / "home", **on_s3))
    bundle = filed(evidence)
    head = client.head_object(Bucket=first, Key=f"prod/{key(bundle)}")
    assert head["ObjectLockMode"] == "GOVERNANCE"
    assert len(client.list_objects_v2(Bucket=second)["Contents"]) == 1
    s3.stop()
    receipt = Evidence(settings(tmp_path / "home", **on_s3)).archive.file("J4.2", "while it is away", {}, {}, "failed")
    assert receipt.state == "queued"
    assert "the connection to the store failed" in receipt.detail
    s3._ip_address, s3._port = host, port  # type: ignore[attr-defined]
    again = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
    again.start()
    try:
        assert [r.state for r in evidence.archive.flush()] == ["filed"]
        assert evidence.audit(evidence.trust()).ok
        assert evidence.archive.ids() == sorted([bundle, receipt.id], reverse=True)
    finally:
        again.stop()


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schemas_are_those_of_the_code(name: str) -> None:
    assert (DOCS / "schemas" / name).read_text(encoding="utf-8") == schema(SCHEMAS[name])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("evidence-statement-v1.json", form.STATEMENT),
        ("evidence-manifest-v1.json", form.MANIFEST),
        ("evidence-log-entry-v1.json", form.ENTRY),
    ],
)
def test_what_is_filed_fits_the_published_schemas_and_they_refuse_something(
    name: str, part: str, specimens: Specimens
) -> None:
    published = json.loads((DOCS / "schemas" / name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)
    validator = jsonschema.Draft202012Validator(published)
    for bundle in (specimens.one, specimens.plain, specimens.foreign):
        assert list(validator.iter_errors(json.loads(bundle.parts[part]))) == []
    document = json.loads(specimens.one.parts[part])
    for spoilt in ({**document, "more": 1}, dict(list(document.items())[1:]), []):
        assert list(validator.iter_errors(spoilt))
