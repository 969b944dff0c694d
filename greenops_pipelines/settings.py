"""Environment -> one typed object. The only module that reads `GREENOPS_*` variables.

Every variable stands in `.env.example` with its default; a test compares the two. Values come from
the environment, then from `.env` in the working directory. Secrets are `SecretStr`: they print as stars.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from greenops_pipelines.errors import ConfigurationError

CarbonProvider = Literal["sample", "file", "electricity-maps", "energy-charts", "uk-neso"]
EmissionFactorType = Literal["lifecycle", "direct"]

_PREFIX = "GREENOPS_"
_INTERNAL = {"DBT_SCRATCH", "REQUIRE_REAL"}
"""Set by the project for dbt and by `.ci/run` for the tests; nothing that an operator configures."""


class Settings(BaseSettings):
    """What the operator configured. Paths are absolute after loading."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True
    )

    home: Path = Field(Path(".greenops"), description="Everything mutable: Dagster's storage, lake, reports, keys")
    ops_dir: Path = Field(Path("ops"), description="What the operator declares")
    dbt_dir: Path = Field(Path("dbt"), description="The SQL models")

    lake_url: str = Field("", description="s3://bucket/prefix to keep the lake in object storage; empty: HOME/lake")
    s3_endpoint: str = Field("", description="Endpoint of an S3-compatible store; empty: AWS")
    s3_region: str = Field("eu-central-1", description="Region of the bucket")

    carbon_provider: CarbonProvider = Field("sample", description="Where carbon intensity comes from")
    carbon_path: str = Field("", description="File or glob for the provider `file` (CSV or Parquet)")
    carbon_token: SecretStr = Field(SecretStr(""), description="Electricity Maps API token")
    carbon_api_version: Literal["v4", "v3"] = Field("v4", description="Electricity Maps API version")
    carbon_emission_factors: EmissionFactorType = Field("lifecycle", description="lifecycle or direct, where offered")
    carbon_lookback_days: int = Field(3, ge=1, le=30, description="Days fetched again each hour, for revisions")
    carbon_base_url: str = Field("", description="Base URL of the live provider; empty: the vendor's own")

    usage_path: str = Field("", description="Resource usage as Parquet or CSV (file or glob); empty: sample usage")
    run_days: int = Field(35, ge=1, le=4000, description="Days that `greenops run` covers for live and sample sources")

    evidence_url: str = Field(
        "",
        description="Write-once store for evidence: folder or s3://bucket/prefix; empty: in the lake's bucket, or HOME",
    )
    evidence_retention_days: int = Field(0, ge=0, description="Days that S3 Object Lock keeps evidence; 0: no lock")
    evidence_lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = Field("GOVERNANCE", description="Mode of the Object Lock")
    evidence_key: str = Field(
        "", description="Signing key: file (PEM, ECDSA P-256) or KMS URI (awskms:...); empty: made in HOME/keys"
    )
    evidence_gpg: Literal["auto", "required", "off"] = Field("auto", description="Second signature, by GnuPG")
    evidence_tsa_url: str = Field("", description="RFC 3161 time-stamping authority; empty: none")
    evidence_tsa_ca: str = Field("", description="PEM file with the certificates that vouch for that authority")
    evidence_checkpoints: str = Field(
        "",
        description="Second place for the log's checkpoints: folder, s3://bucket/prefix or git+<remote>; empty: none",
    )
    evidence_checkpoints_region: str = Field("", description="Region of that bucket; empty: GREENOPS_S3_REGION")

    ui_port: int = Field(3000, ge=1, le=65535, description="Port of the Dagster UI on 127.0.0.1")
    retention_days: int = Field(90, ge=1, description="Days that Dagster's run history is kept")

    @field_validator("home", "ops_dir", "dbt_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        try:
            return value.expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"{error} for the ~") from None

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def warehouse(self) -> Path:
        return self.home / "warehouse.duckdb"

    @property
    def reports(self) -> Path:
        return self.home / "reports"

    @property
    def gitops(self) -> Path:
        return self.home / "gitops"

    @property
    def scratch(self) -> Path:
        return self.home / "scratch"


def load_settings() -> Settings:
    """Settings from the environment; raises `ConfigurationError` naming the variable, found and allowed."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = _PREFIX + str(first["loc"][0]).upper()
        secret = "TOKEN" in variable or "SECRET" in variable
        found = "(hidden)" if secret else repr(first["input"])
        raise ConfigurationError(f"{variable}: found {found}; {first['msg'][0].lower()}{first['msg'][1:]}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f".env: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None


def unknown_variables() -> dict[str, str]:
    """GREENOPS_* variables that are set and mean nothing, each with the nearest one that does ("" if none is near)."""
    known = [name.upper() for name in Settings.model_fields]
    variables = sorted({name for name in (*dotenv_values(".env"), *os.environ) if name.upper().startswith(_PREFIX)})
    found = {variable: variable.upper().removeprefix(_PREFIX) for variable in variables}
    return {
        variable: next((_PREFIX + near for near in difflib.get_close_matches(name, known, 1)), "")
        for variable, name in found.items()
        if name not in known and name not in _INTERNAL
    }
