"""A registry's repository over the OCI Distribution API: every digest checked, every answer bounded, every fault stated.

oras-py was tried: it hands out what a registry serves without a look at the digest. Not here: who we are
(`credentials.py`), the forms of manifests (`oci.py`), and what is attached (`attach.py`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import random
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
import urllib3

from greenops_pipelines import strict_json
from greenops_pipelines.errors import (
    BadInput,
    ConfigurationError,
    ObjectMissing,
    PermanentError,
    ProviderError,
    TransientError,
)
from greenops_pipelines.http import RETRIED, described, phrase, retry_after_seconds
from greenops_pipelines.redaction import one_line, reveal
from greenops_pipelines.supply_chain.credentials import Credentials
from greenops_pipelines.supply_chain.layout import PASSING
from greenops_pipelines.supply_chain.oci import (
    INDEXES,
    MANIFESTS,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    Descriptor,
    Manifest,
    digest_of,
    is_digest,
    is_tag,
    manifest_of,
)

log = logging.getLogger(__name__)

_ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
_REDIRECTS = 5
_CHUNK = 1 << 20
_ATTEMPTS = 4
_MAX_PAUSE_SECONDS = 30.0
_TOTAL_SECONDS = 600.0
_SLOWEST_BYTES_PER_SECOND = 256 * 1024
"""What is slower than that, after `_TOTAL_SECONDS`, is given up: a body that drips never exceeds a read timeout."""
_ERROR_BYTES = 16_384
_PAGES = 1000
_FALLBACK_TRIES = 5
_CHALLENGE = re.compile(r'([a-z_]+)="([^"]*)"')


class Registry:
    """A `Repository` of a registry. Loopback is spoken to over http, everything else over https. One per thread.

    `sleep` and `rng` are there for tests.
    """

    def __init__(
        self,
        registry: str,
        repository: str,
        credentials: Callable[[str], Credentials | None],
        *,
        timeout: tuple[float, float] = (5.0, 60.0),
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._registry, self._repository = registry, repository
        host = "registry-1.docker.io" if registry == "docker.io" else registry
        self._base = f"{'http' if is_loopback(host) else 'https'}://{host}"
        self._credentials = credentials
        self._timeout, self._sleep = timeout, sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._session = requests.Session()
        # Proxies and REQUESTS_CA_BUNDLE count; an `auth` of our own keeps `requests` from reading a ~/.netrc.
        self._session.auth = lambda request: request
        self._authorization: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Registry({self.name!r})"

    @property
    def name(self) -> str:
        return f"{self._registry}/{self._repository}"

    def manifest(self, wanted: str) -> Manifest:
        answer = self._call("GET", f"manifests/{self._checked(wanted)}", {"Accept": _ACCEPT})
        where = self._shown(wanted)
        found = digest_of(answer.data)
        said = answer.headers.get("Docker-Content-Digest") or found
        for expected in (wanted if is_digest(wanted) else said, said):
            if expected != found:
                shown = one_line(expected, 100)
                raise ProviderError(f"{where}: the registry lies: {shown} was said, and the bytes are {found}")
        return manifest_of(answer.data, answer.headers.get("Content-Type", ""), where)

    def blob(self, descriptor: Descriptor, limit: int) -> bytes:
        answer = self._call("GET", f"blobs/{descriptor.digest}", {}, limit=self._limit(descriptor, limit))
        self._same(descriptor, digest_of(answer.data), len(answer.data))
        return answer.data

    def fetch(self, descriptor: Descriptor, target: Path, limit: int) -> None:
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            bounded = self._limit(descriptor, limit)
            answer = self._call("GET", f"blobs/{descriptor.digest}", {}, limit=bounded, target=part)
            self._same(descriptor, answer.digest, answer.size)
            part.replace(target)
        except OSError as error:
            if error.errno in PASSING:
                raise TransientError(f"{target}: {error.strerror}; free some, then try again") from error
            raise PermanentError(f"{target}: {error.strerror}, allowed: a file this user can write") from error
        finally:
            part.unlink(missing_ok=True)

    def put_blob(self, data: bytes, media_type: str) -> Descriptor:
        digest = digest_of(data)
        descriptor = Descriptor(media_type, digest, len(data))
        try:
            self._call("HEAD", f"blobs/{digest}", {})
        except ObjectMissing:
            begun = self._call("POST", "blobs/uploads/", {"Content-Length": "0"})
            place = self._at_home("", begun.headers.get("Location", ""), "uploads")
            place += f"{'&' if urlsplit(place).query else '?'}digest={digest}"
            try:
                self._call("PUT", place, {"Content-Type": "application/octet-stream"}, data)
            except ObjectMissing:
                # An upload that was finished in an attempt whose answer was lost is not there for the next one.
                self._call("HEAD", f"blobs/{digest}", {})
        return descriptor

    def put_manifest(self, data: bytes, media_type: str, tag: str = "") -> Descriptor:
        manifest = manifest_of(data, media_type, self.name)
        answer = self._call(
            "PUT", f"manifests/{self._checked(tag or manifest.digest)}", {"Content-Type": media_type}, data
        )
        said = answer.headers.get("Docker-Content-Digest", manifest.digest)
        if said != manifest.digest:
            raise ProviderError(f"{self.name}: {manifest.digest} was stored, and the registry says {said[:100]}")
        stored = Descriptor(media_type, manifest.digest, len(data))
        if manifest.subject and answer.headers.get("OCI-Subject") != manifest.subject:
            self._list_in_fallback(manifest)
        return stored

    def tags(self) -> tuple[str, ...]:
        found: set[str] = set()
        place = "tags/list?n=1000"
        for _ in range(_PAGES):
            try:
                answer = self._call("GET", place, {"Accept": "application/json"})
            except ObjectMissing:
                if found:
                    raise
                return ()  # a repository that nothing was pushed to
            listed = _parsed(answer.data, f"{self.name}: tags").get("tags") or []
            if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
                raise ProviderError(f"{self.name}: tags: found another thing than a list of names")
            found.update(listed)
            following = answer.next_page
            if not following:
                return self._tags(found)
            place = self._at_home("tags/list", following, "the next page of tags")
        raise ProviderError(f"{self.name}: more than {_PAGES} pages of tags")

    def _tags(self, listed: set[str]) -> tuple[str, ...]:
        good = {each for each in listed if is_tag(each)}
        if bad := sorted(listed - good):
            # No call could ask for them: some cannot even be written in an address.
            shown = ", ".join(ascii(each[:60]) for each in bad[:5])
            log.warning("%s: passed over %d names that are no tags: %s", self.name, len(bad), shown)
        return tuple(sorted(good))

    def _checked(self, wanted: str) -> str:
        if is_digest(wanted) or is_tag(wanted):
            return wanted
        allowed = "a tag of letters, digits and ._-, or sha256:<64 hexadecimal digits>"
        raise BadInput(f"{self.name}: found {wanted[:100]!a}, allowed: {allowed}")

    def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        where = f"{self.name}: referrers of {digest}"
        try:
            answer = self._call("GET", f"referrers/{digest}", {"Accept": OCI_INDEX})
        except ObjectMissing:
            return self._fallback(digest)
        if answer.headers.get("Content-Type", "").partition(";")[0] != OCI_INDEX:
            raise ProviderError(f"{where}: found another document than an index")
        listed = list(_index(answer.data, where))
        for _ in range(_PAGES):
            if not answer.next_page:
                return tuple(listed)
            place = self._at_home(f"referrers/{digest}", answer.next_page, "the next page of referrers")
            answer = self._call("GET", place, {"Accept": OCI_INDEX})
            listed += _index(answer.data, where)
        raise ProviderError(f"{where}: more than {_PAGES} pages")

    def drop_referrer(self, subject: str, digest: str) -> bool:
        listed = self._fallback(subject)
        kept = [each for each in listed if each.digest != digest]
        if len(kept) < len(listed):
            self._put_fallback(subject, kept)
        try:
            self._call("DELETE", f"manifests/{digest}", {})
        except ObjectMissing:
            return True
        except (ConfigurationError, ProviderError) as error:
            # Many registries let nobody delete; it is listed no more where the list is ours.
            log.info("%s", error)
            return len(kept) < len(listed)
        return True

    def _fallback(self, digest: str) -> tuple[Descriptor, ...]:
        """The index under the tag sha256-<hex>, kept by those who attach where a registry knows no referrers."""
        tag = digest.replace(":", "-")
        try:
            manifest = self.manifest(tag)
        except ObjectMissing:
            return ()
        if not manifest.is_index:
            raise ProviderError(
                f"{self._shown(tag)}: found an image, allowed: the index of what is attached to {digest}"
            )
        return manifest.manifests

    def _list_in_fallback(self, manifest: Manifest) -> None:
        """Adds it to the index of its subject. There is no compare-and-swap: it is read back, and written again if lost."""
        subject = manifest.subject or ""
        new = Descriptor(
            manifest.media_type, manifest.digest, len(manifest.data), manifest.annotations, manifest.artifact_type
        )
        for attempt in range(_FALLBACK_TRIES):
            listed = self._fallback(subject)
            if any(each.digest == new.digest for each in listed):
                return
            if attempt:
                self._sleep(self._rng.uniform(0, 0.2 * attempt))
                listed = self._fallback(subject)
            # First, so that it stays among those that are read (`attach.py`), however many others there are.
            self._put_fallback(subject, [new, *(each for each in listed if each.digest != new.digest)])
        if not any(each.digest == new.digest for each in self._fallback(subject)):
            raise TransientError(f"{self.name}: others keep overwriting the index of what is attached to {subject}")

    def _put_fallback(self, subject: str, listed: Sequence[Descriptor]) -> None:
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [each.as_document() for each in listed],
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        self._call("PUT", f"manifests/{subject.replace(':', '-')}", {"Content-Type": OCI_INDEX}, text)

    def _call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        limit: int = MAX_MANIFEST_BYTES,
        target: Path | None = None,
    ) -> _Answer:
        """One call with its retries, its authorisation and its redirects."""
        url = path if "://" in path else f"{self._base}/v2/{self._repository}/{path}"
        shown = f"{method} {self.name}: {one_line(path.partition('?')[0].removeprefix(self._base), 160)}"
        deadline = time.monotonic() + _TOTAL_SECONDS
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt(method, url, headers, body, limit, target, shown)
            except _Fault as error:
                fault, wanted = str(error), error.retry_after
            if wanted is not None and wanted > _MAX_PAUSE_SECONDS:
                raise TransientError(f"{shown}: {fault}; it asks for a pause of {wanted:.0f} s")
            if attempt == _ATTEMPTS or time.monotonic() > deadline:
                raise TransientError(f"{shown}: {fault}; gave up after {attempt} attempts")
            pause = max(wanted or 0.0, self._rng.uniform(0, 2.0 ** (attempt - 1)))
            log.warning("%s: %s; retry %d of %d in %.1f s", shown, fault, attempt, _ATTEMPTS - 1, pause)
            self._sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _attempt(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        limit: int,
        target: Path | None,
        shown: str,
    ) -> _Answer:
        for with_new_token in (False, True):
            response = self._send(method, url, headers, body)
            with response:
                # Who else asks than the registry, after a redirect, is not answered: it would be told our password.
                if response.status_code == 401 and not with_new_token and self._is_home(response.url):
                    self._authorise(response.headers.get("WWW-Authenticate", ""), method)
                    continue
                self._refuse(response, shown)
                return _received(response, limit, target, shown)
        raise AssertionError("unreachable: a second 401 is refused")

    def _refuse(self, response: requests.Response, shown: str) -> None:
        status = response.status_code
        if status < 300:
            return
        said = self._error_said(response)
        answered = f"answered {status} {phrase(status)}" + (f": {said}" if said else "")
        if status in RETRIED:
            raise _Fault(answered, retry_after_seconds(response.headers, datetime.now(UTC)))
        if status == 404:
            raise ObjectMissing(f"{shown}: {answered}")
        if status in (401, 403):
            raise ConfigurationError(
                f"{shown}: {answered}; run `docker login {self._registry}` as this user, or give it the right to do so"
            )
        raise ProviderError(f"{shown}: {answered}")

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> requests.Response:
        """After redirects, which carry no authorisation to another origin, and lead to no plain http elsewhere."""
        for _ in range(_REDIRECTS + 1):
            sent = {"User-Agent": "greenops-pipelines", "Accept-Encoding": "identity", **headers}
            try:
                response = self._session.request(
                    method,
                    url,
                    headers=sent | (self._authorization if self._is_home(url) else {}),
                    data=body,
                    timeout=self._timeout,
                    stream=True,
                    allow_redirects=False,
                )
            except requests.exceptions.SSLError:
                raise ConfigurationError(
                    f"{self.name}: its TLS certificate is not trusted; name its authority in REQUESTS_CA_BUNDLE"
                ) from None
            except (requests.RequestException, ValueError) as error:
                fault = described(error)
            else:
                if not response.is_redirect:
                    return response
                response.close()
                if method not in ("GET", "HEAD"):
                    raise ProviderError(f"{self.name}: a {method} is redirected, which is not followed")
                url = urljoin(url, response.headers["Location"])
                parts = _split(url)
                if parts is None or not (self._is_home(url) or self._is_safe(parts)):
                    place = f"{parts.scheme}://{parts.hostname}" if parts else "a malformed address"
                    raise ProviderError(f"{self.name}: redirects to {place}, which is not followed")
                continue
            raise _Fault(fault)
        raise ProviderError(f"{self.name}: redirects more than {_REDIRECTS} times")

    def _authorise(self, challenge: str, method: str) -> None:
        """Answers a 401 (RFC 9110; Docker's token authentication). Nothing happens where it asks for what we have not."""
        scheme, _, rest = challenge.partition(" ")
        known = self._credentials(self._registry)
        self._authorization = {}
        if scheme.lower() == "basic" and known:
            self._authorization = {"Authorization": _basic(known)}
        elif scheme.lower() == "bearer":
            asked = dict(_CHALLENGE.findall(rest))
            actions = "pull" if method in ("GET", "HEAD") else "pull,push"
            scope = asked.get("scope") or f"repository:{self._repository}:{actions}"
            token = self._token(asked.get("realm", ""), asked.get("service", ""), scope, known)
            self._authorization = {"Authorization": f"Bearer {token}"}

    def _token(self, realm: str, service: str, scope: str, known: Credentials | None) -> str:
        parts = _split(realm)
        if parts is None or not self._is_safe(parts):
            raise ProviderError(
                f"{self.name}: tokens are to be had at {one_line(realm, 100)!r}, allowed: an https address"
            )
        try:
            if known and known.is_identity_token:
                form = {
                    "grant_type": "refresh_token",
                    "service": service,
                    "scope": scope,
                    "client_id": "greenops-pipelines",
                    "refresh_token": reveal(known.password),
                }
                response = self._session.post(
                    realm, data=form, timeout=self._timeout, allow_redirects=False, stream=True
                )
            else:
                response = self._session.get(
                    realm,
                    params={"service": service, "scope": scope},
                    headers={"Authorization": _basic(known)} if known else {},
                    timeout=self._timeout,
                    allow_redirects=False,
                    stream=True,
                )
        except (requests.RequestException, ValueError) as error:
            fault: str | None = described(error)
        else:
            fault = None
        if fault is not None:
            raise _Fault(f"no token from {parts.hostname}: {fault}")
        with response:
            status = response.status_code
            if status in RETRIED:
                raise _Fault(f"no token from {parts.hostname}: {status} {phrase(status)}")
            if status != 200:
                raise ConfigurationError(
                    f"{self.name}: {parts.hostname} gave no token ({status} {phrase(status)}); "
                    f"run `docker login {self._registry}` as this user"
                )
            document = _parsed(_received(response, MAX_MANIFEST_BYTES, None, self.name).data, f"{self.name}: token")
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise ProviderError(f"{self.name}: {parts.hostname} answered without a token")
        return token

    def _is_home(self, url: str) -> bool:
        parts = _split(url)
        return parts is not None and _origin(parts) == _origin(urlsplit(self._base))

    def _is_safe(self, parts: SplitResult) -> bool:
        """Whether something else than the registry may be spoken to: over https, or where all is on this machine."""
        return parts.scheme == "https" or (
            parts.scheme == "http" and is_loopback(parts.netloc) and is_loopback(urlsplit(self._base).netloc)
        )

    def _at_home(self, path: str, said: str, what: str) -> str:
        """The address that the registry said, relative to `path` of the repository, if it is the registry's own."""
        parts = _split(said) if said else None
        place = urljoin(f"{self._base}/v2/{self._repository}/{path}", said) if parts else ""
        if not parts or not self._is_home(place):
            shown = f"{parts.scheme}://{parts.hostname}" if parts else one_line(said, 100) or "nowhere"
            raise ProviderError(f"{self.name}: {what}: found the address {shown}, allowed: one at {self._base}")
        return place

    def _error_said(self, response: requests.Response) -> str:
        """The message of the API's error document, without what we sent; empty where there is none."""
        try:
            data = response.raw.read1(_ERROR_BYTES, decode_content=True)
            first = json.loads(data)["errors"][0]
            said = " ".join(str(first.get(each) or "") for each in ("code", "message")).strip()
        except (ValueError, LookupError, TypeError, AttributeError, urllib3.exceptions.HTTPError, OSError):
            return ""
        for value in self._authorization.values():
            said = said.replace(value.partition(" ")[2], "***")
        return one_line(said, 160)

    def _limit(self, descriptor: Descriptor, limit: int) -> int:
        if descriptor.size > limit:
            raise ProviderError(f"{self._shown(descriptor.digest)}: {descriptor.size:,} bytes, allowed: {limit:,}")
        return descriptor.size

    def _same(self, descriptor: Descriptor, digest: str, size: int) -> None:
        if (digest, size) != (descriptor.digest, descriptor.size):
            raise ProviderError(
                f"{self._shown(descriptor.digest)}: the registry lies: found {size:,} bytes with {digest}, "
                f"allowed: {descriptor.size:,} bytes with that digest"
            )

    def _shown(self, wanted: str) -> str:
        return f"{self.name}{'@' if is_digest(wanted) else ':'}{wanted}"


class _Fault(Exception):
    """One attempt failed in a way that another may not."""

    def __init__(self, what: str, retry_after: float | None = None) -> None:
        super().__init__(what)
        self.retry_after = retry_after


class _Answer:
    """What came: headers, and the body or the digest and size of what was written to a file."""

    def __init__(self, headers: Mapping[str, str], data: bytes, digest: str, size: int, next_page: str) -> None:
        self.headers, self.data, self.digest, self.size, self.next_page = headers, data, digest, size, next_page


def _received(response: requests.Response, limit: int, target: Path | None, shown: str) -> _Answer:
    found, size, kept = hashlib.sha256(), 0, bytearray()
    fault = None
    seconds = _TOTAL_SECONDS + limit / _SLOWEST_BYTES_PER_SECOND
    deadline = time.monotonic() + seconds
    stream = target.open("wb") if target else None
    try:
        # `read1` returns what has arrived, so that the deadline is seen between two drips.
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            if time.monotonic() > deadline:
                raise TransientError(f"{shown}: the body was still arriving after {seconds:.0f} s")
            size += len(chunk)
            if size > limit:
                raise ProviderError(f"{shown}: more bytes than the {limit:,} that are allowed")
            found.update(chunk)
            if stream:
                stream.write(chunk)
            else:
                kept += chunk
    except urllib3.exceptions.HTTPError as error:
        fault = described(error)
    finally:
        if stream:
            stream.close()
    if fault is not None:
        raise _Fault(fault)
    following = response.links.get("next", {}).get("url", "")
    return _Answer(response.headers, bytes(kept), f"sha256:{found.hexdigest()}", size, following)


def is_loopback(netloc: str) -> bool:
    """Whether host[:port] is this machine."""
    host = netloc.rpartition("@")[2]
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", name) is not None


def _basic(known: Credentials) -> str:
    secret = f"{known.user}:{reveal(known.password)}"
    return f"Basic {base64.b64encode(secret.encode()).decode()}"


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _origin(parts)
    except ValueError:
        return None
    return parts


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _parsed(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = strict_json.loads(data)
    except ValueError as error:
        raise ProviderError(f"{where}: {error}") from None
    if not isinstance(found, dict):
        raise ProviderError(f"{where}: found no object")
    return found


def _index(data: bytes, where: str) -> tuple[Descriptor, ...]:
    listed = _parsed(data, where).get("manifests")
    if not isinstance(listed, list):
        raise ProviderError(f"{where}: found no list of manifests")
    return tuple(Descriptor.read(each, f"{where}: manifests[{at}]") for at, each in enumerate(listed))
