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
from rich.console import Console
from rich.table import Table

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


def _out() -> Console:
    # Into a pipe or a file there is no window to fit: 80 columns would fold every line.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 150
    return Console(highlight=False, width=width)


def show_rows(rows: pa.Table, title: str | None = None) -> None:
    """A result as a table; long ones are cut, and say so."""
    console = _out()
    numeric = [pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t) for t in rows.schema.types]
    if rows.column_names == ["explain_key", "explain_value"]:
        for value in rows["explain_value"].to_pylist():
            sys.stdout.write(f"{value}\n")
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, is_number in zip(rows.column_names, numeric, strict=True):
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in zip(*(column.to_pylist() for column in rows.slice(0, _MAX_ROWS).columns), strict=True):
        table.add_row(*("[dim]null[/dim]" if v is None else _text(v) for v in row))
    console.print(table)
    if rows.num_rows > _MAX_ROWS:
        console.print(f"[dim]{_MAX_ROWS} of {rows.num_rows:,} rows shown; --json and --csv give all[/dim]")


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ").replace(":00Z", "Z")
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".") if abs(value) >= 1e-4 or value == 0 else f"{value:.6g}"
    return str(value).replace("[", "\\[")


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
        table.add_column(name, justify=justify, no_wrap=name in {"", "Checked"})  # type: ignore[arg-type]
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
            f"[{_COLOURS[row['verdict']]}]{verdict}[/]",
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
        advice = f"\n[dim]-> {finding.advice}[/dim]" if finding.advice else ""
        table.add_row(
            f"[{colours[finding.state]}]{finding.state}[/]",
            finding.subject,
            finding.detail.replace("[", "\\[") + advice,
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
        for key in [*planned.daily, *planned.others]:
            days = f"  {planned.first} to {planned.last}" if key in planned.daily else ""
            console.print(f"{key.to_user_string()}[dim]{days}[/dim]")
        return 0
    _announce(console, settings, planned)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = _with_bar(console, planned, lambda progress: once.run(defs, planned, progress))
    for kind, lines in (("failed", outcome.failures), ("check failed", outcome.errors), ("warning", outcome.warnings)):
        for line in lines:
            console.print(
                f"[{'yellow' if kind == 'warning' else 'bold red'}]{kind}[/] {line}".replace("\\", "\\\\"),
                soft_wrap=True,
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
                console.print(f"[{done}/{planned.assets}] {name}".replace("[", "\\[", 1))

        outcome = work(progress)
        bar.update(task, description="done")
    return outcome


def _finish(console: Console, settings: Settings, seconds: float) -> None:
    from greenops_pipelines import wiring
    from greenops_pipelines.report.carbon import FILE_NAME
    from greenops_pipelines.report.scorecard import scorecard

    show_scorecard(scorecard(wiring.lake(settings), datetime.now(UTC)))

    def near(path: Path) -> str:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

    console.print(f"done in {seconds:.0f} s")
    console.print(f"report   {near(settings.reports / FILE_NAME)}", soft_wrap=True)
    console.print(
        f'SQL      {near(settings.warehouse)}   greenops sql "select * from emissions_daily limit 5"', soft_wrap=True
    )
    console.print(f"UI       make up, then http://127.0.0.1:{settings.ui_port}", soft_wrap=True)


def serve(settings: Settings) -> int:
    """`greenops up`: UI and daemon as children of this process, until it is told to stop."""
    from greenops_pipelines.integrations.server import serve_until_stopped

    return serve_until_stopped(settings, _out().print)
