"""When the state of the graph asks for work."""

import dagster as dg

# `eager` without its wait for missing dependencies: a daily input has thousands of partitions from 2020 on that
# will never be filled, and each of them would count as missing for ever.
FOLLOW_INPUTS = (
    dg.AutomationCondition.eager().without(~dg.AutomationCondition.any_deps_missing())
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
).with_label("after its inputs changed and their blocking checks passed")
