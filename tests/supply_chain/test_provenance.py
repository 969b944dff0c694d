"""What CI systems say of a build, what of it is written down, and which build level that supports."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.evidence.signing import Signer
from greenops_pipelines.supply_chain import attestations, provenance
from greenops_pipelines.supply_chain.attach import Attached
from greenops_pipelines.supply_chain.attestations import CYCLONEDX, PROVENANCE, verified
from greenops_pipelines.supply_chain.declared import TrustedBuilder
from greenops_pipelines.supply_chain.provenance import LOCAL_BUILDER, from_environment, level, predicate

COMMIT = "8f2c1d0e9b7a6543210fedcba9876543210abcde"
STARTED, FINISHED = datetime(2026, 5, 1, 12, 0, tzinfo=UTC), datetime(2026, 5, 1, 12, 3, 20, tzinfo=UTC)
SECRET = "glpat-s3cr3t"  # noqa: S105 - a test's own

GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "team/app",
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_SHA": COMMIT,
    "GITHUB_WORKFLOW_REF": "team/app/.github/workflows/release.yml@refs/tags/v1.2.0",
    "GITHUB_RUN_ID": "9041",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_EVENT_NAME": "push",
    "GITHUB_REPOSITORY_ID": "77",
    "GITHUB_REPOSITORY_OWNER_ID": "5",
    "RUNNER_ENVIRONMENT": "github-hosted",
    "GITHUB_TOKEN": SECRET,
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": SECRET,
}
GITLAB = {
    "GITLAB_CI": "true",
    "CI_SERVER_URL": "https://gitlab.example.com",
    "CI_RUNNER_ID": "12",
    "CI_RUNNER_DESCRIPTION": "shared-3",
    "CI_JOB_URL": "https://gitlab.example.com/team/app/-/jobs/345",
    "CI_PROJECT_URL": "https://gitlab.example.com/team/app",
    "CI_JOB_NAME": "build image",
    "CI_JOB_ID": "345",
    "CI_PIPELINE_ID": "67",
    "CI_RUNNER_EXECUTABLE_ARCH": "linux/amd64",
    "CI_COMMIT_REF_NAME": "main",
    "CI_COMMIT_SHA": COMMIT,
    "CI_JOB_TOKEN": SECRET,
    "CI_REPOSITORY_URL": f"https://gitlab-ci-token:{SECRET}@gitlab.example.com/team/app.git",
    "CI_REGISTRY_PASSWORD": SECRET,
}
JENKINS = {
    "JENKINS_URL": "https://jenkins.example.com/",
    "BUILD_URL": "https://jenkins.example.com/job/app/12/",
    "JOB_NAME": "app",
    "NODE_NAME": "agent-3",
    "GIT_URL": f"https://robot:{SECRET}@git.example.com/team/app.git",
    "GIT_BRANCH": "origin/main",
    "GIT_COMMIT": COMMIT,
}


def said(environment: Mapping[str, str], folder: Path | None = None) -> dict[str, Any]:
    return predicate(from_environment(environment, folder), STARTED, FINISHED, {"image": "team/app"})


def test_github_actions() -> None:
    assert said(GITHUB) == {
        "buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": {
                "workflow": {
                    "ref": "refs/tags/v1.2.0",
                    "repository": "https://github.com/team/app",
                    "path": ".github/workflows/release.yml",
                },
            },
            "internalParameters": {
                "github": {
                    "event_name": "push",
                    "repository_id": "77",
                    "repository_owner_id": "5",
                    "runner_environment": "github-hosted",
                }
            },
            "resolvedDependencies": [
                {"uri": "git+https://github.com/team/app@refs/heads/main", "digest": {"gitCommit": COMMIT}}
            ],
        },
        "runDetails": {
            "builder": {"id": "https://github.com/actions/runner/github-hosted"},
            "metadata": {
                "invocationId": "https://github.com/team/app/actions/runs/9041/attempts/2",
                "startedOn": "2026-05-01T12:00:00Z",
                "finishedOn": "2026-05-01T12:03:20Z",
            },
        },
    }


def test_github_on_a_machine_of_ones_own_is_another_builder() -> None:
    own = from_environment(GITHUB | {"RUNNER_ENVIRONMENT": "self-hosted"})
    assert own.builder == "https://github.com/actions/runner/self-hosted"
    assert from_environment({**GITHUB, "RUNNER_ENVIRONMENT": ""}).builder.endswith("/unknown")


def test_gitlab_ci() -> None:
    found = said(GITLAB)
    assert found["buildDefinition"] == {
        "buildType": "https://docs.gitlab.com/ci/pipeline_security/slsa/provenance_v1",
        "externalParameters": {"source": "https://gitlab.example.com/team/app", "entryPoint": "build image"},
        "internalParameters": {"name": "shared-3", "architecture": "amd64", "job": 345},
        "resolvedDependencies": [{"uri": "https://gitlab.example.com/team/app", "digest": {"gitCommit": COMMIT}}],
    }
    assert found["runDetails"]["builder"] == {"id": "https://gitlab.example.com/team/app/-/runners/12"}
    assert found["runDetails"]["metadata"]["invocationId"] == "https://gitlab.example.com/team/app/-/jobs/345"


def test_jenkins() -> None:
    found = said(JENKINS)
    assert found["buildDefinition"] == {
        "buildType": "https://greenops-pipelines.example/build/jenkins/v1",
        "externalParameters": {"job": "app", "image": "team/app"},
        "internalParameters": {"node": "agent-3"},
        "resolvedDependencies": [
            {"uri": "git+https://git.example.com/team/app.git@origin/main", "digest": {"gitCommit": COMMIT}}
        ],
    }
    assert found["runDetails"]["builder"] == {"id": "https://jenkins.example.com/"}
    assert found["runDetails"]["metadata"]["invocationId"] == "https://jenkins.example.com/job/app/12/"


def git(folder: Path, *command: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *command], check=True, capture_output=True, text=True
    ).stdout.strip()


def checkout(folder: Path, origin: str = "", file: str = "file") -> str:
    """A repository with one commit of one file; the commit."""
    git(folder, "init", "-q")
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("one")
    git(folder, "add", file)
    git(folder, "commit", "-q", "-m", "one")
    if origin:
        git(folder, "remote", "add", "origin", origin)
    return git(folder, "rev-parse", "HEAD")


def dependencies(build: provenance.Build) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = predicate(build, None, FINISHED, {})["buildDefinition"]["resolvedDependencies"]
    return found


def test_on_any_machine_the_checked_out_commit_is_all_that_is_known(tmp_path: Path) -> None:
    head = checkout(tmp_path, f"https://robot:{SECRET}@git.example.com/team/app.git")
    found = said({"USER": "me", "CI": "true"}, tmp_path)
    assert found["runDetails"]["builder"] == {"id": LOCAL_BUILDER}
    assert "invocationId" not in found["runDetails"]["metadata"]
    assert found["buildDefinition"]["resolvedDependencies"] == [
        {"uri": "git+https://git.example.com/team/app.git", "digest": {"gitCommit": head}}
    ]
    assert found["buildDefinition"]["internalParameters"] == {"uncommittedChanges": False}
    (tmp_path / "file").write_text("two")
    assert said({}, tmp_path)["buildDefinition"]["internalParameters"] == {"uncommittedChanges": True}


@pytest.mark.parametrize("origin", ["", "/srv/git/app.git", "file:///srv/git/app.git", "../app"])
def test_a_commit_that_nobody_else_can_fetch_is_not_written_down(tmp_path: Path, origin: str) -> None:
    checkout(tmp_path, origin)
    build = from_environment({}, tmp_path)
    assert (dependencies(build), build.commit, dict(build.internal)) == ([], "", {})


def test_of_an_own_build_the_commit_is_stated_where_its_sources_are_of_that_repository(tmp_path: Path) -> None:
    head = checkout(tmp_path, "git@git.example.com:team/app.git", "package/__init__.py")
    (tmp_path / "ops").mkdir()
    stated = [{"uri": "git+ssh://git.example.com/team/app.git", "digest": {"gitCommit": head}}]
    assert dependencies(provenance.own(tmp_path / "ops", tmp_path / "package")) == stated
    # Installed: in a virtual environment inside the repository, or elsewhere.
    for installed in (tmp_path / ".venv/package", tmp_path.parent / f"{tmp_path.name}-elsewhere/package"):
        installed.mkdir(parents=True)
        (installed / "__init__.py").write_text("one")
        build = provenance.own(tmp_path / "ops", installed)
        assert (dependencies(build), build.commit) == ([], "")
    (tmp_path / "package/__init__.py").write_text("two")
    assert provenance.own(tmp_path, tmp_path / "package").internal == {"uncommittedChanges": True}


def test_an_image_is_a_parameter_of_the_build_types_that_are_defined_here_alone() -> None:
    for build_type, external in (
        (provenance.OWN_BUILD_TYPE, {"image": "app"}),
        (provenance.UNSTATED_BUILD_TYPE, {"image": "app"}),
        (provenance.GITHUB_BUILD_TYPE, {}),
    ):
        build = provenance.Build(build_type, LOCAL_BUILDER, "", {})
        assert predicate(build, None, FINISHED, {"image": "app"})["buildDefinition"]["externalParameters"] == external


def test_without_git_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("PATH", "/nowhere")
    assert said({}, tmp_path)["buildDefinition"]["resolvedDependencies"] == []
    assert not from_environment({}, tmp_path).is_ci
    assert from_environment(GITHUB).is_ci


@pytest.mark.parametrize("environment", [GITHUB, GITLAB, JENKINS, {}])
def test_the_predicate_has_the_form_of_slsa_v1(environment: Mapping[str, str], tmp_path: Path) -> None:
    """SLSA v1.1, "Provenance": required fields, and none that it does not know."""
    found = said(environment, tmp_path)
    assert set(found) == {"buildDefinition", "runDetails"}
    definition, run = found["buildDefinition"], found["runDetails"]
    assert set(definition) == {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert definition["buildType"].startswith("https://")
    assert definition["externalParameters"]
    assert all(set(each) == {"uri", "digest"} for each in definition["resolvedDependencies"])
    assert set(run) == {"builder", "metadata"}
    assert run["builder"]["id"].startswith("https://")
    assert set(run["metadata"]) <= {"invocationId", "startedOn", "finishedOn"}
    json.dumps(found)


@pytest.mark.parametrize("environment", [GITHUB, GITLAB, JENKINS])
def test_no_secret_is_written_down(environment: Mapping[str, str]) -> None:
    poisoned = {**environment, **{f"{name}_SECRET": SECRET for name in ("CI", "GITHUB", "AWS", "X")}}
    assert SECRET not in json.dumps(said(poisoned))


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://git.example.com/team/app.git", "git+https://git.example.com/team/app.git@origin/main"),
        ("https://s3cr3t@git.example.com/app", "git+https://git.example.com/app@origin/main"),
        ("https://me:s3cr3t@x@git.example.com/app", "git+https://git.example.com/app@origin/main"),
        ("https://git.example.com/app?private_token=s3cr3t", "git+https://git.example.com/app@origin/main"),
        ("https://git.example.com/app#s3cr3t", "git+https://git.example.com/app@origin/main"),
        ("https://me:s3/cr3t@git.example.com/app", None),
        ("ssh://git@git.example.com/team/app", "git+ssh://git.example.com/team/app@origin/main"),
        ("git@git.example.com:team/app.git", "git+ssh://git.example.com/team/app.git@origin/main"),
        ("/srv/git/app.git", None),
        ("file:///srv/git/app.git", None),
        ("", None),
    ],
)
def test_an_address_is_written_down_without_what_may_be_secret(url: str, source: str | None) -> None:
    found = said(JENKINS | {"GIT_URL": url})["buildDefinition"]["resolvedDependencies"]
    assert [each["uri"] for each in found] == ([source] if source else [])


@pytest.mark.parametrize("commit", ["", "main", "8f2c1d0", COMMIT.upper(), f"{COMMIT}\n", "x" * 40])
def test_what_is_no_commit_is_not_written_down(commit: str) -> None:
    assert said(GITHUB | {"GITHUB_SHA": commit})["buildDefinition"]["resolvedDependencies"] == []


# --- levels

IMAGE = "sha256:" + "1" * 64
TEKTON = "https://tekton.example.com/chains/v2"
HOSTED = "https://github.com/actions/runner/github-hosted"


def attached(signer: Signer, builder: Any = HOSTED, kind: str = PROVENANCE) -> Attached:
    """A verified statement of a builder, as it is read back."""
    words = predicate(from_environment(GITHUB), STARTED, FINISHED, {})
    words["runDetails"]["builder"] = {"id": builder} if builder else {}
    payload = attestations.statement("x", [IMAGE], kind, words)
    return Attached("tag", IMAGE, verified(attestations.envelope(signer, payload), [signer.public], IMAGE))


def test_nothing_attached_is_level_0() -> None:
    assert level([], []).level == 0
    assert level([Attached("tag", IMAGE, None, "envelope: its signature is by none")], []).level == 0
    assert level([], []).reason == "no provenance that verifies is attached"


def test_what_we_signed_inside_the_build_is_level_1_on_any_runner(signer: Signer) -> None:
    for builders in ([], [TrustedBuilder(HOSTED)]):
        found = level([attached(signer)], builders)
        assert (found.level, found.builder) == (1, HOSTED)
        assert found.reason == "stated and signed inside the build, not by an isolated builder's control plane"


@pytest.mark.parametrize("declared", [2, 3])
def test_a_builders_own_key_has_the_level_it_is_declared_with(
    signer: Signer, other_signer: Signer, declared: int
) -> None:
    builders = [TrustedBuilder(HOSTED), TrustedBuilder(TEKTON, other_signer.public, declared)]
    found = level([attached(signer), attached(other_signer, TEKTON)], builders)
    assert (found.level, found.builder) == (declared, TEKTON)
    assert ("isolated" in found.reason) is (declared == 3)


def test_another_key_that_claims_a_builders_name_stays_level_1(signer: Signer, other_signer: Signer) -> None:
    builders = [TrustedBuilder(TEKTON, other_signer.public, 3)]
    assert level([attached(signer, TEKTON)], builders).level == 1


def test_a_builders_key_that_claims_another_builders_name_is_level_0(signer: Signer, other_signer: Signer) -> None:
    builders = [TrustedBuilder(TEKTON, other_signer.public, 3), TrustedBuilder(HOSTED)]
    found = level([attached(other_signer, HOSTED)], builders)
    assert (found.level, found.builder) == (0, "")
    assert found.reason == f"signed with the key of {TEKTON}, and says that {HOSTED} built it"


@pytest.mark.parametrize("builder", ["", 5, None, {"id": "x"}])
def test_a_provenance_without_a_builder_is_level_0(signer: Signer, builder: Any) -> None:
    assert level([attached(signer, builder)], []).reason == "the provenance names no builder"


def test_a_statement_of_another_kind_is_no_provenance(other_signer: Signer) -> None:
    builders = [TrustedBuilder(TEKTON, other_signer.public, 3)]
    assert level([attached(other_signer, TEKTON, CYCLONEDX)], builders).level == 0


def test_builder_of_reads_what_is_there() -> None:
    assert provenance.builder_of({"runDetails": {"builder": {"id": TEKTON}}}) == TEKTON
    assert provenance.builder_of({}) == ""
