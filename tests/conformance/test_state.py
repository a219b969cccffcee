"""What counts as a change of state that all code in a process shares."""

import functools
import subprocess
import sys

import torch

from conformance.isolation.state import SharedState


def test_a_package_may_wrap_a_function_of_its_own_when_it_loads():
    code = """
import torch
from conformance.isolation.state import SharedState
state, plain = SharedState(), torch.manual_seed
import torch._dynamo
assert torch.manual_seed is not plain, "torch._dynamo no longer wraps it: this test has nothing to show"
print(state.replaced_functions())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_wrapper_from_elsewhere_is_a_change():
    state, plain = SharedState(), torch.softmax

    @functools.wraps(plain)
    def softmax(*args, **kwargs):
        return plain(*args, **kwargs)

    torch.softmax = softmax
    assert state.replaced_functions() == ["the function torch.softmax"]
    assert torch.softmax is plain
