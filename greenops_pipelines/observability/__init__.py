"""Dashboards and runbooks as code: rendered from what is declared about the services, and checked before they are needed.

    dashboard.files(subjects) | runbooks.files(subjects)

Not here: the SLOs, alerts and gates themselves, which come in as plain values (`subjects.py`), and where files go
(`greenops_pipelines.gitops`).
"""
