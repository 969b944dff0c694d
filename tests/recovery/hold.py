"""Holds a GameDay of one scenario on the home of the environment; a process of its own, to be killed.

python hold.py SCENARIO
"""

import sys

from greenops_pipelines import wiring
from greenops_pipelines.recovery.gameday import Wanted
from greenops_pipelines.settings import load_settings

settings = load_settings()
wiring.hold_gameday(
    settings,
    Wanted(scenarios=(sys.argv[1],), databases=wiring.gamedays(settings).databases[:1], with_control=False),  # type: ignore[arg-type]
)
