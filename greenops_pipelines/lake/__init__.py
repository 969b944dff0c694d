"""The lake: declared tables, atomic Parquet files, and a catalog of DuckDB views over them."""

from greenops_pipelines.lake.lake import Lake, Written
from greenops_pipelines.lake.schema import Column, Kind, Table

__all__ = ["Column", "Kind", "Lake", "Table", "Written"]
