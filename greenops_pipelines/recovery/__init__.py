"""Disaster recovery that is proven: the database under drill, and the second copy of the platform itself. Not here: Dagster."""
