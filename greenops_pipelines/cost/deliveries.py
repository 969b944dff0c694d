"""Which of the delivered files count. Exports repeat themselves, and adding up what repeats is the dearest mistake there is.

A provider delivers a billing period again and again while it runs: full snapshots, from which the newest has to be taken. A
folder of 45 daily snapshots read by a glob gave $140,785.45 where $3,104.83 had been spent. Others deliver increments, all of
which have to be taken. What a file is follows from its content: per provider, billing account and billing period, files whose
charges another, newer delivery repeats are superseded by it; files that share no charge are parts or increments, and count
together. A charge is recognised by account, resource, price, category and start, not by its cost, which a restatement changes.

Newer is, in this order: the later stamp in the path (20240915, 2024-09-15T06-00), where all have one; the later start of the
last charge; the later modification. A `manifest.json` beside the files says which belong to its delivery: what it does not
list does not count, and what it lists must be there. Equal files count once.

Not here: reading (`reading.py`), the schema (`charges.py`), the lake (`ingest.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from greenops_pipelines.cost import charges
from greenops_pipelines.cost.columns import spec_of
from greenops_pipelines.cost.reading import opened
from greenops_pipelines.errors import BadInput

REPEATS = 0.5
"""Share of a delivery's charges that a newer one repeats, from which on the newer replaces it."""
SHARES = 0.02
"""Share below which two deliveries have nothing to do with each other; between the two, both count, and it is said."""
_KNOWN_BY = ("SubAccountId", "ResourceId", "SkuPriceId", "SkuId", "ServiceName", "ChargeCategory", "ChargeClass", "RegionId",
             "ChargeDescription", "ChargePeriodStart")  # fmt: skip
"""What a charge is known by. Not its cost and not its quantity: those are what a restatement changes."""

# Billing periods in a path are no stamps: 20240901-20240930, BILLING_PERIOD=2024-09.
_PERIODS = re.compile(r"\d{8}-\d{8}|[a-z_]+=\d{4}-\d\d", re.IGNORECASE)
_STAMP = re.compile(r"(?<!\d)(20\d\d)-?([01]\d)-?([0-3]\d)(?:[T_ -]?([0-2]\d)[-:]?([0-5]\d)(?:[-:]?([0-5]\d))?)?(?!\d)")

Key = tuple[str, str, date]
"""Provider, billing account, first day of the billing period."""


@dataclass(frozen=True)
class Part:
    """What one file holds of one billing period, in one currency."""

    provider: str
    account: str
    period: date
    currency: str
    charges: int
    billed: Decimal
    effective: Decimal
    last_start: datetime

    @property
    def key(self) -> Key:
        return self.provider, self.account, self.period


@dataclass(frozen=True)
class Delivered:
    """A file: where it is, what it is, what it holds, and per billing period a fingerprint of its charges."""

    path: Path
    name: str
    digest: str
    format: str
    modified: float
    parts: tuple[Part, ...]
    rounded_values: int = 0
    rounded_by: str = "0"
    prints: dict[Key, npt.NDArray[np.uint64]] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Verdict:
    """Whether a file's part counts."""

    file: Delivered
    key: Key
    state: str
    reason: str
    instead: str | None = None
    overlap: float | None = None


def scan(path: Path, root: Path) -> Delivered:
    """Read one file: its sums per billing period, exactly, and its fingerprints. Raises `BadInput` for what cannot be counted."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    with opened(path) as file:
        file = replace(file, name=name)
        shape = charges.shape_of(file)
        charges.require(file, shape)
        charges.refuse_values(
            file, shape, (*charges.REQUIRED, "ListCost", "ContractedCost", "ConsumedQuantity", "PricingQuantity")
        )
        money = ", ".join(f"sum({charges.typed(n, shape)})" for n in ("BilledCost", "EffectiveCost"))
        key = _key_sql(shape)
        parts = [
            Part(*row)
            for row in file.connection.sql(
                f"select {key}, {charges.typed('BillingCurrency', shape)} as currency, count(*), {money}, "
                f"max({charges.typed('ChargePeriodStart', shape)}) from file group by 1, 2, 3, 4 order by 1, 2, 3, 4"
            ).fetchall()
        ]
        prints = _prints(file.connection, shape)
        rounding = charges.rounded(file, shape)
        spec = f"FOCUS {spec_of(file.types)}" if shape.format == "FOCUS" else shape.format
    return Delivered(
        path=path,
        name=name,
        digest=sha256(path),
        format=spec,
        modified=path.stat().st_mtime,
        parts=tuple(parts),
        rounded_values=sum(count for count, _ in rounding.values()),
        rounded_by=rounding.get("BilledCost", (0, "0"))[1] or "0",
        prints=prints,
    )


def _key_sql(shape: charges.Shape) -> str:
    provider, account = charges.typed("ServiceProviderName", shape), charges.typed("BillingAccountId", shape)
    period = charges.typed("BillingPeriodStart", shape)
    return f"coalesce({provider}, '') as provider, coalesce({account}, '') as account, ({period})::date as period"


def _prints(connection: duckdb.DuckDBPyConnection, shape: charges.Shape) -> dict[Key, npt.NDArray[np.uint64]]:
    """Per billing period a number for each charge, sorted, each once: eight bytes a charge."""
    listed = ", ".join(charges.typed(name, shape) for name in _KNOWN_BY)
    connection.execute(
        f"create temp table prints as select distinct hash(provider, account, period) as k, h "
        f"from (select {_key_sql(shape)}, hash({listed}) as h from file)"
    )
    keys = connection.sql(
        f"select distinct provider, account, period, hash(provider, account, period) from (select {_key_sql(shape)} from file)"
    ).fetchall()
    found = {}
    for provider, account, period, number in keys:
        rows = connection.sql("select h from prints where k = ? order by h", params=[number]).fetchnumpy()
        found[provider, account, period] = np.asarray(rows["h"], dtype=np.uint64)
    return found


def judge(files: Sequence[Delivered], manifests: Sequence[Path] = ()) -> list[Verdict]:
    """Whether each file's part of each billing period counts. Raises `BadInput` where a manifest lists what is not there."""
    verdicts: list[Verdict] = []
    unlisted = _unlisted(files, manifests)
    first: dict[str, Delivered] = {}
    counted: list[Delivered] = []
    for file in sorted(files, key=lambda f: f.name):
        twin = first.setdefault(file.digest, file)
        if file.name in unlisted:
            verdicts += [
                Verdict(file, k, "not in the manifest", f"{unlisted[file.name]} does not list it") for k in _keys(file)
            ]
        elif twin is not file and twin.name not in unlisted:
            verdicts += [Verdict(file, k, "duplicate", "the same bytes", twin.name) for k in _keys(file)]
        else:
            counted.append(file)
    groups: dict[Key, list[Delivered]] = defaultdict(list)
    for file in counted:
        for key in _keys(file):
            groups[key].append(file)
    for key, group in sorted(groups.items(), key=lambda item: (item[0][2], item[0][:2])):
        verdicts += _judge_period(key, group)
    return verdicts


def _judge_period(key: Key, files: list[Delivered]) -> list[Verdict]:
    deliveries = _deliveries(key, files)
    order = _newest_last(key, deliveries)
    verdicts: list[Verdict] = []
    kept: list[list[Delivered]] = []
    for delivery in reversed(order):
        prints = _union(key, delivery)
        shares = [(_share(prints, _union(key, newer)), newer) for newer in kept]
        share, newer = max(shares, key=lambda pair: pair[0], default=(0.0, []))
        if share >= REPEATS:
            instead = newer[0].name if len(newer) == 1 else f"{newer[0].name} and {len(newer) - 1} more"
            reason = f"{share:.0%} of its charges are in a newer delivery ({_rule(key, deliveries)})"
            verdicts += [Verdict(f, key, "superseded", reason, instead, share) for f in delivery]
            continue
        kept.append(delivery)
        said = (
            f"shares {share:.0%} of its charges with {newer[0].name}; both count"
            if share >= SHARES
            else "nothing newer repeats it"
        )
        verdicts += [Verdict(f, key, "counts", said, None, share if share >= SHARES else None) for f in delivery]
    return verdicts


def _deliveries(key: Key, files: list[Delivered]) -> list[list[Delivered]]:
    """Files of one folder that share no charge are parts of one delivery; else each is a delivery of its own."""
    folders: dict[str, list[Delivered]] = defaultdict(list)
    for file in files:
        folders[file.name.rpartition("/")[0]].append(file)
    found: list[list[Delivered]] = []
    for group in folders.values():
        apart = all(_share(a.prints[key], b.prints[key]) < SHARES for a, b in combinations(group, 2))
        found += [group] if apart else [[file] for file in group]
    return found


def _newest_last(key: Key, deliveries: list[list[Delivered]]) -> list[list[Delivered]]:
    stamps = [max(stamp_of(f.name) for f in delivery) for delivery in deliveries]
    is_stamped = _rule(key, deliveries) == "by the stamp in its path"

    def age(item: tuple[str, list[Delivered]]) -> tuple[Any, ...]:
        stamp, delivery = item
        last = max(p.last_start for f in delivery for p in f.parts if p.key == key)
        rows = sum(p.charges for f in delivery for p in f.parts if p.key == key)
        return (stamp if is_stamped else "", last, max(f.modified for f in delivery), rows, delivery[0].name)

    return [delivery for _, delivery in sorted(zip(stamps, deliveries, strict=True), key=age)]


def _rule(key: Key, deliveries: list[list[Delivered]]) -> str:
    stamps = [max(stamp_of(f.name) for f in delivery) for delivery in deliveries]
    if all(stamps) and len(set(stamps)) == len(stamps):
        return "by the stamp in its path"
    lasts = {max(p.last_start for f in delivery for p in f.parts if p.key == key) for delivery in deliveries}
    return "by its last charge" if len(lasts) > 1 else "by its time of modification"


def stamp_of(name: str) -> str:
    """The last date, with its time if it has one, in a path; "" where there is none."""
    found = _STAMP.findall(_PERIODS.sub("", name))
    return "".join(found[-1]).ljust(14, "0") if found else ""


def _union(key: Key, delivery: list[Delivered]) -> npt.NDArray[np.uint64]:
    return np.unique(np.concatenate([file.prints[key] for file in delivery]))


def _share(ours: npt.NDArray[np.uint64], theirs: npt.NDArray[np.uint64]) -> float:
    """Share of our charges that are among theirs."""
    return float(np.isin(ours, theirs, assume_unique=True).mean()) if len(ours) else 0.0


def _keys(file: Delivered) -> list[Key]:
    return list(dict.fromkeys(part.key for part in file.parts))


def _unlisted(files: Sequence[Delivered], manifests: Sequence[Path]) -> dict[str, str]:
    """Files beside a manifest that it does not list, each with the manifest's name."""
    found: dict[str, str] = {}
    for manifest in manifests:
        listed = _listed(manifest)
        if listed is None:
            continue
        beside = {f.path.name: f for f in files if f.path.parent == manifest.parent}
        missing = sorted(name for name in listed if name not in beside and not (manifest.parent / name).exists())
        if missing:
            raise BadInput(f"{manifest.name}: lists {missing[0]}, which is not there: the delivery is not complete")
        found |= {f.name: manifest.name for name, f in beside.items() if name not in listed}
    return found


def _listed(manifest: Path) -> set[str] | None:
    """Names of the data files that an export's manifest lists (Azure: blobs; AWS: dataFiles); None for any other JSON."""
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{manifest.name}: cannot be read as JSON: {error}") from None
    if not isinstance(document, dict):
        return None
    entries = document.get("blobs") or document.get("dataFiles") or document.get("files")
    if not isinstance(entries, list):
        return None
    names = [
        e.get("blobName") or e.get("name") or e.get("path") or "" if isinstance(e, dict) else str(e) for e in entries
    ]
    return {str(name).rpartition("/")[2] for name in names if name}


def sha256(path: Path) -> str:
    """The first sixteen digits of a file's SHA-256."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            sha.update(piece)
    return sha.hexdigest()[:16]
