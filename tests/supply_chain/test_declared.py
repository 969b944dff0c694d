"""ops/images.yaml: each fault is one line with file, line, field, found and allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from greenops_pipelines.errors import BadInput, ConfigurationError
from greenops_pipelines.evidence.signing import Signer
from greenops_pipelines.supply_chain.declared import images_table, read_images

ROOT = Path(__file__).parents[2]

GOOD = """\
images:
  - name: sample
    source: embedded
  - name: api
    source: registry.example.com/team/api
    tags: [v*]
    platforms: [linux/amd64, linux/arm64]
    attach: true
  - name: local
    source: oci:layouts/app
gate:
  severities: [CRITICAL]
  database_days: 3
  scan_days: 2
vex:
  folder: exceptions
  keys: [reviewer.pub]
builders:
  - id: https://builder.example.com/v1
  - id: https://tekton.example.com/v2
    key: tekton.pub
    level: 3
admission:
  images: [registry.example.com/*]
  mode: Deny
"""


@pytest.fixture
def ops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: Signer, other_signer: Signer) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops/reviewer.pub").write_bytes(signer.public.pem)
    (tmp_path / "ops/tekton.pub").write_bytes(other_signer.public.pem)
    return tmp_path / "ops"


def refused(ops: Path, text: str) -> list[str]:
    (ops / "images.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as found:
        read_images(ops)
    return str(found.value).splitlines()


def test_what_is_declared_arrives(ops: Path, signer: Signer, other_signer: Signer) -> None:
    (ops / "images.yaml").write_text(GOOD)
    found = read_images(ops)
    assert [(each.name, each.kind, each.is_own, each.tags, each.platforms, each.attach) for each in found.images] == [
        ("sample", "embedded", True, ("*",), ("linux/amd64",), False),
        ("api", "registry", False, ("v*",), ("linux/amd64", "linux/arm64"), True),
        ("local", "layout", False, ("*",), ("linux/amd64",), False),
    ]
    assert (found.gate.severities, found.gate.database_days, found.gate.scan_days) == (("CRITICAL",), 3, 2)
    assert found.vex_folder == ops / "exceptions"
    assert [key.keyid for key in found.vex_keys] == [signer.public.keyid]
    assert [(each.id, each.key and each.key.keyid, each.level) for each in found.builders] == [
        ("https://builder.example.com/v1", None, 1),
        ("https://tekton.example.com/v2", other_signer.public.keyid, 3),
    ]
    assert found.admission.mode == "Deny"
    assert found.of("api").source == "registry.example.com/team/api"
    with pytest.raises(BadInput, match=r"image 'nope': allowed: sample, api, local, by ops/images.yaml"):
        found.of("nope")


def test_the_projects_own_file_is_good() -> None:
    found = read_images(ROOT / "ops")
    assert [each.kind for each in found.images] == ["embedded", "environment"]
    assert images_table(found).to_pylist() == [
        {
            "image": name,
            "source": source,
            "kind": source,
            "tags": "*",
            "platforms": "linux/amd64",
            "is_attached": True,
            "is_sample": source == "embedded",
        }
        for name, source in (("sample", "embedded"), ("environment", "environment"))
    ]


ONE = "images:\n  - name: app\n    source: %s\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("images: []\n", "ops/images.yaml:1: images: found an empty list, allowed: "),
        ("gate: {}\n", "ops/images.yaml:1: images: found nothing, allowed: "),
        ("", "ops/images.yaml:1: found an empty file, allowed: "),
        (ONE % "''", "ops/images.yaml:3: images[0].source: found '', allowed: "),
        (ONE % "Team/App", "ops/images.yaml:3: images[0].source: found 'Team/App', allowed: a repository in lower case"),
        (
            ONE % "host.example/app:v1",
            "ops/images.yaml:3: images[0].source: found 'host.example/app:v1', allowed: registry/repository alone; tags",
        ),
        (
            ONE % f"host.example/app@sha256:{'0' * 64}",
            "ops/images.yaml:3: images[0].source: found 'host.example/app@sha256:",
        ),
        (ONE % "'oci:'", "ops/images.yaml:3: images[0].source: found 'oci:', allowed: oci:PATH, the folder of an OCI"),
        (ONE % "a/b" + "    tags: []\n", "ops/images.yaml:4: images[0].tags: found an empty list, allowed: "),
        (ONE % "a/b" + "    tags: ['']\n", "ops/images.yaml:4: images[0].tags[0]: found '', allowed: "),
        (ONE % "a/b" + "    platforms: []\n", "ops/images.yaml:4: images[0].platforms: found an empty list, allowed: "),
        (
            ONE % "a/b" + "    platforms: [linux/amd64, amd64]\n",
            "ops/images.yaml:4: images[0].platforms[1]: found 'amd64', allowed: os/architecture[/variant], such as linux",
        ),
        (ONE % "a/b" + "    attach: 'yes'\n", "ops/images.yaml:4: images[0].attach: found 'yes', allowed: "),
        (ONE % "a/b" + "    platform: x\n", "ops/images.yaml:4: images[0].platform: found an unknown field, allowed: "),
        (
            ONE % "a/b" + "  - name: app\n    source: a/c\n",
            "ops/images.yaml:4: images[1].name: found 'app', allowed: each name once",
        ),
        ("images:\n  - name: My App\n    source: a/b\n", "ops/images.yaml:2: images[0].name: found 'My App', allowed: "),
        (ONE % "a/b" + "gate:\n  severities: []\n", "ops/images.yaml:5: gate.severities: found an empty list, allowed: "),
        (ONE % "a/b" + "gate:\n  severities: [HIHG]\n", "ops/images.yaml:5: gate.severities[0]: found 'HIHG', allowed: "),
        (ONE % "a/b" + "gate:\n  database_days: 0\n", "ops/images.yaml:5: gate.database_days: found 0, allowed: "),
        (ONE % "a/b" + "gate:\n  scan_days: 91\n", "ops/images.yaml:5: gate.scan_days: found 91, allowed: "),
        (
            ONE % "a/b" + "vex:\n  keys: [gone.pub]\n",
            "ops/images.yaml:5: vex.keys[0]: found 'gone.pub', allowed: a PEM file beside images.yaml (No such file",
        ),
        (
            ONE % "a/b" + "vex:\n  keys: [images.yaml]\n",
            "ops/images.yaml:5: vex.keys[0]: found 'images.yaml', allowed: a file with a public key (found no public key",
        ),
        (ONE % "a/b" + "vex:\n  keys: ['']\n", "ops/images.yaml:5: vex.keys[0]: found '', allowed: a PEM file beside"),
        (ONE % "a/b" + "builders:\n  - id: ''\n", "ops/images.yaml:5: builders[0].id: found '', allowed: "),
        (
            ONE % "a/b" + "builders:\n  - id: x\n    level: 3\n",
            "ops/images.yaml:6: builders[0].level: found 3, allowed: 1, or the builder's own key beside it",
        ),
        (ONE % "a/b" + "builders:\n  - id: x\n    level: 4\n", "ops/images.yaml:6: builders[0].level: found 4, allowed: "),
        (
            ONE % "a/b" + "builders:\n  - id: x\n    key: tekton.pub\n",
            "ops/images.yaml:5: builders[0]: found ",
        ),
        (
            ONE % "a/b" + "builders:\n  - id: x\n    key: gone.pub\n    level: 2\n",
            "ops/images.yaml:6: builders[0].key: found 'gone.pub', allowed: a PEM file beside images.yaml",
        ),
        (ONE % "a/b" + "admission:\n  mode: deny\n", "ops/images.yaml:5: admission.mode: found 'deny', allowed: "),
        (ONE % "a/b" + "admission:\n  images: []\n", "ops/images.yaml:5: admission.images: found an empty list, allowed: "),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_its_place(ops: Path, text: str, line: str) -> None:
    (found,) = refused(ops, text)
    assert found.startswith(line)
    assert len(found.partition("allowed: ")[2]) > 3


def test_faults_are_told_together_in_the_order_of_the_file(ops: Path) -> None:
    text = ONE % "A" + "  - name: app\n    source: b\n    platforms: [x]\nbuilders:\n  - id: x\n    level: 2\n"
    assert [line.split(": ")[:2] for line in refused(ops, text)] == [
        ["ops/images.yaml:3", "images[0].source"],
        ["ops/images.yaml:4", "images[1].name"],
        ["ops/images.yaml:6", "images[1].platforms[0]"],
        ["ops/images.yaml:9", "builders[0].level"],
    ]


def test_a_private_key_is_not_taken_for_a_public_one(ops: Path) -> None:
    (ops / "tekton.pub").write_text("-----BEGIN PRIVATE KEY-----\ns3cr3t\n-----END PRIVATE KEY-----\n")
    (line,) = refused(ops, GOOD)
    assert "found a private key, allowed: its public half" in line
    assert "s3cr3t" not in line


def test_a_missing_file_is_named(ops: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ops/images.yaml: found no such file"):
        read_images(ops)
