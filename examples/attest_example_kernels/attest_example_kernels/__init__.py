"""Kernels of a package that is not part of attest."""
