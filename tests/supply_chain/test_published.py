"""Documents in the write-once store: under their own digest, read back, and never believed when they changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from greenops_pipelines.errors import ConfigurationError, ProviderError
from greenops_pipelines.store.local import LocalObjectStore
from greenops_pipelines.store.opening import open_store
from greenops_pipelines.store.s3 import S3ObjectStore
from greenops_pipelines.supply_chain.published import publish, read
from tests.supply_chain.conftest import flip

DIGEST = "sha256:" + "1" * 64
DOCUMENT = b'{"bomFormat":"CycloneDX"}'
SHA256 = hashlib.sha256(DOCUMENT).hexdigest()


def test_a_document_lies_under_its_image_platform_and_digest(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path)
    found = publish(store, DIGEST, "linux/arm/v7", "cdx.json", DOCUMENT)
    assert (found.key, found.sha256) == (f"images/{'1' * 64}/linux-arm-v7/{SHA256}.cdx.json", SHA256)
    assert read(store, found.key, found.sha256) == DOCUMENT
    assert publish(store, DIGEST, "linux/arm/v7", "cdx.json", DOCUMENT) == found


def test_one_that_is_gone_or_changed_is_refused(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path)
    found = publish(store, DIGEST, "linux/amd64", "spdx.json", DOCUMENT)
    with pytest.raises(ProviderError, match="found other bytes than were published"):
        read(store, found.key, "0" * 64)
    (path,) = [each for each in tmp_path.rglob("*.spdx.json") if each.is_file()]
    path.parent.chmod(0o700)
    flip(path)
    with pytest.raises(ProviderError, match="found other bytes than were published"):
        read(store, found.key, found.sha256)
    path.unlink()
    with pytest.raises(ProviderError, match="it was published, and is not in the store"):
        read(store, found.key, found.sha256)


@pytest.mark.parametrize("address", ["ftp://x", "s3://", "s3://A/b", "s3://b", "http://x/y"])
def test_an_address_that_is_no_store_names_its_setting(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^GREENOPS_X: found '.*', allowed: (a folder or )?s3://bucket"):
        open_store(address, "GREENOPS_X")


def test_an_address_is_a_folder_or_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    assert isinstance(open_store(str(tmp_path), "X"), LocalObjectStore)
    assert isinstance(open_store("s3://bucket/a/b/", "X", "http://127.0.0.1:9", "eu-central-1"), S3ObjectStore)
