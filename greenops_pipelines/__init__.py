"""Operational obligations of a SaaS platform, run unattended as one Dagster project."""

__version__ = "0.1.0"
