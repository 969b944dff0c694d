"""The tables of the supply chain, declared once: images, what they hold, what is wrong with it, who vouches for it."""

from __future__ import annotations

import pyarrow as pa

from greenops_pipelines.lake.schema import TIMESTAMP, Column, Table

_text = pa.string()
_int = pa.int64()
_float = pa.float64()
_bool = pa.bool_()

_DIGEST = Column("image_digest", _text, "Digest that tags and policies name: of the image, or of the index of several")
_IMAGE = Column("image", _text, "Name of the image, as in ops/images.yaml")
_PLATFORM = Column("platform", _text, "os/architecture; for what is no image: none")

DECLARED_IMAGES = Table(
    layer="bronze",
    name="declared_images",
    comment="Images as declared in ops/images.yaml: where they lie, and what of them is looked at.",
    columns=(
        _IMAGE,
        Column("source", _text, "Registry and repository, layout, or what is built here"),
        Column("kind", _text, "embedded, environment, layout, registry"),
        Column("tags", _text, "Patterns of the tags that are looked at"),
        Column("platforms", _text, "Platforms that must be there"),
        Column("is_attached", _bool, "Whether SBOM and scan are attached to it, and not only published"),
        Column("is_sample", _bool, "Whether it is sample data"),
    ),
    unique=("image",),
)

IMAGES = Table(
    layer="bronze",
    name="images",
    comment="Images that tags point to now, as their registries say; a digest that no tag names any more is not here.",
    columns=(
        _IMAGE,
        Column("tag", _text, "Tag that points to it"),
        Column(
            "image_digest",
            _text,
            "Digest that the tag points to, of the image or of the index of several; null: what is there cannot be read",
            nullable=True,
        ),
        Column("repository", _text, "registry/repository, or what the layout is declared as"),
        Column("media_type", _text, "Of its manifest; null: it cannot be read", nullable=True),
        Column("is_index", _bool, "Whether it is an index of images for several platforms"),
        Column("is_own", _bool, "Whether this project has built it"),
        Column("is_sample", _bool, "Whether it is sample data"),
        Column("fault", _text, "Why it cannot be read; null: it can", nullable=True),
        Column("noticed_at", TIMESTAMP, "When this digest was first seen under this tag"),
    ),
    unique=("image", "tag"),
    partition_by=("image",),
)

SBOMS = Table(
    layer="bronze",
    name="sboms",
    comment="SBOMs that were made and published, one per image and platform, with what the NTIA's minimum elements miss.",
    columns=(
        _DIGEST,
        _PLATFORM,
        _IMAGE,
        Column("platform_digest", _text, "Digest of the platform's own manifest"),
        Column("is_only", _bool, "Whether the image has no other platform"),
        Column(
            "config_digest",
            _text,
            "Digest of its configuration: what Docker calls the image's id; null: none",
            nullable=True,
        ),
        Column("components", _int, "Packages listed"),
        Column("unversioned", _int, "Of these, packages that state no version"),
        Column("is_conformant", _bool, "Whether NTIA's minimum elements hold for every component"),
        Column("missing", _text, "What is missing, one line per element; null: nothing", nullable=True),
        Column("supplied_by_metadata", _int, "Components whose supplier is their own metadata's word"),
        Column("cyclonedx_key", _text, "Where the CycloneDX 1.6 document lies in the store"),
        Column("cyclonedx_sha256", _text, "Its SHA-256"),
        Column("spdx_key", _text, "Where the SPDX 2.3 document lies in the store"),
        Column("spdx_sha256", _text, "Its SHA-256"),
        Column("tool", _text, "What made them"),
        Column("store", _text, "Where they are published"),
    ),
    unique=("image_digest", "platform"),
    partition_by=("image_digest",),
)

SBOM_COMPONENTS = Table(
    layer="bronze",
    name="sbom_components",
    comment="Every package of every image with an SBOM: select * from sbom_components where name = 'openssl'.",
    columns=(
        Column("name", _text, "Name of the package"),
        Column("version", _text, "Its version; null: not stated", nullable=True),
        _IMAGE,
        _DIGEST,
        _PLATFORM,
        Column("purl", _text, "Package URL; null: it has none", nullable=True),
        Column("kind", _text, "python, deb, npm, go-module, ..."),
        Column("supplier", _text, "Who supplies it; null: not known", nullable=True),
        Column("licences", _text, "SPDX identifiers or names; null: not stated", nullable=True),
        Column("path", _text, "File it was found by; null: not stated", nullable=True),
        Column("ref", _text, "Its reference within the SBOM"),
    ),
    unique=("image_digest", "platform", "ref"),
    partition_by=("image_digest",),
)

IMAGE_SCANS = Table(
    layer="bronze",
    name="image_scans",
    comment="Scans for vulnerabilities: by a scanner on this machine, of a report that was handed in, or: no scanner.",
    columns=(
        _DIGEST,
        _PLATFORM,
        _IMAGE,
        Column("scanner", _text, "grype, trivy, or: none"),
        Column("version", _text, "Its version; null: not said", nullable=True),
        Column("origin", _text, "run here, handed in, none"),
        Column("report_key", _text, "Where its report lies in the store; null: there is none", nullable=True),
        Column("report_sha256", _text, "The report's SHA-256; null: there is none", nullable=True),
        Column(
            "of_sbom",
            _text,
            "SHA-256 of the SBOM that was handed to the scanner; null: it read the image",
            nullable=True,
        ),
        Column("database_at", TIMESTAMP, "As of when its database is; null: not known", nullable=True),
        Column("scanned_at", TIMESTAMP, "When it was made; null: there was no scan", nullable=True),
        Column("detail", _text, "What went wrong; null: nothing", nullable=True),
    ),
    unique=("image_digest", "platform", "scanner", "origin"),
    partition_by=("image_digest",),
)

VULNERABILITIES = Table(
    layer="bronze",
    name="vulnerabilities",
    comment="Known vulnerabilities of images in use, by scanners and advisories, with the exceptions that excuse them.",
    columns=(
        _IMAGE,
        _DIGEST,
        _PLATFORM,
        Column("id", _text, "Identifier"),
        Column("severity", _text, "UNKNOWN, NEGLIGIBLE, LOW, MEDIUM, HIGH, CRITICAL"),
        Column("package", _text, "Name of the package"),
        Column("version", _text, "Its version"),
        Column("purl", _text, "Package URL; null: not said", nullable=True),
        Column("fixed_in", _text, "First version without it; null: not known", nullable=True),
        Column("aliases", _text, "Other identifiers, separated by commas; null: none", nullable=True),
        Column("source", _text, "grype, trivy, osv"),
        Column("is_counted", _bool, "Whether the gate counts it"),
        Column(
            "excused_by", _text, "Why it is not counted, though it would be; null: it is not excused", nullable=True
        ),
        Column("expires_at", TIMESTAMP, "When the exception ends; null: there is none", nullable=True),
    ),
    unique=("image_digest", "platform", "id", "package", "version", "source"),
)
"""A package that lies in two places of an image is one row."""

IMAGE_VERDICTS = Table(
    layer="bronze",
    name="image_verdicts",
    comment="The vulnerability gate's word on each image in use: passed, failed, or no scanner, which is no pass.",
    columns=(
        _IMAGE,
        _DIGEST,
        _PLATFORM,
        Column("outcome", _text, "passed, failed, no scanner"),
        Column("counted", _int, "Vulnerabilities that count"),
        Column("excused", _int, "Vulnerabilities that a signed exception excuses"),
        Column("faults", _text, "Why a scan is not believed, one line each; null: it is", nullable=True),
        Column("advisories", _int, "Advisories that were held against its components"),
        Column("scanned_at", TIMESTAMP, "When the scan was made; null: there is none", nullable=True),
        Column("judged_at", TIMESTAMP, "When it was judged"),
    ),
    unique=("image_digest", "platform"),
)

IMAGE_ATTESTATIONS = Table(
    layer="bronze",
    name="image_attestations",
    comment="What is attached to images in use, read back and verified: signature, SBOM, provenance, scan.",
    columns=(
        _IMAGE,
        _DIGEST,
        Column("predicate_type", _text, "What is attested; empty where it does not verify"),
        Column("way", _text, "tag: the legacy .sig and .att; referrer: OCI 1.1"),
        Column("manifest", _text, "Digest of the manifest that holds it"),
        Column("position", _int, "1, 2, ... among what is attached to the image"),
        Column("is_verified", _bool, "Whether a trusted key has signed it, about this digest"),
        Column("fault", _text, "Why it does not verify; null: it does", nullable=True),
        Column("key", _text, "SHA-256 of the key's SubjectPublicKeyInfo; null: none fits", nullable=True),
        Column("builder", _text, "Of a provenance: runDetails.builder.id; null: it is none", nullable=True),
        Column(
            "slsa_level", _int, "Of a provenance: the build level that it supports; null: it is none", nullable=True
        ),
        Column("read_at", TIMESTAMP, "When it was read back"),
    ),
    unique=("image_digest", "image", "position"),
    partition_by=("image_digest",),
)

IMAGE_STANDING = Table(
    layer="bronze",
    name="image_standing",
    comment="What each image lacks of what must be attached to it, and the SLSA build level that its provenance supports.",
    columns=(
        _DIGEST,
        _IMAGE,
        Column("missing", _text, "What it lacks, separated by commas; null: nothing", nullable=True),
        Column("verified", _int, "Statements that verify"),
        Column("unverified", _int, "Attached things that do not"),
        Column("slsa_level", _int, "SLSA build level, 0 to 3"),
        Column("slsa_reason", _text, "Why it is that level"),
        Column("builder", _text, "Builder that its provenance names; null: there is none", nullable=True),
        Column("is_attached_here", _bool, "Whether SBOM and scan are attached from here"),
        Column(
            "attested",
            _text,
            "Outcome of the scan that is attested: passed, failed, not believed; null: none is",
            nullable=True,
        ),
        Column("read_at", TIMESTAMP, "When it was read back"),
    ),
    unique=("image_digest", "image"),
    partition_by=("image_digest",),
)

IMAGE_FAULTS = Table(
    layer="bronze",
    name="image_faults",
    comment="Images with which a step could not be taken, and why: a damaged layer, a missing platform, a registry that refuses.",
    columns=(
        _DIGEST,
        Column("step", _text, "sbom, scan, attest"),
        _IMAGE,
        Column("fault", _text, "What was found, and what is allowed"),
        Column("at", TIMESTAMP, "When it was tried last"),
    ),
    unique=("image_digest", "step"),
    partition_by=("image_digest", "step"),
)

ADVISORIES = Table(
    layer="bronze",
    name="advisories",
    comment="Advisories of an OSV snapshot, one row per package: what makes a new one count for old SBOMs.",
    columns=(
        Column("id", _text, "Identifier"),
        Column("ecosystem", _text, "PyPI, npm, Debian:12, ..."),
        Column("package", _text, "Name of the package"),
        Column("position", _int, "1, 2, ... among the advisory's packages"),
        Column("severity", _text, "As the advisory or its CVSS vector says"),
        Column("modified_at", TIMESTAMP, "When it was last changed"),
        Column("document", _text, "The advisory, cut to this package, as OSV JSON"),
        Column("snapshot_at", TIMESTAMP, "As of when the snapshot is; null: not known", nullable=True),
    ),
    unique=("id", "position"),
)

ADMISSION_CASES = Table(
    layer="bronze",
    name="admission_cases",
    comment="The rendered admission policy tried out on images: what must be admitted or denied, and what it did.",
    columns=(
        Column("position", _int, "1, 2, ..."),
        Column("case", _text, "What is wrong with the image, or: nothing"),
        Column("expected", _text, "admitted, denied"),
        Column("found", _text, "admitted, denied"),
        Column("is_right", _bool, "Whether it did what it must, for the reason it must"),
        Column("message", _text, "What the policy said; null: nothing, as it admitted", nullable=True),
    ),
    unique=("position",),
)

SUPPLY_TABLES = (
    DECLARED_IMAGES,
    IMAGES,
    SBOMS,
    SBOM_COMPONENTS,
    IMAGE_SCANS,
    VULNERABILITIES,
    IMAGE_VERDICTS,
    IMAGE_ATTESTATIONS,
    IMAGE_STANDING,
    IMAGE_FAULTS,
    ADVISORIES,
    ADMISSION_CASES,
)
