"""The schedules of the FinOps report, with nothing else that would fire."""

import dagster as dg

from assets.cost import report
from greenops_pipelines.resources import Platform
from sensors.cost import REPORT, finops_report_monthly, finops_report_weekly

defs = dg.Definitions(
    assets=[report],
    jobs=[REPORT],
    schedules=[finops_report_monthly, finops_report_weekly],
    resources={"platform": Platform()},
    executor=dg.in_process_executor,
)
