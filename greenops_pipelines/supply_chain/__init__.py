"""Supply chain: what images hold (SBOM), what is known to be wrong with it, who vouches for it, what a cluster admits.

Images lie in a `Repository`, a registry or an OCI layout, and are named by their digest. Not here: signing keys and
evidence (`evidence/`), and when things run.
"""
