"""The embedded default's image: deterministic, plain about being a sample."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import greenops_pipelines
from greenops_pipelines.errors import BadInput
from greenops_pipelines.supply_chain import sample_image
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import digest_of


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, str]:
    folder = tmp_path_factory.mktemp("layout")
    return Layout(folder, create=True), sample_image.build(folder)


def members(layout: Layout, digest: str) -> dict[str, tarfile.TarInfo]:
    layer = layout.blob(layout.manifest(digest).layers[0], 1 << 24)
    return {member.name: member for member in tarfile.open(fileobj=io.BytesIO(layer))}


def test_another_process_with_another_hash_seed_and_umask_builds_the_same_digest(image, tmp_path: Path):
    program = (
        "import os, sys, pathlib; os.umask(0o77)\n"
        "from greenops_pipelines.supply_chain import sample_image\n"
        "sys.stdout.write(sample_image.build(pathlib.Path(sys.argv[1])))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "other"], env=environment, capture_output=True, check=True
    )
    assert done.stdout.decode() == image[1]


def test_the_config_names_its_platform_and_moment_and_the_layers_digest(image):
    layout, digest = image
    manifest = layout.manifest(digest)
    config = json.loads(layout.blob(manifest.config, 100_000))
    layer = layout.blob(manifest.layers[0], 1 << 24)
    assert (config["os"], config["architecture"], config["created"]) == ("linux", "amd64", "1970-01-01T00:00:00Z")
    assert config["rootfs"]["diff_ids"] == [digest_of(layer)]
    assert config["config"]["Labels"]["org.opencontainers.image.description"].startswith("Sample image: ")
    assert manifest.annotations["org.opencontainers.image.title"] == "greenops-pipelines-sample"


def test_the_image_holds_the_sources_as_they_are_and_dependencies_with_their_metadata(image):
    found = members(*image)
    errors = Path(greenops_pipelines.__file__).parent / "errors.py"
    assert found["app/site-packages/greenops_pipelines/errors.py"].size == errors.stat().st_size
    names = {name.split("/")[2].partition("-")[0] for name in found if name.endswith(".dist-info/METADATA")}
    assert names == {"greenops_pipelines", "cronsim", "cvss", "python_dotenv", "rfc8785"}
    assert not [name for name in found if name.endswith((".pyc", "direct_url.json", "INSTALLER")) or ".." in name]
    assert {(member.uid, member.gid, member.mtime) for member in found.values()} == {(0, 0, 0)}
    assert list(found) == sorted(found)


def test_another_moment_gives_another_digest(image, tmp_path: Path):
    later = sample_image.build(tmp_path, created=1_700_000_000)
    assert later != image[1]
    assert members(Layout(tmp_path), later)["app"].mtime == 1_700_000_000


def test_a_folder_without_packages_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="found no installed distribution"):
        sample_image.build(tmp_path / "layout", site_packages=tmp_path)
