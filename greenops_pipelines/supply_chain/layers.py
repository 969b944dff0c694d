"""What is inside an image's layers, looked at before Syft unpacks them: streamed, bounded, every digest checked.

A layer is refused that would write or read outside the root when it is unpacked without care. Absolute links (/bin ->
/usr/bin) stay inside an image's root and are normal. Sources: OCI Image Layer Filesystem Changeset, POSIX pax.
Not here: where images come from (`registry.py`), packages (`sbom.py`).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from greenops_pipelines import strict_json
from greenops_pipelines.errors import ProviderError
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import OCI_CONFIG, OCI_INDEX, Descriptor, Manifest

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
LAYERS = frozenset(
    {f"application/vnd.oci.image.layer.v1.tar{packed}" for packed in ("", "+gzip", "+zstd")}
    | {f"application/vnd.docker.image.rootfs.diff.tar{packed}" for packed in ("", ".gzip", ".zstd")}
)
_CHUNK = 1 << 20
_MAX_CONFIG = 4 << 20
_MAX_HEADER = 256 << 10
_MAX_GLOBALS = 1000
_MAX_LINKS = 40
_MAX_NAME_BYTES = 4096
"""PATH_MAX on Linux: a longer name cannot be unpacked."""
_MAX_PARTS = 256
_MAX_STEPS = 1024
"""Of one path with its links followed: 40 links of 256 parts each would take a thousand times as long as any real one."""
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, OSError, ValueError, OverflowError, RecursionError)

Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """Of unpacked bytes and of members; what is larger is refused at the limit, not after it."""

    layer_bytes: int = 4 << 30
    image_bytes: int = 8 << 30
    members: int = 2_000_000


@dataclass(frozen=True)
class Layer:
    """One layer, with its size in bytes as it lies there and unpacked."""

    digest: str
    size: int
    unpacked: int
    members: int


@dataclass(frozen=True)
class Contents:
    """An image that was read to its last byte. `created` is empty where its config names no time."""

    digest: str
    created: str
    labels: dict[str, str]
    layers: tuple[Layer, ...]


def inspect(layout: Path, digest: str, limits: Limits | None = None) -> Contents:
    """Reads the image `digest` in the OCI layout whole: manifest, config, and every layer through to its last member.

    Raises `ProviderError`, naming image, layer and member: for a digest or size that is not as described, a layer of a
    kind that cannot be read, more bytes or members than `limits`, damage, members that leave the root or are devices,
    and names or targets of links above 4,096 bytes or 256 parts.
    """
    limits = limits or Limits()
    image = _Image.open(layout, digest)
    root, found, unpacked = _Root(), [], 0
    for number, layer in enumerate(image.layers):
        left = min(limits.layer_bytes, limits.image_bytes - unpacked)
        stream = _Stream(image, number, left, limits)
        for member in stream:
            try:
                root.add(member, number)
            except _Refused as refused:
                raise stream.fault(f"member {member.name[:300]!r}: {refused}") from None
        found.append(Layer(layer.digest, layer.size, stream.unpacked, stream.count))
        unpacked += stream.unpacked
    if (outside := root.outside()) is not None:
        raise ProviderError(f"image {digest}: link {'/'.join(outside)[:300]!r}: found a target above the root")
    config = image.config.get("config") or {}
    labels = config.get("Labels") or {} if isinstance(config, dict) else {}
    created = image.config.get("created")
    return Contents(
        digest, created if isinstance(created, str) else "", {str(k): str(v) for k, v in labels.items()}, tuple(found)
    )


def read(
    layout: Path, digest: str, paths: Collection[str], limits: Limits | None = None, file_bytes: int = 16 << 20
) -> dict[str, bytes]:
    """The files at these absolute paths, as the uppermost layer has them; not those larger than `file_bytes`, nor missing ones.

    Raises as `inspect`.
    """
    image = _Image.open(layout, digest)
    wanted = {_parts(path): path for path in paths}
    found: dict[str, bytes] = {}
    # A hard link is stored once: where uv links from its cache, METADATA lies under the name in the cache.
    aliases: dict[Path_, set[str]] = {}
    _collect(image, limits or Limits(), file_bytes, {parts: {path} for parts, path in wanted.items()}, found, aliases)
    if aliases:
        _collect(image, limits or Limits(), file_bytes, aliases, found, {})
    return found


def alone(layout: Path, digest: str, folder: Path) -> Path:
    """A layout in the new `folder` that lists this image only: Syft reads none that lists several. Blobs stay where they are."""
    manifest = Layout(layout).manifest(digest)
    folder.mkdir(parents=True)
    (folder / "blobs").symlink_to((layout / "blobs").absolute(), target_is_directory=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [manifest.descriptor.as_document()]}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def _collect(
    image: _Image,
    limits: Limits,
    file_bytes: int,
    wanted: dict[Path_, set[str]],
    found: dict[str, bytes],
    aliases: dict[Path_, set[str]],
) -> None:
    root = _Root()
    for number in range(len(image.layers)):
        stream = _Stream(image, number, limits.layer_bytes, limits)
        for member in stream:
            try:
                place = root.add(member, number)
            except _Refused as refused:
                raise stream.fault(f"member {member.name[:300]!r}: {refused}") from None
            for path in wanted.get(place, ()):
                if member.islnk():
                    aliases.setdefault(root.resolve(_parts(member.linkname)), set()).add(path)
                elif member.isreg() and member.size <= file_bytes:
                    found[path] = stream.content(member)


class _Refused(Exception):
    """What is wrong with a member; the reader adds where."""


@dataclass
class _Root:
    """The links of all layers so far: what decides where a member really lands."""

    links: dict[Path_, tuple[str, int]] = field(default_factory=dict)
    gone: dict[Path_, int] = field(default_factory=dict)

    def add(self, member: tarfile.TarInfo, layer: int) -> Path_:
        """Where the member lands, inside the root."""
        name = member.name
        _check_length(name, "a name")
        if member.islnk() or member.issym():
            _check_length(member.linkname, "a target")
        if name.startswith("/") and name.strip("/"):
            raise _Refused("found an absolute name, allowed: one relative to the root")
        if ".." in name.split("/"):
            raise _Refused("found '..' in its name, allowed: a name without")
        if member.isdev() and not member.isfifo():
            raise _Refused("found a device, allowed: files, folders, links and pipes")
        parts = _parts(name)
        if not parts:
            return ()
        parent, last = self.resolve(parts[:-1]), parts[-1]
        if last.startswith(".wh."):
            hidden = last.removeprefix(".wh.")
            if hidden == ".wh..opq":
                self.gone[parent] = layer
            elif not hidden.startswith(".wh."):
                if hidden in ("", ".", ".."):
                    raise _Refused("found a whiteout of no name")
                self.gone[(*parent, hidden)] = layer
            return (*parent, last)
        place = (*parent, last)
        self.links.pop(place, None)
        if member.islnk():
            self.resolve(_parts(member.linkname))
        elif member.issym():
            self.links[place] = member.linkname, layer
            self._check_target(place, member.linkname)
        return place

    def resolve(self, parts: Path_) -> Path_:
        """The path without links and dots; `_Refused` where it climbs above the root or goes round in circles."""
        ahead, followed, steps = list(reversed(parts)), 0, 0
        here: list[str] = []
        while ahead:
            step = ahead.pop()
            steps += 1
            if steps > _MAX_STEPS or len(here) >= _MAX_PARTS:
                raise _Refused(
                    f"found a path of more than {_MAX_PARTS} parts or {_MAX_STEPS:,} steps with its links followed"
                )
            if step == "..":
                if not here:
                    raise _Refused("found a path that climbs above the root, allowed: one that stays inside")
                here.pop()
                continue
            here.append(step)
            if (target := self._target(tuple(here))) is None:
                continue
            followed += 1
            if followed > _MAX_LINKS:
                raise _Circle(f"found more than {_MAX_LINKS} links in its path")
            here = [] if target.startswith("/") else here[:-1]
            ahead.extend(reversed(_parts(target)))
        return tuple(here)

    def outside(self) -> Path_ | None:
        """A link whose target is above the root now that all layers are known: one it goes through came after it."""
        for place, (target, _) in self.links.items():
            if self._target(place) is not None:
                try:
                    self._check_target(place, target)
                except _Refused:
                    return place
        return None

    def _check_target(self, place: Path_, target: str) -> None:
        # A link to itself (X11 -> .) or a circle leads nowhere, and so not outside.
        with suppress(_Circle):
            self.resolve(_parts(target) if target.startswith("/") else (*place[:-1], *_parts(target)))

    def _target(self, place: Path_) -> str | None:
        if (link := self.links.get(place)) is None:
            return None
        target, layer = link
        hidden = self.gone and any(self.gone.get(place[:n], -1) > layer for n in range(len(place) + 1))
        return None if hidden else target


class _Circle(_Refused):
    pass


@dataclass(frozen=True)
class _Image:
    """A manifest and its config, both checked."""

    layout: Path
    manifest: Manifest
    config: dict[str, Any]
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path, digest: str) -> Self:
        layout = Layout(folder)
        manifest = layout.manifest(digest)
        where = f"image {digest}"
        if manifest.is_index:
            raise ProviderError(f"{where}: found an index of images, allowed: one image, for one platform")
        if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
            raise ProviderError(
                f"{where}: found a config of type {manifest.config.media_type!r}, allowed: {OCI_CONFIG}"
            )
        try:
            config: Any = strict_json.loads(layout.blob(manifest.config, _MAX_CONFIG))
        except ValueError as error:
            raise ProviderError(f"{where}: config: {error}") from None
        match config:
            case {"rootfs": {"type": "layers", "diff_ids": [*ids]}} if all(isinstance(each, str) for each in ids):
                diff_ids = tuple(ids)
            case _:
                raise ProviderError(f"{where}: config: found no rootfs with diff_ids")
        layers = manifest.layers
        if len(diff_ids) != len(layers):
            raise ProviderError(f"{where}: found {len(layers)} layers, allowed: {len(diff_ids)}, as its config says")
        return cls(folder, manifest, config, layers, diff_ids)


class _Stream:
    """The members of one layer; once through, digest, size and diff_id have been checked. Memory does not grow with it."""

    def __init__(self, image: _Image, number: int, limit: int, limits: Limits) -> None:
        self._image, self._number, self._limit, self._limits = image, number, limit, limits
        self._layer = image.layers[number]
        self._tar: tarfile.TarFile | None = None
        self._unpacked = _Counted(io.BytesIO(), 0)
        self.count = 0

    @property
    def unpacked(self) -> int:
        """Bytes of the tar."""
        return self._unpacked.size

    def fault(self, what: str) -> ProviderError:
        return ProviderError(
            f"image {self._image.manifest.digest}: layer {self._number + 1} of {len(self._image.layers)} "
            f"({self._layer.digest}): {what}"
        )

    def content(self, member: tarfile.TarInfo) -> bytes:
        """Of the member that was given out last."""
        assert self._tar is not None  # noqa: S101 (for the type checker: there is a member)
        stream = self._tar.extractfile(member)
        return b"" if stream is None else stream.read()

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        layer = self._layer
        if "nondistributable" in layer.media_type or "foreign" in layer.media_type:
            raise self.fault("found a layer that is not distributed with the image; its content cannot be known")
        if layer.media_type not in LAYERS:
            raise self.fault(f"found the media type {layer.media_type[:100]!r}, allowed: {', '.join(sorted(LAYERS))}")
        path = self._image.layout / "blobs" / "sha256" / layer.digest.removeprefix("sha256:")
        try:
            file = path.open("rb")
        except OSError as error:
            raise self.fault(f"cannot be read: {error.strerror}") from None
        with file:
            packed = _Counted(file, layer.size)
            last = ""
            try:
                self._unpacked = _Counted(_unpacking(file, packed), self._limit)
                with tarfile.open(fileobj=self._unpacked, mode="r|", tarinfo=_Header, bufsize=_CHUNK) as self._tar:
                    declared = 0
                    for member in self._tar:
                        last = member.name
                        self._tar.members.clear()  # type: ignore[attr-defined]
                        if len(self._tar.pax_headers or ()) > _MAX_GLOBALS:
                            raise tarfile.ReadError(f"more than {_MAX_GLOBALS} global headers")
                        self.count += 1
                        # A sparse file is larger than what is stored of it.
                        declared += member.size if member.isreg() else 0
                        if self.count > self._limits.members or declared > self._limit:
                            raise _Exceeded
                        yield member
                for counted in (self._unpacked, packed):
                    while counted.read(_CHUNK):
                        pass
            except _Exceeded:
                if packed.exceeded:
                    raise self.fault(f"found more bytes than {layer.size:,}, as its descriptor says") from None
                raise self.fault(
                    f"stopped at member {self.count:,} ({last[:300]!r}): found more than {self._limit:,} bytes unpacked or "
                    f"{self._limits.members:,} members"
                ) from None
            except _DAMAGE as error:
                told = str(error)[:200] or type(error).__name__
                # Damage by transfer is told as such; a digest that fits means that it was built so.
                what = (
                    "" if packed.drained() == layer.digest else "; its digest is another one than its descriptor says"
                )
                raise self.fault(f"damaged after member {self.count:,} ({last[:300]!r}): {told}{what}") from None
        if packed.size != layer.size or packed.digest != layer.digest:
            raise self.fault(f"found {packed.size:,} bytes of {packed.digest}, allowed: {layer.size:,} as described")
        if (told := self._unpacked.digest) != self._image.diff_ids[self._number]:
            raise self.fault(
                f"found {told} unpacked, allowed: {self._image.diff_ids[self._number][:100]}, as its config says"
            )


class _Exceeded(Exception):
    pass


class _Counted(io.RawIOBase):
    """Counts and hashes what is read, up to a limit of bytes."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._limit, self._hash = stream, limit, hashlib.sha256()
        self.size = 0
        self.exceeded = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(_CHUNK if size is None or size < 0 else size)
        self.size += len(data)
        self._hash.update(data)
        if self.size > self._limit:
            self.exceeded = True
            raise _Exceeded
        return data

    def drained(self) -> str:
        """The digest of all of it, read to the end."""
        with suppress(_Exceeded):
            while self.read(_CHUNK):
                pass
        return self.digest

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class _Header(tarfile.TarInfo):
    """Python's reader takes a damaged header after the first for the archive's end: here it is damage."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None

    def _proc_member(self, tarfile_: tarfile.TarFile) -> Any:
        if self.size < 0 or (self.type in _EXTENDED and self.size > _MAX_HEADER):
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tarfile_)  # type: ignore[misc]


_EXTENDED = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)


def _unpacking(file: IO[bytes], packed: _Counted) -> Any:
    """By the first bytes, as Docker, containerd and Syft do: media types of layers are often wrong about it."""
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=packed, mode="rb")
    if magic == b"\x28\xb5\x2f\xfd":
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd")
    return packed


def _check_length(path: str, what: str) -> None:
    """Before anything is made of it: what follows takes longer by the square of the parts."""
    size = len(path.encode("utf-8", "surrogateescape"))
    if size > _MAX_NAME_BYTES or path.count("/") >= _MAX_PARTS:
        raise _Refused(
            f"found {what} of {size:,} bytes and {path.count('/') + 1:,} parts, allowed: up to {_MAX_NAME_BYTES:,} bytes "
            f"and {_MAX_PARTS} parts"
        )


def _parts(path: str) -> Path_:
    return tuple(part for part in path.split("/") if part not in ("", "."))
