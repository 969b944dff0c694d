"""`greenops evidence ...`: verify, list, show, flush, audit. Thin: arguments in, the library's words out.

Exit codes: 0 verified, 1 a property failed (one line on stderr names it), 2 nothing to verify or wrong arguments.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greenops_pipelines.settings import load_settings

if TYPE_CHECKING:
    from greenops_pipelines.evidence.opening import Evidence

app = typer.Typer(help="Signed evidence: verify, list, show, flush, audit.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Key = Annotated[
    Path | None, typer.Option(help="The signer's public key (PEM) that you trust; by default this home's own.")
]


@app.command()
def verify(
    bundle: Annotated[str, typer.Argument(help="A tar, a folder, or the id of a filed bundle.")],
    key: Key = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="A copy of the second place: the bundle's checkpoint must stand there.")
    ] = None,
    tsa_ca: Annotated[
        Path | None, typer.Option(help="Certificates (PEM) you trust for time stamps; by default the bundle's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify a bundle offline, and say which property failed. Exit 1 if one did."""
    evidence = _evidence()
    report = evidence.verify(bundle, evidence.trust(key, checkpoints, tsa_ca))
    if as_json:
        _print_json(report.as_document())
    else:
        for finding in report.findings:
            typer.echo(f"{finding.state:<7} {finding.property:<21} {_shown(finding.detail)}")
    if not report.ok:
        sys.stderr.write(f"greenops: {report.bundle or bundle}: not verified: {_shown(report.summary)}\n")
        raise typer.Exit(1)
    if not as_json:
        typer.echo(f"{report.bundle}: verified")


@app.command("list")
def list_bundles(
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50, as_json: Json = False
) -> None:
    """List the newest bundles, and all that wait in the queue."""
    evidence = _evidence()
    archive = evidence.archive
    filed = archive.ids()
    rows = [
        {"bundle": name, "state": "queued"} | dict.fromkeys(("control", "subject", "verdict"))
        for name in archive.waiting()
    ]
    rows += [_row(evidence, name) for name in filed[:limit]]
    if as_json:
        _print_json({"filed": len(filed), "bundles": rows})
        return
    for row in rows:
        typer.echo(
            _shown(
                f"{row['bundle']}  {row['state']:<6}  {row['verdict'] or '-':<8}  {row['control'] or '-'}  {row['subject'] or ''}"
            )
        )
    typer.echo(f"{len(filed)} filed, {len(rows) - len(filed[:limit])} queued")


@app.command()
def show(bundle: Annotated[str, typer.Argument(help="The id of a filed bundle.")], as_json: Json = False) -> None:
    """Show what a filed bundle says. Exit 1 if it does not verify; then nothing of it is shown."""
    evidence = _evidence()
    report = evidence.verify(bundle, evidence.trust())
    if not report.ok or report.statement is None:
        sys.stderr.write(f"greenops: {bundle}: not verified: {_shown(report.summary)}\n")
        raise typer.Exit(1)
    said = report.statement.model_dump(mode="json", by_alias=True)
    if as_json:
        _print_json(said)
        return
    predicate = report.statement.predicate
    for name in ("bundle", "control", "subject", "verdict", "requested_at", "created_at"):
        typer.echo(f"{name.replace('_', ' '):<13} {_shown(str(getattr(predicate, name)))}")
    for name, figure in predicate.figures.items():
        typer.echo(f"  {_shown(name)}: {_shown(str(figure))}")
    for subject in report.statement.subject:
        typer.echo(f"  {subject.digest.sha256}  {subject.name}")


@app.command()
def flush(as_json: Json = False) -> None:
    """Go on with the bundles that wait in the queue. Exit 1 if some still wait."""
    receipts = _evidence().archive.flush()
    if as_json:
        _print_json({"bundles": [receipt.__dict__ for receipt in receipts]})
    else:
        for receipt in receipts:
            typer.echo(f"{receipt.id}  {receipt.state:<6}  {_shown(receipt.detail)}")
    left = [receipt for receipt in receipts if receipt.state == "queued"]
    if left:
        sys.stderr.write(f"greenops: {len(left)} bundles still wait: {_shown(left[0].detail)}\n")
        raise typer.Exit(1)


@app.command()
def audit(key: Key = None, as_json: Json = False) -> None:
    """Check the whole log: entries, checkpoints, every bundle, and the second place. Exit 1 if something is wrong."""
    evidence = _evidence()
    found = evidence.audit(evidence.trust(key))
    if as_json:
        document = {"whole": found.ok, "entries": found.entries, "bundles": found.bundles}
        _print_json(document | {"properties": [finding.__dict__ for finding in found.findings]})
    else:
        for finding in found.findings:
            typer.echo(f"{finding.state:<7} {finding.property:<21} {_shown(finding.detail)}")
    failed = [finding for finding in found.findings if finding.state == "failed"]
    if failed:
        sys.stderr.write(f"greenops: the log is not whole: {failed[0].property}: {_shown(failed[0].detail)}\n")
        raise typer.Exit(1)


def _evidence() -> Evidence:
    # Imported late: cryptography and the time-stamp reader would slow down every other command.
    from greenops_pipelines.evidence.opening import Evidence

    return Evidence(load_settings())


def _row(evidence: Evidence, bundle: str) -> dict[str, str | None]:
    report = evidence.verify(bundle, evidence.trust())
    if not report.ok or report.statement is None:
        return {"bundle": bundle, "state": "broken", "control": None, "subject": report.summary, "verdict": None}
    said = report.statement.predicate
    return {
        "bundle": bundle,
        "state": "filed",
        "control": said.control,
        "subject": said.subject,
        "verdict": said.verdict,
    }


def _shown(text: str) -> str:
    """Foreign text on one line of a terminal: nothing in it moves the cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
