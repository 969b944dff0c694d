"""What operators declare in ops/, as tables. Not here: what is made of it."""

import hashlib
from collections.abc import Iterator

import dagster as dg

from assets.schemas import schema_check
from greenops_pipelines.lake.cost_tables import COST_BUDGETS, COST_SHARES, COST_UNITS
from greenops_pipelines.lake.recovery_tables import GAMEDAYS
from greenops_pipelines.lake.supply_tables import DECLARED_IMAGES
from greenops_pipelines.lake.tables import REGIONS, TENANTS, WORKLOADS
from greenops_pipelines.resources import Platform, permanent_faults, written


@dg.asset(
    key=["ops", "regions"],
    group_name="ops",
    owners=["team:platform"],
    kinds={"yaml", "parquet"},
    code_version="1",
    description=REGIONS.comment,
)
def regions(platform: Platform) -> dg.MaterializeResult[None]:
    """Cloud regions with grid zone, PUE and residency area."""
    from greenops_pipelines.carbon.regions import regions_table

    declared = platform.regions()
    result = platform.lake().write(REGIONS, regions_table(declared))
    areas = sorted({region.residency for region in declared})
    figures = {
        "regions": len(declared),
        "primary": ", ".join(region.region for region in declared if region.primary),
        "residency areas": ", ".join(areas),
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset(
    key=["ops", "tenants"],
    group_name="ops",
    owners=["team:platform"],
    kinds={"yaml", "parquet"},
    code_version="1",
    deps=[["ops", "regions"]],
    description=TENANTS.comment,
)
def tenants(platform: Platform) -> dg.MaterializeResult[None]:
    """Tenants and the area their work and data must stay in."""
    from greenops_pipelines.carbon.regions import tenants_table

    declared = platform.tenants()
    result = platform.lake().write(TENANTS, tenants_table(declared))
    bound = [tenant for tenant in declared if tenant.residency != "any"]
    figures = {"tenants": len(declared), "bound to an area": len(bound), "free": len(declared) - len(bound)}
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset(
    key=["ops", "workloads"],
    group_name="ops",
    owners=["team:platform"],
    kinds={"yaml", "parquet"},
    code_version="1",
    deps=[["ops", "regions"], ["ops", "tenants"]],
    description=WORKLOADS.comment,
)
def workloads(platform: Platform) -> dg.MaterializeResult[None]:
    """Workloads with power, home and the regions that residency and latency leave them."""
    from greenops_pipelines.placement.workloads import workloads_table

    with permanent_faults():
        declared = platform.workloads()
    rows = workloads_table(declared)
    result = platform.lake().write(WORKLOADS, rows)
    limits = declared.settings.capacity_kw
    figures = {
        "workloads": rows.num_rows,
        "interruptible": sum(rows["interruptible"].to_pylist()),
        "policy": declared.settings.policy,
        "room for placed work": ", ".join(f"{name} {kw:g} kW" for name, kw in limits.items()) or "no limits",
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset(
    key=["ops", "gamedays"],
    group_name="ops",
    owners=["team:sre"],
    kinds={"yaml", "parquet"},
    code_version="1",
    deps=[["ops", "regions"], ["ops", "tenants"]],
    description=GAMEDAYS.comment,
)
def gamedays(platform: Platform) -> dg.MaterializeResult[None]:
    """Databases with their two regions, held against the areas of their tenants."""
    from greenops_pipelines.recovery.calendar import coming
    from greenops_pipelines.recovery.declared import gamedays_table

    with permanent_faults():
        declared, residency = platform.gamedays(), platform.residency()
    result = platform.lake().write(GAMEDAYS, gamedays_table(declared, residency))
    [(day, scenarios)] = coming(declared, platform.now(), 1)
    figures = {
        "databases": len(declared.databases),
        "next GameDay": f"{day:%Y-%m-%d}: {', '.join(scenarios)}",
        "objectives": f"RTO {declared.objectives.rto_minutes:g} min, RPO {declared.objectives.rpo_seconds:g} s",
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.asset(
    key=["ops", "images"],
    group_name="ops",
    owners=["team:security"],
    kinds={"yaml", "parquet"},
    code_version="1",
    description=DECLARED_IMAGES.comment,
)
def images(platform: Platform) -> dg.MaterializeResult[None]:
    """Images with their sources; what is not shipped; whose provenance counts."""
    from greenops_pipelines.supply_chain.declared import images_table

    with permanent_faults():
        declared = platform.images()
    result = platform.lake().write(DECLARED_IMAGES, images_table(declared))
    figures = {
        "images": len(declared.images),
        "not shipped": f"{' and '.join(declared.gate.severities)} vulnerabilities without an exception",
        "builders": ", ".join(builder.id for builder in declared.builders) or "none",
        "admission": f"{declared.admission.mode} for {', '.join(declared.admission.images)}",
    }
    return dg.MaterializeResult(metadata=written(result, figures), data_version=dg.DataVersion(result.version))


@dg.multi_asset(
    name="ops_cost",
    specs=[
        dg.AssetSpec(
            key=["ops", name],
            group_name="ops",
            owners=["team:finops"],
            kinds={"yaml", "parquet"},
            code_version="1",
            deps=[["ops", "tenants"]],
            description=table.comment,
        )
        for name, table in (("cost", COST_SHARES), ("budgets", COST_BUDGETS), ("units", COST_UNITS))
    ],
)
def cost(platform: Platform) -> Iterator[dg.MaterializeResult[None]]:
    """How costs are allocated and split, what may be spent, and what it is divided by."""
    from greenops_pipelines.cost.allocation import tables

    with permanent_faults():
        declared = platform.cost()
    shares, budgets, units = tables(declared)
    lake = platform.lake()
    result = lake.write(COST_SHARES, shares)
    keys = {name: ", ".join(source.tags) or "none" for name, source in declared.allocation}
    figures = {
        **{f"tags that name the {name}": listed for name, listed in keys.items()},
        "mappings": len(declared.mappings),
        "shared costs": len(declared.shared),
    }
    # The version is the whole file's: a tag key that changes is no row of the table, and allocates every charge anew.
    version = hashlib.sha256(declared.model_dump_json().encode()).hexdigest()
    yield dg.MaterializeResult(
        asset_key=["ops", "cost"], metadata=written(result, figures), data_version=dg.DataVersion(version)
    )
    for name, table, rows in (("budgets", COST_BUDGETS, budgets), ("units", COST_UNITS, units)):
        done = lake.write(table, rows)
        yield dg.MaterializeResult(
            asset_key=["ops", name],
            metadata=written(done, {name: ", ".join(rows["name"].to_pylist()) or "none"}),
            data_version=dg.DataVersion(done.version),
        )


ASSETS = [regions, tenants, workloads, gamedays, images, cost]
CHECKS = [
    schema_check("ops/regions", REGIONS),
    schema_check("ops/tenants", TENANTS),
    schema_check("ops/workloads", WORKLOADS),
    schema_check("ops/gamedays", GAMEDAYS),
    schema_check("ops/images", DECLARED_IMAGES),
    schema_check("ops/cost", COST_SHARES),
    schema_check("ops/budgets", COST_BUDGETS),
    schema_check("ops/units", COST_UNITS),
]
