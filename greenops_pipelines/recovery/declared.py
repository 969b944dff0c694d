"""`ops/gamedays.yaml`: what is drilled, when, against which objectives; and the rule that bound data stays in its area.

Not here: drilling it, and what other files say of regions and tenants (handed in as plain values).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from greenops_pipelines import ops
from greenops_pipelines.errors import BadInput, ResidencyViolation
from greenops_pipelines.lake.recovery_tables import GAMEDAYS
from greenops_pipelines.ops import OpsModel

Scenario = Literal["kill", "hang", "partition", "stall", "planned", "corrupt-standby", "restore"]
SCENARIOS: tuple[Scenario, ...] = ("kill", "hang", "partition", "stall", "planned", "corrupt-standby", "restore")

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Calendar(OpsModel):
    """The day of each month."""

    weekday: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] = "tuesday"
    week: Literal[1, 2, 3, 4, "last"] = 1
    hour: int = Field(9, ge=0, le=23)

    def day(self, year: int, month: int) -> date:
        """The GameDay of that month."""
        wanted = _WEEKDAYS.index(self.weekday)
        if self.week == "last":
            end = date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)
            return end - timedelta(days=(end.weekday() - wanted) % 7)
        first = date(year, month, 1)
        return first + timedelta(days=(wanted - first.weekday()) % 7 + 7 * (self.week - 1))


class Objectives(OpsModel):
    """What a drill is held against."""

    rto_minutes: float = Field(15, gt=0, le=1440)
    rpo_seconds: float = Field(10, gt=0, le=86400)


class Conditions(OpsModel):
    """How a drill is run."""

    rate: float = Field(100, gt=0, le=2000, description="Writes a second")
    clients: int = Field(8, ge=1, le=40)
    wan_ms: float = Field(90, ge=0, le=2000, description="Round trip")
    probes: int = Field(3, ge=1, le=20)
    probe_timeout_seconds: float = Field(2, gt=0, le=60)
    steady_seconds: float = Field(2, ge=0.5, le=600)
    stall_seconds: float = Field(2, gt=0, le=600)
    sync: Literal["alternate", "on", "off"] = "alternate"


class Server(OpsModel):
    """An operator's server: where it answers. Its password stands in libpq's password file or service file."""

    dsn: str = Field(min_length=1, max_length=1000)

    @field_validator("dsn")
    @classmethod
    def _no_password(cls, value: str) -> str:
        # Imported late: whoever declares no servers of their own needs no client library.
        from psycopg import OperationalError, pq

        try:
            given = [option for option in pq.Conninfo.parse(value.encode()) if option.val]
        except OperationalError:
            raise PydanticCustomError("secret", "a DSN as libpq reads it") from None
        if any(option.dispchar == b"*" for option in given):
            raise PydanticCustomError(
                "secret", "a DSN without a password, which belongs into libpq's password file (PGPASSFILE)"
            )
        return value


Command = tuple[str, ...]


class Commands(OpsModel):
    """What moves an operator's clusters: one program with arguments each, never through a shell."""

    fence: Command = Field(min_length=1)
    promote: Command = Field(min_length=1)
    route: Command = Field(min_length=1)
    failback: Command = Field(
        (), description="Makes both what they were before; without it a drill ends at the failover"
    )
    fault: dict[Literal["kill", "hang", "partition"], Command] = Field(default_factory=dict)


class Clusters(OpsModel):
    """An operator's own primary and standby, and the endpoint that clients use."""

    primary: Server
    standby: Server
    endpoint: Server
    commands: Commands
    mode: Literal["dry-run", "act"] = "dry-run"
    sync: bool = Field(False, description="Whether the standby is synchronous; it is looked at")
    timeout_seconds: float = Field(300, gt=0, le=3600)


class Database(OpsModel):
    """A database in two regions."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)
    primary: str
    standby: str
    tenants: tuple[str, ...] = Field(min_length=1)
    wan_ms: float | None = Field(None, ge=0, le=2000)
    clusters: Clusters | None = None

    @property
    def direction(self) -> str:
        return f"{self.primary} -> {self.standby}"


class Replica(OpsModel):
    """The second copy of the platform's own state."""

    home_region: str
    region: str
    rpo_minutes: float = Field(60, gt=0)
    rto_minutes: float = Field(15, gt=0)


class GameDays(OpsModel):
    """The file."""

    gameday: Calendar = Calendar.model_validate({})
    objectives: Objectives = Objectives.model_validate({})
    drill: Conditions = Conditions.model_validate({})
    rotation: tuple[Scenario, ...] = ("hang", "partition", "stall", "planned")
    curve: tuple[Annotated[float, Field(ge=0.1, le=2000)], ...] = (10, 100, 400)
    databases: tuple[Database, ...] = Field(min_length=1)
    replica: Replica

    def scenarios_of(self, month: date) -> tuple[Scenario, ...]:
        """`kill`, and the month's own in turn."""
        if not self.rotation:
            return ("kill",)
        turn = self.rotation[(month.year * 12 + month.month - 1) % len(self.rotation)]
        return ("kill",) if turn == "kill" else ("kill", turn)

    def is_sync(self, month: date) -> bool:
        """Whether that month's drills are synchronous: every other month, where nothing else is declared."""
        return self.drill.sync == "on" or (self.drill.sync == "alternate" and month.month % 2 == 0)


@dataclass(frozen=True)
class Residency:
    """Region -> area, and tenant -> the area it is bound to, or `any`: of ops/regions.yaml and ops/tenants.yaml."""

    areas: Mapping[str, str]
    tenants: Mapping[str, str]

    def allowed(self, tenants: tuple[str, ...]) -> list[str]:
        """Regions in which all of these tenants' data may be."""
        bound = {self.tenants[tenant] for tenant in tenants} - {"any"}
        return sorted(region for region, area in self.areas.items() if not bound - {area})

    def refuse(self, database: Database, target: str) -> None:
        """Raises `ResidencyViolation` unless the data of all the database's tenants may be in the region.

        To be called again right before a promotion: what was declared may have changed since, or come from elsewhere.
        """
        area = self.areas.get(target)
        if area is None:
            raise ResidencyViolation(f"{database.name}: found the undeclared region {target!r} as a target")
        for tenant in database.tenants:
            home = self.tenants.get(tenant)
            if home is None:
                raise ResidencyViolation(
                    f"{database.name}: found the undeclared tenant {tenant!r}; nobody can say where it may be"
                )
            if home not in ("any", area):
                allowed = ", ".join(self.allowed(database.tenants)) or "none is declared"
                raise ResidencyViolation(
                    f"{database.name}: found {target} (of {area}) as a target for tenant {tenant} (bound to {home}), "
                    f"allowed: {allowed}"
                )


def read_gamedays(ops_dir: Path, residency: Residency) -> GameDays:
    """The file, held against the declared regions and tenants.

    Raises `ConfigurationError`, one line per fault, where it does not fit, a name stands twice, a region or a tenant is not
    declared, both copies lie in one region, or data of a bound tenant would leave its area.
    """
    document = ops.load(ops_dir / "gamedays.yaml", GameDays)
    value, faults = document.value, []
    names = [database.name for database in value.databases]
    regions = ", ".join(sorted(residency.areas))
    for index, database in enumerate(value.databases):
        at = ("databases", index)
        if names.index(database.name) != index:
            faults.append(document.fault((*at, "name"), "each name once"))
        unknown = False
        for position, tenant in enumerate(database.tenants):
            if tenant not in residency.tenants:
                unknown = True
                faults.append(document.fault((*at, "tenants", position), "a tenant of tenants.yaml"))
        for field in ("primary", "standby"):
            region = getattr(database, field)
            if region not in residency.areas:
                faults.append(document.fault((*at, field), f"a region of regions.yaml: {regions}"))
            elif not unknown:
                try:
                    residency.refuse(database, region)
                except ResidencyViolation as error:
                    why, _, allowed = str(error).partition(", allowed: ")
                    faults.append(document.fault((*at, field), f"{allowed or 'another region'} ({why})"))
        if database.primary == database.standby:
            faults.append(document.fault((*at, "standby"), "another region than the primary's"))
    for field in ("home_region", "region"):
        if getattr(value.replica, field) not in residency.areas:
            faults.append(document.fault(("replica", field), f"a region of regions.yaml: {regions}"))
    # Whether all tenants' rows may be there is asked by the copy: where they may not, databases are drilled all the same.
    if value.replica.region == value.replica.home_region:
        faults.append(document.fault(("replica", "region"), "another region than home_region"))
    ops.refuse(faults)
    return value


def gamedays_table(declared: GameDays, residency: Residency) -> pa.Table:
    """Rows of the lake's table GAMEDAYS, one per database."""
    rows = []
    for database in declared.databases:
        bound = sorted({residency.tenants[tenant] for tenant in database.tenants} - {"any"})
        rows.append(
            {
                "database": database.name,
                "primary_region": database.primary,
                "standby_region": database.standby,
                "tenants": ", ".join(database.tenants),
                "bound_to": ", ".join(bound) or None,
                "is_embedded": database.clusters is None,
                "wan_ms": declared.drill.wan_ms if database.wan_ms is None else database.wan_ms,
                "rto_objective_s": declared.objectives.rto_minutes * 60,
                "rpo_objective_s": declared.objectives.rpo_seconds,
            }
        )
    return pa.Table.from_pylist(rows, schema=GAMEDAYS.schema)


def chosen(gamedays: GameDays, name: str | None) -> list[Database]:
    """The database of that name, or all; `BadInput` for a name that is not declared."""
    found = [database for database in gamedays.databases if name in (None, database.name)]
    if not found:
        raise BadInput(f"--database: found {name!r}, allowed: {', '.join(each.name for each in gamedays.databases)}")
    return found
