"""What people ask the tables about images: what is known of each, which carry a package, where an SBOM lies. Not here: checks."""

from __future__ import annotations

from typing import Any

from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake import Lake


def images(lake: Lake) -> list[dict[str, Any]]:
    """Every tag of every image in use: digest (None where it cannot be read), components, gate, what it lacks, faults."""
    rows: list[dict[str, Any]] = lake.query(
        """
        select i.image, i.tag, i.image_digest as digest, s.components, s.ntia, v.gate, t.missing, t.slsa_level,
            t.image_digest is not null as is_read_back, coalesce(i.fault, f.fault) as fault, i.is_sample
        from images as i
        left join (
            select image_digest, sum(components)::bigint as components, bool_and(is_conformant) as ntia
            from sboms group by all
        ) as s using (image_digest)
        left join (
            -- The worst of its platforms: failed, no scanner, passed.
            select image_digest, min(outcome) as gate from image_verdicts group by all
        ) as v using (image_digest)
        -- What is attached to it in one registry is not attached in another.
        left join image_standing as t on t.image_digest = i.image_digest and t.image = i.image
        left join (
            select image_digest, string_agg(fault, '; ' order by step) as fault from image_faults group by all
        ) as f on f.image_digest = i.image_digest
        order by i.image, i.tag
        """
    ).to_pylist()
    return rows


def carrying(lake: Lake, package: str, version: str | None) -> list[dict[str, Any]]:
    """The components of that name (% stands for any text), with the image each is in, and whether that is in use."""
    rows: list[dict[str, Any]] = lake.query(
        """
        select c.image, c.image_digest as digest, c.platform, c.name, c.version, c.purl,
            i.image_digest is not null as in_use
        from sbom_components as c
        left join (select distinct image_digest from images) as i using (image_digest)
        where c.name ilike $1 and ($2 is null or c.version = $2) order by all
        """,
        [package, version],
    ).to_pylist()
    return rows


def sbom(lake: Lake, image: str, platform: str | None) -> dict[str, Any]:
    """The row of SBOMS of an image by name or digest, the newest in use; `BadInput` where there is none, or several platforms."""
    rows: list[dict[str, Any]] = lake.query(
        """
        select s.* from sboms as s left join images as i using (image_digest)
        where $1 in (s.image_digest, i.image, s.image) and ($2 is null or s.platform = $2)
        order by i.noticed_at desc nulls last, s.platform
        """,
        [image, platform],
    ).to_pylist()
    if not rows:
        raise BadInput(f"image {image}: found no SBOM of it, allowed: a name or digest of `greenops image list`")
    if len(names := sorted({row["platform"] for row in rows})) > 1:
        raise BadInput(f"image {image}: found SBOMs for {', '.join(names)}, allowed: one of them with --platform")
    return rows[0]
