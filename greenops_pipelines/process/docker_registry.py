"""A real registry on loopback, Debian's `docker-registry`, with its data in a folder. Not here: what is pushed to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from greenops_pipelines.process import ports
from greenops_pipelines.process.child import Child

PROGRAM = "docker-registry"
_START_SECONDS = 20


def found() -> bool:
    """Whether it is installed."""
    return shutil.which(PROGRAM) is not None


@contextmanager
def running(folder: Path, *, lets_delete: bool = False) -> Iterator[str]:
    """127.0.0.1:<port> of a registry that keeps its blobs below `folder`, for as long as the block lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    port = ports.free_port()
    document = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": lets_delete},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    config.write_text(json.dumps(document))  # JSON is YAML
    install = "the Debian package docker-registry"
    with Child.start([PROGRAM, "serve", config], log=folder / "registry.log", install=install) as child:
        child.wait_for_http(f"http://127.0.0.1:{port}/v2/", _START_SECONDS)
        yield f"127.0.0.1:{port}"
