"""One image, step by step: its SBOMs made and published, scanned, attested, read back; each step written to the lake.

A step that was taken is not taken again while nothing has changed, and one that cannot be taken leaves its reason in
`image_faults`: an image with a fault counts as one that lacks everything the step makes. Not here: when, and of which images.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from greenops_pipelines.errors import PermanentError, TransientError
from greenops_pipelines.evidence.signing import PublicKey, Signer
from greenops_pipelines.lake import Lake, Written
from greenops_pipelines.lake.supply_tables import (
    IMAGE_ATTESTATIONS,
    IMAGE_FAULTS,
    IMAGE_SCANS,
    IMAGE_STANDING,
    IMAGE_VERDICTS,
    SBOM_COMPONENTS,
    SBOMS,
    VULNERABILITIES,
)
from greenops_pipelines.store.objects import ObjectStore
from greenops_pipelines.supply_chain import exceptions, judging, published, scanning, subjects, vouching
from greenops_pipelines.supply_chain.declared import Images
from greenops_pipelines.supply_chain.judging import Knowledge
from greenops_pipelines.supply_chain.making import Made, make
from greenops_pipelines.supply_chain.provenance import Build
from greenops_pipelines.supply_chain.subjects import Subject

Outcome = dict[str, str]
_ABANDONED_SECONDS = 86_400
READ_AGAIN = timedelta(days=6)
"""What is attached is read back again after this: it may have been removed since."""
_RENEWED = timedelta(days=1)
"""A scan is made anew this long before it is too old."""


@dataclass(frozen=True)
class Intake:
    """The steps, for one home. `signer` and `keys` are asked when they are needed."""

    declared: Images
    home: Path
    lake: Lake
    store: ObjectStore
    store_name: str
    signer: Callable[[], Signer]
    keys: Callable[[], Sequence[PublicKey]]
    build: Callable[[], Build]
    """Of what is built here."""
    syft: str = ""
    reports: Path | None = None

    def sbom(self, digest: str, now: datetime, *, is_last: bool = False) -> Outcome:
        """SBOMs of every platform, in the store and the lake."""
        return self._step("sbom", digest, now, self._sbom, is_last)

    def scan(self, digest: str, now: datetime, *, is_last: bool = False) -> Outcome:
        """Scanners that are here, over the SBOMs; and reports that were handed in."""
        return self._step("scan", digest, now, self._scan, is_last)

    def attest(self, digest: str, now: datetime, *, is_last: bool = False) -> Outcome:
        """What may be said of the image is attached where that is wanted; all that is attached is read back."""
        return self._step("attest", digest, now, self._attest, is_last)

    def knowledge(self, now: datetime) -> Knowledge:
        """Advisories, exceptions and policy, as of now."""
        found = exceptions.read_folder(self.declared.vex_folder, self.declared.vex_keys or self.keys(), now)
        return judging.knowledge(self.lake, self.declared.gate, found)

    def judge(self, now: datetime) -> tuple[Written, Written, dict[str, Any]]:
        """The verdict on every image in use, and the vulnerabilities behind it."""
        known = self.knowledge(now)
        rows, verdicts = judging.tables(judging.in_use(self.lake, self.store, known, now), known, now)
        figures = {
            "images judged": verdicts.num_rows,
            "vulnerabilities": rows.num_rows,
            "that count": sum(rows["is_counted"].to_pylist()),
            "advisories": known.count,
            "exceptions in force": len(known.exceptions.valid),
            "exceptions not accepted": "; ".join(f"{each.file}: {each.reason}" for each in known.exceptions.refused)
            or "none",
        }
        return self.lake.write(VULNERABILITIES, rows), self.lake.write(IMAGE_VERDICTS, verdicts), figures

    def wanting(self, now: datetime) -> list[str]:
        """Digests in use without an SBOM, a standing or a scan that is young enough, or with a fault; and those of which another
        outcome is attested than the gate's word of today: after a new advisory, or an exception.

        Where nothing scans and nothing ever did, the want of a scan is no reason to ask every image every night.
        """
        oldest = now - timedelta(days=self.declared.gate.scan_days) + _RENEWED
        wanting = self.lake.query(
            """
            select distinct i.image_digest as digest
            from images as i
            left join sboms as s using (image_digest)
            left join image_standing as t on t.image_digest = i.image_digest and t.image = i.image
            left join image_faults as f on f.image_digest = i.image_digest
            left join (
                select image_digest, platform, max(scanned_at) as scanned_at from image_scans group by all
            ) as c on c.image_digest = s.image_digest and c.platform = s.platform
            left join image_verdicts as v on v.image_digest = s.image_digest and v.platform = s.platform
            left join (
                select image_digest,
                    case when bool_and(outcome = 'passed') then 'passed'
                        when bool_or(outcome = 'failed' and counted = 0) then 'not believed'
                        when bool_and(outcome in ('passed', 'failed')) then 'failed' end as outcome
                from image_verdicts group by image_digest
            ) as w on w.image_digest = i.image_digest
            where i.image_digest is not null and (
                s.image_digest is null or t.image_digest is null or t.missing is not null or f.image_digest is not null
                or (
                    ($3 or exists (from image_scans where scanner <> 'none'))
                    and (c.scanned_at is null or c.scanned_at < $1 or (v.outcome = 'failed' and v.counted = 0))
                )
                or t.read_at < $2
                or (t.is_attached_here and w.outcome is not null and t.attested is distinct from w.outcome)
            )
            """,
            [oldest, now - READ_AGAIN, scanning.is_possible(self.reports)],
        )
        return sorted({*wanting["digest"].to_pylist(), *self._incomplete()})

    def _incomplete(self) -> set[str]:
        """Digests in use whose SBOMs are gone from the store, or not those of the platforms that are declared now."""
        rows = self.lake.query(
            """
            select s.image_digest, s.image, s.platform, s.cyclonedx_key, s.spdx_key, i.is_index
            from sboms as s join (select distinct image_digest, is_index from images) as i using (image_digest)
            """
        ).to_pylist()
        there: dict[tuple[str, str], set[str]] = {}
        for row in rows:
            if row["is_index"]:
                there.setdefault((row["image_digest"], row["image"]), set()).add(row["platform"])
        declared = {image.name: set(subjects.wanted_platforms(image.platforms)) for image in self.declared.images}
        return {
            *(row["image_digest"] for row in rows if not self._are_whole([row])),
            *(digest for (digest, image), found in there.items() if found != declared.get(image)),
        }

    def _public(self, text: str) -> str:
        return subjects.without_folders(text, self.home, self.declared.folder)

    def _step(
        self, step: str, digest: str, now: datetime, take: Callable[[Subject, datetime], Outcome], is_last: bool
    ) -> Outcome:
        """What may pass by itself is raised while there is another attempt, and after that written down like any fault."""
        images = subjects.named(self.declared, self.lake, digest)
        if not images:
            return {"digest": digest, "outcome": "no tag points to it any more"}
        name = images[0].name
        said = {"image": ", ".join(image.name for image in images), "digest": digest}
        try:
            # What an image holds is the same wherever it lies; what is attached to it is not.
            for image in images if step == "attest" else images[:1]:
                name = image.name
                outcome = take(subjects.opened(image, self.declared, self.home, digest), now)
        except (PermanentError, TransientError) as error:
            if isinstance(error, TransientError) and not is_last:
                raise
            fault = self._public(str(error))
            row = {"image_digest": digest, "step": step, "image": name, "fault": fault, "at": now}
            self.lake.write(IMAGE_FAULTS, pa.Table.from_pylist([row], schema=IMAGE_FAULTS.schema))
            return said | {"outcome": f"fault: {fault}"}
        where = {"image_digest": digest, "step": step}
        if self.lake.files(IMAGE_FAULTS, where):
            self.lake.write(IMAGE_FAULTS, IMAGE_FAULTS.schema.empty_table(), [where])
        return said | outcome

    def _sbom(self, subject: Subject, now: datetime) -> Outcome:
        there = self._documents(subject.digest)
        found = {(row["image"], row["platform"]) for row in there}
        wanted = {(subject.image.name, part.platform) for part in subject.parts}
        if found == wanted and self._are_whole(there):
            return {"outcome": f"{len(there)} SBOMs were there"}
        with self._scratch() as folder:
            made = [make(subject, part, folder, self.syft) for part in subject.parts]
        rows = [self._published(subject, each) for each in made]
        components = [row for each in made for row in _components(subject, each)]
        where = [{"image_digest": subject.digest}]
        # Components first: an image whose SBOM counts as published can be asked for.
        table = pa.Table.from_pylist(components, schema=SBOM_COMPONENTS.schema)
        self.lake.write(SBOM_COMPONENTS, table, where, refresh=False)
        self.lake.write(SBOMS, pa.Table.from_pylist(rows, schema=SBOMS.schema), where)
        return {"outcome": f"{len(rows)} SBOMs, {len(components):,} components"}

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        scratch = self.home / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        for abandoned in scratch.glob("image-*"):
            # Of a run that was killed: up to as many bytes as an image has.
            if time.time() - abandoned.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(abandoned, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix="image-", dir=scratch))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _published(self, subject: Subject, made: Made) -> dict[str, Any]:
        sbom, ntia = made.sbom, made.ntia
        cyclonedx, spdx = (
            published.publish(self.store, subject.digest, made.part.platform, kind, document)
            for kind, document in (("cdx.json", sbom.cyclonedx), ("spdx.json", sbom.spdx))
        )
        return {
            "image_digest": subject.digest,
            "platform": made.part.platform,
            "image": subject.image.name,
            "platform_digest": made.part.manifest.digest,
            "is_only": not subject.manifest.is_index or len(subject.parts) == len(subject.manifest.manifests) == 1,
            "config_digest": None if made.part.platform == subjects.NO_PLATFORM else made.part.manifest.config.digest,
            "components": sbom.components,
            "unversioned": len(sbom.without_version),
            "is_conformant": ntia.is_conformant,
            "missing": made.missing or None,
            "supplied_by_metadata": made.supplied_by_metadata,
            "cyclonedx_key": cyclonedx.key,
            "cyclonedx_sha256": cyclonedx.sha256,
            "spdx_key": spdx.key,
            "spdx_sha256": spdx.sha256,
            "tool": f"syft {sbom.tool}",
            "store": self.store_name,
        }

    def _documents(self, digest: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.lake.query(
            "select * from sboms where image_digest = $1 order by platform", [digest]
        ).to_pylist()
        return rows

    def _are_whole(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        return all(self.store.exists(row[key]) for row in rows for key in ("cyclonedx_key", "spdx_key"))

    def _scan(self, subject: Subject, now: datetime) -> Outcome:
        rows: list[dict[str, Any]] = []
        for row in self._documents(subject.digest):
            cyclonedx = published.read(self.store, row["cyclonedx_key"], row["cyclonedx_sha256"])
            digests = [row["platform_digest"], *judging.others(row)]
            taken = scanning.take(cyclonedx, digests, self.reports, self.home / "scratch", now)
            base = {name: row[name] for name in ("image_digest", "platform", "image")}
            rows += scanning.rows(base, taken, self.store)
        table = pa.Table.from_pylist(rows, schema=IMAGE_SCANS.schema)
        self.lake.write(IMAGE_SCANS, table, [{"image_digest": subject.digest}])
        scanners = ", ".join(sorted({f"{row['scanner']} ({row['origin']})" for row in rows})) or "no SBOM to scan"
        return {"outcome": "no scanner" if scanners == "none (none)" else scanners}

    def _attest(self, subject: Subject, now: datetime) -> Outcome:
        is_own = subject.image.is_own
        if is_own or subject.image.attach:
            known = self.knowledge(now)
            said = [self._said(row, known, now) for row in self._documents(subject.digest)]
            if said:
                build = self.build() if is_own else None
                vouching.vouch(subject.repository, subject.name, subject.digest, said, build, self.signer(), now)
        places = {row["platform_digest"]: row["platform"] for row in self._documents(subject.digest)}
        verdict = vouching.verdicts(subject.repository, subject.digest, places, self.keys(), self.declared.builders)
        self._record(subject, verdict, now)
        outcome = f"lacks {', '.join(verdict.missing)}" if verdict.missing else "everything is attached and verifies"
        return {"outcome": f"{outcome}; SLSA build level {verdict.level.level}"}

    def _said(self, row: Mapping[str, Any], known: Knowledge, now: datetime) -> vouching.Said:
        cyclonedx = published.read(self.store, row["cyclonedx_key"], row["cyclonedx_sha256"])
        spdx = published.read(self.store, row["spdx_key"], row["spdx_sha256"])
        scans = self.lake.query(
            "select * from image_scans where image_digest = $1 and platform = $2",
            [row["image_digest"], row["platform"]],
        ).to_pylist()
        scan = judging.attested(judging.of_row(row, scans, self.store, known, now))
        return vouching.Said(row["platform"], row["platform_digest"], cyclonedx, spdx, scan)

    def _record(self, subject: Subject, verdict: vouching.Verdict, now: datetime) -> None:
        rows = []
        for at, each in enumerate(verdict.found, 1):
            row = vouching.row(each, self.declared.builders)
            row |= {"image": subject.image.name, "image_digest": subject.digest, "position": at, "read_at": now}
            rows.append(row | {"fault": row["fault"] and self._public(row["fault"])})
        standing = {
            "image_digest": subject.digest,
            "image": subject.image.name,
            "missing": ", ".join(verdict.missing) or None,
            "verified": len(verdict.verified),
            "unverified": len(verdict.found) - len(verdict.verified),
            "slsa_level": verdict.level.level,
            "slsa_reason": verdict.level.reason,
            "builder": verdict.level.builder or None,
            "is_attached_here": subject.image.is_own or subject.image.attach,
            "attested": vouching.attested_outcome(verdict),
            "read_at": now,
        }
        where = {"image_digest": subject.digest}
        for table, new in ((IMAGE_ATTESTATIONS, rows), (IMAGE_STANDING, [standing])):
            # The same image in another registry stands in the same partition.
            kept = [row for row in self.lake.read(table, where).to_pylist() if row["image"] != subject.image.name]
            both = pa.Table.from_pylist([*kept, *new], schema=table.schema)
            self.lake.write(table, both, [where], refresh=table is IMAGE_STANDING)


def _components(subject: Subject, made: Made) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "version": each.version or None,
            "image": subject.image.name,
            "image_digest": subject.digest,
            "platform": made.part.platform,
            "purl": each.purl or None,
            "kind": each.kind,
            "supplier": each.supplier or None,
            "licences": each.licences or None,
            "path": each.path or None,
            "ref": each.ref,
        }
        for each in made.components.packages
    ]
