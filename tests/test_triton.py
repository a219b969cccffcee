"""Kernels in Triton, interpreted where there is no GPU: certified like all others."""

import pytest

from conformance.certify import Request, certify
from conformance.hunting.search import Effort

pytest.importorskip("triton", reason="Triton is not installed: pip install 'attest-attention[triton]'")


@pytest.mark.parametrize("name", ["triton.flash", "triton.flash_with_lse", "triton.split_k"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_no_case_refutes_it(name, dtype):
    [certificate] = certify(Request((name,), dtypes=(dtype,), effort=Effort(examples=60, seconds=120.0)))
    assert certificate.verdict in ("certified", "inconclusive"), certificate.result and certificate.result.findings
