"""Filing: `Archive.file(...)` turns what happened into a signed, logged bundle in the write-once store.

A bundle is first written down in the queue of this home, then signed, logged and stored, each step once. Where a
step cannot be taken now (store, log or time-stamping authority away or full, clock set back), the bundle waits in the
queue, whole, and `flush` goes on with it. Not here: verification, and the parts' form.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from greenops_pipelines.errors import BadInput, GreenopsError, ObjectMissing, PermanentError, TransientError
from greenops_pipelines.evidence import assemble
from greenops_pipelines.evidence import bundle as form
from greenops_pipelines.evidence.assemble import Vouchers
from greenops_pipelines.evidence.publication import Publication
from greenops_pipelines.evidence.queue import Queue, Slot
from greenops_pipelines.evidence.report import Trust
from greenops_pipelines.evidence.statement import Figure, Statement, Verdict
from greenops_pipelines.evidence.verify import verify
from greenops_pipelines.store.objects import ObjectStore

log = logging.getLogger(__name__)

_OTHERS_PER_FILING = 5
"""Waiting bundles that a filing that went well takes along, so that a short outage heals by itself."""


@dataclass(frozen=True)
class Receipt:
    """What became of a filing. `id` goes into metadata and `check_results`, also where the bundle still waits."""

    id: str
    state: Literal["filed", "queued"]
    detail: str


class Archive:
    """The evidence of one home. `vouchers` is called for each bundle, and refuses keys that are not as they must be."""

    def __init__(
        self,
        store: ObjectStore,
        queue: Queue,
        vouchers: Callable[[], Vouchers],
        publication: Callable[[], Publication | None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._queue = queue
        self._vouchers = vouchers
        self._publication = publication
        self._now = now

    def file(
        self,
        control: str,
        subject: str,
        figures: Mapping[str, Figure],
        files: Mapping[str, bytes | Path],
        verdict: Verdict,
    ) -> Receipt:
        """Files one bundle: what `control` asks for, about `subject`, with `files` by the name they are to have.

        Failed and aborted runs are filed as well as good ones; `verdict` says which. Where a step cannot be taken now,
        the receipt says `queued` and why. Raises `BadInput` for arguments, and `ConfigurationError` for keys, before
        anything is written; and `PermanentError` where a person must act: the bundle waits in the queue then too.
        """
        content = _contents(files)
        try:
            asked = assemble.request(control, subject, figures, verdict, self._now())
        except ValueError as error:
            raise BadInput(f"evidence for {control!r}: {error}") from error
        vouchers, reason = self._available_vouchers()
        bundle_id = f"{self._now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}"
        with self._queue.claim(bundle_id, new=True) as slot:
            if slot is None:
                raise TransientError(f"evidence {bundle_id}: another process has this identifier; try again")
            slot.write(assemble.requested(bundle_id, asked, content))
            if vouchers is None:
                return Receipt(bundle_id, "queued", reason)
            receipt = self._advance(bundle_id, slot, vouchers)
        if receipt.state == "filed":
            self._advance_all(self._queue.ids()[:_OTHERS_PER_FILING], vouchers)
        return receipt

    def _available_vouchers(self) -> tuple[Vouchers | None, str]:
        """The keys and authorities; None with the reason where a KMS or a store does not answer now."""
        try:
            return self._vouchers(), ""
        except TransientError as error:
            log.warning("evidence is queued unsigned: %s", error)
            return None, str(error)

    def flush(self, limit: int | None = None) -> list[Receipt]:
        """Goes on with waiting bundles, oldest first; one receipt each. Bundles that another process has are left."""
        waiting = self._queue.ids()[:limit]
        self._queue.sweep()
        if not waiting:
            self._publish()
            return []
        vouchers, reason = self._available_vouchers()
        if vouchers is None:
            return [Receipt(bundle_id, "queued", reason) for bundle_id in waiting]
        return self._advance_all(waiting, vouchers)

    def _advance_all(self, waiting: list[str], vouchers: Vouchers) -> list[Receipt]:
        """One that cannot go on does not hold up the others."""
        receipts = []
        for bundle_id in waiting:
            with self._queue.claim(bundle_id) as slot:
                if slot is None:
                    continue
                try:
                    receipts.append(self._advance(bundle_id, slot, vouchers))
                except PermanentError as error:
                    log.error("%s", error)
                    receipts.append(Receipt(bundle_id, "queued", str(error)))
        return receipts

    def ids(self) -> list[str]:
        """The bundles in the store, newest first."""
        keys = self._store.list("bundles/")
        return sorted((key.rpartition("/")[2].removesuffix(".tar") for key in keys), reverse=True)

    def waiting(self) -> list[str]:
        """The bundles in the queue, oldest first."""
        return self._queue.ids()

    def get(self, bundle_id: str) -> bytes:
        """The bundle as it was filed (a tar); `BadInput` where there is none, or it is not filed yet."""
        try:
            return self._store.get(key(bundle_id))
        except ObjectMissing:
            waits = bundle_id in self._queue.ids()
            found = "one that waits in the queue (greenops evidence flush)" if waits else "none of that name"
            raise BadInput(
                f"bundle {bundle_id}: found {found}, allowed: a filed one (greenops evidence list)"
            ) from None

    def find(self, subject: str, since: datetime) -> str | None:
        """The bundle about that subject that was asked for since then, filed or waiting.

        For whoever was killed between filing and noting the identifier, and must not file the same thing again.
        """
        first = f"{since.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        for bundle_id in self._queue.ids():
            if bundle_id >= first and (tar := self._queue.peek(bundle_id)) is not None and _subject(tar) == subject:
                return bundle_id
        for bundle_id in self.ids():
            if bundle_id < first:
                return None
            if _subject(self.get(bundle_id)) == subject:
                return bundle_id
        return None

    def _advance(self, bundle_id: str, slot: Slot, vouchers: Vouchers) -> Receipt:
        """Takes a waiting bundle as far as it goes now."""
        try:
            parts = form.parts_of(slot.read())
            publication = self._publication()
            if publication is not None:
                _passing(publication.compare)
            if assemble.REQUEST in parts:
                slot.write(assemble.signed(bundle_id, parts, vouchers, self._now()))
                parts = form.parts_of(slot.read())
            if assemble.SIGNED in parts:
                slot.write(assemble.logged(bundle_id, parts, vouchers.log, self._now()))
            tar = slot.read()
            report = verify(tar, Trust((vouchers.signer.public,)), now=self._now())
            if not report.ok:
                raise PermanentError(f"what was made does not verify: {report.summary}")
            self._store.put(key(bundle_id), tar)
            slot.remove()
        except TransientError as error:
            log.warning("evidence %s waits in the queue: %s", bundle_id, error)
            return Receipt(bundle_id, "queued", str(error))
        except (GreenopsError, ValueError, KeyError) as error:
            raise PermanentError(f"evidence {bundle_id} waits in {self._queue.folder}: {error}") from error
        try:
            return Receipt(bundle_id, "filed", self._publish())
        except PermanentError as error:
            raise PermanentError(f"evidence {bundle_id} is filed, its checkpoint is not published: {error}") from error

    def _publish(self) -> str:
        """The last step, which may lag behind: the bundle is good without it. What happened, in words."""
        publication = self._publication()
        if publication is None:
            return "checkpoint not published: no second place is configured (GREENOPS_EVIDENCE_CHECKPOINTS)"
        try:
            return f"checkpoint published up to {publication.catch_up():,} entries"
        except TransientError as error:
            log.warning("checkpoint not published yet: %s", error)
            return f"checkpoint not published yet: {error}"


def key(bundle_id: str) -> str:
    """Where a bundle lies in the store: one folder per month."""
    return f"bundles/{form.check_id(bundle_id)[:6]}/{bundle_id}.tar"


def _subject(tar: bytes) -> str | None:
    parts = form.parts_of(tar)
    if form.STATEMENT in parts:
        return Statement.read(parts[form.STATEMENT]).predicate.subject
    return assemble.Request.read(parts[assemble.REQUEST]).subject if assemble.REQUEST in parts else None


def _passing(action: Callable[[], None]) -> None:
    """The action; that it cannot be taken now is logged."""
    try:
        action()
    except TransientError as error:
        log.warning("the second place for checkpoints was not asked: %s", error)


def _contents(files: Mapping[str, bytes | Path]) -> dict[str, bytes]:
    form.check_file_names(list(files))
    content = {}
    for name, source in files.items():
        try:
            content[name] = source if isinstance(source, bytes) else source.read_bytes()
        except OSError as error:
            raise BadInput(f"evidence file {name}: {error.filename}: {error.strerror}") from error
    if sum(map(len, content.values())) > form.MAX_BYTES // 2 or len(content) > form.MAX_FILES // 2:
        raise BadInput(
            f"evidence files: found {len(content):,} files with {sum(map(len, content.values())):,} bytes, "
            f"allowed: {form.MAX_FILES // 2:,} files with {form.MAX_BYTES // 2:,} bytes"
        )
    return content
