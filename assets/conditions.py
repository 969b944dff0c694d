"""When the state of the graph asks for work."""

import dagster as dg

_HANDLED = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()

# `eager` with two differences. No wait for missing dependencies: a daily input has thousands of partitions from 2020
# on that will never be filled, and each of them would count as missing for ever. And what is missing at the first look
# is asked for, where `eager` takes everything before its first look as handled: inputs that arrived while the daemon
# was starting would be followed only after the next change. Once asked for, an asset waits for news: no retry for ever.
FOLLOW_INPUTS = (
    dg.AutomationCondition.in_latest_time_window()
    & (dg.AutomationCondition.newly_missing() | dg.AutomationCondition.any_deps_updated()).since(_HANDLED)
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
).with_label("after its inputs changed and their blocking checks passed")
