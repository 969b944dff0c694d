"""The runner `kubernetes`: one attempt is one Job in the cluster of the launch's region.

    run(launch, settings) -> Ended             start it, or find it again, and await its end
    lookup(launch, settings) -> Ended | "running" | None    what became of an attempt whose worker died
    render(launch) -> dict                     its manifest

Where GREENOPS_KUBE_CONTEXTS names no context for the region, the manifest is written and nothing is started. A worker that
dies leaves its Job running; the same attempt finds it by name. Two pods of one key never run at once: no attempt counts as
ended while a pod of it may run. Not here: the manifest (`kube_manifest.py`), the API server (`kube_api.py`), whether and when
something is launched.
"""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from greenops_pipelines import gitops
from greenops_pipelines.errors import PermanentError, TransientError
from greenops_pipelines.placement.kube_api import Cluster, ClusterFault, Json, Pace
from greenops_pipelines.placement.kube_manifest import (
    ATTEMPT,
    CONTAINER,
    KEY,
    as_yaml,
    job_name,
    render,
    runner_of,
    selector,
    shown,
)
from greenops_pipelines.placement.launches import Ended, Launch, Outcome
from greenops_pipelines.redaction import one_line
from greenops_pipelines.settings import Settings

__all__ = ["NothingStarted", "StillRunning", "lookup", "render", "run"]

_LOG_LINES = 3
_LINE_LENGTH = 200
_DISRUPTED = frozenset({"Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Preempting"})
"""Reasons of a failed pod that are its node's: kubelet and node lifecycle controller."""


class NothingStarted(TransientError):
    """The region's cluster cannot be reached, or refuses us, and this call started nothing there: to be tried again.

    It says nothing of earlier calls: an attempt that another worker may have begun is looked up.
    """


class StillRunning(TransientError):
    """It was started, or may have been, and nobody knows an end: `lookup` it, and start nothing else of this key."""


def run(launch: Launch, settings: Settings, pace: Pace | None = None) -> Ended:
    """Start the attempt's Job, or adopt it where it is there already, and await its end.

    Raises `NothingStarted` and `StillRunning`, which are no ends; `PermanentError` where another's Job has the name, the
    cluster refuses the manifest, or the namespace is missing; `ConfigurationError` where context or client are missing.
    Anything else that ends the caller, a signal above all, leaves the Job as it is.
    """
    pace = pace or Pace()
    context = settings.context_of.get(launch.region)
    if context is None:
        return _rendered(launch, settings)
    started = _start(launch, context, settings, pace)
    if isinstance(started, Ended):
        return started
    cluster, job = started
    try:
        return _Awaited(cluster, launch, job, pace).end()
    except ClusterFault as fault:
        raise StillRunning(f"{fault}; {_job(launch)} is left as it is") from None


def lookup(launch: Launch, settings: Settings, pace: Pace | None = None) -> Ended | Literal["running"] | None:
    """How the attempt ended; "running" while any pod of it may run; None where the cluster knows nothing of it.

    Asks once and waits for nothing. None, too, where no context is named. Raises `StillRunning` where the cluster cannot be
    asked, and otherwise as `run`.
    """
    pace = pace or Pace()
    context = settings.context_of.get(launch.region)
    if context is None:
        return None
    try:
        cluster = Cluster(launch.region, context, settings, pace)
        namespace = runner_of(launch).namespace
        job = cluster.job(namespace, job_name(launch))
        pods, _ = cluster.pods(namespace, selector(launch))
        if any(_may_run(pod) for pod in pods):
            return "running"
        if job is None:
            return _judged(launch, cluster, pods) if pods else None
        _refuse_anothers(launch, job)
        return _ended(launch, cluster, job, pods, "") or "running"
    except ClusterFault as fault:
        raise StillRunning(f"{fault}; what became of {_job(launch)} is not known") from None


def _rendered(launch: Launch, settings: Settings) -> Ended:
    text = as_yaml(render(launch))
    path = gitops.put(settings.gitops, f"k8s/jobs/{launch.region}/{job_name(launch)}.yaml", text)
    detail = (
        f"dry run: {path} was written and nothing started; GREENOPS_KUBE_CONTEXTS names no context for {launch.region}"
    )
    return Ended("rendered", None, _now(), detail)


def _start(launch: Launch, context: str, settings: Settings, pace: Pace) -> tuple[Cluster, Json] | Ended:
    """The attempt's Job, created or found; an end where its hour was over before."""
    namespace, name = runner_of(launch).namespace, job_name(launch)
    manifest = render(launch)
    try:
        cluster = Cluster(launch.region, context, settings, pace)
        job = cluster.job(namespace, name)
        if job is None and launch.until is not None and _now() >= launch.until:
            return Ended("paused", None, _now(), f"its hour was over before {_job(launch)} was started")
        job = job or cluster.create(namespace, manifest) or cluster.job(namespace, name)
    except ClusterFault as fault:
        if fault.untouched:
            raise NothingStarted(f"{fault}; nothing was started") from None
        raise StillRunning(f"{fault}; whether {_job(launch)} was created is not known") from None
    if job is None:
        # Of that name when it was to be created, and gone a moment later; or a quota under contention.
        raise NothingStarted(
            f"kubernetes: {cluster}: create Job: answered 409 and it is not there; nothing was started"
        )
    _refuse_anothers(launch, job)
    return cluster, job


def _refuse_anothers(launch: Launch, job: Json) -> None:
    meta = job.get("metadata", {})
    found = (meta.get("annotations") or {}).get(KEY), (meta.get("labels") or {}).get(ATTEMPT)
    if found != (launch.key, str(launch.attempt)):
        whose = f"{one_line(str(found[0]), 120)!r}, attempt {found[1]}" if found[0] else "none of ours"
        raise PermanentError(
            f"{_job(launch)}: annotation {KEY}: found {whose}, allowed: {shown(launch)}; delete or rename that Job"
        )


class _Awaited:
    """A Job that is there, until there is no pod of it that may run."""

    def __init__(self, cluster: Cluster, launch: Launch, job: Json, pace: Pace) -> None:
        self._cluster = cluster
        self._launch = launch
        self._pace = pace
        self._namespace, self._name = runner_of(launch).namespace, job_name(launch)
        self._selector = selector(launch)
        self._uid = job["metadata"]["uid"]
        self._pods: dict[str, Json] = {}
        """Every pod ever seen, as last seen: those of a deleted Job go with it."""
        self._running: list[Json] = []
        self._present = False
        self._waits = ""
        self._told: tuple[Outcome, str] | None = None
        """Why we are ending it, once we have tried."""

    def end(self) -> Ended:
        while True:
            job = self._job_now()
            if job is None or job["metadata"].get("deletionTimestamp"):
                # By us, by an earlier worker at the end of its hour, or by somebody.
                deleted: tuple[Outcome, str] = ("lost" if self._hour_left() > 0 else "paused", "its Job was deleted")
                return self._gone(*(self._told or deleted))
            if _condition(job):
                self._await_quiet(job)
                ended = _ended(self._launch, self._cluster, job, list(self._pods.values()), self._waits)
                if ended:
                    return ended
            if self._hour_left() <= 0 and (ended := self._stop(job, "paused", "its hour was over")):
                return ended
            if self._limit_left(job) <= 0:
                limit = f"not ended by its cluster {self._pace.overdue / 60:.0f} min after its limit"
                if ended := self._stop(job, "timed out", limit):
                    return ended
            self._listen(job)

    def _job_now(self) -> Json | None:
        """The Job; None where it has gone, or another has its name."""
        job = self._cluster.patiently(lambda: self._cluster.job(self._namespace, self._name))
        return job if job is not None and job["metadata"]["uid"] == self._uid else None

    def _look_at_pods(self) -> str:
        """The resource version to watch them from."""
        pods, version = self._cluster.patiently(lambda: self._cluster.pods(self._namespace, self._selector))
        present = {str(pod["metadata"]["uid"]): pod for pod in pods}
        self._pods |= present
        self._running = [pod for pod in pods if _may_run(pod)]
        self._present = bool(pods)
        if pods:
            self._waits = next(filter(None, map(_waiting, pods)), "")
        return version

    def _hour_left(self) -> float:
        until = self._launch.until
        return float("inf") if until is None else (until - _now()).total_seconds()

    def _limit_left(self, job: Json) -> float:
        """Seconds until it is ended by us: by its cluster's clock, from its creation."""
        limit = timedelta(minutes=self._launch.limit_minutes, seconds=self._pace.overdue)
        return (_time(job["metadata"].get("creationTimestamp")) + limit - _now()).total_seconds()

    def _listen(self, job: Json) -> None:
        """Return when something has happened to the Job, or may have."""
        if (job.get("status") or {}).get("ready"):
            self._waits = ""
        else:
            self._look_at_pods()
        left = min(self._hour_left(), self._limit_left(job))
        if left < 1:
            time.sleep(max(left, 0.05))
            return
        seconds, began = int(min(left, self._pace.watch)), time.monotonic()
        try:
            version = str(job["metadata"]["resourceVersion"])
            with closing(self._cluster.watch_job(self._namespace, self._name, version, seconds)) as events:
                if next(events, None) is not None:
                    return
        except ClusterFault:
            pass
        # A watch that is refused, cut or unknown: looked at every now and then instead.
        if time.monotonic() - began < 1:
            time.sleep(min(self._pace.poll, left))

    def _stop(self, job: Json, outcome: Outcome, why: str) -> Ended | None:
        """End it; None where it has changed meanwhile, and is to be looked at again."""
        self._look_at_pods()
        if self._present and not self._running:
            # Its pod has ended, and the Job is about to say so. One that has gone says nothing: a suspended Job's come back.
            return _judged(self._launch, self._cluster, list(self._pods.values()))
        self._told = outcome, why
        if not self._cluster.patiently(lambda: self._cluster.delete(self._namespace, job)):
            return None
        return self._gone(outcome, why)

    def _gone(self, outcome: Outcome, why: str) -> Ended:
        """Await the end of a Job that is being deleted, or has been, and of its pods."""
        self._await_quiet(None)
        done = [pod for pod in self._pods.values() if _completed_unasked(pod)]
        if done:
            at = _time(_terminated(done[0]).get("finishedAt"))
            return Ended("succeeded", 0, at, f"{_job(self._launch)}: had completed when {why}")
        return Ended(outcome, None, _now(), f"{_job(self._launch)}: {why}")

    def _await_quiet(self, job: Json | None) -> None:
        """Return when no pod of it may run; without `job`, when the Job has gone, too."""
        patience = time.monotonic() + self._pace.gone
        while True:
            version = self._look_at_pods()
            if not self._running and (job is not None or self._job_now() is None):
                return
            if time.monotonic() > patience:
                raise StillRunning(f"kubernetes: {self._cluster}: {_job(self._launch)} has ended, {self._left()}")
            began = time.monotonic()
            try:
                with closing(self._cluster.watch_pods(self._namespace, self._selector, version, 2)) as events:
                    for event in events:
                        pod = event.get("object") or {}
                        self._pods[str(pod["metadata"]["uid"])] = pod
                        if event.get("type") == "DELETED" or not _may_run(pod):
                            break
            except ClusterFault:
                pass
            if time.monotonic() - began < 0.2:
                time.sleep(0.2)

    def _left(self) -> str:
        pods = [
            f"{pod['metadata']['name']} on node {(pod.get('spec') or {}).get('nodeName', '(none)')}"
            for pod in self._running
        ]
        return f"and may run on: {', '.join(pods)}" if pods else "and is still being deleted"


def _ended(launch: Launch, cluster: Cluster, job: Json, pods: list[Json], waits: str) -> Ended | None:
    """What the Job's conditions say; None: it has not ended."""
    condition = _condition(job)
    if condition is None:
        return None
    at = _time((job.get("status") or {}).get("completionTime") or condition.get("lastTransitionTime"))
    if condition["type"] == "Complete":
        return Ended("succeeded", 0, at, f"{_job(launch)} completed")
    reason, said = str(condition.get("reason")), one_line(str(condition.get("message", "")), _LINE_LENGTH)
    if reason == "DeadlineExceeded":
        waited = f"; it waited: {waits}" if waits else ""
        return Ended("timed out", None, at, f"{_job(launch)}: ended after {launch.limit_minutes} min{waited}")
    if reason == "PodFailurePolicy":
        return Ended("lost", None, at, f"{_job(launch)}: disrupted: {said}")
    if not pods:
        return Ended("lost", None, at, f"{_job(launch)}: {reason}, and its pod has gone")
    return _judged(launch, cluster, pods)


def _judged(launch: Launch, cluster: Cluster, pods: list[Json]) -> Ended:
    """What the newest of its pods says, all of which have ended."""
    pod = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    ended = _terminated(pod)
    at, code = _time(ended.get("finishedAt")), ended.get("exitCode")
    if status.get("phase") == "Succeeded":
        return Ended("succeeded", 0, at, f"{_job(launch)} completed")
    disrupted = next((c for c in status.get("conditions") or [] if _is(c, "DisruptionTarget")), None)
    if disrupted or status.get("reason") in _DISRUPTED or pod["metadata"].get("deletionTimestamp") or code is None:
        word, said = (disrupted or status).get("reason"), (disrupted or status).get("message", "")
        why = (
            f"{word or 'deleted'}: {one_line(str(said), _LINE_LENGTH)}" if word or said else "deleted, or never started"
        )
        return Ended("lost", None, at, f"{_job(launch)}: pod {name}: {why}")
    killed = f" ({ended['reason']})" if ended.get("reason") not in (None, "Error", "Completed") else ""
    return Ended("failed", int(code), at, f"{_job(launch)}: exit code {code}{killed}: {_log(cluster, pod)}")


def _log(cluster: Cluster, pod: Json) -> str:
    """The end of its log, redacted, in one line."""
    meta = pod["metadata"]
    try:
        text = cluster.log_tail(meta["namespace"], meta["name"], CONTAINER, _LOG_LINES)
    except ClusterFault as fault:
        return f"its log cannot be read: {fault}"
    lines = [one_line(line, _LINE_LENGTH) for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_LOG_LINES:]) or "its log is empty"


def _condition(job: Json) -> Json | None:
    """The condition that ends a Job: Complete or Failed."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if _is(c, "Complete") or _is(c, "Failed")), None)


def _is(condition: Json, kind: str) -> bool:
    return condition.get("type") == kind and condition.get("status") == "True"


def _may_run(pod: Json) -> bool:
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _terminated(pod: Json) -> Json:
    """How the work's own container ended; empty where that is not known."""
    found = (pod.get("status") or {}).get("containerStatuses") or []
    return next((s.get("state", {}).get("terminated") or {} for s in found if s.get("name") == CONTAINER), {})


def _waiting(pod: Json) -> str:
    """Why a pod does not run yet; empty where it does."""
    status = pod.get("status") or {}
    if status.get("phase") != "Pending":
        return ""
    for found in status.get("containerStatuses") or []:
        if why := (found.get("state") or {}).get("waiting"):
            return one_line(f"{why.get('reason')}: {why.get('message', '')}", _LINE_LENGTH)
    unscheduled = (
        c for c in status.get("conditions") or [] if c.get("type") == "PodScheduled" and c.get("status") == "False"
    )
    return next((one_line(f"{c.get('reason')}: {c.get('message', '')}", _LINE_LENGTH) for c in unscheduled), "")


def _completed_unasked(pod: Json) -> bool:
    """Whether it had ended well before it was told to: in seconds, and a tie is no completion.

    Who is told to end may save its state and exit with 0; that is no work done, and it is to go on later.
    """
    ended, told = _terminated(pod), pod["metadata"].get("deletionTimestamp")
    if ended.get("exitCode") != 0:
        return False
    grace = timedelta(seconds=pod["metadata"].get("deletionGracePeriodSeconds") or 0)
    return told is None or _time(ended.get("finishedAt")) < _time(told) - grace


def _job(launch: Launch) -> str:
    return f"Job {runner_of(launch).namespace}/{job_name(launch)}"


def _time(text: Any) -> datetime:
    """A time as Kubernetes writes it; now where there is none."""
    return datetime.fromisoformat(text) if isinstance(text, str) else _now()


def _now() -> datetime:
    return datetime.now(UTC)
