"""`ops/gamedays.yaml`: the shipped file, every way it can be wrong, and the days and scenarios that follow from it."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest
import yaml

from greenops_pipelines import wiring
from greenops_pipelines.errors import BadInput, ConfigurationError, ResidencyViolation
from greenops_pipelines.recovery.declared import (
    SCENARIOS,
    Calendar,
    Database,
    GameDays,
    Residency,
    chosen,
    gamedays_table,
)
from greenops_pipelines.settings import Settings

OPS = Path(__file__).parents[2] / "ops"
EU = "eu-central-1, eu-north-1, eu-south-1, eu-south-2, eu-west-1, eu-west-3"
REGIONS = (
    "ca-central-1, ca-west-1, eu-central-1, eu-north-1, eu-south-1, eu-south-2, eu-west-1, eu-west-2, eu-west-3, "
    "us-east-1, us-west-1, us-west-2"
)
RESIDENT = "platform-eu-resident"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped declarations, named in messages as `ops/...`."""
    shutil.copytree(OPS, tmp_path / "ops")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ops"


def read(ops_dir: Path = Path("ops")) -> GameDays:
    return wiring.gamedays(Settings(_env_file=None, home=Path("home"), ops_dir=ops_dir))


def edit(*changes: tuple[str, str]) -> list[str]:
    """The shipped file with these changes, each at the one place where its first text stands; its lines."""
    text = (OPS / "gamedays.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
        text = text.replace(old, new)
    Path("ops/gamedays.yaml").write_text(text, encoding="utf-8")
    return text.splitlines()


def line_of(lines: list[str], text: str) -> int:
    [number] = [number for number, line in enumerate(lines, 1) if text in line]
    return number


def refusal() -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        read()
    return str(error.value).splitlines()


# The shipped file


def test_the_shipped_file_fits_the_shipped_regions_and_tenants() -> None:
    found = read(OPS)
    assert [(d.name, d.direction, d.wan_ms) for d in found.databases] == [
        ("platform-us", "us-east-1 -> eu-central-1", None),
        ("platform-eu", "eu-central-1 -> us-east-1", None),
        (RESIDENT, "eu-central-1 -> eu-west-1", 25),
    ]
    assert (found.objectives.rto_minutes, found.objectives.rpo_seconds) == (15, 10)
    assert (found.replica.home_region, found.replica.region, found.replica.rpo_minutes) == (
        "eu-central-1",
        "eu-west-1",
        60,
    )
    assert [d.name for d in found.databases if d.clusters is not None] == []


def test_the_shipped_databases_hold_every_tenant_once() -> None:
    tenants = [tenant for database in read(OPS).databases for tenant in database.tenants]
    declared = yaml.safe_load((OPS / "tenants.yaml").read_text(encoding="utf-8"))["tenants"]
    assert sorted(tenants) == sorted(each["tenant"] for each in declared)


def test_a_file_with_the_least_that_must_stand_in_it_has_the_shipped_defaults() -> None:
    database = "databases:\n  - {name: a, primary: us-east-1, standby: eu-west-1, tenants: [bluefield-retail]}\n"
    replica = "replica: {home_region: eu-central-1, region: eu-west-1}\n"
    Path("ops/gamedays.yaml").write_text(database + replica, encoding="utf-8")
    least, shipped = read(), read(OPS)
    assert least.gameday == shipped.gameday
    assert least.objectives == shipped.objectives
    assert least.drill == shipped.drill
    assert least.replica == shipped.replica


# Faults


@pytest.mark.parametrize(
    ("old", "new", "field", "said"),
    [
        ("weekday: tuesday", "weekday: Tuesday", "gameday.weekday", "found 'Tuesday', allowed: one of 'monday'"),
        ("week: 1", "week: 5", "gameday.week", "found 5, allowed: one of 1, 2, 3, 4, 'last'"),
        ("week: 1", "week: 0", "gameday.week", "found 0, allowed: one of 1, 2, 3, 4, 'last'"),
        ("hour: 9", "hour: 24", "gameday.hour", "found 24, allowed: a whole number >= 0 and <= 23"),
        ("rto_minutes: 15\n  rpo_s", "rto_minutes: 0\n  rpo_s", "objectives.rto_minutes", "found 0, allowed: a num"),
        ("rpo_seconds: 10", "rpo_seconds: soon", "objectives.rpo_seconds", "found 'soon', allowed: a number > 0"),
        ("  rate: 100", "  rate: 2001", "drill.rate", "found 2001, allowed: a number > 0 and <= 2000"),
        ("  clients: 8", "  clients: 0", "drill.clients", "found 0, allowed: a whole number >= 1 and <= 40"),
        ("sync: alternate", "sync: never", "drill.sync", "found 'never', allowed: one of 'alternate', 'on', 'off'"),
        ("sync: alternate", "sync: on", "drill.sync", "found on (in YAML: true), allowed: one of"),
        ("[hang, ", "[pull-the-plug, ", "rotation[0]", "found 'pull-the-plug', allowed: one of 'kill', 'hang'"),
        ("name: platform-us\n", "name: Platform US\n", "databases[0].name", "found 'Platform US', allowed: text of"),
        ("wan_ms: 25", "wan_ms: -1", "databases[2].wan_ms", "found -1, allowed: a number >= 0 and <= 2000 or no"),
        ("wan_ms: 25", "wan: 25", "databases[2].wan", "found an unknown field, allowed: name, primary, standby"),
        ("tenants: [helvetia-foundation]", "tenants: []", "databases[1].tenants", "found an empty list, allowed: a"),
        ("rpo_minutes: 60\n", "rpo_minutes: 0\n", "replica.rpo_minutes", "found 0, allowed: a number > 0"),
    ],
)
def test_a_value_that_does_not_fit_is_named(old: str, new: str, field: str, said: str) -> None:
    lines = edit((old, new))
    [fault] = refusal()
    assert fault.startswith(f"ops/gamedays.yaml:{line_of(lines, new.splitlines()[0])}: {field}: {said}")


@pytest.mark.parametrize(
    ("old", "field", "said"),
    [
        ("    primary: us-east-1\n", "databases[0].primary", "found 'mars-north-1'"),
        ("    standby: eu-west-1\n", "databases[2].standby", "found 'mars-north-1'"),
        ("  home_region: eu-central-1\n", "replica.home_region", "found 'mars-north-1'"),
        ("  region: eu-west-1\n", "replica.region", "found 'mars-north-1'"),
    ],
)
def test_an_unknown_region_is_named_with_those_that_are_declared(old: str, field: str, said: str) -> None:
    lines = edit((f"{old}", f"{old.partition(':')[0]}: mars-north-1\n"))
    number = line_of(lines, "mars-north-1")
    assert refusal() == [f"ops/gamedays.yaml:{number}: {field}: {said}, allowed: a region of regions.yaml: {REGIONS}"]


def test_an_unknown_scenario_is_named_with_all_that_there_are() -> None:
    lines = edit(("planned, corrupt-standby, restore]", "earthquake, corrupt-standby, restore]"))
    [fault] = refusal()
    assert fault == (
        f"ops/gamedays.yaml:{line_of(lines, 'earthquake')}: rotation[3]: found 'earthquake', allowed: one of "
        "'kill', 'hang', 'partition', 'stall', 'planned', 'corrupt-standby', 'restore'"
    )
    assert all(repr(scenario) in fault for scenario in SCENARIOS)


def test_an_unknown_tenant_is_named() -> None:
    lines = edit(("[helvetia-foundation]", "[helvetia-foundation, helvetia]"))
    number = line_of(lines, "helvetia]")
    assert refusal() == [
        f"ops/gamedays.yaml:{number}: databases[1].tenants[1]: found 'helvetia', allowed: a tenant of tenants.yaml"
    ]


def test_a_name_that_stands_twice_is_named_where_it_stands_again() -> None:
    lines = edit(("name: platform-eu\n", "name: platform-us\n"))
    first, second = [number for number, line in enumerate(lines, 1) if "name: platform-us" in line]
    assert first < second
    assert refusal() == [f"ops/gamedays.yaml:{second}: databases[1].name: found 'platform-us', allowed: each name once"]


def test_both_copies_in_one_region_are_refused() -> None:
    lines = edit(("    standby: eu-west-1\n", "    standby: eu-central-1  # here\n"))
    assert refusal() == [
        f"ops/gamedays.yaml:{line_of(lines, '# here')}: databases[2].standby: found 'eu-central-1', "
        "allowed: another region than the primary's"
    ]


@pytest.mark.parametrize(("region", "area"), [("us-east-1", "us"), ("eu-west-2", "uk"), ("ca-west-1", "ca")])
def test_a_second_copy_of_a_bound_tenants_data_outside_its_area_is_refused(region: str, area: str) -> None:
    lines = edit(("    standby: eu-west-1\n", f"    standby: {region}  # here\n"))
    [fault] = refusal()
    assert fault.startswith(
        f"ops/gamedays.yaml:{line_of(lines, '# here')}: databases[2].standby: found '{region}', allowed: {EU} "
    )
    assert (
        f"{RESIDENT}: found {region} (of {area}) as a target for tenant alpenblick-versicherung (bound to eu)" in fault
    )


def test_bound_data_that_is_served_outside_its_area_is_refused() -> None:
    lines = edit(("eu-central-1\n    standby: eu-west-1", "us-east-1  # here\n    standby: eu-west-1"))
    [fault] = refusal()
    assert fault.startswith(
        f"ops/gamedays.yaml:{line_of(lines, '# here')}: databases[2].primary: found 'us-east-1', allowed: {EU} "
    )


def test_one_bound_tenant_among_free_ones_binds_the_database() -> None:
    lines = edit(("[helvetia-foundation]", "[helvetia-foundation, banque-du-rivage]"))
    [fault] = refusal()
    # platform-eu fails over to the United States.
    standby = line_of(lines, "[helvetia-foundation") - 1
    assert fault.startswith(f"ops/gamedays.yaml:{standby}: databases[1].standby: found 'us-east-1', allowed: {EU} ")
    assert "banque-du-rivage (bound to eu)" in fault


def test_tenants_of_two_areas_in_one_database_are_refused_everywhere() -> None:
    tenants = Path("ops/tenants.yaml")
    text = tenants.read_text(encoding="utf-8")
    free = "tenant: helvetia-foundation\n    residency: any\n    home_region: eu-central-1"
    bound = "tenant: helvetia-foundation\n    residency: us\n    home_region: us-east-1"
    assert text.count(free) == 1
    tenants.write_text(text.replace(free, bound), encoding="utf-8")
    edit(("[helvetia-foundation]", "[helvetia-foundation, banque-du-rivage]"))
    faults = refusal()
    assert [fault.split(": ")[1] for fault in faults] == ["databases[1].primary", "databases[1].standby"]
    assert all("allowed: none is declared" in fault for fault in faults)


def test_all_faults_are_named_at_once_in_the_order_of_the_file() -> None:
    edit(
        ("  region: eu-west-1\n", "  region: atlantis-1\n"),
        ("    primary: us-east-1\n", "    primary: atlantis-2\n"),
        ("name: platform-eu\n", "name: platform-us\n"),
    )
    assert [fault.split(": ")[1] for fault in refusal()] == [
        "databases[0].primary",
        "databases[1].name",
        "replica.region",
    ]


@pytest.mark.parametrize(("databases", "found"), [("", "nothing"), ("databases: []\n", "an empty list")])
def test_without_a_database_there_is_nothing_to_drill(databases: str, found: str) -> None:
    text = (OPS / "gamedays.yaml").read_text(encoding="utf-8")
    begin, end = text.index("databases:\n  #"), text.index("replica:\n  home_region")
    Path("ops/gamedays.yaml").write_text(text[:begin] + databases + text[end:], encoding="utf-8")
    [fault] = refusal()
    assert fault.endswith(f": databases: found {found}, allowed: a list of at least 1 item")


def test_a_file_that_is_not_there_is_named() -> None:
    Path("ops/gamedays.yaml").unlink()
    assert refusal() == ["ops/gamedays.yaml: found no such file, allowed: a YAML file; create or restore it"]


# An operator's servers

CLUSTERS = """wan_ms: 25
    clusters:
      primary: {dsn: "host=a"}
      standby: {dsn: "DSN"}
      endpoint: {dsn: "host=c"}
      commands: {fence: [stop-it], promote: [promote-it], route: [move-it]}
"""


def declare(dsn: str) -> list[str]:
    return edit(("wan_ms: 25\n", CLUSTERS.replace("DSN", dsn)))


@pytest.mark.parametrize(
    "dsn",
    [
        "host=b dbname=orders user=drill",
        "postgresql://drill@b:5432/orders",
        "postgresql://b/orders?user=drill&sslmode=verify-full",
        "postgresql://b,c/orders?target_session_attrs=read-write",
        "service=orders passfile=/etc/greenops/pgpass",
        "host=[::1] port=5432",
    ],
)
def test_a_dsn_without_a_password_is_taken(dsn: str) -> None:
    declare(dsn)
    clusters = read().databases[2].clusters
    assert clusters is not None
    assert (clusters.standby.dsn, clusters.mode, clusters.commands.fence) == (dsn, "dry-run", ("stop-it",))


SECRETS = [
    "host=b password=hunter2",
    "host=b password = 'hunter2'",
    "password=hunter2",
    "postgresql://drill:hunter2@b/orders",
    "postgres://drill:hunter2@b,c:5433/orders",
    "postgresql://b/orders?password=hunter2",
    "postgresql://b/orders?user=drill&password=hunter2",
]


@pytest.mark.parametrize("dsn", SECRETS)
def test_a_dsn_with_a_password_is_refused(dsn: str) -> None:
    lines = declare(dsn)
    [fault] = refusal()
    assert fault.startswith(f"ops/gamedays.yaml:{line_of(lines, 'hunter2')}: databases[2].clusters.standby.dsn: ")
    assert fault.endswith("allowed: a DSN without a password, which belongs into libpq's password file (PGPASSFILE)")


@pytest.mark.parametrize("dsn", [SECRETS[0], SECRETS[3], SECRETS[5]])
def test_the_message_about_a_password_does_not_show_it(dsn: str) -> None:
    declare(dsn)
    assert "hunter2" not in "\n".join(refusal())


@pytest.mark.parametrize(
    "dsn",
    [
        "host=b sslkey=/k sslpassword=hunter2",
        "postgresql://b/orders?sslkey=/k&sslpassword=hunter2",
        "host=b oauth_client_secret=hunter2",
        "host=b PASSWORD=hunter2",
        "postgresql://b/orders?%70assword=hunter2",
    ],
)
def test_a_secret_under_another_name_is_refused_too(dsn: str) -> None:
    """What libpq itself marks as secret: password, sslpassword, oauth_client_secret."""
    declare(dsn)
    [fault] = refusal()
    assert ": databases[2].clusters.standby.dsn: " in fault


@pytest.mark.parametrize("step", ["fence: [stop-it]", "promote: [promote-it]", "route: [move-it]"])
def test_a_failover_needs_its_three_commands(step: str) -> None:
    name = step.partition(":")[0]
    clusters = CLUSTERS.replace(step, f"{name}: []").replace("DSN", "host=b")
    edit(("wan_ms: 25\n", clusters))
    [fault] = refusal()
    assert f": databases[2].clusters.commands.{name}: found an empty list, allowed: a list of at least 1" in fault


# Days


@pytest.mark.parametrize(
    ("weekday", "week", "month", "day"),
    [
        # 1 November 2026 is a Sunday, 1 December a Tuesday, 1 January 2027 a Friday, 1 February a Monday.
        ("tuesday", 1, (2026, 11), 3),
        ("tuesday", 1, (2026, 12), 1),
        ("tuesday", 1, (2027, 1), 5),
        ("tuesday", 2, (2026, 12), 8),
        ("tuesday", 4, (2026, 12), 22),
        ("tuesday", 4, (2027, 2), 23),
        ("sunday", 1, (2026, 11), 1),
        ("sunday", 4, (2026, 11), 22),
        ("sunday", "last", (2026, 11), 29),
        ("monday", "last", (2026, 11), 30),
        ("monday", 1, (2027, 2), 1),
        ("sunday", "last", (2027, 2), 28),
        ("monday", "last", (2027, 2), 22),
        ("tuesday", "last", (2026, 12), 29),
        ("thursday", "last", (2026, 12), 31),
        ("friday", "last", (2026, 12), 25),
        ("saturday", "last", (2028, 2), 26),
        ("tuesday", "last", (2028, 2), 29),
    ],
)
def test_the_day_of_a_month(weekday: str, week: int | str, month: tuple[int, int], day: int) -> None:
    calendar = Calendar.model_validate({"weekday": weekday, "week": week})
    assert calendar.day(*month) == date(*month, day)


def test_every_month_has_its_day_on_that_weekday_and_in_that_week() -> None:
    for week in (1, 2, 3, 4):
        for index, weekday in enumerate(("monday", "wednesday", "sunday")):
            calendar = Calendar.model_validate({"weekday": weekday, "week": week})
            for month in range(1, 13):
                day = calendar.day(2027, month)
                assert (day.month, day.weekday(), (day.day - 1) // 7) == (month, (0, 2, 6)[index], week - 1)


# Scenarios


def rotating(*rotation: str) -> GameDays:
    lines = "rotation: [hang, partition, stall, planned, corrupt-standby, restore]"
    edit((lines, f"rotation: [{', '.join(rotation)}]"))
    return read()


def test_each_month_drills_kill_and_the_next_of_the_rotation() -> None:
    months = [date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1), date(2027, 2, 1)]
    # 2026 * 12 + 10 leaves 10 % 6 = 4 over: November has the fifth.
    assert [read(OPS).scenarios_of(month) for month in months] == [
        ("kill", "corrupt-standby"),
        ("kill", "restore"),
        ("kill", "hang"),
        ("kill", "partition"),
    ]


def test_a_rotation_comes_round() -> None:
    found = read(OPS)
    months = [date(2026 + n // 12, n % 12 + 1, 1) for n in range(24)]
    assert [found.scenarios_of(month)[1] for month in months] == list(found.rotation) * 4


def test_a_rotation_with_kill_in_it_drills_kill_once() -> None:
    found = rotating("kill", "hang")
    assert [found.scenarios_of(date(2026, month, 1)) for month in (1, 2, 3)] == [("kill",), ("kill", "hang"), ("kill",)]


def test_without_a_rotation_each_month_drills_kill() -> None:
    found = rotating()
    assert {found.scenarios_of(date(2026, month, 1)) for month in range(1, 13)} == {("kill",)}


@pytest.mark.parametrize(
    ("sync", "months"), [("alternate", [2, 4, 6, 8, 10, 12]), ('"on"', list(range(1, 13))), ('"off"', [])]
)
def test_which_months_are_synchronous(sync: str, months: list[int]) -> None:
    edit(("sync: alternate\n", f"sync: {sync}\n"))
    found = read()
    assert [month for month in range(1, 13) if found.is_sync(date(2026, month, 1))] == months


# Residency, asked again before a promotion

WHERE = Residency({"eu-central-1": "eu", "eu-west-1": "eu", "us-east-1": "us"}, {"bank": "eu", "shop": "any"})


def database(*tenants: str) -> Database:
    return Database(name="orders", primary="eu-central-1", standby="us-east-1", tenants=tenants)


def test_data_of_a_free_tenant_may_be_anywhere() -> None:
    assert WHERE.allowed(("shop",)) == ["eu-central-1", "eu-west-1", "us-east-1"]
    for region in WHERE.areas:
        WHERE.refuse(database("shop"), region)


def test_data_of_a_bound_tenant_stays_in_its_area() -> None:
    assert WHERE.allowed(("shop", "bank")) == ["eu-central-1", "eu-west-1"]
    WHERE.refuse(database("shop", "bank"), "eu-west-1")
    with pytest.raises(ResidencyViolation) as error:
        WHERE.refuse(database("shop", "bank"), "us-east-1")
    assert str(error.value) == (
        "orders: found us-east-1 (of us) as a target for tenant bank (bound to eu), allowed: eu-central-1, eu-west-1"
    )


def test_what_nobody_declared_is_refused() -> None:
    with pytest.raises(ResidencyViolation, match=r"^orders: found the undeclared region 'mars' as a target$"):
        WHERE.refuse(database("shop"), "mars")
    with pytest.raises(ResidencyViolation, match=r"^orders: found the undeclared tenant 'ghost'; nobody can say where"):
        WHERE.refuse(database("shop", "ghost"), "us-east-1")


# What is handed on


def test_the_lakes_rows_say_where_each_database_fails_over_to_and_what_binds_it() -> None:
    settings = Settings(_env_file=None, home=Path("home"), ops_dir=OPS)
    rows = {row["database"]: row for row in gamedays_table(read(OPS), wiring.residency(settings)).to_pylist()}
    assert rows[RESIDENT] == {
        "database": RESIDENT,
        "primary_region": "eu-central-1",
        "standby_region": "eu-west-1",
        "tenants": "alpenblick-versicherung, banque-du-rivage, nordlys-energi, polder-logistiek",
        "bound_to": "eu",
        "is_embedded": True,
        "wan_ms": 25.0,
        "rto_objective_s": 900.0,
        "rpo_objective_s": 10.0,
    }
    assert (rows["platform-us"]["wan_ms"], rows["platform-us"]["bound_to"]) == (90.0, None)


def test_databases_are_chosen_by_name() -> None:
    found = read(OPS)
    assert [d.name for d in chosen(found, None)] == ["platform-us", "platform-eu", RESIDENT]
    assert [d.name for d in chosen(found, "platform-eu")] == ["platform-eu"]
    with pytest.raises(BadInput) as error:
        chosen(found, "platform")
    assert str(error.value) == f"--database: found 'platform', allowed: platform-us, platform-eu, {RESIDENT}"
