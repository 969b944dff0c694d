"""`greenops attest`, `greenops verify` and `greenops image ...`. Thin: arguments in, the library's words out.

Exit codes: 0 fine, 1 something is missing or does not verify, 2 bad input. With `--json` one document goes to stdout and
nothing else; progress goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from greenops_pipelines.errors import BadInput
from greenops_pipelines.settings import load_settings

app = typer.Typer(help="Images: what is looked after, what they hold, who vouches for them.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
_Image = Annotated[
    str,
    typer.Argument(help="A name of ops/images.yaml, registry/repository\\[:tag]\\[@digest], or oci:FOLDER\\[:tag]."),
]
_Platforms = Annotated[
    list[str] | None,
    typer.Option("--platform", help="Of an index; may be repeated. By default linux/amd64.", show_default=False),
]


def attest(
    context: typer.Context,
    image: _Image,
    platform: _Platforms = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be attached, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Make an image's SBOM, scan it, sign it, and attach SBOM, scan and provenance to it. To be run inside its build.

    The provenance states what the CI system's own variables say. It is signed with this home's key (GREENOPS_EVIDENCE_KEY).
    """
    from greenops_pipelines.supply_chain import directly
    from greenops_pipelines.supply_chain.attestations import VULNERABILITIES
    from greenops_pipelines.supply_chain.provenance import from_environment, own

    settings = load_settings()
    wired = context.obj()
    declared = _declared(context)
    subject = directly.open_image(image, declared, settings.home, platform or ())
    keys = wired.evidence(settings).keys
    build = own(settings.ops_dir.parent) if subject.image.is_own else from_environment(os.environ)
    if build.is_ci and not settings.evidence_key and not keys.public():
        raise BadInput(
            "GREENOPS_EVIDENCE_KEY: found nothing in a CI job, allowed: a key file or KMS URI; "
            "a key that is made here and thrown away with the job would verify nothing"
        )
    if subject.image.kind == "registry" and "@" not in image:
        _progress(f"{image} is {subject.digest} now; name it by its digest where others may push to that tag")
    done = directly.attest(
        subject,
        declared,
        wired.knowledge(settings, declared, datetime.now(UTC)),
        wired.documents(settings),
        lambda: keys.signer(settings.evidence_key),
        keys.public,
        build,
        datetime.now(UTC),
        syft=settings.syft,
        reports=wired.scan_reports(settings),
        dry_run=dry_run,
        progress=_progress,
    )
    if as_json:
        _print_json(done.as_document())
    else:
        typer.echo(f"{done.image}@{done.digest}")
        for row in done.sboms:
            lacks = "" if row["ntia"] else f"; NTIA minimum elements: {'; '.join((row['missing'] or '').splitlines())}"
            typer.echo(f"  SBOM of {row['platform']}: {row['components']:,} components{lacks}")
        for kind, about in done.statements:
            typer.echo(
                f"  {'would attach' if dry_run else 'attached'}  {kind}  to {', '.join(each[:19] for each in about)}"
            )
        if VULNERABILITIES not in {kind for kind, _ in done.statements}:
            typer.echo("  no scan to attest: neither grype nor trivy is on PATH, and no report was handed in")
        if done.verdict is not None:
            _show(done.verdict)
    if done.verdict is not None and not done.verdict.ok:
        raise typer.Exit(1)


def verify(
    context: typer.Context,
    image: _Image,
    key: Annotated[
        Path | None, typer.Option(help="The signer's public key (PEM) that you trust; by default this home's own.")
    ] = None,
    scan: Annotated[
        bool, typer.Option("--scan", help="A scan must be attached too, young and without anything that counts.")
    ] = False,
    level: Annotated[int, typer.Option(min=0, max=3, help="SLSA build level that the provenance must support.")] = 0,
    as_json: Json = False,
) -> None:
    """Read back everything attached to an image, and verify it: signature, SBOM, provenance. Exit 1 if something is missing."""
    from greenops_pipelines.evidence.opening import public_key
    from greenops_pipelines.supply_chain import directly, vouching

    settings = load_settings()
    wired = context.obj()
    declared = _declared(context)
    subject = directly.open_image(image, declared, settings.home)
    keys = (public_key(key),) if key else wired.evidence(settings).keys.public()
    if not keys:
        raise BadInput("--key: found none, and this home has signed nothing yet; allowed: a PEM file")
    found = vouching.verdict(
        subject.repository,
        subject.digest,
        keys,
        declared.builders,
        wants_scan=scan,
        now=datetime.now(UTC),
        scan_days=declared.gate.scan_days,
        severities=declared.gate.severities,
    )
    ok = found.ok and found.level.level >= level
    if as_json:
        _print_json({"image": subject.name, **directly.document(found), "ok": ok})
    else:
        typer.echo(f"{subject.name}@{subject.digest}")
        _show(found)
    if not ok:
        wanting = [f"it lacks {', '.join(found.missing)}"] if found.missing else []
        if found.level.level < level:
            wanting.append(f"its SLSA build level is {found.level.level}: {found.level.reason}")
        sys.stderr.write(f"greenops: {subject.name}@{subject.digest}: not verified: {'; '.join(wanting)}\n")
        raise typer.Exit(1)


@app.command("list")
def list_images(context: typer.Context, as_json: Json = False) -> None:
    """List the images in use, with what is known of each."""
    from greenops_pipelines.supply_chain import listing

    rows = listing.images(context.obj().lake(load_settings()))
    if as_json:
        _print_json({"images": rows})
        return
    for row in rows:
        components = "no SBOM" if row["components"] is None else f"{row['components']:,} components"
        read_back = f"lacks {row['missing']}" if row["missing"] else "attested"
        stands = row["fault"] or (read_back if row["is_read_back"] else "not read back yet")
        level = "-" if row["slsa_level"] is None else row["slsa_level"]
        sample = "  (sample)" if row["is_sample"] else ""
        typer.echo(
            f"{row['image']}:{row['tag']}  {(row['digest'] or 'cannot be read')[:19]}  {components}  gate: {row['gate'] or '-'}  "
            f"SLSA {level}  {stands}{sample}"
        )
    if not rows:
        typer.echo("no image was noticed yet; greenops run --select 'group:supply_chain'")


@app.command()
def find(
    context: typer.Context,
    package: Annotated[str, typer.Argument(help="Name of a package, % for any text, such as openssl or lib%ssl%.")],
    version: Annotated[str | None, typer.Option(help="Of just this version.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Which images carry it? Exit 1 if none does."""
    from greenops_pipelines.supply_chain import listing

    rows = listing.carrying(context.obj().lake(load_settings()), package, version)
    if as_json:
        _print_json({"components": rows})
    for row in [] if as_json else rows:
        typer.echo(
            f"{row['image']}  {row['digest'][:19]}  {row['platform']}  {row['name']} {row['version'] or '(no version)'}"
            f"{'' if row['in_use'] else '  (no longer in use)'}"
        )
    if not rows:
        sys.stderr.write(f"greenops: no image carries {package}\n")
        raise typer.Exit(1)


@app.command()
def sbom(
    context: typer.Context,
    image: Annotated[str, typer.Argument(help="A name of ops/images.yaml, or a digest.")],
    spdx: Annotated[bool, typer.Option("--spdx", help="SPDX 2.3 instead of CycloneDX 1.6.")] = False,
    platform: Annotated[str | None, typer.Option(help="Where there are several.", show_default=False)] = None,
) -> None:
    """Print a published SBOM, as it was published."""
    from greenops_pipelines.supply_chain import listing, published

    settings = load_settings()
    row = listing.sbom(context.obj().lake(settings), image, platform)
    kind = "spdx" if spdx else "cyclonedx"
    document = published.read(context.obj().documents(settings), row[f"{kind}_key"], row[f"{kind}_sha256"])
    # Not a byte more, into a pipe: its SHA-256 is the one in the table.
    sys.stdout.write(document.decode() + ("\n" if sys.stdout.isatty() else ""))


vex = typer.Typer(help="Signed exceptions to the vulnerability gate, which end.", no_args_is_help=True)
app.add_typer(vex, name="vex")


@vex.command("add")
def add_exception(
    context: typer.Context,
    image: _Image,
    vulnerability: Annotated[str, typer.Argument(help="Its identifier: CVE-2026-12345, GHSA-..., PYSEC-...")],
    justification: Annotated[
        str,
        typer.Option(help="Of a vulnerability that does not affect the image: OpenVEX's words.", show_default=False),
    ] = "",
    status: Annotated[str, typer.Option(help="not_affected or fixed.")] = "not_affected",
    days: Annotated[int, typer.Option(min=1, max=90, help="After which it ends.")] = 30,
    purl: Annotated[str, typer.Option(help="Of the one package it is about; by default all.", show_default=False)] = "",
    notes: Annotated[str, typer.Option(help="Why, for whoever reads it later.", show_default=False)] = "",
    author: Annotated[str, typer.Option(help="Who answers for it.", show_default=False)] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Sign an exception for one image and one vulnerability, and put it into ops/vex. To take it back, remove the file."""
    from greenops_pipelines.supply_chain import directly, exceptions

    settings = load_settings()
    wired = context.obj()
    declared = wired.images(settings)
    subject = directly.open_image(image, declared, settings.home)
    if not author:
        raise BadInput("--author: found nothing, allowed: who answers for the exception, such as a team's name")
    signer = wired.evidence(settings).keys.signer(settings.evidence_key)
    if declared.vex_keys and signer.public.keyid not in {key.keyid for key in declared.vex_keys}:
        raise BadInput("ops/images.yaml: vex.keys: found other keys than this home's, allowed: with its key among them")
    now = datetime.now(UTC).replace(microsecond=0)
    made = {}
    for part in subject.parts:
        envelope = exceptions.make(
            signer,
            vulnerability=vulnerability,
            image_digest=part.manifest.digest,
            image_name=subject.name,
            author=author,
            now=now,
            expires_at=now + timedelta(days=days),
            status=status,
            justification=justification,
            notes=notes,
            purl=purl,
        )
        made[exceptions.file_name(vulnerability, part.manifest.digest, envelope)] = envelope
    if not dry_run:
        exceptions.put(declared.vex_folder, made)
    if as_json:
        _print_json({"files": list(made), "dry_run": dry_run, "expires_days": days})
        return
    for name in made:
        typer.echo(
            f"{'would write' if dry_run else 'wrote'} {declared.vex_folder.name}/{name}, which ends in {days} days"
        )


@vex.command("list")
def list_exceptions(context: typer.Context, as_json: Json = False) -> None:
    """List the exceptions in force, and what is not accepted, with the reason. Exit 1 if something is not."""
    settings = load_settings()
    found = context.obj().intake(settings).knowledge(datetime.now(UTC)).exceptions
    if as_json:
        _print_json(
            {
                "valid": [
                    {
                        "file": each.file,
                        "vulnerability": list(each.ids),
                        "image_digest": each.image_digest,
                        "packages": list(each.purls),
                        "status": each.status,
                        "justification": each.justification or None,
                        "author": each.author,
                        "expires_at": each.expires_at.isoformat(),
                    }
                    for each in found.valid
                ],
                "refused": [{"file": each.file, "reason": each.reason} for each in found.refused],
            }
        )
    else:
        for each in found.valid:
            typer.echo(
                f"{each.ids[0]}  {each.image_digest[:19]}  {each.status} {each.justification}  until {each.expires_at:%Y-%m-%d}  {each.author}"
            )
        for refused in found.refused:
            typer.echo(f"not accepted  {refused.file}: {refused.reason}")
        if not found.valid and not found.refused:
            typer.echo("no exceptions")
    if found.refused:
        raise typer.Exit(1)


def _declared(context: typer.Context) -> Any:
    """ops/images.yaml; in a build elsewhere, where there is none, that build's own builder is the one that counts."""
    from greenops_pipelines.supply_chain.declared import FILE, undeclared
    from greenops_pipelines.supply_chain.provenance import from_environment

    settings = load_settings()
    if (settings.ops_dir / FILE).exists():
        return context.obj().images(settings)
    return undeclared(settings.ops_dir, from_environment(os.environ).builder)


def _show(found: Any) -> None:
    for each in found.found:
        state = "verified" if each.statement is not None else "FAILED  "
        typer.echo(f"  {state}  {each.way:<8}  {each.predicate_type or each.fault}")
    missing = f"lacks {', '.join(found.missing)}" if found.missing else "nothing is missing"
    typer.echo(f"  {missing}; SLSA build level {found.level.level}: {found.level.reason}")


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
