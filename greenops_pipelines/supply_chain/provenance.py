"""SLSA provenance v1: what is known of a build, from the CI system's own variables; and the build level it supports.

What is stated here was gathered inside the build, by whoever runs it, so it is of build level 1 whatever the machine: levels
2 and 3 are properties of a builder whose control plane signs the provenance itself (SLSA 1.1, "Security levels"). Such
a builder is declared in ops/images.yaml with its key. Not here: signing.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from greenops_pipelines.evidence.statement import time_text
from greenops_pipelines.supply_chain.attach import Attached
from greenops_pipelines.supply_chain.attestations import PROVENANCE
from greenops_pipelines.supply_chain.declared import TrustedBuilder

LOCAL_BUILDER = "https://greenops-pipelines.example/builder/local/v1"
"""Whatever machine this runs on, outside any CI system that is known here."""
_DEFINED_HERE = "https://greenops-pipelines.example/build/"
OWN_BUILD_TYPE = f"{_DEFINED_HERE}embedded/v1"
UNSTATED_BUILD_TYPE = f"{_DEFINED_HERE}unstated/v1"
GITHUB_BUILD_TYPE = "https://actions.github.io/buildtypes/workflow/v1"
_GITLAB_BUILD_TYPE = "https://docs.gitlab.com/ci/pipeline_security/slsa/provenance_v1"
_JENKINS_BUILD_TYPE = f"{_DEFINED_HERE}jenkins/v1"
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHORT_SSH = re.compile(r"([\w.-]+@)?(?P<host>[\w.-]+):(?P<path>[\w./~-]+)")
_REMOTE = re.compile(r"(https?|ssh|git)://[^/]+/.+")
_GIT_SECONDS = 10
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Build:
    """What a CI system says of the build under way."""

    build_type: str
    builder: str
    invocation: str
    external: Mapping[str, Any]
    internal: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    """git+https://host/owner/repository@ref, or as the build type has it; empty where it is not known."""
    commit: str = ""
    """Written down beside its source alone: which repository it is of would be anybody's guess."""

    @property
    def is_ci(self) -> bool:
        return self.builder != LOCAL_BUILDER


def from_environment(environment: Mapping[str, str], folder: Path | None = None) -> Build:
    """The build by the variables of GitHub Actions, GitLab CI or Jenkins; else by the git repository in `folder`."""
    if environment.get("GITHUB_ACTIONS") == "true":
        return _github(environment)
    if environment.get("GITLAB_CI") == "true":
        return _gitlab(environment)
    if environment.get("JENKINS_URL"):
        return _jenkins(environment)
    return _here(UNSTATED_BUILD_TYPE, folder or Path.cwd())


def own(folder: Path, package: Path = _PACKAGE) -> Build:
    """Of what this project builds itself, here and now, from the installed package.

    `folder` may lie in any git repository. A commit is stated only where `package` is one of that repository's files: of an
    installed wheel it would say nothing.
    """
    if not _is_tracked(folder, package / "__init__.py"):
        return Build(OWN_BUILD_TYPE, LOCAL_BUILDER, "", {})
    return _here(OWN_BUILD_TYPE, folder)


def predicate(
    build: Build, started: datetime | None, finished: datetime, parameters: Mapping[str, str]
) -> dict[str, Any]:
    """The predicate of `PROVENANCE`. Of variables only those named above.

    `parameters` are further external parameters where the build type is defined here. Others' types define their own, and no
    more: the image stands in the statement's subject.
    """
    metadata: dict[str, Any] = {"finishedOn": time_text(finished)}
    if build.invocation:
        metadata["invocationId"] = build.invocation
    if started is not None:
        metadata["startedOn"] = time_text(started)
    dependencies = []
    if build.commit and build.source:
        dependencies.append({"uri": build.source, "digest": {"gitCommit": build.commit}})
    more = parameters if build.build_type.startswith(_DEFINED_HERE) else {}
    return {
        "buildDefinition": {
            "buildType": build.build_type,
            "externalParameters": {**build.external, **more},
            "internalParameters": dict(build.internal),
            "resolvedDependencies": dependencies,
        },
        "runDetails": {"builder": {"id": build.builder}, "metadata": metadata},
    }


@dataclass(frozen=True)
class Level:
    """The SLSA build level of an image, whose word it is, and why it is not a higher one."""

    level: int
    builder: str
    reason: str


def builder_of(statement: Mapping[str, Any]) -> str:
    """`runDetails.builder.id` of a provenance's predicate; empty where it has none."""
    match statement:
        case {"runDetails": {"builder": {"id": str(builder)}}}:
            return builder
    return ""


def level(found: Sequence[Attached], builders: Sequence[TrustedBuilder]) -> Level:
    """The highest level that a verified provenance supports. `found` is verified against our keys and the builders'."""
    levels = [level_of(each, builders) for each in found if each.predicate_type == PROVENANCE]
    none = Level(0, "", "no provenance that verifies is attached")
    return max(levels, key=lambda each: each.level, default=none)


def level_of(attached: Attached, builders: Sequence[TrustedBuilder]) -> Level:
    """Of one verified provenance. A builder's level is granted for its own key alone: anyone may write its name."""
    assert attached.statement is not None  # noqa: S101 (a provenance that does not verify has no type)
    claimed = builder_of(attached.statement.predicate)
    if not claimed:
        return Level(0, "", "the provenance names no builder")
    keyid = attached.statement.key.keyid
    if claimed not in (names := [each.id for each in builders if each.key and each.key.keyid == keyid]) and names:
        return Level(0, "", f"signed with the key of {names[0]}, and says that {claimed[:100]} built it")
    for builder in builders:
        if builder.key and builder.id == claimed and builder.key.keyid == keyid:
            what = (
                "isolated, and signs its own provenance"
                if builder.level == 3
                else "hosted, and signs its own provenance"
            )
            return Level(builder.level, claimed, f"by declaration this builder is {what}")
    return Level(1, claimed, "stated and signed inside the build, not by an isolated builder's control plane")


def is_declared(attached: Attached, builders: Sequence[TrustedBuilder]) -> bool:
    """Whether a verified provenance is by a declared builder, under its own key where it has one and else under ours.

    Where none is declared, what is built on this machine counts.
    """
    assert attached.statement is not None  # noqa: S101 (a provenance that does not verify has no type)
    claimed, keyid = builder_of(attached.statement.predicate), attached.statement.key.keyid
    own = {each.key.keyid for each in builders if each.key}
    if keyid in own:
        return any(each.id == claimed and each.key and each.key.keyid == keyid for each in builders)
    if not builders:
        return claimed == LOCAL_BUILDER
    return any(each.id == claimed and each.key is None for each in builders)


def _github(environment: Mapping[str, str]) -> Build:
    def said(name: str) -> str:
        return environment.get(f"GITHUB_{name}", "")

    server, repository, ref = said("SERVER_URL") or "https://github.com", said("REPOSITORY"), said("REF")
    workflow = said("WORKFLOW_REF").removeprefix(f"{repository}/").partition("@")
    hosted = environment.get("RUNNER_ENVIRONMENT", "")
    return Build(
        GITHUB_BUILD_TYPE,
        f"{server.replace('https://github.com', 'https://github.com/actions/runner')}/{hosted or 'unknown'}",
        f"{server}/{repository}/actions/runs/{said('RUN_ID')}/attempts/{said('RUN_ATTEMPT') or '1'}",
        {"workflow": {"ref": workflow[2] or ref, "repository": f"{server}/{repository}", "path": workflow[0]}},
        {
            "github": {
                "event_name": said("EVENT_NAME"),
                "repository_id": said("REPOSITORY_ID"),
                "repository_owner_id": said("REPOSITORY_OWNER_ID"),
                "runner_environment": hosted,
            }
        },
        f"git+{server}/{repository}@{ref}",
        _commit(said("SHA")),
    )


def _gitlab(environment: Mapping[str, str]) -> Build:
    def said(name: str) -> str:
        return environment.get(f"CI_{name}", "")

    project, job = said("PROJECT_URL"), said("JOB_ID")
    # The type's `variables` are left out: a job's variables hold secrets that nobody has marked as such. So is `executor`, which
    # no variable tells.
    internal = {
        "name": said("RUNNER_DESCRIPTION"),
        "architecture": said("RUNNER_EXECUTABLE_ARCH").rpartition("/")[2],
        "job": int(job) if re.fullmatch(r"[0-9]{1,18}", job) else job,
    }
    return Build(
        _GITLAB_BUILD_TYPE,
        f"{project}/-/runners/{said('RUNNER_ID')}",
        said("JOB_URL"),
        {"source": project, "entryPoint": said("JOB_NAME")},
        {name: value for name, value in internal.items() if value},
        project,
        _commit(said("COMMIT_SHA")),
    )


def _jenkins(environment: Mapping[str, str]) -> Build:
    url = _remote(environment.get("GIT_URL", ""))
    return Build(
        _JENKINS_BUILD_TYPE,
        _without_secret(environment["JENKINS_URL"]),
        _without_secret(environment.get("BUILD_URL", "")),
        {"job": environment.get("JOB_NAME", "")},
        {"node": environment.get("NODE_NAME", "")},
        f"git+{url}@{environment.get('GIT_BRANCH', '')}" if url else "",
        _commit(environment.get("GIT_COMMIT", "")),
    )


def _without_secret(url: str) -> str:
    """The address without user, password, query and fragment; empty where an @ is left that a secret may stand before."""
    if "://" not in url and (short := _SHORT_SSH.fullmatch(url)):
        return f"ssh://{short['host']}/{short['path']}"
    bare = re.sub(r"//[^/]*@", "//", re.sub(r"[?#].*", "", url))
    return "" if "@" in bare else bare


def _remote(url: str) -> str:
    """The address of a repository that others may reach, without secrets; empty for a folder of this machine."""
    bare = _without_secret(url)
    return bare if _REMOTE.fullmatch(bare) else ""


def _commit(text: str) -> str:
    return text if _COMMIT.fullmatch(text) else ""


def _here(build_type: str, folder: Path) -> Build:
    """What is known of a build on this machine: the commit that is checked out in `folder`, if others may fetch it."""
    commit = _commit(_git(folder, "rev-parse", "HEAD") or "")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    origin = _remote(_git(folder, "remote", "get-url", "origin") or "")
    if not commit or not origin or changed is None:
        return Build(build_type, LOCAL_BUILDER, "", {})
    return Build(build_type, LOCAL_BUILDER, "", {}, {"uncommittedChanges": bool(changed)}, f"git+{origin}", commit)


def _is_tracked(folder: Path, file: Path) -> bool:
    """Whether the repository around `folder` has the file: one in a virtual environment inside it is none of its own."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    return top is not None and _git(Path(top), "ls-files", "--error-unmatch", "--", str(file.resolve())) is not None


def _git(folder: Path, *command: str) -> str | None:
    """What git prints; None where there is none, or where it refuses."""
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            env=environment,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
