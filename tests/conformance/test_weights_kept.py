"""`--contract infer` tells in which format a kernel keeps its softmax weights."""

import pytest

from conformance.certify import Request, certify
from conformance.hunting.search import Effort

KERNELS = "tests/conformance/weights_kept.py"
FORMATS = ("float16", "bfloat16", "float8", "int8")


def inferred(function, dtype="float32"):
    request = Request(
        (f"{KERNELS}:{function}",),
        "attention",
        "numpy",
        (dtype,),
        contract="infer",
        effort=Effort(examples=120, diagnose=False),
        isolated=False,
    )
    [certificate] = certify(request)
    return certificate


@pytest.mark.parametrize("form", FORMATS)
def test_the_format_of_the_weights_is_inferred(form):
    certificate = inferred(f"in_{form}")
    assert certificate.result.verdict != "refuted"
    assert certificate.result.contract.name == f"float32-{form}-weights"
    # From the tightest on, each contract that comes before is refuted.
    tried = [(one["contract"], one["verdict"]) for one in certificate.inferred]
    before = tried[: tried.index((f"float32-{form}-weights", "meets"))]
    assert {name for name, _ in before} >= {"float32"}
    assert {verdict for _, verdict in before} == {"refuted"}


@pytest.mark.parametrize(("dtype", "form"), [("bfloat16", "float8"), ("bfloat16", "int8"), ("float16", "float8")])
def test_it_is_in_storage_of_16_bits_too(dtype, form):
    certificate = inferred(f"in_{form}", dtype)
    assert certificate.result.contract.name == f"{dtype}-{form}-weights"
    assert certificate.result.verdict != "refuted"


def test_weights_of_the_storage_format_are_no_news():
    assert inferred("in_bfloat16", "bfloat16").result.contract.name == "bfloat16"
