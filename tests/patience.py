"""How long tests wait for real programs before they give up."""

PATIENCE = 4
"""Limits are those of a fast machine with nothing else to do. Two cores are shared with the other tests, and such cores were
seen that take four times as long for everything."""
