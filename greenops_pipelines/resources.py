"""Dagster resources: thin, they build the domain library's objects at run time, never at import.

Also here: how the library's results are shown in Dagster (metadata of a write, a measurement as a check result).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from greenops_pipelines import wiring
from greenops_pipelines.errors import PermanentError
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.settings import Settings, load_settings

if TYPE_CHECKING:
    import pyarrow as pa

    from greenops_pipelines.carbon.provider import Provider
    from greenops_pipelines.carbon.regions import Region, Tenant
    from greenops_pipelines.cost.allocation import CostOps
    from greenops_pipelines.cost.sources import Found as Bills
    from greenops_pipelines.evidence.opening import Evidence
    from greenops_pipelines.lake import Lake, Table, Written
    from greenops_pipelines.lake.dbt import Project
    from greenops_pipelines.observability.subjects import Subjects
    from greenops_pipelines.placement.due import Found
    from greenops_pipelines.placement.launching import Report
    from greenops_pipelines.placement.ledger import Ledger
    from greenops_pipelines.placement.workloads import Workloads
    from greenops_pipelines.recovery.calendar import Due
    from greenops_pipelines.recovery.copies import Copy
    from greenops_pipelines.recovery.declared import GameDays, Residency
    from greenops_pipelines.recovery.gameday import GameDay
    from greenops_pipelines.slo.budget_sources import Range, Read
    from greenops_pipelines.slo.canary import Canaries
    from greenops_pipelines.slo.drill_plans import DueWeek
    from greenops_pipelines.slo.drills import Held
    from greenops_pipelines.slo.incident_filing import Outstanding
    from greenops_pipelines.slo.incidents import Changes, Incidents
    from greenops_pipelines.slo.ledger import Counted
    from greenops_pipelines.slo.metrics_ingest import DayIngested
    from greenops_pipelines.slo.rendering import Slos
    from greenops_pipelines.store.objects import ObjectStore
    from greenops_pipelines.supply_chain.declared import Images
    from greenops_pipelines.supply_chain.subjects import Look

_log = logging.getLogger(__name__)

BESIDE = {"greenops/runs": "beside"}
"""Tag of assets that wait for most of their time: `greenops run` makes them in a run of their own, beside the graph."""


class Platform(dg.ConfigurableResource[Any]):
    """The configured platform: settings, lake, declarations and sources. Built when asked, per use."""

    def settings(self) -> Settings:
        """The environment, read now."""
        return load_settings()

    def lake(self) -> Lake:
        """The lake of the configured home."""
        return wiring.lake(self.settings())

    def evidence(self) -> Evidence:
        """The signed evidence of the configured home."""
        return wiring.evidence(self.settings())

    def dbt(self) -> Project:
        """The SQL models."""
        return wiring.dbt_project(self.settings())

    def regions(self) -> tuple[Region, ...]:
        """Cloud regions as declared."""
        from greenops_pipelines.carbon.regions import read_regions

        return read_regions(self.settings().ops_dir)

    def tenants(self) -> tuple[Tenant, ...]:
        """Tenants as declared."""
        from greenops_pipelines.carbon.regions import read_tenants

        return read_tenants(self.settings().ops_dir, self.regions())

    def workloads(self) -> Workloads:
        """Work that may wait or move, as declared, and how it is placed."""
        from greenops_pipelines.placement.workloads import read_workloads

        return read_workloads(self.settings().ops_dir)

    def ledger(self) -> Ledger:
        """What was decided and done about work that may wait."""
        from greenops_pipelines.placement.ledger import Ledger

        return Ledger(self.settings().dispatches)

    def due(self, but: Collection[str], limit: int) -> Found:
        """Placed work to be launched now, none of it in `but`."""
        from greenops_pipelines.placement.due import find

        return find(self.lake(), self.ledger(), self.now(), but, limit)

    def launch(self, key: str, run_id: str) -> Report:
        """One attempt at placed work, recorded as the run's."""
        from greenops_pipelines.placement.launching import launch

        with permanent_faults():
            return launch(self.settings(), self.lake(), self.workloads(), key, run_id, self.now)

    def new_work(self) -> str:
        """A digest of what was submitted and is not planned; empty where there is nothing."""
        from greenops_pipelines.placement.queue import new_work

        return new_work(self.settings())

    def zones(self) -> list[str]:
        """Grid zones of the declared regions, each once."""
        return sorted({region.zone for region in self.regions()})

    def carbon(self) -> Provider:
        """The configured source of carbon intensity."""
        from greenops_pipelines.carbon.sources import provider

        return provider(self.settings())

    def cost(self) -> CostOps:
        """Whose a charge is, how shared costs are split, what may be spent: ops/cost.yaml, held against the tenants."""
        from greenops_pipelines.cost.allocation import read_cost

        return read_cost(self.settings().ops_dir, [tenant.tenant for tenant in self.tenants()])

    def bills(self) -> Bills:
        """The files of charges of the configured source, as of now."""
        from greenops_pipelines.cost.sources import find

        tenants = [(tenant.tenant, tenant.home_region) for tenant in self.tenants()]
        return find(self.settings(), tenants, self.now())

    def gamedays(self) -> GameDays:
        """What is drilled, when and against which objectives."""
        return wiring.gamedays(self.settings())

    def residency(self) -> Residency:
        """Regions with their areas, tenants with what they are bound to."""
        return wiring.residency(self.settings())

    def due_gameday(self, now: datetime) -> Due:
        """The month whose GameDay is to be held now, if any."""
        from greenops_pipelines.recovery.calendar import due_now
        from greenops_pipelines.recovery.checks import held_months

        declared = self.gamedays()
        return due_now(declared, held_months(self.lake(), declared), now)

    def hold_gameday(self, month: str, progress: Callable[[str], None]) -> GameDay | None:
        """That month's; without one, every direction once, or nothing where that was done in the last 35 days."""
        from greenops_pipelines.recovery.gameday import wanted_in

        wanted = wanted_in(month, self.gamedays(), self.lake(), self.now())
        return None if wanted is None else wiring.hold_gameday(self.settings(), wanted, progress)

    def copy_home(self) -> Copy:
        """The second copy of this home, taken now and written down in the lake."""
        return wiring.copy_home(self.settings())

    def images(self) -> Images:
        """Images whose supply chain is looked after, and what is asked of them."""
        return wiring.images(self.settings())

    def documents(self) -> ObjectStore:
        """Where SBOMs and scan reports are published."""
        return wiring.documents(self.settings())

    def look_for_images(self) -> Look:
        """Which digests tags point to now, written down in the lake."""
        return wiring.look_for_images(self.settings(), self.now())

    def wanting_images(self) -> list[str]:
        """Digests in use of which something is missing, failed or about to be too old."""
        return wiring.intake(self.settings()).wanting(self.now())

    def take_sbom(self, digest: str, is_last: bool) -> dict[str, str]:
        """SBOMs of an image, made and published where they are not there; what came of it."""
        return wiring.intake(self.settings()).sbom(digest, self.now(), is_last=is_last)

    def take_scans(self, digest: str, is_last: bool) -> dict[str, str]:
        """Scans of an image, by what scanners and reports there are; what came of it."""
        return wiring.intake(self.settings()).scan(digest, self.now(), is_last=is_last)

    def take_attestations(self, digest: str, is_last: bool) -> dict[str, str]:
        """What may be said of an image, attached; and everything attached, read back; what came of it."""
        return wiring.intake(self.settings()).attest(digest, self.now(), is_last=is_last)

    def take_advisories(self) -> tuple[Written, dict[str, Any]]:
        """The configured snapshot of advisories, as a table."""
        return wiring.take_advisories(self.settings())

    def judge_images(self) -> tuple[Written, Written, dict[str, Any]]:
        """Vulnerabilities and verdicts of every image in use."""
        return wiring.intake(self.settings()).judge(self.now())

    def try_admission(self, progress: Callable[[str], None]) -> tuple[Written, dict[str, Any]]:
        """The admission policies rendered, and tried out."""
        return wiring.try_admission(self.settings(), self.now(), progress)

    def slos(self) -> Slos:
        """The declared SLOs, with profiles and the metrics catalogue, checked."""
        from greenops_pipelines.slo import rendering

        return rendering.read(self.settings().ops_dir)

    def read_metrics(self, days: Sequence[date], *, again: bool, progress: Callable[[DayIngested], None]) -> Read:
        """Samples of the SLOs' metrics, of these days, from the configured source into the lake."""
        from greenops_pipelines.slo import budget_sources

        source = budget_sources.open_source(self.settings())
        return budget_sources.read_days(
            source, self.lake(), self.slos().slos, days, self.now(), again=again, progress=progress
        )

    def count_budgets(self, days: Sequence[date], run_id: str) -> Counted:
        """Good and bad events of every minute of these days, as far as they were read."""
        from greenops_pipelines.slo import budget_sources

        settings = self.settings()
        source = budget_sources.source_of(settings)
        return budget_sources.count_days(self.lake(), source, self.slos().slos, days, self.now(), run_id)

    def due_budget_days(self, now: datetime) -> tuple[Range, ...]:
        """Ranges of days whose samples are to be read and counted now; today is in the first."""
        from greenops_pipelines.slo import budget_sources

        source = budget_sources.source_of(self.settings())
        return budget_sources.due(self.lake(), source, self.slos().slos, now)

    def watch_budgets(self) -> Changes:
        """Incidents opened, told and closed, as far as is counted."""
        return wiring.watch_budgets(self.settings(), self.now())

    def incidents(self) -> Incidents:
        """Incidents of burning budgets."""
        return wiring.incidents(self.settings())

    def outstanding_incidents(self) -> Outstanding:
        """What is not written down yet of the incidents."""
        return wiring.outstanding_incidents(self.settings())

    def file_incidents(self) -> list[str]:
        """Bundles with what was prepared for rollbacks, of pages that had none."""
        return wiring.file_incidents(self.settings())

    def observed(self) -> Subjects:
        """What dashboards and runbooks are about."""
        return wiring.observed(self.settings())

    def canaries(self) -> Canaries:
        """How canaries are rolled out and judged, held against the SLOs and the metrics catalogue."""
        return wiring.canaries(self.settings())

    def hold_canary_drills(
        self, scenarios: str, service: str, batch: str, progress: Callable[[str], None]
    ) -> Held | None:
        """These drills in real time; without any, one that fails wholly, or nothing where that was done in the last day."""
        return wiring.hold_due_canary_drills(self.settings(), scenarios, service, batch, self.now(), progress)

    def due_canary_week(self, now: datetime) -> DueWeek:
        """The week whose canary drills are to be held now, if any, and which are left."""
        from greenops_pipelines.slo import canary_checks, drill_plans

        held = canary_checks.held_in(self.lake(), drill_plans.week_of(now))
        return drill_plans.due_week(self.canaries().services, held, now)

    def now(self) -> datetime:
        """The time, UTC."""
        return datetime.now(UTC)


@contextmanager
def permanent_faults() -> Iterator[None]:
    """What a retry cannot mend is not retried: a `PermanentError` fails the step for good, with its own message."""
    try:
        yield
    except PermanentError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def written(result: Written, figures: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Metadata of a write: rows, schema with comments, address, size, and the figures a person wants to see."""
    table = result.table
    return {
        **(figures or {}),
        "files written": len(result.paths),
        "bytes written": result.bytes,
        "dagster/row_count": result.rows,
        "dagster/column_schema": column_schema(table),
        "dagster/uri": table.path,
        "dagster/table_name": table.name,
    }


def column_schema(table: Table) -> dg.TableSchema:
    """The declaration as Dagster shows it."""
    from greenops_pipelines.lake.types import to_duckdb

    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=c.name,
                type=to_duckdb(c.type).lower(),
                description=c.comment,
                constraints=dg.TableColumnConstraints(nullable=c.nullable, unique=table.row_key == (c.name,)),
            )
            for c in table.columns
        ]
    )


def table_metadata(rows: pa.Table, limit: int = 24) -> dg.MarkdownMetadataValue:
    """The first rows as a Markdown table."""
    names = rows.column_names
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += [
        "| " + " | ".join("" if v is None else str(v).replace("|", "\\|") for v in row.values()) + " |"
        for row in rows.slice(0, limit).to_pylist()
    ]
    return dg.MetadataValue.md("\n".join(lines))


def checked(
    context: Any,
    platform: Platform,
    measurement: Measurement,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
) -> dg.AssetCheckResult:
    """Write a measurement to the lake and show it as the result of an asset check."""
    return checked_all(context, platform, [measurement], severity)[0]


def proven(
    context: Any,
    platform: Platform,
    measurement: Measurement,
    control: str,
    reads: Sequence[str],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
) -> dg.AssetCheckResult:
    """As `checked`, and filed as signed evidence for `control`, with the lake's files of the tables in `reads`."""
    from greenops_pipelines.evidence.measured import prove
    from greenops_pipelines.lake.results import record

    lake, now = platform.lake(), platform.now()
    proof = prove(platform.evidence().archive, lake, control, measurement, reads, now)
    record(lake, [proof.measurement], context.run.run_id, now, proof.bundle)
    return _result(proof.measurement, severity, {"evidence": proof.bundle or proof.state})


def checked_all(
    context: Any, platform: Platform, measurements: Sequence[Measurement], severity: dg.AssetCheckSeverity
) -> list[dg.AssetCheckResult]:
    """The same for several that were made at once: one file in the lake."""
    from greenops_pipelines.lake.results import record

    record(platform.lake(), measurements, context.run.run_id, platform.now())
    return [_result(m, severity) for m in measurements]


def _result(
    measurement: Measurement, severity: dg.AssetCheckSeverity, more: Mapping[str, str] | None = None
) -> dg.AssetCheckResult:
    """Target and figure first. What cannot be measured does not pass: it warns, and says what is missing."""
    key, name = measurement.check.split(":")
    unmeasured = measurement.measured is None
    target = f"{measurement.comparison} {measurement.target:g} {measurement.unit}"
    shown = "nothing" if measurement.measured is None else f"{measurement.measured:.6g} {measurement.unit}"
    prefix = (
        f"Cannot be measured here: {measurement.missing}. " if unmeasured else f"Measured {shown}, target {target}. "
    )
    return dg.AssetCheckResult(
        asset_key=key.split("/"),
        check_name=name,
        passed=measurement.outcome == "passed",
        severity=dg.AssetCheckSeverity.WARN if unmeasured else severity,
        description=prefix + measurement.detail,
        metadata={
            "measured": shown,
            "target": target,
            # The bare number as well, so that the UI plots its history.
            **({} if measurement.measured is None else {"figure": measurement.measured}),
            **dict(measurement.figures),
            **(more or {}),
        },
    )
