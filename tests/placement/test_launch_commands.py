"""`greenops placement due`, `launch`, `cancel`: what they say, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from greenops_pipelines.cli import app
from tests.placement.test_launching import Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    found = Site(tmp_path)
    monkeypatch.setenv("GREENOPS_HOME", str(tmp_path))
    monkeypatch.setenv("GREENOPS_OPS_DIR", str(found.settings.ops_dir))
    return found


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["placement", *arguments])


def test_due_work_is_listed_launched_and_closed(site: Site) -> None:
    site.submit("good", ["true"], window_minutes=600)
    site.submit("bad", ["sh", "-c", "exit 4"], window_minutes=60)
    site.plan()
    lines = call("due").stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["bad", "good"]
    assert lines[2] == "2 due; 0 missed their hour and wait for a new plan; 0 refused"
    assert [row["key"] for row in json.loads(call("due", "--json").stdout)["due"]] == ["bad", "good"]
    done = call("launch", "good")
    assert (done.stdout, done.exit_code) == ("good: succeeded: exit code 0\n", 0)
    assert call("launch", "good").stdout == "good: closed before: succeeded\n"
    failed = call("launch", "bad", "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout) == {
        "key": "bad", "state": "failed", "detail": "exit code 4", "attempt": 1, "region": "eu-central-1",
    }  # fmt: skip
    assert call("cancel", "bad", "--reason", "no longer wanted").stdout == "bad: cancelled\n"
    assert call("cancel", "bad").stdout == "bad: was closed before\n"
    assert call("launch", "bad").stdout == "bad: closed before: cancelled\n"
    assert call("due").stdout.startswith("0 due;")


def test_the_ledger_is_listed_with_attempts_and_states(site: Site) -> None:
    site.submit("good", ["true"])
    site.submit("bad", ["sh", "-c", "exit 4"])
    site.plan()
    call("launch", "bad")
    call("launch", "good")
    assert [line.split() for line in call("ledger").stdout.splitlines()[1:3]] == [
        ["good", "acme", "eu-central-1", "1", "succeeded", "-", "-", "-"],
        ["bad", "acme", "eu-central-1", "1", "failed", "-", "-", "-"],
    ]
    [row] = json.loads(call("ledger", "--key", "bad", "--json").stdout)["work"]
    assert (row["attempts"], row["detail"], row["home_region"]) == ("1 failed", "exit code 4", "eu-central-1")
    assert str(call("ledger", "--key", "nobody").exception).startswith(
        "--key: found nobody, allowed: a key of the ledger"
    )


def test_what_there_is_not_is_said(site: Site) -> None:
    assert call("launch", "nobody").stdout == "nobody: not planned: no such work is declared or was accepted\n"
    found = call("cancel", "nobody")
    assert str(found.exception).startswith("nobody: found no such work")
