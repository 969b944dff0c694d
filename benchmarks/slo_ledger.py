"""The error-budget ledger over a month of metrics: a real Prometheus -> Parquet through remote read, the count, the calendar report.

2,000 counters, a sample a minute, 30 days: 86.4M samples. The peer of reading is the same ingestion through the HTTP API's JSON, on
the first day, as a ratio per sample; that of counting is a plain DuckDB query that sums what every series grew by, over the same
files: it knows no resets, births or gaps. `python -m benchmarks.slo_ledger 200 3` is a smaller run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks import metrics_server
from benchmarks.measure import PROJECT, Cost, Row, best_of, in_own_process, report
from benchmarks.metrics_server import FIRST, METRIC, PER_DAY
from greenops_pipelines import wiring
from greenops_pipelines.lake.tables import SLO_DEFINITIONS
from greenops_pipelines.process import prometheus as server
from greenops_pipelines.settings import Settings
from greenops_pipelines.slo import ledger
from greenops_pipelines.slo.metrics_ingest import ingest
from greenops_pipelines.slo.model import Events, Slo
from greenops_pipelines.slo.remote_read import RemoteRead
from greenops_pipelines.slo.series import Selector

SERIES = 2_000
DAYS = 30
_MODULE = "benchmarks.slo_ledger"
_SOURCE = "prometheus"


def _settings(url: str, home: Path) -> Settings:
    return Settings(_env_file=None, home=home, dbt_dir=Path(PROJECT) / "dbt", prometheus_url=url)


def _slos(series: int) -> list[Slo]:
    names = sorted({each["service"] for each in metrics_server.labels(series)})
    return [
        Slo(
            id=f"{name}-availability",
            name="availability",
            service=name,
            objective=99.9,
            period=timedelta(days=30),
            events=Events(
                f'sum(rate({METRIC}{{service="{name}",status=~"5.."}}[{{{{.window}}}}]))',
                f'sum(rate({METRIC}{{service="{name}"}}[{{{{.window}}}}]))',
            ),
            raw=None,
        )
        for name in names
    ]


def _read(route: str, url: str, home: Path, days: int) -> None:
    lake = wiring.lake(_settings(url, home))
    source = RemoteRead(url)
    if route == "matrix":
        source.route = "HTTP matrix"
    wanted = [FIRST + timedelta(days=day) for day in range(days)]
    lake.refresh()  # parses the dbt project, once per home
    begun = time.perf_counter()
    done = ingest(source, lake, [Selector(METRIC)], wanted, datetime.now(UTC))
    seconds = time.perf_counter() - begun
    if done.failed:
        raise SystemExit(f"{done.failed[0].day}: {done.failed[0].error}")
    report(seconds, samples=done.total("samples"), bytes=done.total("bytes"), requests=source.requests)


def _count(url: str, home: Path, series: int, days: int) -> None:
    lake, slos = wiring.lake(_settings(url, home)), _slos(series)
    wanted = [FIRST + timedelta(days=day) for day in range(days)]
    lake.refresh()
    begun = time.perf_counter()
    ledger.count(lake, slos, _SOURCE, wanted, datetime.now(UTC))
    seconds = time.perf_counter() - begun
    [found] = lake.query("select sum(total)::bigint as total, sum(bad)::bigint as bad from slo_minutes").to_pylist()
    report(seconds, total=found["total"], bad=found["bad"])


def _calendar(url: str, home: Path, series: int) -> None:
    settings = _settings(url, home)
    lake = wiring.lake(settings)
    rows = [
        {
            "slo_id": slo.id,
            "service": slo.service,
            "slo": slo.name,
            "objective": slo.objective,
            "error_budget_minutes": 43.2,
            "period_days": 30.0,
            "profile": "workbook",
            "pages": True,
            "tickets": True,
            "team": "bench",
            "description": "",
            "error_query": "",
            "total_query": None,
            "time_zone": "Europe/Berlin",
            "yellow_below_percent": 20.0,
        }
        for slo in _slos(series)
    ]
    lake.write(SLO_DEFINITIONS, pa.Table.from_pylist(rows, schema=SLO_DEFINITIONS.schema))
    built = wiring.dbt_project(settings).build(lake, ["slo_budget_calendar"])
    if built.failed:
        raise SystemExit(f"{built.failed[0].test.name}: {built.failed[0].message}")
    report(built.seconds["slo_budget_calendar"])


def _plain(home: Path) -> None:
    files = str(home / "lake" / "bronze" / "metric_samples" / "**" / "*.parquet")
    with duckdb.connect() as connection:
        connection.execute("set threads = 2")

        def work() -> None:
            connection.execute(
                """
                with grown as (
                    select series_id, time, value - lag(value) over (partition by series_id order by time) as by_this
                    from read_parquet(?)
                )
                select series_id % 50 as service, date_trunc('minute', time) as minute, sum(by_this) from grown group by all
                """,
                [files],
            ).fetchall()

        report(best_of(1, work))


def _planted(series: int, days: int) -> tuple[int, int]:
    """All events and bad ones: of what the counters grew by after their first sample, of which nobody knows the past."""
    total = bad = 0
    is_bad = [each["status"] == "500" for each in metrics_server.labels(series)]
    for day in range(days):
        grown = metrics_server.grown(series, day)
        if day == 0:
            grown[:, 0] = 0
        sums = grown.sum(axis=1)
        total += int(sums.sum())
        bad += int(sums[is_bad].sum())
    return total, bad


def _case(case: str, url: str, home: str, series: str, days: str) -> None:
    if case == "count":
        _count(url, Path(home), int(series), int(days))
    elif case == "calendar":
        _calendar(url, Path(home), int(series))
    elif case == "plain":
        _plain(Path(home))
    else:
        _read(case, url, Path(home), int(days))


def main(series: int = SERIES, days: int = DAYS) -> list[Row]:
    """Seconds, bytes, memory; and how much longer the JSON takes."""
    if not server.found():
        return [Row(f"skipped: {server.INSTALL} is not installed", 0.0, "")]
    daily = series * PER_DAY

    def cost(case: str, home: Path, days: int = days) -> Cost:
        return in_own_process(_MODULE, case, url, str(home), str(series), str(days))

    with tempfile.TemporaryDirectory(prefix="greenops-bench-") as name:
        folder = Path(name)
        with metrics_server.serving(folder) as url:
            begun = time.perf_counter()
            metrics_server.fill(url, series, days)
            filled = time.perf_counter() - begun
            ours, peer = cost("remote_read", folder / "home"), cost("matrix", folder / "matrix", 1)
        for read, wanted in ((ours, daily * days), (peer, daily)):
            assert read.extra["samples"] == wanted, f"{read.extra['samples']:,.0f} of {wanted:,} samples"
        counted, plain = cost("count", folder / "home"), cost("plain", folder / "home")
        calendar = cost("calendar", folder / "home")
        planted = _planted(series, days)
        found = counted.extra["total"], counted.extra["bad"]
        assert found == planted, f"counted {found}, planted {planted}"
    per_sample = ours.seconds / (daily * days), peer.seconds / daily
    stored = ours.extra["bytes"]
    return [
        Row(f"{series:,} series x {days} d -> Parquet", ours.seconds, "s", f"remote read; peak {ours.peak_mb:,.0f} MB"),
        Row("  a sample", per_sample[0] * 1e6, "us", f"{daily * days:,} in {ours.extra['requests']:.0f} requests"),
        Row("  Parquet", stored / 1e6, "MB", f"{stored / (daily * days):.2f} bytes a sample"),
        Row("  one day of it through JSON", peer.seconds, "s", f"the peer; peak {peer.peak_mb:,.0f} MB"),
        Row(
            "  JSON / remote read, a sample",
            per_sample[1] / per_sample[0],
            "x",
            f"{per_sample[1] * 1e6:.2f} us a sample",
        ),
        Row(f"  count of {series // 40} SLOs", counted.seconds, "s", f"aim: 15 s; peak {counted.peak_mb:,.0f} MB"),
        Row("  the same by plain DuckDB", plain.seconds, "s", f"no resets, gaps, births; peak {plain.peak_mb:,.0f} MB"),
        Row(
            "  ours / plain", counted.seconds / plain.seconds, "x", f"{planted[0]:,} events, {planted[1]:,} of them bad"
        ),
        Row("  calendar report", calendar.seconds, "s", "aim: 1 s; months and quarters in Europe/Berlin"),
        Row("  Prometheus filled by remote write", filled, "s", "not counted above"),
    ]


if __name__ == "__main__":
    if sys.argv[1].isdecimal():
        for row in main(int(sys.argv[1]), int(sys.argv[2])):
            print(f"{row.name:<48} {row.figure:>10.3f} {row.unit:<4} {row.note}")
    else:
        _case(*sys.argv[1:])
