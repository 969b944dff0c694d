"""Run in a fresh interpreter by `test_loading.py`: load the definitions and print what that did, as JSON."""

import json
import resource
import sys
import warnings

connections: list[str] = []
written: list[str] = []


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        connections.append(repr(arguments[1]))
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        written.append(str(arguments[0]))


sys.dont_write_bytecode = True
sys.addaudithook(watch)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from greenops_pipelines.definitions import defs

usage = resource.getrusage(resource.RUSAGE_SELF)
print(  # noqa: T201
    json.dumps(
        {
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "warnings": [[w.category.__name__, str(w.message), w.filename] for w in caught],
            "connections": connections,
            "written": written,
            "heavy": sorted({m.split(".")[0] for m in sys.modules} & {"dbt", "boto3", "moto", "dagster_dbt", "pandas"}),
            "assets": len(defs.resolve_asset_graph().materializable_asset_keys),
        }
    )
)
