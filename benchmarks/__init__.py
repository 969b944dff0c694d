"""Measured comparisons with a peer or a floor, in the same run. Never timed tests: machines differ, ratios less so."""
