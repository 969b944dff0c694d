"""Child programs that are started, awaited and reaped. Not here: any particular program."""
