"""What the lake proves of the supply chain: SBOMs published, attestations verified, builds at their level, nothing shipped
with known holes, a policy that denies what it must.

An image that was noticed within the last hour and has not been taken up yet counts for nothing so far; the gate alone waits
for no one: what has not been scanned has not passed. Not here: doing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from greenops_pipelines.lake import Lake
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.store.objects import ObjectStore

GRACE = timedelta(hours=1)
"""From being noticed to being counted as missed."""

JUDGED_AGAIN = timedelta(days=2)
"""A verdict is asked anew every day; an older one says nothing of today's advisories."""
READ_AGAIN = timedelta(days=8)
"""What is attached is read back at least every week."""

# What cannot be read has no digest: it counts as an image of its own, which has nothing.
_IN_USE = """
    select coalesce(image_digest, image || ':' || tag) as image_digest, min(image) as image,
        min(noticed_at) as noticed_at, bool_or(is_sample) as is_sample, any_value(fault) as unreadable
    from images group by all
"""


def published(lake: Lake, store: ObjectStore, now: datetime) -> Measurement:
    """J5.2: the share of images in use whose SBOMs are published, in both formats, and still there."""
    rows = lake.query(
        f"""
        with in_use as ({_IN_USE})
        select i.image, i.image_digest, i.is_sample, s.platform, s.cyclonedx_key, s.spdx_key,
            coalesce(i.unreadable, f.fault) as fault
        from in_use as i
        left join sboms as s using (image_digest)
        left join image_faults as f on f.image_digest = i.image_digest and f.step = 'sbom'
        where s.image_digest is not null or f.image_digest is not null or i.noticed_at <= $1
        order by i.image, i.image_digest, s.platform
        """,
        [now - GRACE],
    ).to_pylist()
    missing: dict[str, str] = {}
    images = dict.fromkeys(row["image_digest"] for row in rows)
    for row in rows:
        if row["platform"] is None or row["fault"] is not None:
            missing[row["image_digest"]] = f"{_shown(row)}: {row['fault'] or 'no SBOM yet'}"
            continue
        for key in (row["cyclonedx_key"], row["spdx_key"]):
            if not store.exists(key):
                missing[row["image_digest"]] = f"{_shown(row)}: {key} is not in the store any more"
    good = len(images) - len(missing)
    return _share(
        "supply_chain/sbom:published",
        good,
        len(images),
        "; ".join(missing.values()) or f"{good} images with CycloneDX and SPDX documents, read back",
        {"images": len(images), "sample images": len({r["image_digest"] for r in rows if r["is_sample"]})},
    )


def ntia(lake: Lake) -> Measurement:
    """The share of SBOMs that hold the NTIA's minimum elements, for every component."""
    rows = lake.query(
        f"""
        with in_use as ({_IN_USE})
        select s.*, i.is_sample from sboms as s join in_use as i using (image_digest) order by s.image, s.platform
        """
    ).to_pylist()
    bad = [
        f"{_shown(row)} ({row['platform']}): {_one_line(row['missing'])}" for row in rows if not row["is_conformant"]
    ]
    listed = sum(row["components"] for row in rows)
    return _share(
        "supply_chain/sbom:ntia",
        len(rows) - len(bad),
        len(rows),
        "; ".join(bad)
        or f"supplier, name, version, identifier, relationship, author and time of {listed:,} components",
        {
            "components": listed,
            "suppliers by their own metadata": sum(row["supplied_by_metadata"] for row in rows),
            "components that state no version": sum(row["unversioned"] for row in rows),
        },
    )


def verified(lake: Lake, now: datetime) -> Measurement:
    """J5.3: the share of images in use with everything attached to them that must be, read back and verified."""
    rows = _standing(lake, now)
    bad = [f"{_shown(row)}: {_wrong(row)}" for row in rows if not _stands(row)]
    good = len(rows) - len(bad)
    return _share(
        "supply_chain/attestations:verified",
        good,
        len(rows),
        "; ".join(bad) or f"{good} images: signature, SBOM and provenance, by tag and by referrer",
        {
            "images": len(rows),
            "statements that verify": sum(row["verified"] or 0 for row in rows),
            "attached things that do not": sum(row["unverified"] or 0 for row in rows),
        },
    )


def slsa_level(lake: Lake, now: datetime) -> Measurement:
    """J5.3: the lowest SLSA build level of the images in use.

    Levels 2 and 3 are properties of a builder, so the figure counts only once an isolated builder's own provenance has been
    verified; until then the level that is achieved stands beside it.
    """
    rows = _standing(lake, now)
    levels = [row["slsa_level"] or 0 for row in rows]
    lowest = min(rows, key=lambda row: row["slsa_level"] or 0, default=None)
    isolated = any(level >= 3 for level in levels)
    shown = (
        f"achieved: level {min(levels)}; {_shown(lowest)}: {lowest['slsa_reason'] or 'not read back yet'}"
        if lowest
        else "no image"
    )
    return Measurement(
        check="supply_chain/attestations:slsa_level",
        measured=float(min(levels)) if isolated else None,
        target=3,
        comparison=">=",
        unit="level",
        detail=shown,
        missing=None
        if isolated
        else "the provenance of an isolated builder, signed with its own key (builders in ops/images.yaml)",
        figures={
            "achieved level": min(levels) if levels else 0,
            "images": len(rows),
            **{f"images at level {level}": levels.count(level) for level in sorted(set(levels))},
        },
    )


def gate(lake: Lake, now: datetime) -> Measurement:
    """J5.5: vulnerabilities of images in use that count and that no signed exception excuses. No scanner is no pass."""
    rows = lake.query(
        f"with in_use as ({_IN_USE}) select i.image, i.image_digest, v.* exclude (image, image_digest) from in_use as i left join image_verdicts as v using (image_digest) order by i.image"
    ).to_pylist()
    counted = sum(row["counted"] or 0 for row in rows)
    old = [row for row in rows if row["judged_at"] is not None and row["judged_at"] < now - JUDGED_AGAIN]
    unscanned = [row for row in rows if row["outcome"] in (None, "no scanner") or row in old]
    faulty = [row for row in rows if row["outcome"] == "failed" and not row["counted"]]
    figures: dict[str, float | int | str] = {
        "images": len({row["image_digest"] for row in rows}),
        "counted": counted,
        "excused": sum(row["excused"] or 0 for row in rows),
        "images without a scan": len({row["image_digest"] for row in unscanned}),
        "scans that are not believed": len(faulty),
    }
    if counted:
        worst = lake.query(
            "select image || ': ' || id || ' ' || severity || ' in ' || package || ' ' || version as line from vulnerabilities where is_counted order by severity, image, id limit 5"
        ).to_pylist()
        return _holes(float(counted), "; ".join(row["line"] for row in worst), None, figures)
    if faulty:
        detail = "; ".join(f"{_shown(row)}: {_one_line(row['faults'])}" for row in faulty[:5])
        # Nothing was counted, because nothing was believed: each such scan counts as a hole.
        return _holes(float(len(faulty)), detail, None, figures)
    if unscanned or not rows:
        missing = "a scan of every image"
        if not rows or any(row["outcome"] == "no scanner" for row in unscanned):
            missing = (
                "no scanner: neither trivy nor grype is on PATH, and no report was handed in (GREENOPS_SCAN_REPORTS)"
            )
        elif old:
            missing = (
                f"a verdict that is younger than {JUDGED_AGAIN.days} days (the asset supply_chain/vulnerabilities)"
            )
        return _holes(None, f"{len(unscanned)} images without a scan", missing, figures)
    return _holes(0.0, f"{len(rows)} scans believed, none with a vulnerability that counts", None, figures)


def matrix(lake: Lake) -> Measurement:
    """J5.4: the share of admission cases that the rendered policy decided as it must, for the reason it must."""
    rows = lake.query("select * from admission_cases order by position").to_pylist()
    bad = [
        f"{row['case']}: {row['found']}, expected {row['expected']}"
        + (f", for another reason than: {row['message']}" if row["found"] == row["expected"] else "")
        for row in rows
        if not row["is_right"]
    ]
    return _share(
        "supply_chain/admission:matrix",
        len(rows) - len(bad),
        len(rows),
        "; ".join(bad)
        or f"{len(rows)} cases, {sum(row['expected'] == 'denied' for row in rows)} of them denied with the reason",
        {"cases": len(rows), "denied": sum(row["found"] == "denied" for row in rows)},
    )


def looked(faults: Sequence[str], images: int) -> Measurement:
    """Sources that could not be asked, or that hold nothing of what is declared."""
    return Measurement(
        check="supply_chain/images:reached",
        measured=float(len(faults)),
        target=0,
        comparison="==",
        unit="sources",
        detail="; ".join(faults) or f"every declared source was asked; {images} tags",
    )


def _standing(lake: Lake, now: datetime) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.query(
        f"""
        with in_use as ({_IN_USE.replace("min(image) as image", "image")})
        select i.image, i.image_digest, i.is_sample, s.* exclude (image, image_digest),
            coalesce(i.unreadable, f.fault) as fault, coalesce(s.read_at < $2, false) as is_old
        from in_use as i
        left join image_standing as s on s.image_digest = i.image_digest and s.image = i.image
        left join image_faults as f on f.image_digest = i.image_digest and f.step = 'attest'
        where s.image_digest is not null or f.image_digest is not null or i.noticed_at <= $1
        order by i.image, i.image_digest
        """,
        [now - GRACE, now - READ_AGAIN],
    ).to_pylist()
    return rows


def _stands(row: dict[str, Any]) -> bool:
    return row["read_at"] is not None and not row["is_old"] and row["missing"] is None and row["fault"] is None


def _wrong(row: dict[str, Any]) -> str:
    if row["fault"] is not None:
        return str(row["fault"])
    if row["is_old"]:
        return f"read back on {row['read_at']:%Y-%m-%d} for the last time"
    return f"lacks {row['missing']}" if row["missing"] else "not read back yet"


def _share(check: str, good: int, of: int, detail: str, figures: dict[str, float | int | str]) -> Measurement:
    return Measurement(
        check=check,
        measured=100.0 * good / of if of else None,
        target=100,
        comparison="==",
        unit="%",
        detail=detail if of else "nothing to look at",
        missing=None if of else "an image (ops/images.yaml)",
        figures=figures,
    )


def _holes(
    measured: float | None, detail: str, missing: str | None, figures: dict[str, float | int | str]
) -> Measurement:
    return Measurement(
        check="supply_chain/vulnerabilities:gate",
        measured=measured,
        target=0,
        comparison="==",
        unit="vulnerabilities",
        detail=detail,
        missing=missing,
        figures=figures,
    )


def _shown(row: dict[str, Any]) -> str:
    return f"{row['image']}@{row['image_digest'][:19]}"


def _one_line(text: str | None) -> str:
    return "; ".join((text or "").splitlines())
