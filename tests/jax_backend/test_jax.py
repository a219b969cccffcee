"""The jax backend, where JAX is installed: ``tox -e jax``. What needs no JAX is in tests/conformance/test_backends.py."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax")

from conformance.cases.lines import parse_case
from conformance.examine import Examiner
from conformance.isolation.backends import arrays_of
from conformance.isolation.sandbox import Sandbox
from oracle.formats import FORMATS

KERNELS = Path(__file__).with_name("kernels.py")
LINE = "attention {dtype} b=2 h=2 g=1 l={length} s=5 d=4 e=4 q=normal(0) k=normal(1) v=normal(2)"


def judged(name, dtype="float32", length=3):
    with Sandbox() as sandbox:
        [implementation] = sandbox.load(f"{KERNELS}:{name}", method="attention")
        assert implementation.backend == "jax"
        return Examiner(implementation, dtype, sandbox).examine(parse_case(LINE.format(dtype=dtype, length=length)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_arrays_of_each_dtype_reach_a_kernel_and_come_back(dtype):
    made = np.arange(6).reshape(2, 3).astype(FORMATS[dtype].dtype)
    arrays = arrays_of("jax", "cpu")
    with arrays.calling(len, {dtype}):
        taken = arrays.of(made)
        assert taken.dtype == made.dtype
    back = arrays.plain(taken)
    assert (back.dtype, back.tolist()) == (made.dtype, made.tolist())
    assert arrays.facts(taken) == {"dtype": dtype, "shape": [2, 3], "device": "cpu"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_right_kernel_is_right(dtype):
    judgement = judged("right", dtype)
    assert (judgement.finding, judgement.repeats) == (None, True)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("in_half_precision", "wrong-value", ""),
        ("gives_its_queries_away", "input-changed", "q"),
        ("returns_a_numpy_array", "type", "out is a numpy.ndarray, but should be a jax.Array"),
        ("returns_its_queries", "wrong-value", ""),
        ("sets_the_precision", "global-state", "the JAX setting jax_default_matmul_precision"),
        ("leaks_a_tracer", "type", "Tracer"),
        ("fails_late", "exception", "JaxRuntimeError"),
    ],
)
def test_a_wrong_kernel_is_found_out(name, kind, words):
    finding = judged(name, length=4 if name == "gives_its_queries_away" else 3).finding
    assert finding is not None
    assert finding.kind == kind, finding
    assert words in finding.message


@pytest.mark.parametrize(("dtype", "setting"), [("float64", "True"), ("float32", "False")])
def test_64_bit_types_are_enabled_for_float64_alone(dtype, setting):
    assert f"ValueError: {dtype} {setting} {{CpuDevice" in judged("says_which_dtype_it_got", dtype).finding.message
