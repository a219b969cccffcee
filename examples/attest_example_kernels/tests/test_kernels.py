"""The certification of every kernel of this package, in each of its dtypes a test."""

import pytest


@pytest.mark.attest(method="attention", backend="numpy")
def test_it_is_certified(attest_certify, attest_target):
    """Whatever fits the marker: with other packages of kernels installed, theirs as well."""
    attest_certify(target=attest_target)
