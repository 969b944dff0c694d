"""The partitionings of the graph. A run holds one of them."""

import dagster as dg

FIRST_DAY = "2020-01-01"

DAILY = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, timezone="UTC", end_offset=1)
"""UTC days, today included: the day under way is fetched again every hour."""

IMAGES = dg.DynamicPartitionsDefinition(name="images")
"""Digests of images, added as they are noticed; never removed, so that what was said of an old one can be looked up."""
