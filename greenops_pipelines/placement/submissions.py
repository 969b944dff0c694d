"""Work that arrives at run time: by a call, as text (the command line), or as files in `HOME/inbox/placement`.

All three end in `Submissions.accept`, once per key. Here: the ways in, the inbox's files, the table that follows. Not
here: what is accepted and how once is once (`acceptance.py`), what a document says (`documents.py`).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from greenops_pipelines.errors import PermanentError, TransientError
from greenops_pipelines.placement.acceptance import Accepted, Submissions, stored
from greenops_pipelines.placement.documents import (
    MAX_BYTES,
    SubmissionRefused,
    UnreadableSubmission,
    read_document,
)
from greenops_pipelines.placement.requests import requests_table
from greenops_pipelines.redaction import one_line
from greenops_pipelines.settings import Settings

SETTLED_SECONDS = 5
"""A file that was changed more recently and cannot be read may still be being written."""
_ENDINGS = (".json", ".yaml", ".yml")
_LONGEST_NAME = 200
"""Bytes; with what is put after it, a name stays below the 255 that file systems take."""
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE})
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP})
"""What is the file's own fault when it is opened; all else is the machine's."""


@dataclass(frozen=True)
class Refusal:
    """A file of the inbox that was refused: its name, and one line per fault."""

    file: str
    reason: str


@dataclass(frozen=True)
class Swept:
    """What a look at the inbox did. `left` are files that may still be being written."""

    accepted: tuple[Accepted, ...]
    already_accepted: tuple[Accepted, ...]
    refused: tuple[Refusal, ...]
    left: tuple[str, ...]


def submit(
    settings: Settings, document: Mapping[str, Any], *, now: datetime | None = None, dry_run: bool = False
) -> Accepted:
    """Accept one document, as `Submissions.accept` says. For many, keep a `Submissions.of(settings)`."""
    return Submissions.of(settings).accept(document, now=now, dry_run=dry_run)


def submit_text(
    settings: Settings, content: bytes, name: str, *, now: datetime | None = None, dry_run: bool = False
) -> Accepted:
    """As `submit`, of a JSON or YAML document; `name` is its file's, or `-`, and stands in messages."""
    return Submissions.of(settings).accept(read_document(content, name), name, now=now, dry_run=dry_run)


def submissions_table(settings: Settings) -> pa.Table:
    """Every accepted submission as rows of PLACEMENT_REQUESTS, by time of acceptance and key."""
    found = sorted(stored(settings.submissions), key=lambda each: (each.accepted_at, each.request.key))
    return requests_table([each.request for each in found], [each.accepted_at for each in found])


def take_inbox(settings: Settings, *, now: datetime | None = None) -> Swept:
    """Accept or refuse every .json and .yaml file of `HOME/inbox/placement`, which is made where missing.

    Accepted files go to `done/`, refused ones to `refused/` with a `<name>.reason.txt`. A file is moved only if it is
    still the one that was read. One that cannot be read and was changed within 5 s stays for the next look, and so does
    a YAML file whose last line has no end: half of one may read like a whole one. Names that begin with a dot are not
    looked at, so that a file can be written under such a name and then renamed.
    One sweep at a time: another one waits. It may be killed at any moment; the next one goes on.

    Raises `ConfigurationError` (a file under ops/), `TransientError` (a full disk); files not yet taken then stay.
    """
    submissions = Submissions.of(settings)
    inbox = _Inbox(settings.inbox / "placement")

    def take(name: str) -> Accepted | Refusal | str | None:
        seen = inbox.look(name)
        if seen is None:
            return None
        is_young = seen.is_young(datetime.now(UTC) if now is None else now)
        shown = one_line(name, 100)
        try:
            if seen.fault:
                raise SubmissionRefused(f"{shown}: {seen.fault}")
            if seen.is_torn and is_young:
                return shown
            document = read_document(seen.content, shown)
            answer = submissions.accept(document, shown, now=now, submitted_at=seen.modified)
        except SubmissionRefused as error:
            if isinstance(error, UnreadableSubmission) and is_young:
                return shown
            inbox.settle(seen, str(error))
            return Refusal(shown, str(error))
        inbox.settle(seen)
        return answer

    with inbox.opened():
        outcomes = [take(name) for name in inbox.names()]
    answers = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
    return Swept(
        tuple(answer for answer in answers if answer.state == "accepted"),
        tuple(answer for answer in answers if answer.state == "already accepted"),
        tuple(outcome for outcome in outcomes if isinstance(outcome, Refusal)),
        tuple(outcome for outcome in outcomes if isinstance(outcome, str)),
    )


def inbox_state(settings: Settings) -> list[str]:
    """Name, size and time of every file that a sweep would look at, and whether it is old enough to be judged."""
    folder, settled = settings.inbox / "placement", time.time() - SETTLED_SECONDS
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        files = [entry for entry in entries if entry.name.endswith(_ENDINGS) and not entry.name.startswith(".")]
        stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in files]
    return sorted(f"{name} {found.st_size} {found.st_mtime_ns} {found.st_mtime < settled}" for name, found in stats)


def newest_submission(settings: Settings) -> datetime | None:
    """When something was accepted last, by the times of the folders; None where nothing ever was."""
    if not settings.submissions.is_dir():
        return None
    with os.scandir(settings.submissions) as entries:
        times = [entry.stat().st_mtime for entry in entries if len(entry.name) == 2]
    return datetime.fromtimestamp(max(times), UTC) if times else None


_Identity = tuple[int, int, int]


@dataclass(frozen=True)
class _Seen:
    """A file of the inbox as it was read."""

    name: str
    content: bytes
    identity: _Identity
    modified: datetime
    fault: str = ""

    @property
    def is_torn(self) -> bool:
        """Whether it can be half of a document that reads like a whole one: YAML that ends in the middle of a line."""
        return not self.name.endswith(".json") and not self.content.endswith(b"\n")

    def is_young(self, now: datetime) -> bool:
        # Absolute: a file from a machine whose clock is ahead is not young for ever.
        return abs((now - self.modified).total_seconds()) < SETTLED_SECONDS


class _Inbox:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taking = folder / ".taking"
        self._done = folder / "done"
        self._refused = folder / "refused"

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The inbox for this process alone, until the block ends or the process does."""
        try:
            for folder in (self._taking, self._done, self._refused):
                folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                # A sweep that was killed had these in its hands. Taking them again does no harm: once is once.
                for path in sorted(self._taking.iterdir()):
                    self._put_back(path)
                yield
        except OSError as error:
            kind = TransientError if error.errno in _PASSING else PermanentError
            allowed = "a folder this user can read and write"
            raise kind(f"{error.filename or self._folder}: found {error.strerror!r}, allowed: {allowed}") from error

    def names(self) -> list[str]:
        with os.scandir(self._folder) as entries:
            return sorted(e.name for e in entries if e.name.endswith(_ENDINGS) and not e.name.startswith("."))

    def look(self, name: str) -> _Seen | None:
        """The file as it is now; None where it is gone."""
        path = self._folder / name
        try:
            there = os.lstat(path)
            if not stat.S_ISREG(there.st_mode):
                return _seen(name, there, fault="found something that is not a file, allowed: a file")
            with os.fdopen(os.open(path, _OPEN), "rb") as stream:
                # As it was before it was read: what changes from here on is seen when the file is settled.
                there = os.fstat(stream.fileno())
                return _seen(name, there, stream.read(MAX_BYTES + 1))
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _CLOSED:
                raise
            return _seen(name, there, fault=f"found {error.strerror!r}, allowed: a file that can be read")

    def settle(self, seen: _Seen, reason: str = "") -> None:
        """Move the file to where it belongs, unless it is another one by now: that one stays for the next look."""
        claimed = self._taking / seen.name
        try:
            (self._folder / seen.name).rename(claimed)
        except FileNotFoundError:
            return
        # Only now can nobody put another file in its place.
        if _identity(os.lstat(claimed)) != seen.identity:
            self._put_back(claimed)
            return
        target = _free(self._refused if reason else self._done, seen)
        if reason:
            target.with_name(f"{target.name}.reason.txt").write_text(f"{reason}\n", encoding="utf-8")
        claimed.rename(target)

    def _put_back(self, path: Path) -> None:
        target = self._folder / path.name
        if not stat.S_ISREG(os.lstat(path).st_mode):
            path.rename(target if not os.path.lexists(target) else _beside(target))
            return
        try:
            # A link, because a rename would replace what was put there meanwhile.
            os.link(path, target, follow_symlinks=False)
        except FileExistsError:
            os.link(path, _beside(target), follow_symlinks=False)
        path.unlink()


def _free(folder: Path, seen: _Seen) -> Path:
    """The file's own name, or where that is taken or long, one that only the same content gets."""
    target, is_long = folder / seen.name, len(os.fsencode(seen.name)) > _LONGEST_NAME
    if not is_long and not os.path.lexists(target):
        return target
    # Of what could not be read nobody knows the content.
    mark = uuid.uuid4().hex if seen.fault else hashlib.sha256(seen.content).hexdigest()
    return folder / f"{'' if is_long else f'{target.stem}.'}{mark[:12]}{target.suffix}"


def _beside(target: Path) -> Path:
    return target.with_name(f"{uuid.uuid4().hex}{target.suffix}")


def _identity(found: os.stat_result) -> _Identity:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _seen(name: str, found: os.stat_result, content: bytes = b"", fault: str = "") -> _Seen:
    return _Seen(name, content, _identity(found), datetime.fromtimestamp(found.st_mtime, UTC), fault)
