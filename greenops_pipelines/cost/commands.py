"""`greenops cost`: files of charges against the specification, and what they come to. Nothing is stored."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greenops_pipelines.errors import BadInput

if TYPE_CHECKING:
    from greenops_pipelines.cost.sources import Found
    from greenops_pipelines.cost.summarise import Summary
    from greenops_pipelines.cost.validate import Validation

app = typer.Typer(help="Cloud cost: FOCUS files, reconciliation, reports.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
File = Annotated[Path, typer.Argument(help="CSV, CSV.gz or Parquet.", show_default=False)]
_SHOWN = 40


@app.command()
def validate(
    file: File,
    spec: Annotated[
        str | None, typer.Option(help="Version of FOCUS: 1.0 to 1.4; by default the one its columns point to.")
    ] = None,
    rule: Annotated[list[str] | None, typer.Option(help="Ask this rule only; may be repeated.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Every rule, not only those that failed.")] = False,
    as_json: Json = False,
) -> None:
    """Hold a file against the rules of FOCUS. Exit 1 if one that MUST hold does not."""
    from greenops_pipelines.cost.validate import validate as held

    done = held(file, spec, rule or ())
    if as_json:
        _print_json(done.as_document())
    else:
        _show(done, show_all)
    raise typer.Exit(0 if done.conforms else 1)


@app.command()
def summarise(
    file: File,
    by: Annotated[
        str, typer.Option(help="Of provider, service, region, month, category, sub_account; separated by commas.")
    ] = "provider,service,region,month",
    as_json: Json = False,
) -> None:
    """What a file comes to, to the last digit: billed and effective cost, per currency."""
    from greenops_pipelines.cost.summarise import summarise as summed

    names = [name.strip() for name in by.split(",") if name.strip()]
    if not names:
        raise BadInput("--by: found nothing, allowed: one name or more")
    done = summed(file, names)
    if as_json:
        _print_json(done.as_document())
    else:
        _show_sums(done)


def show_files(found: Found, as_json: bool) -> None:
    """Every file of the source, what it comes to, whether it counts and why. Nothing is stored."""
    from greenops_pipelines.cost.ingest import look
    from greenops_pipelines.cost.summarise import text

    _, verdicts = look(found)
    listed = [
        {
            "name": v.file.name,
            "billing_period": f"{part.period:%Y-%m}",
            "provider": part.provider,
            "currency": part.currency,
            "charges": part.charges,
            "billed_cost": text(part.billed),
            "effective_cost": text(part.effective),
            "format": v.file.format,
            "state": v.state,
            "counts_instead": v.instead,
            "reason": v.reason,
        }
        for v in verdicts
        for part in v.file.parts
        if part.key == v.key
    ]
    if as_json:
        _print_json({"source": found.source, "files": listed, "notes": list(found.notes)})
        return
    for note in found.notes:
        typer.echo(note)
    for row in listed:
        sums = f"{row['billed_cost']} {row['currency']}"
        instead = f": {row['counts_instead']}" if row["counts_instead"] else ""
        typer.echo(f"{row['state']:<12}{row['billing_period']}  {sums:>28}  {row['name']}: {row['reason']}{instead}")


def _show(done: Validation, show_all: bool) -> None:
    counts = ", ".join(f"{count} {status}" for status, count in done.counts.items())
    typer.echo(f"{done.file}: FOCUS {done.spec}, {done.rows:,} rows; {counts}")
    if done.unknown_columns:
        typer.echo(f"columns that FOCUS does not have: {', '.join(done.unknown_columns)}")
    shown = [o for o in (done.outcomes if show_all else done.failed) if show_all or o.rule.kind != "all"]
    for outcome in shown if show_all else shown[:_SHOWN]:
        rows = f" {outcome.failing_rows:,} rows" if outcome.status == "failed" else ""
        typer.echo(f"{outcome.status:<15}{outcome.rule.level:<12}{outcome.rule.id}{rows}: {outcome.rule.text}")
        for example in outcome.examples:
            values = example.get("values")
            typer.echo(f"{'':15}{_example(example['row'], values) if values is not None else example['column']}")
    if not show_all and len(shown) > _SHOWN:
        typer.echo(f"... and {len(shown) - _SHOWN} more; --json gives all")


def _example(row: int, values: dict[str, Any]) -> str:
    listed = ", ".join(
        f"{name} {'null' if value is None else repr(value[:60])}" for name, value in list(values.items())[:4]
    )
    return f"row {row}: {listed}{', ...' if len(values) > 4 else ''}"


def _show_sums(done: Summary) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from greenops_pipelines.cost.summarise import text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in (*done.by, "currency"):
        table.add_column(name, overflow="fold")
    for name in ("billed", "effective", "charges"):
        table.add_column(name, justify="right")
    for row in done.rows.to_pylist():
        keys = ["" if row[name] is None else str(row[name]) for name in (*done.by, "currency")]
        table.add_row(*keys, text(row["billed_cost"]), text(row["effective_cost"]), f"{row['charges']:,}")
    for row in done.totals.to_pylist():
        empty = [""] * (len(done.by) - 1)
        table.add_row(
            "total",
            *empty,
            row["currency"] or "",
            text(row["billed_cost"]),
            text(row["effective_cost"]),
            f"{row['charges']:,}",
            style="bold",
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
