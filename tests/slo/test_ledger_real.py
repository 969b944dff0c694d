"""What was planted in the sample, backfilled into a real Prometheus and read by remote read: the ledger finds the same figures."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from greenops_pipelines.lake import Lake
from greenops_pipelines.lake.storage import LocalFolder
from greenops_pipelines.lake.tables import DECLARED
from greenops_pipelines.process import prometheus as server
from greenops_pipelines.process.child import Child
from greenops_pipelines.process.ports import free_port
from greenops_pipelines.slo import budget_sources, ledger, rendering
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.remote_read import RemoteRead
from greenops_pipelines.slo.sample_incidents import INCIDENTS, PERIOD_DAYS, incidents_between, planted
from greenops_pipelines.slo.sample_metrics import SampleMetrics
from greenops_pipelines.slo.series import Batch, Selector
from tests.slo.conftest import program

ROOT = Path(__file__).parents[2]
SERVICE = "q2q-ai"
[OUTAGE] = [each for each in INCIDENTS if each.id == "q2q-ai-llm-outage"]
SINCE_1970 = 20_000 // PERIOD_DAYS * PERIOD_DAYS + OUTAGE.day
DAY = date(1970, 1, 1) + timedelta(days=SINCE_1970)
DAYS = [DAY - timedelta(days=1), DAY]
NOW = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) + timedelta(days=1, hours=1)

pytestmark = pytest.mark.real


class WithoutMarks:
    """The sample as OpenMetrics can hold it: Prometheus' marks of ended series have no text."""

    name = "sample"

    def read(self, day: date, selectors: Sequence[Selector], until: datetime) -> Batch:
        batch = SampleMetrics().read(day, selectors, until)
        series = batch.series.set_column(
            batch.series.column_names.index("stale_markers"),
            "stale_markers",
            pa.array([0] * batch.series.num_rows, pa.int64()),
        )
        return Batch(series, batch.samples.filter(pc.invert(batch.samples["is_stale"])))


def open_metrics(batch: Batch) -> str:
    """One line per sample, and the end."""
    named: dict[int, str] = {}
    for row in batch.series.to_pylist():
        labels: Mapping[str, str] = json.loads(row["labels"])
        inside = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
        named[row["series_id"]] = f"{row['metric']}{{{inside}}}"
    columns = (batch.samples[name].to_pylist() for name in ("series_id", "time", "value"))
    return "".join(
        f"{named[series]} {value!r} {time.timestamp():.3f}\n" for series, time, value in zip(*columns, strict=True)
    )


@contextmanager
def backfilled(folder: Path, text: str) -> Iterator[str]:
    (folder / "samples.txt").write_text(text + "# EOF\n", encoding="utf-8")
    command = [program("promtool", server.INSTALL), "tsdb", "create-blocks-from", "openmetrics"]
    made = subprocess.run(
        [*command, "--max-block-duration=48h", "samples.txt", "data"], cwd=folder, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    (folder / "prometheus.yml").write_text("{}\n", encoding="utf-8")
    port = free_port()
    arguments = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with Child.start([server.PROGRAM, *arguments], log=folder / "log", install=server.INSTALL) as child:
        child.wait_for_http(f"http://127.0.0.1:{port}/-/ready", seconds=60)
        yield f"http://127.0.0.1:{port}"


def lake_of(folder: Path, source: str) -> Lake:
    chosen = {name: {"source": source} for name in ("metric_series", "metric_samples", "slo_minutes", "slo_days")}
    return Lake(LocalFolder(folder / "lake"), folder / "warehouse.duckdb", chosen, DECLARED, marts=lambda: ())


def counted(lake: Lake, slos: Sequence[Slo], source: str) -> pa.Table:
    found = ledger.count(lake, slos, source, DAYS, NOW)
    assert [day.faults for day in found.days] == [{}, {}]
    return lake.query("select slo_id, minute, total, bad, unplaced_total from slo_minutes order by slo_id, minute")


def test_the_ledger_of_a_real_prometheus_holds_what_was_planted(tmp_path: Path) -> None:
    slos = [slo for slo in rendering.read(ROOT / "ops").slos if slo.service == SERVICE]
    selectors = budget_sources.selectors_of(slos)
    sample, source = lake_of(tmp_path / "sample", "sample"), WithoutMarks()
    text = "".join(open_metrics(source.read(day, selectors, NOW)) for day in DAYS)
    budget_sources.read_days(source, sample, slos, DAYS, NOW)
    direct = counted(sample, slos, "sample")
    assert direct.num_rows == len(slos) * 2 * 1440
    with backfilled(tmp_path, text) as url:
        reader, real = RemoteRead(url), lake_of(tmp_path / "real", "prometheus")
        read = budget_sources.read_days(reader, real, slos, DAYS, NOW)
        assert (read.ingested.failed, reader.route) == ([], "remote read")
        assert read.ingested.total("samples") == text.count("\n")
        # The same minutes to the last digit, however the samples came.
        assert counted(real, slos, "prometheus").equals(direct)
        again = budget_sources.read_days(reader, real, slos, DAYS, NOW + timedelta(days=7))
        assert again.there == tuple(DAYS)
    [outage] = [each for each in incidents_between(NOW - timedelta(days=1), NOW) if each.incident is OUTAGE]
    for found in planted(outage):
        [row] = real.query(
            "select sum(bad) as bad, sum(total) as total, count(*) as minutes from slo_minutes "
            "where slo_id = $1 and minute >= $2 and minute < $3",
            [found.slo, outage.begin, outage.end],
        ).to_pylist()
        assert row["minutes"] == OUTAGE.minutes == 35
        # The traffic without its noise, which is at most 15 % of it; the share that fails is planted, some single events off.
        assert row["total"] == pytest.approx(found.total, rel=0.15)
        assert row["bad"] / row["total"] == pytest.approx(found.share, abs=8 / row["total"])
        [around] = real.query(
            "select 1 - sum(bad) / sum(total) as good from slo_minutes where slo_id = $1 and (minute < $2 or minute >= $3)",
            [found.slo, outage.begin, outage.end],
        ).to_pylist()
        assert around["good"] > 0.97
