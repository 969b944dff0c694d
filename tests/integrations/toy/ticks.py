"""Run by the toy project's own interpreter: what importing it loaded, and ticks of the sensor `berlin` at given times."""

import json
import sys
from importlib.util import find_spec

import defs
from dagster import DagsterInstance, build_sensor_context

loaded = sorted({module.split(".")[0] for module in sys.modules})
sensor = next(each for each in defs.defs.sensors if each.name == "berlin")
keys = []
for times in json.loads(sys.argv[1]):
    cursor = None
    with DagsterInstance.ephemeral() as instance:
        for time in times:
            (defs.HOME / "clock").write_text(time, encoding="utf-8")
            context = build_sensor_context(
                instance=instance, cursor=cursor, definitions=defs.defs, sensor_name=sensor.name
            )
            result = sensor(context)
            cursor = result.cursor
            keys += [[time, request.run_key, request.tags["greenops/reason"]] for request in result.run_requests]
print(  # noqa: T201
    json.dumps(
        {
            "keys": keys,
            "loaded": loaded,
            "library": find_spec("greenops_pipelines").origin,
            "typed": (find_spec("greenops_pipelines").origin or "").replace("__init__.py", "py.typed"),
            "graph": [name for name in ("assets", "sensors") if find_spec(name)],
        }
    )
)
