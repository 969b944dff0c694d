"""`greenops replica ...`: copy, list, verify, restore, prune. Thin: arguments in, the library's words out.

Exit codes: 0 fine, 1 a copy is damaged or a restore is not what was copied, 2 bad input.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from greenops_pipelines.settings import load_settings

app = typer.Typer(help="The second copy of this platform's state, and the way back.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Snapshot = Annotated[str | None, typer.Option(help="By default the newest.", show_default=False)]


@app.command()
def copy(context: typer.Context, as_json: Json = False) -> None:
    """Take a copy now. What has not changed costs nothing again; nothing needs to be stopped."""
    done = context.obj().copy_home(load_settings())
    if as_json:
        parts = {name: {"files": part.files, "bytes": part.bytes} for name, part in done.copied.parts.items()}
        _print_json(dict(done.figures) | {"parts": parts})
        return
    for name, value in done.figures.items():
        typer.echo(f"{name:<22}{value:,}" if isinstance(value, int) else f"{name:<22}{value}")


@app.command("list")
def show(context: typer.Context, as_json: Json = False) -> None:
    """The copies that are there, newest first."""
    from greenops_pipelines.errors import GreenopsError
    from greenops_pipelines.recovery import snapshots

    place = context.obj().vault(load_settings())
    listed = []
    for name in sorted(snapshots.ids(place), reverse=True):
        row: dict[str, Any] = {"snapshot": name, "region": "", "files": 0, "bytes": 0, "fault": None}
        try:
            each = snapshots.read(place, name)
        except GreenopsError as error:
            # The others are still there.
            row["fault"] = str(error)
        else:
            row |= {
                "taken_at": each.taken_at.isoformat(),
                "home_region": each.source_region,
                "region": each.target_region,
                "files": len(each.files),
                "bytes": sum(file.size for file in each.files),
            }
        listed.append(row)
    if as_json:
        _print_json({"place": place.place, "snapshots": listed})
        return
    for row in listed:
        typer.echo(
            f"{row['snapshot']}  {row['region']}  {row['files']:>7,} files  {row['bytes']:>15,} bytes  {row['fault'] or ''}"
        )


@app.command()
def verify(context: typer.Context, snapshot: Snapshot = None, as_json: Json = False) -> None:
    """Read every chunk of a copy, and hold it against its digest."""
    from greenops_pipelines.recovery.replica_upkeep import verify as verified

    found = verified(context.obj().vault(load_settings()), snapshot)
    if as_json:
        _print_json(
            {name: list(v) if isinstance(v, tuple) else v for name, v in vars(found).items()} | {"ok": found.ok}
        )
    else:
        for name, value in vars(found).items():
            typer.echo(f"{name:<12}{', '.join(value) or 'none' if isinstance(value, tuple) else value}")
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def restore(
    context: typer.Context,
    into: Annotated[Path, typer.Option(help="An empty folder, which becomes a home.", show_default=False)],
    snapshot: Snapshot = None,
    as_json: Json = False,
) -> None:
    """Make a copy a home again, each file held against its digest, and look whether it is usable.

    Private keys are in no copy: put them back into HOME/keys from where you keep them.
    """
    from greenops_pipelines.recovery.restore import restore as restored
    from greenops_pipelines.recovery.restored import prove

    settings, wired = load_settings(), context.obj()
    done = restored(wired.vault(settings), into, snapshot)
    # What differs from the copy is no home: it is said, and not looked into.
    proven = prove(into, wired.lake_in(settings, into.absolute())) if done.ok else None
    faults = list(proven.faults) if proven else ["what was restored differs from the copy"]
    document = {
        "snapshot": done.snapshot,
        "files": done.files,
        "bytes": done.bytes,
        "seconds": round(done.seconds + (proven.seconds if proven else 0), 3),
        "parts": {
            name: {
                "digest_of_the_copy": part.expected,
                "digest_restored": part.found,
                "equal": part.expected == part.found,
            }
            for name, part in done.parts.items()
        },
        "databases": dict(proven.databases) if proven else {},
        "runs": proven.runs if proven else None,
        "bundles_verified": proven.bundles if proven else 0,
        "faults": faults,
    }
    if as_json:
        _print_json(document)
    else:
        typer.echo(f"{into}: {done.files:,} files, {done.bytes:,} bytes of {done.snapshot} in {document['seconds']} s")
        for name, part in done.parts.items():
            same = "equal" if part.expected == part.found else f"DIFFERS: {part.differs}"
            typer.echo(f"{name:<12}{part.files:>8,} files  {part.found}  {same}")
        if proven:
            typer.echo(f"{len(proven.databases)} databases, {proven.runs} runs, {proven.bundles} bundles verified")
        for fault in faults:
            typer.echo(f"fault: {fault}")
    raise typer.Exit(1 if faults else 0)


@app.command()
def prune(context: typer.Context, as_json: Json = False) -> None:
    """Let go of old copies: all of 48 hours stay, one a day of 35 days, one a month of 13 months."""
    from greenops_pipelines.recovery.replica_upkeep import prune as pruned

    settings = load_settings()
    done = pruned(context.obj().vault(settings), settings.home, datetime.now(UTC))
    shown = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(done).items()}
    if as_json:
        _print_json(shown)
        return
    for name, value in shown.items():
        typer.echo(f"{name:<12}{value}")


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
