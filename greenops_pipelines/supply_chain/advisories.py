"""OSV snapshots: read, kept as a table, held against the components of an SBOM, so that a new advisory counts for old images.

Source: Open Source Vulnerability format 1.6 and 1.7, https://ossf.github.io/osv-schema/. Not here: whether a match counts
(`gate.py`), and where a snapshot comes from.
"""

from __future__ import annotations

import re
import sys
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from greenops_pipelines.errors import ConfigurationError, ProviderError
from greenops_pipelines.evidence import canonical
from greenops_pipelines.lake.supply_tables import ADVISORIES
from greenops_pipelines.supply_chain.components import Component, Components, Distribution
from greenops_pipelines.supply_chain.scan_reports import OSV, Fields, Match, Purl, parsed, sole
from greenops_pipelines.supply_chain.severity import Severity, of_vector, parse

MANIFEST = "manifest.json"
"""At a snapshot's root, if it is there: `{"fetched_at": RFC 3339}`, for one that is newer than its newest advisory."""
MAX_FILES = 1_000_000
MAX_FILE_BYTES = 16 << 20
MAX_BYTES = 8 << 30

_ORDERS = {
    "PyPI": "PypiVersion",
    "npm": "SemverVersion",
    "crates.io": "SemverVersion",
    "Go": "GolangVersion",
    "Maven": "MavenVersion",
    "RubyGems": "RubygemsVersion",
    "Debian": "DebianVersion",
    "Ubuntu": "DebianVersion",
    "Alpine": "AlpineLinuxVersion",
    "Wolfi": "AlpineLinuxVersion",
    "Chainguard": "AlpineLinuxVersion",
}
"""How an ecosystem orders its versions: the class of univers."""
_LANGUAGES = {"pypi": "PyPI", "npm": "npm", "cargo": "crates.io", "golang": "Go", "maven": "Maven", "gem": "RubyGems"}
_OF_DISTRIBUTIONS = ("deb", "apk")
_EVENTS = ("fixed", "introduced", "last_affected")
"""In the order in which they count where they meet: what was fixed may be introduced again, and be the last to be affected."""
_SEMVER = re.compile(r"v?\d+(\.\d+){0,2}(-[0-9A-Za-z.-]+)?")


@dataclass(frozen=True, slots=True)
class Range:
    """Where the vulnerability begins and ends, as events: ("introduced", "0"), ("fixed", "1.2")."""

    kind: str
    events: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Advisory:
    """What one advisory says of one package."""

    id: str
    aliases: tuple[str, ...]
    modified_at: datetime
    severity: Severity
    ecosystem: str
    """PyPI, npm, Debian:12, ..."""
    package: str
    position: int
    """1, 2, ... among the packages of the advisory."""
    ranges: tuple[Range, ...]
    versions: tuple[str, ...]


@dataclass(frozen=True)
class Snapshot:
    """Advisories as of a moment. What is not among them is counted."""

    advisories: tuple[Advisory, ...]
    as_of: datetime
    documents: int
    withdrawn: int
    git_only: int
    """Affected entries that name commits alone, or no package: nothing that an SBOM lists can be held against them."""


def read(path: Path) -> Snapshot:
    """The snapshot at `path`, a folder or a zip of OSV documents, such as osv.dev's `PyPI/all.zip`.

    Raises `ConfigurationError` where there is none, and `ProviderError` with the file's name for one that is no whole
    advisory: a snapshot with a hole is none.
    """
    name = path.name
    advisories: list[Advisory] = []
    newest: list[datetime] = []
    documents = withdrawn = git_only = 0
    for file, data in _files(path):
        where = f"{name}: {file}"
        record = Fields(parsed(data, where), where)
        if file == MANIFEST:
            newest.append(_moment(record, "fetched_at"))
            continue
        documents += 1
        newest.append(_moment(record, "modified"))
        if record.instant("withdrawn"):
            withdrawn += 1
            continue
        found, passed_over = _of_record(record)
        advisories += found
        git_only += passed_over
    if not documents:
        raise ProviderError(f"{name}: found no advisory, allowed: OSV documents (*.json) in a folder or a zip")
    return Snapshot(tuple(advisories), max(newest), documents, withdrawn, git_only)


def table(advisories: Iterable[Advisory]) -> pa.Table:
    """Rows of `advisories`; `of_table` reads them back."""
    rows = [
        {
            "id": each.id,
            "ecosystem": each.ecosystem,
            "package": each.package,
            "position": each.position,
            "severity": each.severity.name,
            "modified_at": each.modified_at,
            "document": canonical.dumps(_document(each)).decode(),
        }
        for each in advisories
    ]
    return pa.Table.from_pylist(rows, schema=ADVISORIES.schema)


def of_table(rows: pa.Table) -> tuple[Advisory, ...]:
    """The advisories in rows of `advisories`."""
    found: list[Advisory] = []
    for row in rows.select(["document", "position"]).to_pylist():
        where = "the table advisories"
        found += _of_record(Fields(parsed(row["document"].encode(), where), where), row["position"])[0]
    return tuple(found)


def evaluate(advisories: Iterable[Advisory], components: Components) -> tuple[Match, ...]:
    """What of `advisories` the components are affected by, as `Index.matches`."""
    return Index(advisories).matches(components)


def uncovered(components: Components) -> tuple[str, ...]:
    """Kinds of packages that no advisory is ever held against, as the SBOM names them."""
    return tuple(sorted({each.kind for each in components.packages if not _names(each, components.distribution)}))


class Index:
    """Advisories by ecosystem and package, to be held against one SBOM after the other."""

    def __init__(self, advisories: Iterable[Advisory]) -> None:
        self._by_package: dict[tuple[str, str], list[Advisory]] = defaultdict(list)
        for each in advisories:
            self._by_package[_release(each.ecosystem), _normal(each.ecosystem, each.package)].append(each)

    def matches(self, components: Components) -> tuple[Match, ...]:
        """One match per component and vulnerability, whatever the number of databases that know it.

        A version that cannot be compared counts as affected, and the match says so.
        """
        found: dict[tuple[str, ...], list[Match]] = {}
        for component in components.packages:
            key = component.name, component.version, component.purl
            if key not in found:
                found[key] = [
                    match
                    for name, version in _names(component, components.distribution)
                    for advisory in self._by_package.get(name, ())
                    if (match := _match(advisory, component, version)) is not None
                ]
        return tuple(match for each in found.values() for match in _merged(each))


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the documents, held to the limits before anything is unpacked."""
    try:
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*.json") if each.is_file())
            files = [(each.relative_to(path).as_posix(), each.stat().st_size, each.read_bytes) for each in inside]
            yield from _within_limits(path.name, files)
        elif path.is_file():
            with zipfile.ZipFile(path) as archive:
                members = [each for each in archive.infolist() if each.filename.endswith(".json")]
                packed = [(each.filename, each.file_size, partial(archive.read, each)) for each in members]
                yield from _within_limits(path.name, packed)
        else:
            raise ConfigurationError(f"{path}: found no advisories, allowed: a folder or a zip of OSV documents")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise ProviderError(f"{path.name}: found advisories that cannot be read: {error}") from None


def _within_limits(name: str, files: Sequence[tuple[str, int, Callable[[], bytes]]]) -> Iterator[tuple[str, bytes]]:
    if len(files) > MAX_FILES or sum(size for _, size, _ in files) > MAX_BYTES:
        raise ProviderError(f"{name}: found {len(files):,} files, allowed: {MAX_FILES:,} of {MAX_BYTES:,} bytes in all")
    for file, size, content in files:
        if size > MAX_FILE_BYTES:
            raise ProviderError(f"{name}: {file}: found {size:,} bytes, allowed: up to {MAX_FILE_BYTES:,}")
        yield file, content()


def _moment(record: Fields, name: str) -> datetime:
    if (moment := record.instant(name)) is None:
        raise record.fault(name, "a time in RFC 3339")
    return moment


def _of_record(record: Fields, position: int = 1) -> tuple[list[Advisory], int]:
    """The record cut to its packages, counted from `position` on, and how many of its entries name none."""
    aliases = {*record.texts("aliases"), *sole(record.texts("upstream"))}
    found, passed_over = [], 0
    for at, affected in enumerate(record.each("affected"), position):
        package = affected.inner("package")
        ranges = tuple(_range(each) for each in affected.each("ranges") if each.text("type", needed=True) != "GIT")
        # The same texts in all the lists: interned, 50,000 advisories with 40 versions each take 0.2 GB, and 0.4 GB otherwise.
        versions = tuple(sorted(map(sys.intern, affected.texts("versions"))))
        if not package.has("name") or (affected.has("ranges") and not ranges and not versions):
            passed_over += 1
            continue
        found.append(
            Advisory(
                id=record.text("id", needed=True),
                aliases=tuple(sorted(aliases)),
                modified_at=_moment(record, "modified"),
                severity=_severity(record, affected),
                ecosystem=package.text("ecosystem", needed=True),
                package=package.text("name", needed=True),
                position=at,
                ranges=ranges,
                versions=versions,
            )
        )
    return found, passed_over


def _range(found: Fields) -> Range:
    """`limit` is left out: what lies behind it counts as affected."""
    events = [(kind, each.text(kind)) for each in found.each("events") for kind in _EVENTS if each.has(kind)]
    if not any(kind == "introduced" for kind, _ in events):
        raise found.fault("events", "one that says where it was introduced")
    return Range(found.text("type"), tuple(events))


def _severity(record: Fields, affected: Fields) -> Severity:
    """The database's own word, for the package before that for all; without one, the gravest of the CVSS vectors."""
    for place in (affected, record):
        word = place.inner("database_specific").get("severity")
        if isinstance(word, str) and (known := parse(word)):
            return known
    for place in (affected, record):
        scores = [(each.text("type"), each.text("score")) for each in place.each("severity")]
        known = max((_of_score(*each) for each in scores), default=Severity.UNKNOWN)
        if known:
            return known
    return Severity.UNKNOWN


def _of_score(kind: str, score: str) -> Severity:
    return of_vector(score) if kind.startswith("CVSS") else parse(score)


def _document(advisory: Advisory) -> dict[str, Any]:
    return {
        "id": advisory.id,
        "modified": advisory.modified_at.isoformat(),
        "aliases": list(advisory.aliases),
        "database_specific": {"severity": advisory.severity.name},
        "affected": [
            {
                "package": {"ecosystem": advisory.ecosystem, "name": advisory.package},
                "ranges": [
                    {"type": each.kind, "events": [{kind: at} for kind, at in each.events]} for each in advisory.ranges
                ],
                "versions": list(advisory.versions),
            }
        ],
    }


def _release(ecosystem: str) -> str:
    """The ecosystem as it is looked up: of a language without a registry, of Ubuntu without LTS, Pro and FIPS."""
    base, _, rest = ecosystem.partition(":")
    if base == "Ubuntu":
        return f"Ubuntu:{next((part for part in rest.split(':') if part[:1].isdigit()), '')}"
    return base if base in _LANGUAGES.values() else ecosystem


def _normal(ecosystem: str, package: str) -> str:
    """Of Python as PEP 503 has it: some databases keep the capitals."""
    return re.sub(r"[-_.]+", "-", package).lower() if ecosystem == "PyPI" else package


def _names(component: Component, distribution: Distribution | None) -> list[tuple[tuple[str, str], str]]:
    """What advisories call the component: ecosystem and package, with the version to be compared; nothing if none can."""
    purl = Purl.parse(component.purl)
    if purl is None:
        return []
    if purl.kind in _OF_DISTRIBUTIONS:
        if distribution is None:
            name, _, version = purl.qualifier("distro").rpartition("-")
            distribution = Distribution(name, version)
        # A distribution's advisories speak of source packages; its version is named where it is another one.
        package, _, version = purl.qualifier("upstream").partition("@")
        return [
            ((ecosystem, package or purl.name), version or component.version) for ecosystem in _releases(distribution)
        ]
    ecosystem = _LANGUAGES.get(purl.kind, "")
    between = ":" if purl.kind == "maven" else "/"
    name = f"{purl.namespace}{between}{purl.name}" if purl.namespace else purl.name
    version = component.version.removeprefix("v") if ecosystem == "Go" else component.version
    return [((ecosystem, name), version)] if ecosystem else []


def _releases(distribution: Distribution) -> list[str]:
    major, _, minor = distribution.version.partition(".")
    match distribution.name:
        case "debian":
            return ["Debian", f"Debian:{major}"]
        case "ubuntu":
            return [f"Ubuntu:{distribution.version}"]
        case "alpine":
            return [f"Alpine:v{major}.{minor.partition('.')[0]}"]
        case "wolfi" | "chainguard":
            return ["Wolfi", "Chainguard"]
    return []


def _match(advisory: Advisory, component: Component, version: str) -> Match | None:
    note = ""
    try:
        fixed_in = _fixed_in(advisory, version)
    except ValueError:
        fixed_in, found = "", f"its version {version!r}" if version else "it states no version, which"
        note = f"{found} cannot be compared with those of {advisory.id}: counts as affected"
    if fixed_in is None:
        return None
    return Match(
        id=advisory.id,
        aliases=advisory.aliases,
        severity=advisory.severity,
        package=component.name,
        version=component.version,
        purl=component.purl,
        fixed_in=fixed_in,
        status="fixed" if fixed_in else "affected",
        source=OSV,
        note=note,
    )


def _fixed_in(advisory: Advisory, version: str) -> str | None:
    """The version without the vulnerability (empty: not known) where this one is affected; None where it is not.

    It is affected if it is listed, or lies in any range (OSV schema, "Evaluation"). `ValueError` where that cannot be told,
    as where the advisory or the component states no version at all.
    """
    if not version or not (advisory.ranges or advisory.versions):
        raise ValueError("nothing to compare")
    order = _ORDERS[advisory.ecosystem.partition(":")[0]]
    ends = [_end(each, "SemverVersion" if each.kind == "SEMVER" else order, version) for each in advisory.ranges]
    inside = [end for end in ends if end is not None]
    if inside or version in advisory.versions:
        return next(filter(None, inside), "")
    return None


def _end(span: Range, order: str, version: str) -> str | None:
    """Where the affected versions around this one end (empty: not known); None where it lies outside."""
    own, inside, end = _place(order, version), False, ""
    events = ((_place(order, at), _EVENTS.index(kind), kind, at) for kind, at in span.events)
    for place, _, kind, at in sorted(events, key=lambda event: event[:2]):
        if kind == "fixed" and own < place:
            end = end or at
        elif kind == "last_affected":
            inside = inside and own <= place
        elif own >= place:
            inside = kind == "introduced"
    return end if inside else None


def _place(order: str, at: str) -> tuple[Any, ...]:
    """In the order of versions; "0" is before all of them."""
    return () if at == "0" else (_version(order, at),)


@lru_cache(maxsize=200_000)
def _version(order: str, text: str) -> Any:
    """Comparable with others of the same order; `ValueError` where it is none of them."""
    from univers import versions

    if order in ("SemverVersion", "GolangVersion"):
        # univers makes do with any beginning of a number, and lets build metadata count (against SemVer 2.0, 10).
        text = text.partition("+")[0]
        if not _SEMVER.fullmatch(text):
            raise ValueError(f"no semantic version: {text}")
    return getattr(versions, order)(text)


def _merged(matches: list[Match]) -> Iterator[Match]:
    """One per vulnerability of one component: what shares an id is the same, and a severity that is known wins."""
    groups: list[list[Match]] = []
    for match in matches:
        same = [group for group in groups if any(match.ids & other.ids for other in group)]
        groups = [group for group in groups if group not in same]
        groups.append([match, *(other for group in same for other in group)])
    for group in groups:
        first, *others = sorted(group, key=lambda each: (-each.severity, each.id))
        yield replace(
            first,
            aliases=tuple(sorted(frozenset().union(*(each.ids for each in group)) - {first.id})),
            fixed_in=first.fixed_in or next((each.fixed_in for each in others if each.fixed_in), ""),
            note=first.note or next((each.note for each in others if each.note), ""),
        )
