"""Repetitions: no flake, nothing left, every acknowledged write accounted for. `make soak`; the counts are printed."""

import os
from pathlib import Path

import psutil
import pytest

from greenops_pipelines import wiring
from greenops_pipelines.recovery.gameday import Wanted
from tests.recovery.small_drills import home, left_running

_REPETITIONS = 20

_PLAIN = """
databases:
  - {name: platform-us, primary: us-east-1, standby: eu-central-1, tenants: [bluefield-retail]}
  - {name: platform-eu, primary: eu-central-1, standby: us-east-1, tenants: [helvetia-foundation]}
replica: {home_region: eu-central-1, region: eu-west-1}
"""


@pytest.mark.soak
@pytest.mark.parametrize(("scenario", "limit"), [("kill", 3.0), ("hang", 10.0)])
def test_twenty_repetitions(scenario: str, limit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = home(tmp_path, monkeypatch, _PLAIN)
    declared = wiring.gamedays(settings)
    listening = _listening()
    acked = lost = doubtful = kept = 0
    slowest = farthest = 0.0
    for number in range(_REPETITIONS):
        # Each direction ten times.
        database = declared.databases[number % 2]
        wanted = Wanted(scenarios=(scenario,), databases=(database,), with_control=False)  # type: ignore[arg-type]
        [filed] = wiring.hold_gameday(settings, wanted).drills
        result = filed.result
        assert (result.verdict, result.deficiencies) == ("passed", ())
        assert result.rto_s is not None
        assert result.rpo_s is not None
        assert result.rto_s < limit
        assert result.rpo_s < 1
        slowest, farthest = max(slowest, result.rto_s), max(farthest, result.rpo_s)
        acked, lost = acked + (result.acked_writes or 0), lost + (result.lost_writes or 0)
        doubtful, kept = doubtful + (result.in_doubt_writes or 0), kept + (result.in_doubt_kept or 0)
    print(
        f"\n{scenario}, {_REPETITIONS} drills: {acked:,} writes acknowledged, {acked - lost:,} survived, {lost:,} lost at failovers; "
        f"{doubtful:,} in doubt, of which {kept:,} were kept; longest RTO {slowest:.2f} s, RPO {farthest:.3f} s"
    )
    assert left_running(tmp_path) == []
    assert _listening() == listening
    assert list((settings.recovery / "drills").iterdir()) == []
    assert len(wiring.evidence(settings).archive.ids()) == _REPETITIONS


def _listening() -> set[int]:
    """Ports on which this process and what it started listens."""
    mine = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    return {each.laddr.port for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.pid in mine}
