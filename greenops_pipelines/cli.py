"""The `greenops` command: thin, calls the domain library.

Exit codes: 0 fine, 1 a check failed or a run broke, 2 bad input (one clear line on stderr). With `--json` one JSON
document goes to stdout and nothing else; everything for people goes to stderr then.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greenops_pipelines import __version__
from greenops_pipelines.cost import commands as cost
from greenops_pipelines.errors import BadInput, ConfigurationError, GreenopsError
from greenops_pipelines.evidence import commands as evidence
from greenops_pipelines.placement import commands as placement
from greenops_pipelines.recovery import commands as recovery
from greenops_pipelines.recovery import replica_commands as replica
from greenops_pipelines.settings import Settings, load_settings
from greenops_pipelines.slo import commands as slo
from greenops_pipelines.supply_chain import commands as supply_chain

if TYPE_CHECKING:
    from greenops_pipelines.lake import Lake

app = typer.Typer(
    name="greenops",
    help="Operational obligations (carbon, cost, SLOs, recovery, supply chain), run unattended as one Dagster project.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
carbon = typer.Typer(help="Carbon intensity.", no_args_is_help=True)
app.add_typer(carbon, name="carbon")
app.add_typer(cost.app, name="cost")
app.add_typer(evidence.app, name="evidence")
app.add_typer(recovery.app, name="gameday")
app.add_typer(placement.app, name="placement")
app.add_typer(replica.app, name="replica")
app.add_typer(slo.app, name="slo")
app.add_typer(supply_chain.app, name="image")
app.command("attest")(supply_chain.attest)
app.command("verify")(supply_chain.verify)

# Click's class, or Typer's own copy of it: that depends on Typer's release.
_UsageError: Any = typer.BadParameter.__base__
_MAX_FETCH_DAYS = 3660

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _lake(settings: Settings) -> Lake:
    from greenops_pipelines import wiring

    return wiring.lake(settings)


def _wired() -> Any:
    from greenops_pipelines import wiring

    return wiring


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Shared options, and what the domains' commands are given."""
    context.obj = _wired


@app.command()
def run(
    select: Annotated[
        str | None, typer.Option(help="Assets to run, in Dagster's selection syntax; all by default.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List what would run, and stop.")] = False,
) -> None:
    """Materialise the graph once, and print the scorecard."""
    from greenops_pipelines.console import run_with_progress

    raise typer.Exit(run_with_progress(load_settings(), select, show))


@app.command()
def up() -> None:
    """Start the Dagster UI and daemon on 127.0.0.1, schedules and sensors running. Ctrl-C stops both."""
    from greenops_pipelines.console import serve

    raise typer.Exit(serve(load_settings()))


@app.command()
def status(as_json: Json = False) -> None:
    """Print the scorecard: every acceptance criterion with target, measured figure and verdict. Exit 1 if one is missed."""
    from greenops_pipelines import wiring
    from greenops_pipelines.report.scorecard import as_document, scorecard

    rows = scorecard(wiring.lake(load_settings()), datetime.now(UTC))
    if as_json:
        _print_json(as_document(rows))
    else:
        from greenops_pipelines.console import show_scorecard

        show_scorecard(rows)
    raise typer.Exit(1 if "missed" in rows["verdict"].to_pylist() else 0)


@app.command()
def sql(
    query: Annotated[
        str, typer.Argument(help="One SELECT, EXPLAIN, DESCRIBE, SHOW or SUMMARIZE statement; - reads stdin.")
    ],
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on stdout.")] = False,
) -> None:
    """Ask the warehouse. Read-only, any time, in as many processes as you like."""
    from greenops_pipelines import console, wiring
    from greenops_pipelines.lake import query as ad_hoc

    if as_json and as_csv:
        raise BadInput("found --json and --csv, allowed: one of them")
    settings = load_settings()
    rows = ad_hoc.run(settings.warehouse, wiring.storage(settings), sys.stdin.read() if query == "-" else query)
    if as_json:
        _print_json(ad_hoc.as_objects(rows))
    elif as_csv:
        ad_hoc.write_csv(rows, sys.stdout.buffer)
    else:
        console.show_rows(rows)


@app.command()
def render(
    out: Annotated[Path, typer.Option(help="Folder to render into; files of others in it stay.")],
    as_json: Json = False,
) -> None:
    """Write the tree of rendered files: rules, alerts, rule tests, Kubernetes objects. Same declarations, same bytes."""
    from greenops_pipelines import gitops, wiring

    rendered = [gitops.write(out, files, owner) for owner, files in wiring.rendered(load_settings()).items()]
    if as_json:
        changed, removed = ([p for r in rendered for p in getattr(r, name)] for name in ("changed", "removed"))
        _print_json(
            {"folder": str(out), "files": sum(r.files for r in rendered), "changed": changed, "removed": removed}
        )
        return
    for done in rendered:
        typer.echo(f"{out}: {done.files} files, {len(done.changed)} changed, {len(done.removed)} removed")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is configured, reachable and missing, with the line to add. Exit 1 if something is broken."""
    from greenops_pipelines.doctor import examine

    findings = examine()
    if as_json:
        _print_json({"findings": [finding.__dict__ for finding in findings]})
    else:
        from greenops_pipelines.console import show_findings

        show_findings(findings)
    raise typer.Exit(1 if any(finding.state == "broken" for finding in findings) else 0)


@carbon.command()
def fetch(
    zone: Annotated[str, typer.Option(help="Grid zone, e.g. DE.")],
    start: Annotated[str, typer.Option("--from", help="First instant, e.g. 2026-01-01 or 2026-01-01T06:00Z; UTC.")],
    end: Annotated[str, typer.Option("--to", help="Last instant, exclusive.")],
    as_json: Json = False,
) -> None:
    """Ask the configured provider for a zone's carbon intensity and print it. Nothing is stored."""
    from greenops_pipelines.carbon.sources import provider
    from greenops_pipelines.lake.query import as_objects

    low, high = _instant(start, "--from"), _instant(end, "--to")
    if low >= high:
        raise BadInput(f"--from {start}, --to {end}: found an empty range, allowed: --from before --to")
    if high - low > timedelta(days=_MAX_FETCH_DAYS):
        raise BadInput(f"--from {start}, --to {end}: found {(high - low).days:,} days, allowed: {_MAX_FETCH_DAYS:,}")
    source = provider(load_settings())
    if not source.covers(zone):
        raise BadInput(f"--zone: found {zone!r}, which the provider {source.name} does not have; zones look like DE")
    rows = source.history(zone, low, high)
    if as_json:
        _print_json(
            {"provider": source.name, "zone": zone, "is_sample": source.name == "sample", "rows": as_objects(rows)}
        )
        return
    from greenops_pipelines.console import show_rows

    show_rows(rows.select(["datetime", "carbon_intensity_g_per_kwh", "is_estimated"]), f"{zone}, {source.name}")


@carbon.command()
def keda(
    zone: Annotated[str | None, typer.Option(help="Grid zone, e.g. DE.")] = None,
    region: Annotated[str | None, typer.Option(help="Or a region of ops/regions.yaml: its zone.")] = None,
    out: Annotated[str, typer.Option(help="A folder for <name>.yaml; - prints it.")] = "-",
    name: Annotated[str, typer.Option(help="Of the ConfigMap.")] = "carbon-intensity",
    namespace: Annotated[str, typer.Option(help="Of the ConfigMap.")] = "kube-system",
) -> None:
    """The forecast of a zone as a ConfigMap for the Carbon Aware KEDA Operator: `... | kubectl apply -f -`."""
    from greenops_pipelines import gitops
    from greenops_pipelines.carbon.keda import config_map
    from greenops_pipelines.carbon.regions import read_regions
    from greenops_pipelines.carbon.sources import signal_of

    if (zone is None) == (region is None):
        raise BadInput(f"--zone, --region: found {'neither' if zone is None else 'both'}, allowed: one of them")
    settings = load_settings()
    if region is not None:
        zones = {each.region: each.zone for each in read_regions(settings.ops_dir)}
        if region not in zones:
            raise BadInput(f"--region: found {region}, allowed: {', '.join(sorted(zones))}")
        zone = zones[region]
    outlook = _lake(settings).query("from carbon_outlook")
    text = config_map(
        outlook,
        zone or "",
        settings.carbon_provider,
        datetime.now(UTC),
        signal=signal_of(settings),
        name=name,
        namespace=namespace,
    )
    if out == "-":
        typer.echo(text, nl=False)
    else:
        gitops.put(Path(out), f"{name}.yaml", text)
        typer.echo(str(Path(out) / f"{name}.yaml"))


@cost.app.command("files")
def cost_files(as_json: Json = False) -> None:
    """Look at the configured bills: what each file comes to, whether it counts and why. Nothing is stored."""
    from greenops_pipelines.carbon.regions import read_regions, read_tenants
    from greenops_pipelines.cost.sources import find

    settings = load_settings()
    tenants = read_tenants(settings.ops_dir, read_regions(settings.ops_dir))
    found = find(settings, [(t.tenant, t.home_region) for t in tenants], datetime.now(UTC))
    cost.show_files(found, as_json)


@cost.app.command("report")
def cost_report(
    period: Annotated[
        str | None,
        typer.Option(
            help="2026-10 or 2026-W44; by default what is due: the newest months and week.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into instead of the home's reports/.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Render FinOps reports, and a month's statements per tenant, from what is in the lake. Bills are not looked at."""
    from greenops_pipelines.report import finops
    from greenops_pipelines.report.finops_reconciled import due
    from greenops_pipelines.report.periods import parse

    settings = load_settings()
    lake = _lake(settings)
    periods = [parse(period)] if period else due(lake)
    if not periods:
        raise BadInput("the lake has no bills; `greenops run` brings them in")
    target = out or settings.reports
    now = datetime.now(UTC)
    made = finops.write_reports(lake, target, periods, now, __version__)
    if out is None:
        finops.record(lake, target, made, now, periods)
    if as_json:
        document = [
            {
                "period": one.period.name,
                "file": str(one.path),
                "statements": len(one.statements),
                "sample_data": one.is_sample,
                "totals": {
                    currency: {"billed_cost": f"{billed:f}", "effective_cost": f"{effective:f}"}
                    for currency, (billed, effective) in sorted(one.totals.items())
                },
            }
            for one in made
        ]
        _print_json({"reports": document})
        return
    for one in made:
        beside = f", with {len(one.statements)} statements beside it" if one.statements else ""
        typer.echo(f"{one.path}{beside}{' (sample data)' if one.is_sample else ''}")


def _instant(text: str, option: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInput(
            f"{option}: found {text!r}, allowed: a date or time like 2026-01-01 or 2026-01-01T06:00Z"
        ) from None


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def main() -> None:
    """Entry point: errors raised on purpose become one line on stderr."""
    root = str(Path.cwd())
    if root not in sys.path:
        # assets/ and sensors/ are packages of the repository, not of the wheel.
        sys.path.insert(0, root)
    command = typer.main.get_command(app)
    try:
        # Not `app()`, which shows usage errors as a box of five lines and calls a closed pipe a failure.
        with command.make_context("greenops", sys.argv[1:]) as context:
            command.invoke(context)
            sys.stdout.flush()
    except typer.Exit as wanted:
        _leave(wanted.exit_code)
    except _UsageError as error:
        message = error.format_message()
        if message:  # empty where the help has been shown instead
            path = error.ctx.command_path if error.ctx else "greenops"
            sys.stderr.write(f"greenops: {' '.join(message.split())} (see {path} --help)\n")
        sys.exit(2)
    except (BadInput, ConfigurationError) as error:
        sys.stderr.write(f"greenops: {error}\n")
        sys.exit(2)
    except GreenopsError as error:
        sys.stderr.write(f"greenops: {error}\n")
        sys.exit(1)
    except BrokenPipeError:
        _abandon_stdout()
    except KeyboardInterrupt:
        sys.stderr.write("greenops: interrupted\n")
        sys.exit(130)


def _leave(code: int) -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
    sys.exit(code)


def _abandon_stdout() -> None:
    """The reader of a pipe went away (`greenops sql ... | head`): nothing is wrong, and nothing is left to say."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
