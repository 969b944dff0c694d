"""Carbon-aware placement: which work may run where and when, and where and when it runs."""
