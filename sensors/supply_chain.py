"""The supply chain: new images are noticed within minutes; every night what is missing is made, and what may have changed asked anew."""

from datetime import UTC

import dagster as dg

from assets.partitions import IMAGES
from greenops_pipelines.resources import Platform
from sensors.lanes import GRAPH

_RUNS_PER_TICK = 20
"""The rest is taken up at the next tick."""

INTAKE = dg.define_asset_job(
    "image_intake",
    selection=dg.AssetSelection.assets(
        ["supply_chain", "sbom"],
        ["supply_chain", "components"],
        ["supply_chain", "scans"],
        ["supply_chain", "attestations"],
        ["supply_chain", "standing"],
    ),
    tags=GRAPH,
    description="One image: its SBOMs made and published, scanned, attested, read back.",
)

LOOK = dg.define_asset_job(
    "images_moved",
    selection=dg.AssetSelection.assets(["supply_chain", "images"]),
    tags=GRAPH,
    description="Tags point elsewhere: what is judged of images in use follows.",
)

DAILY = dg.define_asset_job(
    "supply_chain_checks",
    selection=dg.AssetSelection.assets(
        ["supply_chain", "images"],
        ["supply_chain", "advisories"],
        ["supply_chain", "vulnerabilities"],
        ["supply_chain", "verdicts"],
        ["supply_chain", "admission"],
    )
    | dg.AssetSelection.checks_for_assets(["supply_chain", "sbom"], ["supply_chain", "attestations"]),
    tags=GRAPH,
    description="Advisories read anew and held against every SBOM, exceptions that have ended, the admission policy tried out.",
)


@dg.sensor(
    name="new_images",
    jobs=[INTAKE, LOOK],
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=300,
    description="Asks registries and layouts for digests that have no partition yet: each becomes one, and a run.",
)
def new_images(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """No cursor: the partitions are what is known. A run that fails is made up for at night."""
    look = platform.look_for_images()
    for fault in look.faults:
        context.log.warning(fault)
    known = set(context.instance.get_dynamic_partitions(str(IMAGES.name)))
    new = [digest for digest in look.digests if digest not in known][:_RUNS_PER_TICK]
    if not new and look.is_changed:
        # An image that was known is in use again, or one is so no more: no run of its own will say so.
        return dg.SensorResult(run_requests=[dg.RunRequest(job_name=LOOK.name)])
    if not new:
        return dg.SkipReason(f"{len(look.digests)} images, none of them new; {len(look.faults)} sources not reached")
    return dg.SensorResult(
        dynamic_partitions_requests=[IMAGES.build_add_request(new)],
        run_requests=[
            dg.RunRequest(
                job_name=INTAKE.name,
                run_key=f"image:{digest}",
                partition_key=digest,
                tags={"greenops/image": digest[:19]},
            )
            for digest in new
        ],
    )


@dg.schedule(
    name="images_nightly",
    job=INTAKE,
    cron_schedule="41 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night: images in use whose SBOM, scan or attestations are missing, failed or about to be too old.",
)
def images_nightly(
    context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Platform]
) -> list[dg.RunRequest] | dg.SkipReason:
    """One run per image, and per night."""
    wanting = platform.wanting_images()
    if not wanting:
        return dg.SkipReason("every image in use has its SBOM, its scan and its attestations")
    context.instance.add_dynamic_partitions(str(IMAGES.name), wanting)
    day = context.scheduled_execution_time.astimezone(UTC)
    return [
        dg.RunRequest(run_key=f"images_nightly:{day:%Y-%m-%d}:{digest}", partition_key=digest) for digest in wanting
    ]


@dg.schedule(
    name="supply_chain_daily",
    job=DAILY,
    cron_schedule="43 1 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night, before images are taken up again: what a new advisory or an exception that has ended makes of old SBOMs.",
)
def supply_chain_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """No image is scanned for it."""
    return dg.RunRequest(run_key=f"supply_chain:{context.scheduled_execution_time.astimezone(UTC):%Y-%m-%d}")


JOBS = [INTAKE, LOOK, DAILY]
SCHEDULES = [images_nightly, supply_chain_daily]
SENSORS = [new_images]
