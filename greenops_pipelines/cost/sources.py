"""Settings -> the files of charges: a folder, a glob, a bucket, OpenCost's answers, or the sample. Not here: which of them count."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.settings import Settings

_VARIABLE = "GREENOPS_COST_PATH"
_OPENCOST_DAYS = 40


@dataclass(frozen=True)
class Found:
    """Files of charges below `root`, the manifests beside them, and what is worth saying about getting them."""

    source: str
    root: Path
    files: tuple[Path, ...]
    manifests: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def source_of(settings: Settings) -> str:
    """Which source is configured. Raises `ConfigurationError` where two are."""
    if settings.cost_path and settings.opencost_url:
        raise ConfigurationError(
            f"{_VARIABLE} and GREENOPS_OPENCOST_URL: found both, allowed: one; their costs overlap"
        )
    return "file" if settings.cost_path else "opencost" if settings.opencost_url else "sample"


def selections(settings: Settings) -> dict[str, dict[str, str]]:
    """The configured value of the cost tables' `source`: sources never mix."""
    source = source_of(settings)
    return {table: {"source": source} for table in ("cost_charges", "cost_files", "cost_periods", "cost_reports")}


def find(settings: Settings, tenants: Sequence[tuple[str, str]], now: datetime) -> Found:
    """The files of the configured source as of `now`; the sample's and OpenCost's are written to the home first."""
    source = source_of(settings)
    if source == "sample":
        from greenops_pipelines.cost import sample

        root = settings.home / "sample" / "cost"
        return Found(
            source, root, tuple(sample.write(root, tenants, now)), notes=("sample data: nobody was billed this",)
        )
    if source == "opencost":
        return _opencost(settings, now)
    if settings.cost_path.startswith("s3://"):
        return _bucket(settings)
    return _local(settings.cost_path)


def _is_charges(path: Path) -> bool:
    """Whether a file's ending is one that is read."""
    return path.name.lower().endswith((".csv", ".csv.gz", ".parquet"))


def _local(pattern: str) -> Found:
    path = Path(pattern).expanduser()
    if path.is_dir():
        listed, root = sorted(p for p in path.rglob("*") if p.is_file()), path
    else:
        listed = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        root = _fixed_part(path)
        if any(p.is_dir() for p in listed):
            listed = sorted(f for p in listed for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file())
    return _chosen(pattern, root, listed)


def _chosen(pattern: str, root: Path, listed: Sequence[Path]) -> Found:
    files = tuple(p for p in listed if _is_charges(p) and not p.name.startswith("."))
    if not files:
        raise ConfigurationError(f"{_VARIABLE}: no file matches {pattern!r}; allowed: .csv, .csv.gz and .parquet")
    folders = {p.parent for p in files}
    manifests = tuple(
        sorted(m for folder in folders for m in folder.glob("*.json") if re.search("manifest", m.name, re.IGNORECASE))
    )
    return Found("file", root, files, manifests)


def _fixed_part(path: Path) -> Path:
    parts = []
    for part in path.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    fixed = Path(*parts) if parts else Path()
    return fixed.parent if fixed == path else fixed


def _bucket(settings: Settings) -> Found:
    """Objects below the prefix, each fetched once into the home and known by its ETag."""
    from greenops_pipelines.store.s3 import s3_client, s3_faults

    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", settings.cost_path)
    if match is None:
        raise ConfigurationError(
            f"{_VARIABLE}: found {settings.cost_path!r}, allowed: s3://bucket/prefix, or with a glob"
        )
    bucket, pattern = match[1], match[2] or ""
    prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    root = settings.home / "cost-files" / bucket
    client = s3_client(settings.s3_endpoint, settings.s3_region)
    kept: list[Path] = []
    with s3_faults(settings.cost_path):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                if _matches(entry["Key"], pattern) and (path := _fetched(client, bucket, entry, root)):
                    kept.append(path)
    return _chosen(settings.cost_path, root, [p for p in sorted(kept) if not p.name.lower().endswith(".json")])


def _matches(key: str, pattern: str) -> bool:
    import fnmatch

    is_wanted = _is_charges(Path(key)) or re.search(r"manifest[^/]*\.json$", key, re.IGNORECASE) is not None
    return is_wanted and (fnmatch.fnmatchcase(key, pattern) if re.search(r"[*?\[]", pattern) else True)


def _fetched(client: Any, bucket: str, entry: Any, root: Path) -> Path | None:
    import os
    import secrets

    key = str(entry["Key"])
    path = (root / key).resolve()
    if not path.is_relative_to(root.resolve()):
        return None
    tag = path.with_name(f".{path.name}.etag")
    if not (path.exists() and tag.exists() and tag.read_text(encoding="utf-8") == entry["ETag"]):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            client.download_file(bucket, key, str(temporary))
            # What was last modified when is the bucket's to say: it decides which delivery is newer.
            stamp = entry["LastModified"].timestamp()
            os.utime(temporary, (stamp, stamp))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        tag.write_text(entry["ETag"], encoding="utf-8")
    return path


def _opencost(settings: Settings, now: datetime) -> Found:
    import pyarrow.parquet as pq

    from greenops_pipelines.cost import opencost
    from greenops_pipelines.http import HttpClient

    end = now.replace(minute=0, second=0, microsecond=0)
    start = (end - timedelta(days=_OPENCOST_DAYS)).replace(day=1, hour=0)
    answer = opencost.fetch(HttpClient(settings.opencost_url), start, end, settings.opencost_currency)
    root = settings.home / "opencost"
    path = root / "allocation.parquet"
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / ".allocation.parquet.tmp"
    pq.write_table(answer.rows, temporary, compression="zstd")
    temporary.replace(path)
    notes = (
        (f"{answer.clamped} negative idle costs counted as 0 (together {answer.clamped_sum})",)
        if answer.clamped
        else ()
    )
    return Found("opencost", root, (path,), notes=notes)
