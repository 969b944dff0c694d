"""The table of bundles: what verifies, what waits, what is gone, and how the promises about them are measured."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from greenops_pipelines import wiring
from greenops_pipelines.evidence import inventory
from greenops_pipelines.evidence.archive import key
from greenops_pipelines.evidence.measured import prove
from greenops_pipelines.evidence.opening import Evidence
from greenops_pipelines.lake.results import record
from greenops_pipelines.lake.tables import EVIDENCE_BUNDLES
from greenops_pipelines.measurement import Measurement
from tests.evidence.conftest import filed

NONE = EVIDENCE_BUNDLES.schema.empty_table()


def listed(evidence: Evidence, known: pa.Table = NONE, now: datetime | None = None) -> pa.Table:
    return inventory.inventory(evidence.archive, evidence.trust(), known, now or datetime.now(UTC))


def stored(evidence: Evidence, bundle: str) -> Path:
    return evidence.settings.home / "evidence" / "store" / key(bundle)


def test_a_filed_bundle_stands_in_the_table_with_what_it_says(evidence: Evidence) -> None:
    bundle = filed(evidence, "drill 2026-11", verdict="failed")
    [row] = listed(evidence).to_pylist()
    assert (row["bundle"], row["state"], row["is_verified"], row["fault"]) == (bundle, "filed", True, None)
    assert (row["control"], row["subject"], row["verdict"]) == ("J4.2", "drill 2026-11", "failed")
    assert row["size_bytes"] == stored(evidence, bundle).stat().st_size


def test_a_changed_bundle_is_found_when_it_is_read_again_after_a_day(evidence: Evidence) -> None:
    good, bad = filed(evidence, "one"), filed(evidence, "two")
    now = datetime.now(UTC)
    before = listed(evidence, now=now)
    path = stored(evidence, bad)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert all(listed(evidence, before, now + timedelta(hours=23))["is_verified"].to_pylist())
    later = now + timedelta(hours=25)
    rows = listed(evidence, before, later)
    assert {r["bundle"]: r["is_verified"] for r in rows.to_pylist()} == {good: True, bad: False}
    found = inventory.verified(rows, later)
    assert (found.measured, found.outcome) == (50, "failed")
    assert found.detail.startswith(f"{bad}: ")


def test_a_bundle_that_did_not_verify_is_read_again_at_once(evidence: Evidence) -> None:
    """What was put right, from a backup or with the key that was missing, does not stay red for a day."""
    path = stored(evidence, filed(evidence))
    good = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(good[:-1] + b"x")
    now = datetime.now(UTC)
    bad = listed(evidence, now=now)
    assert bad["is_verified"].to_pylist() == [False]
    path.write_bytes(good)
    assert listed(evidence, bad, now + timedelta(minutes=1))["is_verified"].to_pylist() == [True]


def test_a_bundle_that_vanished_from_the_store_stays_in_the_table_as_gone(evidence: Evidence) -> None:
    bundle = filed(evidence)
    now = datetime.now(UTC)
    before = listed(evidence, now=now)
    stored(evidence, bundle).unlink()
    rows = listed(evidence, before, now)
    assert [(r["bundle"], r["state"], r["is_verified"]) for r in rows.to_pylist()] == [(bundle, "gone", False)]
    assert inventory.verified(rows, now).measured == 0


def test_a_bundle_may_wait_for_a_day_and_then_counts_as_one_that_does_not_verify(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    filed(evidence)

    def refuse(*_: object) -> None:
        from greenops_pipelines.errors import TransientError

        raise TransientError("store away")

    with monkeypatch.context() as patch:
        patch.setattr(evidence.store, "put", refuse)
        receipt = evidence.archive.file("J4.2", "waits", {}, {}, "passed")
    assert receipt.state == "queued"
    now = datetime.now(UTC)
    rows = listed(evidence, now=now)
    assert [r["state"] for r in rows.to_pylist() if r["bundle"] == receipt.id] == ["queued"]
    assert inventory.verified(rows, now).measured == 100
    late = inventory.verified(rows, now + timedelta(hours=25))
    assert late.measured == 50
    assert "waits in the queue" in late.detail


def test_without_a_bundle_nothing_can_be_measured() -> None:
    found = inventory.verified(NONE, datetime.now(UTC))
    assert (found.measured, found.outcome) == (None, "cannot be measured")


@pytest.mark.parametrize(("measured", "verdict"), [(99.5, "passed"), (98.0, "failed"), (None, "cannot be measured")])
def test_every_outcome_of_a_check_is_filed(evidence: Evidence, measured: float | None, verdict: str) -> None:
    lake, now = wiring.lake(evidence.settings), datetime.now(UTC)
    measurement = Measurement(
        "a/b:c", measured, 99, ">=", "%", "by hand", None if measured else "an input", {"rows": 7}
    )
    proof = prove(evidence.archive, lake, "J2.4", measurement, ["resource_usage"], now)
    assert proof.bundle is not None
    statement = evidence.verify(proof.bundle, evidence.trust()).statement
    assert statement is not None
    assert statement.predicate.verdict == verdict
    assert statement.predicate.figures == {
        "measured": measured,
        "target": 99,
        "comparison": ">=",
        "unit": "%",
        "rows": 7,
    }


def test_a_result_without_its_evidence_is_counted_for_two_days(evidence: Evidence) -> None:
    lake, now = wiring.lake(evidence.settings), datetime.now(UTC)
    evidence.archive.file("J4.2", "makes the keys", {}, {}, "passed")
    (evidence.settings.home / "keys" / "evidence.key").chmod(0o644)
    measurement = Measurement("a/b:c", 1, 1, "==", "x", "by hand")
    proof = prove(Evidence(evidence.settings).archive, lake, "J2.4", measurement, [], now)
    assert proof.bundle is None
    assert "evidence.key" in proof.state
    record(lake, [proof.measurement], "run", now, proof.bundle)
    assert inventory.complete(lake, now).measured == 1
    assert inventory.complete(lake, now + timedelta(hours=49)).measured == 0
