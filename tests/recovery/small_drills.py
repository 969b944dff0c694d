"""Drills that are short: little distance, little patience, few writes. And what they need of a home."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from greenops_pipelines import wiring
from greenops_pipelines.process.ports import accepts_connections
from greenops_pipelines.recovery.cluster import EmbeddedCluster, Noted
from greenops_pipelines.recovery.declared import Database, Residency, Scenario
from greenops_pipelines.recovery.drill import Drill
from greenops_pipelines.recovery.results import Result, Spec
from greenops_pipelines.settings import Settings, load_settings

US, EU = "us-east-1", "eu-central-1"
ATLANTIC = Database(name="platform-us", primary=US, standby=EU, tenants=("anybody",))
RESIDENCY = Residency({US: "us", EU: "eu", "eu-west-1": "eu"}, {"anybody": "any", "bank": "eu"})

GAMEDAYS = """
objectives: {rto_minutes: 15, rpo_seconds: 1}
drill: {rate: 100, clients: 4, wan_ms: 10, probes: 3, probe_timeout_seconds: 0.5, steady_seconds: 0.5, stall_seconds: 0.5}
rotation: [planned]
databases:
  - {name: platform-us, primary: us-east-1, standby: eu-central-1, tenants: [bluefield-retail]}
  - {name: platform-eu, primary: eu-central-1, standby: us-east-1, tenants: [helvetia-foundation]}
replica: {home_region: eu-central-1, region: eu-west-1}
"""


def spec(scenario: Scenario, **more: Any) -> Spec:
    """A drill that takes about five seconds."""
    plain = Spec(
        id="20261103T090000Z-00000001",
        gameday="2026-11",
        database=ATLANTIC,
        scenario=scenario,
        sync=False,
        rate=100,
        clients=4,
        wan_ms=10,
        probes=3,
        probe_timeout_seconds=0.5,
        steady_seconds=0.5,
        stall_seconds=1,
        rto_objective_s=900,
        rpo_objective_s=10,
    )
    return replace(plain, **more)


def run(folder: Path, asked: Spec, on_cluster: Callable[[EmbeddedCluster], None] | None = None) -> Result:
    """Runs it in `folder`; `on_cluster` may do something to the servers once they are up."""

    def cluster(each: Spec, place: Path, noted: Noted) -> Any:
        made = EmbeddedCluster(
            place, each.database.primary, each.database.standby, each.sync, each.wan_ms / 1000, noted
        )
        if on_cluster is not None:
            whole = type(made)._set_up

            def set_up() -> None:
                whole(made)
                on_cluster(made)

            made._set_up = set_up  # type: ignore[method-assign]
        return made

    return Drill(asked, folder, lambda: RESIDENCY, cluster).run()


def home(path: Path, monkeypatch: pytest.MonkeyPatch, gamedays: str = GAMEDAYS) -> Settings:
    """Settings of a home in `path`, with the repository's regions and tenants and these GameDays."""
    root = Path(__file__).parents[2]
    ops = path / "ops"
    ops.mkdir(parents=True)
    for name in ("regions.yaml", "tenants.yaml"):
        (ops / name).write_bytes((root / "ops" / name).read_bytes())
    (ops / "gamedays.yaml").write_text(gamedays, encoding="utf-8")
    monkeypatch.setenv("GREENOPS_HOME", str(path / "home"))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(ops))
    monkeypatch.setenv("GREENOPS_DBT_DIR", str(root / "dbt"))
    # A second signature by another program takes a second each; tests/evidence has it.
    monkeypatch.setenv("GREENOPS_EVIDENCE_GPG", "off")
    return load_settings()


def bundle(settings: Settings, name: str | None) -> dict[str, bytes]:
    """The files of a bundle that verifies."""
    from greenops_pipelines.evidence import bundle as form

    assert name is not None
    evidence = wiring.evidence(settings)
    assert evidence.verify(name, evidence.trust()).ok
    return form.read(evidence.archive.get(name)).files


def left_running(folder: Path) -> list[str]:
    """Processes whose command line or working folder names `folder`."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if process.pid != psutil.Process().pid and str(folder) in " ".join(process.info["cmdline"] or []):
            found.append(" ".join(process.info["cmdline"]))
    return found


def listening(ports: list[int]) -> list[int]:
    """Those of the ports that still take connections."""
    return [port for port in ports if accepts_connections(port)]
