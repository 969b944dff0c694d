"""A test double of a Kubernetes API server, Job controller and kubelet, on 127.0.0.1.

A real one cannot be installed from the registries that tests may use: kube-apiserver is in neither Debian nor PyPI, and
`go install` refuses it because its module holds replace directives. So this speaks, over HTTP/1.1, the calls that the runner
makes: GET, POST, DELETE and watch of Jobs, list and watch of pods, a pod's log, /version. It is held to the real thing by the
official client's models, which are generated from Kubernetes' OpenAPI: what is posted must fit them with no field unknown, and
so must every object that it serves. Conditions, reasons and messages are those of the Job controller's source
(pkg/controller/job) and of the documentation; what no model knows, such as when a controller acts, is this file's belief.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from kubernetes.client import V1DeleteOptions, V1Job, V1Pod
from pydantic import BaseModel

TOKEN = "s3cret-t0ken"  # noqa: S105
NAMESPACES = {"batch"}
Json = dict[str, Any]


def checked(document: Json, model: type[BaseModel]) -> Json:
    """The document, held to the model: types, required fields, no unknown field."""
    model.model_validate(document)
    return document


class KubeDouble:
    """One namespace's Jobs and pods. A Job's pod runs at once, and ends when a test says how."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.schedules = True
        self.pods_linger = False
        self.watches = True
        self.forgets = False
        """As after etcd's compaction: a watch from an earlier version than the newest is answered with 410."""
        self.expired = 0
        self.on_sigterm = 143
        self.finishes_on_delete = False
        self.hangs_up_after_delete = False
        self.log = b""
        self.change = threading.Condition(threading.RLock())
        self._answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self._version = 100
        self._open = {"jobs": 0, "pods": 0}
        self._jobs: dict[str, Json] = {}
        self._pods: dict[str, Json] = {}
        self._events: list[tuple[int, str, str, Json]] = []
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    # The server

    def start(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def do_GET(self) -> None:
                owner._handle(self)

            do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self.stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Nothing listens from here on, and open watches break."""
        self.stopping.set()
        with self.change:
            self.change.notify_all()
        assert self._server
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def kubeconfig(self, folder: Path, token: str = TOKEN, server: str | None = None) -> Path:
        path = folder / "kubeconfig"
        clusters = [{"name": "c", "cluster": {"server": server or self.url}}]
        users = [{"name": "u", "user": {"token": token}}]
        contexts = [{"name": "prod-eu", "context": {"cluster": "c", "user": "u"}}]
        document = {"apiVersion": "v1", "kind": "Config", "clusters": clusters, "users": users, "contexts": contexts}
        path.write_text(yaml.safe_dump(document))
        return path

    def answer_next(self, status: int, message: str = "", times: int = 1) -> None:
        """Answer the next requests so, whatever they ask; without a message as a load balancer does."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            if message:
                self._status(handler, status, "Refused", message)
            else:
                self._bytes(handler, status, b"<html>", "text/html")

        self._answers += [answer] * times

    def redirect_next(self, to: str) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(307)
            handler.send_header("Location", to)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        self._answers.append(answer)

    def hang_up_next(self, times: int = 1) -> None:
        self._answers += [_hang_up] * times

    # What happens in the cluster

    def await_job(self) -> str:
        """The name of the one Job, once it is there."""
        with self.change:
            assert self.change.wait_for(lambda: self._jobs, 15)
            return next(iter(self._jobs))

    def await_watch(self, what: str = "jobs") -> None:
        """Until somebody watches."""
        with self.change:
            assert self.change.wait_for(lambda: self._open[what], 15)

    def await_deletion(self) -> None:
        with self.change:
            assert self.change.wait_for(lambda: "deletionTimestamp" in self.job()["metadata"], 15)

    def job(self) -> Json:
        with self.change:
            return next(iter(self._jobs.values()))

    def ends(self, code: int, reason: str = "", finished_at: datetime | None = None, silently: bool = False) -> None:
        """The container ends; `silently`: the Job controller has not seen it yet."""
        with self.change:
            (pod,) = self._pods.values()
            self._terminate(pod, code, reason, finished_at)
            self._put("MODIFIED", "pods", pod)
            if not silently:
                self.controller_sees()

    def controller_sees(self) -> None:
        with self.change:
            (pod,) = self._pods.values()
            if pod["status"]["phase"] == "Succeeded":
                self._conclude("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
            elif any(c["type"] == "DisruptionTarget" for c in pod["status"].get("conditions", [])):
                name = pod["metadata"]["name"]
                said = f"Pod batch/{name} has condition DisruptionTarget matching FailJob rule at index 0"
                self._conclude("Failed", "PodFailurePolicy", said)
            else:
                self._conclude("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")

    def disrupts(self, reason: str, message: str, knows_policy: bool = True) -> None:
        """The pod is evicted. `knows_policy`: False for a server that is too old for podFailurePolicy."""
        with self.change:
            (pod,) = self._pods.values()
            self._terminate(pod, 137, "Error", None)
            condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
            if knows_policy:
                pod["status"]["conditions"] = [condition]
            else:
                pod["status"] |= {"reason": reason, "message": message}
            self._put("MODIFIED", "pods", pod)
            self.controller_sees()

    def exceeds_deadline(self) -> None:
        with self.change:
            for pod in list(self._pods.values()):
                self._put("DELETED", "pods", pod)
            self._conclude("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")

    def somebody_deletes(self) -> None:
        with self.change:
            self._delete(self.job())

    def pods_go(self, ended_at: datetime | None = None) -> None:
        """The kubelet is done with the pods that were told to end, and says when they did; None: now."""
        with self.change:
            for pod in list(self._pods.values()):
                if self.on_sigterm is not None and pod["status"]["phase"] == "Running":
                    self._terminate(pod, self.on_sigterm, "Error" if self.on_sigterm else "Completed", ended_at)
                    self._put("MODIFIED", "pods", pod)
                self._put("DELETED", "pods", pod)
            for job in list(self._jobs.values()):
                if "deletionTimestamp" in job["metadata"]:
                    self._put("DELETED", "jobs", job)

    def touch(self) -> None:
        with self.change:
            self._put("MODIFIED", "jobs", self.job())

    # Inside

    def _conclude(self, kind: str, reason: str, message: str) -> None:
        job, at = self.job(), _text(datetime.now(UTC))
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        job["status"] |= {"conditions": [condition | {"lastTransitionTime": at}], "active": 0, "ready": 0}
        if kind == "Complete":
            job["status"]["completionTime"] = at
        self._put("MODIFIED", "jobs", job)

    def _terminate(self, pod: Json, code: int, reason: str, at: datetime | None) -> None:
        ended = {"exitCode": code, "reason": reason or ("Error" if code else "Completed")}
        ended["finishedAt"] = _text(at or datetime.now(UTC))
        state = {"name": "work", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        pod["status"]["containerStatuses"] = [state | {"state": {"terminated": ended}}]
        pod["status"]["phase"] = "Failed" if code else "Succeeded"

    def _put(self, kind: str, what: str, document: Json) -> None:
        self._version += 1
        document["metadata"]["resourceVersion"] = str(self._version)
        checked(document, V1Job if what == "jobs" else V1Pod)
        kept = self._jobs if what == "jobs" else self._pods
        if kind == "DELETED":
            kept.pop(document["metadata"]["name"], None)
        else:
            kept[document["metadata"]["name"]] = document
        self._events.append((self._version, kind, what, json.loads(json.dumps(document))))
        self.change.notify_all()

    def _create(self, job: Json) -> Json:
        at, name = datetime.now(UTC), job["metadata"]["name"]
        job["metadata"] |= {"uid": f"uid-{self._version}", "creationTimestamp": _text(at)}
        job["status"] = {"active": 1, "ready": int(self.schedules), "startTime": _text(at)}
        pod = {"apiVersion": "v1", "kind": "Pod", "spec": json.loads(json.dumps(job["spec"]["template"]["spec"]))}
        meta = json.loads(json.dumps(job["spec"]["template"]["metadata"]))
        pod["metadata"] = meta | {
            "name": f"{name}-x7k2p",
            "namespace": job["metadata"]["namespace"],
            "uid": f"pod-{self._version}",
            "creationTimestamp": _text(at),
        }
        pod["status"] = {"phase": "Running" if self.schedules else "Pending"}
        if self.schedules:
            pod["spec"]["nodeName"] = "node-1"
        else:
            said = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
            unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
            pod["status"]["conditions"] = [unscheduled]
        self._put("ADDED", "jobs", job)
        self._put("ADDED", "pods", pod)
        return job

    def _delete(self, job: Json) -> None:
        at = datetime.now(UTC)
        job["metadata"]["deletionTimestamp"] = _text(at)
        job["metadata"]["finalizers"] = ["foregroundDeletion"]
        self._put("MODIFIED", "jobs", job)
        for pod in list(self._pods.values()):
            pod["metadata"] |= {
                "deletionTimestamp": _text(at + timedelta(seconds=30)),
                "deletionGracePeriodSeconds": 30,
            }
            self._put("MODIFIED", "pods", pod)
        if not self.pods_linger:
            self.pods_go()

    # Requests

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        query = dict(parse_qsl(url.query))
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else {}
        with self.change:
            watching = " watch" if "watch" in query else ""
            self.requests.append((handler.command + watching, url.path))
            if self._answers:
                return self._answers.pop(0)(handler)
            if handler.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self._status(handler, 401, "Unauthorized", "Unauthorized")
        if url.path == "/version/":
            return self._json(handler, 200, {"major": "1", "minor": "33", "gitVersion": "v1.33.1"})
        found = re.fullmatch(r"/(?:apis/batch|api)/v1/namespaces/([^/]+)/(jobs|pods)(?:/([^/]+)(/log)?)?", url.path)
        assert found, url.path
        namespace, what, name, is_log = found.groups()
        if handler.command == "GET" and watching:
            return self._watch(handler, what, query)
        with self.change:
            if is_log:
                return self._bytes(handler, 200, self.log, "text/plain")
            if handler.command == "POST":
                return self._post(handler, namespace, body)
            if name is None:
                items = [pod for pod in self._pods.values() if _selected(pod, query)]
                meta = {"resourceVersion": str(self._version)}
                return self._json(
                    handler, 200, {"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": items}
                )
            job = self._jobs.get(name)
            if job is None:
                return self._status(handler, 404, "NotFound", f'jobs.batch "{name}" not found')
            if handler.command == "DELETE":
                return self._asked_to_delete(handler, job, body)
            return self._json(handler, 200, job)

    def _post(self, handler: BaseHTTPRequestHandler, namespace: str, body: Json) -> None:
        name = body["metadata"]["name"]
        if namespace not in NAMESPACES:
            return self._status(handler, 404, "NotFound", f'namespaces "{namespace}" not found')
        if name in self._jobs:
            return self._status(handler, 409, "AlreadyExists", f'jobs.batch "{name}" already exists')
        return self._json(handler, 201, self._create(checked(body, V1Job)))

    def _asked_to_delete(self, handler: BaseHTTPRequestHandler, job: Json, body: Json) -> None:
        checked(body, V1DeleteOptions)
        assert body["propagationPolicy"] == "Foreground"
        if self.finishes_on_delete:
            self.finishes_on_delete = False
            self.ends(0)
        if body["preconditions"]["resourceVersion"] != job["metadata"]["resourceVersion"]:
            return self._status(handler, 409, "Conflict", "the ResourceVersion in the precondition does not match")
        self._delete(job)
        if self.hangs_up_after_delete:
            self.hangs_up_after_delete = False
            return _hang_up(handler)
        return self._json(handler, 200, job)

    def _watch(self, handler: BaseHTTPRequestHandler, what: str, query: dict[str, str]) -> None:
        if not self.watches:
            return self._status(handler, 403, "Forbidden", f'{what} is forbidden: cannot watch resource "{what}"')
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        since, until = (
            int(query["resourceVersion"]),
            datetime.now(UTC) + timedelta(seconds=int(query["timeoutSeconds"])),
        )

        def send(kind: str, document: Json) -> None:
            line = json.dumps({"type": kind, "object": document}).encode() + b"\n"
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

        if self.forgets and since < self._version:
            with self.change:
                self.expired += 1
                self.change.notify_all()
            gone = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
            send("ERROR", gone | {"message": f"too old resource version: {since} ({self._version})"})
        else:
            with self.change:
                self._open[what] += 1
                self.change.notify_all()
            try:
                while not self.stopping.is_set() and (left := (until - datetime.now(UTC)).total_seconds()) > 0:
                    with self.change:
                        news = [e for e in self._events if e[0] > since and e[2] == what and _selected(e[3], query)]
                        if not news and not self.change.wait(left):
                            continue
                    for version, kind, _, document in news:
                        send(kind, document)
                        since = version
            finally:
                with self.change:
                    self._open[what] -= 1
        if self.stopping.is_set():
            return _hang_up(handler)
        handler.wfile.write(b"0\r\n\r\n")
        return None

    def _status(self, handler: BaseHTTPRequestHandler, code: int, reason: str, message: str) -> None:
        failed = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        named = re.search(r'"([^"]+)"', message)
        details = {"details": {"name": named[1]}} if named else {}
        self._json(handler, code, failed | {"message": message, "reason": reason, "code": code} | details)

    def _json(self, handler: BaseHTTPRequestHandler, code: int, document: Json) -> None:
        self._bytes(handler, code, json.dumps(document).encode(), "application/json")

    def _bytes(self, handler: BaseHTTPRequestHandler, code: int, body: bytes, kind: str) -> None:
        handler.send_response(code)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def _selected(document: Json, query: dict[str, str]) -> bool:
    meta = document["metadata"]
    if field := query.get("fieldSelector"):
        return field == f"metadata.name={meta['name']}"
    wanted = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)
    return wanted.items() <= meta.get("labels", {}).items()


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
