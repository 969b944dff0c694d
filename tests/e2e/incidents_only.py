"""The sensor of burning budgets, with nothing else that would fire."""

import dagster as dg

from assets import budgets
from greenops_pipelines.resources import Platform
from sensors.slo import INCIDENTS, slo_burning

defs = dg.Definitions(
    assets=[budgets.incidents],
    jobs=[INCIDENTS],
    sensors=[slo_burning],
    resources={"platform": Platform()},
    executor=dg.in_process_executor,
)
