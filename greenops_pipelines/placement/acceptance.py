"""Accepting submissions, each key once: one write-once object per key under HOME/submissions, which is the truth.

Any number of processes may accept at once, and any of them be killed. Not here: documents (`documents.py`), the ways in
(`submissions.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import rfc8785

from greenops_pipelines import strict_json
from greenops_pipelines.errors import BadInput, ObjectExists, PermanentError
from greenops_pipelines.ops import tree
from greenops_pipelines.ops.tree import Fault
from greenops_pipelines.placement.documents import Submission, SubmissionRefused, checked, fault
from greenops_pipelines.placement.requests import Declarations, Request, minute_text, request_of
from greenops_pipelines.placement.workloads import read_workloads
from greenops_pipelines.redaction import one_line
from greenops_pipelines.settings import Settings
from greenops_pipelines.store.local import LocalObjectStore

_OBJECT = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}\.json")
_TIMES = ("submitted_at", "earliest_start", "deadline")
_NUMBERS = ("power_kw", "data_gb", "cost_weight_g")

State = Literal["accepted", "already accepted", "valid"]


@dataclass(frozen=True)
class Accepted:
    """The answer to a submission. `valid` is what a dry run says of one that would be accepted."""

    state: State
    request: Request
    accepted_at: datetime | None
    """When the key was accepted, by whichever submission came first; None: a dry run."""

    def as_document(self) -> dict[str, Any]:
        """For JSON: times as text, the runner as an object."""
        accepted_at = None if self.accepted_at is None else _text(self.accepted_at)
        request = _plain(self.request) | {"runner": json.loads(self.request.runner)}
        return {"state": self.state, "accepted_at": accepted_at, "request": request}


class Submissions:
    """What submissions are held against, and where the accepted ones are kept."""

    def __init__(self, declarations: Declarations, root: Path) -> None:
        self._declarations = declarations
        self._objects = _Objects(root)

    @staticmethod
    def of(settings: Settings) -> Submissions:
        """Raises `ConfigurationError` where a file of `ops/` that it reads is wrong."""
        return Submissions(read_workloads(settings.ops_dir).declarations, settings.submissions)

    def accept(
        self,
        document: Mapping[str, Any],
        place: str = "submission",
        *,
        now: datetime | None = None,
        submitted_at: datetime | None = None,
        dry_run: bool = False,
    ) -> Accepted:
        """Accept a document, once per key; `place` names it in messages. A dry run checks all and stores nothing.

        The same key with the same content is answered "already accepted", at any time: deadlines and declarations are
        looked at when a key is new, so that a retry after a crash, or a year later, gets the first one's answer.
        Raises `SubmissionRefused`, one line per fault, also for the same key with other content.
        """
        submission = checked(document, place)
        name = _object_name(submission.key)
        content = submission.model_dump(mode="json", exclude_defaults=True)
        if self._objects.has(name):
            return self._again(name, submission.key, content, place, dry_run)
        time = datetime.now(UTC) if now is None else now.astimezone(UTC)
        self._refuse(submission, document, place, time)
        request = request_of(
            submission,
            self._declarations.resolve(submission),
            key=submission.key,
            earliest_start=submission.earliest_start,
            submitted_at=time if submitted_at is None else min(submitted_at.astimezone(UTC), time),
            source="submitted",
        )
        if dry_run:
            return Accepted("valid", request, None)
        try:
            self._objects.put(name, _encoded(request, time, content))
        except ObjectExists:
            return self._again(name, submission.key, content, place, dry_run)
        return Accepted("accepted", request, time)

    def _again(self, name: str, key: str, content: Mapping[str, Any], place: str, dry_run: bool) -> Accepted:
        data = self._objects.get(name)
        before = self._objects.decoded(name, data)
        if differs := _difference(content, before.content, tuple(Submission.model_fields)):
            field, found, was = differs
            allowed = f"{was}, as accepted at {_text(before.accepted_at)}, or another key"
            text = f"found {found} under the key {key!r}, allowed: {allowed}"
            raise SubmissionRefused(str(Fault(place, None, field, text)))
        if not dry_run:
            # The same bytes again: whoever stored them may have died before they were safe on disk.
            self._objects.put(name, data)
        return Accepted("already accepted", before.request, before.accepted_at)

    def _refuse(self, submission: Submission, document: Mapping[str, Any], place: str, now: datetime) -> None:
        faults = [fault(place, document, at, allowed) for at, allowed in self._declarations.faults(submission)]
        left, duration = submission.deadline - now, submission.duration_minutes
        wanted = ""
        if left <= timedelta(0):
            wanted = "one in the future"
        elif not faults and left < timedelta(minutes=duration):
            wanted = f"one at least duration_minutes, {duration}, ahead"
        if wanted:
            text = f"found the deadline {minute_text(submission.deadline)}, allowed: {wanted}; it is {minute_text(now)}"
            faults.append(Fault(place, None, "window_minutes", text))
        if faults:
            raise SubmissionRefused("\n".join(map(str, faults)))


def accepted(root: Path, key: str) -> Accepted | None:
    """The submission accepted below `root` under the key; raises `PermanentError` naming a damaged one."""
    objects, name = _Objects(root), _object_name(key)
    if not objects.has(name):
        return None
    found = objects.decoded(name, objects.get(name))
    return Accepted("already accepted", found.request, found.accepted_at)


def stored(root: Path) -> Iterator[Accepted]:
    """Every submission accepted below `root`, in no particular order; raises `PermanentError` naming a damaged one."""
    if root.is_dir():
        objects = _Objects(root)
        for name in objects.names():
            found = objects.decoded(name, objects.get(name))
            yield Accepted("accepted", found.request, found.accepted_at)


@dataclass(frozen=True)
class _Stored:
    request: Request
    accepted_at: datetime
    content: Mapping[str, Any]
    """The submission's fields that are not their defaults."""


class _Objects:
    """The store below `root`, made with the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def _store(self) -> LocalObjectStore:
        return LocalObjectStore(self._root)

    def has(self, name: str) -> bool:
        return (self._root / name).is_file()

    def get(self, name: str) -> bytes:
        return self._store.get(name)

    def names(self) -> Iterator[str]:
        return (name for name in self._store.list() if _OBJECT.fullmatch(name))

    def put(self, name: str, data: bytes) -> None:
        try:
            self._store.put(name, data)
        except BadInput as error:
            # Something in the object's way is the fault of this folder, not of the submission.
            raise PermanentError(str(error)) from error

    def decoded(self, name: str, data: bytes) -> _Stored:
        try:
            stored: Any = strict_json.loads(data)
            values = dict(stored["request"])
            values |= {time: datetime.fromisoformat(values[time]) for time in _TIMES}
            # Canonical JSON spells 2.0 as 2.
            values |= {number: float(values[number]) for number in _NUMBERS if values[number] is not None}
            request = Request(**values | {"regions": tuple(values["regions"])})
            return _Stored(request, datetime.fromisoformat(stored["accepted_at"]), dict(stored["submission"]))
        except (ValueError, TypeError, KeyError) as error:
            found = f"{type(error).__name__}: {one_line(str(error), 100)}"
            allowed = "a submission as it was stored; restore it, or move it away"
            raise PermanentError(f"{self._root / name}: found {found}, allowed: {allowed}") from error


def _plain(request: Request) -> dict[str, Any]:
    values = {field.name: getattr(request, field.name) for field in fields(Request)}
    return values | {time: _text(values[time]) for time in _TIMES} | {"regions": list(request.regions)}


def _encoded(request: Request, accepted_at: datetime, content: Mapping[str, Any]) -> bytes:
    # The nonce keeps two processes apart that accept the same at the same microsecond: only one of them can be first.
    nonce = uuid.uuid4().hex
    return rfc8785.dumps(
        {"accepted_at": _text(accepted_at), "nonce": nonce, "request": _plain(request), "submission": dict(content)}
    )


def _difference(now: Mapping[str, Any], before: Mapping[str, Any], order: Iterable[str]) -> tuple[str, str, str] | None:
    """The first field that differs, with what it is and was, to be shown; None where none does."""
    for name in order:
        found, was = now.get(name), before.get(name)
        if isinstance(found, Mapping) and isinstance(was, Mapping):
            if below := _difference(found, was, sorted({*found, *was})):
                return f"{name}.{below[0]}", below[1], below[2]
        elif found != was:
            return name, _shown(found), _shown(was)
    return None


def _shown(value: object) -> str:
    return "the default" if value is None else tree.clip(json.dumps(value, ensure_ascii=False))


def _object_name(key: str) -> str:
    """256 folders, so that none grows long: 10,000 submissions are 40 in each."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{digest[:2]}/{digest}.json"


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
