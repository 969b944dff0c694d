"""The partitionings of the graph. A run holds one of them."""

import dagster as dg

FIRST_DAY = "2020-01-01"

DAILY = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, timezone="UTC", end_offset=1)
"""UTC days, today included: the day under way is fetched again every hour."""
