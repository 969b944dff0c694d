"""The whole graph once, in this process: one run per partitioning, with progress, against the real instance.

Used by `greenops run`. The runs are ordinary ones: the UI shows them with their events, metadata and checks.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster import DagsterEventType
from dagster._core.events import DagsterEvent, RunFailureReason

from greenops_pipelines.carbon.sources import provider
from greenops_pipelines.errors import BadInput
from greenops_pipelines.integrations.beside import Told, begun
from greenops_pipelines.orphans import made_here
from greenops_pipelines.resources import BESIDE, Platform
from greenops_pipelines.settings import Settings

IMAGE_PARTITIONS = "images"
"""Name of the dynamic partitions that digests of images are."""
_INTERRUPTS = {"KeyboardInterrupt", "DagsterExecutionInterruptedError"}

Progress = Callable[[str], None]
"""Called with the name of what has just been done: an asset or a check."""


@dataclass(frozen=True)
class Outcome:
    """What the runs did: failed steps with their first line, and checks that did not pass, errors apart from warnings."""

    failures: Sequence[str]
    errors: Sequence[str]
    warnings: Sequence[str]
    assets: int

    @property
    def ok(self) -> bool:
        return not self.failures and not self.errors


@dataclass(frozen=True)
class Plan:
    """What will run: asset keys per run, and the days of the daily one."""

    daily: Sequence[dg.AssetKey]
    by_image: Sequence[dg.AssetKey]
    others: Sequence[dg.AssetKey]
    beside: Sequence[dg.AssetKey]
    """Made meanwhile, in a process of its own."""
    after: Sequence[dg.AssetKey]
    """What is made of `beside`, and so comes last."""
    first: date
    last: date

    @property
    def assets(self) -> int:
        return sum(map(len, (self.daily, self.by_image, self.others, self.beside, self.after)))


def prepare_home(settings: Settings) -> None:
    """Dagster's home with its configuration and databases; an operator's own `dagster.yaml` is left alone.

    The databases are made here, by one process at a time: webserver, daemon and code server, started together over a
    home that has none, each make them, and two that stamp the same revision leave a home that none can open again
    ("Version table 'alembic_version' has more than one head").
    """
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".prepared.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config = home / "dagster.yaml"
        if not config.exists():
            text = (resources.files("greenops_pipelines") / "dagster.yaml").read_text(encoding="utf-8")
            config.write_text(text, encoding="utf-8")
        with dg.DagsterInstance.from_config(str(home)):
            os.environ["DAGSTER_HOME"] = str(home)


def days(settings: Settings, now: datetime) -> tuple[date, date]:
    """First and last UTC day of a run: the source's own span where it has one, else the last `run_days` days."""
    span = provider(settings).span()
    if span is not None:
        return span[0].astimezone(UTC).date(), (span[1] - timedelta(microseconds=1)).astimezone(UTC).date()
    today = now.astimezone(UTC).date()
    return today - timedelta(days=settings.run_days - 1), today


def plan(defs: dg.Definitions, settings: Settings, select: str | None, now: datetime) -> Plan:
    """The selected assets (Dagster's selection syntax), split by partitioning. `BadInput` if nothing matches."""
    graph = defs.resolve_asset_graph()
    chosen = graph.materializable_asset_keys
    if select:
        try:
            # An asset that is made together with others is made with them: Dagster refuses half of such a step.
            wanted = dg.AssetSelection.from_string(select).required_multi_asset_neighbors()
            chosen = wanted.resolve(graph) & chosen
        except (dg.DagsterInvalidDefinitionError, dg.DagsterInvalidSubsetError, ValueError) as error:
            raise BadInput(f"--select {select!r}: {str(error).splitlines()[0]}") from None
        if not chosen:
            raise BadInput(f"--select {select!r}: no asset matches; `greenops run --list` shows them")
    partitioned = {key: found for key in chosen if (found := graph.get(key).partitions_def) is not None}
    by_image = sorted(key for key, found in partitioned.items() if isinstance(found, dg.DynamicPartitionsDefinition))
    first, last = days(settings, now)
    others = chosen - partitioned.keys()
    beside = {key for key in others if BESIDE.items() <= graph.get(key).tags.items()}
    after = (
        dg.AssetSelection.assets(*beside).downstream(include_self=False).resolve(graph) if beside else set()
    ) & others
    return Plan(
        sorted(partitioned.keys() - set(by_image)),
        by_image,
        sorted(others - beside - after),
        sorted(beside),
        sorted(after - beside),
        first,
        last,
    )


def run(defs: dg.Definitions, planned: Plan, settings: Settings, progress: Progress) -> Outcome:
    """Execute the plan: the daily assets over their range in one run, each image in one of its own, then everything else.

    What mostly waits is made meanwhile, in a run beside these, and joined last. What is made of days that failed is not
    made; an image that failed stops nothing, nor does what runs beside.
    """
    # The last word of a check counts: the first image's run knows nothing of the second's.
    all_told, aside = Told(), Told()
    job = defs.resolve_implicit_global_asset_job_def()
    names = [key.to_user_string() for key in planned.beside]
    with (
        dg.DagsterInstance.get() as instance,
        begun(names, settings.home / "logs", os.environ) as other,
    ):

        def make(keys: Sequence[dg.AssetKey], tags: dict[str, str], progress: Progress = progress) -> None:
            all_told.take(told(execute(job, instance, keys, tags, progress)))

        def set_aside() -> None:
            aside.failures += all_told.failures
            all_told.failures.clear()

        if planned.daily:
            make(planned.daily, _range(planned.first.isoformat(), planned.last.isoformat()))
        if planned.by_image and not all_told.failures:
            progress("images ...")
            _each_image(instance, lambda tags, said: make(planned.by_image, tags, said), progress)
            set_aside()
        if planned.others and not all_told.failures:
            make(planned.others, {})
        for name in names:
            progress(f"{name} ...")
        aside.take(other.join())
        for name in names:
            progress(name)
        if planned.after and not all_told.failures:
            make(planned.after, {})
    checks = {**aside.checks, **all_told.checks}
    errors, warnings = (
        [line for is_error, line in checks.values() if line and is_error is wanted] for wanted in (True, False)
    )
    return Outcome([*aside.failures, *all_told.failures], errors, warnings, planned.assets)


def told(result: dg.ExecuteInProcessResult) -> Told:
    """What a run did, for people."""
    found = Told()
    for event in result.all_events:
        if event.event_type == DagsterEventType.STEP_FAILURE:
            found.failures.append(f"{event.step_key}: {_first_line(event.step_failure_data.error)}")
    for check in result.get_asset_check_evaluations():
        name = f"{check.asset_key.to_user_string()}:{check.check_name}"
        is_error = check.severity == dg.AssetCheckSeverity.ERROR
        found.checks[name] = (is_error, "" if check.passed else f"{name}: {check.description}")
    return found


def _range(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def _each_image(
    instance: dg.DagsterInstance, execute: Callable[[dict[str, str], Progress], None], progress: Progress
) -> None:
    """One run for every digest in use; what was taken up before is found so within a moment."""
    digests = Platform().look_for_images().digests
    instance.add_dynamic_partitions(IMAGE_PARTITIONS, digests)
    for at, digest in enumerate(digests):
        # Each asset is one step of the bar, however many images there are.
        told = progress if at == 0 else (lambda name: progress(name if name.endswith(" ...") else f"{name} ..."))
        execute({"dagster/partition": digest}, told)


def execute(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    tags: dict[str, str],
    progress: Progress,
) -> dg.ExecuteInProcessResult:
    """One run of these assets in this process, its steps told to `progress`.

    SIGINT and SIGTERM end it: Dagster closes the run as failed, and `KeyboardInterrupt` is raised from here. Dagster alone
    would return as from any failed run, and an interrupted step with a retry policy it would make again.
    """
    run_id = str(uuid4())
    seen: set[str] = set()
    interrupted = False

    def listen(entry: Any) -> None:
        nonlocal interrupted
        event = entry.dagster_event
        if event is None:
            return
        if event.event_type == DagsterEventType.ASSET_MATERIALIZATION:
            name = event.asset_key.to_user_string()
            if name not in seen:
                seen.add(name)
                progress(name)
        elif event.event_type == DagsterEventType.STEP_START:
            progress(f"{event.step_key} ...")
        elif _is_interruption(event):
            interrupted = True
            if event.is_step_event:
                raise KeyboardInterrupt
        elif event.event_type == DagsterEventType.STEP_UP_FOR_RETRY:
            _heed_signals()

    instance.add_event_listener(run_id, listen)
    with _sigterm_kept():
        result = job.execute_in_process(
            instance=instance,
            asset_selection=list(keys),
            run_id=run_id,
            tags={**tags, **made_here(run_id)},
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    if interrupted:
        raise KeyboardInterrupt
    return result


def _is_interruption(event: DagsterEvent) -> bool:
    """Whether a signal is what a step or the run ended of."""
    if event.event_type == DagsterEventType.RUN_FAILURE:
        return event.job_failure_data.failure_reason == RunFailureReason.UNEXPECTED_TERMINATION
    if event.event_type == DagsterEventType.STEP_FAILURE:
        error = event.step_failure_data.error
    elif event.event_type == DagsterEventType.STEP_UP_FOR_RETRY:
        error = event.step_retry_data.error
    else:
        return False
    while error is not None:
        if error.cls_name in _INTERRUPTS:
            return True
        error = error.cause
    return False


def _heed_signals() -> None:
    """Before the wait for a retry, minutes perhaps: Dagster would only take note of a signal until that is over."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Dagster leaves SIGTERM with the handler of SIGINT, which a shell has ignored in what it runs in the background."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _first_line(error: Any) -> str:
    """The innermost cause is what an operator can act on."""
    while error.cause is not None:
        error = error.cause
    return str(error.message).strip().splitlines()[0]
