"""An operator's own clusters: two servers that are not ours to start, moved by commands of the operator's."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from greenops_pipelines import wiring
from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.process.postgres import prefix, programs
from greenops_pipelines.recovery import operated
from greenops_pipelines.recovery.client import Client
from greenops_pipelines.recovery.cluster import EmbeddedCluster
from greenops_pipelines.recovery.gameday import Wanted
from greenops_pipelines.settings import Settings
from tests.recovery.small_drills import EU, US, home

_OPERATE = str(Path(__file__).with_name("operate.py"))


@pytest.fixture
def clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Settings, EmbeddedCluster]]:
    """A home whose one database is a pair of servers that run already; `mode: act`."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    with ExitStack() as stack:
        made = stack.enter_context(EmbeddedCluster(folder, US, EU, False, 0.0))
        servers = [made._servers[region] for region in (US, EU)]
        # Past our own lines: they replicate directly, and failback by the operator's commands ends our children.
        stack.callback(_end, servers)
        state = {
            "bin": str(programs().folder),
            "prefix": list(prefix(folder)),
            "servers": [
                {
                    "data": str(server.data),
                    "config": str(server.folder / "postgresql.conf"),
                    "hba": str(server.folder / "pg_hba.conf"),
                    "log": str(server.folder / "theirs.log"),
                    "port": server.port,
                    "dsn": server.dsn(),
                }
                for server in servers
            ],
        }
        path = tmp_path / "state.json"
        path.write_text(json.dumps(state), encoding="utf-8")
        passes = tmp_path / "pgpass"
        passes.write_text("".join(server.passfile.read_text() for server in servers), encoding="utf-8")
        passes.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(passes))

        def command(name: str) -> list[str]:
            return [sys.executable, _OPERATE, str(path), name]

        def dsn(*ports: int, more: str = "") -> str:
            return f"host={','.join(['127.0.0.1'] * len(ports))} port={','.join(map(str, ports))} user=greenops dbname=postgres{more}"

        first, second = servers
        document = {
            "drill": {"rate": 100, "clients": 4, "probe_timeout_seconds": 0.5, "steady_seconds": 0.5},
            "databases": [
                {
                    "name": "orders",
                    "primary": US,
                    "standby": EU,
                    "tenants": ["bluefield-retail"],
                    "clusters": {
                        "mode": "act",
                        "primary": {"dsn": dsn(first.port)},
                        "standby": {"dsn": dsn(second.port)},
                        "endpoint": {"dsn": dsn(first.port, second.port, more=" target_session_attrs=read-write")},
                        "commands": {
                            "fault": {"kill": command("kill")},
                            **{name: command(name) for name in ("fence", "promote", "route", "failback")},
                        },
                        "timeout_seconds": 30,
                    },
                }
            ],
            "replica": {"home_region": EU, "region": "eu-west-1"},
        }
        yield home(tmp_path, monkeypatch, yaml.safe_dump(document)), made


def _end(servers: list) -> None:  # type: ignore[type-arg]
    for server in servers:
        pid = server.data / "postmaster.pid"
        if pid.exists():
            subprocess.run(["kill", "-QUIT", pid.read_text().splitlines()[0]], check=False, capture_output=True)


def test_operators_clusters_are_failed_over_and_back_by_their_commands(
    clusters: tuple[Settings, EmbeddedCluster],
) -> None:
    settings, _ = clusters
    [filed] = wiring.hold_gameday(settings, Wanted(with_control=False)).drills
    result = filed.result
    assert (result.verdict, result.deficiencies) == ("passed", ())
    assert not result.is_embedded
    assert result.rto_s is not None
    assert result.rto_s < 5
    assert min(result.acked_before or 0, result.acked_after or 0, result.acked_back or 0) > 0
    ran = [command["command"].rsplit(" ", 1)[-1] for command in result.commands]
    assert ran == ["kill", "fence", "promote", "route", "failback", "route"]
    # The drill's rows are gone from their database.
    client = Client(settings_endpoint(settings))
    assert client.ask("select count(*) from greenops_drill_writes") == [["0"]]
    client.close()


def settings_endpoint(settings: Settings) -> str:
    clusters = wiring.gamedays(settings).databases[0].clusters
    assert clusters is not None
    return clusters.endpoint.dsn


def test_dry_run_looks_and_moves_nothing(clusters: tuple[Settings, EmbeddedCluster]) -> None:
    settings, made = clusters
    path = settings.ops_dir / "gamedays.yaml"
    path.write_text(path.read_text().replace("mode: act", "mode: dry-run"), encoding="utf-8")
    held = wiring.hold_gameday(settings, Wanted(scenarios=("kill", "planned"), with_control=False))
    assert held.drills == ()
    kill, planned = held.dry_runs
    assert kill.checks == (f"{US} answers", f"{EU} answers", f"{EU} streams")
    assert kill.faults == ()
    assert [each.rsplit(" ", 1)[-1] for each in kill.commands] == ["kill", "fence", "promote", "route", "failback"]
    assert [each.rsplit(" ", 1)[-1] for each in planned.commands] == ["fence", "promote", "route", "failback"]
    assert held.ok
    # Nothing of ours is in their database.
    client = Client(made.dsn(US))
    assert client.ask("select to_regclass('greenops_drill_writes')") == [[None]]
    client.close()


def test_command_that_fails_is_named_with_its_last_words(clusters: tuple[Settings, EmbeddedCluster]) -> None:
    settings, _ = clusters
    path = settings.ops_dir / "gamedays.yaml"
    document = yaml.safe_load(path.read_text())
    document["databases"][0]["clusters"]["commands"]["promote"][-1] = "broken"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    [filed] = wiring.hold_gameday(settings, Wanted(with_control=False)).drills
    assert filed.result.verdict == "failed"
    assert "broken: exited with 1: the control plane does not answer" in filed.result.deficiencies[0]


def test_fault_without_a_command_is_named(clusters: tuple[Settings, EmbeddedCluster]) -> None:
    settings, _ = clusters
    database = wiring.gamedays(settings).databases[0]
    assert database.clusters is not None
    cluster = operated.OperatedCluster(
        database, database.clusters, "d", lambda _command, _seconds, _where: None, settings.ops_dir
    )
    with pytest.raises(ConfigurationError, match=r"found no command for hang, allowed: kill; or the scenario planned"):
        cluster.fault("hang")
