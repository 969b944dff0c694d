"""What an SBOM costs beside Syft called by hand, and how long "which images carry X?" takes over a million components.

The images hold distributions of this environment, each another selection, so that Syft has something to read. By hand means
the same program with the same settings on the same layout, both formats, and nothing else: no look at the layers, no
suppliers, no order, no check of the minimum elements.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, best_of, in_own_process, report
from greenops_pipelines.supply_chain import environment
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import OCI_CONFIG, OCI_MANIFEST

IMAGES = int(os.environ.get("GREENOPS_BENCH_IMAGES", "20"))
COMPONENTS = 1_000_000
_NAME = "registry.example.com/bench/app"


def main() -> list[Row]:
    """Seconds and memory per image; milliseconds per question."""
    with tempfile.TemporaryDirectory(prefix="greenops-bench-") as folder:
        size = _build(Path(folder))
        by_hand = in_own_process("benchmarks.supply_chain", "hand", folder)
        ours = in_own_process("benchmarks.supply_chain", "ours", folder)
    rows = [
        Row(
            f"SBOMs of {IMAGES} images by hand",
            by_hand.seconds,
            "s",
            f"{size / 1e6:.0f} MB of layers, Syft {by_hand.extra['child_mb']:.0f} MB",
        ),
        Row(
            f"SBOMs of {IMAGES} images, ours",
            ours.seconds,
            "s",
            f"{ours.seconds / by_hand.seconds:.2f}x; {ours.extra['components']:.0f} components, "
            f"{ours.peak_mb:.0f} MB, Syft {ours.extra['child_mb']:.0f} MB",
        ),
    ]
    for images in (20, 1000):
        asked = in_own_process("benchmarks.supply_chain", "ask", str(images))
        note = f"{images} images, {COMPONENTS:,} components, {asked.peak_mb:.0f} MB; floor {asked.extra['floor_ms']:.1f} ms"
        rows.append(Row("which images carry it?", asked.seconds * 1000, "ms", note))
    return rows


def _build(folder: Path) -> int:
    """The images, as layouts of their own; bytes of their layers."""
    found = [each for each in environment.distributions(environment.site_packages()) if each.lines]
    total = 0
    for number in range(IMAGES):
        chosen = found[number :: IMAGES // 2 or 1]
        layer = _layer(chosen)
        layout = Layout(folder / f"image-{number:02}", create=True)
        config: dict[str, Any] = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"org.opencontainers.image.vendor": "greenops-pipelines"}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": layout.put_blob(json.dumps(config).encode(), OCI_CONFIG).as_document(),
            "layers": [layout.put_blob(layer, "application/vnd.oci.image.layer.v1.tar").as_document()],
        }
        layout.put_manifest(json.dumps(manifest).encode(), OCI_MANIFEST, "bench")
        total += len(layer)
    return total


def _layer(chosen: list[environment.Distribution]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for each in chosen:
            for line, _, _ in each.lines or ():
                path = each.path(line)
                if line.startswith("../") or len(line) > 90 or not path.is_file() or path.stat().st_size > 2_000_000:
                    continue
                info = tarfile.TarInfo(f"app/site-packages/{line}")
                data = path.read_bytes()
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            # RECORD is no line of its own wheel, and Syft reads it.
            name = next(line for line, _, _ in each.lines or () if line.endswith(".dist-info/METADATA"))
            info = tarfile.TarInfo(f"app/site-packages/{name.rpartition('/')[0]}/RECORD")
            tar.addfile(info, io.BytesIO())
    return out.getvalue()


def _hand(folder: Path) -> None:
    from greenops_pipelines.supply_chain import syft

    begun = time.perf_counter()
    for layout in sorted(folder.iterdir()):
        syft.scan(f"oci-dir:{layout}", folder.parent, name=_NAME, version="1")
    report(time.perf_counter() - begun, child_mb=_child_mb())


def _ours(folder: Path) -> None:
    from greenops_pipelines.supply_chain import making
    from greenops_pipelines.supply_chain.declared import Image
    from greenops_pipelines.supply_chain.subjects import Subject

    seconds, components = [], 0
    for layout in sorted(folder.iterdir()):
        repository = Layout(layout)
        manifest = repository.manifest("bench")
        image = Image(name="bench", source=_NAME)
        subject = Subject(image, _NAME, manifest.digest, repository, manifest)
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="greenops-bench-") as scratch:
            for part in subject.parts:
                components += making.make(subject, part, Path(scratch)).sbom.components
        seconds.append(time.perf_counter() - begun)
    report(
        sum(seconds), components=components, child_mb=_child_mb(), slowest=max(seconds), mean=statistics.mean(seconds)
    )


def _child_mb() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def _ask(images: int) -> None:
    """One name among a million rows; the floor is the same question to one Parquet file, sorted by nothing."""
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from greenops_pipelines import wiring
    from greenops_pipelines.lake.supply_tables import SBOM_COMPONENTS
    from greenops_pipelines.settings import Settings

    per = COMPONENTS // images
    with tempfile.TemporaryDirectory(prefix="greenops-bench-") as home:
        lake = wiring.lake(Settings(_env_file=None, home=Path(home)))
        rng = np.random.default_rng(1)
        parts = []
        for number in range(images):
            names = [f"package-{each:05}" for each in rng.integers(0, 20_000, per)]
            if number % 20 == 0:
                names[0] = "openssl"
            digest = f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}"
            same = {"image": f"image-{number}", "image_digest": digest, "platform": "linux/amd64", "kind": "deb"}
            columns = {name: [value] * per for name, value in same.items()}
            columns |= {"name": names, "version": [f"1.{at % 50}" for at in range(per)]}
            columns |= {"ref": [f"{name}-{at}" for at, name in enumerate(names)], "supplier": ["Debian"] * per}
            columns |= {
                "purl": [f"pkg:deb/debian/{name}@1" for name in names],
                "licences": ["MIT"] * per,
                "path": ["/x"] * per,
            }
            parts.append(pa.table(columns).select(SBOM_COMPONENTS.schema.names).cast(SBOM_COMPONENTS.schema))
        rows = pa.concat_tables(parts)
        lake.write(SBOM_COMPONENTS, rows)
        one = Path(home) / "one.parquet"
        pq.write_table(rows, one)
        wanted = "select * from {} where name = 'openssl'"
        connection = duckdb.connect(Settings(_env_file=None, home=Path(home)).warehouse, read_only=True)
        found = connection.sql(wanted.format("sbom_components")).fetchall()
        assert len(found) == -(-images // 20)
        seconds = best_of(5, lambda: connection.sql(wanted.format("sbom_components")).fetchall())
        floor = best_of(5, lambda: connection.sql(wanted.format(f"read_parquet('{one}')")).fetchall())
    report(seconds, floor_ms=floor * 1000)


if __name__ == "__main__":
    case, argument = sys.argv[1:3]
    {"hand": lambda: _hand(Path(argument)), "ours": lambda: _ours(Path(argument)), "ask": lambda: _ask(int(argument))}[
        case
    ]()
