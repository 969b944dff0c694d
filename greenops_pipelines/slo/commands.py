"""`greenops slo ...`: generate and validate with Sloth's own flags, certify. Thin: arguments in, the library's words out.

Not here: canaries (`drill_commands.py`), budgets and incidents (`budget_commands.py`).

Exit codes: 0 fine, 1 a file is not valid (`validate`), 2 bad input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import budget_commands, drill_commands

if TYPE_CHECKING:
    from greenops_pipelines.slo.certificates import Row
    from greenops_pipelines.slo.generate import Job
    from greenops_pipelines.slo.rules import Options

app = typer.Typer(
    help="Service level objectives: generate rules, validate, certify alerts; error budgets and incidents; canaries.",
    no_args_is_help=True,
)
app.command("budget")(budget_commands.budget)
app.command("incidents")(budget_commands.incidents)
app.command("canary")(drill_commands.canary)
app.command("drill")(drill_commands.drill)
app.command("drills")(drill_commands.drilled)

Labels = Annotated[
    list[str] | None, typer.Option("--extra-labels", "-l", help="key=value added to all recording rules; repeatable.")
]
Include = Annotated[str | None, typer.Option("--fs-include", "-n", help="Only paths that match this expression.")]
Exclude = Annotated[str | None, typer.Option("--fs-exclude", "-e", help="No paths that match it; has preference.")]
Period = Annotated[str, typer.Option("--default-slo-period", help="Period of SLOs that name none: 30d, 28d, ...")]
WindowsPath = Annotated[
    Path | None, typer.Option("--slo-period-windows-path", help="Folder of AlertWindows files; replaces the defaults.")
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugins-path", "--sli-plugins-path", "-p", help="Taken for compatibility: plugins are Go and never run."
    ),
]
Allow100 = Annotated[bool, typer.Option("--allow-objective-100", help="Take an objective of 100, as Sloth does.")]


@app.command()
def generate(
    source: Annotated[Path, typer.Option("--input", "-i", help="An SLO file, or a folder of them.")],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Where to: - is stdout; a folder where the input is one.")
    ] = "-",
    extra_labels: Labels = None,
    include: Include = None,
    exclude: Exclude = None,
    disable_recordings: Annotated[bool, typer.Option("--disable-recordings", help="No recording rules.")] = False,
    disable_alerts: Annotated[bool, typer.Option("--disable-alerts", help="No alert rules.")] = False,
    disable_optimized_rules: Annotated[
        bool, typer.Option("--disable-optimized-rules", help="The period's SLI from raw queries.")
    ] = False,
    default_slo_period: Period = "30d",
    windows_path: WindowsPath = None,
    plugins_path: Plugins = None,
    sloth_version: Annotated[
        str | None, typer.Option("--sloth-version", help="What stands for Sloth's version in header and labels.")
    ] = None,
    allow_objective_100: Allow100 = False,
) -> None:
    """Generate Prometheus rules: what `sloth generate` prints for the same input, byte for byte."""
    from greenops_pipelines.slo import generate as library
    from greenops_pipelines.slo.rules import Options

    options = Options(
        extra_labels=_labels(extra_labels),
        recordings=not disable_recordings,
        alerts=not disable_alerts,
        optimized=not disable_optimized_rules,
        version=sloth_version or library.DEFAULT_VERSION,
    )
    job = _job(default_slo_period, windows_path, options, allow_objective_100)
    if not source.is_dir():
        text = library.generated(source, job)
        if out == "-":
            sys.stdout.write(text)
        else:
            library.write(Path(out), text)
        return
    target = Path(out)
    if out == "-" or not target.is_dir():
        raise BadInput(f"--out: found {out}, allowed: a folder, since {source} is one")
    if target.resolve() == source.resolve():
        raise BadInput(f"--out: found the input folder {out}, allowed: another one")
    written = {
        target / path.relative_to(source): library.generated(path, job)
        for path in library.discovered(source, include, exclude)
    }
    for path, text in written.items():
        library.write(path, text)


@app.command()
def validate(
    source: Annotated[Path, typer.Option("--input", "-i", help="An SLO file, or a folder of them.")],
    include: Include = None,
    exclude: Exclude = None,
    extra_labels: Labels = None,
    ignore_slo_duplicates: Annotated[
        bool, typer.Option("--ignore-slo-duplicates", help="The same SLO may stand in several files.")
    ] = False,
    default_slo_period: Period = "30d",
    windows_path: WindowsPath = None,
    plugins_path: Plugins = None,
    allow_objective_100: Allow100 = False,
) -> None:
    """Validate SLO files, and that rules can be generated. One line per fault; exit 1 if there is one."""
    from greenops_pipelines.slo import generate as library
    from greenops_pipelines.slo.rules import Options

    job = _job(default_slo_period, windows_path, Options(extra_labels=_labels(extra_labels)), allow_objective_100)
    paths = library.discovered(source, include, exclude)
    bad = 0
    for _, found in library.faults(paths, job, ignore_duplicates=ignore_slo_duplicates):
        bad += bool(found)
        for fault in found:
            sys.stderr.write(f"greenops: {fault}\n")
    if bad:
        sys.stderr.write(f"greenops: {bad} of {len(paths)} files are not valid\n")
        raise typer.Exit(1)
    typer.echo(f"{len(paths)} {'file is' if len(paths) == 1 else 'files are'} valid")


@app.command()
def certify(
    profile: Annotated[
        str | None, typer.Option(help="workbook, user-table or sloth; by default each service's own.")
    ] = None,
    objective: Annotated[
        float | None, typer.Option(help="For one objective, percent, instead of the declared SLOs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")] = False,
) -> None:
    """Say when each burn-rate alert fires, what is burnt by then, when it stops, and which burns never alert."""
    from greenops_pipelines.slo import certificates

    rows = _rows(profile, objective)
    if as_json:
        document = {
            "certificates": [
                {"slo": row.name, "is_chosen": row.is_chosen, **row.certificate.as_document()} for row in rows
            ]
        }
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    for number, row in enumerate(rows):
        typer.echo(("\n" if number else "") + certificates.title(row))
        for line in certificates.lines(row):
            typer.echo(f"  {line}")


def _rows(profile: str | None, objective: float | None) -> list[Row]:
    from greenops_pipelines.slo import certificates, rendering
    from greenops_pipelines.slo.profiles import DEFAULT_PROFILE

    if objective is not None:
        return [certificates.of_objective(objective, profile or DEFAULT_PROFILE)]
    from greenops_pipelines.settings import load_settings

    found = rendering.read(load_settings().ops_dir)
    if profile is None:
        return [row for row in found.certificates if row.is_chosen]
    return certificates.of_slos(found.slos, found.chosen, [profile])


def _job(period: str, windows_path: Path | None, options: Options, allow_objective_100: bool) -> Job:
    from greenops_pipelines.slo import durations, windows
    from greenops_pipelines.slo.generate import Job

    try:
        parsed = durations.parse(period)
    except BadInput as error:
        raise BadInput(f"--default-slo-period: {error}") from None
    catalogue = windows.DEFAULT if windows_path is None else windows.read_folder(windows_path)
    return Job(parsed, catalogue, options, allow_objective_100)


def _labels(pairs: list[str] | None) -> dict[str, str]:
    found = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not key or not equals or not value or "\n" in pair:
            raise BadInput(f"--extra-labels: found {pair!r}, allowed: key=value")
        found[key] = value
    return found
