"""A real Prometheus that holds a month of counters: it is sent them, day by day, by remote write (`prompb/remote.proto`).

`promtool tsdb create-blocks-from openmetrics` parses text and takes 33 us a sample here, remote write less than 2. Every sample has
18 bytes: a message of 16 with a double and a time in milliseconds, of which the varint has six bytes until the year 2109.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import requests

from greenops_pipelines.process import prometheus as server
from greenops_pipelines.process.child import Child
from greenops_pipelines.process.ports import free_port

METRIC = "http_server_requests_total"
FIRST = date(2026, 3, 1)
PER_DAY = 1_440
STATUSES = {"200": 50.0, "500": 0.02}
"""Requests a minute that each pod answers so, on average."""
_PODS = 20
_TOGETHER = 360  # minutes in a request: 13 MB of 2,000 series


def labels(series: int) -> Iterator[dict[str, str]]:
    """Of each series: services of 20 pods, each pod with a counter per status."""
    per_service = _PODS * len(STATUSES)
    for number in range(series):
        pod, status = divmod(number % per_service, len(STATUSES))
        service = f"service-{number // per_service}"
        yield {"service": service, "pod": f"{service}-{pod}", "status": list(STATUSES)[status]}


def grown(series: int, day: int) -> npt.NDArray[np.int64]:
    """What each series grew by in each minute of a day: series x minutes."""
    mean = np.tile(list(STATUSES.values()), series // len(STATUSES))[:, None]
    return np.random.default_rng(day).poisson(mean, (series, PER_DAY))


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """An empty Prometheus that takes what it is sent, however old; its address."""
    port = free_port()
    (folder / "prometheus.yml").write_text("{}\n")
    arguments = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=100y",  # 15 days by default: half of the month would go
        "--web.enable-remote-write-receiver",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with Child.start([server.PROGRAM, *arguments], log=folder / "prometheus.log", install=server.INSTALL) as child:
        child.wait_for_http(f"http://127.0.0.1:{port}/-/ready", seconds=120)
        yield f"http://127.0.0.1:{port}"


def fill(url: str, series: int, days: int) -> None:
    """A sample a minute, half a minute after it begins, of every series, in order of time."""
    named = [_labels(each) for each in labels(series)]
    value = np.zeros((series, 1), np.int64)
    for day in range(days):
        values = value + grown(series, day).cumsum(axis=1)
        value = values[:, -1:]
        begun = int(datetime.combine(FIRST + timedelta(days=day), time(), UTC).timestamp())
        times = (begun + 30 + 60 * np.arange(PER_DAY)) * 1_000
        for at in range(0, PER_DAY, _TOGETHER):
            part = slice(at, at + _TOGETHER)
            _send(url, write_request(named, times[part], values[:, part]))


def write_request(named: list[bytes], times_ms: npt.NDArray[np.int64], values: npt.NDArray[np.int64]) -> bytes:
    """The WriteRequest, not compressed: labels of each series, times, and values of series x times."""
    samples = np.empty((*values.shape, 18), np.uint8)
    samples[..., 0], samples[..., 1] = 0x12, 16  # field 2 of a series: 16 bytes
    samples[..., 2] = 0x09
    samples[..., 3:11] = values.astype("<f8")[..., None].view(np.uint8)
    samples[..., 11] = 0x10
    for byte in range(6):
        samples[..., 12 + byte] = (times_ms >> 7 * byte) & 0x7F | (0x80 if byte < 5 else 0)
    return b"".join(_field(1, name + rows.tobytes()) for name, rows in zip(named, samples, strict=True))


def _labels(of: dict[str, str]) -> bytes:
    pairs = sorted({"__name__": METRIC, "job": "bench", **of}.items())
    return b"".join(_field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in pairs)


def _field(number: int, content: bytes) -> bytes:
    size, header = len(content), bytearray([number << 3 | 2])
    while size > 0x7F:
        header.append(size & 0x7F | 0x80)
        size >>= 7
    header.append(size)
    return bytes(header) + content


def _send(url: str, message: bytes) -> None:
    answer = requests.post(
        f"{url}/api/v1/write",
        data=pa.Codec("snappy").compress(message, asbytes=True),
        headers={"Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"},
        timeout=300,
    )
    answer.raise_for_status()
