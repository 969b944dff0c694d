"""When the state of the graph asks for work."""

import dagster as dg

_INGESTED = dg.AssetSelection.assets(
    ["carbon", "intensity"],
    ["carbon", "usage"],
    *(["slo", name] for name in ("metric_series", "metric_samples", "minutes", "days")),
)
"""Inputs by day since 2020: most of their partitions are never filled, so that one missing says nothing."""

_TICKING = dg.AssetSelection.assets(*(["slo", name] for name in ("metric_series", "metric_samples", "minutes", "days")))
"""Made every few minutes: what follows them has a schedule, or the warehouse and all reports would be made as often."""

_OPTIONAL = dg.AssetSelection.assets(
    ["recovery", "gameday"],
    ["slo", "drill"],
    *(["supply_chain", name] for name in ("sbom", "components", "scans", "attestations", "standing")),
)
"""Where it cannot be made (a machine without PostgreSQL, an image that went before it was read), what reads it goes on
without."""

_HANDLED = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()

_UNSOUND = (
    dg.AutomationCondition.check_failed()
    | dg.AutomationCondition.in_progress()
    | dg.AutomationCondition.execution_failed()
) & ~dg.AutomationCondition.will_be_requested()

# `eager` with three differences.
#
# What is missing at the first look is asked for: `eager` takes everything before it as handled, so inputs that arrived
# while the daemon was starting would be followed only after the next change. Once asked for, an asset waits for news: no
# retry for ever.
#
# No wait for missing partitions of what is ingested by day; there, the blocking checks must have passed instead.
#
# Elsewhere a blocking check must not have failed, nor be under way; that it *passed for the newest materialisation* is not
# asked. Two runs that overlap on an asset leave the check of the one planned last, and the materialisation of the one that
# wrote last: if those are two runs, `check_passed` is false until the asset is made again, which for a file in ops/ may
# be in a month.
_SOUND_INPUTS = (
    ~dg.AutomationCondition.any_deps_missing().ignore(_INGESTED | _OPTIONAL)
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
    & dg.AutomationCondition.all_deps_blocking_checks_passed().allow(_INGESTED)
    & ~dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.any_checks_match(_UNSOUND, blocking_only=True)
    ).ignore(_INGESTED)
)

FOLLOW_INPUTS = (
    dg.AutomationCondition.in_latest_time_window()
    & (dg.AutomationCondition.newly_missing() | dg.AutomationCondition.any_deps_updated().ignore(_TICKING)).since(
        _HANDLED
    )
    & _SOUND_INPUTS
).with_label("after its inputs changed, none of their blocking checks failed or under way")

ONCE = (dg.AutomationCondition.newly_missing().since(_HANDLED) & _SOUND_INPUTS).with_label(
    "once, where there is none yet; a schedule or sensor makes it anew"
)
"""What is too dear to follow every change of its inputs, or follows something that is no asset, while what reads it must
not wait for the first turn of its schedule or sensor."""
