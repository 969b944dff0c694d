"""`greenops gameday ...`: run, plan, curve, list, runbook, clean. Thin: arguments in, the library's words out.

Exit codes: 0 fine, 1 a drill failed or the negative control did not miss, 2 bad input. With `--json` one document goes to
stdout and nothing else; progress goes to stderr.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greenops_pipelines.errors import BadInput
from greenops_pipelines.settings import load_settings

if TYPE_CHECKING:
    from greenops_pipelines.recovery.filing import Filed
    from greenops_pipelines.recovery.gameday import GameDay

app = typer.Typer(help="Disaster recovery: drills of failovers and restores, and their evidence.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


@app.command()
def run(
    context: typer.Context,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="kill, hang, partition, stall, planned, corrupt-standby, restore; several with commas. By default this month's.",
            show_default=False,
        ),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Of ops/gamedays.yaml; by default all: every direction.", show_default=False)
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Fail over to this region instead of the declared one.", show_default=False)
    ] = None,
    sync: Annotated[
        str | None,
        typer.Option(
            help="on: the standby acknowledges every write; off. By default as ops/gamedays.yaml says.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Writes a second.", show_default=False)] = None,
    wan_ms: Annotated[
        float | None, typer.Option(help="Round trip between the regions, in ms.", show_default=False)
    ] = None,
    month: Annotated[
        str | None, typer.Option(help="Hold it as the GameDay of that month, 2026-11.", show_default=False)
    ] = None,
    control: Annotated[bool, typer.Option(help="With the negative control, which must miss its RPO.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be drilled, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Drill failovers on real databases, and file what came of each as signed evidence."""
    from greenops_pipelines.recovery.calendar import due
    from greenops_pipelines.recovery.gameday import AD_HOC, Wanted, parse_scenarios, specs

    settings = load_settings()
    wired = context.obj()
    declared = wired.gamedays(settings)
    chosen = _databases(context, database, to)
    for option, value, low in (("--rate", rate, 0.1), ("--wan-ms", wan_ms, 0.0)):
        if value is not None and not low <= value <= 2000:
            raise BadInput(f"{option}: found {value:g}, allowed: {low:g} to 2000")
    if sync not in (None, "on", "off"):
        raise BadInput(f"--sync: found {sync!r}, allowed: on, off")
    today = datetime.now(UTC).date()
    if month is not None and _month(month) and month != (now_due := due(declared, datetime.now(UTC))):
        raise BadInput(f"--month: found {month!r}, allowed: {now_due}, whose GameDay was the last to begin")
    scenarios = parse_scenarios(scenario) if scenario is not None else declared.scenarios_of(_month(month) or today)
    wanted = Wanted(
        gameday=month if month and _month(month) else AD_HOC,
        scenarios=scenarios,
        databases=chosen,
        sync=sync == "on" if sync else declared.is_sync(_month(month)) if month else declared.drill.sync == "on",
        rate=rate,
        wan_ms=wan_ms,
        with_control=control,
    )
    if dry_run:
        planned = [
            {
                "scenario": spec.scenario,
                "database": spec.database.name,
                "primary": spec.database.primary,
                "standby": spec.database.standby,
                "sync": spec.sync,
                "rate": spec.rate,
                "wan_ms": spec.wan_ms,
                "negative_control": spec.is_negative_control,
            }
            for spec in specs(wanted, declared)
        ]
        if as_json:
            _print_json({"planned": planned})
            return
        for each in planned:
            what = "negative control" if each["negative_control"] else each["scenario"]
            typer.echo(f"{what:<18}{each['database']:<24}{each['primary']} -> {each['standby']}")
        return
    _show(wired.hold_gameday(settings, wanted, _progress), as_json)


@app.command()
def curve(
    context: typer.Context,
    rates: Annotated[
        str | None,
        typer.Option(help="Writes a second, separated by commas; by default ops/gamedays.yaml's.", show_default=False),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Of ops/gamedays.yaml; by default the first.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what a killed primary loses at several rates, asynchronous and synchronous; on servers of our own only."""
    from greenops_pipelines.recovery.gameday import GameDay, Wanted, stand_ins

    settings = load_settings()
    wired = context.obj()
    declared = wired.gamedays(settings)
    wanted = _rates(rates) if rates is not None else declared.curve
    # Ten failovers without a failback: nothing that is done to an operator's clusters.
    first = stand_ins(_databases(context, database, None)[:1])
    drills: list[Filed] = []
    remains: list[Filed] = []
    for is_sync in (False, True):
        for rate in wanted:
            ask = Wanted(databases=first, sync=is_sync, rate=rate, with_control=False, fails_back=False)
            held = wired.hold_gameday(settings, ask, _progress)
            drills += held.drills
            remains += held.remains
    _show(GameDay(tuple(drills), (), tuple(remains)), as_json)


@app.command()
def plan(
    context: typer.Context, months: Annotated[int, typer.Option(min=1, max=60)] = 6, as_json: Json = False
) -> None:
    """When the next GameDays are, and what each drills."""
    from greenops_pipelines.recovery.calendar import coming

    listed = [
        {
            "gameday": f"{day:%Y-%m}",
            "day": day.isoformat(),
            "hour_utc": declared.gameday.hour,
            "scenarios": list(scenarios),
        }
        for declared in [context.obj().gamedays(load_settings())]
        for day, scenarios in coming(declared, datetime.now(UTC), months)
    ]
    if as_json:
        _print_json({"gamedays": listed})
        return
    for each in listed:
        typer.echo(f"{each['gameday']}  {each['day']} {each['hour_utc']:02}:00Z  {', '.join(each['scenarios'])}")


@app.command("list")
def show_drills(
    context: typer.Context, limit: Annotated[int, typer.Option(min=1, max=10_000)] = 30, as_json: Json = False
) -> None:
    """Past drills, newest first, with what each measured and its evidence."""
    from greenops_pipelines.recovery.checks import listed

    rows = listed(context.obj().lake(load_settings()), limit)
    if as_json:
        _print_json({"drills": rows})
        return
    for row in rows:
        typer.echo(_line(row))


@app.command()
def runbook(
    context: typer.Context,
    drill: Annotated[
        str | None, typer.Argument(help="Of that drill; by default the newest that failed over.", show_default=False)
    ] = None,
) -> None:
    """Print the runbook that a drill has written: its steps with measured times, and the commands that ran."""
    from greenops_pipelines.evidence import bundle as form
    from greenops_pipelines.recovery.checks import with_runbook
    from greenops_pipelines.recovery.filing import RUNBOOK

    settings = load_settings()
    bundle = with_runbook(context.obj().lake(settings), drill)
    parts = form.read(context.obj().evidence(settings).archive.get(bundle)).files
    typer.echo(parts[RUNBOOK].decode(), nl=False)


@app.command()
def clean(context: typer.Context, as_json: Json = False) -> None:
    """Take to its end what was killed: processes ended, data removed, the drill filed as aborted. The next run does it too."""
    from greenops_pipelines.recovery.gameday import GameDay
    from greenops_pipelines.recovery.gameday import clean as cleaned

    settings = load_settings()
    wired = context.obj()
    found = cleaned(settings.recovery, wired.evidence(settings).archive, wired.lake(settings), _progress)
    _show(GameDay((), (), tuple(found)), as_json)


def _databases(context: typer.Context, name: str | None, to: str | None) -> tuple[Any, ...]:
    from greenops_pipelines.recovery.declared import chosen

    settings = load_settings()
    found = chosen(context.obj().gamedays(settings), name)
    if to is None:
        return tuple(found)
    residency = context.obj().residency(settings)
    if to not in residency.areas:
        raise BadInput(f"--to: found {to!r}, allowed: {', '.join(sorted(residency.areas))}")
    if name is None:
        raise BadInput("--to: found no --database, allowed: with one, as each has its own tenants")
    if found[0].clusters is not None:
        raise BadInput(f"--to: found clusters of yours for {name}, allowed: the standby that they are declared with")
    if to == found[0].primary:
        raise BadInput(f"--to: found {to}, which serves {name} already, allowed: another region")
    residency.refuse(found[0], to)
    return tuple(each.model_copy(update={"standby": to}) for each in found)


def _rates(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(each) for each in text.split(",") if each.strip())
    except ValueError:
        found = ()
    if not found or not all(0.1 <= rate <= 2000 for rate in found):
        raise BadInput(f"--rates: found {text!r}, allowed: numbers from 0.1 to 2000, separated by commas")
    return found


def _month(text: str | None) -> date | None:
    if text is None:
        return None
    if not _MONTH.fullmatch(text):
        raise BadInput(f"--month: found {text!r}, allowed: a month such as 2026-11")
    return date(int(text[:4]), int(text[5:]), 1)


def _show(held: GameDay, as_json: bool) -> None:
    if as_json:
        _print_json(held.as_document())
    else:
        document = held.as_document()
        for kind in ("remains", "drills", "negative_controls"):
            for row in document[kind]:
                typer.echo(_line(row, "negative control" if kind == "negative_controls" else ""))
        for dry in document["dry_runs"]:
            typer.echo(
                f"dry run           {dry['database']}, {dry['scenario']}: {'; '.join([*dry['checks'], *dry['faults']])}"
            )
            for command in dry["would_run"]:
                typer.echo(f"                  would run: {command}")
    raise typer.Exit(0 if held.ok else 1)


def _line(row: dict[str, Any], what: str = "") -> str:
    def seconds(name: str) -> str:
        return "-" if row[name] is None else f"{row[name]:.2f} s"

    sync = " sync" if row["sync"] else ""
    lost = "-" if row["lost_writes"] is None else f"{row['lost_writes']:,}"
    head = f"{(what or row['scenario']) + sync:<18}{row['primary']} -> {row['standby']:<14}"
    said = f"RTO {seconds('rto_s'):>8}  RPO {seconds('rpo_s'):>8} ({lost} lost)  failback {seconds('failback_s'):>8}"
    ends = "; ".join([row["verdict"], *row["deficiencies"]])
    return f"{head}{said}  {row['bundle'] or 'no evidence'}  {ends}"


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
