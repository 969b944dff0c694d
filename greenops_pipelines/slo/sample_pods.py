"""Pods of the sample metrics: which lives when, what it is called, and the labels of its series.

Each service runs one pod per primary region, and is deployed anew every fifth day: a pod with a new name and version
starts, and in the minute of its first sample the old one is scraped for the last time.

Not here: what a pod shows (`sample_services.py`), and its samples (`sample_metrics.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from greenops_pipelines.slo.sample_services import Exporter, Line
from greenops_pipelines.slo.sample_traffic import REGIONS, SERVICES, epoch_day, uniforms
from greenops_pipelines.slo.series import label_text, series_id

DAYS_PER_DEPLOYMENT = 5
"""A service of place n in `SERVICES` is deployed on days since 1970 that leave n: one service a day."""

_EPOCH = date(1970, 1, 1)
_FIRST_DEPLOYMENT, _LAST_DEPLOYMENT = 8 * 60, 15 * 60
_REGION_AFTER_REGION_MINUTES = 20
_NAMES = "bcdfghjklmnpqrstvwxz2456789"
"""Of these Kubernetes makes the random parts of names (k8s.io/apimachinery/pkg/util/rand)."""


@dataclass(frozen=True)
class Pod:
    """A pod, by the deployment that started it."""

    service: str
    region: str
    deployed: int
    """Day since 1970."""

    @property
    def started(self) -> datetime:
        """The minute, UTC, of its first sample, in which its counters are 0; of its predecessor's last one, too."""
        midnight = datetime.combine(_EPOCH + timedelta(days=self.deployed), time(), UTC)
        return midnight + timedelta(minutes=start_minute(self.service, self.region, self.deployed))

    @property
    def version(self) -> str:
        """Named after the day it was deployed."""
        day = _EPOCH + timedelta(days=self.deployed)
        return f"{day.year}.{day.month}.{day.day}"

    @property
    def name(self) -> str:
        """As a Deployment's pods are called: one template's hash in all regions, and five letters of its own."""
        return f"{self.service}-{_letters(f'{self.service}:{self.deployed}', 10)}-{_letters(self._key, 5)}"

    @property
    def _key(self) -> str:
        return f"{self.service}:{self.region}:{self.deployed}"

    def labels(self, line: Line) -> dict[str, str]:
        """All labels of the pod's series, the metric's name aside."""
        network = 20 + 20 * sorted(REGIONS).index(self.region)
        node = f"ip-10-{network}-1-{_byte(f'node:{self._key}')}.{self.region}.compute.internal"
        instances: Mapping[Exporter, str] = {
            "service": f"10.{network}.{_byte(f'net:{self._key}')}.{_byte(f'host:{self._key}')}:8080",
            "cadvisor": f"{node}:10250",
            "kube-state-metrics": f"10.{network}.2.17:8080",
        }
        jobs: Mapping[Exporter, str] = {"service": self.service, "cadvisor": "kubelet"}
        own = {"service": self.service, "version": self.version} if line.exporter == "service" else {}
        return {
            **dict(line.labels),
            **own,
            "job": jobs.get(line.exporter, line.exporter),
            "instance": instances[line.exporter],
            "namespace": "production",
            "pod": self.name,
            "node": node,
            "cluster": f"production-{self.region}",
            "region": self.region,
            "environment": "production",
        }


def pods_between(start: datetime, end: datetime) -> tuple[Pod, ...]:
    """The pods that started in [start, end), in that order: where counters begin at 0 under a new name."""
    days = range(epoch_day(start.astimezone(UTC).date()), epoch_day(end.astimezone(UTC).date()) + 1)
    pods = (Pod(service, region, day) for day in days for service in SERVICES for region in REGIONS)
    started = [(pod.started, pod) for pod in pods if is_deployment(pod.service, pod.deployed)]
    return tuple(pod for at, pod in sorted(started, key=lambda found: found[0]) if start <= at < end)


def is_deployment(service: str, day: int) -> bool:
    """Whether the service is deployed on that day since 1970."""
    return day % DAYS_PER_DEPLOYMENT == SERVICES.index(service)


def last_deployment(service: str, day: int) -> int:
    """The last day on which the service was deployed, that day included; days since 1970."""
    return day - (day - SERVICES.index(service)) % DAYS_PER_DEPLOYMENT


def start_minute(service: str, region: str, day: int) -> int:
    """The minute of that day in which its deployment starts the region's pod, one region after the other."""
    drawn = float(uniforms(f"{service}:deployment", day, 1)[0])
    first = _FIRST_DEPLOYMENT + int(drawn * (_LAST_DEPLOYMENT - _FIRST_DEPLOYMENT))
    return first + _REGION_AFTER_REGION_MINUTES * sorted(REGIONS).index(region)


@lru_cache(maxsize=4096)
def identity(pod: Pod, line: Line) -> tuple[Mapping[str, str], str, int, int]:
    """Labels of a line of a pod, their text, the series' number, and how many microseconds into a minute it is scraped."""
    labels = pod.labels(line)
    # Whole milliseconds, as Prometheus keeps them, and a second away from the minute's ends.
    offset = 1_000 + _digest(f"offset:{labels['job']}:{labels['instance']}") % 58_000
    return labels, label_text(labels), series_id(line.metric, labels), offset * 1_000


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"greenops:metrics:{text}".encode()).digest()[:8], "big")


def _byte(text: str) -> int:
    return 4 + _digest(text) % 250


def _letters(text: str, count: int) -> str:
    number, found = _digest(text), ""
    for _ in range(count):
        number, place = divmod(number, len(_NAMES))
        found += _NAMES[place]
    return found
