"""Evidence that others verify: signed bundles, a transparency log, and their offline verification.

    evidence = Evidence(load_settings())
    receipt = evidence.archive.file("J2.1", "carbon/emissions_daily 2026-05-01", {"coverage": 99.2}, files, "passed")
    evidence.verify(receipt.id, evidence.trust()).ok

Not here: who files what, and when.
"""
