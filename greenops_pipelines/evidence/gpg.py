"""The second signature: GnuPG's, with a key ring of its own in `keys/gnupg`, checked with gpgv. Not here: the first.

Every call runs under a guard that ends gpg's agent with it: an agent left behind would outlive us, and become a
zombie where no init reaps.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from greenops_pipelines.errors import ConfigurationError, PermanentError
from greenops_pipelines.evidence.keys import Keys
from greenops_pipelines.process.child import Child, base_environment

_USER_ID = "greenops-pipelines evidence"
_SECONDS = 60.0
_ABANDONED_SECONDS = 3600
_MAX_HOME = 70
"""The agent's socket lies in GnuPG's home, and a socket's path may have 107 bytes."""


class Gpg:
    """Signs with the one key of `keys/gnupg`, which is made on first use."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._fingerprint = ""
        self._public = b""

    @staticmethod
    def installed() -> bool:
        return shutil.which("gpg") is not None

    @property
    def fingerprint(self) -> str:
        self._prepare()
        return self._fingerprint

    @property
    def public(self) -> bytes:
        """The public key as gpgv takes it (binary)."""
        self._prepare()
        return self._public

    def sign(self, data: bytes) -> bytes:
        """An armoured detached signature."""
        self._prepare()
        with self._scratch() as scratch:
            message, signature = scratch / "message", scratch / "message.asc"
            message.write_bytes(data)
            self._run(
                [
                    "--local-user",
                    self._fingerprint,
                    "--armor",
                    "--output",
                    str(signature),
                    "--detach-sign",
                    str(message),
                ]
            )
            return signature.read_bytes()

    def _prepare(self) -> None:
        if self._fingerprint:
            return
        with self._keys.locked_folder() as folder:
            noted = folder / "gpg.fingerprint"
            home = folder / "gnupg"
            if noted.exists() and not (home / "private-keys-v1.d").is_dir():
                raise ConfigurationError(
                    f"{home}: found no private key, but {noted.name}; bring the folder back from a backup, "
                    f"or move {noted.name} away to begin with a new key"
                )
            home.mkdir(mode=0o700, exist_ok=True)
            found = self._fingerprints()
            if not found:
                self._run(["--passphrase", "", "--quick-generate-key", _USER_ID, "ed25519", "sign", "never"])
                found = self._fingerprints()
            if len(found) != 1:
                raise ConfigurationError(f"{home}: found {len(found)} secret keys, allowed: one")
            if noted.exists() and noted.read_text().strip() != found[0]:
                raise ConfigurationError(f"{home}: found the key {found[0]}, allowed: the one in {noted.name}")
            noted.write_text(found[0] + "\n")
            with self._scratch() as scratch:
                exported = scratch / "key"
                self._run(["--output", str(exported), "--export", found[0]])
                self._public = exported.read_bytes()
            self._fingerprint = found[0]

    def _fingerprints(self) -> list[str]:
        listing = self._run(["--with-colons", "--list-secret-keys"]).decode("utf-8", "replace")
        return re.findall(r"^sec:[^\n]*\nfpr:::::::::([0-9A-F]{40}):", listing, re.MULTILINE)

    def _run(self, args: Sequence[str]) -> bytes:
        """What gpg printed, on either stream; raises `PermanentError` where it failed.

        One gpg at a time: the guard of the first to end would take the agent from under the others. Tried again,
        because a filer that was killed may leave an agent that is just going.
        """
        descriptor = os.open(self._keys.folder / ".gpg.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for pause in (0.2, 1.0, 0.0):
                code, output = self._run_once(args)
                if code == 0:
                    return output
                time.sleep(pause)
        finally:
            os.close(descriptor)
        raise PermanentError(f"gpg: exited with {code}: {output.decode('utf-8', 'replace').strip()[-400:]}")

    def _run_once(self, args: Sequence[str]) -> tuple[int, bytes]:
        with self._scratch() as scratch:
            log = scratch / "log"
            environment = base_environment() | {"GNUPGHOME": str(_short(self._keys.folder / "gnupg")), "LC_ALL": "C"}
            command = ["gpg", "--batch", "--no-tty", "--yes", "--quiet", "--pinentry-mode", "loopback", *args]
            with Child.start(command, log=log, env=environment, install="the Debian package gnupg") as child:
                code = child.wait(_SECONDS)
            return code, log.read_bytes()

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder beside the keys, gone afterwards; what killed filers left there goes after an hour."""
        above = self._keys.folder / "scratch"
        above.mkdir(mode=0o700, exist_ok=True)
        for left in above.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=above) as folder:
            yield Path(folder)


def check(signature: bytes, data: bytes, public: bytes, fingerprint: str) -> str:
    """The signature's own time (RFC 3339); `ValueError` unless gpgv finds it valid and by exactly that key."""
    if shutil.which("gpgv") is None:
        raise ValueError("found no gpgv to check it with; install the Debian package gpgv")
    with tempfile.TemporaryDirectory(prefix="greenops-gpgv-") as scratch:
        folder = Path(scratch)
        for name, content in (("key", public), ("sig", signature), ("data", data)):
            (folder / name).write_bytes(content)
        done = subprocess.run(
            [
                "gpgv",
                "--status-fd",
                "1",
                "--homedir",
                scratch,
                "--keyring",
                f"{scratch}/key",
                f"{scratch}/sig",
                f"{scratch}/data",
            ],
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env=base_environment() | {"LC_ALL": "C"},
        )
    status = done.stdout.decode("utf-8", "replace")
    valid = re.findall(r"^\[GNUPG:\] VALIDSIG ([0-9A-F]{40}) (\S+) ", status, re.MULTILINE)
    if done.returncode or len(valid) != 1:
        raise ValueError("gpgv does not find it valid")
    if valid[0][0] != fingerprint:
        raise ValueError(f"it is by the key {valid[0][0]}, stated is {fingerprint}")
    return str(valid[0][1])


def _short(home: Path) -> Path:
    """The folder itself, or a short link to it where a socket in it would have too long a name. The link stays."""
    if len(os.fsencode(home)) <= _MAX_HOME:
        return home
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    folder = Path(f"/tmp/greenops-{os.geteuid()}-{name}")  # noqa: S108 - short is the point; its owner is checked
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigurationError(
            f"{folder}: found something of another user's in the way; remove it, or shorten {home}"
        )
    link = folder / "h"
    with suppress(FileExistsError):
        link.symlink_to(home)
    if link.readlink() != home:
        raise ConfigurationError(f"{link}: found a link to {link.readlink()}, allowed: {home}; remove it")
    return link
