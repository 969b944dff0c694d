"""The whole graph once, in this process: one run per partitioning, with progress, against the real instance.

Used by `greenops run`. The runs are ordinary ones: the UI shows them with their events, metadata and checks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster import DagsterEventType

from greenops_pipelines.carbon.sources import provider
from greenops_pipelines.errors import BadInput
from greenops_pipelines.resources import Platform
from greenops_pipelines.settings import Settings

IMAGE_PARTITIONS = "images"
"""Name of the dynamic partitions that digests of images are."""

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
    first: date
    last: date

    @property
    def assets(self) -> int:
        return len(self.daily) + len(self.by_image) + len(self.others)


def prepare_home(settings: Settings) -> None:
    """Dagster's home with its configuration; an operator's own `dagster.yaml` is left alone."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        text = (resources.files("greenops_pipelines") / "dagster.yaml").read_text(encoding="utf-8")
        config.write_text(text, encoding="utf-8")
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
            chosen = dg.AssetSelection.from_string(select).resolve(graph) & chosen
        except (dg.DagsterInvalidDefinitionError, dg.DagsterInvalidSubsetError, ValueError) as error:
            raise BadInput(f"--select {select!r}: {str(error).splitlines()[0]}") from None
        if not chosen:
            raise BadInput(f"--select {select!r}: no asset matches; `greenops run --list` shows them")
    partitioned = {key: found for key in chosen if (found := graph.get(key).partitions_def) is not None}
    by_image = sorted(key for key, found in partitioned.items() if isinstance(found, dg.DynamicPartitionsDefinition))
    first, last = days(settings, now)
    return Plan(sorted(partitioned.keys() - set(by_image)), by_image, sorted(chosen - partitioned.keys()), first, last)


def run(defs: dg.Definitions, planned: Plan, progress: Progress) -> Outcome:
    """Execute the plan: the daily assets over their range in one run, those by image in another, then everything else."""
    failures: list[str] = []
    errors: list[str] = []
    warnings: list[str] = []
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        runs: list[tuple[Sequence[dg.AssetKey], Callable[[], dict[str, str] | None]]] = [
            (planned.daily, lambda: _range(planned.first.isoformat(), planned.last.isoformat())),
            (planned.by_image, lambda: _images(instance, IMAGE_PARTITIONS, progress)),
            (planned.others, dict),
        ]
        for keys, tagged in runs:
            if not keys or failures or (tags := tagged()) is None:
                continue
            result = _execute(job, instance, keys, tags, progress)
            for event in result.all_events:
                if event.event_type == DagsterEventType.STEP_FAILURE:
                    failures.append(f"{event.step_key}: {_first_line(event.step_failure_data.error)}")
            for check in result.get_asset_check_evaluations():
                if not check.passed:
                    line = f"{check.asset_key.to_user_string()}:{check.check_name}: {check.description}"
                    (errors if check.severity == dg.AssetCheckSeverity.ERROR else warnings).append(line)
    return Outcome(failures, errors, warnings, planned.assets)


def _range(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def _images(instance: dg.DagsterInstance, name: str, progress: Progress) -> dict[str, str] | None:
    """The range of all digests that were ever noticed, new ones now added; None where there is none.

    What was taken up before is found so within a moment.
    """
    progress("images ...")
    look = Platform().look_for_images()
    instance.add_dynamic_partitions(name, look.digests)
    known = instance.get_dynamic_partitions(name)
    return _range(known[0], known[-1]) if known else None


def _execute(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    tags: dict[str, str],
    progress: Progress,
) -> dg.ExecuteInProcessResult:
    run_id = str(uuid4())
    seen: set[str] = set()

    def listen(entry: Any) -> None:
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

    instance.add_event_listener(run_id, listen)
    return job.execute_in_process(
        instance=instance,
        asset_selection=list(keys),
        run_id=run_id,
        tags=tags,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def _first_line(error: Any) -> str:
    """The innermost cause is what an operator can act on."""
    while error.cause is not None:
        error = error.cause
    return str(error.message).strip().splitlines()[0]
