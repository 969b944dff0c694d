"""Drills on two real PostgreSQL servers: what each scenario costs, and that nothing is left of it."""

import contextlib
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest

from greenops_pipelines.errors import PermanentError, TransientError
from greenops_pipelines.recovery import ledger
from greenops_pipelines.recovery.cluster import EmbeddedCluster
from greenops_pipelines.recovery.drill import Drill
from greenops_pipelines.recovery.events import read as read_events
from tests.recovery.small_drills import ATLANTIC, EU, RESIDENCY, US, left_running, listening, run, spec

_FAILOVER = ["fence", "promote", "route", "first_write", "verify"]
_FAILBACK = [
    "rewind",
    "catch_up",
    "switch_back",
    "route_back",
    "first_write_back",
    "rejoin",
    "verify_again",
    "take_down",
]


def _steps(result) -> list[str]:  # type: ignore[no-untyped-def]
    return [step["step"] for step in result.steps]


def test_killed_primary_is_failed_over_and_back(tmp_path: Path) -> None:
    ports: list[int] = []
    result = run(tmp_path, spec("kill"), lambda cluster: ports.extend(cluster.ports()))
    assert (result.verdict, result.deficiencies) == ("passed", ())
    before = ["refuse", "set_up", "check", "steady_state", "check_standby", "fault", "detect"]
    assert _steps(result) == before + _FAILOVER + _FAILBACK
    assert result.rto_s is not None
    assert 0 < result.rto_s < 3
    assert result.rpo_s is not None
    assert result.rpo_s < 1
    assert result.detection_s is not None
    assert result.detection_s < result.rto_s
    # The ledger, counted again by hand.
    writes = ledger.read(tmp_path / "ledger.jsonl")
    acked = [write for write in writes if write.outcome == "ok"]
    assert result.acked_writes == len(acked) == result.acked_before + result.acked_after + result.acked_back
    assert min(result.acked_before, result.acked_after, result.acked_back) > 0
    kept = json.loads((tmp_path / "kept.json").read_text())
    gone = [write for write in acked if str(write.id) not in kept["failback"]]
    assert result.lost_writes == len(gone)
    assert all(write.region == US for write in gone)
    assert all(kept["failback"][str(write.id)] == write.sha256 for write in acked if write not in gone)
    # Nothing runs, nothing listens.
    assert len(ports) == 5
    assert listening(ports) == []
    assert left_running(tmp_path) == []


def test_hung_primary_is_detected_by_probes_that_time_out(tmp_path: Path) -> None:
    result = run(tmp_path, spec("hang"))
    assert (result.verdict, result.deficiencies) == ("passed", ())
    # Three probes of half a second.
    assert result.detection_s is not None
    assert 1.5 <= result.detection_s < 3
    assert left_running(tmp_path) == []


def test_partition_loses_what_was_on_the_line_and_no_primary_stays_behind(tmp_path: Path) -> None:
    result = run(tmp_path, spec("partition"))
    assert (result.verdict, result.deficiencies) == ("passed", ())
    assert result.detection_s is not None
    assert result.detection_s >= 1.5
    # Writes of which no word came back; what of them the old primary kept, the failback has taken back.
    assert result.in_doubt_writes is not None
    assert result.in_doubt_writes > 0


def test_stalled_line_loses_what_was_written_meanwhile(tmp_path: Path) -> None:
    result = run(tmp_path, spec("stall", stall_seconds=1))
    assert (result.verdict, result.deficiencies) == ("passed", ())
    assert result.rpo_s is not None
    assert 0.9 < result.rpo_s < 1.5
    assert result.lost_writes is not None
    assert result.lost_writes >= 80  # 100 a second


def test_stalled_synchronous_line_loses_nothing_and_holds_up_clients(tmp_path: Path) -> None:
    result = run(tmp_path, spec("stall", sync=True, stall_seconds=1))
    assert (result.verdict, result.deficiencies) == ("passed", ())
    assert (result.rpo_s, result.lost_writes) == (0.0, 0)
    assert result.rto_s is not None
    assert result.client_outage_s is not None
    # The outage began before the fault.
    assert result.client_outage_s > result.rto_s + 0.8


def test_planned_switchover_loses_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, spec("planned"))
    assert (result.verdict, result.deficiencies) == ("passed", ())
    assert (result.rpo_s, result.lost_writes) == (0.0, 0)
    assert "detect" not in _steps(result)


def test_synchronous_standby_loses_nothing_when_the_primary_is_killed(tmp_path: Path) -> None:
    result = run(tmp_path, spec("kill", sync=True))
    assert (result.verdict, result.deficiencies) == ("passed", ())
    assert (result.rpo_s, result.lost_writes) == (0.0, 0)


def test_damaged_standby_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path, spec("corrupt-standby"))
    assert (result.verdict, result.deficiencies) == ("refused as intended", ())
    assert "promote" not in _steps(result)
    assert (result.rto_s, result.rpo_s, result.lost_writes) == (None, None, None)
    refused = next(event for event in read_events(tmp_path / "events.jsonl") if event["event"] == "refused")
    assert "invalid page" in refused["why"]
    assert left_running(tmp_path) == []


def test_negative_control_misses_its_objective(tmp_path: Path) -> None:
    asked = spec("stall", is_negative_control=True, rpo_objective_s=1, stall_seconds=2)
    result = run(tmp_path, asked)
    assert (result.verdict, result.deficiencies) == ("missed as intended", ())
    assert result.rpo_s is not None
    assert result.rpo_s > 1


def test_negative_control_that_loses_nothing_says_that_the_drills_are_blind(tmp_path: Path) -> None:
    # Its stall does not hold anything up: the line is taken for another one.
    def harmless(cluster: EmbeddedCluster) -> None:
        cluster._wan[US].stall = lambda: None  # type: ignore[method-assign]

    asked = spec("stall", is_negative_control=True, rpo_objective_s=1, stall_seconds=2)
    result = run(tmp_path, asked, harmless)
    assert result.verdict == "not missed"
    assert "cannot see a loss" in result.deficiencies[0]


def test_standby_that_does_not_stream_is_not_failed_over_to(tmp_path: Path) -> None:
    result = run(tmp_path, spec("kill"), lambda cluster: cluster._servers[EU].kill())
    assert result.verdict == "aborted"
    assert "found no answer to a connection; the failover is not begun" in result.deficiencies[0]
    assert "fault" not in _steps(result)


def test_promotion_that_fails_is_named_and_has_no_rto(tmp_path: Path) -> None:
    def fails(cluster: EmbeddedCluster) -> None:
        whole = cluster.fence

        def fence(planned: bool) -> None:
            whole(planned)
            cluster._servers[EU].kill()

        cluster.fence = fence  # type: ignore[method-assign]

    result = run(tmp_path, spec("kill"), fails)
    assert result.verdict == "failed"
    assert "promotion failed" in result.deficiencies[0]
    assert result.rto_s is None
    # Nobody could look at what survived: that nothing was lost would be a claim.
    assert (result.rpo_s, result.lost_writes) == (None, None)
    assert left_running(tmp_path) == []


def test_standby_that_never_catches_up_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenops_pipelines.recovery.drill._CONTENT_SECONDS", 1.0)
    result = run(tmp_path, spec("kill"), lambda cluster: cluster._wan[US].stall())
    assert result.verdict == "aborted"
    assert "never caught up" in result.deficiencies[0]
    assert EU in result.deficiencies[0]


def test_write_that_a_fenced_primary_acknowledges_is_found(tmp_path: Path) -> None:
    # A fence that fences nothing: the endpoint still leads to the old primary for a moment.
    def leaks(cluster: EmbeddedCluster) -> None:
        def fence(planned: bool) -> None:
            cluster.front.route(cluster._servers[US].port)

        whole = cluster.promote

        def promote() -> None:
            time.sleep(0.5)
            whole()

        cluster.fence = fence  # type: ignore[method-assign]
        cluster.promote = promote  # type: ignore[method-assign]

    result = run(tmp_path, spec("partition"), leaks)
    assert result.verdict == "failed"
    assert any("begun after it had been fenced" in each for each in result.deficiencies)


def test_data_of_another_version_is_refused(tmp_path: Path) -> None:
    from greenops_pipelines.process.postgres import Server, programs

    server = Server("old", tmp_path / "old", programs(16), "greenops", "secret")
    server.create()
    server.configure({"listen_addresses": "127.0.0.1", "unix_socket_directories": ""})
    newer = Server("new", tmp_path / "old", programs(18), "greenops", "secret")
    with pytest.raises(PermanentError, match=r"found data of PostgreSQL 16, allowed: 18; remove the folder"):
        newer.start()


def test_bound_data_is_not_drilled_to_a_region_outside_its_area(tmp_path: Path) -> None:
    bound = ATLANTIC.model_copy(update={"primary": EU, "standby": US, "tenants": ("bank",)})
    result = run(tmp_path, spec("kill", database=bound))
    assert result.verdict == "aborted"
    assert "tenant bank (bound to eu)" in result.deficiencies[0]
    assert _steps(result) == ["refuse"]


def test_load_keeps_its_rate(tmp_path: Path) -> None:
    result = run(tmp_path, spec("planned", rate=40, steady_seconds=2))
    assert result.throughput_per_s == pytest.approx(40, rel=0.1)


def test_disk_without_room_for_two_servers_is_named_before_anything_is_made(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    try:
        result = run(tmp_path, spec("kill"))
        assert result.verdict == "aborted"
        assert "found 63 MB free, allowed: 1,024 MB" in result.deficiencies[0].replace("64 MB", "63 MB")
        assert not (tmp_path / US).exists()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_disk_that_fills_up_under_the_ledger_aborts_the_drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    # The servers lie where there is room; the drill's own files do not.
    elsewhere = tmp_path.parent / "servers"
    elsewhere.mkdir()
    try:
        drill = Drill(
            spec("kill", rate=400, steady_seconds=600),
            tmp_path,
            lambda: RESIDENCY,
            lambda each, _folder, noted: EmbeddedCluster(
                elsewhere, each.database.primary, each.database.standby, False, 0.0, noted
            ),
        )
        threading.Timer(6, _fill, [tmp_path]).start()
        begun = time.monotonic()
        with pytest.raises(TransientError, match="cannot be kept: No space left on device; free some room"):
            drill.run()
        assert time.monotonic() - begun < 40
        assert left_running(elsewhere) == []
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def _fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filler").open("wb") as stream:
        while True:
            stream.write(b"0" * 4096)
            stream.flush()
