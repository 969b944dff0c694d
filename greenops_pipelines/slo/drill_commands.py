"""`greenops slo canary`, `drill`, `drills`: certificates of canaries, and drills that measure them. Thin: arguments in, words out.

Exit codes: 0 fine, 1 a drill failed, 2 bad input. With `--json` one document goes to stdout and nothing else; progress goes to
stderr.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from greenops_pipelines.errors import BadInput
from greenops_pipelines.settings import load_settings

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]


def canary(context: typer.Context, as_json: Json = False) -> None:
    """Say how soon each service's bad canary is rolled back at the latest, and how often a good one is by chance."""
    from greenops_pipelines.slo import canary_certificates

    found = context.obj().canaries(load_settings())
    if as_json:
        _print_json(
            {
                "certificates": canary_certificates.certificates_table(found).to_pylist(),
                "chances": canary_certificates.chances_table(found).to_pylist(),
            }
        )
        return
    for line in canary_certificates.lines(found):
        typer.echo(line)


def drill(
    context: typer.Context,
    scenario: Annotated[
        str,
        typer.Option(
            help="healthy, errors-N (percent), latency, canary-dies, no-traffic, metrics-vanish, prometheus-down, "
            "prometheus-hangs, prometheus-slow, prometheus-restart; several with commas."
        ),
    ] = "errors-100",
    service: Annotated[
        str | None, typer.Option(help="Of ops/canary.yaml; by default the first.", show_default=False)
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="cumulative or consecutive; by default the one that is declared.", show_default=False),
    ] = None,
    speed: Annotated[
        float, typer.Option(help="All clocks this many times as fast: for trying out, never for a certificate.")
    ] = 1.0,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second; by default enough for the first step.", show_default=False),
    ] = None,
    breach_after: Annotated[
        float | None,
        typer.Option(
            help="Seconds from the canary's first request to the breach; by default at random.", show_default=False
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, max=100, help="How often each scenario is drilled.")] = 1,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Scrape without Prometheus, though it may be installed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be drilled, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Drill a canary: real requests, real metrics, the rendered gates; how long a bad one goes on serving."""
    from greenops_pipelines.slo import drill_plans
    from greenops_pipelines.slo.canary_model import VARIANTS
    from greenops_pipelines.slo.drill_results import SCENARIOS, parse_scenarios

    settings = load_settings()
    wired = context.obj()
    declared = wired.canaries(settings)
    chosen = next((each for each in VARIANTS if each == variant), None)
    if chosen != variant:
        raise BadInput(f"--variant: found {variant!r}, allowed: {', '.join(VARIANTS)}")
    if breach_after is not None and not 0 <= breach_after <= 900:
        raise BadInput(f"--breach-after: found {breach_after:g}, allowed: 0 to 900")
    specs = [
        drill_plans.spec(
            declared,
            name,
            service or next(iter(declared.services)),
            variant=chosen,
            rate=rate,
            breach_after_s=breach_after,
            speed=speed,
            embedded=embedded,
        )
        for name in parse_scenarios(scenario)
        for _ in range(repeat)
    ]
    if dry_run:
        if as_json:
            _print_json({"planned": [asdict(spec) for spec in specs]})
            return
        for spec in specs:
            words = SCENARIOS.get(spec.scenario, SCENARIOS["errors-N"].replace("N", spec.scenario.split("-")[-1], 1))
            pace = "" if spec.speed == 1 else f", {spec.speed:g} times as fast"
            typer.echo(
                f"{spec.service:<13}{spec.scenario:<20}{words.split(', e.g.')[0]}; breach after {spec.breach_after_s:.0f} s, "
                f"{spec.rate:g} requests a second, {spec.variant}{pace}"
            )
        return
    held = wired.hold_canary_drills(settings, specs, _progress)
    _show(held, as_json)


def drilled(
    context: typer.Context, limit: Annotated[int, typer.Option(min=1, max=10_000)] = 30, as_json: Json = False
) -> None:
    """Past canary drills, newest first, with what each measured and its evidence."""
    from greenops_pipelines.slo import canary_checks
    from greenops_pipelines.slo.drill_results import line_of

    rows = canary_checks.listed(context.obj().lake(load_settings()), limit)
    if as_json:
        _print_json({"drills": rows})
        return
    for row in rows:
        typer.echo(f"{row['began_at'][:16]}Z  {line_of(row)}")


def _show(held: Any, as_json: bool) -> None:
    from greenops_pipelines.slo.drill_results import line

    if as_json:
        _print_json(held.as_document())
    else:
        for each in (*held.remains, *held.drills):
            typer.echo(line(each.result))
    raise typer.Exit(0 if held.ok else 1)


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")
