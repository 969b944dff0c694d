"""Telling people: a webhook, PagerDuty, mail. Dry run without a target. Not here: what is worth telling."""
