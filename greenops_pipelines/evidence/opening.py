"""Settings -> the objects of this package: where the store lies, which keys sign, which second place is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from greenops_pipelines.errors import BadInput, ConfigurationError
from greenops_pipelines.evidence.archive import Archive
from greenops_pipelines.evidence.assemble import Vouchers
from greenops_pipelines.evidence.audit import Audit, audit
from greenops_pipelines.evidence.gpg import Gpg
from greenops_pipelines.evidence.keys import Keys
from greenops_pipelines.evidence.log import Log
from greenops_pipelines.evidence.publication import GitPlace, Place, Publication, StorePlace
from greenops_pipelines.evidence.queue import Queue
from greenops_pipelines.evidence.report import Report, Trust
from greenops_pipelines.evidence.signing import PublicKey
from greenops_pipelines.evidence.timestamp import Authority
from greenops_pipelines.evidence.verify import verify
from greenops_pipelines.settings import Settings
from greenops_pipelines.store.objects import ObjectStore
from greenops_pipelines.store.opening import open_store
from greenops_pipelines.store.s3 import Retention


@dataclass(frozen=True)
class Evidence:
    """The evidence of one home; what is expensive is made on first use, and once."""

    settings: Settings

    @cached_property
    def store(self) -> ObjectStore:
        """Bundles and log: `GREENOPS_EVIDENCE_URL`, else beside the lake in its bucket, else a folder in the home."""
        settings = self.settings
        address = settings.evidence_url
        if not address:
            lake = settings.lake_url.rstrip("/")
            address = f"{lake}/evidence" if lake else str(settings.home / "evidence" / "store")
        days = settings.evidence_retention_days
        retention = Retention(days, settings.evidence_lock_mode) if days else None
        if retention and not address.startswith("s3://"):
            raise ConfigurationError(
                "GREENOPS_EVIDENCE_RETENTION_DAYS: found a retention, and a folder as the store; "
                "allowed: 0, or a bucket in GREENOPS_EVIDENCE_URL"
            )
        return open_store(address, "GREENOPS_EVIDENCE_URL", settings.s3_endpoint, settings.s3_region, retention)

    @cached_property
    def keys(self) -> Keys:
        return Keys(self.settings.home / "keys")

    @cached_property
    def log(self) -> Log:
        return Log(self.store, self.keys.log_key(), self.settings.home / "evidence" / "log-seen.txt")

    @cached_property
    def place(self) -> Place | None:
        """The second place for checkpoints; None where none is configured."""
        settings = self.settings
        address = settings.evidence_checkpoints
        if not address:
            return None
        if address.startswith("git+"):
            return GitPlace(address.removeprefix("git+"), settings.home / "evidence" / "published")
        region = settings.evidence_checkpoints_region or settings.s3_region
        return StorePlace(open_store(address, "GREENOPS_EVIDENCE_CHECKPOINTS", settings.s3_endpoint, region, None))

    @cached_property
    def publication(self) -> Publication | None:
        if self.place is None:
            return None
        return Publication(self.place, self.log, self.settings.home / "evidence" / "published-size.txt")

    @cached_property
    def _gpg(self) -> Gpg:
        return Gpg(self.keys)

    @cached_property
    def authority(self) -> Authority | None:
        url, roots = self.settings.evidence_tsa_url, self.settings.evidence_tsa_ca
        if not url:
            return None
        if not roots:
            raise ConfigurationError(
                "GREENOPS_EVIDENCE_TSA_CA: found nothing, allowed: a PEM file with the certificates that vouch for "
                f"{url}; its time stamps could not be checked otherwise"
            )
        return Authority(url, _read(Path(roots), "GREENOPS_EVIDENCE_TSA_CA"))

    def vouchers(self) -> Vouchers:
        """The keys and authorities, each as it must be; `ConfigurationError` otherwise."""
        wanted, reason = self.settings.evidence_gpg, ""
        if wanted == "off":
            reason = "switched off (GREENOPS_EVIDENCE_GPG=off)"
        elif not Gpg.installed():
            reason = "no gpg program was found where this was signed"
        if reason and wanted == "required":
            raise ConfigurationError(f"GREENOPS_EVIDENCE_GPG=required: {reason}; install the Debian package gnupg")
        gpg = None if reason else self._gpg
        _ = self.place  # a second place that is no place is said now, and not after the bundle was logged
        return Vouchers(self.keys.signer(self.settings.evidence_key), self.log, gpg, reason, self.authority)

    @cached_property
    def archive(self) -> Archive:
        """Where bundles are filed: `archive.file(...)`."""
        queue = Queue(self.settings.home / "evidence" / "queue")
        return Archive(self.store, queue, self.vouchers, lambda: self.publication)

    def trust(self, key: Path | None = None, checkpoints: Path | None = None, tsa_ca: Path | None = None) -> Trust:
        """What a verifier brings along; without `key`, this home's own public keys."""
        public = self.keys.public() if key is None else (public_key(key),)
        published = None
        if checkpoints is not None:
            if not checkpoints.is_dir():
                raise BadInput(f"--checkpoints {checkpoints}: found no folder, allowed: a copy of the second place")
            published = _reader(checkpoints)
        return Trust(public, _read(tsa_ca, "--tsa-ca") if tsa_ca else None, published)

    def verify(self, bundle: str, trust: Trust) -> Report:
        """Verifies a tar, a folder, or a bundle of the store by its id."""
        path = Path(bundle)
        if path.exists():
            return verify(path, trust)
        if "/" in bundle or path.suffix:
            raise BadInput(f"{bundle}: found nothing there, allowed: a tar, a folder, or the id of a filed bundle")
        return verify(self.archive.get(bundle), trust, expected_id=bundle)

    def audit(self, trust: Trust) -> Audit:
        return audit(self.store, self.log, trust, self.place, self.archive.waiting)


def public_key(path: Path) -> PublicKey:
    """The key in a PEM file; `BadInput` where it is none that signs evidence."""
    try:
        return PublicKey.parse(_read(path, "--key"))
    except ValueError as error:
        raise BadInput(f"--key {path}: {error}") from error


def _read(path: Path, option: str) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise BadInput(f"{option} {path}: {error.strerror}") from error


def _reader(folder: Path) -> Callable[[str], bytes | None]:
    def read(name: str) -> bytes | None:
        try:
            return (folder / name).read_bytes()
        except FileNotFoundError:
            return None

    return read
