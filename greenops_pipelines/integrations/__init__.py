"""Where the project meets Dagster outside the graph itself."""
