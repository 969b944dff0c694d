"""The second place for checkpoints: a log held by its signer proves nothing against its signer.

Every checkpoint goes, in order, to a git repository, a folder or a bucket that someone else keeps; there it is
compared with what stands there already. Not here: the log itself.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from greenops_pipelines.errors import ObjectExists, ObjectMissing, PermanentError, TransientError
from greenops_pipelines.evidence.log import Log, LogBroken
from greenops_pipelines.process.child import base_environment
from greenops_pipelines.store.objects import ObjectStore

_GIT_SECONDS = 60
_BRANCH = "main"
_TRIES = 5
_PASSED_ON = ("SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO")


class Place(Protocol):
    """Where names are written once."""

    def read_all(self, prefix: str) -> tuple[str, ...]:
        """The names that start with `prefix`."""
        ...

    def read(self, name: str) -> bytes | None: ...

    def publish(self, notes: Mapping[str, bytes]) -> None:
        """Raises `ObjectExists` where a name has another content there."""
        ...


class StorePlace:
    """Another folder or bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read_all(self, prefix: str) -> tuple[str, ...]:
        return self._store.list(prefix)

    def read(self, name: str) -> bytes | None:
        try:
            return self._store.get(name)
        except ObjectMissing:
            return None

    def publish(self, notes: Mapping[str, bytes]) -> None:
        for name, note in notes.items():
            self._store.put(name, note)


class GitPlace:
    """The branch `main` of a git remote; `clone` is our working copy of it. Credentials are git's own."""

    def __init__(self, remote: str, clone: Path) -> None:
        self._remote = remote
        self._clone = clone

    def read_all(self, prefix: str) -> tuple[str, ...]:
        with self._fetched():
            tracked = self._git("ls-files", "-z").decode().split("\0")
            return tuple(sorted(name for name in tracked if name.startswith(prefix)))

    def read(self, name: str) -> bytes | None:
        with self._fetched():
            path = self._clone / name
            return path.read_bytes() if path.exists() else None

    def publish(self, notes: Mapping[str, bytes]) -> None:
        for _ in range(_TRIES):
            with self._fetched():
                for name, note in notes.items():
                    path = self._clone / name
                    if path.exists() and path.read_bytes() != note:
                        raise ObjectExists(f"{self._remote}: {name} has another content there")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(note)
                    self._git("add", "--", name)
                if not self._git("status", "--porcelain").strip():
                    return
                identity = (
                    "-c",
                    "user.name=greenops-pipelines",
                    "-c",
                    "user.email=evidence@greenops-pipelines.example",
                )
                self._git(*identity, "commit", "--quiet", "--no-gpg-sign", "-m", f"Checkpoint {max(notes)}")
                try:
                    self._git("push", "--quiet", "origin", f"HEAD:refs/heads/{_BRANCH}")
                    return
                except TransientError as error:
                    rejected = error  # another writer pushed meanwhile, or the remote is away: fetched again
        raise rejected

    @contextmanager
    def _fetched(self) -> Iterator[None]:
        """The working copy as the remote has it, for one process at a time."""
        self._clone.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._clone.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not (self._clone / ".git").is_dir():
                self._clone.mkdir(parents=True, exist_ok=True)
                self._git("init", "--quiet", "--initial-branch", _BRANCH)
            # A git that was killed leaves its own locks behind; ours says that nobody else is at work.
            for leftover in (self._clone / ".git").glob("*.lock"):
                leftover.unlink()
            self._git("config", "remote.origin.url", self._remote)
            self._git("fetch", "--quiet", "--prune", "origin", "+refs/heads/*:refs/remotes/origin/*")
            there = (
                self._git("for-each-ref", "--format=%(objectname)", f"refs/remotes/origin/{_BRANCH}").decode().strip()
            )
            if there:
                self._git("checkout", "--quiet", "--force", "--detach", there)
                self._git("clean", "--quiet", "--force", "-d")
            yield
        finally:
            os.close(descriptor)

    def _git(self, *args: str) -> bytes:
        environment = base_environment() | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1"}
        environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        try:
            done = subprocess.run(
                ["git", "-C", str(self._clone), *args],
                capture_output=True,
                timeout=_GIT_SECONDS,
                check=False,
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError as error:
            raise PermanentError("git: found no such program; install the Debian package git") from error
        except subprocess.TimeoutExpired as error:
            raise TransientError(f"git {args[0]}: no answer from the remote within {_GIT_SECONDS} s") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise TransientError(f"git {args[0]}: exited with {done.returncode}: {said[-1][:200] if said else ''}")
        return done.stdout


class Publication:
    """Brings the log's checkpoints to the second place. `memory` is the file with the last size brought there."""

    def __init__(self, place: Place, log: Log, memory: Path) -> None:
        self._place = place
        self._log = log
        self._memory = memory
        self._compared = False

    def compare(self) -> None:
        """Raises `LogBroken` where the second place knows more entries than the log has, or others. Once a process."""
        if self._compared:
            return
        names = self._place.read_all(folder(self._log.verifier.origin))
        size = self._log.size()
        if names:
            newest = names[-1]
            published = self._log.verifier.open((self._place.read(newest) or b"").decode("utf-8", "replace"))
            if published.size > size:
                raise LogBroken(
                    f"the log {published.origin} is truncated: found {size:,} entries, "
                    f"the published checkpoint {newest} is over {published.size:,}"
                )
            ours = self._log.checkpoint(published.size)
            if ours is None or self._log.verifier.open(ours).root != published.root:
                raise LogBroken(f"the log {published.origin} is forked: the published checkpoint {newest} is not ours")
        self._compared = True

    def catch_up(self) -> int:
        """Publishes every checkpoint since the last one published; the size now published."""
        self.compare()
        newest = self._log.seen()
        if newest is None:
            return 0
        origin = newest.origin
        last = self._last()
        if last and (found := self._place.read(name(origin, last))) != (self._log.checkpoint(last) or "").encode():
            gone = "gone" if found is None else "another one"
            raise LogBroken(
                f"the published checkpoint {name(origin, last)} is {gone}; ask those who keep the second place"
            )
        sizes = range(last + 1, newest.size + 1) if last else [newest.size]
        notes = {
            name(origin, size): note.encode() for size in sizes if (note := self._log.checkpoint(size)) is not None
        }
        if notes:
            try:
                self._place.publish(notes)
            except ObjectExists as error:
                raise LogBroken(f"the log {origin} is forked: {error}") from error
            temporary = self._memory.with_suffix(".new")
            temporary.write_text(f"{newest.size}\n")
            temporary.replace(self._memory)
        return newest.size

    def _last(self) -> int:
        try:
            return int(self._memory.read_text())
        except (FileNotFoundError, ValueError):
            return 0


def folder(origin: str) -> str:
    """Where the second place keeps a log's checkpoints: several logs may share one."""
    return f"checkpoints/{origin.rpartition('/')[2]}/"


def name(origin: str, size: int) -> str:
    return f"{folder(origin)}{size:012d}.txt"
