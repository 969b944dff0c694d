"""What the command line shows to people: progress, tables, the scorecard. Not here: what is shown."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from greenops_pipelines.doctor import Finding
from greenops_pipelines.settings import Settings

_COLOURS = {
    "met": "green",
    "missed": "bold red",
    "stale": "yellow",
    "cannot be measured here": "yellow",
    "not yet measured": "dim",
}
_MAX_ROWS = 200
_MAX_RECORDS = 50
_COLUMN_GAP = 3


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """A reader that has seen enough is no failure: `cli.main` ends quietly."""
        raise BrokenPipeError


def _out() -> Console:
    # Into a pipe or a file there is no window to fit: 80 columns would fold every line.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 150
    return _Console(highlight=False, width=width)


def show_rows(rows: pa.Table, title: str | None = None) -> None:
    """A result as a table, or one column per line where it is wider than the window; long ones are cut, and say so."""
    if rows.column_names == ["explain_key", "explain_value"]:
        for value in rows["explain_value"].to_pylist():
            sys.stdout.write(f"{value}\n")
        return
    console = _out()
    names = [_printable(name) for name in rows.column_names]
    cells = [[_cell(value) for value in column.to_pylist()] for column in rows.slice(0, _MAX_ROWS).columns]
    widths = [max(map(_width, [Text(name), *column])) for name, column in zip(names, cells, strict=True)]
    if title:
        console.print(Text(title, "italic"))
    if sum(widths) + _COLUMN_GAP * len(widths) > console.width and rows.num_rows:
        shown = min(rows.num_rows, _MAX_RECORDS)
        _print_records(console, names, [column[:shown] for column in cells])
    else:
        shown = min(rows.num_rows, _MAX_ROWS)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name, kind in zip(names, rows.schema.types, strict=True):
            table.add_column(Text(name), justify="right" if _is_number(kind) else "left", overflow="fold")
        for row in zip(*cells, strict=True):
            table.add_row(*row)
        console.print(table)
    if rows.num_rows > shown:
        console.print(f"[dim]{shown} of {rows.num_rows:,} rows shown; --json and --csv give all[/dim]")
    elif not rows.num_rows:
        console.print("[dim]no rows[/dim]")


def _print_records(console: Console, names: Sequence[str], columns: Sequence[Sequence[Text]]) -> None:
    longest = max(map(cell_len, names))
    for number, row in enumerate(zip(*columns, strict=True), 1):
        console.print(Text(f"-[ row {number} ]".ljust(longest + 20, "-"), "dim"))
        for name, cell in zip(names, row, strict=True):
            label = name + " " * (longest - cell_len(name))
            console.print(Text.assemble((label, "bold"), "  ", cell), soft_wrap=True)


def _width(cell: Text) -> int:
    return max(map(cell_len, cell.plain.split("\n")))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _cell(value: Any) -> Text:
    return Text("null", "dim") if value is None else Text(_printable(_text(value)))


def _printable(text: str) -> str:
    """Nothing that stands in the data moves the cursor or changes the window's title."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        zone = "" if value.tzinfo is None else "Z"
        return value.strftime("%Y-%m-%d %H:%M" if not value.second else "%Y-%m-%d %H:%M:%S") + zone
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".") if 1e-4 <= abs(value) < 1e15 or value == 0 else f"{value:.6g}"
    return str(value)


def show_scorecard(rows: pa.Table) -> None:
    """The scorecard with one colour per verdict, and the counts below."""
    from greenops_pipelines.report.scorecard import counts

    table = Table(title="Scorecard", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in (
        ("", "left"),
        ("Promise", "left"),
        ("Target", "right"),
        ("Measured", "right"),
        ("Verdict", "left"),
        ("Checked", "left"),
    ):
        table.add_column(name, justify=justify, no_wrap=name in {"", "Checked"}, overflow="fold")  # type: ignore[arg-type]
    for row in rows.to_pylist():
        measured = "" if row["measured"] is None else f"{row['measured']:.5g}"
        verdict = row["verdict"] + (
            f": {row['missing']} is missing" if row["verdict"] == "cannot be measured here" else ""
        )
        table.add_row(
            row["id"],
            row["criterion"],
            f"{row['comparison']} {row['target']:g} {row['unit']}",
            measured,
            Text(verdict, _COLOURS[row["verdict"]]),
            f"{row['checked_at']:%m-%d %H:%M}" if row["checked_at"] else "",
            style="dim" if row["verdict"] == "not yet measured" else None,
        )
    console = _out()
    console.print(table)
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts(rows).items() if count))


def show_findings(findings: Sequence[Finding]) -> None:
    """What `doctor` found, with the line to add where something is missing."""
    colours = {"fine": "green", "missing": "yellow", "broken": "bold red"}
    table = Table(show_header=False, box=None, pad_edge=False)
    for finding in findings:
        advice = [(f"\n-> {finding.advice}", "dim")] if finding.advice else []
        table.add_row(
            Text(finding.state, colours[finding.state]),
            finding.subject,
            Text.assemble(finding.detail, *advice),
        )
    _out().print(table)


def run_with_progress(settings: Settings, select: str | None, only_list: bool) -> int:
    """`greenops run`: returns the exit code."""
    console = _out()
    begun = time.monotonic()
    with console.status("loading the graph ..."):
        from greenops_pipelines.integrations import once

        once.prepare_home(settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from greenops_pipelines.definitions import defs

            planned = once.plan(defs, settings, select, datetime.now(UTC))
    if only_list:
        for key in [*planned.daily, *planned.by_image, *planned.others, *planned.beside, *planned.after]:
            days = f"  {planned.first} to {planned.last}" if key in planned.daily else ""
            console.print(f"{key.to_user_string()}[dim]{days}[/dim]")
        return 0
    _announce(console, settings, planned)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = _with_bar(console, planned, lambda progress: once.run(defs, planned, settings, progress))
    for kind, lines in (("failed", outcome.failures), ("check failed", outcome.errors), ("warning", outcome.warnings)):
        for line in lines:
            console.print(
                Text.assemble((kind, "yellow" if kind == "warning" else "bold red"), " ", line), soft_wrap=True
            )
    _finish(console, settings, time.monotonic() - begun)
    return 0 if outcome.ok else 1


def _announce(console: Console, settings: Settings, planned: Any) -> None:
    sample = " [yellow](sample data)[/]" if settings.carbon_provider == "sample" else ""
    console.print(
        f"{planned.assets} assets, {planned.first} to {planned.last}; carbon intensity from {settings.carbon_provider}{sample}"
    )


def _with_bar(console: Console, planned: Any, work: Any) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=planned.assets)

        def progress(name: str) -> None:
            if name.endswith(" ..."):
                bar.update(task, description=name)
                return
            bar.update(task, advance=1, description=name)
            if not console.is_terminal:
                done = int(bar.tasks[0].completed)
                console.print(Text(f"[{done}/{planned.assets}] {name}"))

        outcome = work(progress)
        bar.update(task, description="done")
    return outcome


def _finish(console: Console, settings: Settings, seconds: float) -> None:
    from greenops_pipelines import wiring
    from greenops_pipelines.report.carbon import FILE_NAME
    from greenops_pipelines.report.finops import FOLDER
    from greenops_pipelines.report.recovery import FILE_NAME as RECOVERY
    from greenops_pipelines.report.scorecard import scorecard

    show_scorecard(scorecard(wiring.lake(settings), datetime.now(UTC)))

    def near(path: Path) -> str:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

    console.print(f"done in {seconds:.0f} s")
    finops = sorted((settings.reports / FOLDER).glob("*.html"))
    for path in (settings.reports / FILE_NAME, settings.reports / RECOVERY, *finops):
        if path.exists():
            console.print(f"report   {near(path)}", soft_wrap=True)
    console.print(
        f'SQL      {near(settings.warehouse)}   greenops sql "select * from emissions_daily limit 5"', soft_wrap=True
    )
    console.print(f"UI       make up, then http://127.0.0.1:{settings.ui_port}", soft_wrap=True)


def serve(settings: Settings) -> int:
    """`greenops up`: UI and daemon as children of this process, until it is told to stop."""
    from greenops_pipelines.integrations.server import serve_until_stopped

    return serve_until_stopped(settings, _out().print)
