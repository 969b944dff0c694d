"""A small lake in a folder, and the same in a bucket of a moto server on 127.0.0.1."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.storage import LocalFolder, S3Bucket
from tests.lake.declared import SAMPLE, TABLES

REGION = "eu-central-1"


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> Iterator[None]:
    before = pa.cpu_count()
    pa.set_cpu_count(2)
    yield
    pa.set_cpu_count(before)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def lake(home: Path) -> Lake:
    """A lake in a local folder, configured for the provider `sample`."""
    return Lake(LocalFolder(home / "lake"), home / "warehouse.duckdb", SAMPLE, TABLES)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3Bucket:
    """An empty bucket with a prefix."""
    from greenops_pipelines.store.s3 import s3_client

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"lake-{secrets.token_hex(4)}"
    s3_client(s3_endpoint, REGION).create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return S3Bucket(f"s3://{name}/a/prefix", s3_endpoint, REGION)


@pytest.fixture(params=["folder", "s3"])
def any_lake(request: pytest.FixtureRequest, home: Path) -> Lake:
    """The same lake on each storage."""
    storage = LocalFolder(home / "lake") if request.param == "folder" else request.getfixturevalue("bucket")
    return Lake(storage, home / "warehouse.duckdb", SAMPLE, TABLES)
