"""`greenops slo budget` and `incidents`: what is left of each error budget, and what spent it. Thin: arguments in, tables out.

Exit codes: 0 fine, 1 a budget is overspent (`budget`) or an incident is open (`incidents --open`), 2 bad input. With `--json` one
document goes to stdout and nothing else.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Annotated, Any

import typer

from greenops_pipelines.errors import BadInput
from greenops_pipelines.settings import load_settings

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]

_COLOURS = {"red": "red", "yellow": "yellow", "green": "green"}
_SAMPLE = "sample data: GREENOPS_PROMETHEUS_URL names yours"


def budget(
    context: typer.Context,
    service: Annotated[str | None, typer.Option(help="Of this service alone.", show_default=False)] = None,
    period: Annotated[
        str, typer.Option(help="rolling, month or quarter: calendar ones in the declared zone.")
    ] = "rolling",
    as_json: Json = False,
) -> None:
    """Say what is left of each SLO's error budget, the emptiest first. Exit 1 if one is overspent."""
    from greenops_pipelines.slo import budget_listing

    chosen = next((each for each in budget_listing.PERIODS if each == period), None)
    if chosen is None:
        raise BadInput(f"--period: found {period!r}, allowed: {', '.join(budget_listing.PERIODS)}")
    rows = budget_listing.budgets(_ask(context), chosen, service)
    if as_json:
        _print_json({"period": chosen, "budgets": rows})
    else:
        _show_budgets(rows, chosen)
    raise typer.Exit(1 if any(row["status"] == "red" for row in rows) else 0)


def incidents(
    context: typer.Context,
    only_open: Annotated[bool, typer.Option("--open", help="Those that go on; exit 1 if there is one.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 30,
    as_json: Json = False,
) -> None:
    """Incidents that burning budgets opened: when, how fast, what they spent, who was told, and their evidence."""
    from greenops_pipelines.slo import budget_listing

    rows = budget_listing.incidents(_ask(context), limit, only_open)
    if as_json:
        _print_json({"incidents": rows})
    else:
        _show_incidents(rows)
    raise typer.Exit(1 if only_open and rows else 0)


def _ask(context: typer.Context) -> Any:
    from greenops_pipelines.lake import query

    settings = load_settings()
    return functools.partial(query.run, settings.warehouse, context.obj().storage(settings))


def _show_budgets(rows: list[dict[str, Any]], period: str) -> None:
    from rich.text import Text

    if not rows:
        typer.echo("no minute is counted yet: `greenops run` counts them")
        return
    is_rolling = period == "rolling"
    names = [
        "slo",
        "objective %",
        "left %",
        *(["Sloth's %", "burn 1h", "burn 6h"] if is_rolling else []),
        "events left",
        "gaps min",
        "unread min",
    ]
    table = _table(names, first=1)
    for row in rows:
        left = Text(_figure(row["left_percent"], 1), style=_COLOURS.get(row["status"], "dim"))
        more = (
            [_figure(row["sloth_left_percent"], 1), _figure(row["burn_1h"], 2), _figure(row["burn_6h"], 2)]
            if is_rolling
            else []
        )
        table.add_row(
            row["slo_id"],
            f"{row['objective']:g}",
            left,
            *more,
            _figure(row["budget_remaining"], 0),
            f"{row['gap_minutes']:,}",
            f"{row['unread_minutes']:,}",
        )
    _print(table)
    first, through = min(row["first_minute"] for row in rows), max(row["through"] for row in rows)
    words = f"{first} through {through}"
    if not is_rolling:
        words = f"{period} from {max(row['period_start'] for row in rows)} until {max(row['ends_at'] for row in rows)}: {words}"
    typer.echo(f"{words}; {sum(row['status'] == 'red' for row in rows)} of {len(rows)} overspent")
    if any(row["is_sample"] for row in rows):
        typer.echo(_SAMPLE)


def _show_incidents(rows: list[dict[str, Any]]) -> None:
    if not rows:
        typer.echo("no incident")
        return
    table = _table(["slo", "severity", "opened", "closed", "told", "peak burn", "budget spent %"], first=5)
    for row in rows:
        closed = f"{row['closed_at']:%Y-%m-%d %H:%M}" if row["closed_at"] else "open"
        table.add_row(
            row["slo_id"],
            row["severity"],
            f"{row['opened_at']:%Y-%m-%d %H:%M}",
            closed,
            row["told"],
            _figure(row["peak_burn"], 1),
            _figure(row["budget_spent_percent"], 2),
        )
    _print(table)


def _table(names: list[str], first: int) -> Any:
    """A table whose columns after the first ones are figures."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number < first else "right", overflow="fold")
    return table


def _print(table: Any) -> None:
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")


def _plain(value: Any) -> str:
    return str(value.isoformat())
