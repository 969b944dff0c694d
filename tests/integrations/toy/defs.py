"""Somebody's own Dagster project, which installed the wheel. Its clock is a file, so that a test can set it."""

import os
from datetime import datetime
from pathlib import Path

import dagster as dg

from greenops_pipelines.integrations.dagster import Launch, carbon_aware_schedule

HOME = Path(os.environ["DAGSTER_HOME"])
FORECASTS = os.environ["TOY_FORECASTS"]


def now() -> datetime:
    """What the test says."""
    return datetime.fromisoformat((HOME / "clock").read_text(encoding="utf-8"))


@dg.op(config_schema={"zone": str})
def train(context: dg.OpExecutionContext) -> None:
    """Leaves a line for every time it really ran."""
    with (HOME / "ran").open("a", encoding="utf-8") as lines:
        lines.write(f"{context.run.tags['greenops/key']} in {context.op_config['zone']}\n")


@dg.job
def training() -> None:
    """Their job."""
    train()


def config(launch: Launch) -> dict[str, object]:
    """Their job is told where it runs."""
    return {"ops": {"train": {"config": {"zone": launch.zone}}}}


common = {
    "run_config": config,
    "now": now,
    "minimum_interval_seconds": 1,
    "default_status": dg.DefaultSensorStatus.RUNNING,
}
defs = dg.Definitions(
    jobs=[training],
    sensors=[
        carbon_aware_schedule(
            training,
            name="nightly",
            cron="0 1 * * *",
            window="6h",
            duration="1h",
            zones=["DE", "FR"],
            forecast=f"{FORECASTS}/forecast/{{zone}}",
            tags={"team": "ml"},
            **common,
        ),
        carbon_aware_schedule(
            training,
            name="unserved",
            cron="0 1 * * *",
            window="6h",
            duration="1h",
            zones=["DE"],
            forecast=f"{FORECASTS}/down",
            timeout_seconds=2,
            **common,
        ),
        carbon_aware_schedule(
            training,
            name="berlin",
            cron="30 2 * * *",
            execution_timezone="Europe/Berlin",
            window="2h",
            duration="1h",
            zones=["DE"],
            forecast=lambda zone: [],
            **{**common, "default_status": dg.DefaultSensorStatus.STOPPED},
        ),
    ],
)
