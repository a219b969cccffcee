"""Kernels in Triton, interpreted where there is no GPU: certified like all others."""

from importlib.util import find_spec

import pytest

from conformance.certify import Request, certify
from conformance.hunting.search import Effort

if find_spec("triton") is None:
    pytest.skip("Triton is not installed: pip install 'attest-attention[triton]'", allow_module_level=True)

TARGETS = {
    "dense": ("flash", "flash_with_lse", "split_k"),
    "gated": ("gated_chunked", "gated_recurrent"),
    "linear": ("linear", "scalar_gated_linear"),
    "paged": ("paged",),
    "routing": ("route",),
    "softmax": ("merge",),
    "sparse": ("block_sparse", "local_global"),
}


@pytest.mark.parametrize("target", [f"implementations.triton.{module}:{name}" for module, names in TARGETS.items() for name in names])
def test_no_case_refutes_it(target):
    [certificate] = certify(Request((target,), dtypes=("float32",), effort=Effort(examples=8, seconds=20.0)))
    assert certificate.verdict in ("certified", "inconclusive"), certificate.error or certificate.result.findings
