"""dbt, started once per run and inside the process: manifest, scratch database, build, publication.

A run gets a private scratch DuckDB file. Views over the lake stand in it for the sources (schema `lake`) and for
marts that this run does not build. When every model is built and every test passes, the marts are published by the
lake's own atomic writer, and the scratch file goes. A failed test publishes nothing.

Not here: the models (`dbt/`), and how they become assets (`assets/marts.py`).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import duckdb

from greenops_pipelines.errors import ConfigurationError, PermanentError
from greenops_pipelines.lake import catalog
from greenops_pipelines.lake.lake import Lake, Written
from greenops_pipelines.lake.schema import Column, Table
from greenops_pipelines.lake.storage import Storage, alive
from greenops_pipelines.lake.types import to_arrow

_SOURCES_SCHEMA = "lake"


@dataclass(frozen=True)
class Test:
    """A data test: its name, the mart it is about, and what it says."""

    name: str
    mart: str
    description: str


@dataclass(frozen=True)
class Tested:
    """A test's outcome. `failures` is the number of rows that break the rule; None: dbt skipped it, because
    something it stands on failed.
    """

    test: Test
    failures: int | None
    message: str

    @property
    def passed(self) -> bool:
        return self.failures == 0


@dataclass(frozen=True)
class Mart:
    """A model that is published: its table, the tables and marts it reads, and what the graph needs to know."""

    table: Table
    asset_key: tuple[str, ...]
    group: str
    owners: tuple[str, ...]
    reads: tuple[tuple[str, ...], ...]
    version: str


@dataclass(frozen=True)
class Built:
    """What one dbt start did."""

    marts: Mapping[str, Written] = field(default_factory=dict)
    tests: Sequence[Tested] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> list[Tested]:
        """Tests that found rows against their rule; what was skipped because of them is not among them."""
        return [t for t in self.tests if t.failures]


class Project:
    """The dbt project of this repository. Its manifest is parsed once per content of `dbt/` and kept in `cache`, or in `home`
    where there is none.
    """

    def __init__(self, folder: Path, home: Path, cache: Path | None = None) -> None:
        self._folder = folder
        self._home = home
        self._cache = cache

    @functools.cached_property
    def manifest(self) -> Mapping[str, Any]:
        """dbt's manifest; parsed (about 2 s) where no manifest of these very sources is there yet."""
        path = (self._cache or self._home) / f"manifest-{self._content_hash()[:16]}.json"
        if not path.exists():
            self._parse(path)
        manifest: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return manifest

    @functools.cached_property
    def marts(self) -> tuple[Mart, ...]:
        """The published models, each after those it reads."""
        models = self._models()
        ordered = TopologicalSorter(
            {name: sorted(node["depends_on"]["nodes"]) for name, node in sorted(models.items())}
        )
        nodes = [models[name] for name in ordered.static_order() if name in models]
        return tuple(self._mart(node) for node in nodes if node["config"]["materialized"] == "table")

    @functools.cached_property
    def tests(self) -> tuple[Test, ...]:
        """The data tests, each with the mart it is about."""
        found = []
        for node in self.manifest["nodes"].values():
            if node["resource_type"] == "test" and (mart := self._about(node)):
                found.append(Test(node["name"], mart, node.get("description") or _sentence(node["name"])))
        return tuple(sorted(found, key=lambda t: (t.mart, t.name)))

    def build(self, lake: Lake, select: Sequence[str]) -> Built:
        """Build and test the named marts, then publish them.

        Raises `PermanentError` with dbt's message where a model cannot be built. Where a test fails, nothing
        is published, and the outcome says which.
        """
        unknown = sorted(set(select) - {m.table.name for m in self.marts})
        if unknown:
            raise ConfigurationError(f"dbt: found marts {unknown}, allowed: {[m.table.name for m in self.marts]}")
        with self._scratch_folder() as folder:
            scratch = folder / "scratch.duckdb"
            self._prepare(lake, scratch, select)
            results = self._invoke(
                # Only tests whose every input is built here: a test across two marts would hold a new one
                # against the published old one.
                [
                    *("build", "--exclude-resource-type", "unit_test", "--indirect-selection", "buildable"),
                    *("--select", *(f"+{name}" for name in select)),
                ],
                scratch,
                folder,
                lake.storage,
            )
            tests = self._outcomes(results)
            built = Built(tests=tests, seconds={r.node.name: r.execution_time for r in results})
            if not all(t.passed for t in tests):
                return built
            return Built(self._publish(lake, scratch, select), tests, built.seconds)

    # The manifest

    def _content_hash(self) -> str:
        if not (self._folder / "dbt_project.yml").exists():
            raise ConfigurationError(f"GREENOPS_DBT_DIR: no dbt_project.yml in {self._folder.name}/")
        sha = hashlib.sha256(importlib.metadata.version("dbt-core").encode())
        for path in sorted(p for p in self._folder.rglob("*") if p.suffix in {".sql", ".yml", ".yaml", ".csv"}):
            sha.update(path.relative_to(self._folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
        return sha.hexdigest()

    def _parse(self, path: Path) -> None:
        with self._scratch_folder() as folder:
            self._invoke(["parse"], folder / "scratch.duckdb", folder, None)
            # The name says which sources it was parsed from; a second process that parses them writes the same.
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            shutil.copyfile(folder / "target" / "manifest.json", temporary)
            temporary.replace(path)
        # In a cache lie those of other checkouts.
        for old in self._home.glob("manifest-*.json"):
            if old != path:
                old.unlink(missing_ok=True)

    def _models(self) -> dict[str, dict[str, Any]]:
        return {k: n for k, n in self.manifest["nodes"].items() if n["resource_type"] == "model"}

    def _mart(self, node: Mapping[str, Any]) -> Mart:
        dagster = node["config"]["meta"]["dagster"]
        columns = tuple(
            Column(c["name"], to_arrow(c["data_type"]), c["description"], not _is_not_null(c))
            for c in node["columns"].values()
        )
        table = Table(
            layer="marts",
            name=node["name"],
            comment=node["description"],
            columns=columns,
            unique=tuple(node["config"]["meta"]["greenops"]["unique_key"]),
        )
        return Mart(
            table=table,
            asset_key=tuple(dagster["asset_key"]),
            group=dagster["group"],
            owners=tuple(dagster["owners"]),
            reads=tuple(sorted(self._reads(node))),
            version=self._version(node),
        )

    def _reads(self, node: Mapping[str, Any]) -> set[tuple[str, ...]]:
        """Asset keys of the sources and marts a model reads, through any staging models between."""
        found: set[tuple[str, ...]] = set()
        for parent in node["depends_on"]["nodes"]:
            if parent in self.manifest["sources"]:
                source = self.manifest["sources"][parent]
                found.add(tuple(source["config"]["meta"]["dagster"]["asset_key"]))
                continue
            model = self.manifest["nodes"][parent]
            if model["config"]["materialized"] == "table":
                found.add(tuple(model["config"]["meta"]["dagster"]["asset_key"]))
            else:
                found |= self._reads(model)
        return found

    def _version(self, node: Mapping[str, Any]) -> str:
        """Digest of a model's SQL, of the staging models it reads, and of the macros they may use."""
        macros = self.manifest["macros"].values()
        own = self.manifest["metadata"]["project_name"]
        parts = sorted(m["macro_sql"] for m in macros if m["package_name"] == own)
        pending = [node]
        while pending:
            model = pending.pop()
            parts.append(model["checksum"]["checksum"])
            parents = [self.manifest["nodes"].get(parent) for parent in model["depends_on"]["nodes"]]
            pending += [p for p in parents if p is not None and p["config"]["materialized"] != "table"]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    def _about(self, test: Mapping[str, Any]) -> str | None:
        """The mart a test is about: the one its `meta` names, else the one it is attached to; None for staging."""
        by_key = {m.asset_key: m.table.name for m in self.marts}
        named = test["config"].get("meta", {}).get("dagster", {}).get("asset_key")
        if named is not None:
            return by_key[tuple(named)]
        model = self.manifest["nodes"].get(test.get("attached_node") or "", {})
        return model.get("name") if model.get("name") in by_key.values() else None

    # Running

    @contextmanager
    def _scratch_folder(self) -> Iterator[Path]:
        self._home.mkdir(parents=True, exist_ok=True)
        _sweep(self._home)
        folder = Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=self._home))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _prepare(self, lake: Lake, scratch: Path, select: Sequence[str]) -> None:
        mart_names = {m.table.name for m in self.marts}
        sources = [t for t in lake.tables if t.name not in mart_names]
        others = [t for t in lake.tables if t.name in mart_names - set(select)]
        ddl = [
            f"create schema {_SOURCES_SCHEMA}",
            *catalog.statements(sources, lake.storage, lake.selections, _SOURCES_SCHEMA),
            *catalog.statements(others, lake.storage, lake.selections),
        ]
        catalog.connect(lake.storage, ddl, str(scratch)).close()

    def _invoke(self, arguments: Sequence[str], scratch: Path, folder: Path, storage: Storage | None) -> list[Any]:
        from dbt.cli.main import dbtRunner

        from greenops_pipelines.lake import dbt_plugin

        options = [
            *("--project-dir", str(self._folder), "--profiles-dir", str(self._folder)),
            *("--target-path", str(folder / "target"), "--log-path", str(folder / "logs")),
            *("--log-level", "none", "--log-level-file", "none", "--no-use-colors"),
        ]
        with _environment(GREENOPS_DBT_SCRATCH=str(scratch), DO_NOT_TRACK="1"), dbt_plugin.reading_from(storage):
            outcome = dbtRunner().invoke([*arguments, *options])
        if outcome.exception is not None:
            raise PermanentError(f"dbt {arguments[0]}: {_one_line(outcome.exception)}")
        results = list(getattr(outcome.result, "results", ()))
        broken = [r for r in results if str(r.status) == "error" and r.node.resource_type != "test"]
        if broken:
            raise PermanentError(f"dbt model {broken[0].node.name}: {_one_line(broken[0].message)}")
        if not outcome.success and not results:
            raise PermanentError(f"dbt {arguments[0]}: failed without a result")
        return results

    def _outcomes(self, results: Sequence[Any]) -> list[Tested]:
        known = {t.name: t for t in self.tests}
        found = []
        for result in results:
            if result.node.resource_type != "test" or result.node.name not in known:
                continue
            failures: int | None = 0
            if str(result.status) == "skipped":
                failures = None
            elif str(result.status) not in {"pass", "warn"}:
                failures = max(1, int(result.failures or 0))
            found.append(Tested(known[result.node.name], failures, _one_line(result.message or "")))
        return found

    def _publish(self, lake: Lake, scratch: Path, select: Sequence[str]) -> dict[str, Written]:
        published = {}
        with duckdb.connect(str(scratch)) as connection:
            connection.execute("set TimeZone = 'UTC'")
            for mart in self.marts:
                if mart.table.name in select:
                    rows = connection.sql(f"from main.{catalog.identifier(mart.table.name)}").to_arrow_table()
                    published[mart.table.name] = lake.write(mart.table, rows, refresh=False)
        # Readers see all marts change at once.
        lake.refresh()
        return published


def _is_not_null(column: Mapping[str, Any]) -> bool:
    return any(c["type"] == "not_null" for c in column.get("constraints", ()))


def _sentence(name: str) -> str:
    return name.replace("_", " ").capitalize() + "."


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:600]


def _sweep(home: Path) -> None:
    """Remove scratch folders of processes that were killed."""
    for folder in home.glob("run-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """dbt's profile takes the scratch path from the environment; put back afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
