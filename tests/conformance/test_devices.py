"""Our implementations in PyTorch run on any device: what they make beside their arguments is made where those are.

There is no GPU in CI. A default device that holds no numbers stands in for the wrong one: a tensor that is made without a device is of
no use beside arguments on the processor.
"""

import random

import pytest
import torch

from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.certify import Request, certify
from conformance.hunting.search import Effort
from conformance.isolation.backends import arrays_of
from conformance.isolation.backends.torch import TorchArrays
from conformance.isolation.direct import direct_arguments
from conformance.isolation.sandbox import Sandbox, WorkerDied
from conformance.loading import discover
from oracle import METHODS

CASES = 3


def _on_any_device(registration):
    implementation = registration.implementation
    return implementation.backend == "torch" and implementation.devices == () and METHODS[implementation.method].subject != "cache"


REGISTRATIONS = {one.implementation.name: one for one in discover()[0] if _on_any_device(one)}


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_nothing_is_made_on_another_device_than_that_of_the_arguments(name):
    implementation, function = REGISTRATIONS[name].implementation, REGISTRATIONS[name].callable
    rng, dtype, arrays = random.Random(0), implementation.dtypes[0], arrays_of("torch", "cpu")
    for _ in range(CASES):
        case = random_case(rng, implementation, dtype, STAGES[1])
        leading, keywords = direct_arguments(implementation, case, case.arguments(), arrays)
        with torch.device("meta"):
            result = function(*leading, **keywords)
        outputs = result if isinstance(result, (tuple, list)) else [result]
        devices = {output.device.type for output in outputs if isinstance(output, torch.Tensor)}
        assert devices <= {"cpu"} or not case.arrays, case


def test_a_device_that_fails_for_good_costs_the_worker_so_that_the_next_call_has_one_of_its_own(monkeypatch):
    """As after an illegal address on a GPU: every later call of the process fails, right or wrong."""
    with Sandbox() as sandbox:
        sandbox.load("implementations.numpy.dense:merge")
        with monkeypatch.context() as patch:
            patch.setattr(sandbox, "_receive", lambda limit: {"lost": "AcceleratorError: CUDA error: misaligned address"})
            sandbox.send({"do": "call", "size": 0, "calls": []})
            with pytest.raises(WorkerDied, match="after AcceleratorError: CUDA error: misaligned address") as death:
                sandbox.receive()
        assert (death.value.kind, sandbox.starts) == ("crash", 1)
        sandbox.send({"do": "call", "size": 0, "calls": []})
        assert sandbox.starts == 2


def test_what_made_a_device_fail_for_good_is_a_finding(tmp_path, monkeypatch):
    kernel = tmp_path / "misaligned.py"
    kernel.write_text("import torch\n\ndef attention(q, k, v, *, scale=None):\n    raise RuntimeError('misaligned address')\n")
    monkeypatch.setattr(TorchArrays, "lost", lambda self: True)
    request = Request((f"{kernel}:attention",), method="attention", isolated=False, dtypes=("float32",), effort=Effort(4, 20.0))
    [certificate] = certify(request)
    finding = certificate.result.findings[0][0]
    assert (finding.kind, "RuntimeError: misaligned address" in finding.message) == ("crash", True)
