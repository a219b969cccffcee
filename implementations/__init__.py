"""The built-in implementations: each method at least once per backend, written unlike its specification.

They register with `conformance` as any third party would: each module is an entry point of the group
`attest.implementations` in pyproject.toml, so that a machine without a backend's library can still run the others.
"""
