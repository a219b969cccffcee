"""Adapters to what other packages ship, one module for each package: their code is judged, nothing of it is here.

Each module is an entry point behind an extra of this package, so that `attest certify` without a target passes over it, and
where the other package is not installed it registers nothing. What each is expected to do is in expected.toml beside this file,
what came of it in docs/thirdparty.md.
"""
