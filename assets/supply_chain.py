"""The supply chain: images that are looked after, what they hold, what is wrong with it, who vouches for it, what is admitted."""

from collections.abc import Callable, Iterator

import dagster as dg

from assets.conditions import FOLLOW_INPUTS, ONCE
from assets.partitions import IMAGES as DIGESTS
from assets.schemas import schema_check
from greenops_pipelines.lake import Table
from greenops_pipelines.lake.supply_tables import (
    ADMISSION_CASES,
    ADVISORIES,
    IMAGE_ATTESTATIONS,
    IMAGE_SCANS,
    IMAGE_STANDING,
    IMAGE_VERDICTS,
    IMAGES,
    SBOM_COMPONENTS,
    SBOMS,
    VULNERABILITIES,
)
from greenops_pipelines.resources import Platform, checked, permanent_faults, proven, table_metadata, written

_OWNERS = ["team:security"]
_RETRY = dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


@dg.asset(
    key=["supply_chain", "images"],
    group_name="supply_chain",
    owners=_OWNERS,
    kinds={"docker", "parquet"},
    code_version="1",
    deps=[["ops", "images"]],
    automation_condition=ONCE,
    retry_policy=_RETRY,
    check_specs=[
        dg.AssetCheckSpec(
            "reached", asset=["supply_chain", "images"], description="Every source in ops/images.yaml could be asked."
        )
    ],
    description=IMAGES.comment + " What is declared as built here is built first.",
)
def images(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Ask every registry and layout which digests their tags point to."""
    from greenops_pipelines.supply_chain.checks import looked

    with permanent_faults():
        look = platform.look_for_images()
    figures = {
        "tags": len(look.noticed),
        "images": len(look.digests),
        "new": ", ".join(look.new) or "none",
        "not reached": len(look.faults),
    }
    yield dg.MaterializeResult(
        metadata=written(look.written, figures), data_version=dg.DataVersion(look.written.version)
    )
    yield checked(context, platform, looked(look.faults, len(look.noticed)), dg.AssetCheckSeverity.ERROR)


def _by_digest(deps: list[list[str]], *tables: tuple[str, set[str], str]) -> list[dg.AssetSpec]:
    """Tables that one step fills for an image: name, kinds, description."""
    return [
        dg.AssetSpec(
            key=["supply_chain", name],
            group_name="supply_chain",
            owners=_OWNERS,
            kinds=kinds,
            code_version="1",
            deps=deps,
            partitions_def=DIGESTS,
            description=description,
        )
        for name, kinds, description in tables
    ]


@dg.multi_asset(
    name="supply_chain_sbom",
    retry_policy=_RETRY,
    specs=_by_digest(
        [["supply_chain", "images"]],
        ("sbom", {"parquet", "json"}, SBOMS.comment + " Syft reads the image, once its layers were found sound."),
        ("components", {"parquet"}, SBOM_COMPONENTS.comment),
    ),
    partitions_def=DIGESTS,
)
def sbom(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[dg.MaterializeResult[None]]:
    """Make and publish what is not there yet; an image that cannot be read is written down with its fault."""
    figures = _taken(context, platform.take_sbom)
    yield from _stored(context, platform, figures, ("sbom", SBOMS), ("components", SBOM_COMPONENTS))


@dg.asset(
    key=["supply_chain", "scans"],
    group_name="supply_chain",
    owners=_OWNERS,
    kinds={"parquet", "json"},
    code_version="1",
    deps=[["supply_chain", "sbom"]],
    retry_policy=_RETRY,
    partitions_def=DIGESTS,
    description=IMAGE_SCANS.comment,
)
def scans(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[dg.MaterializeResult[None]]:
    """Run the scanners that are here over the SBOMs, and take the reports that were handed in."""
    yield from _stored(context, platform, _taken(context, platform.take_scans), ("scans", IMAGE_SCANS))


@dg.multi_asset(
    name="supply_chain_attestations",
    retry_policy=_RETRY,
    specs=_by_digest(
        [["supply_chain", "sbom"], ["supply_chain", "scans"]],
        ("attestations", {"docker", "parquet"}, IMAGE_ATTESTATIONS.comment),
        ("standing", {"parquet"}, IMAGE_STANDING.comment),
    ),
    partitions_def=DIGESTS,
)
def attestations(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[dg.MaterializeResult[None]]:
    """Attach what this project may say of an image, then read back everything that is attached."""
    figures = _taken(context, platform.take_attestations)
    yield from _stored(context, platform, figures, ("attestations", IMAGE_ATTESTATIONS), ("standing", IMAGE_STANDING))


@dg.asset(
    key=["supply_chain", "advisories"],
    group_name="supply_chain",
    owners=_OWNERS,
    kinds={"parquet", "json"},
    code_version="1",
    deps=[["ops", "images"]],
    automation_condition=ONCE,
    retry_policy=_RETRY,
    description=ADVISORIES.comment,
)
def advisories(platform: Platform) -> dg.MaterializeResult[None]:
    """Read the configured snapshot; no rows where none is configured."""
    with permanent_faults():
        result, figures = platform.take_advisories()
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.multi_asset(
    name="supply_chain_vulnerabilities",
    specs=[
        dg.AssetSpec(
            key=["supply_chain", name],
            group_name="supply_chain",
            owners=_OWNERS,
            kinds={"parquet"},
            code_version="1",
            deps=[
                ["supply_chain", "images"],
                ["supply_chain", "components"],
                ["supply_chain", "scans"],
                ["supply_chain", "advisories"],
                ["ops", "images"],
            ],
            automation_condition=FOLLOW_INPUTS,
            description=description,
        )
        for name, description in (("vulnerabilities", VULNERABILITIES.comment), ("verdicts", IMAGE_VERDICTS.comment))
    ],
)
def vulnerabilities(platform: Platform) -> Iterator[dg.MaterializeResult[None]]:
    """Judge every image in use anew: a new advisory counts for an old SBOM, and an exception that has ended for nothing."""
    with permanent_faults():
        found, verdicts, figures = platform.judge_images()
    for name, result in (("vulnerabilities", found), ("verdicts", verdicts)):
        yield dg.MaterializeResult(
            asset_key=["supply_chain", name],
            metadata=written(result, figures),
            data_version=dg.DataVersion(result.version),
        )


@dg.asset(
    key=["supply_chain", "admission"],
    group_name="supply_chain",
    owners=_OWNERS,
    kinds={"kubernetes", "yaml"},
    code_version="1",
    deps=[["ops", "images"]],
    automation_condition=FOLLOW_INPUTS,
    description="Kyverno policies that block what is not signed or attested, rendered to gitops/; and "
    + ADMISSION_CASES.comment[0].lower()
    + ADMISSION_CASES.comment[1:],
)
def admission(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[None]:
    """Render, then try the rendered text out on images that are made for it."""
    with permanent_faults():
        result, figures = platform.try_admission(context.log.info)
    cases = platform.lake().query('select "case", expected, found, message from admission_cases order by position')
    return dg.MaterializeResult(
        metadata=written(result, {**figures, "cases": table_metadata(cases, 40)}),
        data_version=dg.DataVersion(result.version),
    )


@dg.asset_check(
    asset=["supply_chain", "sbom"], description="Every image in use has its SBOMs published, in both formats."
)
def published(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J5.2."""
    from greenops_pipelines.supply_chain import checks

    measurement = checks.published(platform.lake(), platform.documents(), platform.now())
    return proven(context, platform, measurement, "J5.2", ["images", "sboms"], dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["supply_chain", "sbom"],
    description="Every SBOM of an image in use holds the NTIA's minimum elements, for every component.",
)
def ntia(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """As SPDX's own conformance checker says."""
    from greenops_pipelines.supply_chain import checks

    return checked(context, platform, checks.ntia(platform.lake()), dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["supply_chain", "attestations"],
    description="Every image in use has signature, SBOM and provenance attached, read back and verified.",
)
def verified(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J5.3."""
    from greenops_pipelines.supply_chain import checks

    measurement = checks.verified(platform.lake(), platform.now())
    return proven(context, platform, measurement, "J5.3", _ATTESTED, dg.AssetCheckSeverity.ERROR)


@dg.asset_check(
    asset=["supply_chain", "attestations"], description="The lowest SLSA build level among the images in use."
)
def slsa_level(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J5.3. A level is the builder's, and counts once its own provenance has been verified."""
    from greenops_pipelines.supply_chain import checks

    return proven(context, platform, checks.slsa_level(platform.lake(), platform.now()), "J5.3", _ATTESTED)


@dg.asset_check(
    asset=["supply_chain", "vulnerabilities"],
    description="No HIGH or CRITICAL vulnerability in an image in use, but those that a signed exception excuses.",
)
def gate(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J5.5. A scan that is missing, old or of something else is no pass."""
    from greenops_pipelines.supply_chain import checks

    reads = ["images", "image_scans", "image_verdicts", "vulnerabilities"]
    return proven(
        context, platform, checks.gate(platform.lake(), platform.now()), "J5.5", reads, dg.AssetCheckSeverity.ERROR
    )


@dg.asset_check(
    asset=["supply_chain", "admission"],
    description="The rendered policy admits what it must, and denies the rest for the reason it must.",
)
def matrix(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """J5.4."""
    from greenops_pipelines.supply_chain import checks

    measurement = checks.matrix(platform.lake())
    return proven(context, platform, measurement, "J5.4", ["admission_cases"], dg.AssetCheckSeverity.ERROR)


def _taken(context: dg.AssetExecutionContext, step: Callable[[str, bool], dict[str, str]]) -> dict[str, str]:
    """The step for the run's image. A fault that may pass by itself is tried again; after the last try it is written down."""
    with permanent_faults():
        return step(context.partition_key, context.retry_number >= _RETRY.max_retries)


def _stored(
    context: dg.AssetExecutionContext, platform: Platform, figures: dict[str, str], *tables: tuple[str, Table]
) -> Iterator[dg.MaterializeResult[None]]:
    lake = platform.lake()
    for name, table in tables:
        found = lake.stored(table, {"image_digest": context.partition_key})
        yield dg.MaterializeResult(
            asset_key=["supply_chain", name],
            metadata=written(found, figures),
            data_version=dg.DataVersion(found.version),
        )


_ATTESTED = ["images", "image_attestations", "image_standing"]

ASSETS = [images, sbom, scans, attestations, advisories, vulnerabilities, admission]
CHECKS = [
    *(
        schema_check(f"supply_chain/{name}", table)
        for name, table in (
            ("images", IMAGES),
            ("sbom", SBOMS),
            ("components", SBOM_COMPONENTS),
            ("scans", IMAGE_SCANS),
            ("attestations", IMAGE_ATTESTATIONS),
            ("standing", IMAGE_STANDING),
            ("advisories", ADVISORIES),
            ("vulnerabilities", VULNERABILITIES),
            ("verdicts", IMAGE_VERDICTS),
            ("admission", ADMISSION_CASES),
        )
    ),
    published,
    ntia,
    verified,
    slsa_level,
    gate,
    matrix,
]
