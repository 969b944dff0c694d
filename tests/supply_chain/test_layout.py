"""A folder as a repository: damage is named, writers take turns, and a killed one leaves something readable."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from greenops_pipelines.errors import BadInput, GreenopsError, ObjectMissing, PermanentError, ProviderError
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import OCI_MANIFEST, Descriptor, digest_of
from tests.supply_chain.conftest import LAYER, flip, image, pushed
from tests.supply_chain.test_registry import attached


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout", create=True)


def blob(layout: Layout, digest: str) -> Path:
    return layout.folder / "blobs/sha256" / digest.removeprefix("sha256:")


def layer_of(layout: Layout, wanted: str = "v1") -> Descriptor:
    return layout.manifest(wanted).layers[0]


def refused(kind: type[GreenopsError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


def test_what_is_put_is_found_by_tag_and_by_digest(layout: Layout, tmp_path: Path) -> None:
    digest = pushed(layout, "v1", b"content")
    found = layout.manifest("v1")
    assert (found.digest, found.media_type, layout.manifest(digest)) == (digest, OCI_MANIFEST, found)
    assert layout.blob(found.layers[0], 7) == b"content"
    layout.fetch(found.layers[0], tmp_path / "layer", 7)
    assert (tmp_path / "layer").read_bytes() == b"content"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["layer", "layout"]


def test_the_files_are_those_of_the_specification(layout: Layout) -> None:
    digest = pushed(layout)
    assert (layout.folder / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'
    assert json.loads((layout.folder / "index.json").read_text())["manifests"] == [
        {
            "mediaType": OCI_MANIFEST,
            "digest": digest,
            "size": len(image()[0]),
            "annotations": {"org.opencontainers.image.ref.name": "v1"},
        }
    ]
    assert digest_of(blob(layout, digest).read_bytes()) == digest


def test_a_tag_points_at_one_manifest_and_a_manifest_may_have_several(layout: Layout) -> None:
    one, two = pushed(layout, "v1", b"one"), pushed(layout, "v1", b"two")
    pushed(layout, "latest", b"two")
    assert layout.tags() == ("latest", "v1")
    assert layout.manifest("v1").digest == layout.manifest("latest").digest == two
    assert layout.manifest(one).digest == one
    before = layout.entries()
    pushed(layout, "v1", b"two")
    pushed(layout, "", b"two")
    assert layout.entries() == before


def test_what_is_attached_is_listed_and_dropped(layout: Layout) -> None:
    subject = pushed(layout)
    one, two = attached(layout, subject, "one"), attached(layout, subject, "two")
    attached(layout, subject, "two")
    found = layout.referrers(subject)
    assert [(each.digest, each.artifact_type, each.annotations) for each in found] == [
        (one, "application/x", {"note": "one"}),
        (two, "application/x", {"note": "two"}),
    ]
    assert layout.drop_referrer(subject, one)
    assert [each.digest for each in layout.referrers(subject)] == [two]
    assert layout.tags() == ("v1",)
    assert layout.referrers(one) == ()


def test_a_missing_blob_is_named(layout: Layout, tmp_path: Path) -> None:
    digest = pushed(layout)
    layer = layer_of(layout)
    blob(layout, layer.digest).unlink()
    says = f"{layout.folder}: {layer.digest}: found no such file"
    assert refused(ObjectMissing, lambda: layout.blob(layer, 100)) == says
    assert refused(ObjectMissing, lambda: layout.fetch(layer, tmp_path / "layer", 100)) == says
    blob(layout, digest).unlink()
    assert digest in refused(ObjectMissing, lambda: layout.manifest("v1"))
    assert "found no manifest 'v2'" in refused(ObjectMissing, lambda: layout.manifest("v2"))


def test_a_flipped_byte_is_found_and_leaves_no_file(layout: Layout, tmp_path: Path) -> None:
    digest = pushed(layout)
    layer = layer_of(layout)
    flip(blob(layout, layer.digest))
    for call in (lambda: layout.blob(layer, 100), lambda: layout.fetch(layer, tmp_path / "layer", 100)):
        assert "found other bytes in it than its digest says" in refused(ProviderError, call)
    assert not (tmp_path / "layer").exists()
    flip(blob(layout, digest))
    assert "found other bytes in it" in refused(ProviderError, lambda: layout.manifest("v1"))


def test_a_damaged_blob_is_made_good_by_putting_it_again(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    pushed(layout, "v1", b"content")
    layer = layer_of(layout)
    flip(blob(layout, layer.digest))
    pushed(layout, "v1", b"content")
    assert layout.blob(layer, 100) == b"content"
    assert f"{layer.digest}: found other bytes in it than its digest says; written anew" in caplog.text


def test_another_size_than_the_descriptors_is_refused(layout: Layout, tmp_path: Path) -> None:
    pushed(layout, "v1", b"content")
    layer = layer_of(layout)
    wrong = Descriptor(LAYER, layer.digest, 8)
    for call in (lambda: layout.blob(wrong, 100), lambda: layout.fetch(wrong, tmp_path / "layer", 100)):
        assert refused(ProviderError, call).endswith("found 7 bytes, allowed: 8, as its descriptor says")
    for call in (lambda: layout.blob(layer, 6), lambda: layout.fetch(layer, tmp_path / "layer", 6)):
        assert refused(ProviderError, call).endswith("found 7 bytes, allowed: 6")


def test_a_manifest_that_is_too_large_is_not_read_whole(layout: Layout) -> None:
    pushed(layout)
    data = b" " * 5_000_000
    blob(layout, digest_of(data)).write_bytes(data)
    says = "found more than 4,194,304 bytes"
    assert says in refused(ProviderError, lambda: layout.manifest(digest_of(data)))
    (layout.folder / "index.json").write_bytes(data)
    assert says in refused(ProviderError, layout.tags)


def test_a_digest_is_no_path(layout: Layout) -> None:
    bad = Descriptor(LAYER, "sha256:../../oci-layout", 30)
    assert "allowed: sha256:<64 hexadecimal digits>" in refused(ProviderError, lambda: layout.blob(bad, 100))


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        (None, "No such file or directory; allowed: the folder of an OCI image layout"),
        (b"", "Expecting value"),
        (b"{}", "found imageLayoutVersion None, allowed: '1.0.0'"),
        (b'{"imageLayoutVersion":"2.0.0"}', "found imageLayoutVersion '2.0.0', allowed: '1.0.0'"),
        (b"[]", "found imageLayoutVersion None"),
    ],
)
def test_a_folder_that_is_no_layout_is_bad_input(layout: Layout, marker: bytes | None, says: str) -> None:
    (layout.folder / "oci-layout").unlink()
    if marker is not None:
        (layout.folder / "oci-layout").write_bytes(marker)
    said = refused(BadInput, lambda: Layout(layout.folder))
    assert said.startswith(f"{layout.folder}/oci-layout: ")
    assert says in said


@pytest.mark.parametrize(
    ("index", "kind", "says"),
    [
        (None, ObjectMissing, "index.json: found no such file"),
        (b"", ProviderError, "index.json: Expecting value"),
        (b'{"manifests": [', ProviderError, "index.json: Expecting value"),
        (b"[]", ProviderError, "index.json: found no list of manifests"),
        (b'{"manifests": {}}', ProviderError, "index.json: found no list of manifests"),
        (b'{"manifests": [{"digest": "x"}]}', ProviderError, "index.json: manifests[0]: found no descriptor"),
        (b'{"manifests": [], "manifests": []}', ProviderError, "the key 'manifests' stands twice"),
    ],
)
def test_a_damaged_index_is_named_and_never_overwritten(
    layout: Layout, index: bytes | None, kind: type[GreenopsError], says: str
) -> None:
    pushed(layout)
    path = layout.folder / "index.json"
    path.unlink()
    if index is not None:
        path.write_bytes(index)
    for call in (layout.tags, lambda: layout.manifest("v1"), lambda: pushed(layout, "v2", b"two")):
        assert says in refused(kind, call)
    assert (path.read_bytes() if path.exists() else None) == index


def test_a_symlinked_blob_is_read_for_its_bytes_alone(layout: Layout, tmp_path: Path) -> None:
    pushed(layout, "v1", b"content")
    layer = layer_of(layout)
    outside = tmp_path / "outside"
    outside.write_bytes(b"content")
    blob(layout, layer.digest).unlink()
    blob(layout, layer.digest).symlink_to(outside)
    assert layout.blob(layer, 100) == b"content"
    outside.write_bytes(b"secrets")
    for call in (lambda: layout.blob(layer, 100), lambda: layout.fetch(layer, tmp_path / "layer", 100)):
        assert "found other bytes in it" in refused(ProviderError, call)
    assert not (tmp_path / "layer").exists()


def test_a_blob_that_is_a_pipe_or_a_folder_is_not_waited_for(layout: Layout, tmp_path: Path) -> None:
    empty = Descriptor(LAYER, digest_of(b""), 0)
    os.mkfifo(blob(layout, empty.digest))
    for call in (
        lambda: layout.blob(empty, 100),
        lambda: layout.fetch(empty, tmp_path / "layer", 100),
        lambda: layout.manifest(empty.digest),
    ):
        assert "found no such file" in refused(ObjectMissing, call)


def test_a_target_that_is_there_is_replaced_and_not_written_through(layout: Layout, tmp_path: Path) -> None:
    pushed(layout, "v1", b"one")
    pushed(layout, "v2", b"two")
    for wanted in ("v1", "v2", "v2"):
        layout.fetch(layer_of(layout, wanted), tmp_path / "layer", 100)
    assert (tmp_path / "layer").read_bytes() == b"two"
    assert layout.blob(layer_of(layout, "v1"), 100) == b"one"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["layer", "layout"]


def test_another_file_system_gets_a_copy(layout: Layout) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == layout.folder.stat().st_dev:
        pytest.skip("no second file system")
    pushed(layout, "v1", b"content")
    target = shared / f"greenops-layer-{os.getpid()}"
    try:
        layout.fetch(layer_of(layout), target, 100)
        assert target.read_bytes() == b"content"
    finally:
        target.unlink(missing_ok=True)


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused(PermanentError, lambda: Layout(tmp_path / "file" / "layout", create=True))
    assert said.endswith("allowed: a folder this user can read and write")


def test_an_index_that_cannot_be_written_is_an_error_of_ours(layout: Layout) -> None:
    (layout.folder / ".lock").unlink()
    (layout.folder / ".lock").symlink_to(layout.folder / "elsewhere")
    assert "allowed: a folder this user can read and write" in refused(PermanentError, lambda: pushed(layout))
    assert layout.tags() == ()


_WRITER = """
import sys
from pathlib import Path
from greenops_pipelines.supply_chain.layout import Layout
from tests.supply_chain.conftest import pushed
layout = Layout(Path(sys.argv[1]), create=True)
print("ready", flush=True)
sys.stdin.readline()
for at in range(15):
    pushed(layout, f"{sys.argv[2]}-{at}", f"{sys.argv[2]} {at}".encode())
"""

_KILLED = """
import os, signal, sys
from pathlib import Path
from greenops_pipelines.supply_chain.layout import Layout
from tests.supply_chain.conftest import pushed
layout = Layout(Path(sys.argv[1]), create=True)
pushed(layout, "v1", b"one")
def killed(self, path, data):
    if path.name == "index.json":
        os.kill(os.getpid(), signal.SIGKILL)
    return before(path, data)
before = Layout._write
Layout._write = killed
pushed(layout, "v2", b"two")
"""


def started(program: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    writers = [started(_WRITER, str(tmp_path / "layout"), name) for name in ("a", "b")]
    for each in writers:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in writers:
        each.communicate("go\n")
        assert each.returncode == 0
    layout = Layout(tmp_path / "layout")
    assert set(layout.tags()) == {f"{name}-{at}" for name in "ab" for at in range(15)}
    for tag in layout.tags():
        assert layout.blob(layer_of(layout, tag), 100) == tag.replace("-", " ").encode()


def test_a_writer_waits_for_the_one_before_it(layout: Layout) -> None:
    pushed(layout)
    with (layout.folder / ".lock").open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer = threading.Thread(target=pushed, args=(layout, "v2", b"two"))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert layout.tags() == ("v1",)
    writer.join()
    assert layout.tags() == ("v1", "v2")


def test_a_writer_that_is_killed_between_blob_and_index_leaves_a_readable_layout(tmp_path: Path) -> None:
    writer = started(_KILLED, str(tmp_path / "layout"))
    writer.communicate()
    assert writer.returncode == -9
    layout = Layout(tmp_path / "layout", create=True)
    assert layout.tags() == ("v1",)
    assert layout.blob(layer_of(layout), 100) == b"one"
    assert layout.manifest(digest_of(image(b"two")[0])).layers[0].digest == digest_of(b"two")
    pushed(layout, "v2", b"two")
    assert layout.tags() == ("v1", "v2")


def test_a_layout_whose_making_was_cut_off_is_made_whole(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout", create=True)
    (layout.folder / "index.json").unlink()
    assert Layout(layout.folder, create=True).tags() == ()
