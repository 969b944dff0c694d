"""`greenops attest`, `verify` and `image` as a CI job and a person meet them: exit codes, what is written, what is said."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from greenops_pipelines import cli, wiring
from greenops_pipelines.evidence.keys import Keys
from greenops_pipelines.lake.supply_tables import IMAGE_FAULTS, IMAGE_VERDICTS
from greenops_pipelines.settings import load_settings
from greenops_pipelines.supply_chain import attach, subjects
from greenops_pipelines.supply_chain.attestations import CYCLONEDX, PROVENANCE, SIGNATURE, SPDX
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import Repository
from tests.supply_chain.conftest import Debian, opened
from tests.supply_chain.small_images import DEMO, push, push_index

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "acme/api",
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_SHA": COMMIT,
    "GITHUB_RUN_ID": "42",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_WORKFLOW_REF": "acme/api/.github/workflows/build.yml@refs/heads/main",
    "GITHUB_TOKEN": "not to be stated",
    "RUNNER_ENVIRONMENT": "github-hosted",
}
KINDS = {SIGNATURE, CYCLONEDX, SPDX, PROVENANCE}


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Greenops = Callable[..., Ended]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and its ops/, no scanner, and no CI system but the one that a test names."""
    ops, tools = tmp_path / "ops", tmp_path / "tools"
    ops.mkdir()
    tools.mkdir()
    for each in ("nice", "git"):
        (tools / each).symlink_to(f"/usr/bin/{each}")
    (ops / "images.yaml").write_text(
        "images:\n  - {name: sample, source: embedded}\n  - {name: app, source: 'oci:app'}\n"
    )
    for name in [
        name for name in os.environ if name.startswith(("GREENOPS_", "GITHUB_", "GITLAB_", "CI_", "JENKINS_"))
    ]:
        monkeypatch.delenv(name)
    for name, value in {"HOME": tmp_path / "home", "OPS_DIR": ops, "DBT_DIR": ROOT / "dbt"}.items():
        monkeypatch.setenv(f"GREENOPS_{name}", str(value))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(
        subjects, "open_registry", lambda reference, *_: opened(reference.registry, reference.repository)
    )
    return tmp_path / "home"


@pytest.fixture
def greenops(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Greenops:
    def greenops(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["greenops", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return greenops


@pytest.fixture
def app(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "ops" / "app", create=True)


def verified(repository: Repository, digest: str, home: Path) -> set[tuple[str, str]]:
    found = attach.read(repository, digest, Keys(home / "keys").public())
    return {(each.predicate_type, each.way) for each in found if each.statement}


# --- in a build


@pytest.mark.real
def test_an_image_of_a_real_registry_is_attested_and_verified_in_a_build(
    greenops: Greenops, debian: Debian, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in GITHUB.items():
        monkeypatch.setenv(name, value)
    Keys(tmp_path / "ours").signer()
    monkeypatch.setenv("GREENOPS_EVIDENCE_KEY", str(tmp_path / "ours" / "evidence.key"))
    repository = debian.repository("team/built")
    digest = push(repository)
    image = f"{repository.name}:v1"
    lacking = greenops("verify", image, "--key", str(_stranger(tmp_path)))
    assert lacking.code == 1
    assert lacking.err == (
        f"greenops: {repository.name}@{digest}: not verified: "
        "it lacks signature, CycloneDX SBOM, SPDX SBOM, provenance\n"
    )

    undeclared = greenops("attest", image, "--json")
    builder = "https://github.com/actions/runner/github-hosted"
    assert (undeclared.code, undeclared.json["verdict"]["missing"]) == (
        1,
        [f"provenance by a declared builder (found {builder})"],
    )
    with (tmp_path / "ops" / "images.yaml").open("a") as stream:
        stream.write(f"builders:\n  - id: {builder}\n")
    done = greenops("attest", image, "--json")
    assert done.code == 0
    assert (done.json["digest"], done.json["dry_run"], done.json["verdict"]["ok"]) == (digest, False, True)
    assert {(each["predicate_type"], tuple(each["about"])) for each in done.json["statements"]} == {
        (kind, (digest,)) for kind in KINDS
    }
    assert verified(repository, digest, home) == {(kind, way) for kind in KINDS for way in attach.WAYS}
    found = attach.read(repository, digest, Keys(home / "keys").public())
    stated = json.dumps(
        next(dict(e.statement.predicate) for e in found if e.statement and e.predicate_type == PROVENANCE)
    )
    assert COMMIT in stated
    assert "https://github.com/actions/runner/github-hosted" in stated
    assert "https://github.com/acme/api/actions/runs/42/attempts/2" in stated
    assert "not to be stated" not in stated
    assert str(tmp_path) not in stated

    right = greenops("verify", f"{repository.name}@{digest}", "--level", "1", "--json")
    assert (right.code, right.err, right.json["ok"], right.json["slsa_level"]) == (0, "", True, 1)
    # A second time nothing is added.
    before = {tag: repository.manifest(tag).digest for tag in repository.tags()}
    assert greenops("attest", image).code == 0
    assert {tag: repository.manifest(tag).digest for tag in repository.tags()} == before
    # Built here, by whoever runs the build: no more than level 1. Nor is another's key ours.
    high = greenops("verify", image, "--level", "3")
    assert high.code == 1
    assert "its SLSA build level is 1: stated and signed inside the build" in high.err
    other = greenops("verify", image, "--key", str(_stranger(tmp_path)), "--json")
    assert (other.code, other.json["ok"], other.json["missing"]) == (
        1,
        False,
        ["signature", "CycloneDX SBOM", "SPDX SBOM", "provenance"],
    )
    assert "vulnerability scan" in greenops("verify", image, "--scan").err


def test_a_key_that_would_be_thrown_away_with_the_job_signs_nothing(
    greenops: Greenops, app: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(app)
    for name, value in GITHUB.items():
        monkeypatch.setenv(name, value)
    ended = greenops("attest", "app")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("greenops: GREENOPS_EVIDENCE_KEY: found nothing in a CI job, allowed: ")
    assert app.tags() == ("v1",)


def _stranger(folder: Path) -> Path:
    path = folder / "stranger.pub"
    if not path.exists():
        path.write_bytes(Keys(folder / "stranger").signer().public.pem)
    return path


def test_a_dry_run_says_what_would_be_attached_and_writes_nothing(greenops: Greenops, app: Layout, home: Path) -> None:
    digest = push(app)
    before = {path: path.read_bytes() for path in sorted(app.folder.rglob("*")) if path.is_file()}
    done = greenops("attest", "app", "--dry-run", "--json")
    assert (done.code, done.json["verdict"], done.json["dry_run"]) == (0, None, True)
    assert {each["predicate_type"] for each in done.json["statements"]} == KINDS
    assert done.json["sboms"] == [
        {"platform": "linux/amd64", "digest": digest, "components": 1, "ntia": True, "missing": None}
    ]
    assert {path: path.read_bytes() for path in sorted(app.folder.rglob("*")) if path.is_file()} == before
    assert not (home / "keys").exists()
    assert [path for path in (home / "sbom").rglob("*") if path.is_file()] == []
    shown = greenops("attest", "app", "--dry-run")
    assert f"would attach  {SIGNATURE}  to {digest[:19]}" in shown.out


def test_an_index_is_attested_for_every_platform_asked_for(greenops: Greenops, app: Layout, home: Path) -> None:
    amd64, arm64 = push(app, "a"), push(app, "b", architecture="arm64", files=DEMO | {"x": "y"})
    index = push_index(app, "v1", [("linux/amd64", amd64), ("linux/arm64", arm64)])
    done = greenops("attest", "app:v1", "--platform", "linux/amd64", "--platform", "linux/arm64", "--json")
    assert (done.code, [each["platform"] for each in done.json["sboms"]]) == (0, ["linux/amd64", "linux/arm64"])
    for digest in (index, amd64, arm64):
        assert {kind for kind, _ in verified(app, digest, home)} == KINDS
    assert greenops("verify", f"oci:{app.folder}:a").code == 0
    missing = greenops("attest", "app:v1", "--platform", "linux/s390x")
    assert missing.code == 1
    assert "allowed: also linux/s390x" in missing.err


def test_what_is_built_here_is_attested_by_its_name(greenops: Greenops, home: Path) -> None:
    done = greenops("attest", "sample")
    assert done.code == 0
    assert "nothing is missing; SLSA build level 1" in done.out
    verdict = greenops("verify", "sample", "--json")
    assert (verdict.code, verdict.json["image"]) == (0, "greenops-pipelines/sample")


# --- what a person gets wrong


@pytest.mark.parametrize("command", ["attest", "verify"])
@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("Upper/Case", "allowed: a repository in lower case"),
        ("registry.example.com/a@sha256:12", "allowed: a digest of the form sha256:<64 hexadecimal digits>"),
        ("registry.example.com/a:b:c", "image: found"),
        ("oci:nowhere", "nowhere"),
        ("app", "found the tags v1, v2, allowed: one of them after a colon"),
        ("", "image: found ''"),
    ],
)
def test_a_reference_that_is_none_is_one_line(
    greenops: Greenops, app: Layout, command: str, image: str, said: str
) -> None:
    push(app, "v1")
    push(app, "v2")
    if command == "verify":
        Keys(Path("home/keys").absolute()).signer()
    ended = greenops(command, image)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("greenops: ")
    assert said in ended.err


def test_a_tag_that_is_not_there_is_one_line(greenops: Greenops, app: Layout) -> None:
    push(app)
    ended = greenops("attest", "app:v9")
    assert (ended.code, ended.out) == (1, "")
    assert "found no manifest 'v9'" in ended.err


def test_without_a_key_there_is_nothing_to_verify_with(greenops: Greenops, app: Layout) -> None:
    push(app)
    ended = greenops("verify", "app")
    assert (ended.code, "--key: found none" in ended.err) == (2, True)
    assert greenops("verify", "app", "--key", "absent.pem").code == 2
    assert greenops("verify", "app", "--level", "4").code == 2


# --- what is known


@pytest.fixture
def known(app: Layout) -> tuple[str, str]:
    """An image of two platforms, taken in, its tag twice; and one that was only noticed."""
    amd64, arm64 = push(app, "a"), push(app, "b", architecture="arm64", files=DEMO | {"x": "y"})
    index = push_index(app, "v1", [("linux/amd64", amd64), ("linux/arm64", arm64)])
    settings = load_settings()
    text = "images:\n  - {name: app, source: 'oci:app', tags: [v*], platforms: [linux/amd64, linux/arm64]}\n"
    (settings.ops_dir / "images.yaml").write_text(text)
    now = datetime.now(UTC)
    wiring.look_for_images(settings, now)
    intake = wiring.intake(settings)
    for step in (intake.sbom, intake.scan, intake.attest):
        step(index, now)
    intake.judge(now)
    noticed = push(app, "v2", DEMO | {"a": "a"})
    wiring.look_for_images(settings, now)
    return index, noticed


def test_images_are_listed_found_and_printed(greenops: Greenops, known: tuple[str, str]) -> None:
    index, noticed = known
    one, two = greenops("image", "list", "--json").json["images"]
    assert (one["tag"], one["digest"], one["components"], one["ntia"], one["gate"], one["slsa_level"], one["fault"]) == (
        "v1", index, 2, True, "no scanner", 0, None,
    )  # fmt: skip
    assert one["missing"].startswith("signature")
    assert (two["digest"], two["components"], two["gate"], two["missing"]) == (noticed, None, None, None)
    lines = greenops("image", "list").out.splitlines()
    assert lines[0].startswith(f"app:v1  {index[:19]}  2 components  gate: no scanner  SLSA 0  lacks signature")
    assert lines[1] == f"app:v2  {noticed[:19]}  no SBOM  gate: -  SLSA -  not read back yet"

    found = greenops("image", "find", "DEM%", "--json")
    assert found.code == 0
    assert [(each["platform"], each["name"], each["version"], each["in_use"]) for each in found.json["components"]] == [
        ("linux/amd64", "demo", "1.0", True),
        ("linux/arm64", "demo", "1.0", True),
    ]
    assert greenops("image", "find", "demo").out.splitlines()[0] == f"app  {index[:19]}  linux/amd64  demo 1.0"
    nothing = greenops("image", "find", "demo", "--version", "2.0", "--json")
    assert (nothing.code, nothing.json, nothing.err) == (1, {"components": []}, "greenops: no image carries demo\n")

    several = greenops("image", "sbom", "app")
    assert (several.code, several.out) == (2, "")
    assert "found SBOMs for linux/amd64, linux/arm64, allowed: one of them with --platform" in several.err
    rows = wiring.lake(load_settings()).query("select * from sboms order by platform").to_pylist()
    for option, kind in ((), "cyclonedx"), (("--spdx",), "spdx"):
        printed = greenops("image", "sbom", index, "--platform", "linux/amd64", *option)
        assert hashlib.sha256(printed.out.encode()).hexdigest() == rows[0][f"{kind}_sha256"]
    assert greenops("image", "sbom", "nope").err == (
        "greenops: image nope: found no SBOM of it, allowed: a name or digest of `greenops image list`\n"
    )

    # Two faults, and two platforms that were judged differently: nothing is added up twice, and the worst is shown.
    lake = wiring.lake(load_settings())
    (read_at,) = {row["read_at"] for row in lake.query("select read_at from image_standing").to_pylist()}
    rows = [
        {"image_digest": index, "step": step, "image": "app", "fault": f"{step} broke", "at": read_at}
        for step in ("sbom", "attest")
    ]
    lake.write(IMAGE_FAULTS, pa.Table.from_pylist(rows, schema=IMAGE_FAULTS.schema))
    verdicts = lake.read(IMAGE_VERDICTS).to_pylist()
    outcomes = ("passed", "failed")
    changed = [{**row, "outcome": outcome} for row, outcome in zip(verdicts, outcomes, strict=True)]
    lake.write(IMAGE_VERDICTS, pa.Table.from_pylist(changed, schema=IMAGE_VERDICTS.schema))
    one = greenops("image", "list", "--json").json["images"][0]
    assert (one["components"], one["fault"], one["gate"]) == (2, "attest broke; sbom broke", "failed")


def test_nothing_noticed_yet_is_said(greenops: Greenops) -> None:
    assert greenops("image", "list").out == "no image was noticed yet; greenops run --select 'group:supply_chain'\n"
    assert greenops("image", "list", "--json").json == {"images": []}
