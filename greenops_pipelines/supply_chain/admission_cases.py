"""The admission matrix: images that are made to be admitted or denied, each for one reason, and what the rendered policy says.

Everything is taken from the rendered text (its CEL, its keys, its messages) and from the bytes of a repository: Debian's
`docker-registry` where it is installed, else an OCI layout. Not here: rendering (`admission.py`), evaluating (`cel_policy.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from greenops_pipelines.evidence.keys import FileSigner
from greenops_pipelines.evidence.signing import Signer
from greenops_pipelines.supply_chain import attach, provenance, vouching
from greenops_pipelines.supply_chain.attestations import CYCLONEDX, PROVENANCE, SPDX, VULNERABILITIES
from greenops_pipelines.supply_chain.cel_policy import Decision
from greenops_pipelines.supply_chain.oci import OCI_CONFIG, OCI_MANIFEST, Repository
from greenops_pipelines.supply_chain.provenance import Build
from greenops_pipelines.supply_chain.vouching import Said, Scan

_LAYER = "application/vnd.oci.image.layer.v1.tar"

ADMITTED = "admitted"
DENIED = "denied"

# As the rendered policy words them; names of images must not hold any of it.
NOT_SIGNED = "not signed by our key"
NO_SBOM = "no SBOM ("
NO_PROVENANCE = "no provenance of an allowed builder"
NO_SCAN = "no vulnerability scan of the last"
NOT_CLEAN = "no attested scan that found 0"


@dataclass(frozen=True)
class Case:
    """A pod, what has to become of it, and a word that the reason must hold."""

    name: str
    pod: Mapping[str, Any]
    expected: str
    reason: str = ""


@dataclass(frozen=True)
class Tried:
    """A case and what the policy said."""

    case: Case
    found: str
    message: str

    @property
    def is_right(self) -> bool:
        """Denied for another reason is not right: it would be admitted once that other thing is mended."""
        return self.found == self.case.expected and self.case.reason in self.message


def tried(case: Case, decide: Callable[[Mapping[str, Any]], Decision]) -> Tried:
    """What the policy says of the pod."""
    decision = decide(case.pod)
    return Tried(case, ADMITTED if decision.admitted else DENIED, "; ".join(decision.messages))


@dataclass(frozen=True)
class Stage:
    """Where images of the matrix are made: `place` is what pods call the repository."""

    repository: Repository
    place: str
    signer: Signer
    builder: str
    now: datetime
    scan_days: int
    severity: str
    elsewhere: str = ""
    """An image that the policy is not about; empty where it is about every one."""

    def cases(self) -> Iterator[Case]:
        """Every case, its image made just before it is handed out: a later one may move an earlier one's tag."""
        other = FileSigner(ec.generate_private_key(ec.SECP256R1()))
        good = self._image("case-0")
        self._vouched(good)
        yield self._case("signed and attested", ["case-0"], ADMITTED)
        yield Case("signed and attested, by tag and digest", self._pod([f"{self.place}:case-0@{good}"]), ADMITTED)
        if self.elsewhere:
            yield Case("another registry's image, which the policy is not about", self._pod([self.elsewhere]), ADMITTED)

        self._image("case-1")
        yield self._case("neither signed nor attested", ["case-1"], DENIED, NOT_SIGNED)
        digest = self._image("case-2")
        self._vouched(digest, is_signed=False)
        yield self._case("attested and not signed", ["case-2"], DENIED, NOT_SIGNED)
        digest = self._image("case-3")
        self._vouched(digest, signer=other, signs=other)
        yield self._case("signed and attested with another key", ["case-3"], DENIED, NOT_SIGNED)
        digest = self._image("case-4")
        self._vouched(digest, signer=other)
        yield self._case("signed by us, attested with another key", ["case-4"], DENIED, NO_SBOM)

        for tag, name, left_out, reason in (
            ("case-5", "no SBOM", (CYCLONEDX, SPDX), NO_SBOM),
            ("case-6", "no provenance", (PROVENANCE,), NO_PROVENANCE),
            ("case-7", "no scan", (VULNERABILITIES,), NO_SCAN),
        ):
            self._vouched(self._image(tag), without=left_out)
            yield self._case(name, [tag], DENIED, reason)

        for tag, name, builder in (
            ("case-8", "another builder", "https://builder.example/other"),
            ("case-9", "a builder whose name begins like an allowed one", f"{self.builder}.example.org"),
        ):
            self._vouched(self._image(tag), builder=builder)
            yield self._case(name, [tag], DENIED, NO_PROVENANCE)
        for tag, name, age in (
            ("case-10", f"a scan {self.scan_days + 1} days old", timedelta(days=self.scan_days + 1)),
            ("case-11", "a scan from the future", timedelta(hours=-2)),
        ):
            self._vouched(self._image(tag), scanned_at=self.now - age)
            yield self._case(name, [tag], DENIED, NO_SCAN)
        for tag, name, count, outcome in (
            ("case-12", f"a {self.severity} vulnerability", 1, vouching.FAILED),
            ("case-13", "a scan that is not believed", 0, vouching.NOT_BELIEVED),
        ):
            self._vouched(self._image(tag), counts={self.severity: count}, outcome=outcome)
            yield self._case(name, [tag], DENIED, NOT_CLEAN)

        yield from self._moved()
        yield from self._copied(good)
        yield self._case("a good image and an unsigned one in one pod", ["case-0", "case-1"], DENIED, NOT_SIGNED)
        yield Case(
            "an unsigned init container",
            self._pod([f"{self.place}:case-0"], init=[f"{self.place}:case-1"]),
            DENIED,
            NOT_SIGNED,
        )
        # Named without a digest: none was found. Whatever else is wrong is said of a digest.
        yield self._case("a tag that is not there", ["case-16"], DENIED, f"{self.place}:case-16: ")

    def _moved(self) -> Iterator[Case]:
        """The tag of a good image moved to another digest."""
        self._vouched(self._image("case-14"))
        yield self._case("a tag before it is moved", ["case-14"], ADMITTED)
        self._image("case-14", "another image")
        yield self._case("a tag moved to another digest", ["case-14"], DENIED, NOT_SIGNED)

    def _copied(self, good: str) -> Iterator[Case]:
        """What is attached to a good image, attached to a bad one: it verifies, and speaks of another digest."""
        digest = self._image("case-15")
        for suffix in ("sig", "att"):
            there = self.repository.manifest(f"{good.replace(':', '-')}.{suffix}")
            self.repository.put_manifest(there.data, there.media_type, f"{digest.replace(':', '-')}.{suffix}")
        subject = self.repository.manifest(digest).descriptor
        for each in self.repository.referrers(good):
            document = self.repository.manifest(each.digest).document
            document = {**document, "subject": subject.as_document()}
            self.repository.put_manifest(json.dumps(document, sort_keys=True).encode(), OCI_MANIFEST)
        yield self._case("signature and attestations copied from a good image", ["case-15"], DENIED, NOT_SIGNED)

    def _case(self, name: str, tags: Sequence[str], expected: str, reason: str = "") -> Case:
        return Case(name, self._pod([f"{self.place}:{tag}" for tag in tags]), expected, reason)

    @staticmethod
    def _pod(images: Sequence[str], init: Sequence[str] = ()) -> dict[str, Any]:
        spec: dict[str, Any] = {"containers": [{"name": f"c{at}", "image": each} for at, each in enumerate(images)]}
        if init:
            spec["initContainers"] = [{"name": f"i{at}", "image": each} for at, each in enumerate(init)]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "case", "namespace": "default"}, "spec": spec}

    def _image(self, tag: str, content: str = "") -> str:
        """A small image of its own under the tag; its digest."""
        layer = self.repository.put_blob((content or tag).encode().ljust(10240, b"\0"), _LAYER)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"org.opencontainers.image.description": "sample image of the admission matrix"}},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.repository.put_blob(json.dumps(config, sort_keys=True).encode(), OCI_CONFIG).as_document(),
            "layers": [layer.as_document()],
        }
        return self.repository.put_manifest(json.dumps(manifest, sort_keys=True).encode(), OCI_MANIFEST, tag).digest

    def _vouched(
        self,
        digest: str,
        *,
        signer: Signer | None = None,
        signs: Signer | None = None,
        is_signed: bool = True,
        without: Sequence[str] = (),
        builder: str = "",
        scanned_at: datetime | None = None,
        counts: Mapping[str, int] | None = None,
        outcome: str = "passed",
    ) -> None:
        """Signs the image and attaches everything to it, but for what the case wants otherwise."""
        attests = signer or self.signer
        if is_signed:
            attach.sign(self.repository, digest, self.place, signs or self.signer)
        result = {"outcome": outcome, "counts": {"CRITICAL": 0, "HIGH": 0, **(counts or {})}}
        scan = Scan("sample", "1", self.now, scanned_at or self.now - timedelta(hours=1), result)
        build = Build(provenance.OWN_BUILD_TYPE, builder or self.builder, "", {})
        said = [Said("linux/amd64", digest, _CYCLONEDX, _SPDX, scan)]
        for kind, payload in vouching.statements(self.place, digest, said, build, self.now):
            if kind not in without:
                attach.attest(self.repository, digest, kind, payload, attests, there=())  # a new image has nothing


_CYCLONEDX = b'{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":[]}'
_SPDX = (
    b'{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","dataLicense":"CC0-1.0","name":"sample",'
    b'"documentNamespace":"https://greenops-pipelines.example/sbom/sample",'
    b'"creationInfo":{"created":"1970-01-01T00:00:00Z","creators":["Tool: sample"]},"packages":[]}'
)
