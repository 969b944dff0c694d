"""`make bench`: all benchmarks, or the named ones; `--json` for scripts."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys

import benchmarks
from benchmarks.measure import Row

_NOT_MEASURED = {"__main__", "cost_rows", "measure", "metrics_server"}


def main(arguments: list[str]) -> None:
    """Print every row as it is measured."""
    as_json = "--json" in arguments
    wanted = [name for name in arguments if not name.startswith("-")]
    names = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in _NOT_MEASURED]
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        sys.exit(f"benchmarks: found {', '.join(unknown)}, allowed: {', '.join(names)}")
    rows: dict[str, list[Row]] = {}
    for name in wanted or names:
        rows[name] = importlib.import_module(f"benchmarks.{name}").main()
        if not as_json:
            print(f"\n{name}")
            for row in rows[name]:
                print(f"  {row.name:<48} {row.figure:>10.3f} {row.unit:<4} {row.note}")
    if as_json:
        print(json.dumps({name: [row.__dict__ for row in listed] for name, listed in rows.items()}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
