"""Carbon-aware schedules for any Dagster project: one call makes the sensor that launches your job when the grid is greenest.

    from greenops_pipelines.integrations.dagster import carbon_aware_schedule

    nightly = carbon_aware_schedule(
        training, cron="0 1 * * *", execution_timezone="Europe/Berlin", window="6h", duration="45m", zones=["DE", "FR"]
    )
    defs = dg.Definitions(jobs=[training], sensors=[nightly])

Importing it costs what Dagster costs. The user's page: docs/dagster-projects.md. Not here: the lineage graph of this
project, whose own placement of work is `greenops_pipelines.placement`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import urlsplit

import dagster as dg

from greenops_pipelines.errors import BadInput
from greenops_pipelines.integrations.looking import Known, look
from greenops_pipelines.integrations.recurrence import Recurrence
from greenops_pipelines.integrations.waiting import Launch, State, Terms, first, resumed
from greenops_pipelines.slo.durations import parse

if TYPE_CHECKING:
    import pyarrow as pa
    from dagster._core.definitions.target import ExecutableDefinition as Job

    from greenops_pipelines.integrations.forecasts import Answer, Bounded, Source

__all__ = ["Forecast", "ForecastSource", "Launch", "carbon_aware_schedule"]

_TICK_TOLERANCE = timedelta(minutes=2)
_LONGEST_SECONDS = 45.0
"""A tick may take a minute."""

Rows: TypeAlias = "pa.Table | Iterable[Mapping[str, object]]"


class ForecastSource(Protocol):
    """What has a name and forecasts: any provider of `greenops_pipelines.carbon`."""

    @property
    def name(self) -> str: ...

    def forecast(self, zone: str) -> pa.Table: ...


Forecast: TypeAlias = "str | ForecastSource | Callable[[str], Rows] | None"


def carbon_aware_schedule(
    job: Job,
    *,
    cron: str,
    window: str | timedelta,
    duration: str | timedelta,
    zones: Sequence[str],
    forecast: Forecast = None,
    headers: Mapping[str, str | dg.EnvVar] | None = None,
    name: str | None = None,
    execution_timezone: str = "UTC",
    interruptible: bool = False,
    piece: str | timedelta = "1h",
    refresh: str | timedelta = "15m",
    timeout_seconds: float = 20.0,
    run_config: Mapping[str, Any] | Callable[[Launch], Mapping[str, Any]] | None = None,
    partition_key: Callable[[Launch], str] | None = None,
    tags: Mapping[str, str] | None = None,
    minimum_interval_seconds: int = 30,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
    description: str | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> dg.SensorDefinition:
    """The sensor that launches `job` where and when it emits least, once per occurrence of `cron`.

    An occurrence may start from its time on the wall clock of `execution_timezone` (one that does not exist: the end of
    the gap; one that comes twice: the second time), and must have ended `window` later. `duration` is how long it runs.
    The start is chosen among `zones` by the newest forecast and chosen again every `refresh`, until it has come. Where
    no forecast can be had the job runs at the latest start, window minus duration, in the first zone, and says so.

    `forecast`: a URL (`{zone}` in it, or it gets a parameter `zone`; `headers` go with it), a provider of ours, or a
    function of the zone; forms in `greenops_pipelines.integrations.forecasts`. None: the provider that GREENOPS_*
    variables configure. It is asked while an occurrence waits, once per `refresh`, for at most `timeout_seconds`.

    `interruptible`: a sensor can start runs, not pause them. The work is launched as several runs, one for each
    `piece` of its duration (rounded up), in the cheapest pieces of the window, counted from the earliest start, never
    two at once as long as a piece keeps to its length. The tag `greenops/piece` ("2/3") says which is which: the
    job has to go on where the one before it ended, or do that share of its work.

    Runs carry the tags `greenops/key`, `zone`, `reason`, `avoided_pct` (of running at once in the first zone),
    `earliest_start`, `deadline`, and `late` or `piece` where they apply. `run_config` and `partition_key` may be
    functions of the `Launch`. `now` is there for tests.

    Raises `BadInput`, one line, for arguments that cannot be kept.
    """
    own_name = name or f"{getattr(job, 'name', 'job')}_carbon_aware"
    try:
        terms = _terms(own_name, cron, execution_timezone, window, duration, zones, refresh, minimum_interval_seconds)
        if interruptible:
            terms = _cut(terms, piece)
        source = _source(forecast, headers or {}, timeout_seconds)
    except BadInput as error:
        raise BadInput(f"carbon_aware_schedule {own_name}: {error}") from None

    known = Known(source)

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        moment = now().astimezone(UTC)
        looked = look(terms, _state(terms, context, moment), moment, known)
        for warning in looked.warnings:
            context.log.warning("%s: %s", terms.name, warning)
        requests = [_request(launch, source, run_config, partition_key, tags or {}) for launch in looked.launches]
        if requests:
            context.log.info("%s: %s", terms.name, looked.summary)
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else looked.summary,
            cursor=looked.state.cursor(),
        )

    return dg.SensorDefinition(
        name=own_name,
        evaluation_fn=evaluate,
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description=description
        or f"Launches where and when it emits least: {cron} ({execution_timezone}), within {window}, in {', '.join(zones)}.",
    )


def _terms(
    name: str,
    cron: str,
    timezone: str,
    window: str | timedelta,
    duration: str | timedelta,
    zones: Sequence[str],
    refresh: str | timedelta,
    interval_seconds: int,
) -> Terms:
    if isinstance(zones, str) or not zones or not all(isinstance(zone, str) and zone for zone in zones):
        raise BadInput(f"zones: found {zones!r}, allowed: a list of zones such as ['DE', 'FR']")
    if len(set(zones)) != len(zones):
        raise BadInput(f"zones: found {list(zones)}, allowed: each zone once")
    length = _length("duration", duration)
    return Terms(
        name=name,
        recurrence=Recurrence(cron, timezone),
        window=_length("window", window),
        duration=length,
        zones=tuple(zones),
        piece=length,
        refresh=_length("refresh", refresh),
        tolerance=max(_TICK_TOLERANCE, timedelta(seconds=2 * interval_seconds)),
    )


def _cut(terms: Terms, piece: str | timedelta) -> Terms:
    return replace(terms, piece=min(_length("piece", piece), terms.duration))


def _length(argument: str, value: str | timedelta) -> timedelta:
    if isinstance(value, timedelta):
        found = value
    elif isinstance(value, str):
        try:
            found = parse(value)
        except BadInput as error:
            raise BadInput(f"{argument}: {str(error).removeprefix('duration: ')}") from None
    else:
        raise BadInput(f"{argument}: found {value!r}, allowed: a text such as '45m', or a timedelta")
    if found <= timedelta():
        raise BadInput(f"{argument}: found {value!r}, allowed: more than nothing")
    return found


class _Later:
    """A source that is made, and whose libraries are loaded, when it is first asked."""

    def __init__(self, name: Callable[[], str], make: Callable[[], Source], seconds: float) -> None:
        self.name = name
        self._make = make
        self._seconds = seconds
        self._bounded: Bounded | None = None

    def ask(self, zones: Sequence[str], now: datetime) -> Answer:
        if self._bounded is None:
            from greenops_pipelines.integrations.forecasts import Bounded

            self._bounded = Bounded(self._make, self._seconds)
        return self._bounded.ask(zones, now)


def _source(forecast: Forecast, headers: Mapping[str, str | dg.EnvVar], seconds: float) -> _Later:
    """Who will be asked; what can be seen to be wrong without reaching it is refused at once."""
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise BadInput(f"timeout_seconds: found {seconds!r}, allowed: above 0, and at most {_LONGEST_SECONDS:g}")
    if headers and not isinstance(forecast, str):
        raise BadInput("headers: allowed: with a URL as forecast only")
    if isinstance(forecast, str):
        address = forecast
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise BadInput("forecast: allowed: http(s)://host/path, credentials in headers, a provider, or a function")
        host = parts.hostname
        return _Later(lambda: host, lambda: _address(address, headers, seconds), seconds)
    if forecast is None:
        return _Later(_configured_name, _configured, seconds)
    asked = forecast if callable(forecast) else getattr(forecast, "forecast", None)
    if not callable(asked):
        raise BadInput(
            f"forecast: found {type(forecast).__name__}, allowed: a URL, a provider, or a function of the zone"
        )
    name = str(getattr(forecast, "name", "") or getattr(forecast, "__name__", "function"))
    return _Later(lambda: name, lambda: _called(name, asked), seconds)


def _address(url: str, headers: Mapping[str, str | dg.EnvVar], seconds: float) -> Source:
    from pydantic import SecretStr

    from greenops_pipelines.integrations.forecasts import Address

    # Read here and not at import; a value from the environment is a secret, and starred wherever it would show.
    values = {
        name: SecretStr(value.get_value() or "") if isinstance(value, dg.EnvVar) else value
        for name, value in headers.items()
    }
    return Address(url, values, seconds)


def _configured() -> Source:
    from greenops_pipelines.carbon.sources import provider
    from greenops_pipelines.settings import load_settings

    found = provider(load_settings())
    return _called(found.name, found.forecast)


def _configured_name() -> str:
    from greenops_pipelines.settings import load_settings

    return load_settings().carbon_provider


def _called(name: str, ask: Callable[[str], Any]) -> Source:
    from greenops_pipelines.integrations.forecasts import Called

    return Called(name, ask)


def _state(terms: Terms, context: dg.SensorEvaluationContext, now: datetime) -> State:
    found = State.of(context.cursor) if context.cursor else None
    if found is not None:
        return found
    if context.cursor is None and context.last_tick_completion_time is None:
        return first(now)
    context.log.warning("%s: its cursor was lost; what is open and was not launched is taken up again", terms.name)

    def is_launched(key: str) -> bool:
        filters = dg.RunsFilter(tags={"dagster/run_key": key, "dagster/sensor_name": terms.name})
        return bool(context.instance.get_runs(filters, limit=1))

    return resumed(terms, now, is_launched)


def _request(
    launch: Launch,
    source: _Later,
    run_config: Mapping[str, Any] | Callable[[Launch], Mapping[str, Any]] | None,
    partition_key: Callable[[Launch], str] | None,
    tags: Mapping[str, str],
) -> dg.RunRequest:
    config = run_config(launch) if callable(run_config) else run_config
    name = source.name() if launch.has_forecast else "none"
    own = {**launch.tags, "greenops/forecast": name}
    if name == "sample":
        own["greenops/reason"] += " (sample data)"
    return dg.RunRequest(
        run_key=launch.key,
        run_config=dict(config) if config else None,
        tags={**tags, **own},
        partition_key=partition_key(launch) if partition_key else None,
    )
