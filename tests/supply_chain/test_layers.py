"""Images looked at before they are unpacked: what real ones hold passes, what leaves the root or is damaged does not."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.errors import ProviderError
from greenops_pipelines.supply_chain import layers
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import EMPTY_BYTES, OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, digest_of

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
PLAIN = "application/vnd.oci.image.layer.v1.tar"

Member = tuple[str, bytes, str | bytes]


def file(name: str, content: bytes = b"x") -> Member:
    return name, tarfile.REGTYPE, content


def symlink(name: str, target: str) -> Member:
    return name, tarfile.SYMTYPE, target


def hardlink(name: str, target: str) -> Member:
    return name, tarfile.LNKTYPE, target


def folder(name: str) -> Member:
    return name, tarfile.DIRTYPE, b""


def tar(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if isinstance(content, str):
                info.linkname = content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def image(
    place: Path,
    *unpacked: bytes,
    packed: Iterable[bytes] | None = None,
    media_type: str = PLAIN,
    diff_ids: list[str] | None = None,
    config: dict[str, Any] | None = None,
) -> str:
    layout = Layout(place, create=True)
    blobs = [layout.put_blob(data, media_type) for data in (unpacked if packed is None else packed)]
    rootfs = {"type": "layers", "diff_ids": [digest_of(d) for d in unpacked] if diff_ids is None else diff_ids}
    described = {"rootfs": rootfs, "created": "2024-05-06T07:08:09Z", "config": {"Labels": {"a": "b"}}} | (config or {})
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": layout.put_blob(json.dumps(described).encode(), OCI_CONFIG).as_document(),
        "layers": [blob.as_document() for blob in blobs],
    }
    return layout.put_manifest(json.dumps(manifest).encode(), OCI_MANIFEST, "image").digest


def test_an_image_is_told_by_its_layers_its_moment_and_its_labels(tmp_path: Path):
    first, second = tar(file("a", b"12345")), tar(folder("d"), file("d/b"))
    found = layers.inspect(tmp_path, image(tmp_path, first, second))
    assert (found.created, found.labels) == ("2024-05-06T07:08:09Z", {"a": "b"})
    assert found.layers == (
        layers.Layer(digest_of(first), 10240, 10240, 1),
        layers.Layer(digest_of(second), 10240, 10240, 2),
    )


NORMAL = {
    "an absolute link to a folder, and a member that goes through it": [
        [folder("usr/bin"), symlink("bin", "/usr/bin")],
        [file("bin/sh")],
    ],
    "a relative link that is deep enough only where its folder really is": [
        [folder("usr/lib"), symlink("lib", "usr/lib"), symlink("lib/x.so", "../../etc/x.so")]
    ],
    "a link to the root's own folder": [[symlink("usr/bin/X11", "."), symlink("etc/mtab", "../proc/self/mounts")]],
    "links in a circle": [[symlink("a", "b"), symlink("b", "a")]],
    "a link that leads nowhere": [[symlink("a", "/not/there")]],
    "hard links, relative and absolute as kaniko writes them": [
        [file("usr/bin/perl"), hardlink("usr/bin/perl5", "usr/bin/perl"), hardlink("p", "/usr/bin/perl")]
    ],
    "whiteouts": [
        [file("a"), folder("d"), file("d/b")],
        [file(".wh.a", b""), file("d/.wh..wh..opq", b""), file(".wh..wh.plnk", b"")],
    ],
    "names with a dot before and slashes after": [[folder("./"), folder("./usr/"), file("./usr/a")]],
    "the root under its own name": [[folder("/"), file("a")]],
    "a pipe, a long name and a name in no alphabet": [
        [("run/pipe", tarfile.FIFOTYPE, b""), file("d/" * 120 + "f"), file("d/" * 255 + "f"), file("ünï/\N{SNOWMAN}")]
    ],
    "a link upwards that a later layer took away before using its name": [
        [folder("a/b"), symlink("a/b/c", "../..")],
        [file("a/b/.wh.c", b"")],
        [folder("a/b/c"), symlink("a/b/c/d", "../../..")],
    ],
    "a link that a whiteout of its folder took away": [
        [symlink("d/x", "/")],
        [file(".wh.d", b"")],
        [symlink("d/x/up", "../../z")],
    ],
    "a link that an opaque folder hides": [
        [symlink("d/x", "/")],
        [file("d/.wh..wh..opq", b""), symlink("d/x/up", "../../z")],
    ],
    "no members": [[]],
}


@pytest.mark.parametrize("case", NORMAL)
def test_what_real_images_hold_passes(tmp_path: Path, case: str):
    content = [tar(*members) for members in NORMAL[case]]
    assert len(layers.inspect(tmp_path, image(tmp_path, *content)).layers) == len(content)


OUTSIDE = {
    "an absolute name": ([[file("/etc/passwd")]], "'/etc/passwd': found an absolute name"),
    "dots in a name": ([[file("../etc/passwd")]], r"'../etc/passwd': found '\.\.' in its name"),
    "dots inside a name": ([[file("a/../../etc/passwd")]], r"found '\.\.' in its name"),
    "a link above the root": ([[symlink("a", "../etc")]], "'a': found a path that climbs above the root"),
    "a deep link above the root": ([[symlink("a/b/c", "../../../etc")]], "climbs above the root"),
    "a link above the root through another": (
        [[folder("d"), symlink("d/up", ".."), symlink("out", "d/up/../etc")]],
        "'out': found a path that climbs above the root",
    ),
    "a link above the root through an absolute one": (
        [[folder("d"), symlink("d/root", "/"), symlink("out", "d/root/../etc")]],
        "'out': found a path that climbs above the root",
    ),
    "a member through a link that a later one turned outwards": (
        [[symlink("out", "d/up/../etc")], [folder("d"), symlink("d/up", "..")], [file("out/passwd")]],
        "layer 3 of 3 .* 'out/passwd': found a path that climbs above the root",
    ),
    "a link that a later one turned outwards": (
        [[symlink("out", "d/up/../etc"), folder("d"), symlink("d/up", "..")]],
        "link 'out': found a target above the root",
    ),
    "a hard link above the root": ([[hardlink("shadow", "../etc/shadow")]], "'shadow': found a path that climbs"),
    "a member through links in a circle": (
        [[symlink("a", "b"), symlink("b", "a"), file("a/x")]],
        "'a/x': found more than 40 links",
    ),
    "a device": ([[("dev/sda", tarfile.BLKTYPE, b"")]], "'dev/sda': found a device"),
    "a name of very many parts": (
        [[file("d/" * 60_000 + "f")]],
        r"found a name of 120,001 bytes and 60,001 parts, allowed: up to 4,096 bytes and 256 parts",
    ),
    "a name of one part more than allowed": ([[file("d/" * 256 + "f")]], "found a name of 513 bytes and 257 parts"),
    "a name of one byte more than allowed": (
        [[file(f"{'d' * 240}/" * 16 + "d" * 241)]],
        "found a name of 4,097 bytes and 17 parts",
    ),
    "a link to very many parts": ([[symlink("a", "d/" * 256 + "f")]], "'a': found a target of 513 bytes and 257 parts"),
    "a hard link to very many parts": ([[hardlink("a", "d/" * 256 + "f")]], "found a target of 513 bytes"),
    "a path that its links make very deep": (
        [[symlink("a", "d/" * 200 + "b"), symlink("d/" * 200 + "b", "e/" * 200 + "f")]],
        "found a path of more than 256 parts or 1,024 steps",
    ),
    "a path that its links make very long": (
        [[symlink(f"l{n}", f"l{n - 1}/" + "x/../" * 126) for n in range(1, 12)] + [file("l11/f")]],
        "found a path of more than 256 parts or 1,024 steps",
    ),
    "a whiteout of what lies above": ([[file(".wh...", b"")]], "found a whiteout of no name"),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_what_leaves_the_root_is_refused_by_image_layer_and_member(tmp_path: Path, case: str):
    members, told = OUTSIDE[case]
    digest = image(tmp_path, *(tar(*each) for each in members))
    with pytest.raises(ProviderError, match=told) as refused:
        layers.inspect(tmp_path, digest)
    assert str(refused.value).startswith(f"image {digest}: ")


NAMES = st.lists(st.sampled_from(["a", "b", "c", ".."]), min_size=1, max_size=4).map("/".join)
MEMBERS = st.lists(
    st.one_of(
        st.tuples(NAMES, st.just(tarfile.SYMTYPE), st.one_of(NAMES, NAMES.map(lambda name: f"/{name}"))),
        st.tuples(NAMES, st.just(tarfile.REGTYPE), st.just(b"x")),
    ),
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(MEMBERS)
def test_whatever_passes_lands_inside_when_a_file_system_follows_its_links(tmp_path_factory, members: list[Member]):
    place = tmp_path_factory.mktemp("any")
    digest = image(place / "layout", tar(*members))
    try:
        layers.inspect(place / "layout", digest)
    except ProviderError:
        return
    # Unpacked as carelessly as can be, with absolute links turned to the root: nothing may appear beside it.
    root = place / "outer" / "root"
    root.mkdir(parents=True)
    for name, kind, content in members:
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if kind == tarfile.SYMTYPE:
                target = str(content)
                path.symlink_to(root / target[1:] if target.startswith("/") else target)
            else:
                path.write_bytes(bytes(content))
        except OSError:
            continue
        assert path.parent.resolve().is_relative_to(root)
    assert [each.name for each in (place / "outer").iterdir()] == ["root"]


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


CONTENT = tar(file("etc/os-release", b"ID=demo"), file("big", b"0123456789" * 50_000))


@pytest.mark.parametrize(
    ("media_type", "packed"),
    [
        (GZIP, gzip.compress(CONTENT)),
        (GZIP, gzip.compress(CONTENT[:5000]) + gzip.compress(CONTENT[5000:])),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd(CONTENT)),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd(CONTENT[:5000]) + zstd(CONTENT[5000:])),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.compress(CONTENT)),
        ("application/vnd.docker.image.rootfs.diff.tar", CONTENT),
        # What its media type says is often wrong; Docker and Syft look at the bytes.
        (GZIP, CONTENT),
        (PLAIN, gzip.compress(CONTENT)),
    ],
)
def test_layers_are_read_however_they_are_packed(tmp_path: Path, media_type: str, packed: bytes):
    digest = image(tmp_path, CONTENT, packed=[packed], media_type=media_type)
    (layer,) = layers.inspect(tmp_path, digest).layers
    assert (layer.size, layer.unpacked, layer.members) == (len(packed), len(CONTENT), 2)
    assert layers.read(tmp_path, digest, ["/etc/os-release"]) == {"/etc/os-release": b"ID=demo"}


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


SECOND_HEADER = 1024


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (damaged(CONTENT, SECOND_HEADER + 150), r"damaged after member 1 \('etc/os-release'\): invalid header"),
        (damaged(CONTENT, 10), r"damaged after member 0 \(''\): "),
        (CONTENT[:200_000], r"damaged after member 2 \('big'\): unexpected end of data"),
        (CONTENT[: SECOND_HEADER + 100], r"damaged after member 1 \('etc/os-release'\): truncated header"),
        (b"\x1f\x8b" + b"\x00" * 600, "damaged after member 0"),
        (gzip.compress(CONTENT)[:-20], "damaged after member"),
        (gzip.compress(CONTENT) + b"garbage", r"damaged after member .*: Not a gzipped file"),
        (zstd(CONTENT)[:-4], "damaged after member"),
        (b"", "damaged after member 0"),
        (b"no tar at all" * 100, "damaged after member 0"),
    ],
)
def test_a_damaged_layer_is_refused_though_its_digest_is_right(tmp_path: Path, content: bytes, told: str):
    with pytest.raises(ProviderError, match=rf"layer 1 of 1 \(sha256:.*\): {told}") as refused:
        layers.inspect(tmp_path, image(tmp_path, content))
    assert "another one than its descriptor says" not in str(refused.value)


def blob(place: Path, digest: str) -> Path:
    return place / "blobs" / "sha256" / digest.removeprefix("sha256:")


@pytest.mark.parametrize("packed", [CONTENT, gzip.compress(CONTENT)])
@pytest.mark.parametrize("at", [30, -40])
def test_a_flipped_byte_is_found_whether_or_not_the_archive_still_reads(tmp_path: Path, packed: bytes, at: int):
    digest = image(tmp_path, CONTENT, packed=[packed])
    path = blob(tmp_path, digest_of(packed))
    path.write_bytes(damaged(packed, at % len(packed)))
    with pytest.raises(ProviderError, match=r"digest is another one|allowed: .* as described"):
        layers.inspect(tmp_path, digest)
    path.write_bytes(packed)
    assert layers.inspect(tmp_path, digest)


def test_a_layer_longer_or_shorter_than_described_or_not_there_is_refused(tmp_path: Path):
    digest = image(tmp_path, CONTENT)
    path = blob(tmp_path, digest_of(CONTENT))
    path.write_bytes(CONTENT + b"\0" * 512)
    with pytest.raises(ProviderError, match=f"found more bytes than {len(CONTENT):,}, as its descriptor says"):
        layers.inspect(tmp_path, digest)
    path.write_bytes(CONTENT[:-512])
    with pytest.raises(ProviderError, match=f"found {len(CONTENT) - 512:,} bytes of sha256:"):
        layers.inspect(tmp_path, digest)
    path.unlink()
    with pytest.raises(ProviderError, match="cannot be read: No such file"):
        layers.inspect(tmp_path, digest)


def test_content_that_is_not_what_the_config_says_is_refused(tmp_path: Path):
    other = digest_of(b"other")
    with pytest.raises(ProviderError, match=f"allowed: {other}, as its config says"):
        layers.inspect(tmp_path, image(tmp_path, CONTENT, diff_ids=[other]))


LIMITS = layers.Limits(layer_bytes=4 << 20, image_bytes=6 << 20, members=1000)


@pytest.mark.parametrize(
    "content",
    [
        tar(file("zeros", bytes(50 << 20))),
        tar() + bytes(50 << 20),
        tar(*(file(f"z{number}", bytes(1 << 20)) for number in range(5))),
        tar(*(file(f"z{number}", b"") for number in range(1001))),
    ],
    ids=["one large file", "nothing behind the end", "files that add up", "very many files"],
)
def test_a_layer_that_grows_stops_at_the_limit_without_using_memory(tmp_path: Path, content: bytes):
    digest = image(tmp_path, content, packed=[gzip.compress(content)])
    tracemalloc.start()
    try:
        with pytest.raises(
            ProviderError, match=r"stopped at member .*: found more than 4,194,304 bytes unpacked or 1,000"
        ):
            layers.inspect(tmp_path, digest, LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_members(tmp_path: Path):
    digest = image(tmp_path, tar(*(file(f"f{number}", b"") for number in range(10_000))))
    tracemalloc.start()
    try:
        assert layers.inspect(tmp_path, digest).layers[0].members == 10_000
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()


def test_layers_that_are_small_each_stop_at_the_images_limit(tmp_path: Path):
    content = tar(file("zeros", bytes(2 << 20)))
    digest = image(tmp_path, content, content, content)
    with pytest.raises(ProviderError, match=r"layer 3 of 3 .* stopped at member 1"):
        layers.inspect(tmp_path, digest, LIMITS)


def test_a_sparse_file_counts_with_the_size_it_has_unpacked(tmp_path: Path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("sparse")
        info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 40), "GNU.sparse.name": "sparse"}
        archive.addfile(info)
    with pytest.raises(ProviderError, match="stopped at member 1"):
        layers.inspect(tmp_path, image(tmp_path, out.getvalue()), LIMITS)


def test_headers_of_headers_are_bounded(tmp_path: Path):
    long = tarfile.TarInfo("x")
    long.pax_headers = {"comment": "y" * (1 << 20)}
    content = long.tobuf(tarfile.PAX_FORMAT) + tar()
    with pytest.raises(ProviderError, match=r"damaged after member 0 .*a header of 1,048,\d\d\d bytes"):
        layers.inspect(tmp_path, image(tmp_path, content))
    globals_ = tarfile.TarInfo.create_pax_global_header({"comment": "z"})
    with pytest.raises(ProviderError, match="damaged after member 0"):
        layers.inspect(tmp_path, image(tmp_path, globals_ * 5000 + tar(file("a"))))


@pytest.mark.parametrize(
    ("media_type", "told"),
    [
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "not distributed with the image"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "not distributed with the image"),
        (GZIP + "+encrypted", "found the media type 'application/vnd.oci.image.layer.v1.tar.gzip.encrypted', allowed"),
        ("application/json", "found the media type 'application/json', allowed"),
    ],
)
def test_layers_whose_content_cannot_be_known_are_named(tmp_path: Path, media_type: str, told: str):
    with pytest.raises(ProviderError, match=told):
        layers.inspect(tmp_path, image(tmp_path, CONTENT, media_type=media_type))


def test_what_is_no_image_for_one_platform_is_refused(tmp_path: Path):
    digest = image(tmp_path, CONTENT)
    layout = Layout(tmp_path)
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [layout.manifest(digest).descriptor.as_document()],
    }
    listed = layout.put_manifest(json.dumps(index).encode(), OCI_INDEX, "index").digest
    with pytest.raises(ProviderError, match="found an index of images, allowed: one image"):
        layers.inspect(tmp_path, listed)
    empty = layout.put_blob(EMPTY_BYTES, OCI_EMPTY).as_document()
    artifact = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": [empty]}
    other = layout.put_manifest(json.dumps(artifact).encode(), OCI_MANIFEST, "artifact").digest
    with pytest.raises(ProviderError, match=r"found a config of type 'application/vnd.oci.empty.v1\+json'"):
        layers.inspect(tmp_path, other)


@pytest.mark.parametrize("config", [{"rootfs": {}}, {"rootfs": {"type": "layers", "diff_ids": [1]}}, {"rootfs": None}])
def test_a_config_without_digests_of_its_layers_is_refused(tmp_path: Path, config: dict[str, Any]):
    with pytest.raises(ProviderError, match="found no rootfs with diff_ids"):
        layers.inspect(tmp_path, image(tmp_path, CONTENT, config=config))


def test_as_many_layers_as_the_config_says(tmp_path: Path):
    with pytest.raises(ProviderError, match="found 1 layers, allowed: 2, as its config says"):
        layers.inspect(tmp_path, image(tmp_path, CONTENT, diff_ids=[digest_of(CONTENT)] * 2))


def test_files_are_read_from_the_uppermost_layer_through_links_in_their_path(tmp_path: Path):
    digest = image(
        tmp_path,
        tar(folder("opt/v1"), symlink("app", "/opt/v1"), file("app/METADATA", b"old"), file("other", b"o")),
        tar(file("app/METADATA", b"new"), file("app/large", b"12345")),
    )
    found = layers.read(tmp_path, digest, ["/opt/v1/METADATA", "/opt/v1/large", "/not/there"], file_bytes=4)
    assert found == {"/opt/v1/METADATA": b"new"}


def test_a_hard_link_is_read_where_it_points_as_uv_leaves_them(tmp_path: Path):
    digest = image(tmp_path, tar(file("cache/m", b"Name: x"), hardlink("site/METADATA", "cache/m"), file("z")))
    assert layers.read(tmp_path, digest, ["/site/METADATA"]) == {"/site/METADATA": b"Name: x"}


def test_a_layout_of_one_image_among_several_lists_it_alone_and_shares_its_blobs(tmp_path: Path):
    first, _ = image(tmp_path / "all", CONTENT), image(tmp_path / "all", tar(file("b")))
    alone = layers.alone(tmp_path / "all", first, tmp_path / "one")
    assert [each.digest for each in Layout(alone).entries()] == [first]
    assert layers.inspect(alone, first).layers[0].unpacked == len(CONTENT)
    assert hashlib.sha256(blob(alone, first).read_bytes()).hexdigest() == first.removeprefix("sha256:")
