"""The lanes of the run queue: what is launched for hours must not keep the graph from its minutes.

`dagster.yaml` gives each lane a number of runs. A run that a person starts in the UI is in no lane.
"""

GRAPH = {"greenops/lane": "graph"}
"""Runs that make assets."""
WORK = {"greenops/lane": "work"}
"""Runs that await placed work."""
DRILLS = {"greenops/lane": "drills"}
"""Runs that drill: one at a time, as drills themselves are."""
