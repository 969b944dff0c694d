"""The graph's own automation, and what follows the files in ops/."""

import hashlib

import dagster as dg

from greenops_pipelines.settings import load_settings
from sensors.lanes import GRAPH
from sensors.slo import COUNTED, DRILLED, LEDGER

DECLARATIONS = dg.define_asset_job(
    "declarations",
    selection=(dg.AssetSelection.groups("ops", "slo") - DRILLED - COUNTED - LEDGER)
    | dg.AssetSelection.assets(["carbon", "emission_factors"]),
    tags=GRAPH,
    description="What operators declare in ops/ and what is rendered from it, and the emission factors, as tables.",
)

FOLLOW = dg.AutomationConditionSensorDefinition(
    "assets_follow_inputs",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    run_tags=GRAPH,
    description="Launches assets whose inputs changed: marts after ingestion, the warehouse and reports after the marts.",
)


@dg.sensor(
    name="declarations_changed",
    job=DECLARATIONS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Fires when a file in ops/ changes. The cursor is the digest of the folder.",
)
def declarations_changed(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """No run key: a file put back to an earlier content has to be read again."""
    sha = hashlib.sha256()
    ops_dir = load_settings().ops_dir
    for path in sorted(path for path in ops_dir.rglob("*") if path.suffix in _READ and path.is_file()):
        sha.update(str(path.relative_to(ops_dir)).encode() + b"\0" + path.read_bytes() + b"\0")
    found = sha.hexdigest()
    if found == context.cursor:
        return dg.SkipReason("ops/ is as it was")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=found)


_READ = {".yaml", ".json", ".pub", ".pem"}
"""Declarations; exceptions to the vulnerability gate; keys that either names."""

JOBS = [DECLARATIONS]
SENSORS = [FOLLOW, declarations_changed]
