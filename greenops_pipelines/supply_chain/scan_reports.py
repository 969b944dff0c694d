"""Scan reports of Grype and Trivy, read strictly into one form.

Formats: Grype `-o json` (its presenter's models, databases v5 and v6) and Trivy `--format json` (SchemaVersion 2). Grype
writes its settings into the report: those that leave something out are told as its limits. Trivy writes none; what it was
told to leave out shows only in the number of packages that it lists, and severities or states it was told to pass over do
not show at all. Not here: whether a report is believed (`gate.py`), and running a scanner (`scanner.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote

from greenops_pipelines import strict_json
from greenops_pipelines.errors import ProviderError
from greenops_pipelines.supply_chain.components import Distribution
from greenops_pipelines.supply_chain.oci import is_digest
from greenops_pipelines.supply_chain.severity import Severity, parse

GRYPE, TRIVY, OSV = "grype", "trivy", "osv"
MAX_REPORT_BYTES = 256 << 20

_END_OF_LIFE = "distro-eol"
_PACKAGES = ("os-pkgs", "lang-pkgs")
_BUILT_IN_RULES = frozenset(
    {
        ("rpm", "kernel-headers", "kernel"),
        ("deb", "linux-headers-.*", "linux"),
        ("deb", "linux(-.*)?-headers-.*", "linux.*"),
        ("deb", "linux-libc-dev", "linux"),
        ("deb", "linux-kbuild-.*", "linux.*"),
    }
)
"""Type, name and upstream of packages for which Grype itself ignores what is known of the kernel's source: they hold no
kernel. Source: Grype, cmd/grype, the rules for Linux kernel headers, as of 0.7x and 0.9x to 0.10x."""
_PYTHON_SEPARATORS = re.compile(r"[-_.]+")


@dataclass(frozen=True)
class Purl:
    """A package URL, decoded; Python names as PEP 503 compares them. Source: package-url specification."""

    kind: str
    namespace: str
    name: str
    version: str
    qualifiers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Purl | None:
        """None where it is none."""
        body, _, qualifiers = text.partition("#")[0].partition("?")
        scheme, _, rest = body.partition(":")
        kind, _, path = rest.lstrip("/").partition("/")
        namespace, _, last = path.strip("/").rpartition("/")
        name, at, version = last.partition("@")
        if scheme != "pkg" or not kind or not name or (at and not version):
            return None
        kind, name = kind.lower(), unquote(name)
        pairs = (each.partition("=") for each in qualifiers.split("&") if each)
        return cls(
            kind,
            unquote(namespace),
            _PYTHON_SEPARATORS.sub("-", name).lower() if kind == "pypi" else name,
            unquote(version),
            tuple((key.lower(), unquote(value)) for key, _, value in pairs),
        )

    def qualifier(self, name: str) -> str:
        return dict(self.qualifiers).get(name, "")


@dataclass(frozen=True)
class Match:
    """A vulnerability in a package. Texts are empty where nobody says."""

    id: str
    aliases: tuple[str, ...]
    severity: Severity
    package: str
    version: str
    purl: str
    fixed_in: str
    status: str
    """In the scanner's words: fixed, not-fixed, wont-fix; affected, will_not_fix, ..."""
    source: str
    """grype, trivy or osv."""
    note: str = ""
    """Why it is a match although its version could not be compared."""

    @property
    def ids(self) -> frozenset[str]:
        return frozenset((self.id, *self.aliases))

    @property
    def package_key(self) -> tuple[str, ...]:
        """The same for every source that means this version of this package."""
        if purl := Purl.parse(self.purl):
            return purl.kind, purl.namespace, purl.name, purl.version
        return self.package, self.version


@dataclass(frozen=True)
class ScanReport:
    """What a scanner says. Nothing here is believed yet."""

    scanner: str
    scanner_version: str
    digests: tuple[str, ...]
    """Every digest by which the report calls its image: of the manifest, of an index, of the configuration."""
    distribution: Distribution | None
    database_built: datetime | None
    scanned_at: datetime | None
    matches: tuple[Match, ...]
    ignored: tuple[Match, ...]
    """What the scanner found and was told to leave out, by its own rules or somebody's VEX."""
    components: int | None
    """How many packages it looked at; None where the report does not say, as Grype's never does."""
    skipped: tuple[str, ...]
    """Packages that were seen and held against nothing, each with the reason."""
    is_end_of_life: bool
    """Whether nobody looks for vulnerabilities in the distribution any more."""
    limits: tuple[str, ...] = ()
    """By which of its own settings the report is partial, where it tells them."""
    of_sbom: str = ""
    """SHA-256 of the SBOM that was scanned, where we have handed it to the scanner ourselves."""


def read(document: bytes, where: str, *, database_built: datetime | None = None) -> ScanReport:
    """The report in `document`, Grype's or Trivy's. `where` names it in errors.

    `database_built` is for Trivy, whose report does not tell it: see `trivy_database`. Raises `ProviderError` for
    everything that is not a whole report, a Trivy report without results included: nothing was scanned.
    """
    match parsed(document, where):
        case {"matches": list(), "descriptor": {"name": "grype"}} as found:
            return _of_grype(Fields(found, where))
        case {"SchemaVersion": 2, "ArtifactName": str()} as found:
            return _of_trivy(Fields(found, where), database_built)
        case {"SchemaVersion": version, "ArtifactName": str()}:
            raise ProviderError(f"{where}: found a Trivy report with SchemaVersion {version!r}, allowed: 2")
    raise ProviderError(
        f"{where}: found another document, allowed: a report of Grype (-o json) or Trivy (--format json)"
    )


def trivy_database(document: bytes, where: str) -> tuple[str, datetime | None]:
    """Trivy's version, and when its database was built, from `trivy --version -f json`; None where it has none."""
    found = Fields(parsed(document, where), where)
    return found.text("Version", needed=True), found.inner("VulnerabilityDB").instant("UpdatedAt")


def parsed(document: bytes, where: str) -> object:
    """The JSON in `document`; `ProviderError` where it is empty, too large, ends early, or is none."""
    if not document.strip():
        raise ProviderError(f"{where}: found an empty document")
    if len(document) > MAX_REPORT_BYTES:
        raise ProviderError(f"{where}: found {len(document):,} bytes, allowed: up to {MAX_REPORT_BYTES:,}")
    try:
        return strict_json.loads(document)
    except strict_json.TruncatedJsonError as error:
        raise ProviderError(f"{where}: the document ends early: {error}") from None
    except ValueError as error:
        raise ProviderError(f"{where}: {error}") from None


class Fields:
    """An object in a foreign JSON document, read field by field; `ProviderError` names the place of what does not fit.

    An absent field, null (what Go writes for an empty list) and an empty one are the same unless it is needed.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ProviderError(f"{where}: found {_shown(value)}, allowed: an object")
        self._value = value
        self.where = where

    def text(self, name: str, *, needed: bool = False) -> str:
        value = self._value.get(name)
        if isinstance(value, str) and (value or not needed):
            return value
        if value is None and not needed:
            return ""
        raise self.fault(name, "a text")

    def inner(self, name: str) -> Fields:
        value = self._value.get(name)
        return Fields({} if value is None else value, f"{self.where}: {name}")

    def each(self, name: str) -> Iterator[Fields]:
        for at, value in enumerate(self._list(name)):
            yield Fields(value, f"{self.where}: {name}[{at}]")

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._list(name)
        if not all(isinstance(value, str) for value in values):
            raise self.fault(name, "texts")
        return tuple(map(str, values))

    def flag(self, name: str) -> bool:
        value = self._value.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self.fault(name, "true or false")

    def instant(self, name: str) -> datetime | None:
        """In UTC. Go's zero time stands for none."""
        text = self.text(name)
        try:
            time = datetime.fromisoformat(text) if text else None
        except ValueError:
            time = datetime.min  # noqa: DTZ901 - it has no zone, so it is refused below
        if time is not None and time.tzinfo is None:
            raise self.fault(name, "a time in RFC 3339, with its zone")
        return time.astimezone(UTC) if time is not None and time.year > 1 else None

    def has(self, name: str) -> bool:
        return self._value.get(name) is not None

    def get(self, name: str) -> object:
        return self._value.get(name)

    def stated(self) -> dict[str, object]:
        """The fields that are not empty, those of objects inside likewise."""
        empty: tuple[object, ...] = (None, "", False, [])
        found = {
            name: {k: v for k, v in value.items() if v not in empty} if isinstance(value, dict) else value
            for name, value in self._value.items()
        }
        return {name: value for name, value in found.items() if value not in (*empty, {})}

    def fault(self, name: str, allowed: str) -> ProviderError:
        return ProviderError(f"{self.where}: {name}: found {_shown(self._value.get(name))}, allowed: {allowed}")

    def _list(self, name: str) -> list[object]:
        value = self._value.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.fault(name, "a list")
        return value


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)[:80]


def _of_grype(found: Fields) -> ScanReport:
    descriptor, distro = found.inner("descriptor"), found.inner("distro")
    database = descriptor.inner("db")
    alerts = [(each, alert) for each in found.each("alertsByPackage") for alert in each.each("alerts")]
    return ScanReport(
        scanner=GRYPE,
        scanner_version=descriptor.text("version"),
        digests=_digests(_names(found.inner("source"))),
        distribution=_distribution(distro.text("name"), distro.text("version")),
        # Below `status` since database v6, beside it before.
        database_built=database.inner("status").instant("built") or database.instant("built"),
        scanned_at=descriptor.instant("timestamp"),
        matches=tuple(map(_grype_match, found.each("matches"))),
        ignored=tuple(map(_grype_match, found.each("ignoredMatches"))),
        components=None,
        # distro-disabled, distro-unknown; an alert of a kind to come counts as a package that was not looked at, too.
        skipped=tuple(
            f"{each.inner('package').text('name')}: {alert.text('message') or alert.text('type')}"
            for each, alert in alerts
            if alert.text("type") != _END_OF_LIFE
        ),
        is_end_of_life=any(alert.text("type") == _END_OF_LIFE for _, alert in alerts),
        limits=tuple(_grype_limits(descriptor.inner("configuration"))),
    )


def _grype_limits(settings: Fields) -> Iterator[str]:
    for name in ("only-fixed", "only-notfixed"):
        if settings.flag(name):
            yield f"{name}: true"
    # The option ignore-states, under the name that its JSON has for it.
    for name in ("ignore-wontfix", "ignore-states"):
        if states := settings.text(name):
            yield f"ignore-states: {states[:80]}"
    if paths := settings.texts("exclude"):
        yield f"exclude: {', '.join(paths[:5])[:200]}"
    own = [rule for rule in settings.each("ignore") if not _is_built_in(rule)]
    if own:
        yield f"ignore: {len(own)} rules that are not Grype's own, the first {_shown(own[0].stated())}"


def _is_built_in(rule: Fields) -> bool:
    package = rule.inner("package")
    named = package.text("type"), package.text("name"), package.text("upstream-name")
    expected = {"type": named[0], "name": named[1], "upstream-name": named[2]}
    return named in _BUILT_IN_RULES and rule.stated() == {"package": expected, "match-type": "exact-indirect-match"}


def _names(source: Fields) -> Iterable[str]:
    """How Grype calls what it has looked at. `target` is an object for images, and a path for all else."""
    if source.text("type") != "image":
        return ()
    target = source.inner("target")
    return *(target.text(name) for name in ("manifestDigest", "imageID", "userInput")), *target.texts("repoDigests")


def _grype_match(found: Fields) -> Match:
    vulnerability, artifact = found.inner("vulnerability"), found.inner("artifact")
    own = vulnerability.text("id", needed=True)
    related = {each.text("id", needed=True) for each in found.each("relatedVulnerabilities")} - {own}
    return Match(
        id=own,
        aliases=sole(related),
        severity=parse(vulnerability.text("severity")),
        package=artifact.text("name", needed=True),
        version=artifact.text("version"),
        purl=artifact.text("purl"),
        fixed_in=", ".join(vulnerability.inner("fix").texts("versions")),
        status=vulnerability.inner("fix").text("state"),
        source=GRYPE,
    )


def sole(related: Iterable[str]) -> tuple[str, ...]:
    """What is related to a notice, as an alias of it, where it is but one.

    A distribution's notice may close several vulnerabilities at once: it is an alias of none of them.
    """
    ids = tuple(set(related))
    return ids if len(ids) == 1 else ()


def _of_trivy(found: Fields, database_built: datetime | None) -> ScanReport:
    results, metadata = list(found.each("Results")), found.inner("Metadata")
    if not any(result.text("Class") in _PACKAGES for result in results):
        raise ProviderError(
            f"{found.where}: found no Results for packages: nothing was scanned, which is no clean scan"
        )
    os = metadata.inner("OS")
    packages = [each for result in results for each in result.each("Packages")]
    modified = [each for result in results for each in result.each("ExperimentalModifiedFindings")]
    return ScanReport(
        scanner=TRIVY,
        scanner_version=found.inner("Trivy").text("Version"),
        digests=_digests((*metadata.texts("RepoDigests"), metadata.text("ImageID"))),
        distribution=_distribution(os.text("Family"), os.text("Name")),
        database_built=database_built,
        scanned_at=found.instant("CreatedAt"),
        matches=tuple(_trivy_match(each) for result in results for each in result.each("Vulnerabilities")),
        ignored=tuple(_trivy_match(each.inner("Finding")) for each in modified if each.text("Type") == "vulnerability"),
        components=len(packages) if any(result.has("Packages") for result in results) else None,
        skipped=tuple(
            f"{each.text('Name') or 'a package'}: it states no version" for each in packages if not each.text("Version")
        ),
        is_end_of_life=os.flag("EOSL"),
    )


def _trivy_match(found: Fields) -> Match:
    return Match(
        id=found.text("VulnerabilityID", needed=True),
        aliases=(),
        severity=parse(found.text("Severity")),
        package=found.text("PkgName", needed=True),
        version=found.text("InstalledVersion"),
        purl=found.inner("PkgIdentifier").text("PURL"),
        fixed_in=found.text("FixedVersion"),
        status=found.text("Status"),
        source=TRIVY,
    )


def _digests(names: Iterable[str]) -> tuple[str, ...]:
    """The digests in `sha256:...` and `repository@sha256:...`, each once."""
    ends = (name.rpartition("@")[2] for name in names)
    return tuple(dict.fromkeys(end for end in ends if is_digest(end)))


def _distribution(name: str, version: str) -> Distribution | None:
    return Distribution(name, version) if name else None
