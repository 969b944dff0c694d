"""`greenops placement ...`: simulate, prove, plan, submit, launch, cancel. Thin: arguments in, the library's words out.

The root command hands down how settings become a lake (`context.obj()`): that is wired above this package.

Exit codes: 0 fine, 1 a promise is missed, 2 bad input. With `--json` one document goes to stdout and nothing else.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greenops_pipelines.errors import BadInput, ConfigurationError, ProviderError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenops_pipelines.placement.workloads import Workloads
    from greenops_pipelines.settings import Settings

app = typer.Typer(help="Carbon-aware placement: simulate, prove savings, plan, submit, launch.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
_STEPS = {"15m": 15, "30m": 30, "1h": 60, "60m": 60}


@app.command()
def simulate(
    intensity: Annotated[str, typer.Option(help="Intensity file or glob: the portal's CSV, or long CSV/Parquet.")],
    jobs: Annotated[Path, typer.Option(help="Jobs file, CSV or Parquet; its columns are in docs/placement.md.")],
    policy: Annotated[str, typer.Option(help="Policies, separated by commas; `all` for every one.")] = "all",
    capacity: Annotated[Path | None, typer.Option(help="zone, capacity_kw or zone, datetime, capacity_kw.")] = None,
    regions: Annotated[
        Path | None, typer.Option(help="PUE, transfer, embodied: ops/regions.yaml's form, or CSV.")
    ] = None,
    forecast: Annotated[str, typer.Option(help="perfect, persistence, ridge or noise:SHARE.")] = "perfect",
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    step: Annotated[str | None, typer.Option(help="Slot length, 15m, 30m or 1h; by default the file's own.")] = None,
    emission_factors: Annotated[str, typer.Option(help="lifecycle or direct, where the file has both.")] = "lifecycle",
    cost_weight: Annotated[float, typer.Option(help="gCO2e that one unit of money is worth in the objective.")] = 0.0,
    seconds: Annotated[float, typer.Option(help="Time for the search for the best plan.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Run policies against each other over the same jobs and the intensity that really came."""
    from greenops_pipelines.placement import files, policies, shown
    from greenops_pipelines.placement.simulator import simulate as run

    wanted = (
        list(policies.POLICIES) if policy == "all" else [name.strip() for name in policy.split(",") if name.strip()]
    )
    for name in wanted:
        if name not in policies.POLICIES:
            raise BadInput(f"--policy: found {name!r}, allowed: {', '.join(policies.POLICIES)}, all")
    if not wanted:
        raise BadInput(f"--policy: found nothing, allowed: {', '.join(policies.POLICIES)}, all")
    if step is not None and step not in _STEPS:
        raise BadInput(f"--step: found {step!r}, allowed: {', '.join(_STEPS)}")
    if emission_factors not in ("lifecycle", "direct"):
        raise BadInput(f"--emission-factors: found {emission_factors!r}, allowed: lifecycle, direct")
    for option, value in (("--cost-weight", cost_weight), ("--seconds", seconds), ("--seed", seed)):
        if not value >= 0:
            raise BadInput(f"{option}: found {value:g}, allowed: a number >= 0")
    with _handed_in():
        source = files.intensity(intensity, _STEPS[step] if step else None, emission_factors)
        table, notes = files.jobs(jobs, source.zones)
        limits, more = files.capacity(capacity, source)
        grid = files.grid(source, limits, files.regions(regions))
    if cost_weight and grid.price_per_kwh is None:
        raise BadInput(
            "--cost-weight: no prices are known, allowed: with a --regions file that has price_per_kwh for all zones"
        )
    found = run(table, grid, wanted, forecast=forecast, seed=seed, cost_weight_g=cost_weight, seconds=seconds)
    notes += [*more, *shown.notes(found)]
    for note in notes:
        sys.stderr.write(f"greenops: {note}\n")
    if as_json:
        _print_json(found.as_document() | {"step_minutes": grid.step // 60_000_000, "notes": notes})
    else:
        for line in shown.simulation(found):
            typer.echo(line)


@contextmanager
def _handed_in() -> Iterator[None]:
    """A file that somebody hands in and that does not fit is bad input, whichever reader says so."""
    try:
        yield
    except (ProviderError, ConfigurationError) as error:
        raise BadInput(str(error)) from None


@app.command()
def prove(
    context: typer.Context,
    intensity: Annotated[
        str | None, typer.Option(help="Intensity file or glob; by default the lake's, of the configured provider.")
    ] = None,
    weeks: Annotated[int, typer.Option(min=1, max=52, help="Weeks, spread evenly over the record.")] = 8,
    quick: Annotated[bool, typer.Option("--quick", help="Without the rows that take minutes.")] = False,
    as_json: Json = False,
) -> None:
    """Prove what carbon-aware placement saves (J2.5): real limits, forecasts only, an interval and a bound. Exit 1 below 20 %."""
    from greenops_pipelines.carbon.regions import read_regions
    from greenops_pipelines.placement import files, proof, shown
    from greenops_pipelines.placement.checks import SAVING_TARGET_PCT
    from greenops_pipelines.settings import load_settings

    settings = load_settings()
    regions = read_regions(settings.ops_dir)

    def progress(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    record: files.Series | None
    if intensity is None:
        provider = settings.carbon_provider
        record = proof.record(context.obj().lake(settings), regions)
    else:
        provider = "file"
        with _handed_in():
            record = files.intensity(intensity, 60)
    found = (
        None
        if record is None
        else proof.prove(record, regions, proof.factors(), weeks=weeks, extended=not quick, progress=progress)
    )
    rows = proof.table(found, provider)
    if not rows.num_rows:
        raise BadInput("found no 23 days of intensity for a home region, allowed: more of it, or --intensity FILE")
    if as_json:
        _print_json({"scenarios": [_plain(row) for row in rows.to_pylist()]})
    else:
        for line in shown.proof(rows):
            typer.echo(line)
    raise typer.Exit(0 if rows["saving_pct"][0].as_py() >= SAVING_TARGET_PCT else 1)


@app.command()
def plan(context: typer.Context, as_json: Json = False) -> None:
    """Plan everything that waits, now, and print it. Nothing is stored and nothing is launched."""
    from datetime import UTC, datetime

    from greenops_pipelines.carbon.outlook import outlook
    from greenops_pipelines.carbon.sources import signal_of
    from greenops_pipelines.placement import plan as planning
    from greenops_pipelines.placement import queue, shown
    from greenops_pipelines.placement.ledger import Ledger
    from greenops_pipelines.settings import load_settings

    settings, now = load_settings(), datetime.now(UTC)
    workloads = _workloads(settings)
    regions, tenants = workloads.declarations.regions, workloads.declarations.tenants
    signal = signal_of(settings)
    known = outlook(context.obj().lake(settings), settings.carbon_provider, {region.zone for region in regions}, now)
    found = planning.make(
        queue.waiting(settings, workloads, now),
        known.rows,
        regions,
        tenants,
        workloads.settings,
        now,
        busy=queue.busy(Ledger(settings.dispatches), now),
        signal=signal,
    )
    if as_json:
        _print_json(
            {
                "method": found.method,
                "signal": signal,
                "expected_g": found.expected_g,
                "baseline_g": found.baseline_g,
                "bound_g": found.bound_g,
                "gap_pct": found.gap_pct,
                "refused": found.refused,
                "work": [_plain(row) | {"runs": json.loads(row["runs"])} for row in found.rows.to_pylist()],
            }
        )
        return
    for line in shown.plan(found.rows):
        typer.echo(line)
    for key, why in found.refused.items():
        typer.echo(f"{key}: may run nowhere: {why}")
    typer.echo(
        f"\n{found.rows.num_rows} pieces of work: {found.expected_g / 1000:,.2f} kgCO2e expected, "
        f"{found.baseline_g / 1000:,.2f} kg at home at once{' (marginal)' if signal == 'marginal' else ''}; above the bound by {found.gap_pct:.2f} % at most "
        f"({found.method})."
    )


@app.command()
def submit(
    source: Annotated[str, typer.Argument(help="A JSON or YAML file with one submission; - reads stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, accept nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Submit one piece of work. Each key is accepted once; the same again is no error."""
    from greenops_pipelines.placement.submissions import submit_text
    from greenops_pipelines.settings import load_settings

    if source == "-":
        content = sys.stdin.buffer.read()
    else:
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise BadInput(f"{source}: found {error.strerror}, allowed: a file that can be read, or -") from None
    done = submit_text(load_settings(), content, source, dry_run=dry_run)
    if as_json:
        _print_json(done.as_document())
        return
    request = done.request
    typer.echo(
        f"{request.key}: {done.state}; {request.duration_minutes} min between "
        f"{request.earliest_start:%Y-%m-%d %H:%M} and {request.deadline:%Y-%m-%d %H:%M} UTC, in {', '.join(request.regions)}"
    )


@app.command()
def due(context: typer.Context, as_json: Json = False) -> None:
    """What the daemon would launch now, the most pressing first. Nothing is launched."""
    from datetime import UTC, datetime

    from greenops_pipelines.placement.due import find
    from greenops_pipelines.placement.ledger import Ledger
    from greenops_pipelines.settings import load_settings

    settings = load_settings()
    found = find(context.obj().lake(settings), Ledger(settings.dispatches), datetime.now(UTC), limit=1_000_000)
    if as_json:
        rows = [_plain(asdict(each)) for each in found.due]
        _print_json({"due": rows, "missed_slot": found.missed_slot, "refused": found.refused})
        return
    for each in found.due:
        typer.echo(f"{each.key}: {each.region}, by {each.latest_start:%Y-%m-%d %H:%M} UTC at the latest; {each.reason}")
    typer.echo(
        f"{len(found.due)} due; {found.missed_slot} missed their hour and wait for a new plan; {found.refused} refused"
    )


@app.command()
def launch(
    context: typer.Context, key: Annotated[str, typer.Argument(help="Key of work that is due.")], as_json: Json = False
) -> None:
    """One attempt at a piece of work that is due, from here instead of the daemon; recorded all the same."""
    from datetime import UTC, datetime

    from greenops_pipelines.placement import launching
    from greenops_pipelines.settings import load_settings

    settings = load_settings()
    work = _workloads(settings)
    report = launching.launch(settings, context.obj().lake(settings), work, key, "", lambda: datetime.now(UTC))
    if as_json:
        _print_json({name: value for name, value in asdict(report).items() if name != "tags"})
    else:
        typer.echo(f"{key}: {report.state}: {report.detail}")
    raise typer.Exit(1 if report.is_bad else 0)


@app.command()
def cancel(
    key: Annotated[str, typer.Argument(help="Key of the work.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the ledger.")] = "cancelled by a person",
) -> None:
    """Never launch a piece of work (again). What runs now is ended in the UI first."""
    from datetime import UTC, datetime

    from greenops_pipelines.placement import launching
    from greenops_pipelines.settings import load_settings

    settings = load_settings()
    done = launching.cancel(settings, _workloads(settings), key, reason, datetime.now(UTC))
    typer.echo(f"{key}: {'cancelled' if done else 'was closed before'}")


@app.command()
def ledger(
    context: typer.Context,
    key: Annotated[str | None, typer.Option("--key", help="Only this piece of work.")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """What was decided and done: each piece of work with its attempts, outcome, and the saving once it is settled."""
    from greenops_pipelines.placement import shown
    from greenops_pipelines.placement.ledger import Ledger
    from greenops_pipelines.settings import load_settings

    found = shown.history(context.obj().lake(load_settings()), Ledger(load_settings().dispatches), key, limit)
    if as_json:
        _print_json({"work": [_plain(row) for row in found]})
        return
    for line in shown.ledger(found):
        typer.echo(line)


def _workloads(settings: Settings) -> Workloads:
    from greenops_pipelines.placement.workloads import read_workloads

    return read_workloads(settings.ops_dir)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
