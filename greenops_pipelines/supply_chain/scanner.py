"""Trivy and Grype, run over an SBOM where they are on PATH: with no settings but ours, and the user's own database.

Not here: what their reports say (`scan_reports.py`), whether they are believed (`gate.py`), and getting a scanner.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from greenops_pipelines.errors import ConfigurationError, ProviderError, TransientError
from greenops_pipelines.process.child import base_environment
from greenops_pipelines.supply_chain import scan_reports
from greenops_pipelines.supply_chain.scan_reports import GRYPE, MAX_REPORT_BYTES, TRIVY, ScanReport

_VERSION_SECONDS = 60
_TAIL_BYTES = 2000


@dataclass(frozen=True)
class Scan:
    """A report as the scanner has written it, and as it was read."""

    document: bytes
    report: ScanReport


@dataclass(frozen=True)
class Scanner:
    """A program that holds SBOMs against a database of vulnerabilities."""

    name: str
    """grype or trivy."""
    path: Path

    def scan(
        self, sbom: Path, folder: Path, *, seconds: float = 600, environment: Mapping[str, str] | None = None
    ) -> Scan:
        """Scan the CycloneDX document `sbom`; its SHA-256 stands in the report's `of_sbom`.

        `folder` takes a temporary folder. `environment` is added to what any program needs: a mirror of the database, a
        proxy. Raises `ProviderError` with the end of what the scanner said where it fails, and where its report is none;
        `TransientError` after `seconds`, or where a signal ended it.
        """
        of_sbom = hashlib.sha256(sbom.read_bytes()).hexdigest()
        given = str(sbom.absolute())
        with tempfile.TemporaryDirectory(prefix=f"{self.name}-", dir=folder) as temporary:
            work = Path(temporary).absolute()
            variables = _environment(work) | dict(environment or {})
            where = f"{self.name}: {sbom.name}"
            if self.name == GRYPE:
                document = self._run([f"sbom:{given}", "-o", "json"], work, variables, where, seconds)
                report = scan_reports.read(document, where)
            else:
                args = ["sbom", "--format", "json", "--list-all-pkgs", given]
                document = self._run(args, work, variables, where, seconds)
                # After the scan, which may have brought the database up to date.
                about = self._run(["--version", "-f", "json"], work, variables, where, _VERSION_SECONDS)
                version, built = scan_reports.trivy_database(about, f"{where}: --version")
                report = replace(scan_reports.read(document, where, database_built=built), scanner_version=version)
        if report.scanner != self.name:
            raise ProviderError(f"{where}: found a report of {report.scanner}, allowed: its own")
        return Scan(document, replace(report, of_sbom=of_sbom))

    def _run(self, args: Sequence[str], work: Path, variables: Mapping[str, str], where: str, seconds: float) -> bytes:
        output, log = work / "output", work / "log"
        try:
            with output.open("wb") as stdout, log.open("wb") as stderr:
                code = subprocess.run(
                    [self.path, *args],
                    env=variables,
                    cwd=work,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    timeout=seconds,
                    check=False,
                ).returncode
        except subprocess.TimeoutExpired:
            raise TransientError(f"{where}: still busy after {seconds:g} s; it was ended") from None
        except OSError as error:
            raise ConfigurationError(f"{self.path}: could not be run: {error.strerror}") from None
        if code < 0:
            raise TransientError(f"{where}: ended by signal {-code}; is memory short?")
        if code:
            said = log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace").replace(f"{work}/", "").strip()
            raise ProviderError(f"{where}: ended with {code}: {said or 'and said nothing'}")
        if output.stat().st_size > MAX_REPORT_BYTES:
            raise ProviderError(f"{where}: wrote {output.stat().st_size:,} bytes, allowed: up to {MAX_REPORT_BYTES:,}")
        return output.read_bytes()


def found() -> tuple[Scanner, ...]:
    """The scanners on PATH, Grype first; none is no error here, and no pass at the gate."""
    paths = ((name, shutil.which(name)) for name in (GRYPE, TRIVY))
    return tuple(Scanner(name, Path(path).absolute()) for name, path in paths if path)


def _environment(work: Path) -> dict[str, str]:
    """A home of its own, so that neither the user's settings nor his lists of what to ignore are read; his cache stays."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = dict.fromkeys(("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"), str(work))
    return (
        base_environment()
        | home
        | {
            "GRYPE_DB_CACHE_DIR": str(cache / "grype" / "db"),
            "GRYPE_CHECK_FOR_APP_UPDATE": "false",
            "TRIVY_CACHE_DIR": str(cache / "trivy"),
            "TRIVY_SKIP_VERSION_CHECK": "true",
            "TRIVY_DISABLE_TELEMETRY": "true",
            "TRIVY_NO_PROGRESS": "true",
            "TRIVY_SCANNERS": "vuln",
            "TRIVY_SHOW_SUPPRESSED": "true",
        }
    )
