"""A kernel whose arrays have one axis, or none, is diagnosed too when no known mistake explains it."""

import pytest

from conformance.hunting.hunt import Hunt
from conformance.hunting.search import Effort
from conformance.isolation.sandbox import Sandbox

KERNELS = """
import math
import numpy as np

def whole_loads(loads):
    x = np.floor(loads.astype(float)) if loads.max(initial=0) >= 1 else loads.astype(float)
    return np.array(x.std() / x.mean() if x.sum() > 0 else 0.0, dtype=loads.dtype)

def capacity(*, tokens, experts, k=1, capacity_factor=1.0, min_capacity=0):
    share = np.float32(tokens) * np.float32(k) / np.float32(experts)
    return max(int(np.ceil(share * np.float32(capacity_factor))), min_capacity)
"""


@pytest.mark.parametrize(("method", "function"), [("load_balance_cv", "whole_loads"), ("expert_capacity", "capacity")])
def test_a_mistake_without_a_name_is_reported_with_a_small_case(tmp_path, method, function):
    (tmp_path / "kernels.py").write_text(KERNELS)
    sandbox = Sandbox()
    [implementation] = sandbox.load(f"{tmp_path / 'kernels.py'}:{function}", method=method, backend="numpy")
    result = Hunt(implementation, "float32", sandbox, Effort(seed=0)).run()
    assert result.verdict == "refuted"
    [(finding, _)] = result.findings
    assert all(size <= 4 for size in finding.case.dims.values())
