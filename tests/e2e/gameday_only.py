"""The schedule of GameDays, with nothing else that would fire."""

import dagster as dg

from assets import declarations, evidence, recovery, report
from greenops_pipelines.resources import Platform
from sensors.recovery import GAMEDAY, gameday_monthly

defs = dg.Definitions(
    assets=[*declarations.ASSETS, *evidence.ASSETS, *recovery.ASSETS, *report.ASSETS],
    asset_checks=recovery.CHECKS,
    jobs=[GAMEDAY],
    schedules=[gameday_monthly],
    resources={"platform": Platform()},
    executor=dg.in_process_executor,
)
