"""Reading a month of metrics for the error-budget ledger: a real Prometheus -> Parquet, through remote read.

2,000 counters, a sample a minute, 30 days: 86.4M samples in blocks that promtool made. The peer is the same ingestion through
the HTTP API's JSON, on the first day, as a ratio per sample. `python -m benchmarks.slo_ledger 200 3` is a smaller run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.measure import Cost, Row, in_own_process, report
from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.budget_tables import BUDGET_TABLES
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.process import prometheus as server
from greenops_pipelines.process.child import Child
from greenops_pipelines.process.ports import free_port
from greenops_pipelines.slo import promtool
from greenops_pipelines.slo.metrics_ingest import ingest
from greenops_pipelines.slo.remote_read import RemoteRead
from greenops_pipelines.slo.series import Selector

SERIES = 2_000
DAYS = 30
PER_DAY = 1_440
FIRST = date(2026, 3, 1)
METRIC = "http_server_requests_total"
_BLOCKS_SECONDS = 3_600


def open_metrics(series: int, day: int) -> pa.Buffer:
    """A day of counters that grow by some 50 a minute, a line a sample, without a loop over them."""
    number = pa.array(np.arange(series))
    label = pc.binary_join_element_wise(
        METRIC + '{service="service-',
        (pc.divide(number, 40)).cast(pa.string()),
        '",pod="pod-',
        number.cast(pa.string()),
        '",status="200"} ',
        "",
    )
    begun = day * 86_400 + int(datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC).timestamp())
    times = pc.binary_join_element_wise(" ", pa.array(begun + 60 * np.arange(PER_DAY)).cast(pa.string()), "\n", "")
    grown = np.random.default_rng(day).poisson(50, (series, PER_DAY)).cumsum(axis=1) + day * 100_000
    lines = pc.binary_join_element_wise(
        pc.take(label, pa.array(np.repeat(np.arange(series), PER_DAY))),
        pa.array(grown.ravel()).cast(pa.string()),
        pc.take(times, pa.array(np.tile(np.arange(PER_DAY), series))),
        "",
    )
    # The texts of an Arrow array lie one behind the other: they are the file.
    return lines.buffers()[2]


def _blocks(folder: Path, series: int, days: int) -> None:
    for day in range(days):
        file = folder / "samples.txt"
        with file.open("wb") as out:
            out.write(f"# TYPE {METRIC.removesuffix('_total')} counter\n".encode())
            out.write(open_metrics(series, day))
            out.write(b"# EOF\n")
        # promtool parses the whole file once per block: few and long ones.
        command = ["tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=24h"]
        done = subprocess.run(
            [str(promtool.found()), *command, str(file), str(folder / "data")],
            capture_output=True,
            text=True,
            check=False,
            timeout=_BLOCKS_SECONDS,
        )
        if done.returncode:
            raise SystemExit(f"promtool: {done.stderr.strip()[-300:]}")
        file.unlink()


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    port = free_port()
    (folder / "prometheus.yml").write_text("{}\n")
    arguments = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=100y",  # 15 days by default: half of the month would go
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with Child.start([server.PROGRAM, *arguments], log=folder / "prometheus.log", install=server.INSTALL) as child:
        child.wait_for_http(f"http://127.0.0.1:{port}/-/ready", seconds=120)
        yield f"http://127.0.0.1:{port}"


def _case(route: str, url: str, folder: str, days: str) -> None:
    home = Path(folder) / route
    lake = Lake(LocalFolder(home / "lake"), home / "warehouse.duckdb", {}, BUDGET_TABLES)
    source = RemoteRead(url)
    if route == "matrix":
        source.route = "HTTP matrix"
    wanted = [FIRST + timedelta(days=day) for day in range(int(days))]
    pa.array([0])  # pyarrow imports pandas with its first array, wherever it is installed
    begun = time.perf_counter()
    done = ingest(source, lake, [Selector(METRIC)], wanted, datetime.now(UTC))
    seconds = time.perf_counter() - begun
    if done.failed:
        raise SystemExit(f"{done.failed[0].day}: {done.failed[0].error}")
    report(seconds, samples=done.total("samples"), bytes=done.total("bytes"), requests=source.requests)


def _read(route: str, url: str, folder: Path, days: int, samples: int) -> Cost:
    cost = in_own_process("benchmarks.slo_ledger", route, url, str(folder), str(days))
    assert cost.extra["samples"] == samples, f"{route}: {cost.extra['samples']:,.0f} of {samples:,} samples"
    return cost


def main(series: int = SERIES, days: int = DAYS) -> list[Row]:
    """Seconds, bytes, memory; and how much longer the JSON takes."""
    if promtool.found() is None or not server.found():
        return [Row(f"skipped: {server.INSTALL} is not installed", 0.0, "")]
    with tempfile.TemporaryDirectory(prefix="greenops-bench-") as name:
        folder = Path(name)
        begun = time.perf_counter()
        _blocks(folder, series, days)
        made = time.perf_counter() - begun
        with _serving(folder) as url:
            daily = series * PER_DAY
            ours = _read("remote_read", url, folder, days, daily * days)
            peer = _read("matrix", url, folder, 1, daily)
    size = f"{series:,} series x {days} d at 1 min"
    per_sample = ours.seconds / (daily * days), peer.seconds / daily
    return [
        Row(f"{size} -> Parquet", ours.seconds, "s", f"remote read; peak {ours.peak_mb:,.0f} MB"),
        Row(
            "  a sample", per_sample[0] * 1e6, "us", f"{daily * days:,} samples, {ours.extra['requests']:.0f} requests"
        ),
        Row("  Parquet", ours.extra["bytes"] / 1e6, "MB", f"{ours.extra['bytes'] / (daily * days):.2f} bytes a sample"),
        Row("  one day of it through JSON", peer.seconds, "s", f"the peer; peak {peer.peak_mb:,.0f} MB"),
        Row(
            "  JSON / remote read, a sample",
            per_sample[1] / per_sample[0],
            "x",
            f"{per_sample[1] * 1e6:.2f} us a sample",
        ),
        Row("  blocks by promtool", made, "s", "not counted above"),
    ]


if __name__ == "__main__":
    if sys.argv[1].isdecimal():
        for row in main(int(sys.argv[1]), int(sys.argv[2])):
            print(f"{row.name:<48} {row.figure:>10.3f} {row.unit:<4} {row.note}")
    else:
        _case(*sys.argv[1:])
