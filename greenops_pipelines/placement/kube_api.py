"""The few calls to a region's API server that a runner makes, bounded in time, silent about secrets.

Objects are JSON as the server sent it. A fault that a later call may not meet is a `ClusterFault`; `Cluster.patiently`
sits short ones out. Not here: what a Job or its end means (`kubernetes.py`).
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
import yaml
from pydantic import SecretStr

from greenops_pipelines.errors import ConfigurationError, PermanentError, TransientError
from greenops_pipelines.redaction import one_line, reveal
from greenops_pipelines.settings import Settings

log = logging.getLogger(__name__)

Json = dict[str, Any]
T = TypeVar("T")

_LOG_BYTES = 65_536
_ERROR_BYTES = 16_384
_REFUSED_FOR_GOOD = frozenset({400, 405, 413, 415, 422})

_TLS = "TLS failed: its certificate is not trusted, or ours is not accepted"
_UNSENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.SSLError)


class ClusterFault(TransientError):
    """A region's API server was not reached, or did not do what was asked. `untouched`: certainly nothing was changed."""

    def __init__(self, message: str, status: int | None, untouched: bool) -> None:
        super().__init__(message)
        self.status = status
        self.untouched = untouched


@dataclass(frozen=True)
class Pace:
    """How long things are waited for, seconds."""

    connect: float = 5.0
    answer: float = 20.0
    credentials: float = 60.0
    """For a kubeconfig's credential plugin."""
    watch: int = 60
    """One watch; then the Job is looked at, whatever was heard."""
    poll: float = 10.0
    """Between two looks where watching does not work."""
    away: float = 300.0
    """How long an API server may be away while a Job is awaited."""
    first_pause: float = 1.0
    longest_pause: float = 30.0
    gone: float = 180.0
    """For pods to be gone once they were told to go."""
    overdue: float = 600.0
    """How long after its time limit a Job that its cluster did not end is ended by us."""


class Cluster:
    """The API server behind a region's context. Not shared between threads."""

    def __init__(self, region: str, context: str, settings: Settings, pace: Pace) -> None:
        """Reads the kubeconfig and connects to nothing. Raises `ConfigurationError` naming variable, found, allowed."""
        self.region = region
        self.context = context
        self._settings = settings
        self._pace = pace
        self._secret = ""
        self._connect()

    def __str__(self) -> str:
        return f"region {self.region}, context {self.context}"

    def version(self) -> str:
        """`v1.33.1`; needs no more than credentials."""
        found = self._json("version", self._api("VersionApi").get_code)
        return str(found.get("gitVersion", "an unknown version"))

    def job(self, namespace: str, name: str) -> Json | None:
        try:
            return self._json("read Job", self._api("BatchV1Api").read_namespaced_job, name, namespace)
        except _Missing:
            return None

    def create(self, namespace: str, manifest: Json) -> Json | None:
        """The Job as created; None: there is one of that name."""
        try:
            return self._json("create Job", self._api("BatchV1Api").create_namespaced_job, namespace, manifest)
        except _Conflict:
            return None
        except _Missing as missing:
            raise PermanentError(
                f"kubernetes: {self}: namespace {namespace}: {missing}; create it, or name another one in `runner`"
            ) from None

    def delete(self, namespace: str, job: Json) -> bool:
        """Delete this very state of the Job, its pods first; False where it has changed or gone since."""
        meta = job["metadata"]
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
        }
        call = self._api("BatchV1Api").delete_namespaced_job
        try:
            self._json("delete Job", call, meta["name"], namespace, body=options)
        except (_Conflict, _Missing):
            return False
        return True

    def pods(self, namespace: str, selector: str) -> tuple[list[Json], str]:
        """Pods, and the resource version from which to watch them."""
        call = self._api("CoreV1Api").list_namespaced_pod
        try:
            found = self._json("list pods", call, namespace, label_selector=selector)
        except _Missing as missing:
            raise self._fault("list pods", str(missing), 404) from None
        return list(found.get("items") or []), str(found.get("metadata", {}).get("resourceVersion", ""))

    def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str:
        call = self._api("CoreV1Api").read_namespaced_pod_log
        try:
            found = self._call("read log", call, pod, namespace, container=container, tail_lines=lines)
        except _Missing:
            return ""
        return found.decode("utf-8", "replace")

    def watch_job(self, namespace: str, name: str, version: str, seconds: int) -> Generator[Json, None, None]:
        call = self._api("BatchV1Api").list_namespaced_job
        return self._watch("watch Job", call, namespace, version, seconds, field_selector=f"metadata.name={name}")

    def watch_pods(self, namespace: str, selector: str, version: str, seconds: int) -> Generator[Json, None, None]:
        call = self._api("CoreV1Api").list_namespaced_pod
        return self._watch("watch pods", call, namespace, version, seconds, label_selector=selector)

    def patiently(self, ask: Callable[[], T]) -> T:
        """The answer, asked again with backoff and jitter while faults last less than `Pace.away`; then the fault."""
        since, pause = time.monotonic(), self._pace.first_pause
        while True:
            try:
                return ask()
            except ClusterFault as error:
                fault = error
            if time.monotonic() - since + pause > self._pace.away:
                raise fault
            log.warning("%s; asked again in %.1f s, the Job is left as it is", fault, pause)
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, self._pace.longest_pause)
            try:
                # A token lives for minutes, a Job for hours.
                self._connect()
            except (ConfigurationError, ClusterFault) as error:
                log.warning("%s; the earlier credentials are tried again", error)

    def _api(self, name: str) -> Any:
        import kubernetes.client

        return getattr(kubernetes.client, name)(self._client)

    def _json(self, what: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Json:
        body = self._call(what, call, *arguments, **options)
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._fault(what, "the answer is not a JSON object", None)
        return found

    def _call(self, what: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> bytes:
        response = self._send(what, call, (self._pace.connect, self._pace.answer), arguments, options)
        try:
            return bytes(response.read(_LOG_BYTES) if what == "read log" else response.read())
        except (urllib3.exceptions.HTTPError, OSError) as error:
            broken = _described(error, self._pace)
        finally:
            response.close()
        raise self._fault(what, broken, None)

    def _watch(
        self, what: str, call: Callable[..., Any], namespace: str, version: str, seconds: int, **options: Any
    ) -> Generator[Json, None, None]:
        """Events; ends in silence when the server ends the watch, or no longer knows the version."""
        options |= {"watch": True, "resource_version": version, "timeout_seconds": seconds}
        # A server that forgets the end of a watch is left a little later.
        response = self._send(what, call, (self._pace.connect, seconds + self._pace.answer), (namespace,), options)
        broken, rest = "", b""
        try:
            for piece in response.stream(_LOG_BYTES):
                *lines, rest = (rest + piece).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if not isinstance(event, dict) or event.get("type") == "ERROR":
                        return
                    if event.get("type") != "BOOKMARK":
                        yield event
        except (urllib3.exceptions.HTTPError, OSError) as error:
            broken = _described(error, self._pace)
        except ValueError:
            broken = "an event is not JSON"
        finally:
            response.close()
        if broken:
            raise self._fault(what, broken, None)

    def _send(
        self,
        what: str,
        call: Callable[..., Any],
        timeout: tuple[float, float],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """The open response of a call that went well."""
        from kubernetes.client.exceptions import ApiException

        status, body, fault, unsent = 0, b"", "", False
        try:
            response = call(*arguments, **options, _preload_content=False, _request_timeout=timeout)
            status = int(response.status)
            if 200 <= status < 300:
                return response
            body = response.read(_ERROR_BYTES)
            response.close()
        except ApiException as error:
            status, body = int(error.status or 0), str(error.body or "").encode()
            fault, unsent = ("", False) if status else (_TLS, True)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            fault, unsent = _described(error, self._pace), isinstance(error, _UNSENT)
        # Raised outside of the `except`: the cause may hold what was sent.
        if fault:
            raise self._fault(what, fault, None, unsent)
        raise self._refusal(what, status, _status(body))

    def _refusal(self, what: str, status: int, found: Json) -> Exception:
        said = one_line(str(found.get("message") or found.get("reason") or ""), 300)
        # Only of a Status that names what is missing: a load balancer's 404, or that of an API server which does not serve
        # Jobs yet, is no Job that has gone.
        if status == 404 and (found.get("details") or {}).get("name"):
            return _Missing(said)
        if status == 409 and found and what in ("create Job", "delete Job"):
            return _Conflict(said)
        answered = f"answered {status}" + (f": {said}" if said else "")
        if what == "create Job" and status in _REFUSED_FOR_GOOD:
            return PermanentError(f"kubernetes: {self}: {what}: {answered}")
        if 300 <= status < 400:
            answered = f"redirects ({status}), which is not followed; the kubeconfig names the server"
        return self._fault(what, answered, status, untouched=status < 500)

    def _fault(self, what: str, fault: str, status: int | None, untouched: bool = False) -> ClusterFault:
        untouched = untouched or not what.startswith(("create", "delete"))
        return ClusterFault(f"kubernetes: {self}: {what}: {fault}", status, untouched)

    def _connect(self) -> None:
        """Credentials and server as the kubeconfig has them now."""
        paths = kubeconfigs(self._settings)
        _check_context(self.region, self.context, paths)
        kubernetes = _client_library(self.region)
        # Proxies come from the environment, as kubectl's do; the server from the context alone.
        configuration = kubernetes.client.Configuration(host="")
        # Neither repeated nor redirected by the client: what may be sent twice is decided here.
        configuration.retries = urllib3.Retry(False)
        failed: list[BaseException] = []

        def load() -> None:
            try:
                kubernetes.config.load_kube_config(
                    os.pathsep.join(str(path) for path in paths),
                    self.context,
                    client_configuration=configuration,
                    persist_config=False,
                )
            except Exception as error:  # noqa: BLE001 - a plugin's, a file's, a certificate's: told apart by nobody
                failed.append(error)

        # In a thread, because the client waits for a credential plugin for ever.
        loading = threading.Thread(target=load, daemon=True)
        loading.start()
        loading.join(self._pace.credentials)
        if loading.is_alive():
            raise self._fault(
                "credentials", f"the plugin did not answer within {self._pace.credentials:g} s", None, True
            )
        server = urlsplit(configuration.host)
        if failed or server.scheme not in ("https", "http") or not server.hostname or server.username:
            # Not the client's own words: they quote users with their tokens.
            found = type(failed[0]).__name__ if failed else "no server that is http(s)://host[:port]"
            raise ConfigurationError(
                f"{_shown(paths)}: context {self.context}: found {found}, allowed: a context with a cluster, its server, "
                f"and a user that can be read"
            )
        # Asked for anew by `_connect`: the hook would start the plugin within a call, without limit.
        configuration.refresh_api_key_hook = None
        for value in configuration.api_key.values():
            reveal(SecretStr(str(value).partition(" ")[2] or str(value)))
        self._client = kubernetes.client.ApiClient(configuration)


class _Missing(Exception):
    """404."""


class _Conflict(Exception):
    """409: it is there already, or has changed since."""


def kubeconfigs(settings: Settings) -> list[Path]:
    """The files that are read for contexts, whether or not they are there."""
    named = settings.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    return [Path(part).expanduser() for part in named.split(os.pathsep) if part]


def context_names(paths: list[Path]) -> set[str]:
    """The contexts of the kubeconfig. Raises `ConfigurationError` naming the file that cannot be read."""
    names: set[str] = set()
    present = [path for path in paths if path.exists()]
    if not present:
        raise ConfigurationError(f"{_shown(paths)}: found no such file, allowed: a kubeconfig; set GREENOPS_KUBECONFIG")
    for path in present:
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            names |= {str(entry["name"]) for entry in document["contexts"] or []}
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
            # Without the cause, which quotes the file.
            raise ConfigurationError(f"{path}: found something else, allowed: a kubeconfig with contexts") from None
    return names


def _check_context(region: str, context: str, paths: list[Path]) -> None:
    names = context_names(paths)
    if context not in names:
        allowed = ", ".join(sorted(names)) or "none is there"
        raise ConfigurationError(
            f"GREENOPS_KUBE_CONTEXTS: found {region}={context}, allowed: a context of {_shown(paths)}: {allowed}"
        )


def _client_library(region: str) -> Any:
    try:
        import kubernetes.client
        import kubernetes.config
    except ModuleNotFoundError:
        raise ConfigurationError(
            f"GREENOPS_KUBE_CONTEXTS names a context for {region}, and Kubernetes' Python client is not installed: "
            "pip install 'greenops-pipelines[kubernetes]'"
        ) from None
    return kubernetes


def _shown(paths: list[Path]) -> str:
    return os.pathsep.join(str(path) for path in paths)


def _described(error: Exception, pace: Pace) -> str:
    """What went wrong on the wire, without what was sent."""
    match error:
        # First, because it is a kind of the second.
        case urllib3.exceptions.NewConnectionError():
            return f"the connection failed ({one_line(str(error).rpartition(': ')[2].rpartition('] ')[2], 100)})"
        case urllib3.exceptions.ConnectTimeoutError():
            return f"no connection within {pace.connect:g} s"
        case urllib3.exceptions.ReadTimeoutError() | TimeoutError():
            return f"no answer within {pace.answer:g} s"
        case urllib3.exceptions.SSLError():
            return _TLS
        case urllib3.exceptions.ProtocolError():
            return "the connection broke"
    return f"the connection failed ({type(error).__name__})"


def _status(body: bytes) -> Json:
    """The Status object of a refusal; empty where something else answered."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}
