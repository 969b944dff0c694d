"""Which tags point where: noticed once, kept where a source fails, forgotten where a tag has moved; and what an index is made of."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from greenops_pipelines.errors import GreenopsError, ProviderError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.supply_chain import subjects
from greenops_pipelines.supply_chain.declared import Image
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import OCI_CONFIG, OCI_MANIFEST
from greenops_pipelines.supply_chain.subjects import is_attachment, named, parts, public_name, without_folders
from tests.supply_chain.conftest import Answer, Asked, Debian, OciRegistry, opened
from tests.supply_chain.small_images import NOW, Site, push, push_index

HOUR = timedelta(hours=1)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Two layouts below ops/."""
    return Site(tmp_path, Image(name="one", source="oci:one"), Image(name="two", source="oci:two"))


def layout(site: Site, name: str) -> Layout:
    return Layout(site.ops / name, create=True)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subjects, "open_registry", lambda reference, *_: opened(reference.registry, reference.repository)
    )


def noticed(site: Site) -> list[tuple[str, str, str, float]]:
    """Image, tag, digest and hours since NOW."""
    rows = site.rows("select image, tag, image_digest, noticed_at from images order by all")
    return [(row["image"], row["tag"], row["image_digest"], (row["noticed_at"] - NOW) / HOUR) for row in rows]


# --- looking


def test_every_tag_is_noticed_once_and_keeps_the_hour_of_that(site: Site) -> None:
    one, two = push(layout(site, "one"), "v1"), push(layout(site, "two"), "v1", {"a": "a"})
    first = site.look()
    assert (first.faults, first.new, first.digests) == ((), (one, two), (one, two))
    again = site.look(NOW + HOUR)
    assert (again.new, again.digests) == ((), (one, two))
    assert noticed(site) == [("one", "v1", one, 0), ("two", "v1", two, 0)]
    assert again.written.version == first.written.version


def test_a_tag_that_moved_names_another_digest_and_the_old_one_is_in_use_no_more(site: Site) -> None:
    old = push(layout(site, "one"), "v1")
    push(layout(site, "two"), "v1")
    site.look()
    new = push(layout(site, "one"), "v1", {"a": "a"})
    assert site.look(NOW + HOUR).new == (new,)
    assert noticed(site)[0] == ("one", "v1", new, 1)
    # The other image has the same bytes: the digest is in use as that one.
    assert [each.name for each in named(site.declared, site.lake, old)] == ["two"]


def test_a_source_that_fails_keeps_what_it_had_and_the_others_go_on(site: Site) -> None:
    one = push(layout(site, "one"), "v1")
    push(layout(site, "two"), "v1")
    site.look()
    (site.ops / "one" / "index.json").write_text("{")
    two = push(layout(site, "two"), "v2", {"a": "a"})
    found = site.look(NOW + HOUR)
    assert found.new == (two,)
    (fault,) = found.faults
    assert fault.startswith("one: one/index.json: ")
    assert [row[:2] for row in noticed(site)] == [("one", "v1"), ("two", "v1"), ("two", "v2")]
    assert noticed(site)[0][2] == one


def test_what_is_declared_no_more_is_forgotten(site: Site) -> None:
    one = push(layout(site, "one"), "v1")
    push(layout(site, "two"), "v1", {"a": "a"})
    site.look()
    site.images = site.images[1:]
    assert named(site.declared, site.lake, one) == []  # before anybody has looked again
    site.look(NOW + HOUR)
    assert [row[0] for row in noticed(site)] == ["two"]


def test_a_digest_under_two_names_is_two_images_as_long_as_both_are_declared(site: Site) -> None:
    digest = push(layout(site, "one"), "v1")
    push(layout(site, "two"), "v1")
    site.look()
    assert [each.name for each in named(site.declared, site.lake, digest)] == ["one", "two"]
    site.images = site.images[1:]
    assert [each.name for each in named(site.declared, site.lake, digest)] == ["two"]


def test_tags_are_chosen_by_pattern_and_attachments_are_none(site: Site) -> None:
    place = layout(site, "one")
    digest = push(place, "v1")
    hexadecimal = digest.replace(":", "-")
    for tag in ("latest", hexadecimal, f"{hexadecimal}.sig", f"{hexadecimal}.att", f"{hexadecimal}.sbom"):
        push(place, tag, {"a": "a"})
    site.images = (Image(name="one", source="oci:one", tags=("v*", "sha*")),)
    assert [each.tag for each in site.look().noticed] == ["v1"]
    site.images = (Image(name="one", source="oci:one", tags=("w?",)),)
    found = site.look()
    assert (found.noticed, found.faults) == ((), ("one: no tag fits w?",))
    assert noticed(site) == []


@pytest.mark.parametrize(
    ("tag", "is_one"),
    [
        (f"sha256-{'a' * 64}", True),
        (f"sha256-{'a' * 64}.sig", True),
        (f"sha256-{'a' * 63}.sig", False),
        (f"sha256-{'a' * 64}.signed", False),
        ("sha256", False),
        ("v1.sig", False),
    ],
)
def test_an_attachments_tag_is_told_by_its_form(tag: str, is_one: bool) -> None:
    assert is_attachment(tag) is is_one


def test_more_tags_than_can_be_looked_at_are_a_fault(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "MAX_TAGS", 2)
    for tag in ("v1", "v2", "v3"):
        push(layout(site, "one"), tag)
    push(layout(site, "two"), "v1")
    (fault,) = site.look().faults
    assert fault == "one: oci:one: found 3 tags that fit *, allowed: 2; name fewer under `tags` in ops/images.yaml"


def test_a_tag_that_goes_between_the_list_and_the_question_is_no_fault(site: Site, oci_registry: OciRegistry) -> None:
    digest = push(opened(oci_registry.host), "v1")
    listed = json.dumps({"tags": ["gone", "v1"]}).encode()
    oci_registry.before = lambda asked: Answer(body=listed) if asked.path.endswith("/tags/list") else None
    site.images = (Image(name="app", source=f"{oci_registry.host}/team/app"),)
    found = site.look()
    assert (found.digests, found.faults) == ((digest,), ())


@pytest.mark.parametrize(
    ("status", "said"), [(401, "401"), (403, "403"), (404, "no tag fits *"), (429, "429"), (500, "500"), (503, "503")]
)
def test_a_registry_that_refuses_is_a_fault_with_its_answer(
    site: Site, oci_registry: OciRegistry, status: int, said: str
) -> None:
    two = push(layout(site, "two"), "v1")
    oci_registry.before = lambda asked: Answer(status)
    site.images = (Image(name="app", source=f"{oci_registry.host}/team/app"), site.images[1])
    found = site.look()
    assert (len(found.faults), found.digests) == (1, (two,))
    assert found.faults[0].startswith("app: ")
    assert said in found.faults[0]


def test_a_registry_that_lies_about_a_digest_is_a_fault(site: Site, oci_registry: OciRegistry) -> None:
    push(opened(oci_registry.host), "v1")
    lie = f"sha256:{'0' * 64}"

    def lies(asked: Asked) -> Answer | None:
        if "/manifests/" not in asked.path:
            return None
        media_type, data = oci_registry.manifests["v1"]
        return Answer(body=data, headers={"Content-Type": media_type, "Docker-Content-Digest": lie})

    oci_registry.before = lies
    site.images = (Image(name="app", source=f"{oci_registry.host}/team/app"),)
    (fault,) = site.look().faults
    assert f"the registry lies: {lie} was said" in fault


@pytest.mark.real
def test_a_real_registrys_tags_are_noticed_with_its_name(tmp_path: Path, debian: Debian) -> None:
    repository = debian.repository("team/looked-at")
    digest = push(repository, "v1")
    site = Site(tmp_path, Image(name="app", source=repository.name))
    assert site.look().digests == (digest,)
    (row,) = site.rows("images")
    assert (row["repository"], row["is_index"], row["is_own"]) == (repository.name, False, False)


def test_what_is_built_here_is_built_when_it_is_looked_for_and_named_alike_everywhere(tmp_path: Path) -> None:
    site = Site(tmp_path, Image(name="sample", source="embedded"))
    first = site.look()
    assert (site.look().digests, first.faults) == (first.digests, ())
    (row,) = site.rows("images")
    assert (row["tag"], row["repository"], row["is_own"], row["is_sample"]) == (
        "sample",
        "greenops-pipelines/sample",
        True,
        True,
    )


# --- names


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("oci:/srv/images/app", "greenops-pipelines/app"),
        ("environment", "greenops-pipelines/app"),
        ("registry.example.com/team/app", "registry.example.com/team/app"),
    ],
)
def test_statements_name_no_folder_of_this_machine(source: str, name: str) -> None:
    assert public_name(Image(name="app", source=source)) == name


def test_messages_lose_this_machines_folders(tmp_path: Path) -> None:
    text = f"{tmp_path}/home/images/x: broken; {tmp_path}/y"
    assert without_folders(text, tmp_path / "home", tmp_path) == "images/x: broken; y"


# --- what an index is made of


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout", create=True)


def platforms(place: Layout, digest: str, *wanted: str) -> list[tuple[str, str]]:
    return [(each.platform, each.manifest.digest) for each in parts(place, place.manifest(digest), wanted)]


def test_an_index_is_made_of_the_platforms_asked_for_in_that_order(place: Layout) -> None:
    amd64, arm64 = push(place, "a"), push(place, "b", architecture="arm64", variant="v8")
    unknown = ("unknown/unknown", push(place, "c", {"a": "a"}))
    index = push_index(place, "v1", [("linux/amd64", amd64), ("linux/arm64/v8", arm64), unknown])
    assert platforms(place, index, "linux/arm64", "linux/amd64") == [("linux/arm64", arm64), ("linux/amd64", amd64)]
    assert platforms(place, index, "linux/arm64/v8", "linux/arm64") == [("linux/arm64", arm64)]
    assert platforms(place, arm64, "linux/amd64") == [("linux/arm64", arm64)]


def test_a_platform_that_nobody_asked_for_need_not_be_there(place: Layout) -> None:
    """Registries hold indexes of which only some images were copied."""
    amd64 = push(place, "a")
    index = push_index(place, "v1", [("linux/s390x", f"sha256:{'5' * 64}"), ("linux/amd64", amd64)])
    assert platforms(place, index, "linux/amd64") == [("linux/amd64", amd64)]


def test_a_missing_platform_is_named_with_those_that_are_there(place: Layout) -> None:
    index = push_index(place, "v1", [("linux/arm/v7", push(place, "a"))])
    with pytest.raises(ProviderError, match=r"found the platforms linux/arm/v7, allowed: also linux/amd64, as ops"):
        platforms(place, index, "linux/amd64")


def test_a_platform_that_is_there_twice_is_refused(place: Layout) -> None:
    one, other = push(place, "a"), push(place, "b", {"a": "a"})
    index = push_index(place, "v1", [("linux/amd64", one), ("linux/amd64", other)])
    with pytest.raises(ProviderError, match="found linux/amd64 2 times, allowed: once"):
        platforms(place, index, "linux/amd64")
    assert platforms(place, push_index(place, "v2", [("linux/amd64", one)] * 2), "linux/amd64") == [
        ("linux/amd64", one)
    ]


def test_an_index_inside_an_index_is_refused(place: Layout) -> None:
    inner = push_index(place, "a", [("linux/amd64", push(place, "b"))])
    document = json.loads(place.manifest(inner).data)
    descriptor = place.manifest(inner).descriptor.as_document() | {"platform": {"os": "linux", "architecture": "amd64"}}
    outer = place.put_manifest(canonical.dumps({**document, "manifests": [descriptor]}), document["mediaType"], "c")
    with pytest.raises(ProviderError, match="found an index inside the index for linux/amd64"):
        platforms(place, outer.digest, "linux/amd64")


def _configured(place: Layout, config: bytes, **more: str) -> str:
    blob = place.put_blob(config, OCI_CONFIG).as_document()
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blob, "layers": [], **more}
    return place.put_manifest(canonical.dumps(manifest), OCI_MANIFEST, "v1").digest


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"{}", "its configuration names no os and architecture, allowed: an image"),
        (b'{"os": "", "architecture": "amd64"}', "names no os and architecture"),
        (b"[]", "names no os and architecture"),
        (b"{", "its configuration: "),
        (b'{"os": "linux", "os": "plan9", "architecture": "amd64"}', "the key 'os' stands twice"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_configuration_that_is_none_of_an_image_is_a_fault(place: Layout, config: bytes, said: str) -> None:
    with pytest.raises(ProviderError, match=said):
        platforms(place, _configured(place, config))


def test_an_artifact_has_no_platform(place: Layout) -> None:
    digest = _configured(place, b"{}", artifactType="application/vnd.example.thing")
    assert platforms(place, digest) == [("none", digest)]


@pytest.mark.parametrize("source", ["oci:absent", "Registry/UPPER"])
def test_what_cannot_be_opened_is_an_error_on_purpose(site: Site, source: str) -> None:
    with pytest.raises(GreenopsError):
        subjects.open_repository(Image(name="x", source=source), site.ops, site.home)
