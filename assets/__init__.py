"""The lineage graph: one module per domain, thin functions that read, call the library, write, report."""
