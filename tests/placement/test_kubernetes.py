"""The runner `kubernetes`: the manifest to the letter, and every way an attempt ends, through the official client.

Behind it stands a double of an API server, not a real one; `kube_double.py` says why, and what holds it to the real thing.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kubernetes.client import V1Job
from pydantic import SecretStr, ValidationError

from greenops_pipelines.errors import ConfigurationError, PermanentError
from greenops_pipelines.placement.kube_api import Cluster, Pace
from greenops_pipelines.placement.kube_manifest import as_yaml, job_name, render
from greenops_pipelines.placement.kubernetes import NothingStarted, StillRunning, lookup, run
from greenops_pipelines.placement.launches import Ended, Launch
from greenops_pipelines.placement.requests import KubernetesRunner, LocalRunner
from greenops_pipelines.redaction import reveal
from greenops_pipelines.settings import Settings
from greenops_pipelines.slo import yaml_go
from tests.placement.kube_double import TOKEN, KubeDouble, checked

PACE = Pace(connect=1, answer=1, watch=5, poll=0.1, away=2, first_pause=0.05, longest_pause=0.2, gone=1, overdue=0)
LAUNCH = Launch(
    key="churn-model:2026-11-25T02:00Z",
    attempt=1,
    workload="churn-model",
    tenant="bluefield-retail",
    service=None,
    region="eu-central-1",
    zone="DE",
    residency="eu",
    runner=KubernetesRunner(
        kind="kubernetes", image="ghcr.io/acme/train:1.4", command=("train", "--resume"), namespace="batch"
    ),
    began_at=datetime(2026, 11, 25, 2, 0, tzinfo=UTC),
    until=None,
    limit_minutes=90,
    deadline=datetime(2026, 11, 25, 14, 0, tzinfo=UTC),
    resumed=False,
    reason="cleanest hour before the deadline: 212 g/kWh, 31 % less than now",
)
NAME = "churn-model-1899392bd48d16d5-1"
JOB = f"Job batch/{NAME}"
MANIFEST = f"""\
apiVersion: batch/v1
kind: Job
metadata:
  name: {NAME}
  namespace: batch
  labels:
    app.kubernetes.io/managed-by: greenops
    greenops.io/workload: churn-model
    greenops.io/tenant: bluefield-retail
    greenops.io/region: eu-central-1
    greenops.io/residency: eu
    greenops.io/attempt: "1"
    greenops.io/key-digest: "1899392bd48d16d5"
  annotations:
    greenops.io/key: "churn-model:2026-11-25T02:00Z"
    greenops.io/zone: DE
    greenops.io/deadline: "2026-11-25T14:00:00Z"
    greenops.io/reason: "cleanest hour before the deadline: 212 g/kWh, 31 % less than now"
spec:
  parallelism: 1
  completions: 1
  backoffLimit: 0
  activeDeadlineSeconds: 5400
  ttlSecondsAfterFinished: 604800
  podFailurePolicy:
    rules:
      - action: FailJob
        onPodConditions:
          - type: DisruptionTarget
            status: "True"
  podReplacementPolicy: Failed
  template:
    metadata:
      labels:
        app.kubernetes.io/managed-by: greenops
        greenops.io/workload: churn-model
        greenops.io/tenant: bluefield-retail
        greenops.io/region: eu-central-1
        greenops.io/residency: eu
        greenops.io/attempt: "1"
        greenops.io/key-digest: "1899392bd48d16d5"
      annotations:
        greenops.io/key: "churn-model:2026-11-25T02:00Z"
    spec:
      restartPolicy: Never
      nodeSelector:
        topology.kubernetes.io/region: eu-central-1
      terminationGracePeriodSeconds: 30
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: work
          image: "ghcr.io/acme/train:1.4"
          command:
            - train
            - "--resume"
          env:
            - name: GREENOPS_PLACEMENT_KEY
              value: "churn-model:2026-11-25T02:00Z"
            - name: GREENOPS_PLACEMENT_ATTEMPT
              value: "1"
            - name: GREENOPS_PLACEMENT_REGION
              value: eu-central-1
            - name: GREENOPS_PLACEMENT_RESUMED
              value: "0"
            - name: GREENOPS_PLACEMENT_UNTIL
              value: ""
          securityContext:
            allowPrivilegeEscalation: false
"""


@pytest.fixture
def cluster() -> Iterator[KubeDouble]:
    double = KubeDouble()
    yield double
    double.stop()


@pytest.fixture
def settings(cluster: KubeDouble, tmp_path: Path) -> Settings:
    return settings_for(tmp_path, cluster.kubeconfig(tmp_path))


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def settings_for(folder: Path, kubeconfig: Path | str, contexts: str = "eu-central-1=prod-eu") -> Settings:
    return Settings(home=folder, kube_contexts=contexts, kubeconfig=str(kubeconfig), _env_file=None)


def in_an_instant(seconds: float = 1.2) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def start(
    worker: ThreadPoolExecutor, cluster: KubeDouble, settings: Settings, launch: Launch = LAUNCH
) -> Future[Ended]:
    """A run whose Job is there and awaited."""
    running = worker.submit(run, launch, settings, PACE)
    assert cluster.await_job() == job_name(launch)
    if cluster.watches:
        cluster.await_watch()
    return running


def posts(cluster: KubeDouble) -> int:
    return sum(verb == "POST" for verb, _ in cluster.requests)


# The manifest


def test_the_manifest_is_this_to_the_letter_and_says_where_it_lies(tmp_path: Path) -> None:
    ended = run(LAUNCH, settings_for(tmp_path, "", contexts="us-east-1=prod-us"))
    path = tmp_path / "gitops/k8s/jobs/eu-central-1" / f"{NAME}.yaml"
    assert path.read_text(encoding="utf-8") == MANIFEST
    assert (ended.outcome, ended.exit_code) == ("rendered", None)
    assert ended.detail == (
        f"dry run: {path} was written and nothing started; GREENOPS_KUBE_CONTEXTS names no context for eu-central-1"
    )
    assert list(path.parent.iterdir()) == [path]
    assert lookup(LAUNCH, settings_for(tmp_path, "", contexts="")) is None


def test_it_fits_the_models_of_the_api_with_no_unknown_field() -> None:
    checked(render(replace(LAUNCH, service="reporting", until=in_an_instant())), V1Job)
    wrong = render(LAUNCH)
    wrong["spec"]["template"]["spec"]["restartpolicy"] = "Never"
    with pytest.raises(ValidationError, match=r"spec\.template\.spec\.restartpolicy\n.*Extra inputs are not permitted"):
        checked(wrong, V1Job)


def test_the_same_attempt_has_the_same_name_and_another_has_another() -> None:
    moved = replace(LAUNCH, region="us-east-1", reason="other", resumed=True)
    assert job_name(moved) == job_name(LAUNCH) == NAME
    assert job_name(replace(LAUNCH, attempt=2)) == NAME[:-1] + "2"
    assert job_name(replace(LAUNCH, key=LAUNCH.key + " ")) != NAME


@pytest.mark.parametrize(
    ("workload", "prefix"),
    [
        ("a" * 63, "a" * 36),
        ("a" * 35 + "-" + "b" * 20, "a" * 35),
        ("nächtlich/Größe", "n-chtlich-gr-e"),
        ("日本語", "work"),
        ("--", "work"),
        ("9to5", "9to5"),
    ],
)
def test_odd_workloads_still_give_dns_labels(workload: str, prefix: str) -> None:
    launch = replace(LAUNCH, workload=workload, key="k" * 5000 + "/ü\n", attempt=999)
    name = job_name(launch)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 57
    assert name.startswith(f"{prefix}-")
    assert render(launch)["metadata"]["annotations"]["greenops.io/key"] == "k" * 5000 + "/ü\n"


@pytest.mark.parametrize("text", ["a" * 64, "-a", "a b", "ü", "a/b", "$(X)", "a\nb: c", "---", "." * 70])
def test_labels_are_valid_whatever_they_are_made_of_and_differ_where_it_differs(text: str) -> None:
    launch = replace(LAUNCH, tenant=text, workload=text, service=text, residency=text)
    labels = render(launch)["metadata"]["labels"]
    for value in labels.values():
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value), value
    other = render(replace(launch, tenant=text + "!"))["metadata"]["labels"]
    assert other["greenops.io/tenant"] != labels["greenops.io/tenant"]


HOSTILE = [
    "$(PATH)",
    "$$(HOME) $",
    "`id`; rm -rf /",
    'x"\n  privileged: true',
    "a: b # c",
    "{{ x }}",
    "1e3",
    "0x1F",
    "12:30",
    "yes",
    "N",
    "~",
    "",
    "null",
    "- a",
    "*b",
    "&c",
    "!!python/object/apply:os.system [id]",
    "\u2028\x85\t",
    "🌱",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_a_submitter_stay_texts(text: str) -> None:
    runner = KubernetesRunner(kind="kubernetes", image="i", command=("run", text), namespace="batch")
    launch = replace(LAUNCH, key=text, reason=text, runner=runner)
    manifest = render(launch)
    # Read back by Go's rules, as kubectl does: the same document, so nothing has become a number, a bool or a key.
    assert yaml_go.load(as_yaml(manifest), "job.yaml") == manifest
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["run", text.replace("$", "$$")]
    assert container["env"][0] == {"name": "GREENOPS_PLACEMENT_KEY", "value": text.replace("$", "$$")}
    assert manifest["metadata"]["annotations"]["greenops.io/key"] == text


def test_without_a_command_the_images_own_runs() -> None:
    runner = KubernetesRunner(kind="kubernetes", image="i", namespace="batch")
    (container,) = render(replace(LAUNCH, runner=runner))["spec"]["template"]["spec"]["containers"]
    assert "command" not in container


def test_another_runners_launch_and_a_region_that_is_a_path_are_refused(tmp_path: Path) -> None:
    local = replace(LAUNCH, runner=LocalRunner(kind="local", command=("true",), timeout_minutes=1))
    with pytest.raises(PermanentError, match="runner: found kind local, allowed here: kubernetes"):
        render(local)
    with pytest.raises(PermanentError, match=r"region: found '../../etc', allowed: a region's name"):
        run(replace(LAUNCH, region="../../etc"), settings_for(tmp_path, ""))
    assert list(tmp_path.iterdir()) == []


# How it ends


def test_a_job_that_completes_has_succeeded(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    running = start(worker, cluster, settings)
    cluster.ends(0)
    assert (ended := running.result(10)).outcome == "succeeded"
    assert (ended.exit_code, ended.detail) == (0, f"{JOB} completed")
    assert abs(ended.ended_at - datetime.now(UTC)) < timedelta(seconds=5)
    assert cluster.job()["metadata"]["labels"]["greenops.io/residency"] == "eu"
    assert lookup(LAUNCH, settings, PACE) == ended
    # Seen by watching: the Job was read when it was asked for, after the event, and by the lookup.
    assert [path.rsplit("/", 1)[1] for verb, path in cluster.requests if verb == "GET"].count(NAME) <= 4


def test_a_failure_has_its_exit_code_and_the_end_of_its_log_without_secrets(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    secret = reveal(SecretStr("hunter2-of-the-tests"))
    cluster.log = b"reading\n\nlogin as " + secret.encode() + b"\nValueError: no rows \xff\n"
    running = start(worker, cluster, settings)
    cluster.ends(1)
    ended = running.result(10)
    assert (ended.outcome, ended.exit_code) == ("failed", 1)
    assert ended.detail == f"{JOB}: exit code 1: reading | login as *** | ValueError: no rows \ufffd"


def test_out_of_memory_is_a_failure_that_says_so(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    running = start(worker, cluster, settings)
    cluster.ends(137, "OOMKilled")
    assert (ended := running.result(10)).exit_code == 137
    assert ended.detail == f"{JOB}: exit code 137 (OOMKilled): its log is empty"


def test_a_deadline_is_a_time_out_and_says_what_the_pod_waited_for(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    cluster.schedules = False
    running = start(worker, cluster, settings)
    cluster.exceeds_deadline()
    ended = running.result(10)
    assert (ended.outcome, ended.exit_code) == ("timed out", None)
    assert ended.detail == (
        f"{JOB}: ended after 90 min; it waited: Unschedulable: 0/3 nodes are available: "
        "3 node(s) didn't match Pod's node affinity/selector."
    )


def test_a_job_that_its_cluster_does_not_end_is_ended_by_us(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    launch = replace(LAUNCH, limit_minutes=0)
    ended = worker.submit(run, launch, settings, PACE).result(10)
    assert (ended.outcome, ended.detail) == ("timed out", f"{JOB}: not ended by its cluster 0 min after its limit")


@pytest.mark.parametrize("knows_policy", [True, False])
def test_an_evicted_pod_is_lost_not_failed(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor, knows_policy: bool
) -> None:
    running = start(worker, cluster, settings)
    cluster.disrupts("Evicted", "The node was low on resource: memory.", knows_policy)
    ended = running.result(10)
    assert (ended.outcome, ended.exit_code) == ("lost", None)
    pod = f"{NAME}-x7k2p"
    assert ended.detail == (
        f"{JOB}: disrupted: Pod batch/{pod} has condition DisruptionTarget matching FailJob rule at index 0"
        if knows_policy
        else f"{JOB}: pod {pod}: Evicted: The node was low on resource: memory."
    )


def test_a_job_that_somebody_deletes_is_lost_once_its_pod_is_gone(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    cluster.pods_linger = True
    running = start(worker, cluster, settings)
    cluster.somebody_deletes()
    assert lookup(LAUNCH, settings, PACE) == "running"
    assert not running.done()
    cluster.pods_go()
    assert (ended := running.result(10)).outcome == "lost"
    assert ended.detail == f"{JOB}: its Job was deleted"
    assert lookup(LAUNCH, settings, PACE) is None


# Its hour is over


def test_at_its_hour_a_job_is_deleted_pods_first_and_counts_as_paused(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    launch = replace(LAUNCH, until=in_an_instant())
    ended = worker.submit(run, launch, settings, PACE).result(10)
    assert (ended.outcome, ended.exit_code, ended.detail) == ("paused", None, f"{JOB}: its hour was over")
    assert launch.until is not None
    assert ended.ended_at >= launch.until
    assert lookup(launch, settings, PACE) is None


def test_a_deletion_whose_answer_is_lost_still_counts(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    """The second one is refused, because the first has changed the Job."""
    cluster.pods_linger = True
    cluster.hangs_up_after_delete = True
    running = start(worker, cluster, settings, replace(LAUNCH, until=in_an_instant()))
    cluster.await_deletion()
    cluster.pods_go()
    assert running.result(10).outcome == "paused"


@pytest.mark.parametrize(("seconds_before", "outcome"), [(0, "paused"), (5, "succeeded")])
def test_who_exits_with_0_once_told_to_end_is_paused_and_who_had_before_has_succeeded(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor, seconds_before: int, outcome: str
) -> None:
    """A program may save its state when told, and exit with 0: the kubelet's times tell the two apart."""
    cluster.on_sigterm, cluster.pods_linger = 0, True
    running = start(worker, cluster, settings, replace(LAUNCH, until=in_an_instant()))
    cluster.await_deletion()
    cluster.await_watch("pods")
    cluster.pods_go(datetime.now(UTC) - timedelta(seconds=seconds_before))
    assert running.result(10).outcome == outcome


@pytest.mark.parametrize("seen", [False, True])
def test_what_had_completed_at_that_moment_has_succeeded(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor, seen: bool
) -> None:
    """`seen`: the Job says so between our last look and the deletion, which therefore is refused; else only the pod does."""
    cluster.finishes_on_delete = seen
    running = start(worker, cluster, settings, replace(LAUNCH, until=in_an_instant()))
    if not seen:
        cluster.ends(0, silently=True)
    assert (ended := running.result(10)).outcome == "succeeded"
    assert ended.exit_code == 0
    assert (("DELETE", f"/apis/batch/v1/namespaces/batch/jobs/{NAME}") in cluster.requests) == seen


def test_a_pod_that_does_not_go_is_no_end(cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor) -> None:
    cluster.pods_linger = True
    running = worker.submit(run, replace(LAUNCH, until=in_an_instant()), settings, PACE)
    with pytest.raises(StillRunning, match=f"has ended, and may run on: {NAME}-x7k2p on node node-1"):
        running.result(10)
    assert lookup(LAUNCH, settings, PACE) == "running"
    cluster.pods_go()
    assert lookup(LAUNCH, settings, PACE) is None


def test_nothing_is_started_when_its_hour_is_over_already(cluster: KubeDouble, settings: Settings) -> None:
    ended = run(replace(LAUNCH, until=datetime(2026, 11, 25, 3, 0, tzinfo=UTC)), settings, PACE)
    assert (ended.outcome, posts(cluster)) == ("paused", 0)


# The worker dies, comes back, is not alone

WORKER = """
import sys
from pathlib import Path
from tests.placement.test_kubernetes import LAUNCH, PACE, run, settings_for
run(LAUNCH, settings_for(Path(sys.argv[1]), sys.argv[2]), PACE)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_leaves_its_job_and_the_next_one_adopts_it(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor, tmp_path: Path, sent: signal.Signals
) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", WORKER, str(tmp_path), settings.kubeconfig]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL) as first:
        cluster.await_job()
        cluster.await_watch()
        first.send_signal(sent)
    assert first.returncode == -sent
    assert lookup(LAUNCH, settings, PACE) == "running"
    running = worker.submit(run, LAUNCH, settings, PACE)
    cluster.await_watch()
    cluster.ends(0)
    assert running.result(10).outcome == "succeeded"
    assert posts(cluster) == 1


def test_anothers_job_of_that_name_is_left_alone(cluster: KubeDouble, settings: Settings) -> None:
    found = Cluster("eu-central-1", "prod-eu", settings, PACE)
    manifest = render(LAUNCH)
    manifest["metadata"]["annotations"]["greenops.io/key"] = "another"
    assert found.create("batch", manifest)
    assert found.create("batch", render(LAUNCH)) is None
    message = re.escape(
        f"{JOB}: annotation greenops.io/key: found 'another', attempt 1, allowed: {LAUNCH.key}, attempt 1"
    )
    cluster.pods_go()
    for ask in (run, lookup):
        with pytest.raises(PermanentError, match=message):
            ask(LAUNCH, settings, PACE)
    assert not any(verb == "DELETE" for verb, _ in cluster.requests)


def test_a_job_created_by_another_worker_between_two_calls_is_adopted(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    assert Cluster("eu-central-1", "prod-eu", settings, PACE).create("batch", render(LAUNCH))
    cluster.answer_next(404, 'jobs.batch "x" not found')
    running = worker.submit(run, LAUNCH, settings, PACE)
    cluster.await_watch()
    cluster.ends(0)
    assert running.result(10).outcome == "succeeded"
    assert posts(cluster) == 2


# The API server is away


def test_an_api_server_that_is_down_before_creation(cluster: KubeDouble, settings: Settings) -> None:
    cluster.stop()
    with pytest.raises(NothingStarted) as error:
        run(LAUNCH, settings, PACE)
    assert str(error.value) == (
        "kubernetes: region eu-central-1, context prod-eu: read Job: the connection failed (Connection refused); "
        "nothing was started"
    )
    with pytest.raises(StillRunning, match=f"what became of {JOB} is not known"):
        lookup(LAUNCH, settings, PACE)
    cluster.start()


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_an_api_server_that_refuses_is_asked_again_later(cluster: KubeDouble, settings: Settings, status: int) -> None:
    cluster.answer_next(status, f"no, {TOKEN}")
    with pytest.raises(NothingStarted) as error:
        run(LAUNCH, settings, PACE)
    assert str(error.value) == (
        f"kubernetes: region eu-central-1, context prod-eu: read Job: answered {status}: no, ***; nothing was started"
    )
    assert len(cluster.requests) == 1


def test_no_other_server_is_asked_than_the_contexts(cluster: KubeDouble, settings: Settings, fault_server) -> None:
    fault_server.json({})
    cluster.redirect_next(f"{fault_server.url}/apis")
    with pytest.raises(
        NothingStarted, match=r"read Job: redirects \(307\), which is not followed; the kubeconfig names"
    ):
        run(LAUNCH, settings, PACE)
    assert fault_server.requests == []


def test_no_tls_where_tls_is_named(cluster: KubeDouble, tmp_path: Path) -> None:
    path = cluster.kubeconfig(tmp_path, server=cluster.url.replace("http:", "https:"))
    with pytest.raises(NothingStarted, match="read Job: TLS failed: "):
        run(LAUNCH, settings_for(tmp_path, path), PACE)


def test_a_creation_without_an_answer_may_have_been_one(cluster: KubeDouble, settings: Settings) -> None:
    cluster.answer_next(404, 'jobs.batch "x" not found')
    cluster.hang_up_next()
    with pytest.raises(StillRunning, match=f"create Job: the connection broke; whether {JOB} was created is not known"):
        run(LAUNCH, settings, PACE)


def test_what_the_cluster_will_never_take_is_permanent(cluster: KubeDouble, settings: Settings) -> None:
    cluster.answer_next(404, 'jobs.batch "x" not found')
    cluster.answer_next(422, "Job.batch is invalid: spec.template: Required value")
    with pytest.raises(
        PermanentError, match=r"create Job: answered 422: Job.batch is invalid: spec.template: Required"
    ):
        run(LAUNCH, settings, PACE)
    runner = KubernetesRunner(kind="kubernetes", image="i", namespace="nowhere")
    with pytest.raises(PermanentError, match='namespace nowhere: namespaces "nowhere" not found; create it, or name'):
        run(replace(LAUNCH, runner=runner), settings, PACE)


def test_an_api_server_that_blinks_while_a_job_runs_loses_nothing(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    running = start(worker, cluster, settings)
    cluster.answer_next(503, "etcdserver: leader changed", times=3)
    cluster.hang_up_next()
    cluster.answer_next(404)  # a load balancer's
    cluster.answer_next(404, "the server could not find the requested resource")  # of a server that is still starting
    cluster.touch()
    with cluster.change:
        assert cluster.change.wait_for(lambda: not cluster._answers, 5)
    cluster.await_watch()
    cluster.stop()
    cluster.ends(0)
    cluster.start()
    assert running.result(10).outcome == "succeeded"
    assert posts(cluster) == 1


def test_an_api_server_that_stays_away_is_no_end(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    running = start(worker, cluster, settings)
    cluster.stop()
    with pytest.raises(StillRunning, match=rf"Connection refused\); {JOB} is left as it is"):
        running.result(10)
    cluster.start()
    assert lookup(LAUNCH, settings, PACE) == "running"


def test_a_version_that_is_too_old_is_read_anew(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    cluster.forgets = True
    running = worker.submit(run, LAUNCH, settings, PACE)
    cluster.await_job()
    with cluster.change:
        assert cluster.change.wait_for(lambda: cluster.expired, 5)
    cluster.ends(0)
    assert running.result(10).outcome == "succeeded"


def test_without_the_right_to_watch_it_polls(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor
) -> None:
    cluster.watches = False
    running = start(worker, cluster, settings)
    cluster.ends(0)
    assert running.result(10).outcome == "succeeded"


def test_credentials_that_have_expired_are_read_again(
    cluster: KubeDouble, settings: Settings, worker: ThreadPoolExecutor, tmp_path: Path
) -> None:
    running = start(worker, cluster, settings)
    cluster.answer_next(401, "Unauthorized")
    cluster.ends(0)
    assert running.result(10).outcome == "succeeded"


# What the operator named


def test_the_kubeconfig_is_held_against_what_was_named(cluster: KubeDouble, tmp_path: Path) -> None:
    path = cluster.kubeconfig(tmp_path)

    def refusal(settings: Settings) -> str:
        with pytest.raises(ConfigurationError) as error:
            run(LAUNCH, settings, PACE)
        return str(error.value)

    assert refusal(settings_for(tmp_path, path, "eu-central-1=prod")) == (
        f"GREENOPS_KUBE_CONTEXTS: found eu-central-1=prod, allowed: a context of {path}: prod-eu"
    )
    assert refusal(settings_for(tmp_path, tmp_path / "none")) == (
        f"{tmp_path}/none: found no such file, allowed: a kubeconfig; set GREENOPS_KUBECONFIG"
    )
    for text in ("[", f"token: {TOKEN}", f"contexts: [{{token: {TOKEN}}}]"):
        path.write_text(text)
        assert refusal(settings_for(tmp_path, path)) == (
            f"{path}: found something else, allowed: a kubeconfig with contexts"
        )
    cluster.kubeconfig(tmp_path, server="unix:///var/run/x")
    assert "context prod-eu: found no server that is http(s)://host[:port], allowed: " in refusal(
        settings_for(tmp_path, path)
    )
    path.write_text(path.read_text().replace("name: c\n", "name: d\n"))
    assert TOKEN not in (said := refusal(settings_for(tmp_path, path)))
    assert "context prod-eu: found ConfigException, allowed: a context with a cluster, its server" in said
    assert cluster.requests == []


def test_without_the_extra_its_name_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    with pytest.raises(
        ConfigurationError, match=r"eu-central-1, and .* pip install 'greenops-pipelines\[kubernetes\]'"
    ):
        run(LAUNCH, settings, PACE)


def test_the_client_is_imported_only_where_a_context_is_named() -> None:
    code = "import sys, greenops_pipelines.placement.kubernetes; sys.exit('kubernetes.client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_credential_plugin_that_hangs_is_not_awaited_for_ever(tmp_path: Path, cluster: KubeDouble) -> None:
    path = cluster.kubeconfig(tmp_path)
    plugin = (
        "{exec: {apiVersion: client.authentication.k8s.io/v1, command: sleep, args: ['5'], interactiveMode: Never}}"
    )
    path.write_text(path.read_text().replace(f"\n    token: {TOKEN}", f" {plugin}"))
    assert "exec" in path.read_text()
    with pytest.raises(NothingStarted, match=r"credentials: the plugin did not answer within 0\.5 s"):
        run(LAUNCH, settings_for(tmp_path, path), replace(PACE, credentials=0.5))
