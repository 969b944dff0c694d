"""A small image made by the code, the same bytes everywhere: the embedded default's subject where no registry is declared.

It holds what is installed beside us: this project's sources and a few small dependencies in pure Python. It has no
interpreter and runs nothing, and its labels say that it is a sample. Not here: other images (`registry.py`).
"""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from greenops_pipelines.evidence import canonical
from greenops_pipelines.supply_chain import environment
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import OCI_CONFIG, OCI_MANIFEST

NAME = "greenops-pipelines-sample"
DEPENDENCIES = ("cronsim", "cvss", "python-dotenv", "rfc8785")

# Uncompressed: deflate's bytes differ between builds of zlib, a tar's do not.
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ROOT = PurePosixPath("app/site-packages")


def build(folder: Path, *, created: int = 0, site_packages: Path | None = None) -> str:
    """The image's digest, after it was put into the OCI layout `folder` under the tag `sample`.

    `created` is in seconds since 1970 (SOURCE_DATE_EPOCH); the same packages and the same `created` give the same digest.
    Raises `ConfigurationError` where one of the packages is not installed.
    """
    found = environment.installed((environment.PROJECT, *DEPENDENCIES), site_packages or environment.site_packages())
    layer = _tar({path: data for each in found for path, data in _files(each).items()}, created)
    moment = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {
        "org.opencontainers.image.title": NAME,
        "org.opencontainers.image.description": "Sample image: sources of greenops-pipelines and a few of its "
        "dependencies, without an interpreter. Made to show the supply chain's checks; it runs nothing.",
        "org.opencontainers.image.version": next(each.version for each in found if each.name == environment.PROJECT),
        "org.opencontainers.image.vendor": environment.PROJECT,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.created": moment,
    }
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": moment,
        "config": {"Env": [f"PYTHONPATH=/{_ROOT}"], "WorkingDir": "/app", "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": moment, "created_by": f"{environment.PROJECT} sample image", "comment": "sample"}],
    }
    layout = Layout(folder, create=True)
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": layout.put_blob(canonical.dumps(config), OCI_CONFIG).as_document(),
        "layers": [layout.put_blob(layer, _LAYER).as_document()],
        "annotations": labels,
    }
    return layout.put_manifest(canonical.dumps(manifest), OCI_MANIFEST, "sample").digest


def _files(found: environment.Distribution) -> dict[str, bytes]:
    """Path below `_ROOT` to content, with a RECORD of just these."""
    files = {
        path: found.path(path).read_bytes()
        for path, _, _ in found.lines or ()
        # Start scripts and manual pages lie beside site-packages.
        if not path.startswith("../")
    }
    info = next(path.split("/")[0] for path in files if path.endswith(".dist-info/METADATA"))
    record = io.StringIO()
    for path, data in sorted(files.items()):
        told = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        record.write(f"{path},sha256={told},{len(data)}\n")
    record.write(f"{info}/RECORD,,\n")
    return files | {f"{info}/RECORD": record.getvalue().encode()}


def _tar(files: dict[str, bytes], moment: int) -> bytes:
    """Sorted, owned by root, with folders before what they hold."""
    members: dict[str, bytes | None] = {str(_ROOT / path): data for path, data in files.items()}
    for path in list(members):
        members |= {str(parent): None for parent in PurePosixPath(path).parents if str(parent) != "."}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, data in sorted(members.items()):
            member = tarfile.TarInfo(path)
            member.mtime = moment
            member.mode = 0o755 if data is None else 0o644
            member.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            member.size = len(data or b"")
            tar.addfile(member, None if data is None else io.BytesIO(data))
    return out.getvalue()
