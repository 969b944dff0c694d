"""Syft as a program: what it is given, what it may not see, how it fails."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from greenops_pipelines.errors import BadInput, ConfigurationError, ProviderError, TransientError
from greenops_pipelines.supply_chain import syft


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with one Python distribution."""
    info = tmp_path / "packages" / "demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    (info / "RECORD").write_text("demo/__init__.py,,\n")
    (tmp_path / "packages" / "demo").mkdir()
    (tmp_path / "packages" / "demo" / "__init__.py").write_text("")
    return tmp_path / "packages"


def script(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def test_one_pass_gives_both_formats_in_the_versions_asked_for_without_files(packages: Path, tmp_path: Path):
    found = syft.scan(f"dir:{packages}", tmp_path, name="subject", version="7")
    cyclonedx, spdx = json.loads(found.cyclonedx), json.loads(found.spdx)
    assert (cyclonedx["specVersion"], spdx["spdxVersion"], found.tool) == ("1.6", "SPDX-2.3", "1.18.1")
    assert [c["purl"] for c in cyclonedx["components"]] == ["pkg:pypi/demo@1.0"]
    assert cyclonedx["metadata"]["component"]["name"] == "subject"
    assert not [f for f in spdx.get("files", []) if f["fileName"].endswith("__init__.py")]


def test_no_path_of_this_machine_stands_in_the_documents_and_nothing_is_left_behind(packages: Path, tmp_path: Path):
    work = tmp_path / "work"
    work.mkdir()
    found = syft.scan(f"dir:{packages}", work, name="subject", version="7")
    assert str(tmp_path).encode() not in found.cyclonedx + found.spdx
    assert list(work.iterdir()) == []


def test_no_link_is_followed_out_of_the_folder(packages: Path, tmp_path: Path):
    outside = tmp_path / "outside" / "other-2.0.dist-info"
    outside.mkdir(parents=True)
    (outside / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 2.0\n")
    (packages / "link").symlink_to(outside.parent)
    found = syft.scan(f"dir:{packages}", tmp_path, name="a", version="1")
    assert [c["name"] for c in json.loads(found.cyclonedx)["components"]] == ["demo"]


def test_the_catalogers_and_the_exclusions_are_syfts_whole_task(packages: Path, tmp_path: Path):
    without = syft.scan(f"dir:{packages}", tmp_path, name="a", version="1", exclude=["**/METADATA"])
    other = syft.scan(f"dir:{packages}", tmp_path, name="a", version="1", catalogers=["go-module-binary-cataloger"])
    assert ["components" in json.loads(each.cyclonedx) for each in (without, other)] == [False, False]


def test_it_gets_neither_our_secrets_nor_our_home(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for a child")
    monkeypatch.setenv("SYFT_SELECT_CATALOGERS", "-python")
    seen = tmp_path / "seen"
    program = script(tmp_path / "syft", f"env > {seen}; exit 3")
    with pytest.raises(ProviderError, match="ended with 3"):
        syft.scan(f"dir:{packages}", tmp_path, name="a", version="1", program=program)
    variables = dict(line.split("=", 1) for line in seen.read_text().splitlines())
    assert "AWS_SECRET_ACCESS_KEY" not in variables
    assert "SYFT_SELECT_CATALOGERS" not in variables
    assert variables["HOME"] == variables["XDG_CONFIG_HOME"] == variables["TMPDIR"] != os.environ.get("HOME")
    assert variables["SYFT_CHECK_FOR_APP_UPDATE"] == "false"


def test_it_runs_below_other_work_and_under_a_limit_of_memory(packages: Path, tmp_path: Path):
    program = script(
        tmp_path / "syft", "nice >&2; while [ $(ulimit -d) = unlimited ]; do :; done; ulimit -d >&2; exit 1"
    )
    with pytest.raises(ProviderError, match=rf"10\n{4 * 1024 * 1024}$"):
        syft.scan(f"dir:{packages}", tmp_path, name="a", version="1", program=program)


def test_the_end_of_what_it_said_is_in_the_error_without_colours(packages: Path, tmp_path: Path):
    program = script(tmp_path / "syft", "printf '%5000s\\n\\033[31mlayer 3 is odd\\033[0m\\n' x >&2; exit 1")
    with pytest.raises(ProviderError, match=r"layer 3 is odd$") as refused:
        syft.scan(f"dir:{packages}", tmp_path, name="a", version="1", program=program)
    assert len(str(refused.value)) < 2300


@pytest.mark.parametrize(
    ("lines", "error", "told"),
    [
        (["exit 0"], ProviderError, "wrote 0 bytes of cyclonedx.json"),
        (["kill -9 $$"], TransientError, "ended by signal 9"),
        (["exec sleep 60"], TransientError, r"still busy with dir:.* after 1 s"),
        (
            ["echo '{\"metadata\": {}}' | tee cyclonedx.json > spdx.json"],
            ProviderError,
            "found another tool's document",
        ),
        (["echo '{\"metadata\": ' | tee cyclonedx.json > spdx.json"], ProviderError, "at character 12"),
    ],
)
def test_a_program_that_is_no_syft_or_does_not_end_is_a_stated_error(
    packages: Path, tmp_path: Path, lines: list[str], error: type[Exception], told: str
):
    with pytest.raises(error, match=told):
        syft.scan(f"dir:{packages}", tmp_path, name="a", version="1", program=script(tmp_path / "s", *lines), seconds=1)


@pytest.mark.parametrize("source", ["registry:alpine", "dir:/nowhere", "alpine", "docker:alpine"])
def test_only_folders_are_scanned(source: str, tmp_path: Path):
    with pytest.raises(BadInput, match="allowed: oci-dir:FOLDER or dir:FOLDER"):
        syft.scan(source, tmp_path, name="a", version="1")


def test_a_program_that_is_not_there_is_a_setting_to_change():
    with pytest.raises(ConfigurationError, match="found no program 'no-such-syft'"):
        syft.find("no-such-syft")
    assert syft.find().name == "syft"
