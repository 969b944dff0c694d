"""The project's own Python environment as a subject: what is installed, told the same way on any machine.

An inventory lists every distribution by name, version and the digest of what its wheel holds; an OCI layout gives it a
digest that attestations can be attached to, as to an image's; its SBOM is Syft's look at the same folder, and what the wheels
say they carry (`carried.py`). Not here: the interpreter, and what becomes of raw SBOMs (`sbom.py`).
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import sysconfig
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from greenops_pipelines import strict_json
from greenops_pipelines.errors import BadInput, ConfigurationError, TransientError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.supply_chain import carried, sbom, syft
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import EMPTY_BYTES, OCI_EMPTY, OCI_MANIFEST, Descriptor, digest_of
from greenops_pipelines.supply_chain.sbom import Sbom
from greenops_pipelines.supply_chain.suppliers import METADATA, Supplier, normalised, python_headers

ARTIFACT_TYPE = "application/vnd.greenops-pipelines.environment.v1+json"
NAME = "greenops-pipelines-environment"
PROJECT = "greenops-pipelines"

CATALOGERS = ("python-installed-package-cataloger", "go-module-binary-cataloger")
"""What Syft looks for in site-packages: distributions, and the modules inside Go programs that wheels carry.

Left out: .NET and Java files that wheels carry as data (11 s more on two cores), and C libraries copied into wheels, which
Syft 1.18 knows by no version.
"""
EXCLUDED = ("**/direct_url.json",)
"""Says from which folder or address an installer took a wheel: differs between machines with the same wheels."""

_BY_INSTALLER = frozenset(
    {"INSTALLER", "REQUESTED", "RECORD", "RECORD.jws", "RECORD.p7s", "direct_url.json", "provenance_url.json"}
    | {"uv_build.json", "uv_cache.json"}
)


@dataclass(frozen=True)
class Package:
    """One installed distribution. `sha256` covers its files by their digests in RECORD; None where it has no RECORD."""

    name: str
    version: str
    sha256: str | None
    files: int


@dataclass(frozen=True)
class Inventory:
    """`document` is canonical JSON; its digest is equal wherever the same wheels are installed."""

    document: bytes
    packages: tuple[Package, ...]


@dataclass(frozen=True)
class Distribution:
    """A distribution in a folder of packages. `lines` are those of its wheel's files: path, digest, size."""

    name: str
    version: str
    folder: Path
    lines: tuple[tuple[str, str, str], ...] | None
    sources: Path | None = None
    """Where its files lie, if not in `folder`: an editable install of this project."""

    def path(self, line: str) -> Path:
        """The file of a line of RECORD."""
        in_folder = self.folder / line
        return self.sources / line if self.sources is not None and not in_folder.exists() else in_folder


def site_packages() -> Path:
    """Of the running interpreter."""
    return Path(sysconfig.get_path("purelib"))


def inventory(folder: Path | None = None) -> Inventory:
    """Every distribution installed in `folder`, by default in this environment. RECORD is believed; files are not read again.

    Not counted: compiled byte code, and what an installer writes by itself (its name, addresses, start scripts).
    Raises `BadInput` where the folder, or the metadata of one distribution, is unfit.
    """
    packages = tuple(
        Package(
            each.name,
            each.version,
            None if each.lines is None else _digest(each.lines),
            len(each.lines or ()),
        )
        for each in distributions(folder or site_packages())
    )
    listed = [{"name": p.name, "version": p.version, "sha256": p.sha256, "files": p.files} for p in packages]
    return Inventory(canonical.dumps({"format": ARTIFACT_TYPE, "packages": listed}), packages)


def as_layout(inventory: Inventory, folder: Path) -> str:
    """The inventory as one artifact in the OCI layout `folder`, which is made where there is none; its digest.

    The form is OCI 1.1's "Guidelines for Artifact Usage": an empty config, one layer, an `artifactType`.
    """
    layout = Layout(folder, create=True)
    layout.put_blob(EMPTY_BYTES, OCI_EMPTY)
    layout.put_blob(inventory.document, ARTIFACT_TYPE)
    return layout.put_manifest(_manifest(inventory), OCI_MANIFEST, "environment").digest


def digest(inventory: Inventory) -> str:
    """Of the artifact that `as_layout` makes."""
    return digest_of(_manifest(inventory))


def _manifest(inventory: Inventory) -> bytes:
    config = Descriptor(OCI_EMPTY, digest_of(EMPTY_BYTES), len(EMPTY_BYTES))
    layer = Descriptor(ARTIFACT_TYPE, digest_of(inventory.document), len(inventory.document))
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": config.as_document(),
        "layers": [layer.as_document()],
        "annotations": {
            "org.opencontainers.image.title": NAME,
            "org.opencontainers.image.description": "Python distributions installed beside greenops-pipelines",
            "org.opencontainers.image.vendor": PROJECT,
        },
    }
    return canonical.dumps(manifest)


def distributions(folder: Path) -> tuple[Distribution, ...]:
    """Those with a `.dist-info` or `.egg-info` folder in `folder`, by name and version; `BadInput` where it has none."""
    found = [_distribution(each) for each in folder.glob("*.dist-info") if each.is_dir()]
    found += [_distribution(each, "PKG-INFO") for each in folder.glob("*.egg-info") if each.is_dir()]
    if not found:
        raise BadInput(f"{folder}: found no installed distribution, allowed: a folder of Python packages")
    return tuple(sorted(found, key=lambda each: (each.name, each.version, str(each.folder))))


def bill(expected: str, folder: Path, *, packages: Path | None = None, program: str = "", seconds: float = 600) -> Sbom:
    """The SBOM of the environment whose artifact has the digest `expected`. Syft works in a temporary folder in `folder`.

    Raises `TransientError` where the environment has another digest before or after Syft's look: what was seen is not what
    the digest names.
    """
    place = packages or site_packages()
    _check_unchanged(place, expected)
    raw = syft.scan(
        f"dir:{place}",
        folder,
        name=NAME,
        version=expected,
        program=program,
        seconds=seconds,
        catalogers=CATALOGERS,
        exclude=EXCLUDED,
    )
    files = {path: file.read_bytes() for path in sbom.wanted(raw.cyclonedx) if (file := place / path[1:]).is_file()}
    documents, unfit = _carried(place)
    inside, unread = carried.read(documents)
    _check_unchanged(place, expected)
    return sbom.normalise(
        raw.cyclonedx,
        raw.spdx,
        digest=expected,
        name=NAME,
        files=files,
        supplier=Supplier(PROJECT, METADATA),
        kind="application",
        inside=inside,
        unread=sorted((*unfit, *unread)),
    )


def _check_unchanged(place: Path, expected: str) -> None:
    if (found := digest(inventory(place))) != expected:
        raise TransientError(
            f"{NAME}: the environment changed meanwhile: found {found}, allowed: {expected}; the next look will notice it"
        )


def _carried(place: Path) -> tuple[dict[str, bytes], list[str]]:
    """The SBOMs in wheels (PEP 770) by absolute path, and why single ones were not taken.

    Only what RECORD lists, with the digest it states: that alone is covered by the environment's digest.
    """
    recorded = {line[0]: line[1] for each in distributions(place) for line in each.lines or ()}
    found, unfit = {}, []
    for path in sorted(place.glob("*.dist-info/sboms/**/*")):
        name = path.relative_to(place).as_posix()
        if not path.is_file():
            continue
        if path.stat().st_size > carried.MAX_DOCUMENT_BYTES:
            unfit.append(f"/{name}: found more than {carried.MAX_DOCUMENT_BYTES:,} bytes")
            continue
        data = path.read_bytes()
        if recorded.get(name) == _recorded(data):
            found[f"/{name}"] = data
        else:
            unfit.append(f"/{name}: found other bytes than RECORD lists")
    return found, unfit


def installed(names: Collection[str], folder: Path) -> tuple[Distribution, ...]:
    """Those of these names, in the order of `distributions`; `ConfigurationError` where one is not installed."""
    found = tuple(each for each in distributions(folder) if each.name in names)
    if missing := sorted(set(names) - {each.name for each in found}):
        raise ConfigurationError(f"{folder}: found no {', '.join(missing)}; install the project with its dependencies")
    return found


def _distribution(info: Path, metadata: str = "METADATA") -> Distribution:
    try:
        headers = python_headers((info / metadata).read_bytes())
    except OSError as error:
        raise BadInput(f"{info / metadata}: {error.strerror}; install that distribution again") from None
    name, version = headers.get("Name", "").strip(), headers.get("Version", "").strip()
    if not name or not version:
        raise BadInput(f"{info / metadata}: found no Name or no Version; install that distribution again")
    name = normalised(name)
    record = info / "RECORD"
    if not record.is_file():
        return Distribution(name, version, info.parent, None)
    rows = csv.reader(io.StringIO(record.read_text("utf-8")))
    lines = {(row[0], row[1], row[2]) for row in rows if len(row) == 3 and _is_of_wheel(row[0], info)}
    sources = _sources(info) if name == PROJECT else None
    if sources is not None:
        # An editable install's RECORD names a path of this machine and none of the sources: told as the wheel would tell.
        lines = {line for line in lines if not line[0].endswith(".pth")} | set(_hashed(sources))
    return Distribution(name, version, info.parent, tuple(sorted(lines)), sources)


def _is_of_wheel(path: str, info: Path) -> bool:
    """Whether the line stands in the wheel too, with the same digest."""
    parts = path.split("/")
    if path.endswith(".pyc") or (parts[0] == info.name and parts[-1] in _BY_INSTALLER):
        return False
    if ".." in parts and parts[-2] in ("bin", "Scripts"):
        # Start scripts name the interpreter in their first line; programs (ruff, uv) are as they were in the wheel.
        try:
            with (info.parent / path).open("rb") as stream:
                return stream.read(2) != b"#!"
        except OSError:
            return True
    return True


def _sources(info: Path) -> Path | None:
    try:
        origin = strict_json.loads((info / "direct_url.json").read_bytes())
    except (OSError, ValueError):
        return None
    match origin:
        case {"dir_info": {"editable": True}, "url": str(url)} if url.startswith("file://"):
            return Path(unquote(urlsplit(url).path))
    return None


def _hashed(sources: Path) -> Iterator[tuple[str, str, str]]:
    """Lines of RECORD for the project's own package."""
    for path in (sources / PROJECT.replace("-", "_")).rglob("*"):
        if path.is_file() and path.suffix != ".pyc" and not path.name.startswith("."):
            data = path.read_bytes()
            yield path.relative_to(sources).as_posix(), _recorded(data), str(len(data))


def _recorded(data: bytes) -> str:
    """The digest as RECORD spells it."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _digest(lines: tuple[tuple[str, str, str], ...]) -> str:
    return hashlib.sha256("".join(f"{','.join(line)}\n" for line in lines).encode()).hexdigest()
