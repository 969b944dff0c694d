"""How real scanners are called: with which arguments, in which environment, and what their failures say."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from greenops_pipelines.errors import ConfigurationError, ProviderError, TransientError
from greenops_pipelines.supply_chain import scanner
from greenops_pipelines.supply_chain.scanner import Scanner

GRYPE = {
    "matches": [],
    "source": {"type": "sbom-file", "target": "sbom.json"},
    "descriptor": {"name": "grype", "version": "0.104.0", "timestamp": "2026-03-02T10:00:00Z"},
}
TRIVY = {
    "SchemaVersion": 2,
    "ArtifactName": "sbom.json",
    "ArtifactType": "cyclonedx",
    "CreatedAt": "2026-03-02T10:00:00Z",
    "Results": [{"Target": "Python", "Class": "lang-pkgs", "Packages": [{"Name": "a", "Version": "1"}]}],
}
VERSION = {"Version": "0.70.0", "VulnerabilityDB": {"UpdatedAt": "2026-03-01T06:00:00Z"}}


@pytest.fixture
def sbom(tmp_path: Path) -> Path:
    path = tmp_path / "sbom.json"
    path.write_bytes(b'{"bomFormat": "CycloneDX"}')
    return path


def program(tmp_path: Path, name: str, *lines: str) -> Scanner:
    """A script that writes down its arguments, environment and folder, then does what `lines` say."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    path = folder / name
    seen = f'printf "%s\\n" "$@" >> {folder}/args; env > {folder}/env; pwd > {folder}/cwd; ls -A >> {folder}/cwd'
    path.write_text("\n".join(["#!/bin/sh", seen, *lines, ""]))
    path.chmod(0o755)
    return Scanner(name, path)


def answer(tmp_path: Path, name: str, document: object) -> str:
    (tmp_path / name).write_text(json.dumps(document))
    return f"cat {tmp_path / name}"


def test_grype_is_given_the_sbom_and_the_report_says_which(tmp_path: Path, sbom: Path):
    found = program(tmp_path, "grype", answer(tmp_path, "answer", GRYPE)).scan(sbom, tmp_path)
    assert (tmp_path / "bin" / "args").read_text().split("\n")[:-1] == [f"sbom:{sbom}", "-o", "json"]
    assert json.loads(found.document) == GRYPE
    assert (found.report.scanner, found.report.scanner_version) == ("grype", "0.104.0")
    assert found.report.of_sbom == hashlib.sha256(sbom.read_bytes()).hexdigest()


def test_trivy_is_given_the_sbom_and_asked_for_its_database(tmp_path: Path, sbom: Path):
    asked = f'if [ "$1" = --version ]; then {answer(tmp_path, "version", VERSION)}; exit; fi'
    found = program(tmp_path, "trivy", asked, answer(tmp_path, "answer", TRIVY)).scan(sbom, tmp_path)
    called = (tmp_path / "bin" / "args").read_text().split("\n")[:-1]
    assert called == ["sbom", "--format", "json", "--list-all-pkgs", str(sbom), "--version", "-f", "json"]
    assert found.report.database_built == datetime(2026, 3, 1, 6, tzinfo=UTC)
    assert (found.report.scanner_version, found.report.components) == ("0.70.0", 1)
    assert found.report.of_sbom == hashlib.sha256(sbom.read_bytes()).hexdigest()


def test_it_sees_no_secret_no_settings_of_the_users_and_his_database(
    tmp_path: Path, sbom: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for a child")
    monkeypatch.setenv("GRYPE_IGNORE", "everything")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/of-the-user")
    found = program(tmp_path, "grype", answer(tmp_path, "answer", GRYPE))
    found.scan(sbom, tmp_path, environment={"GRYPE_DB_UPDATE_URL": "https://mirror.example"})
    seen = dict(line.split("=", 1) for line in (tmp_path / "bin" / "env").read_text().splitlines())
    assert not {"AWS_SECRET_ACCESS_KEY", "GRYPE_IGNORE"} & set(seen)
    assert seen["GRYPE_DB_UPDATE_URL"] == "https://mirror.example"
    assert seen["GRYPE_DB_CACHE_DIR"] == "/var/cache/of-the-user/grype/db"
    assert seen["TRIVY_CACHE_DIR"] == "/var/cache/of-the-user/trivy"
    cwd, *files = (tmp_path / "bin" / "cwd").read_text().splitlines()
    assert seen["HOME"] == cwd
    assert sorted(files) == ["log", "output"]
    assert not Path(cwd).exists()


@pytest.mark.parametrize(
    ("lines", "kind", "said"),
    [
        (["echo database is too old >&2", "exit 1"], ProviderError, "ended with 1: database is too old"),
        (["exit 3"], ProviderError, "ended with 3: and said nothing"),
        (["kill -9 $$"], TransientError, "ended by signal 9"),
        (["exec sleep 60"], TransientError, "still busy after 0.3 s"),
        (["true"], ProviderError, "found an empty document"),
        (["echo '{\"matches\": ['"], ProviderError, "the document ends early"),
        (["echo '{}'"], ProviderError, "found another document"),
    ],
)
def test_every_failure_is_an_error_with_what_it_said(
    tmp_path: Path, sbom: Path, lines: list[str], kind: type[Exception], said: str
):
    seconds = 0.3 if "sleep" in lines[0] else 30
    with pytest.raises(kind, match=said):
        program(tmp_path, "grype", *lines).scan(sbom, tmp_path, seconds=seconds)


def test_a_report_of_another_scanner_is_not_its_own(tmp_path: Path, sbom: Path):
    with pytest.raises(ProviderError, match="found a report of trivy"):
        program(tmp_path, "grype", answer(tmp_path, "answer", TRIVY)).scan(sbom, tmp_path)


def test_what_cannot_be_run_is_said(tmp_path: Path, sbom: Path):
    with pytest.raises(ConfigurationError, match="could not be run"):
        Scanner("grype", tmp_path / "absent").scan(sbom, tmp_path)


def test_scanners_are_those_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert scanner.found() == ()
    both = tuple(program(tmp_path, name) for name in ("grype", "trivy"))
    assert scanner.found() == both
