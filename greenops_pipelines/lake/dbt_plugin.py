"""dbt-duckdb's connections read from the lake's storage, object stores included. Named in `dbt/profiles.yml`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dbt.adapters.duckdb.plugins import BasePlugin

from greenops_pipelines.lake.storage import Storage

_storage: Storage | None = None


@contextmanager
def reading_from(storage: Storage | None) -> Iterator[None]:
    """While the block runs, connections that dbt opens in this process read from `storage`."""
    global _storage
    _storage = storage
    try:
        yield
    finally:
        _storage = None


class Plugin(BasePlugin):
    """Registers the storage of the running build; none while parsing."""

    def configure_connection(self, conn: Any) -> None:
        if _storage is not None:
            _storage.register(conn)
