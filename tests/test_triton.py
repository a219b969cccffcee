"""Kernels in Triton, interpreted where there is no GPU: a look at each; `tox -e triton` certifies them."""

from importlib.util import find_spec
from random import Random

import pytest

if find_spec("triton") is None:
    pytest.skip("Triton is not installed: pip install 'attest-attention[triton]'", allow_module_level=True)

from implementations.triton import interpreter  # isort: skip  (before Triton)

import torch

from conformance.cases.shapes import stages
from conformance.cases.strategies import random_case
from conformance.certify import Request, certify
from conformance.examine import Examiner
from conformance.hunting.search import Effort
from conformance.isolation.sandbox import Sandbox

MODULES = ("dense", "gated", "linear", "paged", "routing", "softmax", "sparse")
CASES = {"float32": 2, "float16": 1, "bfloat16": 1}  # interpreted, a call takes long

# Autotuned, and wrong: it takes the mean of the parts.
SCALED = """
import torch
import triton
import triton.language as tl

@triton.autotune(configs=[triton.Config({"BLOCK": 64}), triton.Config({"BLOCK": 128})], key=["n"])
@triton.jit
def mean(X, OUT, parts, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros([BLOCK], tl.float32)
    for part in range(parts):
        acc += tl.load(X + part * n + i, mask=i < n, other=0.0)
    tl.store(OUT + i, acc / parts, mask=i < n)

def merge_attention_states(outs, lses):
    outs = outs.contiguous()
    out = torch.zeros(outs.shape[1:])
    if out.numel() and len(outs):
        mean[lambda meta: (triton.cdiv(out.numel(), meta["BLOCK"]),)](outs, out, len(outs), out.numel())
    return out, torch.logsumexp(lses, dim=0)
"""


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as sandbox:
        yield sandbox


def few_heads(draw, implementation, dtype):
    drawn = (random_case(draw, implementation, dtype, stages(dtype)[0]) for _ in range(1000))
    return next(case for case in drawn if case.dims.get("b", 1) * case.dims.get("h", 1) <= 2)


@pytest.mark.parametrize("module", MODULES)
def test_a_look_at_each_finds_nothing(module, sandbox):
    for target in [one.target for one in sandbox.load(f"implementations.triton.{module}") if one.name != "triton.flash"]:  # it is another's
        [implementation] = sandbox.load(target)
        for dtype, cases in CASES.items():
            examiner, draw = Examiner(implementation, dtype, sandbox), Random(f"{target} {dtype}")
            for _ in range(cases):
                judgement = examiner.examine(few_heads(draw, implementation, dtype))
                assert judgement.finding is None, judgement.finding


def test_what_the_interpreter_gets_wrong_is_found_out_and_said_in_the_certificate():
    effort = Effort(examples=1, seconds=1.0, diagnose=False)
    [certificate] = certify(Request(("implementations.triton.softmax:merge",), dtypes=("float32",), effort=effort))
    notes = certificate.to_json()["notes"]
    helped = interpreter.widened(torch.bfloat16)
    assert any(note.startswith("interpreted by Triton") for note in notes) == interpreter.INTERPRETED
    assert any(note.startswith("in bfloat16 the interpreter of Triton") for note in notes) == helped
    assert any(note.startswith("in bfloat16 operands are widened to float32") for note in notes) == helped
    assert interpreter.stored_dtype(torch.bfloat16) == (torch.float32 if interpreter.widened(torch.bfloat16) else torch.bfloat16)
    assert not interpreter.widened(torch.float32) and not interpreter.widened(torch.float16)


def test_kernels_of_others_are_interpreted_without_their_doing(tmp_path):
    """Neither does the module set TRITON_INTERPRET, nor is there a GPU to choose the kernel's configuration on."""
    kernel = tmp_path / "scaled.py"
    kernel.write_text(SCALED)
    effort = Effort(examples=4, seconds=10.0, diagnose=False)
    [certificate] = certify(Request((f"{kernel}:merge_attention_states",), dtypes=("float32",), effort=effort))
    assert certificate.verdict == "refuted" and certificate.result.findings[0][0].kind == "wrong-value", certificate
    assert any(note.startswith("interpreted by Triton") for note in certificate.to_json()["notes"])
