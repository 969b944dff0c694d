"""A second copy as rows of the lake, and as figures for a person. Not here: taking it (`replica.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from greenops_pipelines.lake import Lake, Written
from greenops_pipelines.lake.recovery_tables import RECOVERY_COPIES
from greenops_pipelines.recovery.declared import GameDays
from greenops_pipelines.recovery.replica import Copied

NO_SECOND_PLACE = "in the home itself, which is no second place; name one in GREENOPS_REPLICA_URL"


@dataclass(frozen=True)
class Copy:
    """A copy that was taken and written down."""

    copied: Copied
    written: Written
    figures: Mapping[str, float | int | str]


def record(lake: Lake, copied: Copied, declared: GameDays, is_elsewhere: bool) -> Copy:
    """One row per part. `is_elsewhere`: a place was named, and is not a folder of the home."""
    rows = [
        {
            "snapshot": copied.snapshot,
            "home_region": declared.replica.home_region,
            "region": declared.replica.region if is_elsewhere else None,
            "part": name,
            "files": part.files,
            "bytes": part.bytes,
            "bytes_new": copied.new_bytes,
            "taken_at": copied.taken_at,
            "seconds": copied.seconds,
        }
        for name, part in copied.parts.items()
    ]
    written = lake.append(
        RECOVERY_COPIES,
        pa.Table.from_pylist(rows, schema=RECOVERY_COPIES.schema),
        copied.taken_at,
        copied.snapshot[-8:],
    )
    figures: dict[str, float | int | str] = {
        "snapshot": copied.snapshot,
        "lies": f"in {declared.replica.region}" if is_elsewhere else NO_SECOND_PLACE,
        "files": copied.files,
        "bytes": copied.bytes,
        "bytes that were new": copied.new_bytes,
        "seconds": round(copied.seconds, 2),
    }
    if copied.left_out:
        figures["left out"] = ", ".join(copied.left_out)
    return Copy(copied, written, figures)
