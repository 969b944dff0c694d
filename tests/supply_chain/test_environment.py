"""The inventory of installed distributions, and the artifact it becomes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from greenops_pipelines.errors import BadInput, ConfigurationError
from greenops_pipelines.supply_chain import environment
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import digest_of

CODE = "demo/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0"
METADATA = "demo-1.0.dist-info/METADATA,sha256=AAAA,40"


def installed(folder: Path, *lines: str, name: str = "Demo", direct_url: str = "") -> Path:
    info = folder / "demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n\nName: not this\n")
    (info / "RECORD").write_text("".join(f"{line}\n" for line in lines))
    if direct_url:
        (info / "direct_url.json").write_text(direct_url)
    return folder


def test_a_distribution_is_told_by_its_normalised_name_its_version_and_the_digest_of_its_records_lines(tmp_path: Path):
    found = environment.inventory(installed(tmp_path, METADATA, CODE, name="De.mo_x"))
    sha256 = hashlib.sha256(f"{METADATA}\n{CODE}\n".encode()).hexdigest()
    assert found.packages == (environment.Package("de-mo-x", "1.0", sha256, 2),)
    assert json.loads(found.document)["packages"] == [
        {"name": "de-mo-x", "version": "1.0", "sha256": sha256, "files": 2}
    ]


@pytest.mark.parametrize(
    "line",
    [
        "demo/__pycache__/__init__.cpython-311.pyc,,",
        "demo-1.0.dist-info/INSTALLER,sha256=pip,4",
        "demo-1.0.dist-info/REQUESTED,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0",
        "demo-1.0.dist-info/direct_url.json,sha256=here,56",
        "demo-1.0.dist-info/uv_cache.json,sha256=here,56",
        "demo-1.0.dist-info/RECORD,,",
        "bin/../bin/demo,sha256=shebang,315",
    ],
)
def test_what_an_installer_writes_by_itself_changes_nothing(tmp_path: Path, line: str):
    (tmp_path / "b" / "bin").mkdir(parents=True)
    (tmp_path / "b" / "bin" / "demo").write_text("#!/somewhere/python\n")
    plain = environment.inventory(installed(tmp_path / "a", METADATA, CODE))
    assert environment.inventory(installed(tmp_path / "b", CODE, line, METADATA)).document == plain.document


@pytest.mark.parametrize(
    "line",
    [
        "demo/extra.py,sha256=other,1",
        "demo/INSTALLER,sha256=a file of the wheel,1",
        "bin/../bin/ruff,sha256=a program of the wheel,1",
    ],
)
def test_what_the_wheel_holds_changes_the_digest(tmp_path: Path, line: str):
    (tmp_path / "b" / "bin").mkdir(parents=True)
    (tmp_path / "b" / "bin" / "ruff").write_bytes(b"\x7fELF")
    plain = environment.inventory(installed(tmp_path / "a", METADATA, CODE))
    assert environment.inventory(installed(tmp_path / "b", METADATA, CODE, line)).document != plain.document


def test_an_editable_install_of_the_project_is_told_as_its_wheel_would_be(tmp_path: Path):
    sources = tmp_path / "checkout" / "greenops_pipelines"
    sources.mkdir(parents=True)
    (sources / "__init__.py").write_bytes(b"")
    (sources / "stale.pyc").write_bytes(b"x")
    line = CODE.replace("demo/", "greenops_pipelines/")
    wheel = environment.inventory(installed(tmp_path / "wheel", METADATA, line, name="greenops-pipelines"))
    origin = json.dumps({"dir_info": {"editable": True}, "url": f"file://{tmp_path}/checkout"})
    pth = "_editable_impl_demo.pth,sha256=a path of this machine,10"
    editable = installed(tmp_path / "editable", METADATA, pth, name="greenops-pipelines", direct_url=origin)
    assert environment.inventory(editable).document == wheel.document


def test_a_distribution_without_a_record_has_no_digest_rather_than_that_of_nothing(tmp_path: Path):
    (installed(tmp_path) / "demo-1.0.dist-info" / "RECORD").unlink()
    assert environment.inventory(tmp_path).packages == (environment.Package("demo", "1.0", None, 0),)


def test_unfit_folders_are_refused_with_their_path(tmp_path: Path):
    with pytest.raises(BadInput, match="found no installed distribution"):
        environment.inventory(tmp_path)
    (installed(tmp_path, CODE) / "demo-1.0.dist-info" / "METADATA").write_text("Name: demo\n\n")
    with pytest.raises(BadInput, match=r"demo-1.0.dist-info/METADATA: found no Name or no Version"):
        environment.inventory(tmp_path)


def test_a_package_that_is_not_installed_is_named(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="found no other; install"):
        environment.installed(("demo", "other"), installed(tmp_path, CODE))


def test_the_artifact_holds_the_inventory_under_a_digest_that_does_not_depend_on_the_folder(tmp_path: Path):
    found = environment.inventory(installed(tmp_path / "packages", CODE))
    digest = environment.as_layout(found, tmp_path / "one")
    assert environment.as_layout(found, tmp_path / "two") == digest == environment.digest(found)
    layout = Layout(tmp_path / "one")
    manifest = layout.manifest(digest)
    assert manifest.artifact_type == "application/vnd.greenops-pipelines.environment.v1+json"
    assert manifest.config.digest == digest_of(b"{}")
    assert layout.blob(manifest.layers[0], 10_000) == found.document


def test_this_environment_lists_its_own_packages_and_no_path_of_this_machine():
    found = environment.inventory()
    assert "greenops-pipelines" in {package.name for package in found.packages}
    assert str(Path.home()).encode() not in found.document
    assert str(environment.site_packages()).encode() not in found.document
