"""Servers that are told things, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from greenops_pipelines.notify.message import Message
from tests.notify.servers import PostServer

BEGIN = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[PostServer]:
    server = PostServer()
    yield server
    server.close()


@pytest.fixture
def second() -> Iterator[PostServer]:
    server = PostServer()
    yield server
    server.close()


def say(key: str, **changes: object) -> Message:
    fields: dict[str, object] = {
        "key": key,
        "severity": "critical",
        "action": "trigger",
        "title": f"{key} burns",
        "text": "37 x",
        "service": "api-gateway",
        "team": "platform",
        "dedup_key": key,
        "at": BEGIN,
        "links": {"runbook": "https://runbooks.example/slo#api"},
        "component": "availability",
        "kind": "burn",
        "details": {"burn": 37.5},
    }
    return Message(**fields | changes)  # type: ignore[arg-type]
