"""Settings -> the objects of the domain library. Used by `resources.py` and the command line alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greenops_pipelines.carbon.regions import read_regions, read_tenants
from greenops_pipelines.carbon.sources import selections
from greenops_pipelines.cost import sources as cost
from greenops_pipelines.errors import GreenopsError
from greenops_pipelines.lake import Lake, Written
from greenops_pipelines.lake.dbt import Project
from greenops_pipelines.lake.storage import LocalFolder, S3Bucket, Storage
from greenops_pipelines.lake.supply_tables import ADMISSION_CASES, ADVISORIES
from greenops_pipelines.lake.tables import DECLARED
from greenops_pipelines.settings import Settings
from greenops_pipelines.slo import budget_sources

if TYPE_CHECKING:
    from greenops_pipelines.evidence.opening import Evidence
    from greenops_pipelines.notify.outbox import Outbox
    from greenops_pipelines.notify.posting import Target
    from greenops_pipelines.observability.subjects import Subjects
    from greenops_pipelines.recovery.cluster import Cluster, Noted
    from greenops_pipelines.recovery.copies import Copy
    from greenops_pipelines.recovery.declared import GameDays, Residency
    from greenops_pipelines.recovery.gameday import GameDay, Wanted
    from greenops_pipelines.recovery.results import Result, Spec
    from greenops_pipelines.recovery.vault import Vault
    from greenops_pipelines.slo.canary import Canaries
    from greenops_pipelines.slo.drill_results import Spec as CanarySpec
    from greenops_pipelines.slo.drills import Held
    from greenops_pipelines.slo.incident_filing import Outstanding
    from greenops_pipelines.slo.incidents import Changes, Incidents
    from greenops_pipelines.store.objects import ObjectStore
    from greenops_pipelines.supply_chain.admission import Rules
    from greenops_pipelines.supply_chain.declared import Images
    from greenops_pipelines.supply_chain.intake import Intake
    from greenops_pipelines.supply_chain.judging import Knowledge
    from greenops_pipelines.supply_chain.subjects import Look

_log = logging.getLogger(__name__)


def storage(settings: Settings) -> Storage:
    """Where the lake lies: `GREENOPS_LAKE_URL`, else a folder in the home."""
    if settings.lake_url:
        return S3Bucket(settings.lake_url, settings.s3_endpoint, settings.s3_region)
    return LocalFolder(settings.home / "lake")


def dbt_project(settings: Settings) -> Project:
    """The SQL models, with scratch files in the home, and the manifest too where no cache is named."""
    return Project(settings.dbt_dir, settings.home / "dbt", settings.dbt_cache)


def lake(settings: Settings) -> Lake:
    """The lake of this home."""
    project = dbt_project(settings)
    return Lake(
        storage(settings),
        settings.warehouse,
        {**selections(settings), **cost.selections(settings), **budget_sources.selections(settings)},
        DECLARED,
        marts=lambda: [mart.table for mart in project.marts],
    )


def residency(settings: Settings) -> Residency:
    """Regions with their areas, and tenants with what they are bound to."""
    from greenops_pipelines.recovery.declared import Residency

    regions = read_regions(settings.ops_dir)
    tenants = read_tenants(settings.ops_dir, regions)
    return Residency(
        {region.region: region.residency for region in regions}, {tenant.tenant: tenant.residency for tenant in tenants}
    )


def gamedays(settings: Settings) -> GameDays:
    """What is drilled, held against the declared regions and tenants."""
    from greenops_pipelines.recovery.declared import read_gamedays

    return read_gamedays(settings.ops_dir, residency(settings))


def hold_gameday(settings: Settings, wanted: Wanted, progress: Callable[[str], None] = lambda _text: None) -> GameDay:
    """Holds a GameDay on this home."""
    from greenops_pipelines.recovery import drill, gameday, restoring

    declared = gamedays(settings)

    def restore(name: str, folder: Path, said: Callable[[str], None]) -> tuple[Path, Result]:
        return restoring.drill(declared, name, vault(settings), lambda home: lake_in(settings, home), folder, said)

    def cluster_of(spec: Spec, folder: Path, noted: Noted) -> AbstractContextManager[Cluster]:
        return drill.cluster_of(spec, folder, noted, settings.ops_dir.parent)

    return gameday.hold(
        wanted,
        declared,
        lambda: residency(settings),
        settings.recovery,
        evidence(settings).archive,
        lake(settings),
        restore,
        progress,
        cluster_of,
    )


def vault(settings: Settings) -> Vault:
    """Where the second copy lies: `GREENOPS_REPLICA_URL`, else a folder in the home, which is no second place."""
    from greenops_pipelines.recovery.vault import open_vault

    region = gamedays(settings).replica.region
    return open_vault(settings.replica_url or str(settings.home / "replica"), settings.s3_endpoint, region)


def copy_home(settings: Settings) -> Copy:
    """Takes the second copy of this home, writes it down, and lets go of old ones."""
    from greenops_pipelines.recovery import copies, replica, replica_upkeep
    from greenops_pipelines.recovery.replica_state import Source

    declared, where = gamedays(settings), residency(settings)
    place = vault(settings)
    source = Source(settings.home, declared.replica.home_region, storage(settings), evidence(settings).store)
    copied = replica.copy(source, place, declared.replica.region, where.areas, where.tenants)
    # What is there is written down before anything else can go wrong.
    copy = copies.record(lake(settings), copied, declared, is_elsewhere(settings))
    try:
        replica_upkeep.prune(place, settings.home, copied.taken_at)
    except GreenopsError as error:
        _log.error("second copy: old ones are not let go: %s", error)
        return replace(copy, figures={**copy.figures, "old copies not let go": str(error)})
    return copy


def is_elsewhere(settings: Settings) -> bool:
    """Whether the second copy lies outside the home."""
    if settings.replica_url.startswith("s3://"):
        return True
    return bool(settings.replica_url) and not Path(settings.replica_url).expanduser().resolve().is_relative_to(
        settings.home.resolve()
    )


def lake_in(settings: Settings, home: Path) -> Lake:
    """The lake of a restored home."""
    return lake(settings.model_copy(update={"home": home, "lake_url": ""}))


def canaries(settings: Settings) -> Canaries:
    """How canaries are rolled out and judged, held against the declared SLOs and the metrics catalogue."""
    from greenops_pipelines.slo import rendering
    from greenops_pipelines.slo.canary import read_canary

    found = rendering.read(settings.ops_dir)
    return read_canary(settings.ops_dir, found.declared, found.slos, found.catalogue)


def hold_canary_drills(
    settings: Settings, specs: Sequence[CanarySpec], progress: Callable[[str], None] = lambda _text: None
) -> Held:
    """Holds them on this home, one after another."""
    from greenops_pipelines.slo import drills

    archive = evidence(settings).archive
    return drills.hold(specs, canaries(settings), settings.canary, archive, lake(settings), progress)


def hold_due_canary_drills(
    settings: Settings,
    scenarios: str,
    service: str,
    batch: str,
    now: datetime,
    progress: Callable[[str], None],
) -> Held | None:
    """What a run of the graph drills: what is left of `scenarios`, or by default what `drill_plans.first` says.

    None where somebody else drills and nobody asked for this.
    """
    from greenops_pipelines.process.lock import LockHeld
    from greenops_pipelines.slo import canary_checks, drill_plans
    from greenops_pipelines.slo.drill_results import parse_scenarios

    declared = canaries(settings)
    if scenarios:
        # A run that is tried again goes on where it was.
        left = [each for each in parse_scenarios(scenarios) if each not in canary_checks.held_in(lake(settings), batch)]
        chosen = drill_plans.of_batch(declared, left, service or next(iter(declared.services)), batch)
        return hold_canary_drills(settings, chosen, progress)
    chosen = drill_plans.first(declared, canary_checks.newest_breach(lake(settings)), now)
    try:
        return hold_canary_drills(settings, chosen, progress)
    except LockHeld:
        # Somebody drills already: nothing is lacking.
        return None


def notifying(settings: Settings) -> tuple[Outbox, tuple[Target, ...]]:
    """The outbox of this home, and whom it sends to: nobody where none is configured."""
    from greenops_pipelines.notify.opening import targets
    from greenops_pipelines.notify.outbox import Outbox

    found = targets(
        settings.notify_slack_url,
        settings.notify_pagerduty_key,
        settings.notify_mail_url,
        pagerduty_url=settings.notify_pagerduty_url,
    )
    return Outbox(settings.notifications), found


def incidents(settings: Settings) -> Incidents:
    """Incidents of burning budgets."""
    from greenops_pipelines.slo.incidents import Incidents

    return Incidents(settings.notifications, *notifying(settings))


def watch_budgets(settings: Settings, now: datetime) -> Changes:
    """Decides on the minutes that were counted since the last look: incidents are opened, told and closed.

    Begins no send later than 8 s after it was called; what waits then, the next call sends.
    """
    from greenops_pipelines.slo import rendering
    from greenops_pipelines.slo.burning import alerts_of, burning
    from greenops_pipelines.slo.certificates import windows_of
    from greenops_pipelines.slo.incidents import Incidents

    begun = time.monotonic()
    found, source = rendering.read(settings.ops_dir), budget_sources.source_of(settings)
    outbox, targets = notifying(settings)
    kept = Incidents(settings.notifications, outbox, targets)
    burns = burning(
        lake(settings),
        found.slos,
        lambda slo: windows_of(found.chosen[slo.service]),
        source,
        now,
        kept.positions(source),
    )
    declared = {alert for slo in found.slos for alert in alerts_of(slo)}
    changes = kept.advance(burns, now, source=source, declared=declared)
    # On a machine that is slow to decide, something is sent all the same.
    outbox.deliver(targets, max(1.0, _SENDS_BEGIN_WITHIN_SECONDS - (time.monotonic() - begun)))
    return changes


_SENDS_BEGIN_WITHIN_SECONDS = 8.0
"""A sensor has 60 s, and the longest send, a mail to a slow server, takes some 50."""


def outstanding_incidents(settings: Settings) -> Outstanding:
    """What is not written down yet of the incidents: in the lake, and as evidence."""
    from greenops_pipelines.slo.incident_filing import outstanding

    return outstanding(incidents(settings), lake(settings))


def file_incidents(settings: Settings) -> list[str]:
    """Files what was prepared for the rollback of each page that has no evidence yet; the bundles."""
    from greenops_pipelines.slo.incident_filing import file_all

    return file_all(incidents(settings), lake(settings), evidence(settings).archive, canaries(settings).namespace)


def observed(settings: Settings) -> Subjects:
    """What dashboards and runbooks are about."""
    from greenops_pipelines import observed
    from greenops_pipelines.slo import rendering

    return observed.subjects(rendering.read(settings.ops_dir), canaries(settings))


def rendered(settings: Settings) -> dict[str, dict[str, str]]:
    """Everything that is rendered for GitOps, by the domain that owns it: path to text."""
    from greenops_pipelines.observability import dashboard, runbooks
    from greenops_pipelines.slo import rendering, rollouts
    from greenops_pipelines.supply_chain import admission

    signer = evidence(settings).keys.signer(settings.evidence_key)
    subjects = observed(settings)
    return {
        "canary": rollouts.files(canaries(settings)),
        "dashboards": dashboard.files(subjects),
        "runbooks": runbooks.files(subjects),
        "slo": rendering.files(rendering.read(settings.ops_dir)),
        "supply_chain": admission.render(admission_rules(settings), signer.public.pem.decode()),
    }


def evidence(settings: Settings) -> Evidence:
    """The evidence of this home: `.archive.file(...)`, `.verify(...)`."""
    # Imported late: cryptography and the time-stamp reader cost every process that loads the graph 0.2 s.
    from greenops_pipelines.evidence.opening import Evidence

    return Evidence(settings)


def images(settings: Settings) -> Images:
    """Images whose supply chain is looked after."""
    from greenops_pipelines.supply_chain.declared import read_images

    return read_images(settings.ops_dir)


def documents(settings: Settings) -> ObjectStore:
    """Where SBOMs and scan reports are published: `GREENOPS_SBOM_URL`, else beside the lake, else a folder in the home."""
    from greenops_pipelines.store.opening import open_store

    return open_store(documents_address(settings), "GREENOPS_SBOM_URL", settings.s3_endpoint, settings.s3_region)


def documents_address(settings: Settings) -> str:
    """The same as an address."""
    lake_url = settings.lake_url.rstrip("/")
    return settings.sbom_url or (f"{lake_url}/sbom" if lake_url else str(settings.home / "sbom"))


def look_for_images(settings: Settings, now: datetime) -> Look:
    """Which digests tags point to now, written down in the lake; what is built here is built first."""
    from greenops_pipelines.supply_chain import subjects

    return subjects.look(images(settings), settings.home, lake(settings), now)


def intake(settings: Settings, declared: Images | None = None) -> Intake:
    """The steps that an image goes through, as ops/images.yaml says or as handed in."""
    from greenops_pipelines.supply_chain.intake import Intake
    from greenops_pipelines.supply_chain.provenance import own

    keys = evidence(settings).keys
    address = documents_address(settings)
    return Intake(
        declared=declared or images(settings),
        home=settings.home,
        lake=lake(settings),
        store=documents(settings),
        # A path of this machine says nothing to whoever reads the table elsewhere.
        store_name=address if address.startswith("s3://") else "local folder",
        signer=lambda: keys.signer(settings.evidence_key),
        keys=keys.public,
        build=lambda: own(settings.ops_dir.parent),
        syft=settings.syft,
        reports=scan_reports(settings),
    )


def take_advisories(settings: Settings) -> tuple[Written, dict[str, Any]]:
    """The configured OSV snapshot as a table; no rows where none is configured."""
    from greenops_pipelines.supply_chain import advisories, judging

    place = Path(settings.advisories).expanduser() if settings.advisories else None
    snapshot = advisories.read(place) if place else None
    figures: dict[str, Any] = {"snapshot": "none is configured (GREENOPS_ADVISORIES)"}
    if snapshot is not None:
        figures = {
            "snapshot": snapshot.as_of.isoformat(),
            "documents": snapshot.documents,
            "withdrawn": snapshot.withdrawn,
            "of commits alone, not held against anything": snapshot.git_only,
        }
    return lake(settings).write(ADVISORIES, judging.take_advisories(snapshot)), figures


def knowledge(settings: Settings, declared: Images, now: datetime) -> Knowledge:
    """Advisories, exceptions and policy that an image is held against, as of now."""
    return intake(settings, declared).knowledge(now)


def scan_reports(settings: Settings) -> Path:
    """Where reports of scans made elsewhere are put."""
    return Path(settings.scan_reports).expanduser() if settings.scan_reports else settings.inbox / "scans"


def admission_rules(settings: Settings) -> Rules:
    """What the admission policies promise, our former keys included."""
    from greenops_pipelines.supply_chain import admission_trial

    former = [key.pem.decode() for key in evidence(settings).keys.public()[1:]]
    return admission_trial.rules(images(settings), former)


def try_admission(settings: Settings, now: datetime, progress: Callable[[str], None]) -> tuple[Written, dict[str, Any]]:
    """Renders the admission policies into gitops/, tries them out, and writes down what became of each case."""
    from greenops_pipelines import gitops
    from greenops_pipelines.supply_chain import admission, admission_trial

    signer = evidence(settings).keys.signer(settings.evidence_key)
    asked = admission_rules(settings)
    files = gitops.write(settings.gitops, admission.render(asked, signer.public.pem.decode()), owner="supply_chain")
    trial = admission_trial.try_out(asked, signer, settings.scratch, now, progress)
    rows = admission_trial.cases_table(trial)
    figures = {
        "cases tried": len(trial.tried),
        "decided as they must be": sum(each.is_right for each in trial.tried),
        "over": trial.over,
        "files changed": len(files.changed),
        "mode": asked.mode,
    }
    return lake(settings).write(ADMISSION_CASES, rows), figures
