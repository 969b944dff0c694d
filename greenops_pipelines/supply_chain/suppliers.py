"""Who supplies a component, and by what we know it. NTIA, "The Minimum Elements For an SBOM" (2021): the entity that
creates, defines and identifies components.

The package's own metadata comes first, then where its source lies, then the owner in its module path, and last the registry
of its kind of package; each supplier says which of them it is. Nobody is made up: what none of them tells stays unknown.
E-mail addresses are left out: SBOMs are filed where nothing can be erased. Not here: reading files out of images
(`layers.py`), and where suppliers stand in a document (`sbom.py`).
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from email.utils import getaddresses
from typing import Any
from urllib.parse import unquote, urlsplit

from greenops_pipelines import strict_json

METADATA = "metadata"
REPOSITORY = "repository"
MODULE_PATH = "module path"
CPE = "cpe"
REGISTRY = "registry"
CARRIER = "carrier"

SOURCE_PROPERTY = "greenops:supplier:source"

REGISTRIES = {
    "cargo": "crates.io",
    "cocoapods": "CocoaPods",
    "conan": "ConanCenter",
    "cran": "CRAN",
    "gem": "RubyGems.org",
    "hackage": "Hackage",
    "hex": "Hex",
    "luarocks": "LuaRocks",
    "npm": "npm",
    "nuget": "NuGet Gallery",
    "pub": "pub.dev",
    "pypi": "PyPI",
}
"""By type of package URL: where packages of that kind are distributed unless someone runs another index."""

_OWNED_NAMESPACES = frozenset({"composer", "github", "maven", "npm", "swift"})
_DISTRIBUTIONS = frozenset({"deb", "apk", "rpm", "alpm"})
_FORGES = frozenset({"github.com", "gitlab.com", "bitbucket.org", "codeberg.org"})
_NOBODY = frozenset({"", "unknown", "none", "n/a", "todo", "author", "your name"})
_ADDRESS = re.compile(r"[<(]?\s*[^\s<>(),;]+@[^\s<>(),;]+\s*[>)]?")
_GROUPS = re.compile(
    r"^the\b|\b(inc|llc|ltd|gmbh|ag|corp|corporation|company|co|foundation|team|developers?|authors?|contributors?|"
    r"maintainers?|project|group|community|committee|council|services|labs?|software|systems|security|university|"
    r"institute|consortium|working|packaging|council|alliance|association|et al|and|others)\b|[&,;/]",
    re.IGNORECASE,
)
_MAX_NAME = 200
_MAX_MANIFEST = 1 << 20


@dataclass(frozen=True)
class Supplier:
    """A name, and `source`: metadata, repository, module path, cpe, registry, or carrier: who supplies what it lies in."""

    name: str
    source: str
    is_person: bool = False

    @property
    def spdx(self) -> str:
        """As SPDX 2.3, clause 7.5, spells it."""
        return f"{'Person' if self.is_person else 'Organization'}: {self.name}"


def of_component(component: Mapping[str, Any], files: Mapping[str, bytes]) -> Supplier | None:
    """Of a component of Syft's CycloneDX document; `files` holds what `wanted` asked for. None where nothing tells."""
    kind, path = _kind(component), location(component)
    data = files.get(path)
    purl_type, namespace = _purl(component)
    stated: list[str | Supplier | None] = []
    if kind == "python" and data is not None:
        stated = [*_python(python_headers(data))]
    # What Syft read: Maintainer of dpkg and apk, Vendor of RPM, author of npm and gem.
    stated += [component.get("publisher"), component.get("author")]
    if kind == "npm" and data is not None:
        stated += _npm(data)
    if kind == "java-archive" and data is not None and _is_outermost(component):
        stated += _java(data)
    for each in stated:
        if isinstance(each, Supplier):
            return each
        if each and (name := without_address(each)):
            return Supplier(name, METADATA, is_person(name))
    if kind == "go-module":
        return _go(str(component.get("name") or ""))
    if kind == "binary":
        return _cpe(str(component.get("cpe") or ""))
    if namespace and purl_type in _OWNED_NAMESPACES:
        return Supplier(namespace, MODULE_PATH)
    if namespace and purl_type in _DISTRIBUTIONS:
        return Supplier(namespace, REGISTRY)
    return Supplier(REGISTRIES[purl_type], REGISTRY) if purl_type in REGISTRIES else None


def of_image(name: str, labels: Mapping[str, str]) -> Supplier | None:
    """Its label `org.opencontainers.image.vendor`, or authors, else the registry and namespace it is named by."""
    for key in ("org.opencontainers.image.vendor", "org.opencontainers.image.authors"):
        if vendor := without_address(labels.get(key, "")):
            return Supplier(vendor, METADATA, is_person(vendor))
    owner = name.rpartition("/")[0]
    return Supplier(owner, MODULE_PATH) if owner and "." in owner.partition("/")[0] else None


def of_carried(
    people: Iterable[str], purl: str, urls: Iterable[str], carrier: Supplier | None, *, is_local: bool = False
) -> Supplier | None:
    """Of a component inside a package: `people` are its supplier, publisher and author, as the package states them.

    Where nobody is named it is the owner of its repository, where it was fetched; its registry, if it came from there
    (`is_local`: it did not); and last the supplier of what carries it.
    """
    for each in people:
        if name := without_address(each):
            return Supplier(name, METADATA, is_person(name))
    forge = _forge(url.removeprefix("git+") for url in urls)
    found = forge if is_local or "vcs_url=" in purl else of_component({"purl": purl}, {}) or forge
    return found or (carrier and Supplier(carrier.name, CARRIER, carrier.is_person))


def wanted(components: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Absolute paths of the files that tell more than Syft did: METADATA, package.json, Java archives."""
    return frozenset(location(each) for each in components if location(each) and _is_wanted(each))


def _is_wanted(component: Mapping[str, Any]) -> bool:
    kind = _kind(component)
    if kind == "python":
        return True
    if component.get("author") or component.get("publisher"):
        return False
    return kind == "npm" or (kind == "java-archive" and _is_outermost(component))


def _is_outermost(component: Mapping[str, Any]) -> bool:
    """Whether a Java package is the archive itself: its manifest says nothing about the ones it carries."""
    return _property(component, "syft:metadata:virtualPath") in ("", location(component))


def location(component: Mapping[str, Any]) -> str:
    """The file a component was found by, absolute in its image."""
    return _property(component, "syft:location:0:path")


def python_headers(metadata: bytes) -> Message:
    """The fields of METADATA or PKG-INFO (core metadata), without the description below them."""
    head, _, _ = metadata.replace(b"\r\n", b"\n").partition(b"\n\n")
    return HeaderParser().parsestr(head.decode("utf-8", "replace"))


def python_requires(metadata: bytes) -> frozenset[str]:
    """Normalised names of what a distribution needs whichever extras are asked for."""
    found = set()
    for line in python_headers(metadata).get_all("Requires-Dist") or []:
        requirement, _, marker = line.partition(";")
        if (name := re.match(r"\s*[A-Za-z0-9][A-Za-z0-9._-]*", requirement)) and not re.search(r"\bextra\b", marker):
            found.add(normalised(name[0]))
    return frozenset(found)


def normalised(name: str) -> str:
    """A Python distribution's name in its one form (PyPA, "Names and normalization")."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def without_address(text: str) -> str:
    """The name in `Name <address>`; empty where there is only an address, or a word that stands for nobody."""
    # Headers of METADATA can hold text that its reader could not decode.
    printable = "".join(c if c.isprintable() else " " for c in str(text).replace("\\", ""))
    name = " ".join(_ADDRESS.sub(" ", printable).replace('"', " ").split()).strip(" ,;<>()")
    return "" if name.lower() in _NOBODY else name[:_MAX_NAME]


def is_person(name: str) -> bool:
    """Whether it reads like one person's: two to four capitalised words, and none that groups go by.

    A guess that only picks SPDX's word before the name; where in doubt, an organisation.
    """
    words = name.split()
    return 2 <= len(words) <= 4 and all(word[0].isupper() for word in words) and not _GROUPS.search(name)


def _python(headers: Message) -> Iterable[str | Supplier | None]:
    for field in ("Author", "Author-email", "Maintainer", "Maintainer-email"):
        value = str(headers.get(field) or "")
        if field.endswith("-email"):
            yield next((name for name, _ in getaddresses([value]) if without_address(name)), "")
        else:
            yield value
    urls = [str(each).partition(",") for each in headers.get_all("Project-URL") or []]
    labelled = [url for label, _, url in urls if re.search(r"source|repo|code", label, re.IGNORECASE)]
    yield _forge([*labelled, str(headers.get("Home-page") or ""), *(url for _, _, url in urls)])


def _npm(data: bytes) -> list[str | Supplier | None]:
    try:
        found = strict_json.loads(data)
    except ValueError:
        return []
    if not isinstance(found, dict):
        return []
    people = [found.get("author"), found.get("publisher"), *_listed(found.get("maintainers"))]
    names = [each.get("name") if isinstance(each, dict) else each for each in people]
    repository = found.get("repository")
    urls = [repository.get("url") if isinstance(repository, dict) else repository, found.get("homepage")]
    forge = _forge([each.removeprefix("git+") for each in urls if isinstance(each, str)])
    # "Name <address> (https://...)" is npm's one-line form.
    return [*(name.partition("(")[0] for name in names if isinstance(name, str)), forge]


def _java(data: bytes) -> list[str | Supplier | None]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open("META-INF/MANIFEST.MF") as stream:
            manifest = stream.read(_MAX_MANIFEST).decode("utf-8", "replace")
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, RuntimeError, NotImplementedError, zlib.error):
        return []
    # Lines of more than 72 bytes go on after a line break and a space.
    head = manifest.replace("\r\n", "\n").replace("\n ", "").partition("\n\n")[0]
    fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    return [fields.get(each) for each in ("Implementation-Vendor", "Bundle-Vendor", "Specification-Vendor")]


def _go(module: str) -> Supplier | None:
    host, _, rest = module.partition("/")
    if module == "stdlib":
        return Supplier("golang.org", MODULE_PATH)
    if "." not in host:
        return None
    owner = rest.partition("/")[0]
    return Supplier(f"{host}/{owner}" if host in _FORGES and owner else host, MODULE_PATH)


def _cpe(cpe: str) -> Supplier | None:
    """Of a program that Syft knows by its bytes: the vendor in the name that NVD's dictionary gives it."""
    parts = re.split(r"(?<!\\):", cpe)
    vendor = parts[3].replace("\\", "").replace("_", " ") if len(parts) > 4 else ""
    return Supplier(vendor, CPE) if vendor.strip("*-") else None


def _forge(urls: Iterable[str]) -> Supplier | None:
    for url in urls:
        try:
            parts = urlsplit(url.strip())
        except ValueError:
            continue
        host, owner = (parts.hostname or "").removeprefix("www."), parts.path.lstrip("/").partition("/")[0]
        if host in _FORGES and re.fullmatch(r"[A-Za-z0-9_.-]+", owner):
            return Supplier(f"{host}/{owner}", REPOSITORY)
    return None


def _purl(component: Mapping[str, Any]) -> tuple[str, str]:
    """Type and namespace: pkg:deb/debian/openssl@3 gives deb and debian."""
    path = str(component.get("purl") or "").removeprefix("pkg:").partition("?")[0].partition("#")[0]
    kind, _, rest = path.partition("/")
    return kind, unquote(rest.rpartition("/")[0])


def _kind(component: Mapping[str, Any]) -> str:
    return _property(component, "syft:package:type")


def _property(component: Mapping[str, Any], name: str) -> str:
    return next((str(p["value"]) for p in component.get("properties") or [] if p.get("name") == name), "")


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
